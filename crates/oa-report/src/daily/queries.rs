//! What the daily report asks PostgreSQL. Ids of runs are ordered by their start, so a span of time is a span of ids.
//!
//! A run belongs to the report within whose span it ended: each is in just one, also one that is under way when a report is sent. One
//! that takes longer than a day is in none, to keep the span of ids short.

use chrono::{DateTime, NaiveDate, Utc};
use oa_core::journal::incidents;
use oa_core::model::Severity;
use oa_wording::Wording;
use postgres::{Row, Transaction};
use uuid::Uuid;

use super::{NotStored, OpenIncident, TASK, Task};
use crate::queries::some_text;

type Result<T> = std::result::Result<T, postgres::Error>;

fn number(row: &Row, column: usize) -> u64 {
    row.get::<_, i64>(column).unsigned_abs()
}

pub(super) fn tasks(
    tx: &mut Transaction<'_>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<Vec<Task>> {
    let rows = tx.query(
        "WITH ended AS (
           SELECT * FROM oa.runs WHERE started_at >= $1::timestamptz - interval '1 day' AND started_at < $2
             AND finished_at >= $1 AND finished_at < $2 AND status <> 'skipped' AND trigger <> 'backfill' AND task <> $3),
         gaps AS (
           SELECT task, max(gap) AS gap FROM (
             SELECT task, extract(epoch FROM started_at - lag(started_at) OVER (PARTITION BY task ORDER BY started_at))::float8 AS gap
             FROM ended WHERE status = 'success') g GROUP BY task)
         SELECT e.task, coalesce(nullif(t.title, ''), e.task), count(*),
                count(*) FILTER (WHERE e.status = 'success'), count(*) FILTER (WHERE e.status = 'partial'),
                count(*) FILTER (WHERE e.status IN ('failed', 'timeout', 'abandoned')),
                sum(e.inserted)::bigint, sum(e.updated)::bigint, sum(e.rejected)::bigint,
                max(extract(epoch FROM e.finished_at - e.started_at))::float8, g.gap,
                (array_agg(left(e.error_message, 8000) ORDER BY e.seq DESC) FILTER (WHERE e.status <> 'success'))[1],
                (array_agg(e.status ORDER BY e.seq DESC))[1], lost.id, lost.rejected, lost.fetched,
                (SELECT concat_ws(' ', r.source_key, r.field, r.reason) FROM oa.rejects r WHERE r.run_id = lost.id ORDER BY r.seq LIMIT 1)
         FROM ended e LEFT JOIN oa.tasks t ON t.name = e.task LEFT JOIN gaps g ON g.task = e.task
           LEFT JOIN (SELECT DISTINCT ON (task) task, id, rejected, fetched FROM ended WHERE rejected > 0 ORDER BY task, seq DESC) lost ON lost.task = e.task
         GROUP BY e.task, t.title, g.gap, lost.id, lost.rejected, lost.fetched
         ORDER BY count(*) FILTER (WHERE e.status NOT IN ('success', 'partial')) > 0 DESC,
                  count(*) FILTER (WHERE e.status = 'partial') > 0 DESC, e.task",
        &[&from, &until, &TASK],
    )?;
    let task = |row: &Row| Task {
        name: row.get(0),
        title: row.get(1),
        runs: number(row, 2),
        success: number(row, 3),
        partial: number(row, 4),
        failed: number(row, 5),
        inserted: number(row, 6),
        updated: number(row, 7),
        rejected: number(row, 8),
        slowest_seconds: row.get(9),
        worst_gap_seconds: row.get(10),
        last_error: row.get(11),
        last_status: row.get(12),
        not_stored: row.get::<_, Option<Uuid>>(13).map(|run_id| NotStored {
            run_id,
            records: number(row, 14),
            of: number(row, 15),
            first: some_text(row, 16),
        }),
    };
    Ok(rows.iter().map(task).collect())
}

pub(super) fn without_run(
    tx: &mut Transaction<'_>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
    skip: &[String],
) -> Result<Vec<String>> {
    let rows = tx.query(
        "SELECT coalesce(nullif(t.title, ''), t.name) FROM oa.tasks t WHERE t.schedule IS NOT NULL AND t.name <> ALL($3)
           AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = t.name
                             AND r.started_at >= $1::timestamptz - interval '1 day' AND r.started_at < $2
                             AND (r.finished_at IS NULL OR r.finished_at >= $1)
                             AND r.status <> 'skipped' AND r.trigger <> 'backfill') ORDER BY t.name",
        &[&from, &until, &skip],
    )?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// Incidents that are open, or of a time that is over were open then: alerts keep what was reported.
