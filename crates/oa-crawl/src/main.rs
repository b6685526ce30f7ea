//! `oa-crawl`: runs sources. Fetch, archive what came, extract, validate, store, with retries and a complete run log.
//!
//! A source is one TOML file ([`source`]). An attempt ([`collect`]) fetches ([`fetch`]), keeps every answer in the raw archive
//! ([`archive`]) before anything else is made of it, takes records out ([`extract`]), and turns them into typed rows or rejects
//! ([`validate`]). The collector ([`collector`]) makes runs of that, which the runner ([`oa_core::journal::runner`]) repeats as the policy says and
//! hands to the run log, in one transaction with the rows. A program that stores its own data ([`program`]) is run by the same runner.

mod answer_day;
mod archive;
mod collect;
mod collector;
mod commands;
mod content;
mod dates;
mod extract;
mod fetch;
#[cfg(test)]
mod fuzz;
mod latest;
mod program;
mod progress;
mod source;
mod store;
mod validate;
mod verdict;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::{exit, man};

use commands::{
    backfill, check, cookies, crontab, drain, enable, exec, export, forget, list, new, prune,
    replay, run, settings, try_source,
};
use extract::xls;

/// This program's name, in the run log and in the database's list of sessions.
pub(crate) const PROGRAM: &str = "oa-crawl";

/// Collects data from sources: every failure is seen, nothing is lost
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
#[derive(Debug, Subcommand)]
enum Command {
    List(list::Args),
    Check(check::Args),
    Run(run::Args),
    Exec(exec::Args),
    Backfill(backfill::Args),
    Replay(replay::Args),
    New(new::Args),
    Try(try_source::Args),
    #[command(subcommand)]
    Sources(export::Command),
    #[command(subcommand)]
    Cookies(cookies::Command),
    /// Let sources run by themselves (run --due, run --all). All are off until then
    ///
    /// Written into `enable` in [crawl] of the configuration.
    #[command(
        after_help = "Examples:\n  oa-crawl enable zhihui --try\n  oa-crawl enable zhihui-full-view fangqi-night"
    )]
    Enable(enable::EnableArgs),
    /// Disable sources: they are no longer reported as missed, and their open incidents are resolved
    #[command(
        after_help = "Examples:\n  oa-crawl disable rongda-positions\n  oa-crawl disable --all"
    )]
    Disable(enable::Args),
    Crontab(crontab::Args),
    Forget(forget::Args),
    Drain(drain::Args),
    Prune(prune::Args),
    /// Read and write keys of the configuration: what oa-setup starts
    #[command(subcommand, hide = true)]
    Settings(settings::Command),
    /// Read an xls file from stdin and print its rows: what this program starts for such a file
    #[command(name = xls::COMMAND, hide = true)]
    ReadXls {
        /// The sheet; the first one without it
        #[arg(long)]
        sheet: Option<String>,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man {
        /// Write a page for each command into this folder instead
        #[arg(long, value_name = "DIR")]
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    cli::make_do_with_limits();
    let cli = Cli::parse();
    cli.global.start_logging();
    // A program that `exec` runs keeps the umask of whoever starts it.
    if !matches!(cli.command, Command::Exec(_)) {
        cli::keep_files_private();
    }
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let config = || cli.global.load_config();
    match cli.command {
        Command::List(args) => list::run(&args, &config()?),
        Command::Check(args) => check::run(&args, &config()?),
        Command::Run(args) => run::run(&args, config()?),
        Command::Exec(args) => exec::run(args, config()?),
        Command::Backfill(args) => backfill::run(&args, &config()?),
        Command::Replay(args) => replay::run(&args, &config()?),
        Command::Try(args) => try_source::run(&args, cli.global.load_config_if_any()?.as_ref()),
        Command::New(args) => new::run(&args, cli.global.load_config_if_any()?.as_ref()),
        Command::Sources(command) => export::run(&command),
        Command::Cookies(cookies::Command::Import(args)) => cookies::import(&args, &config()?),
        Command::Enable(args) => enable::enable(&args, &config()?),
        Command::Disable(args) => enable::disable(&args, &config()?),
        Command::Settings(command) => {
            let named = cli.global.config.as_deref();
            settings::run(command, named.unwrap_or(Path::new("/etc/oa/oa.toml")))
        }
        Command::Crontab(args) => crontab::run(&args, &config()?),
        Command::Forget(args) => forget::run(&args, &config()?),
        Command::Drain(args) => drain::run(&args, &config()?),
        Command::Prune(args) => prune::run(&args, &config()?),
        Command::ReadXls { sheet } => printed(xls::read_here(sheet)),
        Command::Completions { shell } => printed(cli::print_completions::<Cli>(shell)),
        Command::Man { dir } => printed(man::print::<Cli>(dir.as_deref())),
    }
}

fn printed(result: std::io::Result<()>) -> Result<u8, Failure> {
    result
        .map(|()| exit::OK)
        .map_err(|e| anyhow::Error::from(e).into())
}
