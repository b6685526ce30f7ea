//! One file per kind of channel. All robots have the same shape: make a request from a message, and say what the answer means.

mod app;
mod card;
mod command;
mod dingtalk;
mod dingtalk_app;
mod email;
mod event;
mod feishu;
mod feishu_app;
mod lint;
mod services;
mod webhook;
mod wecom;
mod wecom_app;

use std::path::PathBuf;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::config::{
    self, AlertService, ChannelKind, Config, ConfigError, Locale, Mention, Success,
};
use oa_core::base::secrets::{Secret, redact};
use oa_core::model::Severity;
use oa_wording::Wording;
use serde_json::Value;

use crate::pace::Pace;
use crate::render::{Form, Message};
pub(crate) use app::App;
use app::Method;
pub(crate) use card::{Card, Receipt, State};
pub(crate) use dingtalk_app::{connection as dingtalk_connection, notice as dingtalk_notice};
pub(crate) use feishu_app::{connection as feishu_connection, ping_interval};
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
    app: Option<App>,
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
    /// The code of the refusal, where whoever asks needs it.
    pub(crate) code: Option<String>,
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
            code: None,
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
        let mentions_nobody = channel.kind == ChannelKind::Feishu || channel.kind.is_app();
        if mentions_nobody && (channel.at_duty || !channel.at_mobiles.is_empty()) {
            return Err(impossible(
                "Feishu and applications cannot mention mobile numbers; remove at_mobiles and at_duty, or use at_all",
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
        let url = url.unwrap_or_else(|| Secret::new(default_url(channel.kind).to_owned()));
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
        let app = secret
            .clone()
            .filter(|_| channel.kind.is_app())
            .map(|secret| App::of(channel, &url, secret));
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
            app,
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
            ChannelKind::Email
            | ChannelKind::Command
            | ChannelKind::FeishuApp
            | ChannelKind::DingtalkApp
            | ChannelKind::WecomApp => None,
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
        let id = self.app.iter().map(App::id);
        for word in self.command.iter().map(String::as_str).chain(id) {
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
        // An application asks for a token, and once more for both when that has ended.
        if self.app.is_some() {
            return TIMEOUT * 4;
        }
        // A mail goes to all at once, and to each by himself when the server does not take one of them.
        TIMEOUT * u32::try_from(self.to.len() + 1).unwrap_or(u32::MAX)
    }

    /// Sends a message. Gives what it can be changed by, where the platform can and there will be something to change.
    pub(crate) fn send(&self, message: &Message) -> Result<Option<Receipt>, SendError> {
        match (self.kind, &self.app) {
            (ChannelKind::FeishuApp, Some(app)) => feishu_app::send(self, app, message),
            (ChannelKind::DingtalkApp, Some(app)) => dingtalk_app::send(self, app, message),
            (ChannelKind::WecomApp, Some(app)) => {
                wecom_app::send(self, app, message).map(|()| None)
            }
            _ => self.send_once(message).map(|()| None),
        }
    }

    /// Changes a message where it stands. `false`: the platform changes it no more.
    pub(crate) fn update(
        &self,
        message: &str,
        card: &Card,
        state: &State,
        wording: &Wording,
    ) -> Result<bool, SendError> {
        match (self.kind, &self.app) {
            (ChannelKind::FeishuApp, Some(app)) => {
                feishu_app::update(app, (message, card, state), wording)
            }
            (ChannelKind::DingtalkApp, Some(app)) => {
                dingtalk_app::update(app, (message, card, state), wording)
            }
            _ => Ok(false),
        }
    }

    /// Whether people press buttons of its messages.
    pub(crate) fn has_buttons(&self) -> bool {
        self.kind.has_buttons()
    }

    /// The application that sends.
    pub(crate) fn app(&self) -> Option<(ChannelKind, &App)> {
        Some(self.kind).zip(self.app.as_ref())
    }

    fn send_once(&self, message: &Message) -> Result<(), SendError> {
        let Some(request) = self.request(message, Utc::now()) else {
            return match self.kind {
                ChannelKind::Email => email::send(self, message),
                _ => command::send(self, message),
            };
        };
        let headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.expose()))
            .collect();
        let (status, text) = app::ask(Method::Post, request.url.expose(), &headers, &request.body)?;
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
        // A gateway on the way may have made a text of the number.
        let number = |v: &Value| v.as_i64().or_else(|| v.as_str()?.parse().ok());
        let code = |v: &Value| code_key.iter().find_map(|k| number(v.get(k)?));
        let (answer, code) = match (status, answer) {
            (200, Ok(answer)) => match code(&answer) {
                Some(0) => return Ok(()),
                Some(code) => (answer, code),
                None => {
                    return Err(SendError::because(
                        Cause::Setup,
                        "the answer has no error code; check the address of the channel",
                    ));
                }
            },
            (200, Err(_)) => {
                return Err(SendError::because(
                    Cause::Setup,
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

/// Where a platform is when the configuration does not say so.
fn default_url(kind: ChannelKind) -> &'static str {
    match kind {
        ChannelKind::FeishuApp => feishu_app::BASE,
        ChannelKind::DingtalkApp => dingtalk_app::BASE,
        ChannelKind::WecomApp => wecom_app::BASE,
        _ => "",
    }
}

/// Each kind has its own keys; one that another kind has would be without effect.
fn check_keys(channel: &config::Channel) -> Result<(), String> {
    use ChannelKind::{Command, Dingtalk, Email, Feishu, Webhook, Wecom};
    let (kind, app) = (channel.kind, channel.kind.is_app());
    let wecom = kind == ChannelKind::WecomApp;
    let robot = matches!(kind, Dingtalk | Wecom | Feishu) || app;
    let rules = [
        (
            "url",
            channel.url.is_some(),
            kind != Command,
            kind != Command && !app,
        ),
        ("app_id", !channel.app_id.is_empty(), app, app),
        ("chat", !channel.chat.is_empty(), app, app),
        ("agent_id", channel.agent_id.is_some(), wecom, wecom),
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
            kind == Webhook || kind == ChannelKind::DingtalkApp,
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
            app,
        ),
        ("at_mobiles", !channel.at_mobiles.is_empty(), robot, false),
        ("at_duty", channel.at_duty, robot, false),
        ("at_all", channel.at_all, robot && !wecom, false),
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
                // A proxy that reaches nobody passes nothing on.
                | ureq::Error::ConnectProxyFailed(_)
                | ureq::Error::InvalidProxyUrl
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
    before.contains(&kind)
        || is_not_trusted(error)
        || (error.raw_os_error().is_none() && !later.contains(&kind))
}

/// The certificate was not accepted, and so nothing was sent: rustls says so when the first bytes would go, within an error of input and output.
fn is_not_trusted(error: &std::io::Error) -> bool {
    let within = error.get_ref();
    let within = within.and_then(|e| e.downcast_ref::<rustls::Error>());
    matches!(within, Some(rustls::Error::InvalidCertificate(_)))
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

/// For how long a server wants not to be asked.
fn retry_after(headers: &ureq::http::HeaderMap) -> Option<Duration> {
    let header = |name: &str| headers.get(name)?.to_str().ok();
    header("retry-after").and_then(|v| wait_asked(v, header("date")))
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
mod card_texts;
#[cfg(test)]
mod tests;
