//! What a robot would refuse later, seen in its settings: nothing is asked.

use oa_core::app::config::ChannelKind;
use ureq::http::Uri;

use super::Channel;

/// Whose address a host is.
fn vendor(host: &str) -> Option<ChannelKind> {
    match host {
        "oapi.dingtalk.com" | "api.dingtalk.com" => Some(ChannelKind::Dingtalk),
        "qyapi.weixin.qq.com" => Some(ChannelKind::Wecom),
        "open.feishu.cn" | "open.larksuite.com" => Some(ChannelKind::Feishu),
        _ => None,
    }
}

fn name(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::Dingtalk => "dingtalk",
        ChannelKind::Wecom => "wecom",
        ChannelKind::Feishu => "feishu",
        ChannelKind::Webhook => "webhook",
        ChannelKind::Email => "email",
        ChannelKind::Command => "command",
    }
}
pub(super) fn check(channel: &Channel) -> Result<(), String> {
    let stray = |text: &str| text.contains(|c: char| c.is_whitespace() || "\"'“”".contains(c));
    let url = channel.url.expose();
    if stray(url) {
        return Err("url has blanks or quotes in it; copy it again".to_owned());
    }
    let uri = url.parse::<Uri>().ok().filter(|u| u.host().is_some());
    let Some(uri) = uri else {
        return Err("url is no address of the web; copy it again".to_owned());
    };
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    if let Some(of) = vendor(&host) {
        if of != channel.kind {
            let (of, kind) = (name(of), name(channel.kind));
            return Err(format!(
                "url is the address of a {of} robot, but kind is \"{kind}\"; set kind = \"{of}\", or copy the right address"
            ));
        }
        if uri.scheme_str() != Some("https") {
            return Err(format!("url must begin with https://{host}"));
        }
        let takes = if of == ChannelKind::Feishu { 100 } else { 20 };
        if channel.pace.per_minute().is_some_and(|most| most > takes) {
            return Err(format!(
                "per_minute is more than the {takes} messages a minute that a {} robot takes",
                name(of)
            ));
        }
    }
    let has = |parameter: &str| {
        let query = uri.query().unwrap_or_default();
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .any(|(name, value)| name == parameter && !value.is_empty())
    };
    match channel.kind {
        ChannelKind::Dingtalk if !has("access_token") => {
            return Err("url has no access_token=…; copy the whole address".to_owned());
        }
        ChannelKind::Wecom if !has("key") => {
            return Err("url has no key=…; copy the whole address".to_owned());
        }
        ChannelKind::Feishu
            if uri
                .path()
                .split_once("/bot/v2/hook/")
                .is_none_or(|(_, token)| token.is_empty()) =>
        {
            return Err("url has no /open-apis/bot/v2/hook/…; copy the whole address".to_owned());
        }
        _ => {}
    }
    if let Some(secret) = &channel.secret {
        let secret = secret.expose();
        if secret.is_empty() || stray(secret) {
            return Err("secret is empty or has blanks or quotes in it; copy it again".to_owned());
        }
        if channel.kind == ChannelKind::Dingtalk && !secret.starts_with("SEC") {
            return Err(
                "secret does not begin with SEC; it is the one that DingTalk shows beside 加签"
                    .to_owned(),
            );
        }
    }
    match channel.at_mobiles.iter().find(|m| !is_mobile(m)) {
        Some(wrong) => Err(format!(
            "at_mobiles has \"{wrong}\", which is no mobile number: digits only, another country's as +852-…"
        )),
        None => Ok(()),
    }
}

/// Whether robots take it for the number of somebody to mention.
pub(crate) fn is_mobile(text: &str) -> bool {
    let digits = |t: &str, least, most| {
        (least..=most).contains(&t.len()) && t.chars().all(|c| c.is_ascii_digit())
    };
    match text.strip_prefix('+') {
        Some(abroad) => match abroad.split_once('-') {
            Some((country, number)) => digits(country, 1, 4) && digits(number, 6, 14),
            None => digits(abroad, 8, 15),
        },
        None => digits(text, 11, 11) && text.starts_with('1'),
    }
}
