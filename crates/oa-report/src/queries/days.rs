//! What each source owes for each day, and what came: `oa.days`, as scheduled runs and backfills leave it. What is expected comes from
//! slots, so weekends, holidays and days before a source was added are no holes.

use std::collections::HashSet;

use chrono::{DateTime, Days, NaiveDate, Utc};
use oa_core::app::config::Config;
use postgres::fallible_iterator::FallibleIterator;
use postgres::types::ToSql;
use postgres::{GenericClient, Row};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Asked, Result, some_text};
use crate::shell::quoted;

/// So many days are shown when nobody says which.
pub(crate) const TWO_WEEKS: u64 = 14;
/// Longest span of one answer, in days.
pub(crate) const LONGEST: i64 = 400;
/// Most days of one answer, of all sources.
pub(crate) const MOST: i64 = 50_000;

/// A source's day.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct SourceDay {
    /// The source.
    pub(crate) task: String,
    /// Its title for people; its name when it has none.
    pub(crate) title: String,
    /// The day.
    pub(crate) day: NaiveDate,
    /// A slot of the source is for this day.
    pub(crate) expected: bool,
    /// pending, complete, partial, stale, failed, missing, unfetchable or skipped.
    pub(crate) state: String,
    /// It is expected and not complete, and its time is over.
    pub(crate) hole: bool,
    /// The run whose data stand for it.
    pub(crate) run_id: Option<Uuid>,
    /// When they came (UTC).
    pub(crate) collected_at: Option<DateTime<Utc>>,
    /// How many records.
    pub(crate) records: Option<i64>,
    /// Of a complete day: how many of them are not stored.
    pub(crate) rejected: i64,
    /// How many the site said there are.
    pub(crate) announced: Option<i64>,
    /// The median of the days before.
    pub(crate) usual: Option<i64>,
    /// By what its completeness is known: total, end, history.
    pub(crate) evidence: Option<String>,
    /// SHA-256 of its records.
    pub(crate) content: Option<String>,
    /// When people were first notified that it is not complete (UTC).
    pub(crate) reported_at: Option<DateTime<Utc>>,
    /// When it became complete after that (UTC).
    pub(crate) filled_at: Option<DateTime<Utc>>,
    /// Why it is a hole.
    pub(crate) reason: Option<String>,
    /// The command that fills it; null where the site cannot show that day (any more), and for what is no hole.
    pub(crate) fill: Option<String>,
}

/// How complete a span is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// Sources that have days within it.
    pub(crate) sources: usize,
    /// Days of sources whose time is over, without those that were skipped.
    pub(crate) expected: usize,
    /// Of these, complete ones.
    pub(crate) complete: usize,
    /// Of these, holes: partial, stale, failed, missing or unfetchable.
    pub(crate) holes: usize,
    /// Of these holes, those that the site cannot show any more.
    pub(crate) unfetchable: usize,
    /// Complete ones that were reported as holes before.
    pub(crate) filled: usize,
    /// Days whose time is not over.
    pub(crate) pending: usize,
}

impl Summary {
    pub(crate) fn of(days: &[SourceDay]) -> Self {
        let mut sum = Self {
            sources: days
                .iter()
                .map(|d| d.task.as_str())
                .collect::<HashSet<_>>()
                .len(),
            ..Self::default()
        };
        for day in days {
            sum.add(day);
        }
        sum
    }

    /// All but the number of sources.
    fn add(&mut self, day: &SourceDay) {
        if !day.expected {
            return;
        }
        match day.state.as_str() {
            "pending" => self.pending += 1,
            "skipped" => {}
            state => {
                self.expected += 1;
                self.complete += usize::from(state == "complete");
                self.holes += usize::from(day.hole);
                self.unfetchable += usize::from(state == "unfetchable");
                self.filled += usize::from(state == "complete" && day.filled_at.is_some());
            }
        }
    }
}

/// Days of a source one after the other that one command fills, or none does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Hole {
    pub(crate) task: String,
    pub(crate) title: String,
    pub(crate) from: NaiveDate,
    pub(crate) to: NaiveDate,
    pub(crate) days: usize,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    pub(crate) fill: Option<String>,
}

/// The holes among days that are ordered by task and day.
pub(crate) fn holes(days: &[SourceDay]) -> Vec<Hole> {
    let mut found: Vec<Hole> = Vec::new();
    let mut goes_on = false;
    for day in days.iter().filter(|d| d.expected) {
        if !day.hole {
            goes_on = false;
            continue;
        }
        match found.last_mut() {
            Some(last)
                if goes_on
                    && last.task == day.task
                    && last.state == day.state
                    && last.fill.is_some() == day.fill.is_some() =>
            {
                last.to = day.day;
                last.days += 1;
                last.fill = last
                    .fill
                    .is_some()
                    .then(|| backfill(&day.task, last.from, day.day));
                last.reason = day.reason.clone().or_else(|| last.reason.take());
            }
            _ => found.push(Hole {
                task: day.task.clone(),
                title: day.title.clone(),
                from: day.day,
                to: day.day,
                days: 1,
                state: day.state.clone(),
                reason: day.reason.clone(),
                fill: day.fill.clone(),
            }),
        }
        goes_on = true;
    }
    found
}

