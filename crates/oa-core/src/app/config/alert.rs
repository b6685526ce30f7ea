//! `[alert]` and its channels.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::SecretRef;
use super::exec::check_names;
use super::routing::{Quiet, Rotation, Takes};
use crate::base::units::{Bytes, Span};
use crate::model::Severity;

/// `[alert]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alert {
    /// An incident that goes on is reported again after this long.
    pub repeat: Span,
    /// A channel that had five messages within a minute gets no more for this long, and then all of them as one.
    pub group_wait: Span,
    /// A run is missed when it has not started this long after it was due.
    pub grace: Span,
    /// A source of a session that fails is reported once more this long before the session opens; `"0s"`: not.
    pub before_open: Span,
    /// A run that takes longer is reported.
    pub running_limit: Span,
    /// Rules of `oa-alert check` that are not asked, by name.
    pub off: Vec<String>,
    /// So many incomplete runs of a task in a row are critical.
    pub partial_limit: u32,
    /// A task whose runs succeed without anything new is stale after so many trading days (or days, for a task that brings something
    /// new on other days too).
    pub stale_limit: u32,
    /// Records of a day below this share (0 to 1) of what its days usually bring, three days in a row, are falling data.
    pub falling_share: f64,
    /// What waits in the spool for longer is reported.
    pub spool_limit: Span,
    /// A disk with less than this share (0 to 1) free is a warning.
    pub disk_warning: f64,
    /// The same, critical.
    pub disk_critical: f64,
    /// A disk that will be full within this time at its present growth is a warning.
    pub disk_forecast: Span,
    /// More than this share (0 to 1) of PostgreSQL's connections in use is a warning.
    pub connections_share: f64,
    /// A replication slot that nobody reads and that holds more WAL is a warning.
    pub wal_limit: Bytes,
    /// A clock that differs from the database's by more is a warning.
    pub clock_limit: Span,
    /// Backups of which none was read back (`oa-backup verify --read-data`) for this long are a warning.
    pub verify_limit: Span,
    /// Cookies and certificates are reported this long before they expire.
    pub expiry_notice: Span,
    /// An address outside that is asked at each check (healthchecks-style), so that silence is noticed.
    pub heartbeat_url: Option<SecretRef>,
    /// Where alerts go.
    pub channels: Vec<Channel>,
    /// Who is on duty; channels with `at_duty` mention them.
    pub rotation: Option<Rotation>,
}

/// A program that has something to say waits for others no longer than this.
const LONGEST_GROUP_WAIT: Duration = Duration::from_secs(15);

impl Default for Alert {
    fn default() -> Self {
        Self {
            repeat: Span::seconds(4 * 3600),
            group_wait: Span::seconds(10),
            grace: Span::seconds(10 * 60),
            before_open: Span::seconds(25 * 60),
            running_limit: Span::seconds(3600),
            off: Vec::new(),
            partial_limit: 3,
            stale_limit: 2,
            falling_share: 0.5,
            spool_limit: Span::seconds(3600),
            disk_warning: 0.10,
            disk_critical: 0.03,
            disk_forecast: Span::seconds(14 * 24 * 3600),
            connections_share: 0.85,
            wal_limit: Bytes(5 << 30),
            clock_limit: Span::seconds(30),
            verify_limit: Span::seconds(8 * 24 * 3600),
            expiry_notice: Span::seconds(7 * 24 * 3600),
            heartbeat_url: None,
            channels: Vec::new(),
            rotation: None,
        }
    }
}

impl Alert {
    /// Whether a rule of `oa-alert check` is not asked.
    #[must_use]
    pub fn is_off(&self, rule: &str) -> bool {
        self.off.iter().any(|off| off == rule)
    }

    /// What is wrong with it beyond its form.
    pub(super) fn check(&self) -> Result<(), String> {
        let shares = [
            ("falling_share", self.falling_share),
            ("disk_warning", self.disk_warning),
            ("disk_critical", self.disk_critical),
            ("connections_share", self.connections_share),
        ];
        for (key, share) in shares {
            if !(0.0..=1.0).contains(&share) {
                return Err(format!(
                    "{key} in [alert] is {share}; it must be a share from 0 to 1"
                ));
            }
        }
        if self.group_wait.0 > LONGEST_GROUP_WAIT {
            return Err("group_wait in [alert] is longer than 15s".to_owned());
        }
        if let Some(rotation) = &self.rotation {
            rotation.check()?;
        }
        for channel in &self.channels {
            if channel.at_duty && self.rotation.is_none() {
                return Err(format!(
                    "channel \"{}\" has at_duty, and there is no [alert.rotation] that says who is on duty",
                    channel.name
                ));
            }
            check_names(
                &channel.env,
                &format!("env of channel \"{}\"", channel.name),
            )?;
            if channel.per_minute == Some(0) {
                return Err(format!(
                    "per_minute of channel \"{}\" is 0: it would get nothing",
                    channel.name
                ));
            }
        }
        for (key, number) in [
            ("partial_limit", self.partial_limit),
            ("stale_limit", self.stale_limit),
        ] {
            if !(1..=100).contains(&number) {
                return Err(format!(
                    "{key} in [alert] is {number}; it must be from 1 to 100"
                ));
            }
        }
        Ok(())
    }
}

