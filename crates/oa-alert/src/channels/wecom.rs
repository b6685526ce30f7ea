//! WeCom group robot (企业微信群机器人). A key in the address, no signature. Markdown up to 4,096 bytes; people are mentioned by
//! mobile number in text messages only, up to 2,048 bytes. 20 messages a minute.

use std::time::Duration;

use serde_json::json;

use super::{Channel, Request};
use crate::render::Message;

pub(super) fn request(channel: &Channel, message: &Message) -> Request {
    let mentions = !channel.at_mobiles.is_empty() || channel.at_all;
    let body = if mentions {
        let mut mobiles = channel.at_mobiles.clone();
        if channel.at_all {
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

pub(super) fn explain(code: i64) -> (&'static str, Option<Duration>) {
    match code {
        45_009 => (
            "too many messages; WeCom takes 20 a minute",
            Some(Duration::from_secs(60)),
        ),
        93_000 => (
            "the key is wrong or the robot was removed; copy the webhook address again",
            None,
        ),
        40_058 | 44_004 | 40_008 => (
            "the message has a form or length that WeCom does not accept",
            None,
        ),
        _ => ("see WeCom's list of error codes", None),
    }
}
