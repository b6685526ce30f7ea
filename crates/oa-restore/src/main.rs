//! `oa-restore`: command line.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::exit;
use oa_core::output::Format;
use oa_core::supervise;
use oa_repository::progress;
use oa_restore::PROGRAM;
use oa_restore::commands::{cluster, database, drill, files, plan, table};

/// Restores clusters, databases, tables and files as they were at any moment
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
    /// Say which backups and which log a restore would use, and what would be lost
    #[command(
        after_help = "PostgreSQL need not run. Nothing is done.\n\nExamples:\n  oa-restore plan --to latest\n  oa-restore plan --to \"2026-11-23 14:05\"\n  oa-restore plan --to \"2h ago\" --format json | jq .lost_seconds"
    )]
    Plan(plan::Wanted),
    /// Restore a whole cluster into a directory, recovered and ready to run
    #[command(
        after_help = "PostgreSQL need not run. Interrupted, the same command goes on where it was.\n\nExamples:\n  oa-restore cluster --to latest --target-dir /var/lib/postgresql/restored\n  oa-restore cluster --to \"2026-11-23 14:05\" --target-dir /srv/restored --start\n  oa-restore cluster --to latest --target-dir /srv/restored --dry-run"
    )]
    Cluster(cluster::Wanted),
    /// Restore the database beside the live one, and with --swap into its place
    #[command(
        after_help = "It is compared before it may be used. With --swap the live one is renamed and kept until you drop it.\n\nExamples:\n  oa-restore database --to \"2026-11-23 14:05\" --into oa_1405\n  oa-restore database --to latest --into oa_new --swap --yes"
    )]
    Database(database::Wanted),
    /// Bring tables, or some of their rows, back into the live database
    #[command(
        after_help = "A table that is there is replaced in one short step and kept as NAME_before_TIME. With --where rows go back by primary key, and the versions that they replace are kept beside.\n\nExamples:\n  oa-restore table option_contracts --to \"2026-11-23 14:05\" --as option_contracts_1405\n  oa-restore table option_contracts --to \"10min ago\"\n  oa-restore table option_contracts --to latest --where \"symbol = 'IO2612'\"\n  oa-restore table one two --to 3f2a9c81 --yes"
    )]
    Table(table::Wanted),
    /// Restore files that were backed up along with the database
    #[command(
        after_help = "They go below the directory with their whole path. PostgreSQL need not run.\n\nExamples:\n  oa-restore files --to latest --target-dir /srv/restored-files\n  oa-restore files /etc/oa --to \"2026-11-23 14:05\" --target-dir /srv/restored-files"
    )]
    Files(files::Wanted),
    /// Rehearse: restore a backup into a private server, check it, compare it, measure it
    #[command(
        after_help = "Touches nothing but the staging folder. Exit code 1 when something is wrong.\n\nExamples:\n  oa-restore drill --yes\n  oa-restore drill --random --yes --format json | jq .rto_seconds\nFor crontab, monthly:\n  0 5 1 * * oa-restore drill --cron"
    )]
    Drill(drill::Wanted),
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(&cli))
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    supervise::install_stop_signal().map_err(anyhow::Error::from)?;
    let global = &cli.global;
    let config = || -> Result<_, Failure> {
        let config = global.load_config()?;
        config.remember_secrets();
        Ok(config)
    };
    let bars = |format: Format| progress::bars(global.quiet || format != Format::Table);
    match &cli.command {
        Command::Plan(wanted) => plan::run(&config()?, wanted),
        Command::Cluster(wanted) => cluster::run(&config()?, wanted, &bars(wanted.manner.format)),
        Command::Database(wanted) => database::run(&config()?, wanted, &bars(wanted.manner.format)),
        Command::Table(wanted) => table::run(&config()?, wanted, &bars(wanted.manner.format)),
        Command::Files(wanted) => files::run(&config()?, wanted, &bars(wanted.manner.format)),
        Command::Drill(wanted) => drill::run(&config()?, wanted, &bars(wanted.manner.format)),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
