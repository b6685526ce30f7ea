//! `oa-report health`: how each task is, for people and for pipelines.

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::text::printable;
use oa_core::pg::describe;
use serde_json::{Value, json};

use super::{known_task, local};
use crate::lang::Lang;
use crate::pool;
use crate::queries::health::{self, Health, State, TaskHealth};
use crate::queries::watch::{self, Fault, Watch};

/// How each task is, and whether anybody watches them
#[derive(Debug, clap::Args)]
#[command(
    after_help = "STATE is one of ok, late, running, failed, partial, stale, paused (silenced) and unknown (has never run). The share of successes of the last 24 hours stands beside it and changes nothing of it: what a later success has mended needs nobody.\nCritical are three failures in a row, a failure that only a person can mend (such as a refused login), and what was reported as critical.\nWith --fail-on the exit code is 10 for a warning and 20 for something critical, from the level on that you name, and 0 otherwise; 1, 2, 75 and 78 say as always that the command itself failed. Whether oa-alert check and oa-crawl run --due are started counts too, unless --task is given.\n\nExamples:\n  oa-report health\n  oa-report health --fail-on warning && echo deploy\n  oa-report health --task zhihui-reports --format json"
)]
pub(crate) struct Args {
    /// Show only this task
    #[arg(long, value_name = "NAME")]
    task: Option<String>,
    /// Exit with 10 for a warning and 20 for something critical, from this level on
    #[arg(long, value_enum, value_name = "HEALTH")]
    fail_on: Option<FailOn>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A warning, or worse
    Warning,
    /// Only what is critical
    Critical,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pool::connect_read_only(config)?;
    known_task(&mut client, args.task.as_deref())?;
    let mut tasks = health::tasks(&mut client, config, args.task.as_deref())
        .map_err(|e| anyhow::anyhow!("could not read the health of tasks: {}", describe(&e)))?;
    if let (Some(name), true) = (&args.task, tasks.is_empty()) {
        return Err(anyhow::anyhow!("the task \"{name}\" was given up, or [crawl] skip has it; oa-report health shows those that are watched").into());
    }
    let watches = watch::all(&mut client)
        .map_err(|e| anyhow::anyhow!("could not read who watches: {}", describe(&e)))?;
    let faults = watch::faults(&watches, !tasks.is_empty());
    tasks.sort_by_key(|t| std::cmp::Reverse(t.severity));
    // A program that reads CSV takes the words of the API, and times that do not depend on when it reads them.
    let (state, last, next, why) = match args.format {
        Format::Csv | Format::CsvExcel => ("state", "last_success_local", "next_due_local", "why"),
        _ => (
            "state_shown",
            "last_success_ago",
            "next_due_in",
            "why_shown",
        ),
    };
    let mut listing = Listing::new(&[
        (state, "STATE"),
        ("task", "TASK"),
        ("title", "TITLE"),
        ("success", "OK"),
        ("runs", "RUNS"),
        ("success_rate", "%"),
        (last, "LAST SUCCESS"),
        (next, "NEXT DUE"),
        (why, "WHY"),
    ]);
    for task in &tasks {
        listing.push(row(task, config));
    }
    listing.print(args.format).map_err(anyhow::Error::from)?;
    say(args, config, &tasks, &watches, &faults)?;
    let mut worst = health::worst(&tasks);
    if args.task.is_none() {
        worst = faults.iter().fold(worst, |w, f| w.max(f.severity()));
    }
    Ok(match (args.fail_on, worst) {
        (Some(_), Health::Critical) => exit::FOUND_CRITICAL,
        (Some(FailOn::Warning), Health::Warning) => exit::FOUND_WARNING,
        _ => exit::OK,
    })
}

