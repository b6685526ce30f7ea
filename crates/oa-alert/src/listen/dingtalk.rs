//! The long connection of DingTalk (Stream 模式), by its public libraries.
//!
//! An address and a ticket are asked for with the application's id and secret. What comes over the web socket is JSON: `SYSTEM`
//! messages are pings, which are answered with their own data, and the wish that another connection is opened; a `CALLBACK` is a
//! button, by the card's id and its own. Each is answered by `{"code":200,"headers":{"messageId":…},"data":…}`, with what is to be
//! shown on the card.

use std::time::Duration;

use oa_core::base::secrets::redact;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tungstenite::{Bytes, Message};

use super::Protocol;
use super::press::{Press, Said, Tone};
use super::socket::{NotConnected, Socket};
use crate::channels::{App, dingtalk_connection, dingtalk_notice};

/// Between pings of the web socket.
const PING: Duration = Duration::from_secs(60);

/// One connection.
pub(super) struct Dingtalk;

/// Opens one.
pub(super) fn open(app: &App) -> Result<(Box<dyn Protocol>, Socket), String> {
    let (endpoint, ticket) = dingtalk_connection(app).map_err(|e| e.message)?;
    let ticket = utf8_percent_encode(&ticket, NON_ALPHANUMERIC);
    let address = format!("{endpoint}?ticket={ticket}");
    let socket = Socket::connect(&address).map_err(|e| match e {
        NotConnected::Refused(status, _) => {
            format!("DingTalk refused the long connection with HTTP {status}")
        }
        NotConnected::Failed(why) => redact(&why),
    })?;
    Ok((Box::new(Dingtalk), socket))
}

impl Protocol for Dingtalk {
    fn ping(&self) -> Message {
        Message::Ping(Bytes::new())
    }

    fn ping_every(&self) -> Duration {
        PING
    }

    fn take(
        &mut self,
        message: &Message,
        press: &mut dyn FnMut(&Press) -> Said,
    ) -> Result<Option<Message>, String> {
        let Message::Text(text) = message else {
            return Ok(None);
        };
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            tracing::warn!("DingTalk sent {} bytes that are no JSON", text.len());
            return Ok(None);
        };
        let part = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
        let data = match (part("/type"), part("/headers/topic")) {
            (Some("SYSTEM"), Some("disconnect")) => {
                return Err("the platform asks for another connection".to_owned());
            }
            (Some("SYSTEM"), _) => part("/data").unwrap_or_default().to_owned(),
            (Some("CALLBACK"), _) => match part("/data").and_then(pressed) {
                Some(pressed) => {
                    let said = press(&pressed);
                    // What was done is on the card in a moment.
                    let shown = match said.tone {
                        Tone::Done => json!({}),
                        Tone::Notice | Tone::Refused => dingtalk_notice(&said.text),
                    };
                    json!({ "response": shown }).to_string()
                }
                None => json!({ "response": {} }).to_string(),
            },
            _ => return Ok(None),
        };
        let answer = json!({
            "code": 200,
            "headers": { "contentType": "application/json", "messageId": part("/headers/messageId") },
            "message": "OK",
            "data": data,
        });
        Ok(Some(Message::text(answer.to_string())))
    }
}

/// The button of a callback; `None`: it is about something else.
fn pressed(data: &str) -> Option<Press> {
    let data: Value = serde_json::from_str(data).ok()?;
    let text = |name: &str| data.get(name).and_then(Value::as_str);
    let content: Value = serde_json::from_str(text("content")?).ok()?;
    let ids = content.pointer("/cardPrivateData/actionIds")?.as_array()?;
    Some(Press {
        signed: None,
        message: text("outTrackId")?.to_owned(),
        action: ids.first()?.as_str()?.to_owned(),
        by: text("userId")
            .filter(|by| !by.is_empty())
            .unwrap_or("钉钉")
            .to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ping_is_answered_with_its_data_and_another_connection_is_opened_when_that_is_asked_for() {
        let mut pressed = |_: &Press| -> Said { panic!("nobody has pressed anything") };
        let mut system = |topic: &str| {
            let headers = json!({ "topic": topic, "messageId": "m1" });
            let message =
                json!({ "type": "SYSTEM", "headers": headers, "data": "{\"opaque\":\"x\"}" });
            Dingtalk.take(&Message::text(message.to_string()), &mut pressed)
        };
        let Ok(Some(Message::Text(answer))) = system("ping") else {
            panic!("no answer");
        };
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert_eq!(answer["data"], "{\"opaque\":\"x\"}");
        assert_eq!(
            (&answer["code"], &answer["headers"]["messageId"]),
            (&json!(200), &json!("m1"))
        );
        assert!(system("disconnect").is_err());
    }
}
