//! The long connection of Feishu (使用长连接接收回调), by its public libraries.
//!
//! An address is asked for with the application's id and secret; frames ([`Frame`]) come over a web socket. Control frames are pings of
//! ours and pongs, which may bring another interval. A data frame is a part of an event; when all parts of a message are there, what it
//! is about is answered within three seconds by the same frame with another payload: `{"code":200,"data":BASE64}`, in which the data of
//! `card.action.trigger` are a toast.

use std::collections::HashMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oa_core::base::secrets::redact;
use serde_json::{Value, json};
use tungstenite::Message;

use super::Protocol;
use super::frame::Frame;
use super::press::{Press, Said, Tone};
use super::socket::{NotConnected, Socket};
use crate::channels::{App, feishu_connection, ping_interval};

/// Between pings, unless the platform says so.
const PING: Duration = Duration::from_secs(120);
const CONTROL: i32 = 0;
const DATA: i32 = 1;
/// Messages of which parts are awaited, and parts of one.
const MOST_PARTIAL: usize = 16;
const MOST_PARTS: usize = 64;

/// One connection.
pub(super) struct Feishu {
    service: i32,
    ping_every: Duration,
    parts: HashMap<String, Vec<Option<Vec<u8>>>>,
}

/// Opens one.
pub(super) fn open(app: &App) -> Result<(Box<dyn Protocol>, Socket), String> {
    let (address, ping_every) = feishu_connection(app).map_err(|e| e.message)?;
    let service = address.split_once('?').and_then(|(_, query)| {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        let (_, id) = pairs.find(|(name, _)| *name == "service_id")?;
        id.parse().ok()
    });
    let socket = Socket::connect(&address).map_err(|e| match e {
        NotConnected::Refused(status, headers) => {
            let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
            let code = header("handshake-autherrcode").or(header("handshake-status"));
            redact(&format!(
                "Feishu refused the long connection with HTTP {status}, code {}: {}",
                code.unwrap_or("unknown"),
                header("handshake-msg").unwrap_or_default()
            ))
        }
        NotConnected::Failed(why) => redact(&why),
    })?;
    let own = Feishu {
        service: service.unwrap_or_default(),
        ping_every: ping_every.unwrap_or(PING),
        parts: HashMap::new(),
    };
    Ok((Box::new(own), socket))
}

impl Protocol for Feishu {
    fn ping(&self) -> Message {
        let frame = Frame {
            service: self.service,
            method: CONTROL,
            headers: vec![("type".to_owned(), "ping".to_owned())],
            ..Frame::default()
        };
        Message::binary(frame.encode())
    }

    fn ping_every(&self) -> Duration {
        self.ping_every
    }

    fn take(
        &mut self,
        message: &Message,
        press: &mut dyn FnMut(&Press) -> Said,
    ) -> Result<Option<Message>, String> {
        let Message::Binary(bytes) = message else {
            return Ok(None);
        };
        let Some(mut frame) = Frame::decode(bytes) else {
            tracing::warn!("Feishu sent {} bytes that are no frame", bytes.len());
            return Ok(None);
        };
        match (frame.method, frame.header("type")) {
            (CONTROL, "pong") => {
                let config = serde_json::from_slice::<Value>(&frame.payload).ok();
                if let Some(every) = config.as_ref().and_then(ping_interval) {
                    self.ping_every = every;
                }
                Ok(None)
            }
            (DATA, "event") => {
                let Some(payload) = self.whole(&frame) else {
                    return Ok(None);
                };
                let data = pressed(&payload).map(|p| toast(&press(&p)));
                let mut answer = json!({ "code": 200 });
                if let Some(data) = data {
                    answer["data"] = STANDARD.encode(data.to_string()).into();
                }
                frame.payload = answer.to_string().into_bytes();
                Ok(Some(Message::binary(frame.encode())))
            }
            _ => Ok(None),
        }
    }
}

impl Feishu {
    /// The payload, when this is its last part.
    fn whole(&mut self, frame: &Frame) -> Option<Vec<u8>> {
        let number = |name: &str| frame.header(name).parse::<usize>().ok();
        let sum = number("sum").unwrap_or(1);
        if sum <= 1 {
            return Some(frame.payload.clone());
        }
        let (id, seq) = (frame.header("message_id").to_owned(), number("seq")?);
        if sum > MOST_PARTS || seq >= sum {
            return None;
        }
        if self.parts.len() >= MOST_PARTIAL && !self.parts.contains_key(&id) {
            // Parts of what never came whole.
            self.parts.clear();
        }
        let parts = self
            .parts
            .entry(id.clone())
            .or_insert_with(|| vec![None; sum]);
        *parts.get_mut(seq)? = Some(frame.payload.clone());
        let whole: Option<Vec<Vec<u8>>> = parts.iter().cloned().collect();
        let whole = whole?;
        self.parts.remove(&id);
        Some(whole.concat())
    }
}

/// The button of an event; `None`: it is about something else.
fn pressed(payload: &[u8]) -> Option<Press> {
    let event: Value = serde_json::from_slice(payload).ok()?;
    let text = |pointer: &str| event.pointer(pointer).and_then(Value::as_str);
    if text("/header/event_type") != Some("card.action.trigger") {
        return None;
    }
    // The company's own id, where the application may see it.
    let id = |pointer: &str| text(pointer).filter(|id| !id.is_empty());
    let by = id("/event/operator/user_id").or_else(|| id("/event/operator/open_id"));
    Some(Press {
        signed: Some(
            text("/event/action/value/oa")
                .unwrap_or_default()
                .to_owned(),
        ),
        by: by.unwrap_or("飞书").to_owned(),
        ..Press::default()
    })
}

fn toast(said: &Said) -> Value {
    let kind = match said.tone {
        Tone::Done => "success",
        Tone::Notice => "info",
        Tone::Refused => "error",
    };
    json!({ "toast": { "type": kind, "content": said.text } })
}
