//! An application of Feishu: tokens, messages that can be changed, and the long connection, after the platform's documents and its
//! public libraries.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tungstenite::Message;

use super::apps::{AppCard, Apps};
use super::text;
use crate::Context;
use crate::http::{Request, Response};

/// Larger events come in parts.
const PART: usize = 1000;
const LARGEST_CARD: usize = 30 << 10;

fn error(status: u16, code: i64, message: &str) -> Response {
    let body = json!({ "code": code, "msg": message });
    Response::new(status, "application/json; charset=utf-8", body.to_string())
}

fn done(data: &Value) -> Response {
    Response::json(&json!({ "code": 0, "msg": "success", "data": data }))
}

pub fn handle(context: &Context<'_>, message: &Value, rest: &str) -> Response {
    let known = |id: &str, secret: &str| {
        let right = context.options.app_secret.as_deref();
        id.starts_with("cli_") && right.is_none_or(|right| right == secret)
    };
    match (context.request.method.as_str(), rest) {
        ("POST", "open-apis/auth/v3/tenant_access_token/internal") => {
            if !known(text(message, "/app_id"), text(message, "/app_secret")) {
                return error(200, 10_014, "app secret invalid");
            }
            let token = context.apps.new_token();
            Response::json(
                &json!({ "code": 0, "msg": "ok", "tenant_access_token": token, "expire": 7200 }),
            )
        }
        ("POST", "callback/ws/endpoint") => {
            if !known(text(message, "/AppID"), text(message, "/AppSecret")) {
                return error(200, 514, "auth failed");
            }
            let host = context.request.header("host").unwrap_or_default();
            let ticket = context.apps.new_token();
            done(&json!({
                "URL": format!("ws://{host}/feishu/ws/v2?fpid=493&aid=552564&device_id=7&access_key={ticket}&service_id=33554678&ticket=t"),
                "ClientConfig": { "ReconnectCount": -1, "ReconnectInterval": 120, "ReconnectNonce": 30, "PingInterval": context.options.ping_interval },
            }))
        }
        (method, _) if rest.starts_with("open-apis/im/v1/messages") => {
            let token = context.request.header("authorization").unwrap_or_default();
            let token = token.strip_prefix("Bearer ").unwrap_or_default();
            if !context.apps.is_token(token) {
                return error(
                    400,
                    99_991_663,
                    "Invalid access token for authorization. Please make a test attempt after obtaining a valid token.",
                );
            }
            let id = rest.strip_prefix("open-apis/im/v1/messages/");
            match (method, id) {
                ("POST", None) => send(context, message),
                ("PATCH", Some(id)) => change(context, message, id),
                _ => Response::not_found(),
            }
        }
        _ => Response::not_found(),
    }
}

/// The card within a request, if the platform would take it.
fn card_of(message: &Value) -> Result<Value, Response> {
    let content = text(message, "/content");
    if content.len() > LARGEST_CARD {
        return Err(error(
            400,
            230_025,
            "The length of the message content reaches its limit.",
        ));
    }
    let card: Value = serde_json::from_str(content).map_err(|_| {
        error(
            400,
            230_001,
            "Your request contains an invalid request parameter, ext=content is not in json format",
        )
    })?;
    let bad = |why: &str| {
        error(
            400,
            230_099,
            &format!("Failed to create card content, ext=ErrCode: 200621; ErrMsg: {why}"),
        )
    };
    let elements = card.get("elements").and_then(Value::as_array);
    let elements = elements
        .filter(|e| !e.is_empty())
        .ok_or_else(|| bad("parse card json err"))?;
    let actions = elements.iter().filter(|e| text(e, "/tag") == "action");
    for button in actions
        .filter_map(|e| e.get("actions")?.as_array())
        .flatten()
    {
        let does = button.get("value").is_some_and(Value::is_object) || button.get("url").is_some();
        if text(button, "/tag") != "button" || text(button, "/text/content").is_empty() || !does {
            return Err(bad("unsupported button"));
        }
    }
    Ok(card)
}

