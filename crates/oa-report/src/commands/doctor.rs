//! `oa-report doctor`: is this installation well, and if not, what mends it? It changes nothing.

use std::path::PathBuf;

use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::config::{Config, ConfigError};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::text::printable;
use oa_core::base::trust::account;
use rustix::process::geteuid;
use serde_json::json;

use crate::doctor::{self, Findings, State};

/// Check the installation, and give the command that mends each thing
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Looks at the programs, the configuration, owners and modes, disks, the crontab or timers, PostgreSQL and its settings, certificates, schema, roles, clocks, whether anything really starts the programs, alert channels, backups, sources, their secrets, Chromium and the trading calendar. It asks no site, sends no message and changes nothing. Run it as the account that runs the programs.\n\nExits with 0 when nothing is wrong or only warnings are there, and with 1 when something must be mended.\n\nExamples:\n  sudo -u oa oa-report doctor\n  oa-report doctor --format json | jq 'select(.state != \"ok\")'\n  oa-report doctor --crontab crontab.example   # before it is installed; a file for cron.d is seen from its lines"
)]
pub(crate) struct Args {
    /// Look at this crontab instead of the account's own
    #[arg(long, value_name = "FILE")]
    crontab: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(args: &Args, global: &GlobalArgs) -> Result<u8, Failure> {
    let findings = match Config::load(global.config.as_deref()) {
        Ok(config) => {
            config.remember_secrets();
            refuse_root(&config)?;
            doctor::examine(&config, args.crontab.as_deref())
        }
        // It names no secret, and what it names cannot be known otherwise.
        Err(e @ ConfigError::Secret { .. }) => return Err(e.into()),
        Err(e) => doctor::unconfigured(&e),
    };
    print(&findings, args.format)?;
    Ok(match findings.worst() {
        State::Error => exit::FAILED,
        _ => exit::OK,
    })
}

/// What root may do says nothing of what the service's account may do.
fn refuse_root(config: &Config) -> Result<(), Failure> {
    use std::os::unix::fs::MetadataExt;
    let owner = std::fs::metadata(&config.state_dir).map_or(0, |found| found.uid());
    if !geteuid().is_root() || owner == 0 {
        return Ok(());
    }
    let name = account(owner);
    let problem = anyhow::anyhow!(
        "the programs run as {name}, and this as root, which may do everything; run: sudo -u {name} oa-report doctor"
    );
    Err(Failure::new(exit::REFUSED, problem))
}

fn print(findings: &Findings, format: Format) -> Result<(), Failure> {
    if format != Format::Table {
        let mut listing = Listing::new(&[
            ("check", "CHECK"),
            ("state", "STATE"),
            ("detail", "DETAIL"),
            ("command", "COMMAND"),
        ]);
        for line in &findings.lines {
            listing.push(json!(line));
        }
        listing.print(format).map_err(anyhow::Error::from)?;
        return Ok(());
    }
    let count = |state| findings.lines.iter().filter(|l| l.state == state).count();
    let width = findings.lines.iter().map(|l| l.check.len()).max();
    let width = width.unwrap_or_default();
    let mut text = String::new();
    for line in &findings.lines {
        let (state, detail) = (line.state.as_str(), printable(&line.detail));
        text.push_str(&format!("{state:<8} {:<width$}  {detail}\n", line.check));
        if let Some(command) = &line.command {
            text.push_str(&format!(
                "{:<8} {:<width$}  -> {}\n",
                "",
                "",
                printable(command)
            ));
        }
    }
    let (errors, warnings) = (count(State::Error), count(State::Warning));
    text.push_str(&match (errors, warnings) {
        (0, 0) => "\neverything is well\n".to_owned(),
        _ => format!("\n{errors} to mend, {warnings} to look at; begin at the top\n"),
    });
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(())
}
