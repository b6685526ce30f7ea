//! `oa-alert check-config`: whether alerts could be sent as they are configured, without sending any. Needs no database.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, fits};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::model::Severity;
use serde_json::json;

use super::heartbeat::Heartbeat;
use crate::channels::{Channel, is_mobile};
use crate::check;

const WRONG: &str = "wrong";
/// The check runs each minute.
const SHORTEST_REPEAT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Prints a line for each channel and each setting of `[alert]` that has something to check. 78 when anything is wrong.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("setting", "SETTING"),
        ("state", "STATE"),
        ("detail", "DETAIL"),
    ]);
    let mut code = exit::OK;
    let mut line = |setting: &str, state: &str, detail: &str| {
        if state == WRONG {
            code = exit::CONFIG;
        }
        listing.push(json!({ "setting": setting, "state": state, "detail": detail }));
    };
    let channels = &config.alert.channels;
    if channels.is_empty() {
        let detail = "there are no [[alert.channels]]: alerts reach nobody";
        line("channels", WRONG, detail);
    }
    for channel in channels {
        let setting = format!("channel {}", channel.name);
        match Channel::resolve(config, channel).and_then(|c| c.check_here()) {
            Ok(()) => line(
                &setting,
                "ok",
                "not asked; oa-alert test sends a real message",
            ),
            Err(e) => line(&setting, WRONG, &e.to_string()),
        }
    }
    let hears_all = |c: &oa_core::app::config::Channel| {
        c.after.is_none_or(|after| after.0.is_zero())
            && c.min_severity == Severity::Info
            && c.takes().is_all()
    };
    if !channels.is_empty() && !channels.iter().any(hears_all) {
        let detail =
            "each has after, min_severity, tasks, rules or providers, so some alerts reach nobody";
        line("channels", "warning", detail);
    }
    if config.alert.heartbeat_url.is_some() {
        match Heartbeat::from_config(config) {
            Ok(_) => line("heartbeat_url", "ok", "not asked; oa-alert check asks it"),
            Err(e) => line("heartbeat_url", WRONG, &e.to_string()),
        }
    }
    if config.alert.repeat.0 < SHORTEST_REPEAT {
        let detail = "what goes on would be sent with each check; give it at least 1m";
        line("repeat", WRONG, detail);
    }
    if let Err(e) = check::known_rules(config) {
        line("off", WRONG, &e.to_string());
    }
    for channel in channels {
        let rules = &channel.rules;
        let unknown = rules
            .iter()
            .find(|r| !check::all_rules().any(|known| fits(known, r)) && *r != "message");
        if let Some(rule) = unknown {
            let detail = format!("rules has \"{rule}\", which no rule fits");
            line(&format!("channel {}", channel.name), WRONG, &detail);
        }
    }
    if let Some(rotation) = &config.alert.rotation {
        let now = Utc::now().with_timezone(&config.timezone);
        let named = |weeks: i64| {
            let (from, person) = rotation.on_duty(now + TimeDelta::weeks(weeks))?;
            Some(format!("{from} {}", person.name))
        };
        let detail = (0..4).filter_map(named).collect::<Vec<_>>().join(", ");
        // Now, and not in the week in which a robot refuses it.
        match rotation.people.iter().find(|p| !is_mobile(&p.mobile)) {
            None => line("rotation", "ok", &detail),
            Some(wrong) => {
                let detail = format!(
                    "the mobile of {} is \"{}\", which is no mobile number: digits only, another country's as +852-…",
                    wrong.name, wrong.mobile
                );
                line("rotation", WRONG, &detail);
            }
        }
    }
    match config.link_key() {
        Ok(Some(_)) if config.report.url.is_none() => line(
            "link_key",
            "warning",
            match channels.iter().any(|c| c.kind.has_buttons()) {
                true => {
                    "there is no url in [report], so messages carry no links; those of applications have their buttons without 看日志"
                }
                false => "there is no url in [report], so messages carry no links",
            },
        ),
        Ok(Some(_)) => line("link_key", "ok", "messages carry links that act"),
        Ok(None) if channels.iter().any(|c| c.kind.has_buttons()) => line(
            "link_key",
            "warning",
            "there is no link_key in [report], so messages of applications have no buttons",
        ),
        Ok(None) => {}
        Err(e) => line("link_key", WRONG, &e.to_string()),
    }
    for warning in config.warnings() {
        line("secrets", "warning", &warning);
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(code)
}
