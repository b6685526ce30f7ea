//! Pages of the run log, newest first. A page continues before a run, so that new runs shift nothing and a late page costs what the
//! first one costs.

use chrono::{DateTime, Utc};
use oa_core::base::mistakes::nearest;
use postgres::types::ToSql;
use postgres::{GenericClient, Row};
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::{Result, number, some_text};

pub(crate) const STATUSES: [&str; 8] = [
    "running",
    "retrying",
    "success",
    "partial",
    "failed",
    "timeout",
    "skipped",
    "abandoned",
];
/// How runs end that need somebody's attention.
pub(crate) const NOT_OK: [&str; 4] = ["partial", "failed", "timeout", "abandoned"];

/// The statuses that a text names: some of them with commas between, `!` before one for all others, `not-ok` for all ends that are not
/// good.
pub(crate) fn statuses(text: &str) -> std::result::Result<Vec<&'static str>, String> {
    let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
    for word in text.split(',').map(str::trim) {
        let bare = word.strip_prefix('!').unwrap_or(word);
        let named = if word == bare {
            &mut wanted
        } else {
            &mut unwanted
        };
        if bare == "not-ok" {
            named.extend(NOT_OK);
            continue;
        }
        let Some(status) = STATUSES.into_iter().find(|s| *s == bare) else {
            let all = STATUSES.into_iter().chain(["not-ok"]);
            return Err(format!(
                "there is no status \"{bare}\"{}",
                nearest(bare, all)
            ));
        };
        named.push(status);
    }
    if wanted.is_empty() {
        wanted.extend(STATUSES);
    }
    wanted.retain(|s| !unwanted.contains(s));
    if wanted.is_empty() {
        return Err(format!("\"{text}\" leaves no status"));
    }
    Ok(STATUSES
        .into_iter()
        .filter(|s| wanted.contains(s))
        .collect())
}

/// Most entries of one page.
pub(crate) const MOST: u16 = 500;

#[derive(Debug, Clone, Default)]
pub(crate) struct Filter {
    pub(crate) task: Option<String>,
    /// With one of these; all when there is none.
    pub(crate) statuses: Vec<&'static str>,
    /// That started at this time or later (UTC).
    pub(crate) since: Option<DateTime<Utc>>,
    /// That started before this time (UTC).
    pub(crate) until: Option<DateTime<Utc>>,
    /// That come after this one in the list.
    pub(crate) before: Option<Uuid>,
    /// That started after this one: for following the run log.
    pub(crate) after: Option<Uuid>,
    pub(crate) limit: u16,
}

/// One run, under the names of the service's own plan.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub(crate) struct Entry {
    /// The run.
    pub(crate) id: Uuid,
    /// Its task.
    pub(crate) task_name: String,
    /// How it ended, or `running` or `retrying`.
    pub(crate) status: String,
    /// When it started (UTC).
    pub(crate) start_time: DateTime<Utc>,
    /// When it ended (UTC); null while it runs.
    pub(crate) end_time: Option<DateTime<Utc>>,
    /// How long it took, in seconds; null while it runs.
    pub(crate) duration: Option<f64>,
    /// Records that came and were good.
    pub(crate) records: u64,
    /// What was wrong.
    pub(crate) error: Option<String>,
    /// Attempts after the first one.
    pub(crate) retry_count: u32,
    /// Rows that were not there before.
    pub(crate) inserted: u64,
    /// Rows that were there with other values.
    pub(crate) updated: u64,
    /// Records that were not stored.
    pub(crate) rejected: u64,
    /// Who started it: cron, manual, due, backfill.
    pub(crate) trigger: String,
    /// The machine.
    pub(crate) host: String,
}

pub(super) const COLUMNS: &str = "r.id, r.task, r.status, r.started_at, r.finished_at, extract(epoch FROM r.finished_at - r.started_at)::float8,
    greatest(r.fetched - r.rejected, 0), left(r.error_message, 8000), greatest(r.attempts - 1, 0), r.inserted, r.updated, r.rejected, r.trigger, r.host";

