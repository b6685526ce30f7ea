//! The robots, with the real protocols' signatures, limits and error codes. Everything is answered with HTTP 200.

mod apps;
mod dingtalk;
mod dingtalk_app;
mod feishu;
mod feishu_app;
mod wecom;
mod wecom_app;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

pub use apps::{AppCard, Apps, is_socket, serve_socket};

use crate::Context;
use crate::fault::Fault;
use crate::http::Response;

pub fn handle(context: &Context<'_>, robot: &str, rest: &str) -> Response {
    if (robot, rest) == ("wecom", "cgi-bin/gettoken") {
        return wecom_app::token(context);
    }
    if !["POST", "PUT", "PATCH"].contains(&context.request.method.as_str()) {
        return Response::not_found();
    }
    let message: Value = serde_json::from_slice(&context.request.body).unwrap_or(Value::Null);
    match (robot, rest) {
        ("dingtalk", "robot/send") => dingtalk::handle(context, &message),
        ("dingtalk", _) if rest.starts_with("v1.0/") => {
            dingtalk_app::handle(context, &message, rest)
        }
        ("wecom", "cgi-bin/message/send") => wecom_app::send(context, &message),
        ("wecom", "cgi-bin/webhook/send") => wecom::handle(context, &message),
        ("feishu", _) if rest.starts_with("open-apis/bot/v2/hook/") => {
            feishu::handle(context, &message, rest)
        }
        ("feishu", _) if rest.starts_with("open-apis/") || rest.starts_with("callback/") => {
            feishu_app::handle(context, &message, rest)
        }
        ("webhook", _) => {
            if let Some(refused) = refusal(context, robot, &message) {
                return refused;
            }
            context.log.message(
                "webhook",
                rest,
                "",
                &String::from_utf8_lossy(&context.request.body),
                message,
            );
            // Services that answer HTTP 200 and a code of their own.
            match rest.strip_prefix("code/").and_then(|r| r.split('/').next()) {
                Some(code) => Response::json(&json!({ "code": code.parse::<i64>().ok() })),
                None => Response::json(&json!({ "ok": true })),
            }
        }
        _ => Response::not_found(),
    }
}

/// The answer to a message that a robot will not have, which counts as much as one that it takes.
fn refusal(context: &Context<'_>, robot: &str, message: &Value) -> Option<Response> {
    match context.fault {
        Some(Fault::Refuse(code, text)) if message.to_string().contains(text.as_str()) => {
            Some(refuse(robot, *code))
        }
        _ => None,
    }
}

/// What a robot says to a message that it will not have.
fn refuse(robot: &str, code: Option<i64>) -> Response {
    let (own, says) = match robot {
        "dingtalk" => (430_102, "消息中含有不合适的文本"),
        "wecom" => (40_058, "invalid Request Parameter"),
        "feishu" => (9_499, "Bad Request"),
        _ => return Response::new(422, "application/json", r#"{"ok":false}"#),
    };
    let key = if robot == "feishu" {
        ["code", "msg"]
    } else {
        ["errcode", "errmsg"]
    };
    let says = if code.is_none_or(|c| c == own) {
        says
    } else {
        "拒绝"
    };
    Response::json(&json!({ key[0]: code.unwrap_or(own), key[1]: says }))
}

/// Base64 of HMAC-SHA256.
fn sign(key: &str, message: &str) -> String {
    // A key of any length is valid for HMAC.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return String::new();
    };
    mac.update(message.as_bytes());
    STANDARD.encode(mac.finalize().into_bytes())
}

fn text<'a>(message: &'a Value, pointer: &str) -> &'a str {
    message
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}
