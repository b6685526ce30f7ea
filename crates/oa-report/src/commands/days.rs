//! `oa-report days`: for each source and day what was owed, what came, and what fills the holes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use anyhow::anyhow;
use chrono::{Days, NaiveDate, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing, terminal_width};
use oa_core::base::text::{cut, printable};
use postgres::Client;
use serde_json::json;

use super::{failed, local, no_task, task_names};
use crate::lang::Lang;
use crate::queries::days::{Hole, SourceDay, Summary, TWO_WEEKS, between, each_between, holes};
use crate::{pool, when};

/// For each source and day: what was owed, what came, and what fills the holes
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A day is complete, partial, stale (the content of another day), failed, missing (nothing ran), unfetchable (the site cannot show it any more), pending (its time is not over) or skipped. What is expected comes from schedules, trading days and sessions as they were then. All but complete, pending and skipped are holes; the command that fills each one is below the table.\nA DAY is 2025-12-01, today or yesterday.\nWith --fail-on hole the exit code is 10 if there is one.\n\nExamples:\n  oa-report days\n  oa-report days zhihui-full-view --from 2025-11-01 --to 2025-11-30\n  oa-report days --format json --fail-on hole"
)]
pub(crate) struct Args {
    /// Show only these sources
    #[arg(value_name = "SOURCE")]
    sources: Vec<String>,
    /// The first day [default: two weeks up to the last one]
    #[arg(long, value_name = "DAY")]
    from: Option<String>,
    /// The last day [default: today]
    #[arg(long, value_name = "DAY")]
    to: Option<String>,
    /// Exit with 10 if there is one
    #[arg(long, value_enum, value_name = "WHAT")]
    fail_on: Option<FailOn>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum FailOn {
    /// A day that is expected and not complete
    Hole,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let span = span(args, config)?;
    let mut client = pool::connect_read_only(config)?;
    if !args.sources.is_empty() {
        let names = task_names(&mut client)?;
        if let Some(wrong) = args.sources.iter().find(|s| !names.contains(s)) {
            return Err(Failure::new(exit::USAGE, no_task(wrong, &names)));
        }
    }
    let found = if args.format == Format::Json {
        as_json(&mut client, config, &args.sources, span)?
    } else {
        let days = between(&mut client, config, &args.sources, span, i64::MAX)
            .map_err(|e| not_read(&e))?;
        if args.format == Format::Table {
            let lang = Lang::from(config.locale);
            let table = as_table(lang, &days, span, terminal_width());
            cli::print(&table).map_err(anyhow::Error::from)?;
        } else {
            as_list(&days, config, args.format)?;
        }
        days.iter().any(|d| d.hole)
    };
    Ok(match args.fail_on {
        Some(FailOn::Hole) if found => exit::FOUND_WARNING,
        _ => exit::OK,
    })
}

fn not_read(error: &postgres::Error) -> Failure {
    failed(error, "could not read the days")
}

fn span(args: &Args, config: &Config) -> Result<(NaiveDate, NaiveDate), Failure> {
    let now = Utc::now();
    let read = |text: &Option<String>, flag: &str| match text {
        None => Ok(None),
        Some(text) => when::day(text, now, config.timezone)
            .map(Some)
            .ok_or_else(|| {
                format!("{flag}: \"{text}\" is no day; write 2025-12-01, today or yesterday")
            }),
    };
    let days = || {
        let to = read(&args.to, "--to")?
            .unwrap_or_else(|| now.with_timezone(&config.timezone).date_naive());
        let from = read(&args.from, "--from")?.unwrap_or(to - Days::new(TWO_WEEKS - 1));
        if from > to {
            return Err(format!("--from {from} is after --to {to}"));
        }
        Ok((from, to))
    };
    days().map_err(|e: String| Failure::new(exit::USAGE, anyhow!(e)))
}

/// One object a line. Gives whether there is a hole. PostgreSQL does not wait for whoever reads it.
fn as_json(
    client: &mut Client,
    config: &Config,
    sources: &[String],
    span: (NaiveDate, NaiveDate),
) -> Result<bool, Failure> {
    let (mut text, mut found) = (Vec::new(), false);
    each_between(client, config, sources, span, i64::MAX, |day| {
        found |= day.hole;
        // A vector takes everything, and a day has no keys that JSON could not hold.
        let _ = serde_json::to_writer(&mut text, &day);
        text.push(b'\n');
    })
    .map_err(|e| not_read(&e))?;
    let mut out = io::stdout().lock();
    match out.write_all(&text).and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => Err(anyhow::Error::from(e).into()),
        _ => Ok(found),
    }
}

