//! Feishu custom robot: signature in the body, seconds; 100 a minute and 5 a second.

use std::time::Duration;

use serde_json::{Value, json};

use super::{refusal, sign, text};
use crate::Context;
use crate::http::Response;

fn error(code: i64, message: &str) -> Response {
    Response::json(&json!({ "code": code, "msg": message, "data": {} }))
}

pub fn handle(context: &Context<'_>, message: &Value, rest: &str) -> Response {
    let hook = rest.rsplit('/').next().unwrap_or_default();
    if hook.is_empty() || hook == "unknown" {
        return error(
            19_001,
            "param invalid: incoming webhook access token invalid",
        );
    }
    if context.request.body.len() > 20 * 1024 {
        return error(9_499, "Bad Request: body too large");
    }
    if let Some(secret) = &context.options.feishu_secret {
        let stamp = message
            .get("timestamp")
            .map(|t| t.as_str().map_or_else(|| t.to_string(), str::to_owned))
            .unwrap_or_default();
        let age = stamp
            .parse::<i64>()
            .map(|s| ((context.log.now() + context.options.clock_ahead).timestamp() - s).abs());
        let right = sign(&format!("{stamp}\n{secret}"), "") == text(message, "/sign");
        if !right || age.is_err() || age.is_ok_and(|a| a > 3600) {
            return error(
                19_021,
                "sign match fail or timestamp is not within one hour from current time",
            );
        }
    }
    let (title, body) = match text(message, "/msg_type") {
        "text" => ("", text(message, "/content/text").to_owned()),
        "interactive" => {
            let elements = message
                .pointer("/card/elements")
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let parts: Vec<&str> = elements.iter().map(|e| text(e, "/text/content")).collect();
            (
                text(message, "/card/header/title/content"),
                parts.join("\n"),
            )
        }
        _ => return error(9_499, "Bad Request: params error, msg_type need"),
    };
    if body.is_empty() {
        return error(9_499, "Bad Request: empty content");
    }
    let second = context.log.admit(
        &format!("feishu-s:{hook}"),
        5,
        Duration::from_secs(1),
        Duration::from_millis(500),
    );
    if !second
        || !context.log.admit(
            &format!("feishu:{hook}"),
            100,
            Duration::from_secs(60),
            Duration::from_secs(60),
        )
    {
        return error(
            11_232,
            "frequency limited, please create request again later",
        );
    }
    if let Some(refused) = refusal(context, "feishu", message) {
        return refused;
    }
    context
        .log
        .message("feishu", hook, title, &body, message.clone());
    error(0, "success")
}
