//! `oa-migrate`: moves a SQLite database into PostgreSQL and proves that nothing changed.
//!
//! ```text
//! inspect ─ snapshot, schema, one scan of every value
//! plan    ─ names, types that hold every value exactly, keys, indexes, constraints
//! load    ─ bad rows quarantined, binary COPY into a staging schema, indexes and constraints
//! proof   ─ both sides read back and compared, row by row, before anything becomes visible
//! load    ─ one transaction puts the finished tables in place
//! ```
//! Killed at any point before the last transaction, the target is as it was; the next run removes what was left in between.
//!
//! Modules import only from those before them: `errors`, `progress`, `values` and `workers`; `inspect`; `plan`; `load`; `proof`; then, side
//! by side, `runs` (what finished runs keep on disk), `sync` (changes in either direction) and `transfer` (exports; it needs
//! `inspect` only); last `commands`. Only `commands` knows exit codes and prints.

mod commands;
mod errors;
#[cfg(test)]
mod fuzz;
mod inspect;
mod load;
mod plan;
mod progress;
mod proof;
mod roles;
mod runs;
mod sync;
mod transfer;
mod values;
mod workers;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::{exit, man};

use commands::{
    check_export, dedupe, export, import, init, plan as plan_command, rollback, run, status,
    sync as sync_command, to_sqlite, verify,
};

/// This program's name, in the run log and in the database's list of sessions.
const PROGRAM: &str = "oa-migrate";

/// Moves SQLite databases into PostgreSQL and proves that nothing changed
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    /// The target database, to try it without a configuration file: postgresql://…, or env:NAME to name a variable
    #[arg(long, global = true, value_name = "URL")]
    to: Option<String>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
    Run(run::Args),
    Plan(plan_command::Args),
    Verify(verify::Args),
    Sync(sync_command::Args),
    Dedupe(dedupe::Args),
    ToSqlite(to_sqlite::Args),
    Rollback(rollback::Args),
    Export(export::Args),
    CheckExport(check_export::Args),
    Import(import::Args),
    Status(status::Args),
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
    cli::keep_files_private();
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let to = cli.to.as_deref();
    let config = || commands::load_config(&cli.global, to);
    match cli.command {
        Command::Init(args) => init::run(&args, &config()?),
        Command::Run(args) => run::run(&args, &config()?),
        Command::Plan(args) => plan_command::run(&args, &config()?),
        Command::Verify(args) => verify::run(&args, &config()?),
        Command::Sync(args) => sync_command::run(&args, &config()?),
        Command::Dedupe(args) => dedupe::run(&args, &config()?),
        Command::ToSqlite(args) => to_sqlite::run(&args, &config()?),
        Command::Rollback(args) => rollback::run(&args, &config()?),
        Command::Export(args) => export::run(&args, &config()?),
        Command::CheckExport(args) => check_export::run(&args),
        Command::Import(args) => import::run(&args, &config()?),
        Command::Status(args) => status::run(&args, &config()?),
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man { dir } => man::print::<Cli>(dir.as_deref())
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
