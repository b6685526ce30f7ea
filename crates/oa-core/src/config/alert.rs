//! `[alert]` and its channels.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{SecretRef, Span};
use crate::alerts::Severity;

/// `[alert]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alert {
    /// A failure that goes on is told again after this long.
    pub repeat: Span,
    /// A run is missed when it has not started this long after it was due.
    pub grace: Span,
    /// A run that takes longer is told.
    pub running_limit: Span,
    /// An address outside that is asked at each check (healthchecks-style), so that silence is noticed.
    pub heartbeat_url: Option<SecretRef>,
    /// Where alerts go.
    pub channels: Vec<Channel>,
}

impl Default for Alert {
    fn default() -> Self {
        Self {
            repeat: Span::seconds(4 * 3600),
            grace: Span::seconds(10 * 60),
            running_limit: Span::seconds(3600),
            heartbeat_url: None,
            channels: Vec::new(),
        }
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
    /// For `webhook`: the body, JSON in which `{title}`, `{text}`, `{severity}` and `{kind}` stand inside texts.
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
    /// Only troubles that nobody has taken on (`oa-alert ack`) and that are not over after this long.
    #[serde(default)]
    pub after: Option<Span>,
    /// The robot's signing secret, where it has one.
    pub secret: Option<SecretRef>,
    /// Mobile numbers to @mention.
    #[serde(default)]
    pub at_mobiles: Vec<String>,
    /// Mention everybody.
    #[serde(default)]
    pub at_all: bool,
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
}
