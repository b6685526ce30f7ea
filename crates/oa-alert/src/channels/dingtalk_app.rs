//! Application robot of DingTalk (钉钉企业内部应用): cards with buttons, updated in place.
//!
//! A token for the application's id and secret, two hours; `card/instances/createAndDeliver` makes a card from a template and puts it
//! into a group, under an id of ours (`outTrackId`), by which `PUT card/instances` changes it. The template is one that DingTalk's
//! public libraries use, or one of the company's with the same variables. What is pressed comes over a long connection
//! ([`crate::listen`]) with the button's id. By the public documents of the platform and its public libraries; not tried on the
//! platform itself.

use std::time::Duration;

use oa_core::app::config::Locale;
use oa_core::base::links::LinkAction;
use oa_core::base::secrets::{Secret, redact};
use oa_wording::Wording;
use serde_json::{Value, json};
use uuid::Uuid;

use super::app::{App, Method, ask};
use super::card::{Card, Receipt, State};
use super::{Cause, Channel, SendError, dingtalk};
use crate::render::{Action, Message};

/// Where the platform is, unless the configuration says so.
pub(super) const BASE: &str = "https://api.dingtalk.com";
/// A card of title, texts and buttons: that of DingTalk's public libraries.
const TEMPLATE: &str = "382e4302-551d-4880-bf29-a30acfab2e71.schema";
/// What is shown of a card, in this order: what came of it stands under the text.
const ORDER: [&str; 4] = ["msgTitle", "staticMsgContent", "msgContent", "msgButtons"];
/// Bytes of the text in the card.
const LIMIT: usize = 12_000;
/// The topic of what is pressed.
pub(crate) const TOPIC: &str = "/v1.0/card/instances/callback";
/// The platform takes the token no more.
const TOKEN_ENDED: &str = "InvalidAuthentication";

/// The variables of the template: texts, all of them.
pub(super) fn variables(card: &Card, state: &State, lines: &[String], locale: Locale) -> Value {
    let light = match card.colour(state) {
        "green" => "🟢",
        "red" => "🔴",
        "orange" => "🟠",
        _ => "🔵",
    };
    let buttons: Vec<Value> = card.buttons(state).enumerate().map(button).collect();
    let form = json!({ "order": ORDER, "msgButtons": buttons });
    json!({
        "msgTitle": format!("{light} {}", card.title(state, locale)),
        "staticMsgContent": card.text,
        "msgContent": lines.join("\n\n"),
        // A card that is finished: only that shows its buttons.
        "flowStatus": "3",
        "sys_full_json_obj": form.to_string(),
    })
}

/// A button that is pressed reaches whoever listens; one that shows something opens it.
fn button((i, action): (usize, &Action)) -> Value {
    let colour = if i == 0 { "blue" } else { "gray" };
    let log = action.what == LinkAction::Log.as_str();
    match action.url.as_deref().filter(|_| log) {
        Some(url) => json!({ "text": action.word, "color": colour, "url": url, "iosUrl": url }),
        None => {
            json!({ "text": action.word, "color": colour, "id": action.what, "request": true })
        }
    }
}

/// Sends a message; gives what it can be changed by, when it is about an incident.
pub(super) fn send(
    channel: &Channel,
    app: &App,
    message: &Message,
) -> Result<Option<Receipt>, SendError> {
    // The card shows the title, and its buttons what can be done.
    let form = channel.form(LIMIT, true, true);
    let bare = Message {
        actions: Vec::new(),
        ..message.clone()
    };
    let text = form.fit(&bare);
    let untitled = text.strip_prefix(&format!("**{}**\n\n", message.title));
    let card = Card {
        title: form.title(message),
        text: dingtalk::lines_that_stay(untitled.unwrap_or(&text)),
        severity: message.severity,
        recovery: message.recovery,
        actions: message.actions.clone(),
    };
    let id = Uuid::now_v7().simple().to_string();
    let mut deliver = json!({ "robotCode": app.id() });
    if channel.mentions(message).1 {
        deliver["atUserIds"] = json!({ "@ALL": "@ALL" });
    }
    let body = json!({
        "cardTemplateId": app.template().unwrap_or(TEMPLATE),
        "outTrackId": id,
        "callbackType": "STREAM",
        "cardData": { "cardParamMap": variables(&card, &State::default(), &[], channel.locale) },
        "openSpaceId": format!("dtv1.card//IM_GROUP.{}", app.chat()),
        "imGroupOpenSpaceModel": { "supportForward": false },
        "imGroupOpenDeliverModel": deliver,
        "userIdType": 1,
    });
    let answer = call(
        app,
        Method::Post,
        "/v1.0/card/instances/createAndDeliver",
        &body,
    )?;
    let places = answer
        .pointer("/result/deliverResults")
        .and_then(Value::as_array);
    let refused = places
        .into_iter()
        .flatten()
        .find(|place| place.get("success").and_then(Value::as_bool) == Some(false));
    if let Some(refused) = refused {
        let said = refused.get("errorMsg").and_then(Value::as_str);
        return Err(SendError::because(
            Cause::Unclear,
            redact(&format!(
                "DingTalk made the card and did not put it into the group: is the robot in it, and chat its openConversationId? (it says: {})",
                said.unwrap_or_default()
            )),
        ));
    }
    Ok(message
        .opens_incident()
        .then_some(Receipt { message: id, card }))
}

