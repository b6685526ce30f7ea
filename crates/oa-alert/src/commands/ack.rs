//! `oa-alert ack` and `oa-alert unack`: acknowledging incidents, and withdrawing that.

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::journal::incidents;

use super::silence::{connect, failed, who};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Tasks, or the fingerprints of incidents (oa-alert list --open)
    #[arg(value_name = "TASK|FINGERPRINT", required = true)]
    of: Vec<String>,
    /// For those who read it later
    #[arg(long, default_value = "")]
    note: String,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UnackArgs {
    /// Tasks, or the fingerprints of incidents (oa-alert list --open)
    #[arg(value_name = "TASK|FINGERPRINT", required = true)]
    of: Vec<String>,
}

/// Acknowledges the open incidents of tasks, or those of these fingerprints. 1 when one of the names has none; the others are acknowledged.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    let (by, note) = (who(), args.note.as_str());
    each(
        &args.of,
        "open",
        "not repeated until it is resolved",
        |of| incidents::acknowledge(&mut client, of, &by, note),
    )
}

/// Takes acknowledgements back. 1 when one of the names has none.
pub(crate) fn unack(config: &Config, args: &UnackArgs) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    each(
        &args.of,
        "acknowledged",
        "reported again while it goes on",
        |of| incidents::unacknowledge(&mut client, of),
    )
}

fn each(
    names: &[String],
    what: &str,
    now: &str,
    mut act: impl FnMut(&str) -> Result<Vec<String>, postgres::Error>,
) -> Result<u8, Failure> {
    let (mut done, mut none) = (Vec::new(), Vec::new());
    for of in names {
        let found = act(of).map_err(|e| failed(&e))?;
        if found.is_empty() {
            none.push(of.as_str());
        }
        done.extend(found);
    }
    if !done.is_empty() {
        let text = format!("{}: {now}\n", done.join(", "));
        cli::print(&text).map_err(anyhow::Error::from)?;
    }
    if none.is_empty() {
        return Ok(exit::OK);
    }
    Err(anyhow::anyhow!(
        "there is no {what} incident of {}; oa-alert list --open shows those there are",
        none.join(", ")
    )
    .into())
}
