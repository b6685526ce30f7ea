//! `oa-alert`: command line.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use oa_alert::PROGRAM;
use oa_alert::commands::{check, check_config, flush, list, send, silence, test};
use oa_core::alerts::Severity;
use oa_core::cli::{self, Failure, GlobalArgs};
use oa_core::config::Span;
use oa_core::exit;
use oa_core::output::Format;

/// Finds what is wrong although nothing failed, and brings alerts to people: DingTalk, WeCom, Feishu, mail, webhooks, programs
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
    /// Ask all rules, tell what they find, and send what waits: the one line that cron needs
    ///
    /// Exit codes are those of monitoring plug-ins: 0 nothing found, 1 a warning, 2 something critical. `heartbeat_url` in [alert]
    /// is asked at the start and at the end, so that somebody outside notices when nothing is checked any more.
    #[command(after_help = "Example, for crontab:\n  * * * * * oa-alert check")]
    Check {
        /// How the findings are printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Send a message of yours to all channels
    #[command(
        after_help = "Examples:\n  oa-alert send --title 迁移完成 \"13 张表，一条不差\"\n  df -h | oa-alert send --title 磁盘 --stdin"
    )]
    Send {
        /// One line
        #[arg(long)]
        title: String,
        /// The text
        #[arg(required_unless_present = "stdin", conflicts_with = "stdin")]
        text: Option<String>,
        /// Read the text from stdin
        #[arg(long)]
        stdin: bool,
        /// Decides about colours
        #[arg(long, value_enum, default_value = "info")]
        severity: SeverityArg,
        /// The task it is about
        #[arg(long)]
        task: Option<String>,
        /// How the result is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
    /// Take on a trouble: it is not repeated until it is over
    #[command(after_help = "Example:\n  oa-alert ack zhihui-reports --note 正在处理")]
    Ack {
        /// A task, or the fingerprint of one trouble (oa-alert list --open)
        #[arg(value_name = "TASK|FINGERPRINT")]
        of: String,
        /// For those who read it later
        #[arg(long, default_value = "")]
        note: String,
    },
    /// Record alerts of a task or a rule without sending them, for a while; without options, list the silences that hold
    #[command(
        after_help = "Examples:\n  oa-alert silence --task rongda-positions --for 8h --reason 网站维护\n  oa-alert silence --end 3"
    )]
    Silence {
        /// Only alerts of this task
        #[arg(long)]
        task: Option<String>,
        /// Only alerts of this rule
        #[arg(long)]
        rule: Option<String>,
        /// How long; 31 days at most
        #[arg(long = "for", value_name = "DURATION", value_parser = parse_span)]
        for_: Option<Span>,
        /// Why, for those who read it later
        #[arg(long, default_value = "")]
        reason: String,
        /// Also when nothing is known by that name yet
        #[arg(long)]
        anyway: bool,
        /// End the silence of this number
        #[arg(long, value_name = "ID", conflicts_with_all = ["task", "rule", "for_"])]
        end: Option<i64>,
        /// How the list is printed
        #[arg(long, value_enum, default_value_t)]
        format: Format,
    },
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
        /// Troubles that are not over, one line each
        #[arg(long, conflicts_with = "all")]
        open: bool,
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
    /// Check channels and rules as they are configured, without sending anything; 78 when something is wrong
    #[command(after_help = "Example:\n  oa-alert check-config")]
    CheckConfig {
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

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SeverityArg {
    Info,
    Warning,
    Critical,
}

impl From<SeverityArg> for Severity {
    fn from(given: SeverityArg) -> Self {
        match given {
            SeverityArg::Info => Self::Info,
            SeverityArg::Warning => Self::Warning,
            SeverityArg::Critical => Self::Critical,
        }
    }
}

fn parse_span(text: &str) -> Result<Span, String> {
    if text.trim().ends_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("say the unit: {0}h, {0}m or {0}d", text.trim()));
    }
    let span: Span = text.parse()?;
    if span.0 > silence::LONGEST || span.0.is_zero() {
        return Err("must be more than nothing and at most 31 days".to_owned());
    }
    Ok(span)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    cli.global.start_logging();
    cli::keep_files_private();
    cli::finish(PROGRAM, execute(&cli))
}

fn execute(cli: &Cli) -> Result<u8, Failure> {
    let global = &cli.global;
    cli::end_at_the_latest(Duration::ZERO);
    match &cli.command {
        Command::Flush { format } => flush::run(&global.load_config()?, *format),
        Command::Check { format } => check::run(&global.load_config()?, *format),
        Command::Send {
            title,
            text,
            stdin: _,
            severity,
            task,
            format,
        } => send::run(
            &global.load_config()?,
            &send::Options {
                title: title.clone(),
                text: text.clone(),
                severity: (*severity).into(),
                task: task.clone(),
                format: *format,
            },
        ),
        Command::Ack { of, note } => silence::ack(&global.load_config()?, of, note),
        Command::Silence {
            task,
            rule,
            for_,
            reason,
            anyway,
            end,
            format,
        } => {
            let config = global.load_config()?;
            let usage = |what: &str| Failure::new(exit::USAGE, anyhow::anyhow!("{what}"));
            match (end, for_) {
                (Some(id), _) => silence::end(&config, *id),
                (None, None) if task.is_none() && rule.is_none() => silence::list(&config, *format),
                (None, Some(span)) if task.is_some() || rule.is_some() => {
                    let which = silence::Which {
                        task: task.as_deref(),
                        rule: rule.as_deref(),
                        anyway: *anyway,
                    };
                    silence::silence(&config, &which, span.0, reason)
                }
                (None, Some(_)) => Err(usage("name what is to be silent: --task, --rule or both")),
                (None, None) => Err(usage("say for how long: --for 8h")),
            }
        }
        Command::List {
            open: true,
            limit,
            format,
            ..
        } => list::open(&global.load_config()?, *limit, *format),
        Command::List {
            all, limit, format, ..
        } => list::run(&global.load_config()?, *all, *limit, *format),
        Command::Test { channel, format } => {
            test::run(&global.load_config()?, channel.as_deref(), *format)
        }
        Command::CheckConfig { format } => check_config::run(&global.load_config()?, *format),
        Command::Completions { shell } => cli::print_completions::<Cli>(*shell)
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
        Command::Man => cli::print_man_page::<Cli>()
            .map(|()| exit::OK)
            .map_err(|e| anyhow::Error::from(e).into()),
    }
}
