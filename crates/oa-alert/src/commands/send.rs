//! `oa-alert send`: a message of a script or a person, through the same outbox as alerts.

use std::io::Read;

use clap::ValueEnum;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::secrets::redact;
use oa_core::journal::Recorder;
use oa_core::journal::incidents;
use oa_core::journal::spool::Record;
use oa_core::model::event::{Alert, Event, Severity};
use oa_core::pg::describe;
use uuid::Uuid;

use super::flush;
use crate::PROGRAM;
use crate::deliver::LONGEST_WAIT;

/// Longer texts are refused: no channel would take a fraction of it.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// One line
    #[arg(long)]
    title: String,
    /// The text
    #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
    text: Option<String>,
    /// Read the text from stdin
    #[arg(long)]
    stdin: bool,
    /// Decides the colour, and which channels get it
    #[arg(long, value_enum, default_value = "info")]
    severity: SeverityArg,
    /// The task it is about
    #[arg(long)]
    task: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SeverityArg {
    Info,
    Warning,
    Critical,
}

/// Puts the message into the outbox, or into the spool while PostgreSQL is down, and sends what is due. The exit codes are those of
/// `oa-alert flush`.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let text = match &args.text {
        Some(text) if !args.stdin => text.clone(),
        _ => read_stdin()?,
    };
    let text = redact(&text.replace('\0', "\u{fffd}"));
    if text.trim().is_empty() || args.title.trim().is_empty() {
        return Err(usage("the message is empty; nothing was sent"));
    }
    let title = redact(&args.title.replace(['\n', '\r', '\0'], " "));
    let alert = Alert {
        task: args.task.clone(),
        severity: match args.severity {
            SeverityArg::Info => Severity::Info,
            SeverityArg::Warning => Severity::Warning,
            SeverityArg::Critical => Severity::Critical,
        },
        ..Alert::new(Event::Message {
            body: format!("**{title}**\n\n{}\n", text.trim_end()),
            title,
        })
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let id = alert.id;
    let put = match recorder.connect() {
        Ok((mut client, _)) => incidents::put(&mut client, &alert).map_err(|e| describe(&e)),
        Err(unreachable) => Err(unreachable.to_string()),
    };
    if let Err(reason) = put {
        tracing::warn!("the message goes to the spool: {reason}");
        let spool = recorder.spool();
        spool
            .and_then(|mut s| s.put(&[Record::Alert(alert)]))
            .map_err(anyhow::Error::from)?;
    }
    let sent = flush::send(config, args.format);
    say_what_waits(&recorder, id);
    sent
}

/// A channel that takes nothing now was not tried, and whoever sends something is to know.
fn say_what_waits(recorder: &Recorder, id: Uuid) {
    let paused = recorder.connect().ok().and_then(|(mut client, _)| {
        let rows = client.query(
            &format!(
                "SELECT c.name, ceil(extract(epoch FROM c.paused_until - now()) / 60)::bigint FROM oa.deliveries d JOIN oa.channels c ON c.name = d.channel
                 WHERE d.alert_id = $1 AND d.state = 'pending' AND c.paused_until BETWEEN now() AND now() + interval '{LONGEST_WAIT}' ORDER BY c.name"
            ),
            &[&id],
        );
        rows.ok()
    });
    for row in paused.iter().flatten() {
        let (channel, minutes): (String, i64) = (row.get(0), row.get(1));
        tracing::warn!(
            "channel {channel} takes nothing for {minutes} min, because it was sent too much; the message waits until then (oa-alert list)"
        );
    }
}

/// Text that is too long or no UTF-8 is refused (2).
fn read_stdin() -> Result<String, Failure> {
    let mut bytes = Vec::new();
    std::io::stdin()
        .take(LONGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(anyhow::Error::from)?;
    if bytes.len() as u64 > LONGEST {
        return Err(usage("stdin has more than 1 MiB, which no channel takes"));
    }
    String::from_utf8(bytes).map_err(|_| usage("stdin is not UTF-8 text"))
}

fn usage(what: &'static str) -> Failure {
    Failure::new(exit::USAGE, anyhow::anyhow!(what))
}
