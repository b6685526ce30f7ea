//! Messages of an application of WeCom (企业微信自建应用), to people and not to a group.
//!
//! A token for the company's id and the application's secret, two hours, in the address of what is asked. A message is a card
//! (`template_card`, `text_notice`) of a title, a text of some lines, and up to three links; what is longer, or has no page to lead to,
//! is Markdown of up to 2,048 bytes. Buttons that tell an application something need an address that the platform reaches, so that
//! these lead to the page by signed links, and nothing is changed afterwards. By the public documents of the platform; not tried on the
//! platform itself.

use std::time::Duration;

use oa_core::base::links::LinkAction;
use oa_core::base::secrets::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::app::{self, App, Method, ask};
use super::{Cause, Channel, SendError};
use crate::render::Message;

/// Where the platform is, unless the configuration says so.
pub(super) const BASE: &str = "https://qyapi.weixin.qq.com";
/// Bytes of a message in Markdown.
const LIMIT: usize = 2048;
/// Links at the foot of a card.
const MOST_LINKS: usize = 3;
/// Characters of a card's title and text that the platform shows.
const LONGEST_TITLE: usize = 36;
const LONGEST_TEXT: usize = 112;
/// The platform takes the token no more.
const TOKEN_ENDED: [&str; 3] = ["40014", "42001", "41001"];

/// Sends a message.
pub(super) fn send(channel: &Channel, app: &App, message: &Message) -> Result<(), SendError> {
    let mut body = match card(channel, message) {
        Some(card) => json!({ "msgtype": "template_card", "template_card": card }),
        None => {
            let text = channel.form(LIMIT, false, true).fit(message);
            json!({ "msgtype": "markdown", "markdown": { "content": text } })
        }
    };
    body["touser"] = app.chat().into();
    body["agentid"] = app.agent().into();
    let mut renewed = false;
    loop {
        let token = app.token(|| token(app))?;
        let url = format!(
            "{}/cgi-bin/message/send?access_token={}",
            app.base(),
            escape(token.expose())
        );
        let (status, text) = ask(Method::Post, &url, &[], &body)?;
        match assess(status, &text) {
            Err(e) if !renewed && has_ended(&e) => {
                app.forget_token();
                renewed = true;
            }
            Err(e) => return Err(e),
            Ok(answer) => {
                let missed = answer.get("invaliduser").and_then(Value::as_str);
                if let Some(missed) = missed.filter(|m| !m.is_empty()) {
                    tracing::warn!(
                        "channel {}: WeCom knows nobody named {missed}, or the application is not for them",
                        channel.name
                    );
                }
                return Ok(());
            }
        }
    }
}

fn has_ended(error: &SendError) -> bool {
    let code = error.code.as_deref().unwrap_or_default();
    TOKEN_ENDED.contains(&code)
}

fn escape(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The card of a message that is about one incident, and has a page to lead to.
fn card(channel: &Channel, message: &Message) -> Option<Value> {
    let page = message.link.as_deref()?;
    if !message.opens_incident() {
        return None;
    }
    let log = LinkAction::Log.as_str();
    let of = |a: &&crate::render::Action| a.what == log;
    // Touched anywhere else, the card opens the run, or the page.
    let whole = message
        .actions
        .iter()
        .find(of)
        .and_then(|a| a.url.as_deref());
    let links = message.actions.iter().filter(|a| a.what != log);
    let links =
        links.filter_map(|a| Some(json!({ "type": 1, "title": a.word, "url": a.url.as_deref()? })));
    let links: Vec<Value> = links.take(MOST_LINKS).collect();
    let title = channel.form(LIMIT, false, false).title(message);
    let body = message.body.replace("**", "");
    let lines = body.lines().filter_map(|line| line.strip_prefix("- "));
    let lines: Vec<&str> = lines.collect();
    Some(json!({
        "card_type": "text_notice",
        // Red.
        "source": { "desc": "oa", "desc_color": 2 },
        "main_title": { "title": short(&title, LONGEST_TITLE) },
        "sub_title_text": short(&lines.join("\n"), LONGEST_TEXT),
        "jump_list": links,
        "card_action": { "type": 1, "url": whole.unwrap_or(page) },
    }))
}

fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let begin: String = text.chars().take(most - 1).collect();
    format!("{begin}…")
}

fn token(app: &App) -> Result<(Secret, Duration), SendError> {
    let (id, secret) = (escape(app.id()), escape(app.secret().expose()));
    // Of the address as it is asked, nothing may be shown either.
    let url = Secret::new(format!(
        "{}/cgi-bin/gettoken?corpid={id}&corpsecret={secret}",
        app.base()
    ));
    let (status, text) = ask(Method::Get, url.expose(), &[], &Value::Null)?;
    let answer = assess(status, &text)?;
    let token = answer.get("access_token").and_then(Value::as_str);
    let lasts = answer.get("expires_in").and_then(Value::as_u64);
    match (token, lasts) {
        (Some(token), Some(lasts)) => {
            Ok((Secret::new(token.to_owned()), Duration::from_secs(lasts)))
        }
        _ => Err(SendError::new(
            "the platform gave no token; check url of the channel",
        )),
    }
}

/// What an answer means.
fn assess(status: u16, text: &str) -> Result<Value, SendError> {
    app::assess(("WeCom", "errcode", "errmsg"), explain, status, text)
}

/// By the codes of WeCom's own list (全局错误码).
fn explain(code: i64) -> (Cause, &'static str) {
    match code {
        -1 => (Cause::Now, "WeCom is busy; it will be tried again"),
        40_001 | 40_013 | 40_091 => (
            Cause::Setup,
            "app_id or secret is wrong; copy the company's id (我的企业) and the application's Secret again",
        ),
        40_014 | 41_001 | 42_001 => (
            Cause::Now,
            "the token has ended; it will be tried again with another",
        ),
        40_056 | 301_002 => (
            Cause::Setup,
            "agent_id is not the application's; copy its AgentId again",
        ),
        60_020 => (
            Cause::Setup,
            "this machine's address is not on the application's list; add it to 企业可信IP",
        ),
        81_013 => (
            Cause::Setup,
            "nobody of chat is in the application's 可见范围; add them, or correct the names",
        ),
        48_002 => (Cause::Setup, "the application may not send messages"),
        45_009 | 45_033 => (
            Cause::TooFast(Duration::from_secs(60)),
            "too many messages; WeCom takes 30 a minute for a person",
        ),
        40_008 | 40_058 | 41_035 | 41_036 | 44_004 | 45_002 => (
            Cause::Content,
            "the message has a form or length that WeCom does not accept",
        ),
        _ => (Cause::Unclear, "see WeCom's list of error codes"),
    }
}
