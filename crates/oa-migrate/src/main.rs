//! `oa-migrate`: command line.

use std::path::PathBuf;
use std::process::ExitCode;

use chrono_tz::Tz;
use clap::{Parser, Subcommand};
use oa_core::app::cli;
use oa_core::app::cli::{Failure, GlobalArgs};
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_migrate::PROGRAM;
use oa_migrate::base::Which;
use oa_migrate::commands::{
    check_export, dedupe, export, import, init, plan as plan_command, rollback, run, status, sync,
    to_sqlite, verify,
};
use oa_migrate::plan::mapping::Mapping;
use oa_migrate::plan::names::Identifiers;
use oa_migrate::plan::{self, OnBadValue};

/// Moves SQLite databases into PostgreSQL and proves that nothing changed
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
    /// Create or upgrade schema oa and the service's own tables
    Init {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Move a SQLite database into PostgreSQL and prove it
    #[command(
        after_help = "Examples:\n  oa-migrate run option_tracker.db --rehearse\n  oa-migrate run option_tracker.db --format json | jq '.tables[] | select(.matched | not)'\n  oa-migrate run old.db --schema archive --on-bad-value fail\n  oa-migrate run app.db --allow-missing   # after reading what `run app.db --rehearse` lists as missing"
    )]
    Run {
        /// The SQLite file; it is opened read-only
        database: PathBuf,
        #[command(flatten)]
        plan: PlanArgs,
        /// Do everything into a scratch schema, report, and drop it
        #[arg(long)]
        rehearse: bool,
        /// Replace tables that have rows; the present ones are kept in a schema oa_before_…
        #[arg(long)]
        replace: bool,
        /// Go on, and end with 0, although definitions or contents listed as missing do not come along
        #[arg(long)]
        allow_missing: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Show what run would do: types, keys, and what cannot be moved as it is
    Plan {
        /// The SQLite file; it is opened read-only
        database: PathBuf,
        #[command(flatten)]
        plan: PlanArgs,
        /// Write the plan as a mapping that can be edited and given to run
        #[arg(long, value_name = "FILE")]
        write_mapping: Option<PathBuf>,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Compare a SQLite file with the target again, row by row
    #[command(
        after_help = "The file must be the source of a run, or what to-sqlite made of it; another one is refused with 77.\n\nExamples:\n  oa-migrate verify option_tracker.db\n  oa-migrate verify moved.db --same-source --schema archive"
    )]
    Verify {
        /// The SQLite file; it is opened read-only
        database: PathBuf,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        jobs: JobsArg,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Bring what changed in SQLite since the last run or sync: rows that came, changed or went
    #[command(
        after_help = "Everything is one transaction a run, which ends with a proof of all its tables. It is for the time before anything else\nwrites to the target: rows that were changed there are named, and nothing is done. A file that is not the run's source\nis refused with 77. Deleting or changing more than a tenth of a table's rows (and more than five) is asked about.\n\nExamples:\n  oa-migrate sync option_tracker.db --dry-run\n  oa-migrate sync option_tracker.db --yes\n  oa-migrate sync /new/place/option_tracker.db --same-source\n  oa-migrate sync option_tracker.db --format json | jq .matched"
    )]
    Sync {
        /// The SQLite file; it is opened read-only
        database: PathBuf,
        #[command(flatten)]
        which: Which,
        /// Do and prove everything, then take it back
        #[arg(long)]
        dry_run: bool,
        /// Do not ask before more than a tenth of a table's rows is deleted or changed
        #[arg(long)]
        yes: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Move the older rows of duplicate natural keys to oa.rejects and make the unique index
    Dedupe {
        /// A table that a crawler fills
        table: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The way back: write PostgreSQL's rows, with all that was written since, to a new SQLite file
    #[command(
        after_help = "The file is a copy of the snapshot of the last run or sync in which only what differs is written, so that rows which did not\nfit PostgreSQL are still in it. It gets its name when every table is proven to be the same.\n\nExamples:\n  oa-migrate to-sqlite option_tracker.back.db\n  oa-migrate to-sqlite back.db --base option_tracker.db"
    )]
    ToSqlite {
        /// The file to make; it must not be there
        out: PathBuf,
        /// The old SQLite file, for when the run's snapshot is gone (it is kept for seven days)
        #[arg(long, value_name = "DB")]
        base: Option<PathBuf>,
        #[command(flatten)]
        which: Which,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Put back the tables that the last run replaced; its own are kept in a schema oa_after_…
    Rollback {
        /// The last run into this schema
        #[arg(long, value_name = "SCHEMA")]
        schema: Option<String>,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Write a SQLite database as a folder of JSON lines with a manifest of counts and hashes
    #[command(
        after_help = "Nothing is lost: every value keeps its storage class and its bits. The format is described in docs/export-format.md.\n\nExamples:\n  oa-migrate export option_tracker.db export-2026-11-23\n  oa-migrate check-export export-2026-11-23\n  jq -r .comm_code export-2026-11-23/*option_flows.jsonl | sort | uniq -c"
    )]
    Export {
        /// The SQLite file; it is opened read-only
        database: PathBuf,
        /// The folder to make; it must be empty or not there
        folder: PathBuf,
        /// End with 0 although contents of a virtual table cannot be exported
        #[arg(long)]
        allow_missing: bool,
        /// How the list of files is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Read an export back and compare it with its manifest: sizes, hashes, every line
    CheckExport {
        /// The folder
        folder: PathBuf,
        /// How the list of files is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Move an export into PostgreSQL, with the same proof as run
    #[command(
        after_help = "The export is checked, made a SQLite database again, proven to be what was exported, and moved as run does.\n\nExamples:\n  oa-migrate import export-2026-11-23 --rehearse\n  oa-migrate import export-2026-11-23 --schema archive"
    )]
    Import {
        /// The folder of an export
        folder: PathBuf,
        #[command(flatten)]
        plan: PlanArgs,
        /// Do everything into a scratch schema, report, and drop it
        #[arg(long)]
        rehearse: bool,
        /// Replace tables that have rows; the present ones are kept in a schema oa_before_…
        #[arg(long)]
        replace: bool,
        /// Go on, and end with 0, although definitions or contents listed as missing do not come along
        #[arg(long)]
        allow_missing: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List the runs of this machine and what they keep in the database
    Status {
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Print the completion script of a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Print the man page
    Man,
}

#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// Schema in PostgreSQL
    #[arg(long, default_value = "public", value_name = "SCHEMA")]
    schema: String,
    /// Letters of names
    #[arg(long, value_enum, default_value_t)]
    identifiers: Identifiers,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    include: Vec<String>,
    /// Not this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    exclude: Vec<String>,
    /// What to do with values that do not fit what their column declares
    #[arg(long, value_enum, default_value_t)]
    on_bad_value: OnBadValue,
    /// Take timestamps without an offset as local times of this zone and make them timestamptz
    #[arg(long, value_name = "ZONE")]
    timestamps_in: Option<Tz>,
    /// Corrected names and types, see `plan --write-mapping`
    #[arg(long, value_name = "FILE")]
    mapping: Option<PathBuf>,
    #[command(flatten)]
    jobs: JobsArg,
}