/// The command that collects these days.
pub(crate) fn backfill(task: &str, from: NaiveDate, to: NaiveDate) -> String {
    format!("oa-crawl backfill {} --from {from} --to {to}", quoted(task))
}

/// A run of a day may fail, and others of the same day are still to come: the open slots are read once, not once a day. Why a day is a hole, and
/// whether the site shows it (what is no source shows none), is looked up of holes alone: most days are none.
const BETWEEN: &str =
    "SELECT d.task, d.title, d.day, d.expected, d.state, d.run_id, d.collected_at, d.records, d.announced, d.usual, d.evidence, encode(d.content, 'hex'),
            d.reported_at, d.filled_at, d.hole,
            CASE WHEN d.hole THEN left(coalesce(
              (SELECT s.reason FROM oa.slots s WHERE s.task = d.task AND s.day = d.day AND s.state IN ('missed', 'unfetchable') AND s.reason <> ''
               ORDER BY s.due_at DESC LIMIT 1),
              (SELECT r.error_message FROM oa.runs r WHERE r.id = d.run_id LIMIT 1)), 8000) END,
            -- Every site shows its present day.
            d.hole AND d.collects AND (d.backfills OR d.day = (now() AT TIME ZONE $6::text)::date),
            CASE WHEN d.state = 'complete' THEN (SELECT count(*) FROM oa.rejects j WHERE j.run_id = d.run_id) ELSE 0 END
     FROM (SELECT d.*, d.expected AND d.state NOT IN ('pending', 'complete', 'skipped') AS hole
           FROM (SELECT d.task, coalesce(nullif(t.title, ''), d.task) AS title, d.day, d.expected,
                        CASE WHEN d.state IN ('partial', 'stale', 'failed', 'missing') AND (d.task, d.day) IN (
                               SELECT s.task, s.day FROM oa.slots s WHERE s.state = 'open' AND NOT s.again AND s.due_at > now())
                             THEN 'pending' ELSE d.state END AS state,
                        d.run_id, d.collected_at, d.records, d.announced, d.usual, d.evidence, d.content, d.reported_at, d.filled_at, t.collects, t.backfills
                 FROM oa.days d LEFT JOIN oa.tasks t ON t.name = d.task
                 WHERE d.day BETWEEN $1 AND $2 AND (d.task = ANY($3) OR cardinality($3::text[]) = 0 AND d.task <> ALL($4)
                   AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at))
                 ORDER BY d.task, d.day LIMIT $5) d) d
     ORDER BY d.task, d.day";

/// Gives the days of [`between`] one after the other to `each`, while PostgreSQL finds the next ones, and their sum; a year of many sources is
/// never in memory as a whole.
pub(crate) fn each_between(
    client: &mut impl GenericClient,
    config: &Config,
    tasks: &[String],
    (from, to): (NaiveDate, NaiveDate),
    limit: i64,
    mut each: impl FnMut(SourceDay),
) -> Result<Summary> {
    let (skip, zone) = (&config.crawl.skip, config.timezone.name());
    let parameters: [&(dyn ToSql + Sync); 6] = [&from, &to, &tasks, skip, &limit, &zone];
    let mut rows = client.query_raw(BETWEEN, parameters)?;
    let (mut sum, mut last) = (Summary::default(), String::new());
    while let Some(row) = rows.next()? {
        let day = source_day(&row);
        sum.add(&day);
        // They come by source.
        if sum.sources == 0 || day.task != last {
            sum.sources += 1;
            last.clone_from(&day.task);
        }
        each(day);
    }
    Ok(sum)
}

/// The days of these sources within a span, by source and day; of all that are not given up when none is named. At most `limit` of them.
pub(crate) fn between(
    client: &mut impl Asked,
    config: &Config,
    tasks: &[String],
    (from, to): (NaiveDate, NaiveDate),
    limit: i64,
) -> Result<Vec<SourceDay>> {
    let (skip, zone) = (&config.crawl.skip, config.timezone.name());
    let rows = client.query(BETWEEN, &[&from, &to, &tasks, skip, &limit, &zone])?;
    Ok(rows.iter().map(source_day).collect())
}

fn source_day(row: &Row) -> SourceDay {
    let (task, day, state): (String, NaiveDate, String) = (row.get(0), row.get(2), row.get(4));
    // A day without a task shows nothing.
    let is_shown = row.get::<_, Option<bool>>(16) == Some(true);
    SourceDay {
        fill: (is_shown && state != "unfetchable").then(|| backfill(&task, day, day)),
        task,
        title: row.get(1),
        day,
        expected: row.get(3),
        hole: row.get(14),
        state,
        run_id: row.get(5),
        collected_at: row.get(6),
        records: row.get(7),
        rejected: row.get(17),
        announced: row.get(8),
        usual: row.get(9),
        evidence: row.get(10),
        content: row.get(11),
        reported_at: row.get(12),
        filled_at: row.get(13),
        reason: some_text(row, 15),
    }
}

