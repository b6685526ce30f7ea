//! DingTalk custom robot (钉钉自定义机器人).
//!
//! Signature in the query: base64 of HMAC-SHA256 with the secret as key over `timestamp\nsecret`, milliseconds, valid for an
//! hour. 20 messages a minute, then nothing for ten minutes. About 20,000 bytes a message. A mentioned mobile number must also
//! stand in the text.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::secrets::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{Channel, Request, hmac_base64};
use crate::render::Message;

/// Bytes of the text in the request. Below the documented 20,000, to leave room for the frame, title and mentions.
const LIMIT: usize = 17_000;

pub(super) fn request(channel: &Channel, message: &Message, now: DateTime<Utc>) -> Request {
    let form = channel.form(LIMIT, true, true);
    let mut text = form.fit(message);
    for mobile in &channel.at_mobiles {
        text.push_str(&format!(" @{mobile}"));
    }
    let body = json!({
        "msgtype": "markdown",
        "markdown": { "title": form.title(message), "text": text },
        "at": { "atMobiles": channel.at_mobiles, "isAtAll": channel.at_all },
    });
    let mut url = channel.url.expose().to_owned();
    if let Some(secret) = &channel.secret {
        let stamp = now.timestamp_millis();
        let sign = hmac_base64(
            secret.expose().as_bytes(),
            format!("{stamp}\n{}", secret.expose()).as_bytes(),
        );
        let joint = if url.contains('?') { '&' } else { '?' };
        url = format!(
            "{url}{joint}timestamp={stamp}&sign={}",
            utf8_percent_encode(&sign, NON_ALPHANUMERIC)
        );
    }
    Request {
        url: Secret::new(url),
        body,
    }
}

pub(super) fn explain(code: i64, said: &str) -> (&'static str, Option<Duration>) {
    let ten_minutes = Some(Duration::from_secs(600));
    match code {
        310_000 if said.contains("keyword") => (
            "the message lacks the robot's keyword; switch the robot to signature, or make its keyword a word of every alert",
            None,
        ),
        310_000 if said.contains("timestamp") => (
            "the timestamp is more than an hour off; correct this machine's clock",
            None,
        ),
        310_000 if said.contains("sign") => (
            "the signature is wrong; copy the robot's secret (SEC…) again",
            None,
        ),
        310_000 if said.contains("ip") => (
            "this machine's address is not on the robot's list; add it",
            None,
        ),
        310_000 => (
            "the robot's security check failed; compare keyword, secret and address list",
            None,
        ),
        130_101 | 90_030 => (
            "too many messages; DingTalk takes none for ten minutes",
            ten_minutes,
        ),
        300_001 | 400_013 | 400_101 | 400_102 => (
            "the token is wrong or the robot was removed; copy the webhook address again",
            None,
        ),
        40_035 => ("the message has a form that DingTalk does not accept", None),
        460_101 => ("the message is too long", None),
        _ => ("see DingTalk's list of error codes", None),
    }
}
