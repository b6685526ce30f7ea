//! `oa-alert send`: a message of a script or a person, through the same outbox as alerts.

use std::io::Read;

use chrono::Utc;
use oa_core::alerts::{self, Alert, Kind, Severity};
use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::Format;
use oa_core::pg::describe;
use oa_core::runs::Recorder;
use oa_core::secrets::redact;
use oa_core::spool::Record;
use uuid::Uuid;

use super::flush;
use crate::PROGRAM;

/// Longer texts are refused: no channel would take a fraction of it.
const LONGEST: u64 = 1 << 20;

/// What is sent.
#[derive(Debug)]
pub struct Options {
    /// One line.
    pub title: String,
    /// The text; `None` reads stdin.
    pub text: Option<String>,
    /// How bad it is.
    pub severity: Severity,
    /// The task it is about.
    pub task: Option<String>,
    /// How the result is printed.
    pub format: Format,
}

/// Puts the message into the outbox, or into the spool while PostgreSQL is away, and sends what is due.
///
/// # Errors
/// Text that is empty, too long or no UTF-8 (2), and as `flush`.
pub fn run(config: &Config, options: &Options) -> Result<u8, Failure> {
    let usage = |what: &str| Failure::new(exit::USAGE, anyhow::anyhow!("{what}"));
    let text = match &options.text {
        Some(text) => text.clone(),
        None => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(LONGEST + 1)
                .read_to_end(&mut bytes)
                .map_err(anyhow::Error::from)?;
            if bytes.len() as u64 > LONGEST {
                return Err(usage("stdin has more than 1 MiB, which no channel takes"));
            }
            String::from_utf8(bytes).map_err(|_| usage("stdin is not UTF-8 text"))?
        }
    };
    let text = redact(&text.replace('\0', "\u{fffd}"));
    if text.trim().is_empty() || options.title.trim().is_empty() {
        return Err(usage("the message is empty; nothing was sent"));
    }
    let title = redact(&options.title.replace(['\n', '\r', '\0'], " "));
    let id = Uuid::now_v7();
    let alert = Alert {
        id,
        fingerprint: format!("message:{id}"),
        rule: "message".to_owned(),
        task: options.task.clone(),
        run_id: None,
        severity: options.severity,
        kind: Kind::Message,
        body: format!("**{title}**\n\n{}\n", text.trim_end()),
        title,
        created_at: Utc::now(),
    };
    let recorder = Recorder::open(config, PROGRAM)?;
    let put = match recorder.connect() {
        Ok((mut client, _)) => alerts::put(&mut client, &alert).map_err(|e| describe(&e)),
        Err(away) => Err(away.to_string()),
    };
    if let Err(reason) = put {
        tracing::warn!("the message goes to the spool: {reason}");
        let spool = recorder.spool();
        spool
            .and_then(|mut s| s.put(&[Record::Alert(alert)]))
            .map_err(anyhow::Error::from)?;
    }
    flush::run(config, options.format)
}
