//! One file a kind of channel. Robots are all of the same shape: a request from a message, and what its answer means.

mod command;
mod dingtalk;
mod email;
mod event;
mod feishu;
mod lint;
mod services;
mod webhook;
mod wecom;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::config::{
    self, AlertService, ChannelKind, Config, ConfigError, Locale, Mention, Success,
};
use oa_core::base::secrets::{Secret, redact};
use oa_core::model::Severity;
use serde_json::Value;

use crate::pace::Pace;
use crate::render::{Form, Message};
pub(crate) use lint::is_mobile;

/// A channel with its secrets resolved.
#[derive(Debug, Clone)]
pub(crate) struct Channel {
    /// Its unique name.
    pub(crate) name: String,
    kind: ChannelKind,
    url: Secret,
    command: Vec<String>,
    env: Vec<(String, Secret)>,
    template: Option<String>,
    headers: Vec<(String, Secret)>,
    from: String,
    to: Vec<String>,
    secret: Option<Secret>,
    at_mobiles: Vec<String>,
    at_all: bool,
    mention: Mention,
    service: Option<AlertService>,
    success: Option<Success>,
    pace: Pace,
    locale: Locale,
    config: PathBuf,
}

/// A request to a robot. The address holds a secret.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// Where.
    pub(crate) url: Secret,
    /// What, as JSON.
    pub(crate) body: Value,
}

/// The message was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct SendError {
    /// What happened and what to do, without secrets.
    pub(crate) message: String,
    /// What it is about.
    pub(crate) cause: Cause,
    /// The answer was lost: perhaps the robot did take it.
    pub(crate) unknown: bool,
}

/// What a refusal is about, which decides what comes next. It is decided by codes, never by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The channel does not work now: unreachable, busy.
    Now,
    /// Too many messages: it takes nothing from anybody for this long.
    TooFast(Duration),
    /// The channel as it is set up: a person must act, and no other message would pass.
    Setup,
    /// This message: another one would pass.
    Content,
    /// Not known: perhaps this message.
    Unclear,
}

impl Cause {
    /// Whether another message might pass.
    pub(crate) fn is_of_the_message(self) -> bool {
        matches!(self, Self::Content | Self::Unclear)
    }
}

impl SendError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            cause: Cause::Now,
            unknown: false,
        }
    }

    fn because(cause: Cause, message: impl Into<String>) -> Self {
        Self {
            cause,
            ..Self::new(message)
        }
    }

    /// The channel takes nothing for this long.
    pub(crate) fn pause(&self) -> Option<Duration> {
        match self.cause {
            Cause::TooFast(pause) => Some(pause),
            _ => None,
        }
    }
}

/// Longest time for one message.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time for a name, and for a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// What a server that says "too many requests" without saying for how long gets as a pause.
const PAUSE: Duration = Duration::from_secs(60);
/// No server makes alerts wait for longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);
/// No robot answers with more.
const LARGEST_ANSWER: u64 = 64 << 10;

