//! `oa-report top`: the overview in the terminal, kept up to date.

use std::io::IsTerminal;
use std::time::Duration;

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::supervise::install_stop_signal;
use oa_core::base::text::printable;
use oa_core::base::units::Span;
use serde_json::json;

use crate::lang::Lang;
use crate::pages::{problems, todo};
use crate::pool::{Pool, QueryError};
use crate::queries::alerts;
use crate::queries::health::Health;
use crate::queries::watch;
use crate::snapshot::Snapshot;

/// The overview, kept up to date until you stop it
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Without a terminal it prints once. While PostgreSQL does not answer, the last overview stays, with its time.\n\nExamples:\n  oa-report top\n  oa-report top --every 10s"
)]
pub(crate) struct Args {
    /// How often to refresh
    #[arg(long, value_name = "DURATION", default_value = "2s")]
    every: Span,
}

/// Another screen, so that what stood there comes back; its beginning; the rest of it is cleared.
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
const HOME: &str = "\u{1b}[H";
const REST: &str = "\u{1b}[J";

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let stop = install_stop_signal().map_err(anyhow::Error::from)?;
    let pool = Pool::from_config(config)?;
    let first = pool.read(|tx| Snapshot::take(tx, config))?;
    if !std::io::stdout().is_terminal() {
        let text = screen(config, &first, None);
        cli::print(&text).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let show = |text: &str| cli::print(text).map_err(anyhow::Error::from);
    show(ENTER)?;
    let every = args.every.0.max(Duration::from_millis(500));
    let (mut last, mut outage) = (first, None::<QueryError>);
    let shown = loop {
        let text = fitted(
            &screen(config, &last, outage.as_ref()),
            Lang::from(config.locale),
        );
        if let Err(e) = show(&format!("{HOME}{text}{REST}")) {
            break Err(e);
        }
        if !stop.wait(every) {
            break Ok(());
        }
        match pool.read(|tx| Snapshot::take(tx, config)) {
            Ok(snapshot) => (last, outage) = (snapshot, None),
            Err(e) => outage = Some(e),
        }
    };
    show(LEAVE)?;
    shown?;
    Ok(exit::OK)
}

/// As many lines as the terminal has, and how many there are besides; what stood on each before is cleared.
fn fitted(text: &str, lang: Lang) -> String {
    let height = rustix::termios::tcgetwinsize(std::io::stdout())
        .ok()
        .map(|size| usize::from(size.ws_row))
        .filter(|rows| *rows > 0)
        .unwrap_or(24);
    let all: Vec<&str> = text.lines().collect();
    let fits = height.saturating_sub(1);
    let shown = match all.len() > fits {
        true => fits.saturating_sub(1),
        false => all.len(),
    };
    let mut lines: Vec<String> = all[..shown]
        .iter()
        .map(|line| format!("{line}\u{1b}[K\r\n"))
        .collect();
    if shown < all.len() {
        let n = all.len() - shown;
        let more = lang.say(
            format!("… 还有 {n} 行：oa-report top | less"),
            format!("… {n} more lines: oa-report top | less"),
        );
        lines.push(format!("{more}\u{1b}[K\r\n"));
    }
    lines.concat()
}

