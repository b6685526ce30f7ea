//! DingTalk custom robot: signature in the query, milliseconds; 20 messages a minute, then none for ten minutes.

use std::time::Duration;

use serde_json::{Value, json};

use super::{sign, text};
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
            ((chrono::Utc::now() + context.options.clock_ahead).timestamp_millis() - ms).abs()
        });
        if age.is_err() || age.is_ok_and(|a| a > HOUR_MS) {
            return error(
                310_000,
                "invalid timestamp, more detail at https://open.dingtalk.com",
            );
        }
        if sign(secret, &format!("{stamp}\n{secret}")) != context.request.param("sign") {
            return error(
                310_000,
                "sign not match, more detail at https://open.dingtalk.com",
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
            &format!("keywords not in content: {word}, more detail at https://open.dingtalk.com"),
        );
    }
    if !context.log.admit(
        &format!("dingtalk:{token}"),
        context.options.rate_limit_per_minute,
        Duration::from_secs(60),
        Duration::from_secs(600),
    ) {
        return error(130_101, "send too fast, exceed 20 times per minute");
    }
    context
        .log
        .message("dingtalk", token, title, body, message.clone());
    error(0, "ok")
}
