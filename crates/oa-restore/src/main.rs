//! `oa-restore`: restores what `oa-backup` has stored, as it was at any point in time.
//!
//! Arrows run one way, downwards in this list:
//!
//! ```text
//! commands ─ plan, cluster, database, table, files, drill; what they share: options, session, target_dir
//! live     ─ the server that goes on working, and what is put back into it
//! recover  ─ files from the repository, settings, a private server that recovers and ends with this process
//! plan     ─ the recovery target, and the backups and the WAL that lead there, or why nothing does
//! content  ─ whether two databases hold the same
//! disk     ─ whether there is room
//! error
//! ```
//! Nothing that exists is overwritten: it is moved aside, and only after a confirmation.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod commands;
mod content;
mod disk;
mod error;
mod live;
mod plan;
mod recover;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::{exit, man};
use oa_core::base::supervise;

use commands::{cluster, database, drill, files, plan as plan_command, table};
use error::RestoreError;

/// In the run log and in the database's list of sessions.
const PROGRAM: &str = "oa-restore";

/// Restores clusters, databases, tables and files as they were at any point in time
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
    Plan(plan_command::Args),
    Cluster(cluster::Args),
    Database(database::Args),
    Table(table::Args),
    Files(files::Args),
    Drill(drill::Args),
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
    cli::finish(PROGRAM, execute(&cli))
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    let global = &cli.global;
    match &cli.command {
        Command::Plan(args) => plan_command::run(args, &global.load_config()?),
        Command::Cluster(args) => cluster::run(args, &global.load_config()?, global.quiet),
        Command::Database(args) => database::run(args, &global.load_config()?, global.quiet),
        Command::Table(args) => table::run(args, &global.load_config()?, global.quiet),
        Command::Files(args) => files::run(args, &global.load_config()?, global.quiet),
        Command::Drill(args) => drill::run(args, &global.load_config()?, global.quiet),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man { dir } => man::print::<Cli>(dir.as_deref())
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
