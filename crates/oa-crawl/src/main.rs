//! `oa-crawl`: runs sources. Fetch, archive what came, extract, validate, store, with retries and a complete run log.
//!
//! A source is one TOML file ([`source`]). A try ([`collect`]) fetches ([`fetch`]), keeps every answer in the raw archive
//! ([`archive`]) before anything else is made of it, takes records out ([`extract`]), and turns them into typed rows or rejects
//! ([`validate`]). The wrapper ([`wrapper`]) repeats tries as the policy says ([`oa_core::runs::attempts`]) and hands the outcome
//! to the run log, in one transaction with the rows. A program that stores its own data is wrapped the same way ([`program`]).

mod archive;
mod collect;
mod commands;
mod extract;
mod fetch;
mod program;
mod source;
mod validate;
mod verdict;
mod wrapper;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use crate::commands::{
    backfill, check, cookies, crontab, drain, enable, exec, export, list, prune, replay, run,
    try_source,
};
use crate::program::Program;
use chrono::NaiveDate;
use clap::{Parser, Subcommand};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::config::{Config, Span};
use oa_core::exit;
use oa_core::output::Format;
use oa_core::retry::Policy;
use oa_core::runs::Trigger;
use uuid::Uuid;

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

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sources, whether they are enabled, and when they are due
    List {
        #[command(flatten)]
        sources: SourcesArg,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Check configuration, sources, secrets, state directory and database, without asking any site
    Check {
        #[command(flatten)]
        sources: SourcesArg,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Collect sources now; a task that is named runs whether it is enabled or not
    #[command(
        after_help = "Examples:\n  oa-crawl run zhihui-full-view\n  * * * * * oa-crawl run --due\n  oa-crawl run --all --format json | jq -r 'select(.status != \"success\") | .task'\n  oa-crawl run zhihui-reports --date 2025-12-01 --dry-run --format json"
    )]
    Run {
        /// Names of tasks, as `oa-crawl list` shows them
        #[arg(
            value_name = "TASK",
            required_unless_present_any = ["all", "due"],
            conflicts_with_all = ["all", "due"]
        )]
        tasks: Vec<String>,
        /// Every source that is enabled
        #[arg(long)]
        all: bool,
        /// Every source that is enabled, due and was not run yet, here or on another machine: for one crontab line a minute
        #[arg(long, conflicts_with_all = ["all", "date", "dry_run", "cron"])]
        due: bool,
        /// The day to collect; refused (77) when the site cannot show it [default: today in the configured time zone]
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = run::parse_date)]
        date: Option<NaiveDate>,
        /// Fetch once and validate; store nothing, record nothing
        #[arg(long)]
        dry_run: bool,
        /// Tries after the first one [default: the source's own, 3]
        #[arg(long, value_name = "N", value_parser = run::parse_retries)]
        retries: Option<u32>,
        /// Wait between tries, for example 60s [default: the source's own, 60s]
        #[arg(long, value_name = "DURATION", value_parser = run::parse_delay)]
        retry_delay: Option<Span>,
        /// Limit of one try as a whole, for example 300s [default: the source's own, 300s]
        #[arg(long, value_name = "DURATION", value_parser = run::parse_limit)]
        timeout: Option<Span>,
        /// Recorded as started by a crontab line
        #[arg(long)]
        cron: bool,
        #[command(flatten)]
        sources: SourcesArg,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Run any program with retries, a time limit and a complete run log
    #[command(
        after_help = "The program's output goes to stderr; its end is kept in the run log. Records are counted from lines of its stdout that are JSON\nobjects, or from the result file (JSON lines, a JSON array, or {\"records\": N}). Exit codes 2, 77, 78, 126 and 127 of the program\nare not tried again.\n\nExamples:\n  oa-crawl exec --task fangqi-daily --min-records 50 -- python3 crawlers/fangqi.py\n  oa-crawl exec --task receipts --timeout 10m --retries 1 --result-file out.json -- ./receipts.sh --out out.json"
    )]
    Exec {
        /// Name of the task in the run log
        #[arg(long, value_name = "NAME", value_parser = exec::parse_task)]
        task: String,
        /// Title for people, in alerts and reports [default: the name]
        #[arg(long)]
        title: Option<String>,
        /// Tries after the first one [default: 3]
        #[arg(long, value_name = "N", value_parser = run::parse_retries)]
        retries: Option<u32>,
        /// Wait between tries, for example 60s [default: 60s]
        #[arg(long, value_name = "DURATION", visible_alias = "delay", value_parser = run::parse_delay)]
        retry_delay: Option<Span>,
        /// Limit of one try, for the program and all it starts, for example 300s [default: 300s]
        #[arg(long, value_name = "DURATION", value_parser = run::parse_limit)]
        timeout: Option<Span>,
        /// Fewer records than this are a failure
        #[arg(long, value_name = "N")]
        min_records: Option<u64>,
        /// File in which the program leaves its records or their number, written anew by each try
        #[arg(long, value_name = "FILE")]
        result_file: Option<PathBuf>,
        /// Recorded as started by a crontab line
        #[arg(long)]
        cron: bool,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "CMD")]
        command: Vec<OsString>,
    },
    /// Collect days of the past that the site can show, one after the other; started again it goes on where it was
    #[command(
        after_help = "Examples:\n  oa-crawl backfill zhihui-full-view --from 2025-11-01 --to 2025-11-30\n  oa-crawl backfill zhihui-reports --from 2025-11-01 --to 2025-11-30 --pause 30s --dry-run"
    )]
    Backfill {
        /// Name of the task
        #[arg(value_name = "TASK")]
        task: String,
        /// The first day
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = run::parse_date)]
        from: NaiveDate,
        /// The last day
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = run::parse_date)]
        to: NaiveDate,
        /// Also the days that were collected before
        #[arg(long)]
        again: bool,
        /// Wait between two days
        #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = run::parse_delay)]
        pause: Span,
        /// Only print the days
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        sources: SourcesArg,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Read what a run received once more, by the present source file, and show what would change
    #[command(
        after_help = "Examples:\n  oa-crawl replay zhihui-full-view --date 2025-12-01\n  oa-crawl replay zhihui-full-view --date 2025-12-01 --sources ./sources --yes"
    )]
    Replay {
        /// Name of the task
        #[arg(value_name = "TASK")]
        task: String,
        /// The day of the data
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = run::parse_date)]
        date: NaiveDate,
        /// The run whose answers are read [default: the last one of that day that received any]
        #[arg(long, value_name = "ID")]
        run: Option<Uuid>,
        /// Store the result, as a new run
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        sources: SourcesArg,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Try a source file that is being written: what is fetched, extracted, typed and rejected. Stores nothing
    #[command(
        after_help = "Examples:\n  oa-crawl try my-source.toml\n  oa-crawl try my-source.toml --url 'https://example.com/api?day=2025-12-01'\n  oa-crawl try my-source.toml --body answer.json --format json"
    )]
    Try {
        /// The source file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Ask this address instead of the file's
        #[arg(long)]
        url: Option<String>,
        /// Read this file as the answer instead of asking the site
        #[arg(long, value_name = "FILE", conflicts_with = "url")]
        body: Option<PathBuf>,
        /// The day to collect [default: today]
        #[arg(long, value_name = "YYYY-MM-DD", value_parser = run::parse_date)]
        date: Option<NaiveDate>,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Write the built-in source files into a folder, to correct them or to learn from them
    #[command(
        subcommand,
        after_help = "Example:\n  oa-crawl sources export ./sources"
    )]
    Sources(SourcesCommand),
    /// Cookies of a login that a person did, for sources that use a browser
    #[command(
        subcommand,
        after_help = "Example:\n  oa-crawl cookies import rongda ~/Downloads/cookies.json"
    )]
    Cookies(CookiesCommand),
    /// Let sources run by themselves (run --due, run --all). All are off until then
    ///
    /// Written into `enable` in [crawl] of the configuration.
    #[command(
        after_help = "Examples:\n  oa-crawl enable zhihui\n  oa-crawl enable zhihui-full-view fangqi-night"
    )]
    Enable(SwitchArgs),
    /// Switch sources off; nothing is missed any more, and what is open of them is resolved
    #[command(
        after_help = "Examples:\n  oa-crawl disable rongda-positions\n  oa-crawl disable --all"
    )]
    Disable(SwitchArgs),
    /// Print the schedules of the enabled sources as crontab lines
    Crontab {
        #[command(flatten)]
        sources: SourcesArg,
    },
    /// Tell the run log that a task is run no more, so that nobody is told that it was missed
    #[command(after_help = "Example:\n  oa-crawl forget old-quotes")]
    Forget {
        /// The task
        task: String,
    },
    /// Bring what waits in the local spool into PostgreSQL
    Drain {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Remove from the raw archive what is older than it has to be kept, and tell when the archive is too large
    ///
    /// How long answers are kept is raw_keep, in [crawl] or in a source file; what is too large is raw_limit in [crawl].
    #[command(after_help = "Example:\n  oa-crawl prune --dry-run")]
    Prune {
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
        /// Started by cron: only noted in the run log
        #[arg(long)]
        cron: bool,
        #[command(flatten)]
        sources: SourcesArg,
        /// How the result is printed
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

#[derive(Debug, Subcommand)]
enum CookiesCommand {
    /// Keep the cookies of a JSON file as a browser extension exports it
    Import {
        /// Name of the provider, as `oa-crawl list` shows it
        provider: String,
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        #[command(flatten)]
        sources: SourcesArg,
    },
}

#[derive(Debug, Subcommand)]
enum SourcesCommand {
    /// Write the files; those that differ from the built-in ones are not overwritten
    Export {
        /// The folder, made if absent
        #[arg(value_name = "DIR")]
        folder: PathBuf,
        /// Overwrite files that differ
        #[arg(long)]
        force: bool,
    },
    /// Print the JSON Schema of source files, for editors
    Schema,
}

#[derive(Debug, clap::Args)]
struct SwitchArgs {
    /// Tasks, or providers with all their tasks, as `oa-crawl list` shows them
    #[arg(
        value_name = "TASK|PROVIDER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    names: Vec<String>,
    /// Everything that `oa-crawl list` shows
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    sources: SourcesArg,
}

#[derive(Debug, clap::Args)]
struct SourcesArg {
    /// Folder with source files that replace or add to the built-in ones
    #[arg(long, value_name = "DIR", value_parser = run::parse_folder)]
    sources: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    // A program that is only run makes its own files, as whoever starts it wants them.
    if !matches!(cli.command, Command::Exec { .. }) {
        cli::keep_files_private();
    }
    cli::finish(PROGRAM, execute(cli))
}

fn switch(config: &Config, given: &SwitchArgs, on: bool) -> Result<u8, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let folder = given.sources.sources.as_deref();
    enable::run(config, folder, &given.names, given.all, on)
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    match cli.command {
        Command::List { sources, format } => {
            cli::end_at_the_latest(Duration::ZERO);
            list::run(&global.load_config()?, sources.sources.as_deref(), format)
        }
        Command::Check { sources, format } => {
            cli::end_at_the_latest(Duration::ZERO);
            check::run(&global.load_config()?, sources.sources.as_deref(), format)
        }
        Command::Run {
            tasks,
            all,
            due,
            date,
            dry_run,
            retries,
            retry_delay,
            timeout,
            cron,
            sources,
            format,
        } => {
            let mut config = global.load_config()?;
            config.crawl.retries = retries.or(config.crawl.retries);
            config.crawl.retry_delay = retry_delay.or(config.crawl.retry_delay);
            config.crawl.timeout = timeout.or(config.crawl.timeout);
            let trigger = if cron { Trigger::Cron } else { Trigger::Manual };
            run::run(
                &config,
                &run::Options {
                    tasks,
                    all,
                    due,
                    date,
                    dry_run,
                    trigger,
                    sources: sources.sources,
                    format,
                },
            )
        }
        Command::Exec {
            task,
            title,
            retries,
            retry_delay,
            timeout,
            min_records,
            result_file,
            cron,
            format,
            command,
        } => {
            let config = global.load_config()?;
            let retry = |own: Option<Span>, of_config: Option<Span>, default: Duration| {
                own.or(of_config).map_or(default, |s| s.0)
            };
            let crawl = &config.crawl;
            let policy = Policy {
                retries: retries.or(crawl.retries).unwrap_or(Policy::DEFAULT.retries),
                delay: retry(retry_delay, crawl.retry_delay, Policy::DEFAULT.delay),
                timeout: retry(timeout, crawl.timeout, Policy::DEFAULT.timeout),
                backoff: crawl.retry_backoff.unwrap_or_default(),
            };
            let query = exec::query(&config, &task)?;
            exec::run(
                &config,
                &exec::Options {
                    title: title.unwrap_or_else(|| task.clone()),
                    task,
                    program: Program {
                        command,
                        policy,
                        min_records,
                        result_file,
                        query,
                    },
                    trigger: if cron { Trigger::Cron } else { Trigger::Manual },
                    format,
                },
            )
        }
        Command::Backfill {
            task,
            from,
            to,
            again,
            pause,
            dry_run,
            sources,
            format,
        } => backfill::run(
            &global.load_config()?,
            &backfill::Options {
                task,
                from,
                to,
                again,
                pause,
                dry_run,
                sources: sources.sources,
                format,
            },
        ),
        Command::Replay {
            task,
            date,
            run,
            yes,
            sources,
            format,
        } => replay::run(
            &global.load_config()?,
            &replay::Options {
                task,
                date,
                run,
                yes,
                sources: sources.sources,
                format,
            },
        ),
        Command::Try {
            file,
            url,
            body,
            date,
            format,
        } => try_source::run(
            global.load_config_if_any()?.as_ref(),
            &try_source::Options {
                file,
                url,
                body,
                date,
                format,
            },
        ),
        Command::Sources(SourcesCommand::Export { folder, force }) => export::run(&folder, force),
        Command::Sources(SourcesCommand::Schema) => export::schema(),
        Command::Cookies(CookiesCommand::Import {
            provider,
            file,
            sources,
        }) => cookies::import(
            &global.load_config()?,
            sources.sources.as_deref(),
            &provider,
            &file,
        ),
        Command::Enable(given) => switch(&global.load_config()?, &given, true),
        Command::Disable(given) => switch(&global.load_config()?, &given, false),
        Command::Crontab { sources } => {
            crontab::run(&global.load_config()?, sources.sources.as_deref())
        }
        Command::Forget { task } => drain::forget(&global.load_config()?, &task),
        Command::Drain { format } => {
            cli::end_at_the_latest(Duration::ZERO);
            drain::run(&global.load_config()?, format)
        }
        Command::Prune {
            dry_run,
            cron,
            sources,
            format,
        } => prune::run(
            &global.load_config()?,
            &prune::Options {
                dry_run,
                trigger: if cron { Trigger::Cron } else { Trigger::Manual },
                sources: sources.sources,
                format,
            },
        ),
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
