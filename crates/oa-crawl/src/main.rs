//! `oa-crawl`: command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::NaiveDate;
use clap::{Parser, Subcommand};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::config::Span;
use oa_core::exit;
use oa_core::output::Format;
use oa_core::retry::Policy;
use oa_core::runs::Trigger;
use oa_crawl::PROGRAM;
use oa_crawl::commands::{check, drain, exec, list, run};
use oa_crawl::exec::Program;

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
    /// List the sources and when they are due
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
    /// Collect sources now
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
        /// Every source
        #[arg(long)]
        all: bool,
        /// Every source that is due and was not run yet, here or on another machine: for one crontab line a minute
        #[arg(long, conflicts_with_all = ["all", "date", "dry_run", "cron"])]
        due: bool,
        /// The day to collect [default: today in the configured time zone]
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
    /// Bring what waits in the local spool into PostgreSQL
    Drain {
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

#[derive(Debug, clap::Args)]
struct SourcesArg {
    /// Folder with source files that replace or add to the built-in ones
    #[arg(long, value_name = "DIR", value_parser = run::parse_folder)]
    sources: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(cli))
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
            };
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
                    },
                    trigger: if cron { Trigger::Cron } else { Trigger::Manual },
                    format,
                },
            )
        }
        Command::Drain { format } => {
            cli::end_at_the_latest(Duration::ZERO);
            drain::run(&global.load_config()?, format)
        }
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
