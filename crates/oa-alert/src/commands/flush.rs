//! `oa-alert flush`: what waits goes out now.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::runs::{Away, Recorder};
use serde_json::json;

use super::channels;
use crate::PROGRAM;
use crate::deliver::{self, Delivery};

/// Sends everything that is due and prints what was sent. Without PostgreSQL it sends what is in the spool.
///
/// # Errors
/// 78 when there is no usable channel or one is misconfigured, 75 when PostgreSQL is away, 1 when a robot refused something.
pub fn run(config: &Config, format: Format) -> Result<u8, Failure> {
    let recorder = Recorder::open(config, PROGRAM)?;
    let (usable, broken) = channels(config);
    if config.alert.channels.is_empty() {
        tracing::warn!(
            "no [[alert.channels]] in {}: alerts reach nobody",
            config.path.display()
        );
    }
    let configured: Vec<String> = config
        .alert
        .channels
        .iter()
        .map(|c| c.name.clone())
        .collect();
    let (deliveries, away) = match recorder.connect() {
        Ok((mut client, _)) => {
            let sent = deliver::flush(&mut client, &usable, &configured, config.locale);
            (
                sent.map_err(|e| {
                    anyhow::anyhow!(
                        "could not deliver from the outbox: {}",
                        oa_core::pg::describe(&e)
                    )
                })?,
                None,
            )
        }
        Err(Away::Schema(e)) => return Err(e.into()),
        Err(away) => {
            let sent = deliver::flush_spool(&recorder, &usable).map_err(anyhow::Error::from)?;
            (sent, Some(away))
        }
    };
    print(&deliveries, format)?;
    if broken {
        return Ok(exit::CONFIG);
    }
    match away {
        Some(Away::Connect(e)) => Err(Failure::new(
            exit::UNREACHABLE,
            anyhow::anyhow!("{e}; what waits on this machine was sent"),
        )),
        Some(e) => Err(Failure::new(exit::UNREACHABLE, e)),
        None if deliveries.iter().any(|d| d.error.is_some()) => Ok(exit::FAILED),
        None => Ok(exit::OK),
    }
}

fn print(deliveries: &[Delivery], format: Format) -> Result<(), Failure> {
    // cron mails what a command prints: nothing to say, nothing printed.
    if deliveries.is_empty() {
        return Ok(());
    }
    let mut listing = Listing::new(&[
        ("channel", "CHANNEL"),
        ("state", "STATE"),
        ("tries", "TRIES"),
        ("title", "ALERT"),
        ("error", "ERROR"),
    ]);
    for d in deliveries {
        let state = if d.error.is_some() { "refused" } else { "sent" };
        listing.push(json!({ "channel": d.channel, "state": state, "tries": d.tries, "title": d.title, "error": d.error }));
    }
    listing
        .print(format)
        .map_err(|e| anyhow::Error::from(e).into())
}
