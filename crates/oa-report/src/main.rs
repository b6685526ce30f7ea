//! `oa-report`: command line.

use std::process::ExitCode;
use std::time::Duration;

use chrono::NaiveDate;
use clap::{Parser, Subcommand};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::exit;
use oa_core::runs::Trigger;
use oa_report::PROGRAM;
use oa_report::commands::daily;

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
    let global = &cli.global;
    cli::end_at_the_latest(Duration::ZERO);
    match &cli.command {
        Command::Daily {
            date,
            send,
            cron,
            format,
        } => {
            let config = global.load_config()?;
            let trigger = if *cron {
                Trigger::Cron
            } else {
                Trigger::Manual
            };
            if *send {
                daily::send(&config, trigger)
            } else {
                daily::print(&config, *date, *format)
            }
        }
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
