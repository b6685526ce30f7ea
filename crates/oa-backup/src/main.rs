//! `oa-backup`: command line.

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};
use oa_backup::PROGRAM;
use oa_backup::commands::{copy, init, list, prune, repair, status, take, verify};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::config::{BackupKind, Bytes};
use oa_core::exit;
use oa_core::output::Format;
use oa_core::runs::Trigger;
use oa_core::supervise;
use oa_repository::{Level, progress};

/// Backs PostgreSQL and files up into an encrypted, deduplicated repository
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum KindArg {
    /// Physical where the role may replicate, else logical
    Auto,
    /// The cluster's files and its log: restores to any second
    Physical,
    /// A dump of the database
    Logical,
}

#[derive(Debug, Args)]
struct TakeArgs {
    /// How, instead of kind in [backup]
    #[arg(long, value_enum)]
    kind: Option<KindArg>,
    /// Most bytes a second of a full physical copy, instead of limit_rate in [backup]: 50MB
    #[arg(long, value_name = "SIZE")]
    limit_rate: Option<Bytes>,
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// Started by cron: noted in the run log, and no failure when one runs already
    #[arg(long)]
    cron: bool,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create the repository and check that the server can be backed up
    #[command(
        after_help = "A place that holds what is left of a repository is refused; so is one that is empty although backups were recorded there, for its disk may not be mounted.\n\nExamples:\n  oa-backup init\nWhat it needs: repository and password in [backup]; see docs/backup.md"
    )]
    Init {
        /// Begin a new repository where an earlier one, with recorded backups, was lost
        #[arg(long)]
        anew: bool,
    },
    /// Back everything up
    #[command(
        after_help = "Examples:\n  oa-backup full\n  oa-backup full --dry-run\n  oa-backup full --kind logical --format json | jq .added_bytes\nFor crontab:\n  0 2 * * * oa-backup full --cron"
    )]
    Full(TakeArgs),
    /// Back up what has changed since the last backup
    #[command(
        after_help = "Where the log has a gap since then, or there is no full backup yet, a full one is made instead.\n\nExamples:\n  oa-backup incremental\nFor crontab, each hour or each minute:\n  5 * * * * oa-backup incremental --cron"
    )]
    Incremental(TakeArgs),
    /// List the backups in the repository
    List {
        /// The second repository, of [backup.copy]
        #[arg(long)]
        copy: bool,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Say what could be lost now and how long a restore takes; exit code 1 when the objectives are not met
    Status {
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check that everything the backups need is there
    #[command(
        after_help = "Examples:\n  oa-backup verify\n  oa-backup verify --read-data\n  oa-backup verify 3f2a9c81 --format json\nFor crontab, weekly:\n  30 4 * * 0 oa-backup verify --read-data --cron"
    )]
    Verify {
        /// Only the backup whose id begins so
        id: Option<String>,
        /// Read every byte back
        #[arg(long)]
        read_data: bool,
        /// The second repository, of [backup.copy]
        #[arg(long)]
        copy: bool,
        /// Started by cron: noted in the run log
        #[arg(long)]
        cron: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove backups that are not kept any longer, and free their space
    #[command(
        after_help = "What is unused is marked first and removed by a prune a day later, so that a backup may run meanwhile.\n\nExamples:\n  oa-backup prune --dry-run\n  oa-backup prune --yes\nFor crontab:\n  30 3 * * * oa-backup prune --cron"
    )]
    Prune {
        /// Only say what would go
        #[arg(long)]
        dry_run: bool,
        /// The second repository, of [backup.copy]
        #[arg(long)]
        copy: bool,
        /// Also take off the record what is missing from the repository and lost for good
        #[arg(long)]
        missing: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// Started by cron: noted in the run log, and nothing is asked
        #[arg(long)]
        cron: bool,
        /// How the list of what goes is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Copy what the second repository, of [backup.copy], does not have
    #[command(
        after_help = "For crontab, after the full backup:\n  0 4 * * * oa-backup copy --cron"
    )]
    Copy {
        /// Started by cron: noted in the run log
        #[arg(long)]
        cron: bool,
    },
    /// Take damaged files out of the repository and make its index anew
    #[command(
        after_help = "Nothing is deleted: damaged files go to the folder damaged of the repository. No backup may run meanwhile.\n\nExamples:\n  oa-backup repair --yes && oa-backup full"
    )]
    Repair {
        /// The second repository, of [backup.copy]
        #[arg(long)]
        copy: bool,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

fn main() -> ExitCode {
    // Repositories and what is staged for them are for this user only, whatever started this program.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let cli = Cli::parse();
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
            Self::Verify { cron, .. } | Self::Prune { cron, .. } | Self::Copy { cron } => *cron,
            _ => false,
        }
    }
}

fn trigger(cron: bool) -> Trigger {
    if cron { Trigger::Cron } else { Trigger::Manual }
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
        Command::Init { anew } => init::run(&config()?, *anew),
        Command::Full(args) => take::run(
            &config()?,
            wanted(args, Level::Full),
            &bars(args.format),
            args.format,
        ),
        Command::Incremental(args) => take::run(
            &config()?,
            wanted(args, Level::Incremental),
            &bars(args.format),
            args.format,
        ),
        Command::List { copy, format } => list::run(&config()?, *copy, *format),
        Command::Status { format } => status::run(&config()?, *format),
        Command::Verify {
            id,
            read_data,
            copy,
            cron,
            format,
        } => {
            let wanted = verify::Wanted {
                id: id.clone(),
                read_data: *read_data,
                second: *copy,
                trigger: trigger(*cron),
            };
            verify::run(&config()?, &wanted, &bars(*format), *format)
        }
        Command::Prune {
            dry_run,
            copy,
            missing,
            yes,
            cron,
            format,
        } => {
            let wanted = prune::Wanted {
                dry_run: *dry_run,
                second: *copy,
                missing: *missing,
                yes: *yes,
                trigger: trigger(*cron),
            };
            prune::run(&config()?, wanted, &bars(*format), *format)
        }
        Command::Copy { cron } => copy::run(&config()?, trigger(*cron), &bars(Format::Table)),
        Command::Repair { copy, yes } => repair::run(&config()?, *copy, *yes, &bars(Format::Table)),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}

fn wanted(args: &TakeArgs, level: Level) -> take::Wanted {
    take::Wanted {
        level,
        kind: args.kind.map(|kind| match kind {
            KindArg::Auto => BackupKind::Auto,
            KindArg::Physical => BackupKind::Physical,
            KindArg::Logical => BackupKind::Logical,
        }),
        limit_rate: args.limit_rate,
        trigger: trigger(args.cron),
        dry_run: args.dry_run,
    }
}