fn send(context: &Context<'_>, message: &Value) -> Response {
    let (chat, kind) = (
        text(message, "/receive_id"),
        context.request.param("receive_id_type"),
    );
    let fits = match kind {
        "chat_id" => chat.starts_with("oc_"),
        "open_id" => chat.starts_with("ou_"),
        _ => kind == "email",
    };
    if !fits || text(message, "/msg_type") != "interactive" {
        return error(
            400,
            230_001,
            "Your request contains an invalid request parameter, ext=invalid receive_id",
        );
    }
    if chat == "oc_unknown" {
        return error(400, 230_002, "Bot/User can NOT be out of the chat.");
    }
    let card = match card_of(message) {
        Ok(card) => card,
        Err(refusal) => return refusal,
    };
    let own = text(message, "/uuid");
    if let Some(id) = context.apps.known(own) {
        return done(&json!({ "message_id": id, "chat_id": chat }));
    }
    let second = Duration::from_secs(1);
    if !context
        .log
        .admit(&format!("feishu_app:{chat}"), 5, second, second)
    {
        return error(400, 230_020, "This operation triggers the frequency limit.");
    }
    let elements = card.get("elements").and_then(Value::as_array).cloned();
    let parts = elements.unwrap_or_default();
    let parts: Vec<&str> = parts.iter().map(|e| text(e, "/text/content")).collect();
    let shown = parts.join("\n").trim().to_owned();
    let title = text(&card, "/header/title/content");
    context
        .log
        .message("feishu_app", chat, title, &shown, card.clone());
    let id = format!("om_sim{:08}", context.apps.number());
    let sent = AppCard {
        id: id.clone(),
        robot: "feishu",
        chat: chat.to_owned(),
        content: card,
        changes: 0,
    };
    context.apps.add_card(own, sent);
    done(&json!({ "message_id": id, "chat_id": chat }))
}

fn change(context: &Context<'_>, message: &Value, id: &str) -> Response {
    let card = match card_of(message) {
        Ok(card) => card,
        Err(refusal) => return refusal,
    };
    let before = context.apps.cards().into_iter().find(|c| c.id == id);
    let Some(before) = before else {
        return error(
            400,
            230_110,
            "Action unavailable as the message has been deleted.",
        );
    };
    let shared = |card: &Value| card.pointer("/config/update_multi") == Some(&json!(true));
    if !shared(&before.content) || !shared(&card) {
        return error(
            400,
            230_099,
            "Failed to create card content, ext=card is not shared (update_multi)",
        );
    }
    context.apps.change_card(id, card);
    done(&json!({}))
}

/// Whether a web socket may be opened; the error is the answer.
pub fn admit(request: &Request, apps: &Apps) -> Result<(), String> {
    if request.path == "/feishu/ws/v2" && apps.is_token(request.param("access_key")) {
        return Ok(());
    }
    Err("HTTP/1.1 403 Forbidden\r\nhandshake-status: 514\r\nhandshake-msg: auth failed\r\nhandshake-autherrcode: 1000040351\r\ncontent-length: 0\r\n\r\n".to_owned())
}

/// Fields of a message of Protocol Buffers.
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    loop {
        let low = (n % 128) as u8;
        n /= 128;
        if n == 0 {
            return out.push(low);
        }
        out.push(low + 128);
    }
}

fn write(fields: &[(u64, Field)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, field) in fields {
        match field {
            Field::Number(n) => {
                varint(&mut out, number * 8);
                varint(&mut out, *n);
            }
            Field::Bytes(bytes) => {
                varint(&mut out, number * 8 + 2);
                varint(&mut out, bytes.len() as u64);
                out.extend(bytes);
            }
        }
    }
    out
}

fn read(bytes: &[u8]) -> Option<Vec<(u64, Field)>> {
    let mut rest = bytes.iter().copied();
    let number = |rest: &mut dyn Iterator<Item = u8>| {
        let (mut value, mut unit) = (0u64, 1u64);
        loop {
            let byte = rest.next()?;
            value = value.checked_add(u64::from(byte % 128).checked_mul(unit)?)?;
            if byte < 128 {
                return Some(value);
            }
            unit = unit.checked_mul(128)?;
        }
    };
    let mut fields = Vec::new();
    while rest.len() > 0 {
        let tag = number(&mut rest)?;
        let field = match tag % 8 {
            0 => Field::Number(number(&mut rest)?),
            2 => {
                let length = usize::try_from(number(&mut rest)?).ok()?;
                let bytes: Vec<u8> = rest.by_ref().take(length).collect();
                Field::Bytes(Some(bytes).filter(|b| b.len() == length)?)
            }
            _ => return None,
        };
        fields.push((tag / 8, field));
    }
    Some(fields)
}

