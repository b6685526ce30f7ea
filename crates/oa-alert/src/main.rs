//! `oa-alert`: command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oa_alert::PROGRAM;
use oa_alert::commands::{flush, list, test};
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::exit;
use oa_core::output::Format;

/// Brings alerts to people: DingTalk, WeCom, Feishu
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
    /// Send what waits in the outbox; without PostgreSQL, what waits in the local spool
    #[command(after_help = "Example, for crontab:\n  * * * * * oa-alert flush")]
    Flush {
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// List alerts that wait for a channel
    List {
        /// Also those that everybody has
        #[arg(long)]
        all: bool,
        /// At most so many, the newest first
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Send a real test message and explain the outcome
    Test {
        /// Name of a channel [default: all of them]
        channel: Option<String>,
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

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::finish(PROGRAM, execute(&cli))
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    cli::end_at_the_latest(Duration::ZERO);
    match &cli.command {
        Command::Flush { format } => flush::run(&global.load_config()?, *format),
        Command::List { all, limit, format } => {
            list::run(&global.load_config()?, *all, *limit, *format)
        }
        Command::Test { channel, format } => {
            test::run(&global.load_config()?, channel.as_deref(), *format)
        }
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
