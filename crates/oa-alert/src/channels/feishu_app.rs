//! Application robot of Feishu (飞书企业自建应用): cards with buttons, updated in place.
//!
//! A token (`tenant_access_token`) for the application's id and secret, two hours; `im/v1/messages` sends a card into a group and gives
//! its `message_id`, by which `PATCH` changes it for 14 days. Both cards must say `update_multi`. The same `uuid` within an hour is the
//! same message, so that what is sent once more after a lost answer comes once. What is pressed comes over a long connection
//! ([`crate::listen`]). By the public documents of the platform and its public libraries; not tried on the platform itself.

use std::time::Duration;

use oa_core::app::config::Locale;
use oa_core::base::secrets::Secret;
use oa_wording::Wording;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::app::{self, App, Method, ask};
use super::card::{Card, Receipt, State};
use super::{Cause, Channel, SendError};
use crate::render::{Action, Message};

/// Where the platform is, unless the configuration says so.
pub(super) const BASE: &str = "https://open.feishu.cn";
/// Bytes of the text in the card. Far below the documented 30 kB of a card, which is a text within the request.
const LIMIT: usize = 12_000;
/// The platform takes the token no more.
const TOKEN_ENDED: [i64; 5] = [99_991_661, 99_991_663, 99_991_664, 99_991_665, 99_991_668];
/// The message cannot be changed any more: recalled, too old, gone.
const NEVER_CHANGED: [i64; 3] = [230_011, 230_031, 230_110];

/// What kind of id the chat is.
fn id_type(chat: &str) -> &'static str {
    match chat.split_once('_').map(|(kind, _)| kind) {
        Some("ou") => "open_id",
        Some("on") => "union_id",
        _ if chat.contains('@') => "email",
        _ => "chat_id",
    }
}

/// The card as the platform takes it.
pub(super) fn content(card: &Card, state: &State, lines: &[String], locale: Locale) -> String {
    let plain = |text: &str| json!({ "tag": "plain_text", "content": text });
    let mut elements =
        vec![json!({ "tag": "div", "text": { "tag": "lark_md", "content": card.text } })];
    let buttons: Vec<Value> = card
        .buttons(state)
        .enumerate()
        .map(|(i, a)| button(a, i == 0))
        .collect();
    if !buttons.is_empty() {
        elements.push(json!({ "tag": "action", "actions": buttons }));
    }
    if !lines.is_empty() {
        elements.push(json!({ "tag": "note", "elements": [plain(&lines.join("\n"))] }));
    }
    let card = json!({
        "config": { "wide_screen_mode": true, "update_multi": true, "enable_forward": false },
        "header": { "title": plain(&card.title(state, locale)), "template": card.colour(state) },
        "elements": elements,
    });
    card.to_string()
}

/// A button that is pressed reaches whoever listens; one that shows something opens it.
fn button(action: &Action, first: bool) -> Value {
    let mut button = json!({
        "tag": "button",
        "text": { "tag": "plain_text", "content": action.word },
        "type": if first { "primary" } else { "default" },
    });
    match &action.url {
        Some(url) if action.what == "log" => button["url"] = url.as_str().into(),
        _ => button["value"] = json!({ "oa": action.signed }),
    }
    button
}

/// The message as it is kept.
fn card_of(channel: &Channel, message: &Message) -> Card {
    // The card's header shows the title, and its buttons what can be done.
    let form = channel.form(LIMIT, true, true);
    let bare = Message {
        actions: Vec::new(),
        ..message.clone()
    };
    let mut text = form.fit(&bare);
    if let Some(rest) = text.strip_prefix(&format!("**{}**\n\n", message.title)) {
        text = rest.to_owned();
    }
    if channel.mentions(message).1 {
        text.push_str("\n<at id=all></at>");
    }
    Card {
        title: form.title(message),
        text,
        severity: message.severity,
        recovery: message.recovery,
        actions: message.actions.clone(),
    }
}

/// Sends a message; gives what it can be changed by, when it is about an incident.
pub(super) fn send(
    channel: &Channel,
    app: &App,
    message: &Message,
) -> Result<Option<Receipt>, SendError> {
    let card = card_of(channel, message);
    let mut body = json!({
        "receive_id": app.chat(),
        "msg_type": "interactive",
        "content": content(&card, &State::default(), &[], channel.locale),
    });
    if let Some(facts) = &message.facts {
        body["uuid"] = same_message(&channel.name, facts.id.as_bytes()).into();
    }
    let path = format!(
        "/open-apis/im/v1/messages?receive_id_type={}",
        id_type(app.chat())
    );
    let answer = call(app, Method::Post, &path, &body)?;
    let id = answer.pointer("/data/message_id").and_then(Value::as_str);
    let id = id.filter(|_| message.opens_incident());
    Ok(id.map(|id| Receipt {
        message: id.to_owned(),
        card,
    }))
}

