//! `oa-alert test`: a real message to a robot, and what came of it. Needs no database; where there is one, what was reported of a channel
//! that takes the message is over.

use std::time::Duration;

use chrono::Utc;
use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::mistakes::nearest;
use oa_core::journal::requests;
use oa_core::model::Severity;
use oa_core::pg::describe;
use postgres::Client;
use serde_json::json;

use super::{silence, wording};
use crate::channels::Channel;
use crate::deliver::{Database, Route, page};
use crate::render::Message;

/// More than one message takes.
const LEASE: Duration = Duration::from_secs(120);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of a channel [default: all of them]
    channel: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Sends a test message to the named channel, or to all of them: 2 when there is no such channel; 78 when one is misconfigured, 1 when
/// one refused.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let name = args.channel.as_deref();
    let names = config.alert.channels.iter().map(|c| c.name.as_str());
    if let Some(name) = name.filter(|n| !names.clone().any(|c| c == *n)) {
        let hint = nearest(name, names);
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("there is no channel \"{name}\"{hint}"),
        ));
    }
    if config.alert.channels.is_empty() {
        return Err(Failure::new(
            exit::CONFIG,
            anyhow::anyhow!(
                "there are no [[alert.channels]] in {}",
                config.path.display()
            ),
        ));
    }
    let message = message(config);
    let mut listing = Listing::new(&[
        ("channel", "CHANNEL"),
        ("state", "STATE"),
        ("detail", "DETAIL"),
    ]);
    let (mut worst, mut took) = (exit::OK, Vec::new());
    for channel in config
        .alert
        .channels
        .iter()
        .filter(|c| name.is_none_or(|n| n == c.name))
    {
        let (code, state, detail) = match Channel::resolve(config, channel) {
            Err(e) => (exit::CONFIG, "misconfigured", e.to_string()),
            Ok(channel) => match channel.send(&message) {
                Ok(_) => (
                    exit::OK,
                    "sent",
                    "the robot took it; look at the phone".to_owned(),
                ),
                Err(e) => (exit::FAILED, "refused", e.to_string()),
            },
        };
        worst = worst.max(code);
        if code == exit::OK {
            took.push(channel.name.as_str());
        }
        listing.push(json!({ "channel": channel.name, "state": state, "detail": detail }));
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    // What was given up is not tried again, so that nothing else would tell that the channel works.
    if !took.is_empty()
        && let Ok(mut client) = silence::connect(config)
    {
        note(config, &mut client, &took);
    }
    Ok(worst)
}

/// What was reported of channels that take messages is over.
fn note(config: &Config, client: &mut Client, took: &[&str]) {
    if let Err(e) = resolve(config, client, took) {
        let why = describe(&e);
        tracing::warn!("could not note that {} works: {why}", took.join(", "));
    }
}

fn resolve(config: &Config, client: &mut Client, took: &[&str]) -> Result<(), postgres::Error> {
    for channel in took {
        // That it has taken a message at all is asked by oa-report doctor.
        client.execute(
            "INSERT INTO oa.channels (name, paused_until, took_last) VALUES ($1, now(), true) ON CONFLICT (name) DO NOTHING",
            &[channel],
        )?;
        // Nothing waits for a channel of a configuration that is only tried.
        let row = client.query_one(
            "SELECT now(), EXISTS (SELECT FROM oa.channels WHERE name = $1::text AND took_last IS FALSE)
                 OR EXISTS (SELECT FROM oa.incidents WHERE fingerprint = 'channel:' || $1::text AND resolved_at IS NULL)",
            &[channel],
        )?;
        if row.get(1) {
            let routes = Route::all(config, row.get(0));
            Database::open(client, &routes, None, wording(config))?.works(channel)?;
        }
    }
    Ok(())
}

/// Sends the test messages that people asked for on the page, of channels that this machine has.
pub(super) fn carry_out(config: &Config, client: &mut Client, host: &str) {
    if let Err(e) = requested(config, client, host) {
        tracing::warn!("test messages that were asked for: {}", describe(&e));
    }
}

fn requested(config: &Config, client: &mut Client, host: &str) -> Result<(), postgres::Error> {
    let channels = &config.alert.channels;
    let names: Vec<&str> = channels.iter().map(|c| c.name.as_str()).collect();
    while let Some(taken) = requests::take(client, &["test_channel"], &names, host, LEASE)? {
        let name = taken.action.subject();
        let Some(channel) = channels.iter().find(|c| c.name == name) else {
            continue;
        };
        let sent = Channel::resolve(config, channel).map_err(|e| e.to_string());
        let sent = sent.and_then(|c| {
            c.send(&message(config))
                .map(|_| ())
                .map_err(|e| e.to_string())
        });
        let said = sent.as_ref().err().map_or("sent", String::as_str);
        requests::end(client, &taken, sent.is_ok(), None, said)?;
        if sent.is_ok() {
            note(config, client, &[channel.name.as_str()]);
        }
    }
    Ok(())
}

fn message(config: &Config) -> Message {
    let at = Utc::now()
        .with_timezone(&config.timezone)
        .format("%Y-%m-%d %H:%M:%S");
    let (title, text) = match config.locale {
        Locale::Zh => (
            "【测试】oa 告警通道测试",
            format!("- 时间：{at}\n- 收到这条消息说明通道配置正确"),
        ),
        Locale::En => (
            "[TEST] oa alert channel",
            format!("- Time: {at}\n- This message shows that the channel works"),
        ),
    };
    Message {
        title: title.to_owned(),
        body: format!("**{title}**\n\n{text}\n"),
        severity: Severity::Info,
        recovery: false,
        link: config
            .report
            .url
            .as_ref()
            .map(|p| page::link(p, None, None)),
        facts: None,
        digest: None,
        actions: Vec::new(),
    }
}
