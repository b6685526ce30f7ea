//! One file a kind of channel. Robots are all of the same shape: a request from a message, and what its answer means.

mod command;
mod dingtalk;
mod email;
mod feishu;
mod webhook;
mod wecom;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::alerts::Severity;
use oa_core::config::{self, ChannelKind, Config, ConfigError, Locale};
use oa_core::secrets::{Secret, redact};
use serde_json::Value;

use crate::render::{Form, Message};

/// A channel with its secrets resolved.
#[derive(Debug, Clone)]
pub struct Channel {
    /// Its unique name.
    pub name: String,
    /// Only alerts that are at least so bad.
    pub min_severity: Severity,
    /// Only troubles that go on for this long.
    pub after: Duration,
    kind: ChannelKind,
    url: Secret,
    command: Vec<String>,
    template: Option<String>,
    headers: Vec<(String, Secret)>,
    from: String,
    to: Vec<String>,
    secret: Option<Secret>,
    at_mobiles: Vec<String>,
    at_all: bool,
    locale: Locale,
    config: PathBuf,
}

/// A request to a robot. The address holds a secret.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where.
    pub url: Secret,
    /// What, as JSON.
    pub body: Value,
}

/// The message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SendError {
    /// What happened and what to do, without secrets.
    pub message: String,
    /// The robot takes nothing for this long.
    pub pause: Option<Duration>,
    /// The answer was lost: perhaps the robot did take it.
    pub unknown: bool,
}

impl SendError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            pause: None,
            unknown: false,
        }
    }
}

/// Longest time for one message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// No robot answers with more.
const LARGEST_ANSWER: u64 = 64 << 10;

impl Channel {
    /// Resolves the secrets of a configured channel.
    ///
    /// # Errors
    /// When a reference leads nowhere, or the channel cannot do what is asked of it.
    pub fn resolve(config: &Config, channel: &config::Channel) -> Result<Self, ConfigError> {
        let setting = |key: &str| format!("alert.channels.{}.{key}", channel.name);
        let impossible = |message: &str| ConfigError::Invalid {
            path: config.path.clone(),
            message: format!(
                "channel \"{}\" in [[alert.channels]]: {message}",
                channel.name
            ),
        };
        if channel.kind == ChannelKind::Feishu && !channel.at_mobiles.is_empty() {
            return Err(impossible(
                "a Feishu robot cannot mention mobile numbers; remove at_mobiles or use at_all",
            ));
        }
        if channel.kind == ChannelKind::Wecom && channel.secret.is_some() {
            return Err(impossible(
                "a WeCom robot has no signing secret; remove secret",
            ));
        }
        check_keys(channel).map_err(|e| impossible(&e))?;
        let url = channel.url.as_ref();
        let url = url
            .map(|url| config.secret(url, &setting("url")))
            .transpose()?;
        let url = url.unwrap_or_else(|| Secret::new(String::new()));
        let schemes: &[&str] = match channel.kind {
            ChannelKind::Command => &[""],
            ChannelKind::Email => &["smtps://", "smtp://"],
            _ => &["https://", "http://"],
        };
        if !schemes.iter().any(|s| url.expose().starts_with(s)) {
            return Err(impossible(&format!("url must begin with {}", schemes[0])));
        }
        let headers = channel
            .headers
            .iter()
            .map(|(name, value)| Ok((name.clone(), config.secret(value, &setting("headers"))?)));
        let headers = headers.collect::<Result<Vec<_>, ConfigError>>()?;
        let secret = channel
            .secret
            .as_ref()
            .map(|s| config.secret(s, &setting("secret")))
            .transpose()?;
        let resolved = Self {
            name: channel.name.clone(),
            min_severity: channel.min_severity,
            after: channel.after.map_or(Duration::ZERO, |s| s.0),
            kind: channel.kind,
            url,
            command: channel.command.clone(),
            template: channel.template.clone(),
            headers,
            from: channel.from.clone(),
            to: channel.to.clone(),
            secret,
            at_mobiles: channel.at_mobiles.clone(),
            at_all: channel.at_all,
            locale: config.locale,
            config: config.path.clone(),
        };
        match resolved.kind {
            ChannelKind::Email => email::check(&resolved).map_err(|e| impossible(&e))?,
            ChannelKind::Webhook => webhook::check(&resolved).map_err(|e| impossible(&e))?,
            _ => {}
        }
        Ok(resolved)
    }

    /// What can be said without sending: whether the program of a `command` is on this machine, and an address can be one.
    ///
    /// # Errors
    /// When it cannot work.
    pub fn check_here(&self) -> Result<(), ConfigError> {
        let wrong = |message: String| ConfigError::Invalid {
            path: self.config.clone(),
            message: format!("channel \"{}\" in [[alert.channels]]: {message}", self.name),
        };
        match self.kind {
            ChannelKind::Command => command::check(self).map_err(wrong),
            ChannelKind::Email => Ok(()),
            _ => match self.url.expose().parse::<ureq::http::Uri>() {
                Ok(uri) if uri.host().is_some() => Ok(()),
                _ => Err(wrong(
                    "url is no address of the web; copy it again".to_owned(),
                )),
            },
        }
    }

    fn form(&self, limit: usize, json: bool, markdown: bool) -> Form {
        Form {
            limit,
            json,
            markdown,
            locale: self.locale,
        }
    }

