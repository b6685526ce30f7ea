//! `oa-report`: what ran and what came of it, for people: on the command line, as pages, an API and metrics over HTTP, and as a daily
//! report.
//!
//! Arrows run one way: `queries` <- `snapshot` <- `app` (what a request and an answer are) <- `api`, `pages`, `metrics` <- `http`;
//! `daily` needs only `queries`' PostgreSQL; `doctor` needs `pool` and `queries`; `commands` stand on top of all.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod api;
mod app;
mod commands;
mod daily;
mod digest;
mod doctor;
#[cfg(test)]
mod fuzz;
mod http;
mod lang;
mod metrics;
mod pages;
mod pool;
mod queries;
mod shell;
mod snapshot;
mod when;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::{exit, man};

use commands::{
    as_of, backups, daily as daily_command, days, doctor as doctor_command, health, html, logs,
    quality, serve, token, top, why,
};

const PROGRAM: &str = "oa-report";

/// Reports what ran and what came of it
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Health(health::Args),
    Days(days::Args),
    Logs(logs::Args),
    Backups(backups::Args),
    Quality(quality::Args),
    AsOf(as_of::Args),
    Why(why::Args),
    Daily(daily_command::Args),
    Top(top::Args),
    Doctor(doctor_command::Args),
    Html(html::Args),
    Serve(serve::Args),
    Token(token::Args),
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
    let mut cli = Cli::parse();
    if matches!(cli.command, Command::Serve(_)) && !cli.global.quiet {
        // Requests are logged as information.
        cli.global.verbose = cli.global.verbose.max(1);
    }
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let global = cli.global;
    let runs_until_stopped = match &cli.command {
        Command::Serve(_) | Command::Top(_) => true,
        Command::Logs(args) => args.follow,
        _ => false,
    };
    if !runs_until_stopped {
        cli::end_at_the_latest(Duration::ZERO);
    }
    match cli.command {
        Command::Health(args) => health::run(&args, &global.load_config()?),
        Command::Days(args) => days::run(&args, &global.load_config()?),
        Command::Logs(args) => logs::run(args, &global.load_config()?),
        Command::Backups(args) => backups::run(&args, &global.load_config()?),
        Command::Quality(args) => quality::run(&args, &global.load_config()?),
        Command::AsOf(args) => as_of::run(&args, &global.load_config()?),
        Command::Why(args) => why::run(&args, &global.load_config()?),
        Command::Daily(args) => daily_command::run(&args, &global.load_config()?),
        Command::Top(args) => top::run(&args, &global.load_config()?),
        Command::Doctor(args) => doctor_command::run(&args, &global),
        Command::Html(args) => html::run(&args, &global.load_config()?),
        Command::Serve(args) => serve::run(&args, global.load_config()?),
        Command::Token(args) => token::run(&args),
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man { dir } => man::print::<Cli>(dir.as_deref())
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