pub(super) fn entry(row: &Row) -> Entry {
    Entry {
        id: row.get(0),
        task_name: row.get(1),
        status: row.get(2),
        start_time: row.get(3),
        end_time: row.get(4),
        duration: row.get(5),
        records: number(row, 6),
        error: some_text(row, 7),
        retry_count: row.get::<_, i32>(8).unsigned_abs(),
        inserted: number(row, 9),
        updated: number(row, 10),
        rejected: number(row, 11),
        trigger: row.get(12),
        host: row.get(13),
    }
}

/// A page, newest first, and the id before which the next one begins; `None` when this is the last.
pub(crate) fn page(
    client: &mut impl GenericClient,
    filter: &Filter,
) -> Result<(Vec<Entry>, Option<Uuid>)> {
    // Conditions that are not asked for are not there: each combination has a plan of its own.
    let mut conditions = vec!["true".to_owned()];
    let mut values: Vec<&(dyn ToSql + Sync)> = Vec::new();
    macro_rules! condition {
        ($value:expr, $text:literal) => {
            if let Some(value) = &$value {
                values.push(value);
                conditions.push(format!($text, values.len()));
            }
        };
    }
    condition!(filter.task, "r.task = ${}");
    condition!(filter.since, "r.started_at >= ${}");
    condition!(filter.until, "r.started_at < ${}");
    condition!(
        filter.before,
        "(r.started_at, r.seq) < (SELECT b.started_at, b.seq FROM oa.runs b WHERE b.id = ${})"
    );
    condition!(
        filter.after,
        "(r.started_at, r.seq) > (SELECT b.started_at, b.seq FROM oa.runs b WHERE b.id = ${})"
    );
    let one_more = i64::from(filter.limit) + 1;
    values.push(&one_more);
    let (conditions, limit) = (conditions.join(" AND "), values.len());
    // Each status by itself comes out of an index, newest first, however rare it is.
    let one = |and: &str| {
        format!(
            "SELECT {COLUMNS}, r.seq FROM oa.runs r WHERE {conditions}{and} ORDER BY r.started_at DESC, r.seq DESC LIMIT ${limit}"
        )
    };
    for status in &filter.statuses {
        values.push(status);
    }
    let each: Vec<String> = (0..filter.statuses.len())
        .map(|n| format!("({})", one(&format!(" AND r.status = ${}", limit + 1 + n))))
        .collect();
    let question = match each.as_slice() {
        [] => one(""),
        [only] => only.clone(),
        several => format!(
            "SELECT * FROM ({}) x ORDER BY started_at DESC, seq DESC LIMIT ${limit}",
            several.join(" UNION ALL ")
        ),
    };
    let rows = client.query(&question, &values)?;
    let mut entries: Vec<Entry> = rows.iter().map(entry).collect();
    let more = entries.len() > usize::from(filter.limit);
    entries.truncate(usize::from(filter.limit));
    let next = entries.last().map(|e| e.id).filter(|_| more);
    Ok((entries, next))
}

/// Runs by their ids, oldest first: for following those that had not ended.
pub(crate) fn by_id(client: &mut impl GenericClient, ids: &[Uuid]) -> Result<Vec<Entry>> {
    let rows = client.query(
        &format!(
            "SELECT {COLUMNS} FROM oa.runs r WHERE r.id = ANY($1) ORDER BY r.started_at, r.seq"
        ),
        &[&ids],
    )?;
    Ok(rows.iter().map(entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_statuses_can_be_named_or_left_out() {
        for (text, found) in [
            ("failed", vec!["failed"]),
            ("timeout,failed", vec!["failed", "timeout"]),
            ("not-ok", vec!["partial", "failed", "timeout", "abandoned"]),
            ("not-ok,!partial", vec!["failed", "timeout", "abandoned"]),
            ("!success, !skipped", {
                let mut all = STATUSES.to_vec();
                all.retain(|s| !["success", "skipped"].contains(s));
                all
            }),
        ] {
            assert_eq!(statuses(text).unwrap(), found, "{text}");
        }
        assert!(
            statuses("success,!success")
                .unwrap_err()
                .contains("leaves no")
        );
        for wrong in ["fialed", "", "failed,", "!"] {
            assert!(
                statuses(wrong).unwrap_err().contains("there is no status"),
                "{wrong}"
            );
        }
    }
}