fn as_list(days: &[SourceDay], config: &Config, format: Format) -> Result<(), Failure> {
    let mut listing = Listing::new(
        &[
            "day",
            "task",
            "title",
            "state",
            "expected",
            "records",
            "rejected",
            "announced",
            "usual",
            "evidence",
            "collected",
            "reported",
            "filled",
            "reason",
            "fill",
        ]
        .map(|key| (key, key)),
    );
    for day in days {
        let at = |at: Option<chrono::DateTime<Utc>>| at.map(|at| local(at, config.timezone));
        let mut row = json!(day);
        row["collected"] = json!(at(day.collected_at));
        row["reported"] = json!(at(day.reported_at));
        row["filled"] = json!(at(day.filled_at));
        listing.push(row);
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(())
}

/// One sign a day, each as wide as one cell everywhere.
fn sign(day: &SourceDay) -> char {
    match day.state.as_str() {
        // Where nothing is owed, only what came is of interest.
        state if !day.expected && state != "complete" => ' ',
        "complete" if day.filled_at.is_some() => '+',
        "complete" => '✓',
        "partial" => '%',
        "stale" => '=',
        "failed" => '✗',
        "missing" => '!',
        "unfetchable" => '#',
        "pending" => '.',
        _ => '-',
    }
}

const SIGNS: [(char, &str, &str); 9] = [
    ('✓', "完整", "complete"),
    ('+', "后来补齐", "filled later"),
    ('%', "不完整", "partial"),
    ('=', "与前日相同", "stale"),
    ('✗', "失败", "failed"),
    ('!', "未采集", "missing"),
    ('#', "无法补采", "unfetchable"),
    ('.', "未到时间", "pending"),
    ('-', "跳过", "skipped"),
];

/// So many days stand beside each other; fewer on a terminal that is too narrow for them.
const BESIDE: usize = 31;
/// No terminal is too narrow for a week.
const WEEK: usize = 7;
/// Cells of a day.
const CELLS: usize = 3;

/// `screen`: how wide the terminal is, if it is one. Titles stand behind the days where there is room for all of them.
fn as_table(
    lang: Lang,
    days: &[SourceDay],
    (from, to): (NaiveDate, NaiveDate),
    screen: Option<usize>,
) -> String {
    if days.is_empty() {
        return lang.say(
            format!("{from} 至 {to} 没有任何采集日；数据源启用并运行 oa-crawl run --due 后会出现在这里\n"),
            format!("no source owes anything from {from} to {to}; days appear once sources are enabled and oa-crawl run --due has run\n"),
        );
    }
    let columns: BTreeSet<NaiveDate> = days.iter().map(|d| d.day).collect();
    let columns: Vec<NaiveDate> = columns.into_iter().collect();
    let mut rows: BTreeMap<&str, (&str, BTreeMap<NaiveDate, char>)> = BTreeMap::new();
    for day in days {
        let row = rows
            .entry(&day.task)
            .or_insert_with(|| (&day.title, BTreeMap::new()));
        row.1.insert(day.day, sign(day));
    }
    let width = rows.keys().map(|name| cells(name)).max().unwrap_or(0);
    let beside = screen.map_or(BESIDE, |screen| {
        (screen.saturating_sub(width) / CELLS).clamp(WEEK, BESIDE)
    });
    let longest = rows.values().map(|(title, _)| cells(title)).max();
    let needed = width + CELLS * beside.min(columns.len()) + 2;
    let titled = screen.is_none_or(|screen| needed + longest.unwrap_or(0) <= screen);
    let mut text = String::new();
    for block in columns.chunks(beside) {
        if !text.is_empty() {
            text.push('\n');
        }
        let mut months = " ".repeat(width);
        let mut numbers = " ".repeat(width);
        let mut before = None;
        for day in block {
            let month = day.format("%m").to_string();
            let is_new = before.replace(month.clone()) != Some(month.clone());
            months.push_str(&format!(" {}", if is_new { month.as_str() } else { "  " }));
            numbers.push_str(&day.format(" %d").to_string());
        }
        text.push_str(&format!("{}\n{numbers}\n", months.trim_end()));
        for (name, (title, of)) in &rows {
            let mut line = printable(name);
            line.push_str(&" ".repeat(width.saturating_sub(cells(name))));
            for day in block {
                line.push_str(&format!("  {}", of.get(day).copied().unwrap_or(' ')));
            }
            if titled && title != name {
                line.push_str(&format!("  {}", printable(title)));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text.push('\n');
    let used: BTreeSet<char> = days.iter().map(sign).collect();
    let legend: Vec<String> = SIGNS
        .iter()
        .filter(|(sign, ..)| used.contains(sign))
        .map(|(sign, zh, en)| format!("{sign} {}", lang.say(zh, en)))
        .collect();
    text.push_str(&format!("{}\n", legend.join("  ")));
    text.push_str(&format!("{}\n", verdict(lang, &Summary::of(days))));
    for hole in holes(days) {
        text.push_str(&format!("{}\n", in_words(lang, &hole)));
    }
    for day in days.iter().filter(|d| d.rejected > 0) {
        text.push_str(&format!("{}\n", not_stored(lang, day)));
    }
    text
}

/// What a complete day lacks all the same.
fn not_stored(lang: Lang, of: &SourceDay) -> String {
    let (day, task, n) = (of.day, printable(&of.task), of.rejected);
    let records = of.records.unwrap_or(n);
    let run = of.run_id.unwrap_or_default();
    lang.say(
        format!("{day}  {task}  {records} 条中有 {n} 条没有入库\n    oa-report logs --run {run}"),
        format!("{day}  {task}  {n} of {records} records were not stored\n    oa-report logs --run {run}"),
    )
}

/// How complete the days are, in one line.
pub(crate) fn verdict(lang: Lang, sum: &Summary) -> String {
    let mut text = match (sum.holes, lang.say(true, false)) {
        (0, true) => format!("{} 个数据源应采 {} 天，全部完整", sum.sources, sum.expected),
        (0, false) => format!(
            "{} sources, {} days owed: all complete",
            sum.sources, sum.expected
        ),
        (n, true) => format!(
            "{} 个数据源应采 {} 天，完整 {} 天，缺 {n} 天",
            sum.sources, sum.expected, sum.complete
        ),
        (n, false) => format!(
            "{} sources, {} days owed: {} complete, {n} holes",
            sum.sources, sum.expected, sum.complete
        ),
    };
    let mut add = |count: usize, zh: &str, en: &str| {
        if count > 0 {
            text.push_str(&lang.say(format!("，{zh} {count} 天"), format!(", {count} {en}")));
        }
    };
    add(sum.unfetchable, "其中无法补采", "of them unfetchable");
    add(sum.filled, "后来补齐", "filled later");
    add(sum.pending, "未到时间", "pending");
    text
}

fn in_words(lang: Lang, hole: &Hole) -> String {
    let when = if hole.from == hole.to {
        hole.from.to_string()
    } else {
        lang.say(
            format!("{} 至 {}（{} 天）", hole.from, hole.to, hole.days),
            format!("{} to {} ({} days)", hole.from, hole.to, hole.days),
        )
    };
    let mut text = format!(
        "{when}  {}  {}",
        printable(&hole.task),
        lang.day_state(&hole.state)
    );
    if let Some(reason) = &hole.reason {
        text.push_str(&format!(
            "  {}",
            cut(&printable(lang.slot_reason(reason)), 160)
        ));
    }
    if let Some(fill) = &hole.fill {
        text.push_str(&format!("\n    {}", printable(fill)));
    }
    text
}

/// How many cells of a terminal a name takes.
fn cells(name: &str) -> usize {
    printable(name)
        .chars()
        .map(|c| if c as u32 >= 0x1100 { 2 } else { 1 })
        .sum()
}

#[cfg(test)]
mod tests {
    use oa_core::app::config::Locale;

    use super::*;

    #[test]
    fn a_table_is_no_wider_than_its_terminal() {
        let first = NaiveDate::from_ymd_opt(2025, 12, 1).unwrap();
        let days: Vec<SourceDay> = first
            .iter_days()
            .take(31)
            .map(|day| SourceDay {
                task: "jiaoyikecha-positions".to_owned(),
                title: "交易可查-席位持仓".to_owned(),
                day,
                expected: true,
                state: "complete".to_owned(),
                hole: false,
                run_id: None,
                collected_at: None,
                records: None,
                rejected: 0,
                announced: None,
                usual: None,
                evidence: None,
                content: None,
                reported_at: None,
                filled_at: None,
                reason: None,
                fill: None,
            })
            .collect();
        let span = (first, days[30].day);
        let table = |screen| as_table(Lang::from(Locale::Zh), &days, span, screen);
        // The lines of the sources: the rest may be as long as it likes.
        let rows = |table: &str| -> Vec<usize> {
            let rows = table
                .lines()
                .filter(|l| l.contains('✓') && l.contains("jiaoyi"));
            rows.map(|row| cells(&row.replace('✓', "x"))).collect()
        };
        let narrow = table(Some(80));
        assert_eq!(rows(&narrow), [78, 57], "{narrow}");
        assert!(!narrow.contains("席位持仓"), "{narrow}");
        for screen in [None, Some(200)] {
            let wide = table(screen);
            assert_eq!(rows(&wide), [133], "{wide}");
        }
    }

    #[test]
    fn signs_are_one_cell_and_differ() {
        let all: BTreeSet<char> = SIGNS.iter().map(|(sign, ..)| *sign).collect();
        assert_eq!(all.len(), SIGNS.len());
        assert_eq!(cells("多空a"), 5);
    }
}
