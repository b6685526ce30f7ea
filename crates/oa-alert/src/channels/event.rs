//! An alert as programs take it: whole, so that whoever gets it can open an incident and close the same one.

use oa_core::model::event::Kind;
use serde_json::{Map, Value};

use crate::render::Message;

/// What stands for several alerts has no facts of its own.
const OF_ONE: [&str; 10] = [
    "fingerprint",
    "state",
    "id",
    "task",
    "rule",
    "run",
    "host",
    "at",
    "since",
    "incident_severity",
];

/// Whether a template speaks of one alert, so that several must not be sent as one.
pub(super) fn is_of_one(template: &str) -> bool {
    OF_ONE
        .iter()
        .any(|name| template.contains(&format!("{{{name}}}")))
}

/// All that is known, by name. Times are RFC 3339, in UTC; what is not known is empty.
pub(super) fn values(message: &Message, text: &str) -> Vec<(&'static str, String)> {
    let facts = message.facts.as_ref();
    let kind = if message.recovery {
        "recovery"
    } else {
        "problem"
    };
    let state = facts.map_or("", |f| match f.kind {
        Kind::Problem => "firing",
        Kind::Recovery => "resolved",
        Kind::Message => "message",
    });
    let of = |get: &dyn Fn(&crate::render::Facts) -> Option<String>| {
        facts.and_then(get).unwrap_or_default()
    };
    vec![
        ("title", message.title.clone()),
        ("text", text.to_owned()),
        ("severity", message.severity.as_str().to_owned()),
        ("kind", kind.to_owned()),
        ("link", message.link.clone().unwrap_or_default()),
        ("fingerprint", of(&|f| Some(f.fingerprint.clone()))),
        ("state", state.to_owned()),
        ("id", of(&|f| Some(f.id.to_string()))),
        ("task", of(&|f| f.task.clone())),
        ("rule", of(&|f| Some(f.rule.clone()))),
        ("run", of(&|f| Some(f.run?.to_string()))),
        ("host", of(&|f| f.host.clone())),
        ("at", of(&|f| Some(f.at.to_rfc3339()))),
        ("since", of(&|f| Some(f.since.unwrap_or(f.at).to_rfc3339()))),
        (
            "incident_severity",
            of(&|f| Some(f.severity.as_str().to_owned())),
        ),
    ]
}

/// The same as an object.
pub(super) fn object(message: &Message, text: &str) -> Value {
    let pairs = values(message, text).into_iter();
    let mut object: Map<String, Value> = pairs
        .map(|(name, value)| (name.to_owned(), value.into()))
        .collect();
    if !message.actions.is_empty() {
        let actions = message.links();
        let actions = actions.map(|(word, url)| (word.to_owned(), url.into()));
        object.insert("actions".to_owned(), Value::Object(actions.collect()));
    }
    Value::Object(object)
}
