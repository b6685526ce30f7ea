//! Any address that takes JSON: a template of the configuration, or title, text, severity and kind.

use serde_json::{Value, json};

use super::{Cause, Channel, Request, SendError};
use crate::render::Message;

/// A generous limit for what is not known.
const LIMIT: usize = 100_000;

pub(super) fn check(channel: &Channel) -> Result<(), String> {
    let Some(template) = &channel.template else {
        return Ok(());
    };
    serde_json::from_str::<Value>(template)
        .map(|_| ())
        .map_err(|e| format!("template is not JSON: {e}"))
}

pub(super) fn request(channel: &Channel, message: &Message) -> Request {
    let text = channel.form(LIMIT, false, true).fit(message);
    let link = message.link.as_deref().unwrap_or_default();
    let kind = if message.recovery {
        "recovery"
    } else {
        "problem"
    };
    let severity = message.severity.as_str();
    let body = match channel.template.as_deref().map(serde_json::from_str) {
        Some(Ok(mut template)) => {
            let values = [
                ("title", message.title.as_str()),
                ("text", &text),
                ("severity", severity),
                ("kind", kind),
                ("link", link),
            ];
            fill(&mut template, &values);
            template
        }
        _ => {
            json!({ "title": message.title, "text": text, "severity": severity, "kind": kind, "link": link })
        }
    };
    Request {
        url: channel.url.clone(),
        body,
    }
}

/// In the values, not in the text of the template: so a quote in a message cannot end a text.
fn fill(template: &mut Value, values: &[(&str, &str)]) {
    match template {
        Value::String(text) => *text = filled(text, values),
        Value::Array(list) => list.iter_mut().for_each(|v| fill(v, values)),
        Value::Object(fields) => fields.values_mut().for_each(|v| fill(v, values)),
        _ => {}
    }
}

/// In one pass: a message that contains `{title}` keeps it.
fn filled(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::new();
    let mut rest = template;
    while let Some(start) = rest.find('{') {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let found = values
            .iter()
            .find_map(|(name, value)| Some((rest.strip_prefix(&format!("{{{name}}}"))?, value)));
        match found {
            Some((after, value)) => {
                out.push_str(value);
                rest = after;
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

pub(super) fn assess(status: u16) -> Result<(), SendError> {
    match status {
        200..=299 => Ok(()),
        401 | 403 => Err(SendError::because(
            Cause::Setup,
            format!("the webhook refused with HTTP {status}: correct its address or headers"),
        )),
        400 | 413 | 415 | 422 => Err(SendError::because(
            Cause::Unclear,
            format!(
                "the webhook does not take this message (HTTP {status}); compare template with what it wants"
            ),
        )),
        _ => Err(SendError::new(format!(
            "the webhook answered HTTP {status}; it will be tried again"
        ))),
    }
}
