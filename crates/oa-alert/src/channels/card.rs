//! Messages with buttons: how they were sent, and which state of their incident they show.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use oa_core::app::config::Locale;
use oa_core::base::links::{LinkAction, LinkKey, unsigned};
use oa_core::base::text::escaped;
use oa_core::model::Severity;
use oa_wording::Wording;
use serde::{Deserialize, Serialize};

use crate::render::Action;

/// What a message was sent with, kept so that it can be changed where it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    /// One line.
    pub(crate) title: String,
    /// As the platform shows it, without the title.
    pub(crate) text: String,
    /// Decides about the colour.
    pub(crate) severity: Severity,
    /// It is the news that something is over.
    pub(crate) recovery: bool,
    /// The buttons.
    pub(crate) actions: Vec<Action>,
}

/// A message that a platform has taken, and can change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Receipt {
    /// The platform's id of it.
    pub(crate) message: String,
    /// What it shows.
    pub(crate) card: Card,
}

/// Somebody did something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Deed {
    /// Who.
    pub(crate) by: String,
    /// When.
    pub(crate) at: DateTime<Utc>,
}

/// What has become of the incident since the message was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct State {
    /// It is resolved.
    pub(crate) over: bool,
    /// Since when, where that was reported.
    pub(crate) over_at: Option<DateTime<Utc>>,
    /// Who sees to it.
    pub(crate) acknowledged_by: Option<String>,
    /// What was done from this message, by the action's name.
    pub(crate) done: BTreeMap<String, Deed>,
}

/// Longest name of a person on a card.
const LONGEST_NAME: usize = 60;

impl Card {
    /// As it is kept. Whoever has a signed link may do what it says, and more people read the table than the group.
    pub(crate) fn unsigned(&self) -> Self {
        self.with_links(unsigned)
    }

    /// As it was sent. Without the key, without buttons: nobody could press them either.
    pub(crate) fn signed_again(&self, key: Option<&LinkKey>) -> Self {
        self.with_links(|link| key?.sign_again(link))
    }

    fn with_links(&self, change: impl Fn(&str) -> Option<String>) -> Self {
        let changed = |action: &Action| {
            let signed = change(&action.signed)?;
            let url = action
                .url
                .as_ref()
                .map(|url| url.replace(action.signed.as_str(), &signed));
            Some(Action {
                what: action.what.clone(),
                word: action.word.clone(),
                signed,
                url,
            })
        };
        Self {
            actions: self.actions.iter().filter_map(changed).collect(),
            ..self.clone()
        }
    }

    /// The colour by the names that Feishu has for them: green once nobody needs to see to it any more.
    pub(super) fn colour(&self, state: &State) -> &'static str {
        match self.severity {
            _ if self.recovery || state.over || state.acknowledged_by.is_some() => "green",
            Severity::Critical => "red",
            Severity::Warning => "orange",
            Severity::Info => "blue",
        }
    }

    /// The title, after what has become of the incident.
    pub(super) fn title(&self, state: &State, locale: Locale) -> String {
        let mark = match (state.over, state.acknowledged_by.is_some(), locale) {
            (true, _, Locale::Zh) => "【已恢复】",
            (true, _, Locale::En) => "[RESOLVED] ",
            (false, true, Locale::Zh) => "【已认领】",
            (false, true, Locale::En) => "[ACKNOWLEDGED] ",
            (false, false, _) => "",
        };
        format!("{mark}{}", self.title)
    }

    /// The buttons that would still do something.
    pub(super) fn buttons<'a>(&'a self, state: &'a State) -> impl Iterator<Item = &'a Action> {
        let looks = |a: &Action| a.what == LinkAction::Log.as_str();
        self.actions.iter().filter(move |a| match looks(a) {
            // To look needs an address, and goes on afterwards.
            true => a.url.is_some(),
            false => {
                let claimed =
                    a.what == LinkAction::Acknowledge.as_str() && state.acknowledged_by.is_some();
                !state.over && !claimed && !state.done.contains_key(&a.what)
            }
        })
    }
}

impl State {
    /// What has happened, a line each.
    pub(crate) fn lines(&self, wording: &Wording) -> Vec<String> {
        let zh = wording.locale == Locale::Zh;
        let name = |by: &str| {
            let by = escaped(by);
            by.chars().take(LONGEST_NAME).collect::<String>()
        };
        let mut lines = Vec::new();
        if let Some(by) = self.acknowledged_by.as_deref().map(name) {
            lines.push(match zh {
                true => format!("已认领：{by}"),
                false => format!("Acknowledged by {by}"),
            });
        }
        let mut done: Vec<(&String, &Deed)> = self.done.iter().collect();
        done.sort_by_key(|(_, deed)| deed.at);
        for (what, deed) in done {
            let (by, at) = (name(&deed.by), wording.at(deed.at));
            let silence = *what == LinkAction::Silence.as_str();
            let run = *what == LinkAction::Run.as_str();
            lines.extend(match (zh, silence, run) {
                (true, true, _) => Some(format!("{at} 静默 2 小时：{by}")),
                (false, true, _) => Some(format!("Silenced for 2 h at {at} by {by}")),
                (true, _, true) => Some(format!("{at} 要求重跑：{by}")),
                (false, _, true) => Some(format!("Run again asked for at {at} by {by}")),
                _ => None,
            });
        }
        if self.over {
            let at = self.over_at.map(|at| wording.at(at));
            lines.push(match (zh, at) {
                (true, Some(at)) => format!("已恢复：{at}"),
                (true, None) => "已恢复".to_owned(),
                (false, Some(at)) => format!("Resolved at {at}"),
                (false, None) => "Resolved".to_owned(),
            });
        }
        lines
    }
}
