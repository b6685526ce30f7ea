//! `oa-alert check`: what cron calls each minute. Asks all rules, sends what waits, and tells an address outside that it did.

use std::thread;
use std::time::Duration;

use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::secrets::redact;
use oa_core::journal::{DbUnavailable, Recorder, watch};
use oa_core::model::event::{Finding, Severity};
use oa_core::pg::{Meaning, describe};
use postgres::Client;
use serde_json::json;

use super::heartbeat::{Event, Heartbeat};
use super::{flush, test, wording};
use crate::PROGRAM;
use crate::check;

/// A server that is being restarted is back by then.
const SECOND_LOOK: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How the findings are printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Finds, records, sends, and prints what was found. The exit code is that of monitoring plug-ins: 0 nothing, 1 a warning, or a
/// channel refused something, 2 something critical. 78 for a wrong configuration, 77 when the state directory cannot be used; what
/// waits is sent all the same.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    // A mistake in the configuration keeps nobody from hearing of what is wrong.
    let mut wrong = check::known_rules(config).err().map(Failure::from);
    let heartbeat = Heartbeat::from_config(config).unwrap_or_else(|e| {
        wrong.get_or_insert(e);
        Heartbeat::NONE
    });
    let begun = heartbeat.clone();
    let start = thread::spawn(move || begun.ping(Event::Start));
    // Failures of tasks reach people by the channels; the outside is for when those, or this check, do not work.
    let end = |wrong: &[String]| {
        if start.join().is_err() {
            tracing::warn!("the ping at the start ended by a mistake of this program");
        }
        let why = wrong.join("\n");
        heartbeat.ping(if wrong.is_empty() {
            Event::Fine
        } else {
            Event::Fail(&why)
        })
    };
    let recorder = match Recorder::open(config, PROGRAM) {
        Ok(recorder) => recorder,
        Err(e) => {
            // Nothing can be looked for; what others have put into PostgreSQL is sent all the same.
            flush::send_all(config);
            end(&[e.to_string()]);
            return Err(e.into());
        }
    };
    let (found, blind) = match look(config, &recorder) {
        Ok(found) => (found, None),
        Err(blind) => {
            if let Blind::Unreachable(why) = &blind {
                recorder.report_unreachable(why);
            }
            (check::find_here(&recorder, config), Some(blind))
        }
    };
    let sent = flush::send_all(config);
    for waits in &sent.undelivered {
        tracing::error!("{}", waits.text(Locale::En));
    }
    let printed = print(&found, config, args.format);
    let unheard = failing(config, blind.as_ref(), &sent);
    if !matches!(blind, Some(Blind::Unreachable(_))) {
        note(&recorder, &unheard);
        test::carry_out(config, &recorder);
    }
    let pinged = end(&unheard);
    if !matches!(blind, Some(Blind::Unreachable(_))) {
        note_heartbeat(&recorder, pinged.as_ref());
    }
    printed?;
    if let Some(wrong) = wrong {
        return Err(wrong);
    }
    if let Some(blind) = blind {
        tracing::error!("{blind}");
        return Ok(2);
    }
    if sent.broken {
        return Ok(exit::CONFIG);
    }
    let worst = found.iter().map(Finding::severity).max();
    Ok(match worst {
        Some(Severity::Critical) => 2,
        Some(_) => 1,
        None if !sent.is_complete() => 1,
        None => 0,
    })
}

/// For the page: that somebody watches, and whether people hear of it.
fn note(recorder: &Recorder, wrong: &[String]) {
    let noted = recorder
        .connect()
        .map_err(|e| e.to_string())
        .and_then(|(mut client, _)| {
            let (ok, why) = (wrong.is_empty(), wrong.join("\n"));
            let host = recorder.host();
            watch::note(&mut client, watch::CHECK, host, ok, &why)
                .and_then(|()| match ok {
                    true => Ok(()),
                    false => watch::failed(&mut client, watch::CHECK, host),
                })
                .map_err(|e| describe(&e))
        });
    if let Err(e) = noted {
        tracing::warn!("could not note that this machine was checked: {e}");
    }
}

/// For the page: whether somebody outside hears of this check.
fn note_heartbeat(recorder: &Recorder, pinged: Option<&Result<(), String>>) {
    let Some(pinged) = pinged else { return };
    let noted = recorder
        .connect()
        .map_err(|e| e.to_string())
        .and_then(|(mut client, _)| {
            let (ok, why) = (pinged.is_ok(), pinged.as_ref().err());
            let why = why.map_or("", String::as_str);
            watch::note(&mut client, watch::HEARTBEAT, recorder.host(), ok, why)
                .map_err(|e| describe(&e))
        });
    if let Err(e) = noted {
        tracing::warn!("could not note how the heartbeat went: {e}");
    }
}

/// Why people may not hear of what is wrong: the check did not work, or what it has to say does not leave.
fn failing(config: &Config, blind: Option<&Blind>, sent: &flush::Sent) -> Vec<String> {
    let mut why: Vec<String> = blind.iter().map(ToString::to_string).collect();
    why.extend(sent.undelivered.iter().map(|u| u.text(config.locale)));
    if sent.broken {
        why.push("a channel of the configuration cannot be used: oa-alert check-config".to_owned());
    }
    if let (Err(e), None) = (&sent.result, blind) {
        why.push(e.to_string());
    }
    let refused = sent
        .done
        .iter()
        .filter_map(|d| Some((d, d.error.as_ref()?)));
    let mut refused: Vec<String> = refused
        .map(|(d, error)| format!("{}: {error}", d.channel))
        .collect();
    refused.dedup();
    why.extend(refused);
    why.iter().map(|w| redact(w)).collect()
}

/// Why this machine's check does not see everything.
#[derive(Debug, thiserror::Error)]
enum Blind {
    /// There is no PostgreSQL to ask.
    #[error(transparent)]
    Unreachable(#[from] DbUnavailable),
    /// There is, and it does not answer, or takes no finding.
    #[error("the check failed: {0}")]
    Failed(String),
}

fn look(config: &Config, recorder: &Recorder) -> Result<Vec<Finding>, Blind> {
    let (mut client, drained) = recorder.connect().or_else(|first| {
        tracing::warn!("{first}; looking once more in 5 s");
        thread::sleep(SECOND_LOOK);
        recorder.connect()
    })?;
    let zone = config.timezone;
    if let Err(e) = watch::started(&mut client, watch::CHECK, recorder.host(), zone) {
        tracing::warn!("could not count this start: {}", describe(&e));
    }
    let asked = |client: &mut Client| {
        let found = check::find(client, recorder, &drained, config)?;
        check::record(client, recorder, config, &found)?;
        recorder.resolve_failed_check(client)?;
        Ok(found.findings)
    };
    asked(&mut client).map_err(|e: postgres::Error| {
        let reason = describe(&e);
        if Meaning::of(&e) == Meaning::Unreachable {
            return DbUnavailable::Drain(format!("the check failed: {reason}")).into();
        }
        recorder.report_failed_check(&mut client, &reason);
        Blind::Failed(reason)
    })
}

fn print(found: &[Finding], config: &Config, format: Format) -> Result<(), Failure> {
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
    let wording = wording(config);
    for f in found {
        let (title, lines) = oa_wording::finding(f, &wording);
        listing.push(json!({
            "severity": f.severity().as_str(), "rule": f.rule(), "subject": f.subject(), "task": f.task(), "title": title, "lines": lines,
        }));
    }
    listing
        .print(format)
        .map_err(|e| anyhow::Error::from(e).into())
}
