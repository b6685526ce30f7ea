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
    let broken = Message {
        body: lines_that_stay(&message.body),
        ..message.clone()
    };
    let mut text = lines_that_stay(&form.fit(&broken));
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

/// DingTalk shows Markdown: a line end alone is a blank, and a line behind a list belongs to its last item. What is broken so already stays.
pub(super) fn lines_that_stay(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut lines = text.split('\n').peekable();
    while let Some(line) = lines.next() {
        kept.push_str(line);
        let Some(next) = lines.peek() else {
            break;
        };
        let is_item = |line: &str| line.trim_start().starts_with("- ");
        let both = !line.trim().is_empty() && !next.trim().is_empty();
        if both && is_item(line) && !is_item(next) {
            kept.push('\n');
        } else if both && !is_item(next) && !line.ends_with("  ") {
            kept.push_str("  ");
        }
        kept.push('\n');
    }
    kept
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

#[cfg(test)]
mod tests {
    use super::lines_that_stay;

    #[test]
    fn lines_end_where_they_end() {
        let report = "**日报**\n\n统计 a 至 b\n**应采**：3\n- 一：缺\n- 二：缺\n**存储**：1\n**今日**：周五\n";
        let shown = "**日报**\n\n统计 a 至 b  \n**应采**：3\n- 一：缺\n- 二：缺\n\n**存储**：1  \n**今日**：周五\n";
        assert_eq!(lines_that_stay(report), shown);
        assert_eq!(lines_that_stay(shown), shown);
    }
}