/// Changes a message where it stands.
pub(super) fn update(
    app: &App,
    (message, card, state): (&str, &Card, &State),
    wording: &Wording,
) -> Result<bool, SendError> {
    let body = json!({
        "outTrackId": message,
        "cardData": { "cardParamMap": variables(card, state, &state.lines(wording), wording.locale) },
        "cardUpdateOptions": { "updateCardDataByKey": true },
    });
    call(app, Method::Put, "/v1.0/card/instances", &body)?;
    Ok(true)
}

/// What is shown on a card to whoever has pressed a button of it.
pub(crate) fn notice(text: &str) -> Value {
    json!({
        "cardUpdateOptions": { "updateCardDataByKey": true },
        "cardData": { "cardParamMap": { "msgContent": text } },
    })
}

/// Where a long connection is opened: an address, and a ticket for it.
pub(crate) fn connection(app: &App) -> Result<(String, String), SendError> {
    let body = json!({
        "clientId": app.id(), "clientSecret": app.secret().expose(),
        "subscriptions": [{ "type": "CALLBACK", "topic": TOPIC }],
        "ua": concat!("oa-alert/", env!("CARGO_PKG_VERSION")),
    });
    let url = format!("{}/v1.0/gateway/connections/open", app.base());
    let (status, text) = ask(Method::Post, &url, &[("accept", "application/json")], &body)?;
    let answer = assess(status, &text)?;
    let text = |name: &str| Some(answer.get(name)?.as_str()?.to_owned());
    text("endpoint").zip(text("ticket")).ok_or_else(|| {
        SendError::new("the platform gave no address for a long connection; it will be tried again")
    })
}

/// Asks for something with the application's token, and once more with a new one.
fn call(app: &App, method: Method, path: &str, body: &Value) -> Result<Value, SendError> {
    let url = format!("{}{path}", app.base());
    let mut renewed = false;
    loop {
        let token = app.token(|| token(app))?;
        let headers = [("x-acs-dingtalk-access-token", token.expose())];
        let (status, text) = ask(method, &url, &headers, body)?;
        match assess(status, &text) {
            Err(e) if e.code.as_deref() == Some(TOKEN_ENDED) && !renewed => {
                app.forget_token();
                renewed = true;
            }
            result => return result,
        }
    }
}

fn token(app: &App) -> Result<(Secret, Duration), SendError> {
    let url = format!("{}/v1.0/oauth2/accessToken", app.base());
    let body = json!({ "appKey": app.id(), "appSecret": app.secret().expose() });
    let (status, text) = ask(Method::Post, &url, &[], &body)?;
    let answer = assess(status, &text)?;
    let token = answer.get("accessToken").and_then(Value::as_str);
    let lasts = answer.get("expireIn").and_then(Value::as_u64);
    match (token, lasts) {
        (Some(token), Some(lasts)) => {
            Ok((Secret::new(token.to_owned()), Duration::from_secs(lasts)))
        }
        _ => Err(SendError::new(
            "the platform gave no token; check url of the channel",
        )),
    }
}

/// What an answer means: HTTP 200, or a code in words.
fn assess(status: u16, text: &str) -> Result<Value, SendError> {
    let answer = serde_json::from_str::<Value>(text).unwrap_or_default();
    if status == 200 && answer.is_object() {
        return Ok(answer);
    }
    let Some(code) = answer.get("code").and_then(Value::as_str) else {
        return Err(SendError::new(match status {
            200 => {
                "the answer is not DingTalk's (a web page?); check url of the channel".to_owned()
            }
            _ => format!("DingTalk answered HTTP {status}; it will be tried again"),
        }));
    };
    let said = answer.get("message").and_then(Value::as_str);
    let (cause, meaning) = explain(status, code);
    let message = redact(&format!(
        "DingTalk refused with code {code}: {meaning} (it says: {})",
        said.unwrap_or_default()
    ));
    Err(SendError {
        code: Some(code.to_owned()),
        ..SendError::because(cause, message)
    })
}

/// By the codes of DingTalk's own list (新版服务端 API 全局错误码).
fn explain(status: u16, code: &str) -> (Cause, &'static str) {
    match code {
        "invalidClientIdOrSecret" | "authFailed" => (
            Cause::Setup,
            "app_id or secret is wrong; copy Client ID and Client Secret again from the application's 凭证与基础信息",
        ),
        TOKEN_ENDED => (
            Cause::Now,
            "the token has ended; it will be tried again with another",
        ),
        "Forbidden.AccessDenied.AccessTokenPermissionDenied" => (
            Cause::Setup,
            "the application lacks a right; add Card.Instance.Write and Card.Streaming.Write in 权限管理",
        ),
        "Forbidden.AccessDenied.IpNotInWhiteList" => (
            Cause::Setup,
            "this machine's address is not on the application's list; add it",
        ),
        _ if code.starts_with("Forbidden.AccessDenied.Qps") => (
            Cause::TooFast(Duration::from_secs(60)),
            "too many requests; DingTalk limits them by the second",
        ),
        "ServiceUnavailable" | "InternalError" | "SystemError" => {
            (Cause::Now, "DingTalk is busy; it will be tried again")
        }
        _ if status >= 500 => (Cause::Now, "DingTalk is busy; it will be tried again"),
        _ => (Cause::Unclear, "see DingTalk's list of error codes"),
    }
}