pub(super) fn open(
    tx: &mut Transaction<'_>,
    wording: &Wording,
    past: Option<DateTime<Utc>>,
) -> Result<Vec<OpenIncident>> {
    let rows = match past {
        None => tx.query(
            "SELECT i.opened_at, i.acknowledged_by, i.rule, i.fingerprint, a.event, a.title, a.body, i.severity
             FROM oa.incidents i LEFT JOIN oa.alerts a ON a.id = i.last_alert WHERE i.resolved_at IS NULL ORDER BY i.opened_at, i.fingerprint",
            &[],
        )?,
        Some(then) => tx.query(
            "SELECT CASE WHEN i.opened_at <= $1 THEN i.opened_at ELSE a.created_at END AS since,
                    CASE WHEN i.opened_at <= $1 AND i.acknowledged_at <= $1 THEN i.acknowledged_by END, a.rule, a.fingerprint, a.event, a.title, a.body, a.severity
             FROM (SELECT DISTINCT ON (fingerprint) * FROM oa.alerts WHERE created_at <= $1 AND kind IN ('problem', 'recovery')
                   ORDER BY fingerprint, seq DESC) a
             LEFT JOIN oa.incidents i ON i.fingerprint = a.fingerprint
             WHERE a.kind = 'problem' AND NOT coalesce(i.opened_at <= a.created_at AND i.resolved_at <= $1, false)
             ORDER BY since, a.fingerprint",
            &[&then],
        )?,
    };
    let open = |row: &Row| OpenIncident {
        fingerprint: row.get(3),
        severity: Severity::parse(row.get(7)),
        title: wording
            .text(&incidents::event_of(row, 4, row.get(2), row.get(3)))
            .title,
        since: row.get(0),
        acknowledged_by: row.get(1),
    };
    Ok(rows.iter().map(open).collect())
}

/// How often tasks ran within a span, and how often well.
pub(super) fn counts(
    tx: &mut Transaction<'_>,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
) -> Result<(Vec<Task>, u64, u64)> {
    let tasks = tasks(tx, from, until)?;
    let sum = |of: fn(&Task) -> u64| tasks.iter().map(of).sum();
    let (runs, success) = (sum(|t| t.runs), sum(|t| t.success));
    Ok((tasks, runs, success))
}

pub(super) fn database_bytes(tx: &mut Transaction<'_>) -> Result<u64> {
    let row = tx.query_one("SELECT pg_database_size(current_database())", &[])?;
    Ok(number(&row, 0))
}

/// What the last report before that day noted.
pub(super) fn database_bytes_before(
    tx: &mut Transaction<'_>,
    day: NaiveDate,
) -> Result<Option<u64>> {
    let row = tx.query_opt(
        "SELECT (details ->> 'database_bytes')::bigint FROM oa.runs
         WHERE task = $1 AND status = 'success' AND details ->> 'day' < $2::text ORDER BY seq DESC LIMIT 1",
        &[&TASK, &day.to_string()],
    )?;
    Ok(row
        .and_then(|r| r.get::<_, Option<i64>>(0))
        .map(i64::unsigned_abs))
}

/// From the sizes that the reports of the last 30 days have noted, and the size now.
pub(super) fn database_growth_per_day(tx: &mut Transaction<'_>) -> Result<Option<f64>> {
    let row = tx.query_opt(
        "SELECT pg_database_size(current_database()) - (details ->> 'database_bytes')::bigint,
                (extract(epoch FROM now() - started_at) / 86400)::float8
         FROM oa.runs WHERE task = $1 AND status = 'success' AND details ? 'database_bytes'
           AND started_at >= now() - interval '30 days' ORDER BY seq LIMIT 1",
        &[&TASK],
    )?;
    Ok(row.and_then(|r| {
        let (grown, days): (i64, f64) = (r.get(0), r.get(1));
        (days >= 2.0).then(|| grown as f64 / days)
    }))
}
