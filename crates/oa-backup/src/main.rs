//! `oa-backup`: backups of PostgreSQL and of files, verified when they are made.
//!
//! ```text
//! commands  ─ one file a command
//! session   ─ the order of a backup: capture, check, store, record
//! capture   ─ PostgreSQL's own programs take the data: pg_basebackup, pg_receivewal, pg_dump
//! recovery  ─ whether what was made recovers, as oa-restore finds out
//! retention ─ what is kept, and what may go
//! chain     ─ which full backup the WAL of a server goes on from
//! catalog   ─ what `oa.backups` says of a repository
//! ```
//! The repository itself is the library `oa-repository`, which `oa-restore` reads.

mod capture;
mod catalog;
mod chain;
mod commands;
mod error;
mod publish;
mod recovery;
mod retention;
mod session;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::output::Format;
use oa_core::app::{exit, man};
use oa_core::base::supervise;
use oa_repository::{Level, ProgressReporter, progress};

use crate::commands::{
    backup, copy, doctor, init, list, pin, prune, repair, status, stream, verify,
};

/// This program's name, in the run log and in the database's list of sessions.
const PROGRAM: &str = "oa-backup";

/// Backs PostgreSQL and files up into an encrypted, deduplicated repository
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
    /// Create the repository and check that the server can be backed up
    #[command(
        after_help = "A location that holds the remains of a repository is refused. So is an empty one where backups were recorded: its disk may not be mounted.\n\nExamples:\n  oa-backup init\nWhat it needs: repository and password in [backup]; see docs/backup.md"
    )]
    Init(init::Args),
    /// Make a full backup
    #[command(
        after_help = "Examples:\n  oa-backup full\n  oa-backup full --dry-run\n  oa-backup full --kind logical --format json | jq .added_bytes\nFor crontab:\n  0 2 * * * oa-backup full --cron"
    )]
    Full(backup::Args),
    /// Back up what has changed since the last backup
    #[command(
        after_help = "If the WAL has a gap since then, or there is no full backup yet, a full one is made instead.\n\nExamples:\n  oa-backup incremental\nFor crontab, each hour or each minute:\n  5 * * * * oa-backup incremental --cron"
    )]
    Incremental(backup::Args),
    /// Receive WAL continuously and store it each minute, until stopped, so that you can lose seconds and not an hour
    #[command(
        after_help = "Runs as a service beside the lines of the crontab, which stay as they are: sudo systemctl enable --now oa-backup-stream. Whatever ends it, what was received is stored by the next backup.\n\nExamples:\n  oa-backup stream\n  oa-backup stream --every 30s\nFor crontab, where there is no systemd:\n  @reboot oa-backup stream"
    )]
    Stream(stream::Args),
    /// List the backups in the repository
    List(list::Args),
    /// Show what you could lose now and how long a restore takes; exit code 1 when the objectives are not met
    Status(status::Args),
    /// Say what is wrong, and one command that is safe; exit code 1 if something is wrong
    #[command(
        after_help = "Changes nothing.\n\nExamples:\n  oa-backup doctor\n  oa-backup doctor --format json"
    )]
    Doctor(doctor::Args),
    /// Check that everything the backups need is there
    #[command(
        after_help = "Examples:\n  oa-backup verify\n  oa-backup verify --read-data\n  oa-backup verify 3f2a9c81 --format json\nFor crontab, weekly:\n  30 4 * * 0 oa-backup verify --read-data --cron"
    )]
    Verify(verify::Args),
    /// Remove backups that retention no longer keeps, and free their space
    #[command(
        after_help = "Unused data is only marked at first; a prune a day later removes it, so backups may run meanwhile.\n\nExamples:\n  oa-backup prune --dry-run\n  oa-backup prune --yes\nFor crontab:\n  30 3 * * * oa-backup prune --cron"
    )]
    Prune(prune::Args),
    /// Keep a backup, and what it needs, whatever retention says
    #[command(
        after_help = "Examples:\n  oa-backup pin 3f2a9c81 --reason \"before the move\"\n  oa-backup pin 9e01b7d4 --reason \"before the move\" --copy   # a pin holds for one repository, and ids differ there"
    )]
    Pin(pin::PinArgs),
    /// Let retention remove a pinned backup again
    Unpin(pin::UnpinArgs),
    /// Copy what the secondary repository ([backup.copy]) lacks
    #[command(
        after_help = "For crontab, after the full backup:\n  0 4 * * * oa-backup copy --cron"
    )]
    Copy(copy::Args),
    /// Move damaged files out of the repository and rebuild its index
    #[command(
        after_help = "Nothing is deleted: damaged files are moved to the repository's folder damaged. No backup may run meanwhile.\n\nExamples:\n  oa-backup repair --yes && oa-backup full"
    )]
    Repair(repair::Args),
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
    // Repositories and what is staged for them are for this user only, whatever started this program.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = Cli::parse();
    if matches!(cli.command, Command::Stream(_)) {
        cli::give_memory_back();
    }
    cli.global.start_logging();
    cli::keep_files_private();
    let result = match execute(&cli) {
        Err(failure) if failure.is_busy() && cli.command.by_cron() => {
            tracing::warn!("{failure}");
            Ok(exit::OK)
        }
        result => result,
    };
    cli::finish(PROGRAM, result)
}

impl Command {
    fn by_cron(&self) -> bool {
        match self {
            Self::Full(args) | Self::Incremental(args) => args.cron,
            Self::Verify(args) => args.cron,
            Self::Prune(args) => args.cron,
            Self::Copy(args) => args.cron,
            _ => false,
        }
    }
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    let config = || -> Result<_, Failure> {
        let config = cli.global.load_config()?;
        config.remember_secrets();
        Ok(config)
    };
    let bars = |format| progress::bars(cli.global.quiet || format != Format::Table);
    match &cli.command {
        Command::Init(args) => init::run(&config()?, args),
        Command::Full(args) => backup::run(&config()?, args, Level::Full, &bars(args.format)),
        Command::Incremental(args) => {
            backup::run(&config()?, args, Level::Incremental, &bars(args.format))
        }
        Command::Stream(args) => stream::run(&config()?, args, &ProgressReporter::hidden()),
        Command::List(args) => list::run(&config()?, args),
        Command::Doctor(args) => doctor::run(&config()?, args),
        Command::Status(args) => status::run(&config()?, args),
        Command::Verify(args) => verify::run(&config()?, args, &bars(args.format)),
        Command::Prune(args) => prune::run(&config()?, args, &bars(args.format)),
        Command::Pin(args) => pin::pin(&config()?, args),
        Command::Unpin(args) => pin::unpin(&config()?, args),
        Command::Copy(args) => copy::run(&config()?, args, &bars(Format::Table)),
        Command::Repair(args) => repair::run(&config()?, args, &bars(Format::Table)),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man { dir } => man::print::<Cli>(dir.as_deref())
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