/// `[[alert.channels]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// Unique name, shown in lists and errors.
    pub name: String,
    /// What kind of channel it is.
    pub kind: ChannelKind,
    /// The robot's address, which contains its token; a webhook's address; a mail server's, with user and password.
    pub url: Option<SecretRef>,
    /// For `command`: the program and its arguments. It gets the message as JSON on stdin.
    #[serde(default)]
    pub command: Vec<String>,
    /// For `command`: variables, also of `.env`, that the program is given besides `PATH`, `HOME`, `LANG` and `TZ`.
    #[serde(default)]
    pub env: Vec<String>,
    /// For `dingtalk_app`: the id of a card's template. For `webhook`: the body, JSON in which `{title}`, `{text}`, `{fingerprint}`, `{state}` and others stand inside texts.
    pub template: Option<String>,
    /// For `webhook`: request headers, by reference where they are secrets.
    #[serde(default)]
    pub headers: BTreeMap<String, SecretRef>,
    /// For `email`: the sender.
    #[serde(default)]
    pub from: String,
    /// For `email`: who gets it.
    #[serde(default)]
    pub to: Vec<String>,
    /// Only alerts that are at least so bad.
    #[serde(default)]
    pub min_severity: Severity,
    /// Only incidents that nobody has acknowledged (`oa-alert ack`) and that are still open after this long.
    #[serde(default)]
    pub after: Option<Span>,
    /// For `webhook`: whose form the body has, instead of a template.
    #[serde(default)]
    pub service: Option<AlertService>,
    /// For `webhook`: where in the answer stands whether the message was taken.
    #[serde(default)]
    pub success: Option<Success>,
    /// When people are mentioned (`at_mobiles`, `at_all`).
    #[serde(default)]
    pub mention: Mention,
    /// Most messages a minute; below the robot's own limit when absent.
    #[serde(default)]
    pub per_minute: Option<u32>,
    /// The robot's signing secret, where it has one; the secret of an application.
    pub secret: Option<SecretRef>,
    /// For an application: its id; WeCom's is the company's.
    #[serde(default)]
    pub app_id: String,
    /// For an application: the group, or the people, that it writes to.
    #[serde(default)]
    pub chat: String,
    /// For `wecom_app`: the application's number.
    #[serde(default)]
    pub agent_id: Option<i64>,
    /// Mobile numbers to @mention.
    #[serde(default)]
    pub at_mobiles: Vec<String>,
    /// Mention everybody.
    #[serde(default)]
    pub at_all: bool,
    /// Mention who is on duty by `[alert.rotation]`.
    #[serde(default)]
    pub at_duty: bool,
    /// Only alerts of these tasks; `*` stands for anything.
    #[serde(default)]
    pub tasks: Vec<String>,
    /// Only alerts of these rules; `*` stands for anything.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Only alerts about tasks of these sites; `*` stands for anything.
    #[serde(default)]
    pub providers: Vec<String>,
    /// When only what is critical is sent; the rest waits.
    #[serde(default)]
    pub quiet: Quiet,
    /// Which successes it is notified of at once; the daily report has them all.
    #[serde(default)]
    pub notify_success: Option<NotifySuccess>,
}

/// Successes that somebody wants to be notified of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NotifySuccess {
    /// Each full backup.
    Full,
}

impl Channel {
    /// Which alerts it gets.
    #[must_use]
    pub fn takes(&self) -> Takes {
        Takes {
            tasks: self.tasks.clone(),
            rules: self.rules.clone(),
            providers: self.providers.clone(),
        }
    }
}

/// When people are mentioned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mention {
    /// With what is critical and goes on.
    #[default]
    Critical,
    /// With what is at least a warning and goes on.
    Warning,
    /// With every message.
    Always,
}

/// Services that take alerts in a form of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AlertService {
    /// PagerDuty, Events API v2.
    Pagerduty,
    /// Prometheus Alertmanager, `/api/v2/alerts`.
    Alertmanager,
    /// FlashDuty (快猫星云), standard alert events.
    Flashduty,
    /// ntfy, published as JSON.
    Ntfy,
    /// Bark.
    Bark,
    /// PushPlus (推送加).
    Pushplus,
    /// ServerChan (Server酱).
    Serverchan,
}

/// Where an answer says that a message was taken: many services answer HTTP 200 to what they refuse.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Success {
    /// A JSON pointer into the answer.
    pub pointer: String,
    /// What stands there when the message was taken.
    pub equals: serde_json::Value,
}

/// Kinds of channel that are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// DingTalk custom robot (钉钉).
    Dingtalk,
    /// WeCom group robot (企业微信).
    Wecom,
    /// Feishu custom robot (飞书).
    Feishu,
    /// Any address that takes JSON.
    Webhook,
    /// A mail server.
    Email,
    /// A program of this machine.
    Command,
    /// An application robot of Feishu (飞书企业自建应用), whose messages have buttons.
    #[serde(rename = "feishu_app")]
    FeishuApp,
    /// An application robot of DingTalk (钉钉企业内部应用), whose messages have buttons.
    #[serde(rename = "dingtalk_app")]
    DingtalkApp,
    /// Messages of an application of WeCom (企业微信自建应用).
    #[serde(rename = "wecom_app")]
    WecomApp,
}

impl ChannelKind {
    /// Whether an application sends, by its id and secret.
    #[must_use]
    pub fn is_app(self) -> bool {
        self.has_buttons() || self == Self::WecomApp
    }

    /// Whether its messages have buttons, and `oa-alert listen` takes what is pressed.
    #[must_use]
    pub fn has_buttons(self) -> bool {
        matches!(self, Self::FeishuApp | Self::DingtalkApp)
    }
}
