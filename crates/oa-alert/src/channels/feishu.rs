//! Feishu custom robot (飞书自定义机器人). Signature in the body: base64 of HMAC-SHA256 with `timestamp\nsecret` as *key* over
//! nothing, in seconds — not DingTalk's order. 100 messages a minute, 5 a second, 20 kB a message.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::model::Severity;
use serde_json::json;

use super::{Cause, Channel, Request, hmac_base64};
use crate::render::Message;

/// Bytes of the text in the request. Below the documented 20 kB, to leave room for the frame and the title.
const LIMIT: usize = 17_000;

pub(super) fn request(channel: &Channel, message: &Message, now: DateTime<Utc>) -> Request {
    let colour = match message.severity {
        _ if message.recovery => "green",
        Severity::Critical => "red",
        Severity::Warning => "orange",
        Severity::Info => "blue",
    };
    // The card's header shows the title already.
    let form = channel.form(LIMIT, true, true);
    let mut text = form.fit(message);
    if let Some(rest) = text.strip_prefix(&format!("**{}**\n\n", message.title)) {
        text = rest.to_owned();
    }
    if channel.mentions(message).1 {
        text.push_str("\n<at id=all></at>");
    }
    let mut body = json!({
        "msg_type": "interactive",
        "card": {
            "config": { "wide_screen_mode": true },
            "header": { "title": { "tag": "plain_text", "content": form.title(message) }, "template": colour },
            "elements": [{ "tag": "div", "text": { "tag": "lark_md", "content": text } }],
        },
    });
    if let Some(secret) = &channel.secret {
        let stamp = now.timestamp();
        body["timestamp"] = json!(stamp.to_string());
        body["sign"] = json!(hmac_base64(
            format!("{stamp}\n{}", secret.expose()).as_bytes(),
            b""
        ));
    }
    Request {
        url: channel.url.clone(),
        body,
    }
}

/// By the codes of Feishu's own list (自定义机器人, 错误码).
pub(super) fn explain(code: i64) -> (Cause, &'static str) {
    let minute = Duration::from_secs(60);
    match code {
        19_021 => (
            Cause::Setup,
            "the signature is wrong or this machine's clock is more than an hour off; copy the secret again",
        ),
        19_022 => (
            Cause::Setup,
            "this machine's address is not on the robot's list; add it",
        ),
        19_024 => (
            Cause::Setup,
            "the message lacks the robot's keyword; switch the robot to signature, or make its keyword a word of every alert",
        ),
        19_001 => (
            Cause::Setup,
            "the address is wrong or the robot was removed; copy the webhook address again",
        ),
        11_232 | 99_991_400 => (
            Cause::TooFast(minute),
            "too many messages; Feishu takes 100 a minute and 5 a second",
        ),
        9_499 | 19_002 | 230_025 => (
            Cause::Content,
            "the message has a form or length that Feishu does not accept",
        ),
        230_028 => (
            Cause::Content,
            "Feishu takes something in the message for improper",
        ),
        19_036 => (Cause::Unclear, "Feishu does not take this message as it is"),
        _ => (Cause::Unclear, "see Feishu's list of error codes"),
    }
}