    /// The request that carries a message, for channels that are asked over HTTP.
    #[must_use]
    pub fn request(&self, message: &Message, now: DateTime<Utc>) -> Option<Request> {
        match self.kind {
            ChannelKind::Dingtalk => Some(dingtalk::request(self, message, now)),
            ChannelKind::Wecom => Some(wecom::request(self, message)),
            ChannelKind::Feishu => Some(feishu::request(self, message, now)),
            ChannelKind::Webhook => Some(webhook::request(self, message)),
            ChannelKind::Email | ChannelKind::Command => None,
        }
    }

    /// The longest time that sending one message takes.
    #[must_use]
    pub fn longest(&self) -> Duration {
        TIMEOUT
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the robot did not take it.
    pub fn send(&self, message: &Message) -> Result<(), SendError> {
        let Some(request) = self.request(message, Utc::now()) else {
            return match self.kind {
                ChannelKind::Email => email::send(self, message),
                _ => command::send(self, message),
            };
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .max_redirects(0)
            .build()
            .into();
        let mut builder = agent.post(request.url.expose());
        for (name, value) in &self.headers {
            builder = builder.header(name, value.expose());
        }
        let mut answer = builder.send_json(&request.body).map_err(|e| lost(&e))?;
        let status = answer.status().as_u16();
        let text = answer
            .body_mut()
            .with_config()
            .limit(LARGEST_ANSWER)
            .read_to_string()
            .map_err(|e| lost(&e))?;
        self.judge(status, &text)
    }

    /// What an answer means.
    ///
    /// # Errors
    /// When it is no acceptance.
    pub fn judge(&self, status: u16, body: &str) -> Result<(), SendError> {
        if self.kind == ChannelKind::Webhook {
            return webhook::judge(status);
        }
        if status != 200 {
            return Err(SendError::new(format!(
                "the robot's server answered HTTP {status}; it will be tried again"
            )));
        }
        let Ok(answer) = serde_json::from_str::<Value>(body) else {
            return Err(SendError::new(
                "the answer is not a robot's (a web page?); check the address of the channel",
            ));
        };
        let code_key = if self.kind == ChannelKind::Feishu {
            ["code", "StatusCode"]
        } else {
            ["errcode", "errcode"]
        };
        let Some(code) = code_key.iter().find_map(|k| answer.get(k)?.as_i64()) else {
            return Err(SendError::new(
                "the answer has no error code; check the address of the channel",
            ));
        };
        if code == 0 {
            return Ok(());
        }
        let said = ["errmsg", "msg", "StatusMessage"]
            .iter()
            .find_map(|k| answer.get(k)?.as_str())
            .unwrap_or_default();
        let (meaning, pause) = match self.kind {
            ChannelKind::Dingtalk => dingtalk::explain(code, said),
            ChannelKind::Wecom => wecom::explain(code),
            _ => feishu::explain(code),
        };
        Err(SendError {
            unknown: false,
            message: redact(&format!(
                "the robot refused with code {code}: {meaning} (it says: {said})"
            )),
            pause,
        })
    }
}

/// Each kind has its own keys; one that another kind has would be without effect.
fn check_keys(channel: &config::Channel) -> Result<(), String> {
    use ChannelKind::{Command, Dingtalk, Email, Feishu, Webhook, Wecom};
    let kind = channel.kind;
    let robot = matches!(kind, Dingtalk | Wecom | Feishu);
    let rules = [
        (
            "url",
            channel.url.is_some(),
            kind != Command,
            kind != Command,
        ),
        (
            "command",
            !channel.command.is_empty(),
            kind == Command,
            kind == Command,
        ),
        (
            "template",
            channel.template.is_some(),
            kind == Webhook,
            false,
        ),
        (
            "headers",
            !channel.headers.is_empty(),
            kind == Webhook,
            false,
        ),
        (
            "from",
            !channel.from.is_empty(),
            kind == Email,
            kind == Email,
        ),
        ("to", !channel.to.is_empty(), kind == Email, kind == Email),
        ("secret", channel.secret.is_some(), robot, false),
        ("at_mobiles", !channel.at_mobiles.is_empty(), robot, false),
        ("at_all", channel.at_all, robot, false),
    ];
    for (key, given, possible, needed) in rules {
        if given && !possible {
            return Err(format!(
                "{key} does not belong to this kind of channel; remove it"
            ));
        }
        if needed && !given {
            return Err(format!("{key} is missing"));
        }
    }
    Ok(())
}

/// There was no answer. Only where there was no connection it is certain that the robot has not got the message.
fn lost(error: &ureq::Error) -> SendError {
    let refused =
        matches!(error, ureq::Error::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
    let never_sent = refused
        || matches!(
            error,
            ureq::Error::HostNotFound
                | ureq::Error::ConnectionFailed
                | ureq::Error::Tls(_)
                | ureq::Error::Rustls(_)
        );
    let message = format!(
        "no answer from the robot: {}; check this machine's network",
        redact(&error.to_string())
    );
    SendError {
        message,
        pause: None,
        unknown: !never_sent,
    }
}

/// HMAC-SHA256 in base64, which all signing robots use, each with its own key and message.
fn hmac_base64(key: &[u8], message: &[u8]) -> String {
    use base64::Engine as _;
    use hmac::{Hmac, KeyInit, Mac};
    // HMAC takes keys of any length.
    let Ok(mut mac) = Hmac::<sha2::Sha256>::new_from_slice(key) else {
        return String::new();
    };
    mac.update(message);
    base64::engine::general_purpose::STANDARD.encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests;
