//! WeCom group robot: a key in the query, no signature, small messages.

use std::time::Duration;

use serde_json::{Value, json};

use super::{refusal, text};
use crate::Context;
use crate::http::Response;

fn error(code: i64, message: &str) -> Response {
    Response::json(&json!({ "errcode": code, "errmsg": message }))
}

pub fn handle(context: &Context<'_>, message: &Value) -> Response {
    let key = context.request.param("key");
    if key.is_empty() || key == "unknown" {
        return error(
            93_000,
            "invalid webhook url, hint: [1732], from ip: 127.0.0.1",
        );
    }
    let (body, limit) = match text(message, "/msgtype") {
        "markdown" => (text(message, "/markdown/content"), 4096),
        "text" => (text(message, "/text/content"), 2048),
        _ => return error(40_008, "invalid message type"),
    };
    if body.is_empty() {
        return error(44_004, "empty content");
    }
    if body.len() > limit {
        return error(
            40_058,
            &format!("markdown.content exceed max length {limit}. invalid Request Parameter"),
        );
    }
    if !context.log.admit(
        &format!("wecom:{key}"),
        context.options.rate_limit_per_minute,
        Duration::from_secs(60),
        Duration::from_secs(60),
    ) {
        return error(45_009, "api freq out of limit");
    }
    if let Some(refused) = refusal(context, "wecom", message) {
        return refused;
    }
    context.log.message("wecom", key, "", body, message.clone());
    error(0, "ok")
}