/// One message of one alert in a channel, whichever process sends it.
fn same_message(channel: &str, alert: &[u8]) -> String {
    let mut hash = Sha256::new();
    for part in [channel.as_bytes(), &[0], alert] {
        hash.update(part);
    }
    hash.finalize()
        .iter()
        .take(16)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Changes a message where it stands. `false`: it can never be changed.
pub(super) fn update(
    app: &App,
    (message, card, state): (&str, &Card, &State),
    wording: &Wording,
) -> Result<bool, SendError> {
    let body = json!({ "content": content(card, state, &state.lines(wording), wording.locale) });
    let path = format!("/open-apis/im/v1/messages/{message}");
    match call(app, Method::Patch, &path, &body) {
        Ok(_) => Ok(true),
        Err(e) if has_code(&e, &NEVER_CHANGED) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Asks for something with the application's token, and once more with a new one.
fn call(app: &App, method: Method, path: &str, body: &Value) -> Result<Value, SendError> {
    let url = format!("{}{path}", app.base());
    let mut renewed = false;
    loop {
        let token = app.token(|| token(app))?;
        let bearer = format!("Bearer {}", token.expose());
        let (status, text) = ask(method, &url, &[("authorization", &bearer)], body)?;
        match assess(status, &text) {
            Err(e) if has_code(&e, &TOKEN_ENDED) && !renewed => {
                app.forget_token();
                renewed = true;
            }
            result => return result,
        }
    }
}

fn has_code(error: &SendError, codes: &[i64]) -> bool {
    let code = error.code.as_ref().and_then(|code| code.parse().ok());
    code.is_some_and(|code| codes.contains(&code))
}

fn token(app: &App) -> Result<(Secret, Duration), SendError> {
    let url = format!(
        "{}/open-apis/auth/v3/tenant_access_token/internal",
        app.base()
    );
    let body = json!({ "app_id": app.id(), "app_secret": app.secret().expose() });
    let (status, text) = ask(Method::Post, &url, &[], &body)?;
    let answer = assess(status, &text)?;
    let token = answer.get("tenant_access_token").and_then(Value::as_str);
    let lasts = answer.get("expire").and_then(Value::as_u64);
    match (token, lasts) {
        (Some(token), Some(lasts)) => {
            Ok((Secret::new(token.to_owned()), Duration::from_secs(lasts)))
        }
        _ => Err(SendError::new(
            "the platform gave no token; check url of the channel",
        )),
    }
}

/// Where a long connection is opened, and how often it is pinged, as far as the platform says that.
pub(crate) fn connection(app: &App) -> Result<(String, Option<Duration>), SendError> {
    let url = format!("{}/callback/ws/endpoint", app.base());
    let body = json!({ "AppID": app.id(), "AppSecret": app.secret().expose() });
    let (status, text) = ask(Method::Post, &url, &[("locale", "zh")], &body)?;
    let answer = assess(status, &text)?;
    let address = answer.pointer("/data/URL").and_then(Value::as_str);
    let address = address.ok_or_else(|| {
        SendError::new("the platform gave no address for a long connection; it will be tried again")
    })?;
    let config = answer.pointer("/data/ClientConfig");
    Ok((address.to_owned(), config.and_then(ping_interval)))
}

/// The `PingInterval` that the platform wants, in seconds.
pub(crate) fn ping_interval(config: &Value) -> Option<Duration> {
    let seconds = config.get("PingInterval")?.as_u64()?;
    Some(Duration::from_secs(seconds.clamp(1, 3600)))
}

/// What an answer means.
fn assess(status: u16, text: &str) -> Result<Value, SendError> {
    app::assess(("Feishu", "code", "msg"), explain, status, text)
}

/// By the codes of Feishu's own lists (服务端错误码, 发送消息, 更新应用发送的消息卡片).
fn explain(code: i64) -> (Cause, &'static str) {
    match code {
        10_003 | 10_012 | 10_014 | 10_015 | 514 | 1_000_040_344 => (
            Cause::Setup,
            "app_id or secret is wrong; copy both again from the application's 凭证与基础信息",
        ),
        _ if TOKEN_ENDED.contains(&code) => (
            Cause::Now,
            "the token has ended; it will be tried again with another",
        ),
        99_991_400 | 230_020 | 11_232 => (
            Cause::TooFast(Duration::from_secs(60)),
            "too many messages; Feishu takes 5 a second in a group",
        ),
        99_991_672 | 99_991_679 | 230_027 => (
            Cause::Setup,
            "the application lacks a right; add im:message:send_as_bot and publish a version",
        ),
        230_002 => (
            Cause::Setup,
            "the application's robot is not in the group; add it in the group's settings",
        ),
        230_006 => (
            Cause::Setup,
            "the application has no robot; switch the ability 机器人 on and publish a version",
        ),
        230_013 => (
            Cause::Setup,
            "chat is no group or person that the application can reach; copy the group's chat id again",
        ),
        230_001 | 230_025 | 230_099 | 200_621 | 9_499 => (
            Cause::Content,
            "the message has a form or length that Feishu does not accept",
        ),
        230_028 => (
            Cause::Content,
            "Feishu takes something in the message for improper",
        ),
        403 => (
            Cause::Setup,
            "the application may not open a long connection; it must be of one company (企业自建应用) and published",
        ),
        1_000_040_350 => (
            Cause::Now,
            "the application has as many long connections as Feishu allows (50)",
        ),
        1 | 230_049 | 1_000_040_343 => (Cause::Now, "Feishu is busy; it will be tried again"),
        _ => (Cause::Unclear, "see Feishu's list of error codes"),
    }
}
