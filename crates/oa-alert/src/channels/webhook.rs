//! Any address that takes JSON: a template from the configuration, or title, text, severity and kind.

use oa_core::app::config::AlertService;
use oa_core::base::secrets::redact;
use serde_json::Value;

use super::{Cause, Channel, Request, SendError, event, services};
use crate::render::Message;

/// A generous limit for what is not known.
const LIMIT: usize = 100_000;

pub(super) fn check(channel: &Channel) -> Result<(), String> {
    if let Some(service) = channel.service {
        if channel.template.is_some() {
            return Err("service has a form of its own; remove template".to_owned());
        }
        if services::needs_secret(service) != channel.secret.is_some() {
            return Err(if channel.secret.is_some() {
                "this service has no secret beside its address; remove secret".to_owned()
            } else {
                "secret is missing: the service's integration key or token".to_owned()
            });
        }
    } else if channel.secret.is_some() {
        return Err("secret belongs to a service; name it, or use headers".to_owned());
    }
    if let Some(success) = &channel.success
        && !success.pointer.starts_with('/')
    {
        return Err(format!(
            "success.pointer is \"{}\", which is no JSON pointer: \"/code\" is one",
            success.pointer
        ));
    }
    let Some(template) = &channel.template else {
        return Ok(());
    };
    serde_json::from_str::<Value>(template)
        .map(|_| ())
        .map_err(|e| format!("template is not JSON: {e}"))
}

/// Whether several alerts may be one request: not where an incident is opened or closed with each.
pub(super) fn takes_digests(template: Option<&str>, service: Option<AlertService>) -> bool {
    match (service, template) {
        (Some(service), _) => !services::takes_incidents(service),
        (None, Some(template)) => !event::is_of_one(template),
        (None, None) => false,
    }
}

pub(super) fn request(channel: &Channel, message: &Message) -> Request {
    let text = channel.form(LIMIT, false, true).fit(message);
    if let Some(service) = channel.service {
        let secret = channel.secret.as_ref();
        let (url, body) = services::request(service, &channel.url, secret, message, &text);
        return Request { url, body };
    }
    let body = match channel.template.as_deref().map(serde_json::from_str) {
        Some(Ok(mut template)) => {
            let values = event::values(message, &text);
            fill(&mut template, &values);
            template
        }
        _ => event::object(message, &text),
    };
    Request {
        url: channel.url.clone(),
        body,
    }
}

/// In the values, not in the text of the template: so a quote in a message cannot end a text.
fn fill(template: &mut Value, values: &[(&str, String)]) {
    match template {
        Value::String(text) => *text = filled(text, values),
        Value::Array(list) => list.iter_mut().for_each(|v| fill(v, values)),
        Value::Object(fields) => fields.values_mut().for_each(|v| fill(v, values)),
        _ => {}
    }
}

/// In one pass: a message that contains `{title}` keeps it.
fn filled(template: &str, values: &[(&str, String)]) -> String {
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

/// Where the answer says whether the message was taken: `success` of the configuration, or as the service documents it.
fn success(channel: &Channel) -> Option<(&str, serde_json::Value)> {
    match (&channel.success, channel.service) {
        (Some(own), _) => Some((&own.pointer, own.equals.clone())),
        (None, Some(service)) => services::success(service),
        (None, None) => None,
    }
}

pub(super) fn assess(channel: &Channel, status: u16, body: &str) -> Result<(), SendError> {
    match status {
        200..=299 => {
            let Some((pointer, equals)) = success(channel) else {
                return Ok(());
            };
            let answer: Option<Value> = serde_json::from_str(body).ok();
            let said = answer.as_ref().and_then(|a| a.pointer(pointer));
            if said == Some(&equals) {
                return Ok(());
            }
            let said = said.map_or_else(|| "nothing".to_owned(), Value::to_string);
            // Nobody knows what such a code means: perhaps this message, perhaps the channel.
            Err(SendError::because(
                Cause::Unclear,
                redact(&format!(
                    "the webhook answered HTTP {status}, but its answer has {said} at {pointer} instead of {equals}; look the code up at that service"
                )),
            ))
        }
        // Nobody is at that address any more, or somebody else is.
        401 | 403 | 404 | 410 | 300..=399 => Err(SendError::because(
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
