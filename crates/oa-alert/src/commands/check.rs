//! `oa-alert check`: what cron calls each minute. Asks all rules, sends what waits, and tells an address outside that it did.

use std::thread;
use std::time::Duration;

use oa_core::alerts::Severity;
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::describe;
use oa_core::runs::{Away, Recorder};
use serde_json::json;

use super::flush;
use crate::PROGRAM;
use crate::check::{self, Finding};

/// A server that is being restarted is back by then.
const SECOND_LOOK: Duration = Duration::from_secs(5);
/// Longest time for the address outside.
const PING: Duration = Duration::from_secs(5);

/// Finds, tells, sends, and prints what was found. The exit code is that of monitoring plug-ins: 0 nothing, 1 a warning, or a
/// channel refused something, 2 something critical.
///
/// # Errors
/// 78 for a wrong configuration, 77 when the state directory cannot be used; what waits is sent all the same.
pub fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    // A mistake in the configuration keeps nobody from hearing of what is wrong.
    let mut wrong = check::known_rules(config).err().map(Failure::from);
    let heartbeat = Heartbeat::from_config(config).unwrap_or_else(|e| {
        wrong.get_or_insert(e);
        Heartbeat(None)
    });
    let begun = heartbeat.clone();
    let start = thread::spawn(move || begun.ping("/start"));
    // Failures of tasks reach people by the channels; the outside is for when those, or this check, do not work.
    let end = |works: bool| {
        if start.join().is_err() {
            tracing::warn!("the ping at the start ended by a mistake of this program");
        }
        heartbeat.ping(if works { "" } else { "/fail" });
    };
    let recorder = match Recorder::open(config, PROGRAM) {
        Ok(recorder) => recorder,
        Err(e) => {
            // Nothing can be looked for; what others have put into PostgreSQL is sent all the same.
            flush::send_all(config);
            end(false);
            return Err(e);
        }
    };
    let (found, away) = match look(config, &recorder) {
        Ok(found) => (found, None),
        Err(away) => {
            recorder.tell_away(&away);
            let found = check::find_away(&recorder, config);
            (found.into_iter().collect(), Some(away))
        }
    };
    let sent = flush::send_all(config);
    let printed = print(&found, format);
    end(away.is_none() && sent.is_complete());
    printed?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if let Some(away) = away {
        tracing::error!("{away}");
        return Ok(2);
    }
    if sent.broken {
        return Ok(exit::CONFIG);
    }
    let worst = found.iter().map(|f| f.severity).max();
    Ok(match worst {
        Some(Severity::Critical) => 2,
        Some(_) => 1,
        None if !sent.is_complete() => 1,
        None => 0,
    })
}

fn look(config: &Config, recorder: &Recorder) -> Result<Vec<Finding>, Away> {
    let (mut client, drained) = recorder.connect().or_else(|first| {
        tracing::warn!("{first}; looking once more in 5 s");
        thread::sleep(SECOND_LOOK);
        recorder.connect()
    })?;
    check::find(&mut client, recorder, &drained, config)
        .and_then(|found| {
            check::tell(&mut client, recorder, config, &found)?;
            Ok(found.findings)
        })
        .map_err(|e| Away::Drain(format!("the check failed: {}", describe(&e))))
}

/// An address outside that notices when nobody asks it any more.
#[derive(Debug, Clone)]
pub(super) struct Heartbeat(Option<oa_core::secrets::Secret>);

impl Heartbeat {
    pub(super) fn from_config(config: &Config) -> Result<Self, Failure> {
        let reference = config.alert.heartbeat_url.as_ref();
        let url = reference.map(|url| config.secret(url, "heartbeat_url in [alert]"));
        let url = url.transpose()?;
        let is_web = |u: &oa_core::secrets::Secret| {
            ["https://", "http://"]
                .iter()
                .any(|s| u.expose().starts_with(s))
        };
        if url.as_ref().is_some_and(|u| !is_web(u)) {
            return Err(Failure::new(
                exit::CONFIG,
                anyhow::anyhow!("heartbeat_url in [alert] must begin with https://"),
            ));
        }
        Ok(Self(url))
    }

    /// Nothing depends on its answer.
    fn ping(&self, event: &str) {
        let Some(url) = &self.0 else {
            return;
        };
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(PING))
            .build()
            .into();
        let address = format!("{}{event}", url.expose().trim_end_matches('/'));
        if let Err(e) = agent.get(&address).call() {
            tracing::warn!(
                "the heartbeat\u{2019}s address did not answer: {}",
                oa_core::secrets::redact(&e.to_string())
            );
        }
    }
}

fn print(found: &[Finding], format: Format) -> Result<(), Failure> {
    // cron mails what a command prints: nothing to say, nothing printed.
    if found.is_empty() && format == Format::Table {
        return Ok(());
    }
    let mut listing = Listing::new(&[
        ("severity", "SEVERITY"),
        ("rule", "RULE"),
        ("subject", "ABOUT"),
        ("title", "FOUND"),
    ]);
    for f in found {
        listing.push(json!({
            "severity": f.severity.as_str(), "rule": f.rule, "subject": f.subject, "task": f.task, "title": f.title, "lines": f.lines,
        }));
    }
    listing
        .print(format)
        .map_err(|e| anyhow::Error::from(e).into())
}
