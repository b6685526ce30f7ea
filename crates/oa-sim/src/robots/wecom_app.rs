//! Messages of an application of WeCom: a token in the address, cards and Markdown to people, after the platform's documents.

use std::time::Duration;

use serde_json::{Value, json};

use super::text;
use crate::Context;
use crate::http::Response;

fn error(code: i64, message: &str) -> Response {
    Response::json(&json!({ "errcode": code, "errmsg": message }))
}

pub fn token(context: &Context<'_>) -> Response {
    if !context.request.param("corpid").starts_with("ww") {
        return error(40_013, "invalid corpid");
    }
    let right = context.options.app_secret.as_deref();
    if right.is_some_and(|right| right != context.request.param("corpsecret")) {
        return error(40_001, "invalid credential");
    }
    let token = context.apps.new_token();
    Response::json(
        &json!({ "errcode": 0, "errmsg": "ok", "access_token": token, "expires_in": 7200 }),
    )
}

pub fn send(context: &Context<'_>, message: &Value) -> Response {
    if !context.apps.is_token(context.request.param("access_token")) {
        return error(42_001, "access_token expired");
    }
    if message.get("agentid").and_then(Value::as_i64).is_none() {
        return error(40_056, "invalid agentid");
    }
    let to = text(message, "/touser");
    if to.is_empty() || to == "nobody" {
        return error(81_013, "user & party & tag all invalid");
    }
    let (title, body) = match text(message, "/msgtype") {
        "markdown" => ("", text(message, "/markdown/content")),
        "template_card" => {
            let card = |pointer: &str| text(message, &format!("/template_card{pointer}"));
            let links = message
                .pointer("/template_card/jump_list")
                .and_then(Value::as_array);
            let links = links.map_or(&[][..], Vec::as_slice);
            let right = |link: &Value| {
                link.get("type") == Some(&json!(1))
                    && text(link, "/url").starts_with("http")
                    && !text(link, "/title").is_empty()
            };
            if card("/card_type") != "text_notice"
                || !card("/card_action/url").starts_with("http")
                || links.len() > 3
                || !links.iter().all(right)
            {
                return error(40_058, "invalid Request Parameter, template_card");
            }
            (card("/main_title/title"), card("/sub_title_text"))
        }
        _ => return error(40_008, "invalid message type"),
    };
    if body.is_empty() && title.is_empty() {
        return error(44_004, "empty content");
    }
    if body.len() > 2048 {
        return error(45_002, "content size out of limit");
    }
    let minute = Duration::from_secs(60);
    if !context
        .log
        .admit(&format!("wecom_app:{to}"), 30, minute, minute)
    {
        return error(45_009, "api freq out of limit");
    }
    context
        .log
        .message("wecom_app", to, title, body, message.clone());
    let unknown: Vec<&str> = to.split('|').filter(|user| *user == "gone").collect();
    Response::json(
        &json!({ "errcode": 0, "errmsg": "ok", "invaliduser": unknown.join("|"), "msgid": "sim" }),
    )
}