fn row(task: &TaskHealth, config: &Config) -> Value {
    let mut row = json!(task);
    let at = |at: Option<DateTime<Utc>>| at.map(|at| local(at, config.timezone));
    let reasons: Vec<String> = row["reasons"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|r| r.as_str().map(str::to_owned))
        .collect();
    row["task"] = json!(task.name);
    row["state_shown"] = json!(Lang::from(config.locale).state(task.state));
    row["last_success_local"] = json!(at(task.last_success));
    row["next_due_local"] = json!(at(task.next_due));
    let lang = Lang::from(config.locale);
    let now = Utc::now();
    row["last_success_ago"] = json!(task.last_success.map(|at| lang.ago(now - at)));
    row["next_due_in"] = json!(task.next_due.map(|at| lang.ago(now - at)));
    row["why"] = json!(reasons.join(", "));
    let shown: Vec<String> = task.reasons.iter().map(|r| lang.reason(*r, task)).collect();
    row["why_shown"] = json!(match (shown.is_empty(), task.awaited_until()) {
        (true, Some(due)) => lang.first_due(due.with_timezone(&config.timezone), now),
        _ => shown.join(lang.say("；", "; ")),
    });
    row
}

/// What to do about tasks that are not well, the worst first.
fn to_do(lang: Lang, tasks: &[TaskHealth]) -> String {
    const MOST: usize = 10;
    let unwell: Vec<&TaskHealth> = tasks
        .iter()
        .filter(|t| t.severity != Health::Healthy && !t.reasons.is_empty())
        .collect();
    let mut text = String::new();
    for task in unwell.iter().take(MOST) {
        let reasons: Vec<String> = task.reasons.iter().map(|r| lang.reason(*r, task)).collect();
        let remedy = task.reasons.last().map(|r| lang.remedy(*r, task));
        text.push_str(&format!(
            "  {} {}: {}\n    → {}\n",
            if task.severity == Health::Critical {
                "✕"
            } else {
                "▲"
            },
            printable(&task.title),
            reasons.join(lang.say("；", "; ")),
            remedy.unwrap_or_default(),
        ));
    }
    if unwell.len() > MOST {
        let more = unwell.len() - MOST;
        text.push_str(&lang.say(format!("  还有 {more} 个\n"), format!("  {more} more\n")));
    }
    text
}

/// The verdict below the table. Beside other formats only what is wrong with the watching is said, on stderr.
fn say(
    args: &Args,
    config: &Config,
    tasks: &[TaskHealth],
    watches: &[Watch],
    faults: &[Fault<'_>],
) -> Result<(), Failure> {
    let lang = Lang::from(config.locale);
    let words = |fault: &Fault<'_>| {
        let (title, remedy) = lang.watching(*fault);
        format!("{title}{}{remedy}", lang.say("；", "; "))
    };
    if args.format != Format::Table {
        for fault in faults {
            tracing::warn!("{}", words(fault));
        }
        return Ok(());
    }
    let count = |severity| tasks.iter().filter(|t| t.severity == severity).count();
    let (critical, warning) = (count(Health::Critical), count(Health::Warning));
    // What is silenced is not known to be well.
    let paused = tasks.iter().filter(|t| t.state == State::Paused).count();
    let well = tasks.len() - critical - warning - paused;
    let todo = to_do(lang, tasks);
    let mut text = lang.say(
        format!("\n{todo}故障 {critical}，注意 {warning}，正常 {well}"),
        format!("\n{todo}{critical} critical, {warning} with a warning, {well} well"),
    );
    if paused > 0 {
        text.push_str(&lang.say(format!("，静默 {paused}"), format!(", {paused} paused")));
    }
    for (what, name) in [("check", "oa-alert check"), ("due", "oa-crawl run --due")] {
        text.push_str(&match watch::newest(watches, what) {
            Some(last) => {
                let (ago, host) = (lang.short(last.age.max(0.0)), printable(&last.host));
                lang.say(
                    format!("；{name} 最近启动于 {ago}前（{host}）"),
                    format!("; {name} was last started {ago} ago ({host})"),
                )
            }
            None => lang.say(
                format!("；{name} 从未启动"),
                format!("; {name} was never started"),
            ),
        });
    }
    // In which zone times are, once for all tables.
    let now = Utc::now().with_timezone(&config.timezone);
    let (at, zone) = (now.format("%Y-%m-%d %H:%M:%S"), config.timezone.name());
    text.push_str(&lang.say(format!("；{at}（{zone}）"), format!("; {at} ({zone})")));
    text.push('\n');
    for fault in faults {
        text.push_str(&format!("{}\n", words(fault)));
        if let Fault::Failing(w) | Fault::NoHeartbeat(w) = fault {
            text.push_str(&format!("  {}\n", printable(&w.detail)));
        }
    }
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(())
}