fn frame(method: u64, headers: &[(&str, String)], payload: &[u8]) -> Message {
    let mut fields = vec![
        (1, Field::Number(1)),
        (2, Field::Number(0)),
        (3, Field::Number(33_554_678)),
        (4, Field::Number(method)),
    ];
    for (key, value) in headers {
        let both = [(1, *key), (2, value.as_str())];
        let both = both.map(|(n, text)| (n, Field::Bytes(text.as_bytes().to_vec())));
        fields.push((5, Field::Bytes(write(&both))));
    }
    if !payload.is_empty() {
        fields.push((8, Field::Bytes(payload.to_vec())));
    }
    Message::binary(write(&fields))
}

/// The frames of a button that is pressed.
pub fn event(id: &str, number: usize, card: &AppCard, value: &Value, user: &str) -> Vec<Message> {
    let event = json!({
        "schema": "2.0",
        "header": { "event_id": format!("event-{number}"), "token": "", "create_time": "1764291600000000", "event_type": "card.action.trigger",
                    "tenant_key": "sim", "app_id": "cli_sim" },
        "event": {
            "operator": { "tenant_key": "sim", "open_id": user, "union_id": "on_sim" },
            "token": "c-sim", "action": { "value": value, "tag": "button" }, "host": "im_message",
            "context": { "open_message_id": card.id, "open_chat_id": card.chat },
        },
    });
    let payload = event.to_string().into_bytes();
    let parts: Vec<&[u8]> = payload.chunks(PART).collect();
    let sum = parts.len();
    let part = |(seq, part): (usize, &&[u8])| {
        let headers = [
            ("type", "event".to_owned()),
            ("message_id", id.to_owned()),
            ("sum", sum.to_string()),
            ("seq", seq.to_string()),
            ("trace_id", format!("trace-{number}")),
        ];
        frame(1, &headers, part)
    };
    parts.iter().enumerate().map(part).collect()
}

/// Takes what an application sends: what is sent back, and the answer to an event.
pub fn take(
    message: &Message,
    apps: &Apps,
    ping_interval: u64,
) -> (Option<Message>, Option<(String, Value)>) {
    let Message::Binary(bytes) = message else {
        return (None, None);
    };
    let Some(fields) = read(bytes) else {
        return (None, None);
    };
    let header = |name: &str| {
        let pairs = fields.iter().filter_map(|(n, field)| match field {
            Field::Bytes(bytes) if *n == 5 => {
                let mut texts = read(bytes)?.into_iter().filter_map(|(_, f)| match f {
                    Field::Bytes(text) => String::from_utf8(text).ok(),
                    Field::Number(_) => None,
                });
                Some((texts.next()?, texts.next()?))
            }
            _ => None,
        });
        let mut pairs = pairs.filter(|(key, _)| key == name);
        pairs.next().map_or_else(String::new, |(_, value)| value)
    };
    // The four numbers are required.
    let number = |n: u64| {
        fields.iter().find_map(|(field, value)| match value {
            Field::Number(value) if *field == n => Some(*value),
            _ => None,
        })
    };
    let (Some(_), Some(_), Some(_), Some(method)) = (number(1), number(2), number(3), number(4))
    else {
        return (None, None);
    };
    if method == 0 && header("type") == "ping" {
        apps.pinged();
        let config = json!({ "ReconnectCount": -1, "ReconnectInterval": 120, "ReconnectNonce": 30, "PingInterval": ping_interval });
        let pong = frame(
            0,
            &[("type", "pong".to_owned())],
            config.to_string().as_bytes(),
        );
        return (Some(pong), None);
    }
    let payload = fields.iter().find_map(|(n, field)| match field {
        Field::Bytes(bytes) if *n == 8 => serde_json::from_slice::<Value>(bytes).ok(),
        _ => None,
    });
    let payload = payload.unwrap_or_default();
    let data = STANDARD.decode(text(&payload, "/data")).unwrap_or_default();
    let data = serde_json::from_slice(&data).unwrap_or(Value::Null);
    let answer = json!({ "code": payload.get("code"), "data": data });
    (None, Some((header("message_id"), answer)))
}