/// A source with holes that a command fills.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unfilled {
    pub(crate) task: String,
    pub(crate) title: String,
    pub(crate) days: i64,
    pub(crate) from: NaiveDate,
    pub(crate) to: NaiveDate,
}

/// The holes of the two weeks before today that a command fills, those of each source together, most days first.
pub(crate) fn unfilled(client: &mut impl Asked, config: &Config) -> Result<Vec<Unfilled>> {
    let two_weeks = i32::try_from(TWO_WEEKS).unwrap_or(14);
    let rows = client.query(
        "WITH today AS (SELECT (now() AT TIME ZONE $1::text)::date AS day)
         SELECT d.task, coalesce(nullif(t.title, ''), d.task), count(*), min(d.day), max(d.day)
         FROM oa.days d JOIN oa.tasks t ON t.name = d.task
         WHERE d.day >= (SELECT day FROM today) - $3::int AND d.day < (SELECT day FROM today) AND d.expected
           AND d.state IN ('partial', 'stale', 'failed', 'missing') AND t.collects AND t.backfills AND d.task <> ALL($2)
           AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at)
         GROUP BY d.task, t.title ORDER BY count(*) DESC, d.task",
        &[&config.timezone.name(), &config.crawl.skip, &two_weeks],
    )?;
    let unfilled = |row: &Row| Unfilled {
        task: row.get(0),
        title: row.get(1),
        days: row.get(2),
        from: row.get(3),
        to: row.get(4),
    };
    Ok(rows.iter().map(unfilled).collect())
}

/// What of a source's days metrics say.
#[derive(Debug, Clone)]
pub(crate) struct Newest {
    pub(crate) task: String,
    /// Its newest day whose time is over.
    pub(crate) state: String,
    pub(crate) day: NaiveDate,
    /// Holes of the last two weeks.
    pub(crate) holes: i64,
}

/// The newest day of each source whose time is over, and the holes of two weeks.
pub(crate) fn newest(
    client: &mut impl GenericClient,
    config: &Config,
    today: NaiveDate,
) -> Result<Vec<Newest>> {
    let rows = client.query(
        "SELECT d.task, (array_agg(d.state ORDER BY d.day DESC))[1], max(d.day),
                count(*) FILTER (WHERE d.state NOT IN ('complete', 'skipped'))
         FROM oa.days d LEFT JOIN oa.tasks t ON t.name = d.task
         WHERE d.day > $1 AND d.day <= $2 AND d.expected AND d.state <> 'pending' AND d.task <> ALL($3)
           AND (d.state IN ('complete', 'skipped', 'unfetchable')
                OR (d.task, d.day) NOT IN (SELECT s.task, s.day FROM oa.slots s WHERE s.state = 'open' AND NOT s.again AND s.due_at > now()))
           AND (t.forgotten_at IS NULL OR t.forgotten_at < t.last_started_at)
         GROUP BY d.task ORDER BY d.task",
        &[&(today - Days::new(TWO_WEEKS)), &today, &config.crawl.skip],
    )?;
    let newest = |row: &Row| Newest {
        task: row.get(0),
        state: row.get(1),
        day: row.get(2),
        holes: row.get(3),
    };
    Ok(rows.iter().map(newest).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(task: &str, day: u32, state: &str) -> SourceDay {
        let at = NaiveDate::from_ymd_opt(2025, 12, day).unwrap();
        let hole = !matches!(state, "pending" | "complete" | "skipped");
        SourceDay {
            task: task.to_owned(),
            title: task.to_owned(),
            day: at,
            expected: true,
            state: state.to_owned(),
            hole,
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
            fill: (hole && state != "unfetchable").then(|| backfill(task, at, at)),
        }
    }

    #[test]
    fn holes_beside_each_other_are_filled_by_one_command() {
        let days = [
            day("a", 1, "complete"),
            day("a", 2, "missing"),
            // The third was no trading day.
            day("a", 4, "missing"),
            day("a", 5, "failed"),
            day("a", 8, "complete"),
            day("a", 9, "missing"),
            day("it's", 9, "missing"),
            day("z", 9, "unfetchable"),
        ];
        let found: Vec<(String, usize, Option<String>)> = holes(&days)
            .into_iter()
            .map(|h| (h.state, h.days, h.fill))
            .collect();
        let fill = |text: &str| Some(format!("oa-crawl backfill {text}"));
        assert_eq!(
            found,
            [
                (
                    "missing".to_owned(),
                    2,
                    fill("a --from 2025-12-02 --to 2025-12-04")
                ),
                (
                    "failed".to_owned(),
                    1,
                    fill("a --from 2025-12-05 --to 2025-12-05")
                ),
                (
                    "missing".to_owned(),
                    1,
                    fill("a --from 2025-12-09 --to 2025-12-09")
                ),
                (
                    "missing".to_owned(),
                    1,
                    fill("'it'\\''s' --from 2025-12-09 --to 2025-12-09")
                ),
                ("unfetchable".to_owned(), 1, None),
            ]
        );
        let sum = Summary::of(&days);
        assert_eq!(
            (
                sum.sources,
                sum.expected,
                sum.complete,
                sum.holes,
                sum.unfetchable
            ),
            (3, 8, 2, 6, 1)
        );
    }
}
