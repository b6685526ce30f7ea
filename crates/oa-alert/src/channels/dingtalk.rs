//! DingTalk custom robot (钉钉自定义机器人).
//!
//! Signature in the query: base64 of HMAC-SHA256 with the secret as key over `timestamp\nsecret`, milliseconds, valid for an
//! hour. 20 messages a minute, then nothing for ten minutes. About 20,000 bytes a message. A mentioned mobile number must also
//! stand in the text.

use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::base::secrets::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;

use super::{Cause, Channel, Request, hmac_base64};
use crate::render::Message;

/// Bytes of the text in the request. Below the documented 20,000, to leave room for the frame, title and mentions.
const LIMIT: usize = 17_000;

pub(super) fn request(channel: &Channel, message: &Message, now: DateTime<Utc>) -> Request {
    let form = channel.form(LIMIT, true, true);
    let mut text = form.fit(message);
    let (mobiles, everybody) = channel.mentions(message);
    for mobile in mobiles {
        text.push_str(&format!(" @{mobile}"));
    }
    let body = json!({
        "msgtype": "markdown",
        "markdown": { "title": form.title(message), "text": text },
        "at": { "atMobiles": mobiles, "isAtAll": everybody },
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

/// By the codes of DingTalk's own list (自定义机器人, 错误码).
pub(super) fn explain(code: i64) -> (Cause, &'static str) {
    let ten_minutes = Duration::from_secs(600);
    match code {
        -1 => (Cause::Now, "DingTalk is busy; it will be tried again"),
        310_000 => (
            Cause::Setup,
            "the robot's security check failed, for one of these reasons: the signature is wrong (copy the robot's secret, SEC…, again); the timestamp is more than an hour off (correct this machine's clock); the message lacks the robot's keyword (switch the robot to signature, 加签); this machine's address is not on the robot's list (add it)",
        ),
        410_100 | 130_101 | 90_030 => (
            Cause::TooFast(ten_minutes),
            "too many messages; DingTalk takes none for ten minutes",
        ),
        300_001 | 300_005 | 400_101 => (
            Cause::Setup,
            "the token is wrong; copy the webhook address again",
        ),
        400_013 | 400_102 | 400_106 => (
            Cause::Setup,
            "the robot was removed or switched off, or its group is gone; add a robot and copy its webhook address",
        ),
        430_101 => (
            Cause::Content,
            "DingTalk takes a link in the message for unsafe",
        ),
        430_102..=430_104 => (
            Cause::Content,
            "DingTalk takes something in the message for improper",
        ),
        40_035 | 400_105 => (
            Cause::Content,
            "the message has a form that DingTalk does not accept",
        ),
        460_101 => (Cause::Content, "the message is too long"),
        _ => (Cause::Unclear, "see DingTalk's list of error codes"),
    }
}
