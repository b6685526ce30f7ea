//! The request bodies of some services, by their own documentation, and where their answers confirm that they accepted one.
//!
//! - PagerDuty, Events API v2: <https://developer.pagerduty.com/docs/send-alert-event>
//! - Alertmanager: <https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml>
//! - FlashDuty, standard events: <https://docs.flashcat.cloud/zh/flashduty/custom-alert-integration-guide>
//! - ntfy, publish as JSON: <https://docs.ntfy.sh/publish/#publish-as-json>
//! - Bark: <https://bark.day.app/#/tutorial>
//! - PushPlus: <https://www.pushplus.plus/doc/guide/api.html>
//! - ServerChan: <https://sct.ftqq.com/sendkey>
//!
//! None was asked in earnest; what is tested is their documented form.

use chrono::TimeDelta;
use oa_core::app::config::AlertService;
use oa_core::base::secrets::Secret;
use oa_core::model::Severity;
use oa_core::model::event::Kind;
use serde_json::{Value, json};

use super::event;
use crate::render::Message;

/// An alert of which Alertmanager does not hear that it is over ends after this long there.
const LONGEST_OPEN: TimeDelta = TimeDelta::days(30);
/// Longest summary that PagerDuty takes, in characters.
const LONGEST_SUMMARY: usize = 1024;

/// Whether an incident is opened and closed there, so that each alert is sent by itself.
pub(super) fn takes_incidents(service: AlertService) -> bool {
    matches!(
        service,
        AlertService::Pagerduty | AlertService::Alertmanager | AlertService::Flashduty
    )
}

/// Whether it needs a key in the body.
pub(super) fn needs_secret(service: AlertService) -> bool {
    matches!(service, AlertService::Pagerduty | AlertService::Pushplus)
}

/// Where an answer of HTTP 200 says that the message was taken, and what stands there then.
pub(super) fn success(service: AlertService) -> Option<(&'static str, Value)> {
    match service {
        AlertService::Pagerduty => Some(("/status", json!("success"))),
        AlertService::Bark | AlertService::Pushplus => Some(("/code", json!(200))),
        AlertService::Serverchan => Some(("/code", json!(0))),
        AlertService::Alertmanager | AlertService::Flashduty | AlertService::Ntfy => None,
    }
}

/// Address and body.
pub(super) fn request(
    service: AlertService,
    url: &Secret,
    secret: Option<&Secret>,
    message: &Message,
    text: &str,
) -> (Secret, Value) {
    let key = secret.map_or("", Secret::expose);
    let link = message.link.as_deref().unwrap_or_default();
    let title = message.title.as_str();
    let body = match service {
        AlertService::Pagerduty => pagerduty(key, message, text),
        AlertService::Alertmanager => alertmanager(message, text),
        AlertService::Flashduty => flashduty(message, text),
        AlertService::Ntfy => {
            let (root, topic) = topic(url.expose());
            let body = json!({
                "topic": topic, "title": title, "message": text, "markdown": true, "click": link,
                "priority": match (message.recovery, message.severity) { (false, Severity::Critical) => 5, (false, Severity::Warning) => 4, _ => 3 },
            });
            return (Secret::new(root), without_empty(body));
        }
        AlertService::Bark => json!({
            "title": title, "body": text, "url": link, "group": "oa",
            "level": if message.severity == Severity::Critical && !message.recovery { "timeSensitive" } else { "active" },
        }),
        AlertService::Pushplus => {
            json!({ "token": key, "title": title, "content": text, "template": "markdown" })
        }
        AlertService::Serverchan => json!({ "title": title, "desp": text }),
    };
    (url.clone(), without_empty(body))
}

/// The address of the server, and the topic behind it.
fn topic(url: &str) -> (String, String) {
    let url = url.trim_end_matches('/');
    let (root, topic) = url.rsplit_once('/').unwrap_or((url, ""));
    (format!("{root}/"), topic.to_owned())
}

fn without_empty(mut body: Value) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.retain(|_, value| value.as_str() != Some(""));
    }
    body
}

fn pagerduty(key: &str, message: &Message, text: &str) -> Value {
    let facts = message.facts.as_ref();
    let resolves = facts.is_some_and(|f| f.kind == Kind::Recovery);
    let host = facts.and_then(|f| f.host.as_deref()).unwrap_or("oa");
    let mut body = json!({
        "routing_key": key,
        "event_action": if resolves { "resolve" } else { "trigger" },
        "dedup_key": facts.map(|f| f.fingerprint.clone()).unwrap_or_default(),
        "client": "oa",
        "payload": {
            "summary": message.title.chars().take(LONGEST_SUMMARY).collect::<String>(),
            "source": host,
            "severity": message.severity.as_str(),
            "timestamp": facts.map(|f| f.at.to_rfc3339()).unwrap_or_default(),
            "component": facts.and_then(|f| f.task.clone()).unwrap_or_default(),
            "class": facts.map(|f| f.rule.clone()).unwrap_or_default(),
            "custom_details": event::object(message, text),
        },
    });
    if let Some(link) = &message.link {
        body["links"] = json!([{ "href": link, "text": "oa" }]);
    }
    body
}

fn alertmanager(message: &Message, text: &str) -> Value {
    let Some(facts) = &message.facts else {
        // Not of an incident: Alertmanager lets it end by itself.
        return json!([{ "labels": { "alertname": "message", "service": "oa" }, "annotations": { "summary": message.title, "description": text } }]);
    };
    let since = facts.since.unwrap_or(facts.at);
    let ends = match facts.kind {
        Kind::Recovery => facts.at,
        Kind::Problem => facts.at + LONGEST_OPEN,
        Kind::Message => facts.at + TimeDelta::minutes(5),
    };
    // The labels are its identity: those that open it close it.
    json!([{
        "labels": without_empty(json!({
            "alertname": facts.fingerprint.split(':').next().unwrap_or_default(), "service": "oa", "fingerprint": facts.fingerprint,
            "task": facts.task.clone().unwrap_or_default(),
        })),
        "annotations": without_empty(json!({
            "summary": message.title, "description": text, "severity": facts.severity.as_str(), "rule": facts.rule,
            "host": facts.host.clone().unwrap_or_default(), "run": facts.run.map(|r| r.to_string()).unwrap_or_default(),
        })),
        "startsAt": since.min(ends).to_rfc3339(),
        "endsAt": ends.to_rfc3339(),
        "generatorURL": message.link.as_deref().unwrap_or_default(),
    }])
}

fn flashduty(message: &Message, text: &str) -> Value {
    let facts = message.facts.as_ref();
    let status = match (message.recovery, message.severity) {
        (true, _) => "Ok",
        (false, Severity::Critical) => "Critical",
        (false, Severity::Warning) => "Warning",
        (false, Severity::Info) => "Info",
    };
    json!({
        "event_status": status, "title_rule": message.title, "alert_key": facts.map(|f| f.fingerprint.clone()).unwrap_or_default(),
        "description": text, "labels": without_empty(json!({
            "service": "oa", "rule": facts.map(|f| f.rule.clone()).unwrap_or_default(), "task": facts.and_then(|f| f.task.clone()).unwrap_or_default(),
            "host": facts.and_then(|f| f.host.clone()).unwrap_or_default(), "link": message.link.clone().unwrap_or_default(),
        })),
    })
}
