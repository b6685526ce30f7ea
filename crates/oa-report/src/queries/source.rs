//! What a source has stored: its newest rows, and how many of each variety.

use chrono::{DateTime, Utc};
use oa_core::base::secrets::redact;
use oa_core::pg::quote_ident;
use postgres::{GenericClient, Transaction};

use super::Result;
use super::revisions::{self, Table};
use crate::shell::quoted;

/// So many rows and varieties are shown.
const ROWS: i64 = 10;
const VARIETIES: i64 = 60;
/// So many columns; a row in full is `why`'s.
const COLUMNS: usize = 10;
/// So many characters of a value.
const CUT: usize = 200;

/// What is known of a source besides its runs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    /// Where it stores.
    pub(crate) table: Option<String>,
    /// SHA-256 of its file, as its last run had it.
    pub(crate) source_sha256: Option<String>,
    /// `all`, `trading` or `night`.
    pub(crate) days: String,
    pub(crate) sessions: Vec<String>,
    /// When it is due next.
    pub(crate) due: Vec<DateTime<Utc>>,
}

/// The newest rows of a table.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) table: String,
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Row>,
    /// The newest day.
    pub(crate) day: Option<String>,
    /// Each variety of that day with its number of rows.
    pub(crate) varieties: Vec<(String, i64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) values: Vec<Option<String>>,
    /// The command that shows what it was before.
    pub(crate) why: Option<String>,
}

pub(crate) fn facts(client: &mut impl GenericClient, task: &str) -> Result<Facts> {
    let Some(row) = client.query_opt(
        "SELECT r.details ->> 'table', r.details ->> 'source_sha256', t.days, t.sessions,
                ARRAY(SELECT s.due_at FROM oa.slots s WHERE s.task = t.name AND s.state = 'open' AND s.due_at > now() ORDER BY s.due_at LIMIT 3)
         FROM oa.tasks t LEFT JOIN LATERAL (
           SELECT details FROM oa.runs r WHERE r.task = t.name AND r.status <> 'skipped' ORDER BY r.seq DESC LIMIT 1) r ON true
         WHERE t.name = $1",
        &[&task],
    )?
    else {
        return Ok(Facts::default());
    };
    Ok(Facts {
        table: row.get(0),
        source_sha256: row.get(1),
        days: row.get::<_, Option<String>>(2).unwrap_or_default(),
        sessions: row.get::<_, Option<Vec<String>>>(3).unwrap_or_default(),
        due: row.get(4),
    })
}

/// What is in its table; `None` when there is no such table. A table that takes too long is an error, and so is one that the role may not
/// read.
pub(crate) fn stored(tx: &mut Transaction<'_>, named: &str) -> Result<Option<Stored>> {
    tx.batch_execute("SET LOCAL statement_timeout = '3s'")?;
    let tables = revisions::tables(tx)?;
    let Some(table) = tables
        .iter()
        .find(|t| t.shown() == named || t.name == named)
    else {
        return Ok(None);
    };
    let rows = tx.query(
        "SELECT attname::text, atttypid = 'date'::regtype, atttypid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype)
         FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        &[&table.quoted()],
    )?;
    let columns: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
    let is = |name: &str, what: usize| {
        rows.iter()
            .any(|r| r.get::<_, &str>(0) == name && r.get::<_, bool>(what))
    };
    let keys = revisions::keys(tx, table)?;
    let key: Vec<&str> = keys
        .iter()
        .map(|parts| parts.iter().map(|p| p.name.as_str()).collect::<Vec<_>>())
        .find(|names| names.iter().all(|n| columns.iter().any(|c| c == n)))
        .unwrap_or_default();
    let day = key
        .iter()
        .copied()
        .chain(columns.iter().map(String::as_str))
        .find(|c| is(c, 1));
    let variety = key.iter().copied().find(|c| is(c, 2));
    let varieties = match (day, variety) {
        (Some(day), Some(variety)) => varieties(tx, table, day, variety)?,
        _ => (None, Vec::new()),
    };
    Ok(Some(Stored {
        rows: newest(tx, table, &columns, &key, day)?,
        table: table.shown(),
        columns: columns.into_iter().take(COLUMNS).collect(),
        day: varieties.0,
        varieties: varieties.1,
    }))
}

/// The newest day, and the rows of each variety on it.
type Varieties = (Option<String>, Vec<(String, i64)>);

fn varieties(
    tx: &mut Transaction<'_>,
    table: &Table,
    day: &str,
    variety: &str,
) -> Result<Varieties> {
    let (of, day, variety) = (table.quoted(), quote_ident(day), quote_ident(variety));
    let newest: Option<String> = tx
        .query_one(&format!("SELECT max({day})::text FROM {of}"), &[])?
        .get(0);
    let rows = tx.query(
        &format!(
            "SELECT coalesce(left({variety}::text, 60), ''), count(*) FROM {of} WHERE {day} = $1::text::date GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT {VARIETIES}"
        ),
        &[&newest],
    )?;
    let counts = rows.iter().map(|r| (redact(r.get(0)), r.get(1)));
    Ok((newest, counts.collect()))
}

fn newest(
    tx: &mut Transaction<'_>,
    table: &Table,
    columns: &[String],
    key: &[&str],
    day: Option<&str>,
) -> Result<Vec<Row>> {
    let texts: Vec<String> = columns
        .iter()
        .map(|c| format!("left({}::text, {CUT})", quote_ident(c)))
        .collect();
    let mut order: Vec<String> = day
        .map(|d| format!("{} DESC NULLS LAST", quote_ident(d)))
        .into_iter()
        .collect();
    if columns.iter().any(|c| c == "id") {
        order.push("id DESC".to_owned());
    }
    let order = if order.is_empty() {
        String::new()
    } else {
        format!("ORDER BY {}", order.join(", "))
    };
    let rows = tx.query(
        &format!(
            "SELECT ARRAY[{}]::text[] FROM {} {order} LIMIT {ROWS}",
            texts.join(", "),
            table.quoted()
        ),
        &[],
    )?;
    let row = |row: &postgres::Row| {
        let values: Vec<Option<String>> = row.get(0);
        let part = |name: &&str| {
            let at = columns.iter().position(|c| c == *name)?;
            // One that is cut names another row, or none.
            let value = values[at].as_ref().filter(|v| v.chars().count() < CUT)?;
            Some(format!("{name}={value}"))
        };
        let parts: Option<Vec<String>> = key.iter().map(part).collect();
        let why = parts.filter(|p| !p.is_empty()).map(|parts| {
            format!(
                "oa-report why {} --key {}",
                quoted(&table.shown()),
                quoted(&parts.join(","))
            )
        });
        let shown = values.into_iter().take(COLUMNS);
        Row {
            values: shown.map(|v| v.map(|v| redact(&v))).collect(),
            why,
        }
    };
    Ok(rows.iter().map(row).collect())
}