impl Channel {
    /// Resolves the secrets of a configured channel.
    pub(crate) fn resolve(config: &Config, channel: &config::Channel) -> Result<Self, ConfigError> {
        let setting = |key: &str| format!("alert.channels.{}.{key}", channel.name);
        let impossible = |message: &str| ConfigError::Invalid {
            path: config.path.clone(),
            message: format!(
                "channel \"{}\" in [[alert.channels]]: {message}",
                channel.name
            ),
        };
        if channel.kind == ChannelKind::Feishu
            && (channel.at_duty || !channel.at_mobiles.is_empty())
        {
            return Err(impossible(
                "a Feishu robot cannot mention mobile numbers; remove at_mobiles and at_duty, or use at_all",
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
        let env = command::environment(config, channel)?;
        let secret = channel
            .secret
            .as_ref()
            .map(|s| config.secret(s, &setting("secret")))
            .transpose()?;
        let resolved = Self {
            name: channel.name.clone(),
            kind: channel.kind,
            url,
            command: channel.command.clone(),
            env,
            template: channel.template.clone(),
            headers,
            from: channel.from.clone(),
            to: channel.to.clone(),
            secret,
            at_mobiles: mentioned(config, channel),
            at_all: channel.at_all,
            mention: channel.mention,
            service: channel.service,
            success: channel.success.clone(),
            pace: Pace::new(
                channel.kind,
                channel.per_minute,
                match channel.kind {
                    ChannelKind::Command => false,
                    ChannelKind::Webhook => {
                        webhook::takes_digests(channel.template.as_deref(), channel.service)
                    }
                    _ => true,
                },
                config.alert.group_wait.0,
            ),
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
    pub(crate) fn check_here(&self) -> Result<(), ConfigError> {
        let wrong = |message: String| ConfigError::Invalid {
            path: self.config.clone(),
            message: format!("channel \"{}\" in [[alert.channels]]: {message}", self.name),
        };
        match self.kind {
            ChannelKind::Command => command::check(self).map_err(wrong),
            ChannelKind::Email => Ok(()),
            _ => lint::check(self).map_err(wrong),
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
    pub(crate) fn request(&self, message: &Message, now: DateTime<Utc>) -> Option<Request> {
        match self.kind {
            ChannelKind::Dingtalk => Some(dingtalk::request(self, message, now)),
            ChannelKind::Wecom => Some(wecom::request(self, message)),
            ChannelKind::Feishu => Some(feishu::request(self, message, now)),
            ChannelKind::Webhook => Some(webhook::request(self, message)),
            ChannelKind::Email | ChannelKind::Command => None,
        }
    }

    /// Whom a message mentions, and whether everybody: nobody is called for what is over.
    fn mentions(&self, message: &Message) -> (&[String], bool) {
        let worst = match self.mention {
            Mention::Critical => Severity::Critical,
            Mention::Warning => Severity::Warning,
            Mention::Always => Severity::Info,
        };
        let calls =
            self.mention == Mention::Always || (message.severity >= worst && !message.recovery);
        if calls {
            (&self.at_mobiles, self.at_all)
        } else {
            (&[], false)
        }
    }

    /// How fast it is sent messages.
    pub(crate) fn pace(&self) -> Pace {
        self.pace
    }

    /// The robot behind the channel, without its secrets: two channels of one robot share its limit.
    pub(crate) fn robot(&self) -> String {
        use sha2::{Digest, Sha256};
        let mut hash = Sha256::new();
        hash.update(self.url.expose());
        for word in &self.command {
            hash.update([0]);
            hash.update(word);
        }
        hash.finalize()
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    /// The longest time that sending one message takes.
    pub(crate) fn longest(&self) -> Duration {
        // A mail goes to all at once, and to each by himself when the server does not take one of them.
        TIMEOUT * u32::try_from(self.to.len() + 1).unwrap_or(u32::MAX)
    }

    /// Sends a message.
    pub(crate) fn send(&self, message: &Message) -> Result<(), SendError> {
        let Some(request) = self.request(message, Utc::now()) else {
            return match self.kind {
                ChannelKind::Email => email::send(self, message),
                _ => command::send(self, message),
            };
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            // Apart from the whole: without a connection the robot certainly has nothing.
            .timeout_connect(Some(CONNECT))
            .timeout_resolve(Some(CONNECT))
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
        let header = |name: &str| answer.headers().get(name)?.to_str().ok();
        let asked = header("retry-after").and_then(|v| wait_asked(v, header("date")));
        if let Some(refused) = too_fast(status, asked) {
            return Err(refused);
        }
        let text = answer
            .body_mut()
            .with_config()
            .limit(LARGEST_ANSWER)
            .read_to_string()
            .map_err(|e| lost(&e))?;
        self.assess(status, &text)
    }

    /// What an answer means.
    pub(crate) fn assess(&self, status: u16, body: &str) -> Result<(), SendError> {
        if self.kind == ChannelKind::Webhook {
            return webhook::assess(self, status, body);
        }
        let answer = serde_json::from_str::<Value>(body);
        let code_key = if self.kind == ChannelKind::Feishu {
            ["code", "StatusCode"]
        } else {
            ["errcode", "errcode"]
        };
        let code = |v: &Value| code_key.iter().find_map(|k| v.get(k)?.as_i64());
        let (answer, code) = match (status, answer) {
            (200, Ok(answer)) => match code(&answer) {
                Some(0) => return Ok(()),
                Some(code) => (answer, code),
                None => {
                    return Err(SendError::new(
                        "the answer has no error code; check the address of the channel",
                    ));
                }
            },
            (200, Err(_)) => {
                return Err(SendError::new(
                    "the answer is not a robot's (a web page?); check the address of the channel",
                ));
            }
            // Feishu gives its codes with other statuses too.
            (_, Ok(answer)) if code(&answer).is_some_and(|code| code != 0) => {
                let code = code(&answer).unwrap_or_default();
                (answer, code)
            }
            (413, _) => {
                return Err(SendError::because(
                    Cause::Content,
                    "the robot's server says that the message is too long (HTTP 413)",
                ));
            }
            _ => {
                return Err(SendError::new(format!(
                    "the robot's server answered HTTP {status}; it will be tried again"
                )));
            }
        };
        let said = ["errmsg", "msg", "StatusMessage"]
            .iter()
            .find_map(|k| answer.get(k)?.as_str())
            .unwrap_or_default();
        let (cause, meaning) = match self.kind {
            ChannelKind::Dingtalk => dingtalk::explain(code),
            ChannelKind::Wecom => wecom::explain(code),
            _ => feishu::explain(code),
        };
        Err(SendError::because(
            cause,
            redact(&format!(
                "the robot refused with code {code}: {meaning} (it says: {said})"
            )),
        ))
    }
}

/// The mobile numbers that a channel mentions, with that of who is on duty now.
fn mentioned(config: &Config, channel: &config::Channel) -> Vec<String> {
    let mut mobiles = channel.at_mobiles.clone();
    let now = Utc::now().with_timezone(&config.timezone);
    let rotation = config.alert.rotation.as_ref().filter(|_| channel.at_duty);
    if let Some((_, person)) = rotation.and_then(|r| r.on_duty(now))
        && !mobiles.contains(&person.mobile)
    {
        mobiles.push(person.mobile.clone());
    }
    mobiles
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
        ("env", !channel.env.is_empty(), kind == Command, false),
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
        ("service", channel.service.is_some(), kind == Webhook, false),
        ("success", channel.success.is_some(), kind == Webhook, false),
        (
            "mention",
            channel.mention != Mention::default(),
            robot,
            false,
        ),
        (
            "secret",
            channel.secret.is_some(),
            robot || kind == Webhook,
            false,
        ),
        ("at_mobiles", !channel.at_mobiles.is_empty(), robot, false),
        ("at_duty", channel.at_duty, robot, false),
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
    let refused = matches!(error, ureq::Error::Io(e) if no_connection(e));
    let never_sent = refused
        || matches!(
            error,
            ureq::Error::HostNotFound
                | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
                | ureq::Error::ConnectionFailed
                | ureq::Error::Tls(_)
                | ureq::Error::Rustls(_)
        );
    let message = format!(
        "no answer from the robot: {}; check this machine's network",
        redact(&error.to_string())
    );
    SendError {
        unknown: !never_sent,
        ..SendError::new(message)
    }
}

/// An error from before there was a connection. Of a name that is not found the library says neither a kind nor a number.
fn no_connection(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    let later = [
        Kind::UnexpectedEof,
        Kind::InvalidData,
        Kind::InvalidInput,
        Kind::TimedOut,
        Kind::WouldBlock,
        Kind::Interrupted,
        Kind::WriteZero,
        Kind::BrokenPipe,
        Kind::ConnectionReset,
        Kind::ConnectionAborted,
        Kind::Other,
    ];
    let before = [
        Kind::ConnectionRefused,
        Kind::HostUnreachable,
        Kind::NetworkUnreachable,
        Kind::NetworkDown,
    ];
    let kind = error.kind();
    before.contains(&kind) || (error.raw_os_error().is_none() && !later.contains(&kind))
}

/// What a server without a robot's code says by its status: too many messages, or no service for as long as it names.
fn too_fast(status: u16, asked: Option<Duration>) -> Option<SendError> {
    let wait = match (status, asked) {
        (429, asked) => asked.unwrap_or(PAUSE),
        (503, Some(asked)) => asked,
        _ => return None,
    };
    let wait = wait.clamp(Duration::from_secs(1), LONGEST_PAUSE);
    let what = if status == 429 {
        "too many requests"
    } else {
        "not in service"
    };
    Some(SendError::because(
        Cause::TooFast(wait),
        format!(
            "the server says \"{what}\" (HTTP {status}); it is asked again after {} s",
            wait.as_secs()
        ),
    ))
}

/// `Retry-After`: seconds, or a date, which is seen from the server's own clock where it gives that.
fn wait_asked(value: &str, date: Option<&str>) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| DateTime::parse_from_rfc2822(text.trim()).ok();
    let now = date
        .and_then(moment)
        .map_or_else(Utc::now, |at| at.with_timezone(&Utc));
    Some(
        (moment(value)?.with_timezone(&Utc) - now)
            .to_std()
            .unwrap_or_default(),
    )
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
