//! `oa-report logs --run ID --follow`: what the program of a run prints, as it comes, and how it ends.

use anyhow::anyhow;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::supervise::install_stop_signal;
use oa_core::journal::live_output::{self, Printed};
use oa_core::pg::{describe, is_connection_error};
use serde_json::json;
use uuid::Uuid;

use super::logs::{POLL, print_one, unreadable};
use crate::lang::Lang;
use crate::pool;
use crate::queries::logs::{Entry, by_id};

/// How much of the run's output was printed here.
#[derive(Debug, Default)]
struct Follower {
    attempt: u32,
    /// Bytes of all that the run has printed.
    seen: u64,
}

impl Follower {
    /// What was not printed yet; of what came faster than it was looked at only the end is there.
    fn new_part(&mut self, printed: &Printed) -> String {
        let mut part = String::new();
        if printed.attempt > self.attempt.max(1) {
            part.push_str(&format!("--- {} ---\n", printed.attempt));
        }
        self.attempt = printed.attempt;
        if self.seen < printed.before && self.seen > 0 && part.is_empty() {
            part.push_str("…\n");
        }
        let from = self.seen.saturating_sub(printed.before);
        let from = usize::try_from(from).unwrap_or(usize::MAX);
        let from = printed.text.floor_char_boundary(from);
        part.push_str(&printed.text[from..]);
        self.seen = printed.before + printed.text.len() as u64;
        part
    }
}

pub(super) fn follow(config: &Config, id: Uuid, format: Format) -> Result<u8, Failure> {
    let stop = install_stop_signal().map_err(anyhow::Error::from)?;
    let mut client = pool::connect_read_only(config)?;
    let mut follower = Follower::default();
    let mut warned = false;
    loop {
        let run = match by_id(&mut client, &[id]) {
            Ok(mut found) => found
                .pop()
                .ok_or_else(|| anyhow!("there is no run {id}; oa-report logs lists them"))?,
            Err(e) if is_connection_error(&e) => {
                tracing::warn!("PostgreSQL does not answer, trying again: {}", describe(&e));
                if let Ok(new) = pool::connect_read_only(config) {
                    client = new;
                }
                if !stop.wait(POLL) {
                    return Ok(exit::OK);
                }
                continue;
            }
            Err(e) => return Err(unreadable(&e).into()),
        };
        // It stays for a while when the run has ended.
        let printed = live_output::read(&config.state_dir, &run.task_name, id);
        match &printed {
            Some(printed) => show(&follower.new_part(printed), follower.attempt, format)?,
            None if run.end_time.is_none() && !warned => {
                warned = true;
                tracing::warn!(
                    "what it prints is not in state_dir of this machine, or not for this user to read (it runs on {}, or is no program): its end is waited for",
                    run.host
                );
            }
            None => {}
        }
        if run.end_time.is_some() {
            return match printed {
                Some(_) if format != Format::Json => show_end(&run, config),
                _ => print_one(config, id, format),
            };
        }
        if !stop.wait(POLL) {
            return Ok(exit::OK);
        }
    }
}

fn show(part: &str, attempt: u32, format: Format) -> Result<(), Failure> {
    if part.is_empty() {
        return Ok(());
    }
    let text = match format {
        Format::Json => format!("{}\n", json!({"attempt": attempt, "output": part})),
        _ => part.to_owned(),
    };
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(())
}

fn show_end(run: &Entry, config: &Config) -> Result<u8, Failure> {
    let lang = Lang::from(config.locale);
    let took = run.duration.map_or_else(String::new, |s| lang.span(s));
    let error = run
        .error
        .as_ref()
        .map_or_else(String::new, |e| format!(": {e}"));
    cli::print(&format!("--- {} {took}{error}\n", lang.status(&run.status)))
        .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_printed_once_and_what_was_missed_is_marked() {
        let at = |attempt, before, text: &str| Printed {
            attempt,
            before,
            text: text.to_owned(),
        };
        let mut follower = Follower::default();
        let mut next = |printed| follower.new_part(&printed);
        assert_eq!(next(at(0, 0, "")), "");
        assert_eq!(next(at(1, 0, "a\n")), "a\n");
        assert_eq!(next(at(1, 0, "a\nb\n")), "b\n");
        assert_eq!(next(at(1, 2, "b\nc\n")), "c\n");
        assert_eq!(next(at(1, 8, "e\n")), "…\ne\n");
        assert_eq!(next(at(2, 12, "f\n")), "--- 2 ---\nf\n");
        assert_eq!(next(at(2, 12, "f\n")), "");
    }
}
