//! An application of DingTalk: tokens, cards that can be changed, and the long connection, after the platform's documents and its
//! public libraries.

use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use super::apps::{AppCard, Apps};
use super::text;
use crate::Context;
use crate::http::{Request, Response};

const TOPIC: &str = "/v1.0/card/instances/callback";
const PING: &str = r#"{"opaque":"sim-ping"}"#;

fn error(status: u16, code: &str, message: &str) -> Response {
    let body = json!({ "code": code, "message": message, "requestid": "sim" });
    Response::new(status, "application/json; charset=utf-8", body.to_string())
}

pub fn handle(context: &Context<'_>, message: &Value, rest: &str) -> Response {
    let known = |id: &str, secret: &str| {
        let right = context.options.app_secret.as_deref();
        id.starts_with("ding") && right.is_none_or(|right| right == secret)
    };
    match (context.request.method.as_str(), rest) {
        ("POST", "v1.0/oauth2/accessToken") => {
            if !known(text(message, "/appKey"), text(message, "/appSecret")) {
                return error(
                    400,
                    "invalidClientIdOrSecret",
                    "无效的clientId或者clientSecret",
                );
            }
            let token = context.apps.new_token();
            Response::json(&json!({ "accessToken": token, "expireIn": 7200 }))
        }
        ("POST", "v1.0/gateway/connections/open") => {
            if !known(text(message, "/clientId"), text(message, "/clientSecret")) {
                return error(401, "authFailed", "鉴权失败");
            }
            if text(message, "/subscriptions/0/topic") != TOPIC {
                return error(400, "param.error", "subscriptions");
            }
            let host = context.request.header("host").unwrap_or_default();
            let ticket = format!("{}+/=", context.apps.new_token());
            Response::json(
                &json!({ "endpoint": format!("ws://{host}/dingtalk/connect"), "ticket": ticket }),
            )
        }
        (method, "v1.0/card/instances" | "v1.0/card/instances/createAndDeliver") => {
            let token = context.request.header("x-acs-dingtalk-access-token");
            if !context.apps.is_token(token.unwrap_or_default()) {
                return error(401, "InvalidAuthentication", "不合法的access_token");
            }
            match (method, rest.ends_with("createAndDeliver")) {
                ("POST", true) => send(context, message),
                ("PUT", false) => change(context, message),
                _ => Response::not_found(),
            }
        }
        _ => Response::not_found(),
    }
}

/// The variables of a card: texts, all of them, and among them a form with buttons.
fn variables(message: &Value) -> Option<Value> {
    let map = message.pointer("/cardData/cardParamMap")?;
    if !map.as_object()?.values().all(Value::is_string) {
        return None;
    }
    let form: Value = serde_json::from_str(text(map, "/sys_full_json_obj")).ok()?;
    let acts = |b: &Value| b.get("url").is_some() || b.get("request") == Some(&json!(true));
    let buttons = form.get("msgButtons")?.as_array()?;
    let right = buttons
        .iter()
        .all(|b| !text(b, "/text").is_empty() && acts(b));
    right.then(|| map.clone())
}

fn send(context: &Context<'_>, message: &Value) -> Response {
    let id = text(message, "/outTrackId");
    let space = text(message, "/openSpaceId");
    let chat = space
        .strip_prefix("dtv1.card//IM_GROUP.")
        .unwrap_or_default();
    let robot = text(message, "/imGroupOpenDeliverModel/robotCode");
    let template = text(message, "/cardTemplateId").ends_with(".schema");
    let card = variables(message).filter(|_| template && !robot.is_empty() && !id.is_empty());
    let Some(card) = card.filter(|_| text(message, "/callbackType") == "STREAM") else {
        return error(400, "param.error", "参数错误");
    };
    if chat == "cidunknown" || !chat.starts_with("cid") {
        return Response::json(
            &json!({ "success": true, "result": { "outTrackId": id, "deliverResults": [
            { "spaceType": "IM_GROUP", "spaceId": chat, "success": false, "errorMsg": "robot not in group" }] } }),
        );
    }
    let minute = Duration::from_secs(60);
    let limit = context.options.rate_limit_per_minute;
    if !context
        .log
        .admit(&format!("dingtalk_app:{chat}"), limit, minute, minute)
    {
        return error(
            403,
            "Forbidden.AccessDenied.QpsLimitForAppkeyAndApi",
            "请求过于频繁",
        );
    }
    let (title, body) = (text(&card, "/msgTitle"), text(&card, "/staticMsgContent"));
    context
        .log
        .message("dingtalk_app", chat, title, body, card.clone());
    context.apps.add_card(
        "",
        AppCard {
            id: id.to_owned(),
            robot: "dingtalk",
            chat: chat.to_owned(),
            content: card,
            changes: 0,
        },
    );
    Response::json(
        &json!({ "success": true, "result": { "outTrackId": id, "deliverResults": [
        { "spaceType": "IM_GROUP", "spaceId": chat, "success": true, "errorMsg": "", "carrierId": "sim" }] } }),
    )
}

fn change(context: &Context<'_>, message: &Value) -> Response {
    let id = text(message, "/outTrackId");
    let changed = variables(message).is_some_and(|card| context.apps.change_card(id, card));
    match changed {
        true => Response::json(&json!({ "success": true, "result": true })),
        false => error(400, "param.error", "参数错误"),
    }
}

/// Whether a web socket may be opened; the error is the answer.
pub fn admit(request: &Request, apps: &Apps) -> Result<(), String> {
    let ticket = request.param("ticket").strip_suffix("+/=");
    if request.path == "/dingtalk/connect" && ticket.is_some_and(|t| apps.is_token(t)) {
        return Ok(());
    }
    Err("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n".to_owned())
}

fn message(kind: &str, topic: &str, id: &str, data: &str) -> Message {
    let message = json!({
        "specVersion": "1.0", "type": kind, "data": data,
        "headers": { "appId": "sim", "connectionId": "sim", "contentType": "application/json", "messageId": id, "time": "1764291600000", "topic": topic },
    });
    Message::text(message.to_string())
}

pub fn ping() -> Message {
    message("SYSTEM", "ping", "ping-1", PING)
}

/// A button that is pressed.
pub fn event(id: &str, card: &AppCard, value: &Value, user: &str) -> Vec<Message> {
    let content = json!({ "cardPrivateData": { "actionIds": [value], "params": {} } });
    let data = json!({
        "extension": "{}", "corpId": "dingsim", "type": "actionCallback", "userIdType": 1, "userId": user, "spaceId": card.chat, "spaceType": "im",
        "outTrackId": card.id, "content": content.to_string(), "value": content.to_string(),
    });
    vec![message("CALLBACK", TOPIC, id, &data.to_string())]
}

/// Takes what an application sends: the answer to an event.
pub fn take(message: &Message, apps: &Apps) -> Option<(String, Value)> {
    let answer: Value = match message {
        Message::Text(text) => serde_json::from_str(text).ok()?,
        Message::Ping(_) => {
            apps.pinged();
            return None;
        }
        _ => return None,
    };
    let (id, data) = (text(&answer, "/headers/messageId"), text(&answer, "/data"));
    if id == "ping-1" && data == PING {
        apps.pinged();
        return None;
    }
    let data: Value = serde_json::from_str(data).ok()?;
    // What is to be shown is on the card at once, for everybody.
    let answer = json!({ "code": answer.get("code"), "data": data });
    Some((id.to_owned(), answer))
}
