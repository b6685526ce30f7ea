//! Finds in a robot's settings what the robot would refuse later. It sends no request.

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
        ChannelKind::FeishuApp => "feishu_app",
        ChannelKind::DingtalkApp => "dingtalk_app",
        ChannelKind::WecomApp => "wecom_app",
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
        let app = match channel.kind {
            ChannelKind::FeishuApp => of == ChannelKind::Feishu,
            ChannelKind::DingtalkApp => host == "api.dingtalk.com",
            ChannelKind::WecomApp => of == ChannelKind::Wecom,
            _ => false,
        };
        if app && !uri.path().trim_end_matches('/').is_empty() {
            return Err(format!(
                "url of an application is only https://{host}, which need not be said; remove url"
            ));
        }
        if of != channel.kind && !app {
            let (of, kind) = (name(of), name(channel.kind));
            return Err(format!(
                "url is the address of a {of} robot, but kind is \"{kind}\"; set kind = \"{of}\", or copy the right address"
            ));
        }
        if uri.scheme_str() != Some("https") {
            return Err(format!("url must begin with https://{host}"));
        }
        let takes = match of {
            // 5 a second in a group.
            ChannelKind::Feishu if app => 300,
            ChannelKind::Feishu => 100,
            _ => 20,
        };
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
    check_app(channel, stray)?;
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

/// The ids of an application and of a group have forms of their own.
fn check_app(channel: &Channel, stray: impl Fn(&str) -> bool) -> Result<(), String> {
    let Some((kind, app)) = channel.app() else {
        return Ok(());
    };
    for (key, value) in [("app_id", app.id()), ("chat", app.chat())] {
        if stray(value) {
            return Err(format!("{key} has blanks or quotes in it; copy it again"));
        }
    }
    if kind == ChannelKind::WecomApp && !app.id().starts_with("ww") {
        return Err(
            "app_id does not begin with ww; it is the company's id (我的企业, 企业ID)".to_owned(),
        );
    }
    if kind == ChannelKind::DingtalkApp && !app.chat().starts_with("cid") {
        return Err(
            "chat does not begin with cid; it is the openConversationId of the group".to_owned(),
        );
    }
    if kind == ChannelKind::FeishuApp {
        if !app.id().starts_with("cli_") {
            return Err(
                "app_id does not begin with cli_; copy the App ID from the application's 凭证与基础信息"
                    .to_owned(),
            );
        }
        let known = ["oc_", "ou_", "on_"]
            .iter()
            .any(|p| app.chat().starts_with(p));
        if !known && !app.chat().contains('@') {
            return Err(
                "chat is no group (oc_…) or person (ou_…, on_…, or the mail address); the group's settings show its 会话 ID"
                    .to_owned(),
            );
        }
    }
    Ok(())
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
