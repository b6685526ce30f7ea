//! `oa-alert ack`: somebody sees to an incident.

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::journal::incidents;

use super::silence::{connect, failed, who};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A task, or the fingerprint of one incident (oa-alert list --open)
    #[arg(value_name = "TASK|FINGERPRINT")]
    of: String,
    /// For those who read it later
    #[arg(long, default_value = "")]
    note: String,
}

/// Acknowledges the open incidents of a task, or one by its fingerprint. 1 when there is none of that name.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let mut client = connect(config)?;
    let names = incidents::acknowledge(&mut client, &args.of, &who(), &args.note)
        .map_err(|e| failed(&e))?;
    if names.is_empty() {
        return Err(anyhow::anyhow!(
            "there is no open incident of {}; oa-alert list --open shows those there are",
            args.of
        )
        .into());
    }
    let text = format!("{}: not repeated until it is resolved\n", names.join(", "));
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