#[derive(Debug, clap::Args)]
struct JobsArg {
    /// Tables read, loaded and compared side by side [default: number of processors]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
}

impl JobsArg {
    fn count(&self) -> usize {
        self.jobs.map_or_else(
            || std::thread::available_parallelism().map_or(2, usize::from),
            usize::from,
        )
    }
}

impl PlanArgs {
    fn options(&self) -> Result<plan::Options, Failure> {
        let mapping = match &self.mapping {
            Some(path) => Mapping::load(path).map_err(|e| Failure::new(exit::USAGE, e))?,
            None => Mapping::default(),
        };
        Ok(plan::Options {
            schema: self.schema.clone(),
            identifiers: self.identifiers,
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            on_bad_value: self.on_bad_value,
            timestamps_in: self.timestamps_in,
            mapping,
        })
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::keep_files_private();
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::Init { format } => init::run(&global.load_config()?, format),
        Command::Run {
            database,
            plan,
            rehearse,
            replace,
            allow_missing,
            format,
        } => run::run(
            &global.load_config()?,
            &run::Options {
                database,
                jobs: plan.jobs.count(),
                plan: plan.options()?,
                shown: None,
                rehearse,
                replace,
                allow_missing,
                absent: Vec::new(),
                format,
            },
        ),
        Command::Plan {
            database,
            plan,
            write_mapping,
            format,
        } => plan_command::run(
            &global.load_config()?,
            &plan_command::Options {
                database,
                jobs: plan.jobs.count(),
                plan: plan.options()?,
                write_mapping,
                format,
            },
        ),
        Command::Verify {
            database,
            which,
            jobs,
            format,
        } => verify::run(
            &global.load_config()?,
            &verify::Options {
                database,
                which,
                jobs: jobs.count(),
                format,
            },
        ),
        Command::Sync {
            database,
            which,
            dry_run,
            yes,
            format,
        } => sync::run(
            &global.load_config()?,
            &sync::Options {
                database,
                which,
                dry_run,
                yes,
                format,
            },
        ),
        Command::Dedupe { table, yes, format } => {
            dedupe::run(&global.load_config()?, &table, yes, format)
        }
        Command::ToSqlite {
            out,
            base,
            which,
            format,
        } => to_sqlite::run(
            &global.load_config()?,
            &to_sqlite::Options {
                out,
                base,
                which,
                format,
            },
        ),
        Command::Rollback { schema, yes } => {
            rollback::run(&global.load_config()?, schema.as_deref(), yes)
        }
        Command::Export {
            database,
            folder,
            allow_missing,
            format,
        } => export::run(
            &global.load_config()?,
            &export::Options {
                database,
                folder,
                allow_missing,
                format,
            },
        ),
        Command::CheckExport { folder, format } => check_export::run(&folder, format),
        Command::Import {
            folder,
            plan,
            rehearse,
            replace,
            allow_missing,
            format,
        } => import::run(
            &global.load_config()?,
            run::Options {
                database: folder,
                shown: None,
                jobs: plan.jobs.count(),
                plan: plan.options()?,
                rehearse,
                replace,
                allow_missing,
                absent: Vec::new(),
                format,
            },
        ),
        Command::Status { format } => status::run(&global.load_config()?, format),
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
