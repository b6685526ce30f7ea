//! `oa-alert check`: what cron calls each minute. Checks all rules, sends what waits, and requests an address outside.

use std::thread;
use std::time::Duration;

use oa_core::app::cli::Failure;
use oa_core::app::config::{Config, Locale};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::secrets::redact;
use oa_core::base::threads;
use oa_core::journal::{DbUnavailable, Recorder, watch};
use oa_core::model::event::{Alert, Event as Reported, Fault, Finding, Severity};
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
    let start = threads::spawn("say that the check has begun", move || {
        begun.ping(Event::Start)
    });
    // Without a thread it is not said at all: nobody may wait for it.
    let start = start.inspect_err(|e| tracing::warn!("{e}")).ok();
    // Failures of tasks reach people by the channels; the outside is for when those, or this check, do not work.
    let end = |wrong: &[String]| {
        if start.is_some_and(|start| start.join().is_err()) {
            tracing::warn!("the ping at the start ended by a mistake of this program");
        }
        // It goes to somebody else, who gets the beginning.
        let why = redact(&wrong.join("\n"));
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
    let (found, blind, client) = match look(config, &recorder) {
        Ok((found, partly, client)) => (found, partly, Some(client)),
        Err(blind) => {
            if let Blind::Unreachable(why) = &blind {
                recorder.report_unreachable(why);
            }
            (check::find_here(&recorder, config), Some(blind), None)
        }
    };
    let mut connection = Connection(&recorder, client);
    let sent = flush::send_over(config, Some(&recorder), connection.1.as_mut());
    for waits in &sent.undelivered {
        tracing::error!("{}", waits.text(Locale::En));
    }
    if let (Err(e), false) = (&sent.result, matches!(blind, Some(Blind::Unreachable(_)))) {
        tracing::error!("{e}");
    }
    let printed = print(&found, config, args.format);
    let unheard = failing(config, blind.as_ref(), &sent);
    let is_there = !matches!(blind, Some(Blind::Unreachable(_)));
    if is_there && let Some(client) = connection.get() {
        note(client, recorder.host(), &unheard);
        test::carry_out(config, client, recorder.host());
    }
    let pinged = end(&unheard);
    if let Some(pinged) = pinged.filter(|_| is_there)
        && let Some(client) = connection.get()
    {
        note_heartbeat(client, recorder.host(), &pinged);
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

/// One connection for the whole check: each new one costs more than what is asked over it. Where it broke, another one.
struct Connection<'a>(&'a Recorder, Option<Client>);

impl Connection<'_> {
    fn get(&mut self) -> Option<&mut Client> {
        if self.1.as_ref().is_none_or(Client::is_closed) {
            let connected = self.0.connect();
            self.1 = connected
                .map_err(|e| tracing::warn!("could not note that this machine was checked: {e}"))
                .ok()
                .map(|(client, _)| client);
        }
        self.1.as_mut()
    }
}

/// For the page: that somebody watches, and whether people hear of it.
fn note(client: &mut Client, host: &str, wrong: &[String]) {
    let (ok, why) = (wrong.is_empty(), wrong.join("\n"));
    let noted = watch::note(client, watch::CHECK, host, ok, &why).and_then(|()| match ok {
        true => Ok(()),
        false => watch::failed(client, watch::CHECK, host),
    });
    if let Err(e) = noted {
        let reason = describe(&e);
        tracing::warn!("could not note that this machine was checked: {reason}");
    }
}

/// For the page: whether somebody outside hears of this check.
fn note_heartbeat(client: &mut Client, host: &str, pinged: &Result<(), String>) {
    let why = pinged.as_ref().err().map_or("", String::as_str);
    if let Err(e) = watch::note(client, watch::HEARTBEAT, host, pinged.is_ok(), why) {
        tracing::warn!("could not note how the heartbeat went: {}", describe(&e));
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
    /// It sees all but this.
    #[error("the check is not complete: {0}")]
    Partly(String),
}

/// Whether that PostgreSQL is down waits in the spool already: it is not just being restarted, then.
fn is_known_down(recorder: &Recorder) -> bool {
    let is = |alert: &Alert| {
        let fault = Fault::DatabaseUnreachable;
        matches!(&alert.event, Reported::Machine { fault: f, .. } if *f == fault)
    };
    let waiting = recorder.spool().and_then(|spool| spool.alerts());
    waiting.is_ok_and(|alerts| alerts.iter().any(is))
}

/// What is found, what of it could not be looked at, and the connection.
type Look = (Vec<Finding>, Option<Blind>, Client);

fn look(config: &Config, recorder: &Recorder) -> Result<Look, Blind> {
    let (mut client, drained) = recorder.connect().or_else(|first| {
        if is_known_down(recorder) {
            return Err(first);
        }
        tracing::warn!("{first}; looking once more in 5 s");
        thread::sleep(SECOND_LOOK);
        recorder.connect()
    })?;
    let zone = config.timezone;
    if let Err(e) = watch::started(&mut client, watch::CHECK, recorder.host(), zone) {
        tracing::warn!("could not count this start: {}", describe(&e));
    }
    let asked = |client: &mut Client| -> Result<_, postgres::Error> {
        let found = check::find(client, recorder, &drained, config)?;
        check::record(client, recorder, config, &found)?;
        let unseen = found.unseen();
        match &unseen {
            Some(unseen) => recorder.report_failed_check(client, unseen),
            None => recorder.resolve_failed_check(client)?,
        }
        Ok((found.findings, unseen.map(Blind::Partly)))
    };
    match asked(&mut client) {
        Ok((found, partly)) => Ok((found, partly, client)),
        Err(e) => {
            let reason = describe(&e);
            if Meaning::of(&e) == Meaning::Unreachable {
                return Err(DbUnavailable::Drain(format!("the check failed: {reason}")).into());
            }
            recorder.report_failed_check(&mut client, &reason);
            Err(Blind::Failed(reason))
        }
    }
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
