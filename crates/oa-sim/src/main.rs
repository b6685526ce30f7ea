//! `oa-sim`: command line of the simulator.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use oa_sim::{Options, Sim};

/// Development only: the six sites and the three robots over real HTTP on loopback, with faults on demand
///
/// Prints `listening on http://127.0.0.1:PORT` when it is ready. Sites are at /zhihui, /fangqi, /jiaoyikecha, /openvlab, /rongda,
/// /rdqh; robots at /dingtalk/robot/send?access_token=…, /wecom/cgi-bin/webhook/send?key=…, /feishu/open-apis/bot/v2/hook/…;
/// applications at /feishu and /dingtalk;
/// administration at /_sim/log, /_sim/messages, /_sim/faults, /_sim/reset.
#[derive(Debug, Parser)]
#[command(
    name = "oa-sim",
    version,
    after_help = "Examples:\n  oa-sim --fault '/zhihui/api/report/overallView: 500 x2 then ok'\n  curl -X POST --data '/zhihui: hang' http://127.0.0.1:PORT/_sim/faults"
)]
struct Cli {
    /// Loopback address to listen on
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Decides all data
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A fault plan, such as '/zhihui/api/report/overallView: 500 x2 then ok'
    #[arg(long, value_name = "PLAN")]
    fault: Vec<String>,
    /// File with one fault plan a line
    #[arg(long, value_name = "FILE")]
    faults: Option<PathBuf>,
    /// What 智汇期讯 accepts as authorization
    #[arg(long, default_value = "sim-token")]
    token: String,
    /// Folder with real collected days, served instead of made-up ones
    #[arg(long, value_name = "DIR")]
    days: Option<PathBuf>,
    /// DingTalk checks signatures with this secret
    #[arg(long, value_name = "SECRET")]
    dingtalk_secret: Option<String>,
    /// DingTalk demands this word in every message
    #[arg(long, value_name = "WORD")]
    dingtalk_keyword: Option<String>,
    /// Feishu checks signatures with this secret
    #[arg(long, value_name = "SECRET")]
    feishu_secret: Option<String>,
    /// Applications of Feishu and DingTalk are known by this secret
    #[arg(long, value_name = "SECRET")]
    app_secret: Option<String>,
    /// Messages a minute that DingTalk and WeCom take
    #[arg(long, default_value_t = 20, value_name = "N")]
    rate_limit: usize,
    /// Seconds by which the robots' clock is ahead of this machine's
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    clock_ahead: i64,
    /// Add what the robots take to this file, as a person would read it
    #[arg(long, value_name = "FILE")]
    messages: Option<PathBuf>,
    /// Make a legacy SQLite database as the old service would have left it, and end
    #[arg(long, value_name = "FILE")]
    make_legacy_db: Option<PathBuf>,
    /// Write requests to stderr
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(path) = &cli.make_legacy_db {
        return oa_sim::legacy::make(path, cli.seed)
            .with_context(|| format!("could not make {}", path.display()));
    }
    let sim = Sim::start(Options {
        seed: cli.seed,
        listen: cli.listen,
        zhihui_token: cli.token,
        days: cli.days,
        dingtalk_secret: cli.dingtalk_secret,
        dingtalk_keyword: cli.dingtalk_keyword,
        feishu_secret: cli.feishu_secret,
        app_secret: cli.app_secret,
        ping_interval: 120,
        rate_limit_per_minute: cli.rate_limit,
        clock_ahead: chrono::TimeDelta::seconds(cli.clock_ahead),
        messages: cli.messages,
        verbose: cli.verbose,
    })
    .with_context(|| format!("could not listen on {}", cli.listen))?;
    let mut plans = cli.fault;
    if let Some(path) = &cli.faults {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read {}", path.display()))?;
        plans.extend(
            text.lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
                .map(str::to_owned),
        );
    }
    for plan in plans {
        sim.fault(&plan)?;
    }
    let mut out = io::stdout().lock();
    writeln!(out, "listening on {}", sim.base())?;
    out.flush()?;
    drop(out);
    sim.join();
    Ok(())
}
