//! DingTalk custom robot: signature in the query, milliseconds; 20 messages a minute, then none for ten minutes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{refusal, sign, text};
use crate::Context;
use crate::http::Response;

const HOUR_MS: i64 = 3_600_000;

fn error(code: i64, message: &str) -> Response {
    Response::json(&json!({ "errcode": code, "errmsg": message }))
}

pub fn handle(context: &Context<'_>, message: &Value) -> Response {
    let token = context.request.param("access_token");
    if token.is_empty() || token == "unknown" {
        return error(300_001, "token is not exist");
    }
    if context.request.body.len() > 20_000 {
        return error(460_101, "message too long, exceed 20000 bytes");
    }
    if let Some(secret) = &context.options.dingtalk_secret {
        let stamp = context.request.param("timestamp");
        let age = stamp.parse::<i64>().map(|ms| {
            ((context.log.now() + context.options.clock_ahead).timestamp_millis() - ms).abs()
        });
        if age.is_err() || age.is_ok_and(|a| a > HOUR_MS) {
            return error(
                310_000,
                "错误描述:timestamp 无效;解决方案:请使用当前时间的毫秒数",
            );
        }
        if sign(secret, &format!("{stamp}\n{secret}")) != context.request.param("sign") {
            return error(
                310_000,
                "错误描述:机器人发送签名不匹配;解决方案:请确认签名和生成签名的时间戳必须都放在调用的网址中",
            );
        }
    }
    let (title, body) = match text(message, "/msgtype") {
        "markdown" => (
            text(message, "/markdown/title"),
            text(message, "/markdown/text"),
        ),
        "text" => ("", text(message, "/text/content")),
        _ => return error(40_035, "缺少参数 msgtype 或类型不支持"),
    };
    if body.is_empty() || (text(message, "/msgtype") == "markdown" && title.is_empty()) {
        return error(40_035, "缺少参数 title or text");
    }
    if let Some(word) = context
        .options
        .dingtalk_keyword
        .as_ref()
        .filter(|w| !body.contains(w.as_str()) && !title.contains(w.as_str()))
    {
        return error(
            310_000,
            &format!("错误描述:关键词不匹配;解决方案:请联系群管理员查看此机器人的关键词（{word}）"),
        );
    }
    if !context.log.admit(
        &format!("dingtalk:{token}"),
        context.options.rate_limit_per_minute,
        Duration::from_secs(60),
        Duration::from_secs(600),
    ) {
        return error(410_100, "发送速度太快而限流");
    }
    if let Some(refused) = refusal(context, "dingtalk", message) {
        return refused;
    }
    context
        .log
        .message("dingtalk", token, title, body, message.clone());
    error(0, "ok")
}
