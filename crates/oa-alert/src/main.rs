//! `oa-alert`: finds what is wrong even if nothing failed, and sends the outbox's alerts to people.
//!
//! Alerts are events that were committed with the facts that caused them ([`oa_core::journal::incidents`]), and are put into words
//! here. [`deliver`] sends each to every channel, at least once: a delivery is leased before it is sent and recorded after, so several
//! senders at once never send the same one, and one that died in between is sent again, marked as a possible repeat. [`channels`]
//! knows each robot's protocol, limits and error codes; HTTP 200 with an error code is a failure.
//!
//! What is pressed on the messages of application robots comes over a connection that [`listen`] keeps open.
//!
//! Modules import one way: `pace`, `render` <- `channels` <- `deliver`, `check` <- `listen` <- `commands`.

mod channels;
mod check;
mod commands;
mod deliver;
mod listen;
mod pace;
mod render;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use oa_core::app::cli::{self, Failure, GlobalArgs};
use oa_core::app::{exit, man};

use commands::{
    ack, check as check_command, check_config, flush, list, listen as listen_command, send, show,
    silence, test,
};

/// This program's name.
const PROGRAM: &str = "oa-alert";

/// Finds what is wrong even if nothing failed, and sends alerts to people: DingTalk, WeCom, Feishu, mail, webhooks, programs
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, after_help = exit::HELP)]
struct Cli {
    #[command(flatten)]
    global: GlobalArgs,
    #[command(subcommand)]
    command: Command,
}

#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
#[derive(Debug, Subcommand)]
enum Command {
    /// Check all rules, report what they find, and send what waits: the one line that cron needs
    ///
    /// Exit codes are those of monitoring plug-ins: 0 nothing found, 1 a warning, 2 something critical. It requests `heartbeat_url`
    /// of [alert] at the start and at the end, so that a service outside notices when the checks stop.
    #[command(after_help = "Example, for crontab:\n  * * * * * oa-alert check")]
    Check(check_command::Args),
    /// Send your own message to all channels
    #[command(
        after_help = "Examples:\n  oa-alert send --title 迁移完成 \"13 张表，一条不差\"\n  df -h | oa-alert send --title 磁盘 --stdin"
    )]
    Send(send::Args),
    /// Acknowledge incidents: they are not repeated until they are resolved
    #[command(
        after_help = "Examples:\n  oa-alert ack zhihui-reports --note 正在处理\n  oa-alert ack run:zhihui-reports disk_filling:vm"
    )]
    Ack(ack::Args),
    /// Withdraw acknowledgements, so that these incidents are repeated again
    #[command(after_help = "Example:\n  oa-alert unack zhihui-reports")]
    Unack(ack::UnackArgs),
    /// Show one alert as people got it, and what each channel answered
    #[command(
        after_help = "Examples:\n  oa-alert show 019ac3d2-7f10\n  oa-alert show run:zhihui-reports"
    )]
    Show(show::Args),
    /// Record alerts of a task, a rule or an incident without sending them, for a while; without options, list active silences
    #[command(
        after_help = "Examples:\n  oa-alert silence --task rongda-positions --for 8h --reason 网站维护\n  oa-alert silence --task 'zhihui-*' --daily 22:00-06:00 --for 90d\n  oa-alert silence --incident disk_filling:vm --for 2h\n  oa-alert silence --end 3"
    )]
    Silence(silence::Args),
    /// Send what waits in the outbox; without PostgreSQL, what waits in the local spool
    #[command(after_help = "Example, for crontab:\n  * * * * * oa-alert flush")]
    Flush(flush::Args),
    /// Act on the buttons that people press on messages of application robots, until stopped
    ///
    /// Keeps a connection to the platform open, so that it needs no public address, and updates messages in place. Several machines
    /// may run it: one of them listens, the others wait.
    #[command(
        after_help = "Example, for crontab:\n  @reboot oa-alert listen >>/var/log/oa/listen.log 2>&1"
    )]
    Listen(listen_command::Args),
    /// List alerts that wait for a channel, or open incidents
    List(list::Args),
    /// Send a real test message and explain the outcome
    Test(test::Args),
    /// Check channels and rules as they are configured, without sending anything; 78 when something is wrong
    #[command(after_help = "Example:\n  oa-alert check-config")]
    CheckConfig(check_config::Args),
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
    cli::keep_files_private();
    cli::finish(PROGRAM, execute(&cli))
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let config = || cli.global.load_config();
    match &cli.command {
        Command::Check(args) => check_command::run(&config()?, args),
        Command::Send(args) => send::run(&config()?, args),
        Command::Ack(args) => ack::run(&config()?, args),
        Command::Unack(args) => ack::unack(&config()?, args),
        Command::Show(args) => show::run(&config()?, args),
        Command::Silence(args) => silence::run(&config()?, args),
        Command::Flush(args) => flush::run(&config()?, args),
        Command::Listen(args) => listen_command::run(&config()?, args),
        Command::List(args) => list::run(&config()?, args),
        Command::Test(args) => test::run(&config()?, args),
        Command::CheckConfig(args) => check_config::run(&config()?, args),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man { dir } => man::print::<Cli>(dir.as_deref())
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
