//! `oa-report`: command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use chrono::{NaiveDate, Utc};
use clap::{Parser, Subcommand};
use oa_core::app::cli;
use oa_core::app::cli::{Failure, GlobalArgs};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::model::run::Trigger;
use oa_report::PROGRAM;
use oa_report::commands::{backups, daily, health, html, logs, quality, serve, token};
use oa_report::queries::logs::{Filter, MOST, STATUSES};
use oa_report::when;
use uuid::Uuid;

/// Tells people what ran and what came of it
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
    /// How each task is, over the last 24 hours
    #[command(
        after_help = "Healthy: at least 90 % of the runs succeeded; warning: 70 %, or late, never run, failing or with old data; else critical.\nWith --fail-on the exit code is that of monitoring plug-ins: 0 well, 1 a warning, 2 something critical.\n\nExamples:\n  oa-report health\n  oa-report health --fail-on warning && echo deploy\n  oa-report health --task zhihui-reports --format json"
    )]
    Health {
        /// Only this task
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// Exit with 1 for a warning and 2 for something critical, from this on
        #[arg(long, value_enum, value_name = "HEALTH")]
        fail_on: Option<health::FailOn>,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The run log, newest first
    #[command(
        after_help = "Moments: 2h (ago), today, yesterday, 2025-12-01, \"2025-12-01 09:30\", in the configuration's zone.\n\nExamples:\n  oa-report logs --status failed --since yesterday\n  oa-report logs --task zhihui-reports --limit 200 --format csv\n  oa-report logs --follow --status failed --format json"
    )]
    Logs {
        /// Only runs of this task
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// This run in full: cause, tries, what its program printed
        #[arg(long, value_name = "ID", conflicts_with_all = ["task", "status", "since", "until", "follow"])]
        run: Option<Uuid>,
        /// Only runs with this status
        #[arg(long, value_parser = STATUSES)]
        status: Option<String>,
        /// Only runs that started at this moment or later
        #[arg(long, value_name = "MOMENT")]
        since: Option<String>,
        /// Only runs that started before this moment
        #[arg(long, value_name = "MOMENT")]
        until: Option<String>,
        /// At most so many; with --follow so many to begin with
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u32,
        /// Go on printing runs as they end
        #[arg(long, conflicts_with = "until")]
        follow: bool,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Backups, newest first
    #[command(
        after_help = "Examples:\n  oa-report backups\n  oa-report backups --removed --format markdown"
    )]
    Backups {
        /// Also those that were pruned
        #[arg(long)]
        removed: bool,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: u16,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// How good what was collected is: the last run of each task, worst first
    #[command(
        after_help = "Examples:\n  oa-report quality\n  oa-report quality --task zhihui-reports --limit 20"
    )]
    Quality {
        /// The last runs of this task instead
        #[arg(long, value_name = "NAME")]
        task: Option<String>,
        /// At most so many of it
        #[arg(long, value_name = "N", default_value_t = 50, requires = "task")]
        limit: u16,
        /// How it is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// The daily report: runs, troubles that are not over, storage, and what today is
    #[command(
        after_help = "Examples:\n  oa-report daily\n  oa-report daily --date 2025-12-01 --format json\n  oa-report daily --format markdown | oa-alert send --title 每日报告 --stdin\nFor crontab; it is sent once a day, at daily_at of [report] or as soon after that as possible:\n  */5 * * * * oa-report daily --send --cron"
    )]
    Daily {
        /// The day: the 24 hours until its daily_at [default: today]
        #[arg(long, value_name = "YYYY-MM-DD", conflicts_with = "send")]
        date: Option<NaiveDate>,
        /// Put today's report into the outbox, once a day, and send it
        #[arg(long)]
        send: bool,
        /// Started by cron: only noted in the run log
        #[arg(long, requires = "send")]
        cron: bool,
        /// How it is printed
        #[arg(long, value_enum, default_value_t, conflicts_with = "send")]
        format: daily::Form,
    },
    /// The overview as one HTML file that needs nothing else
    #[command(
        after_help = "Examples:\n  oa-report html > overview.html\n  oa-report html --output /var/www/html/oa.html"
    )]
    Html {
        /// Write it there: complete, or not at all [default: stdout]
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Serve the page, the API and the metrics over HTTP
    #[command(
        after_help = "Prints the page's address. Requests are logged on stderr, unless -q.\nWithout tokens in [report] only this machine is served.\n\nExamples:\n  oa-report serve\n  oa-report serve --listen 127.0.0.1:9000\nFor crontab:\n  @reboot oa-report serve -q"
    )]
    Serve {
        /// Where to listen [default: listen of [report], 127.0.0.1:8686]
        #[arg(long, value_name = "ADDR")]
        listen: Option<SocketAddr>,
    },
    /// Make a token for the API and the page
    #[command(after_help = "Examples:\n  oa-report token wang")]
    Token {
        /// Whose it is; shown when its owner takes on a trouble
        name: String,
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
    let mut cli = Cli::parse();
    if matches!(cli.command, Command::Serve { .. }) && !cli.global.quiet {
        // Requests are logged as information.
        cli.global.verbose = cli.global.verbose.max(1);
    }
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(cli))
}

fn execute(cli: Cli) -> Result<u8, Failure> {
    let global = cli.global;
    if !matches!(
        cli.command,
        Command::Serve { .. } | Command::Logs { follow: true, .. }
    ) {
        cli::end_at_the_latest(Duration::ZERO);
    }
    match cli.command {
        Command::Health {
            task,
            fail_on,
            format,
        } => health::run(&global.load_config()?, task.as_deref(), fail_on, format),
        Command::Logs {
            run: Some(run),
            format,
            ..
        } => logs::one(&global.load_config()?, run, format),
        Command::Logs {
            run: None,
            task,
            status,
            since,
            until,
            limit,
            follow,
            format,
        } => {
            let config = global.load_config()?;
            let filter = Filter {
                task,
                status,
                since: moment(&config, since.as_deref(), "--since")?,
                until: moment(&config, until.as_deref(), "--until")?,
                limit: u16::try_from(limit).unwrap_or(MOST).clamp(1, MOST),
                ..Filter::default()
            };
            logs::run(&config, filter, limit, follow, format)
        }
        Command::Backups {
            removed,
            limit,
            format,
        } => backups::run(&global.load_config()?, removed, limit, format),
        Command::Quality {
            task,
            limit,
            format,
        } => quality::run(&global.load_config()?, task.as_deref(), limit, format),
        Command::Daily {
            date,
            send,
            cron,
            format,
        } => {
            let config = global.load_config()?;
            let trigger = if cron { Trigger::Cron } else { Trigger::Manual };
            if send {
                daily::send(&config, trigger)
            } else {
                daily::print(&config, date, format)
            }
        }
        Command::Html { output } => html::run(&global.load_config()?, output.as_deref()),
        Command::Serve { listen } => serve::run(global.load_config()?, listen),
        Command::Token { name } => token::run(&name),
        Command::Completions { shell } => cli::print_completions::<Cli>(shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}

/// A moment of the command line.
fn moment(
    config: &Config,
    text: Option<&str>,
    flag: &str,
) -> Result<Option<chrono::DateTime<Utc>>, Failure> {
    text.map(|text| when::parse(text, Utc::now(), config.timezone))
        .transpose()
        .map_err(|e| Failure::new(exit::USAGE, anyhow::anyhow!("{flag}: {e}")))
}
