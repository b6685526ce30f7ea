//! WeCom group robot (企业微信群机器人). A key in the address, no signature. Markdown up to 4,096 bytes; people are mentioned by
//! mobile number in text messages only, up to 2,048 bytes. 20 messages a minute.

use std::time::Duration;

use serde_json::json;

use super::{Cause, Channel, Request};
use crate::render::Message;

pub(super) fn request(channel: &Channel, message: &Message) -> Request {
    let (mobiles, everybody) = channel.mentions(message);
    let body = if everybody || !mobiles.is_empty() {
        let mut mobiles = mobiles.to_vec();
        if everybody {
            mobiles.push("@all".to_owned());
        }
        let text = channel.form(2048, false, false).fit(message);
        json!({ "msgtype": "text", "text": { "content": text, "mentioned_mobile_list": mobiles } })
    } else {
        let text = channel.form(4096, false, true).fit(message);
        json!({ "msgtype": "markdown", "markdown": { "content": text } })
    };
    Request {
        url: channel.url.clone(),
        body,
    }
}

/// By the codes of WeCom's own list (全局错误码).
pub(super) fn explain(code: i64) -> (Cause, &'static str) {
    match code {
        -1 => (Cause::Now, "WeCom is busy; it will be tried again"),
        45_009 => (
            Cause::TooFast(Duration::from_secs(60)),
            "too many messages; WeCom takes 20 a minute",
        ),
        45_033 => (
            Cause::TooFast(Duration::from_secs(10)),
            "too many messages at the same time",
        ),
        93_000 | 93_004 | 93_008 => (
            Cause::Setup,
            "the key is wrong or the robot was removed; copy the webhook address again",
        ),
        40_008 | 40_058 | 44_004 | 45_002 => (
            Cause::Content,
            "the message has a form or length that WeCom does not accept",
        ),
        _ => (Cause::Unclear, "see WeCom's list of error codes"),
    }
}