fn screen(config: &Config, snapshot: &Snapshot, outage: Option<&QueryError>) -> String {
    let lang = Lang::from(config.locale);
    let problems = problems::problems(snapshot);
    let at = |at: DateTime<Utc>| {
        at.with_timezone(&config.timezone)
            .format("%H:%M:%S %Z")
            .to_string()
    };
    let mut text = match outage {
        Some(e) => lang.say(
            format!(
                "? 数据库无法访问，下面是 {} 的情况：{}\n",
                at(snapshot.taken_at),
                printable(&e.to_string())
            ),
            format!(
                "? PostgreSQL does not answer; as of {}: {}\n",
                at(snapshot.taken_at),
                printable(&e.to_string())
            ),
        ),
        None => String::new(),
    };
    let verdict = match problems.iter().map(|p| p.severity).max() {
        None | Some(Health::Healthy) => lang.say(
            "● 一切正常".to_owned(),
            "● everything is all right".to_owned(),
        ),
        Some(worst) => {
            let sign = if worst == Health::Critical {
                "✕"
            } else {
                "▲"
            };
            let n = problems.len();
            lang.say(
                format!("{sign} {n} 个问题需要处理"),
                format!("{sign} {n} problems need your attention"),
            )
        }
    };
    text.push_str(&format!("{verdict}  {}", at(snapshot.taken_at)));
    for (what, zh, en) in [
        ("check", "告警检查", "checked"),
        ("due", "到期运行", "due runs"),
    ] {
        if let Some(w) = watch::newest(&snapshot.watches, what) {
            let ago = lang.ago(snapshot.taken_at - w.at);
            text.push_str(&format!(" · {} {ago}", lang.say(zh, en)));
        }
    }
    if let Some(to) = snapshot.backups.restorable_to {
        let ago = lang.ago(snapshot.taken_at - to);
        text.push_str(&lang.say(
            format!(" · 可恢复到 {ago}"),
            format!(" · restorable to {ago}"),
        ));
    }
    text.push_str("\n\n");
    if !problems.is_empty() {
        let mut listing = Listing::new(&[
            ("what", lang.say("问题", "PROBLEM")),
            ("remedy", lang.say("处理", "WHAT TO DO")),
        ]);
        for problem in problems.iter().take(8) {
            let (what, remedy) = words(lang, config, problem, snapshot);
            listing.push(json!({"what": what, "remedy": remedy}));
        }
        text.push_str(&listing.render_here(Format::Table));
        text.push('\n');
    }
    let mut listing = Listing::new(&[
        ("state_shown", lang.say("状态", "STATE")),
        ("title", lang.say("任务", "TASK")),
        ("rate", lang.say("24 小时", "24 H")),
        ("last", lang.say("上次成功", "LAST SUCCESS")),
        ("next", lang.say("下次", "NEXT")),
    ]);
    for t in snapshot.worst_first() {
        listing.push(json!({
            "state_shown": lang.state(t.state), "severity": t.severity, "title": t.title, "rate": format!("{}/{}", t.success, t.runs),
            "last": t.last_success.map(|at| lang.ago(snapshot.taken_at - at)), "next": t.next_due.map(|at| lang.ago(snapshot.taken_at - at)),
        }));
    }
    text.push_str(&listing.render_here(Format::Table));
    text
}

/// What is wrong in one line, and what to do.
fn words(
    lang: Lang,
    config: &Config,
    problem: &problems::Problem<'_>,
    snapshot: &Snapshot,
) -> (String, String) {
    use problems::Item;
    match &problem.item {
        Item::Incident(i) => {
            let text = alerts::words(&i.event, &lang.wording(config.timezone));
            let (_, remedy) = todo::lines(&text);
            (text.title, remedy.unwrap_or_default())
        }
        Item::Task(t) => {
            let reasons: Vec<String> = t.reasons.iter().map(|r| lang.reason(*r, t)).collect();
            let remedy = t.reasons.last().map(|r| lang.remedy(*r, t));
            (
                format!("{}: {}", t.title, reasons.join(lang.say("；", "; "))),
                remedy.unwrap_or_default(),
            )
        }
        Item::Backups => (
            lang.say("备份", "backups").to_owned(),
            snapshot.backups.message.clone(),
        ),
        Item::Holes { days, most, .. } => (
            lang.say(
                format!("缺 {days} 天的数据"),
                format!("{days} days are lacking"),
            ),
            crate::queries::days::backfill(&most.task, most.from, most.to),
        ),
        Item::Watching(fault) => {
            let (title, remedy) = lang.watching(*fault);
            (title.to_owned(), remedy)
        }
    }
}
