//! What was known when: a table as it was, and the versions of one row (`oa.revisions`).

use chrono::{DateTime, Utc};
use oa_core::base::exact;
use oa_core::pg::quote_ident;
use postgres::types::{Json, ToSql};
use postgres::{Client, GenericClient};
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Result, redacted, redacted_texts};

/// A table of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) schema: String,
    pub(crate) name: String,
}

impl Table {
    /// As people write it: the schema only where it is not `public`.
    pub(crate) fn shown(&self) -> String {
        match self.schema.as_str() {
            "public" => self.name.clone(),
            schema => format!("{schema}.{}", self.name),
        }
    }

    pub(crate) fn quoted(&self) -> String {
        format!("{}.{}", quote_ident(&self.schema), quote_ident(&self.name))
    }
}

/// All tables but PostgreSQL's and the programs' own.
pub(crate) fn tables(client: &mut impl GenericClient) -> Result<Vec<Table>> {
    let rows = client.query(
        "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname NOT IN ('oa', 'information_schema') AND n.nspname !~ '^pg_'
         ORDER BY 1, 2",
        &[],
    )?;
    let table = |r: &postgres::Row| Table {
        schema: r.get(0),
        name: r.get(1),
    };
    Ok(rows.iter().map(table).collect())
}

/// A row as JSON, and its columns as texts.
pub(crate) type TextRow = (String, Vec<Option<String>>);

/// Rows that are in memory at once.
const CHUNK: i32 = 5000;

/// The table as it was known at that time. `condition`: SQL over its columns. Asked in a read-only transaction. A table may be larger than the
/// memory, so `take` gets its columns and some rows after another, at least once; it says whether it wants more. Gives since when changes of the
/// table are known.
pub(crate) fn as_of(
    client: &mut Client,
    table: &Table,
    at: DateTime<Utc>,
    condition: &str,
    take: &mut dyn FnMut(&[String], Vec<TextRow>) -> bool,
) -> Result<Option<DateTime<Utc>>> {
    let mut tx = client.build_transaction().read_only(true).start()?;
    let since: Option<DateTime<Utc>> = tx
        .query_one(
            "SELECT t.began_at FROM oa.revised_table($1::text::regclass) t",
            &[&table.quoted()],
        )?
        .get(0);
    let columns: Vec<String> = tx
        .query(
            "SELECT attname::text FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
            &[&table.quoted()],
        )?
        .iter()
        .map(|r| r.get(0))
        .collect();
    let texts: Vec<String> = columns
        .iter()
        .map(|c| format!("oa_row.{}::text", quote_ident(c)))
        .collect();
    tx.batch_execute(
        "SET LOCAL work_mem = '64MB'; SET LOCAL enable_mergejoin = off; SET LOCAL jit = off",
    )?;
    // Not through oa.as_of, so that the condition can use the table's indexes and nothing is put aside.
    let query: String = tx
        .query_one(
            "SELECT oa.as_of_query($1::text::regclass, $2)",
            &[&table.quoted(), &at],
        )?
        .get(0);
    let sql = format!(
        "SELECT row_to_json(oa_row)::text, ARRAY[{}]::text[] FROM ({query}) oa_row WHERE ({condition}\n)",
        texts.join(", "),
    );
    let portal = tx.bind(sql.as_str(), &[])?;
    loop {
        let rows: Vec<TextRow> = tx
            .query_portal(&portal, CHUNK)?
            .iter()
            .map(|r| (r.get(0), r.get(1)))
            .collect();
        let is_last = rows.len() < CHUNK.unsigned_abs() as usize;
        if !take(&columns, rows) || is_last {
            break;
        }
    }
    tx.commit()?;
    Ok(since)
}

/// A part of a unique index: its name, and SQL that compares it with a text (`%` stands for that) and gives its value in a key.
pub(crate) struct Part {
    pub(crate) name: String,
    expression: String,
    value: String,
    of_type: String,
}

/// The unique indexes by which a row can be named, that of the revisions first.
pub(crate) fn keys(client: &mut impl GenericClient, table: &Table) -> Result<Vec<Vec<Part>>> {
    let rows = client.query(
        "SELECT i.indexrelid, p.name, p.expression, p.value, p.type FROM pg_index i, oa.key_parts(i.indexrelid) p
         WHERE i.indrelid = $1::text::regclass AND i.indisunique AND i.indpred IS NULL
         ORDER BY i.indexrelid = oa.revised_index(i.indrelid) DESC NULLS LAST, i.indisprimary, i.indexrelid",
        &[&table.quoted()],
    )?;
    let mut keys: Vec<(u32, Vec<Part>)> = Vec::new();
    for row in rows {
        let part = Part {
            name: row.get(1),
            expression: row.get(2),
            value: row.get(3),
            of_type: row.get(4),
        };
        match keys
            .last_mut()
            .filter(|(index, _)| *index == row.get::<_, u32>(0))
        {
            Some((_, parts)) => parts.push(part),
            None => keys.push((row.get(0), vec![part])),
        }
    }
    Ok(keys.into_iter().map(|(_, parts)| parts).collect())
}

/// One version of a row, and what made it.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    /// When the server wrote it; none: before revisions of it are known.
    pub(crate) at: Option<DateTime<Utc>>,
    /// `insert`, `update`, `delete`, or `unknown`: not by a run that kept revisions.
    pub(crate) operation: String,
    pub(crate) run_id: Option<Uuid>,
    pub(crate) task: Option<String>,
    pub(crate) status: Option<String>,
    pub(crate) started_at: Option<DateTime<Utc>>,
    /// SHA-256 of the source file that the run worked by.
    pub(crate) source_sha256: Option<String>,
    /// Of a change without a run: the role that made it.
    pub(crate) role: Option<String>,
    /// What the run received, from which the row was made.
    pub(crate) raw: Vec<Value>,
    /// Fingerprints of the task's incidents that were open during the run.
    pub(crate) incidents: Vec<String>,
    /// The newest backup from which it can be had back, and the point in time to restore to.
    pub(crate) backup: Option<Value>,
    /// The row; none: it was removed.
    pub(crate) row: Option<Map<String, Value>>,
    /// What it was made from: for whoever looks where in the answers it stands.
    #[serde(skip)]
    pub(crate) origin: Option<Origin>,
}

/// The run that received what a version was made from.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) run: Uuid,
    pub(crate) day: String,
    /// The key of the row, as `oa.revisions` has it.
    pub(crate) key: String,
}

/// How much of a row's past is looked at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// So many versions, the newest.
    pub(crate) versions: usize,
    /// So many bytes of the keys of rows that were inserted together, as they are stored: whose key is among them is known only when they
    /// have been gone through.
    pub(crate) bytes: i64,
}

impl Bounds {
    pub(crate) const USUAL: Self = Self {
        versions: 50,
        bytes: 32 << 20,
    };
    pub(crate) const NONE: Self = Self {
        versions: usize::MAX,
        bytes: i64::MAX,
    };
}

/// A row's past.
#[derive(Debug)]
pub(crate) struct Past {
    /// Newest first.
    pub(crate) versions: Vec<Version>,
    /// There are older versions.
    pub(crate) more: bool,
    /// So many insertions of rows together were not looked through, the newest of them at that time.
    pub(crate) unseen: Option<(i64, DateTime<Utc>)>,
}

/// Rows that were inserted together, of a table whose names the two are, with the bytes of the newer ones.
fn together(schema: &str, name: &str) -> String {
    format!(
        "(SELECT o.*, sum(pg_column_size(o.keys)) OVER (ORDER BY o.at DESC, o.seq DESC) - pg_column_size(o.keys) AS newer
          FROM oa.revisions o WHERE o.schema_name = {schema} AND o.table_name = {name} AND o.keys IS NOT NULL)"
    )
}

/// The versions of the row with that key. `values`: of the key's parts, as texts.
pub(crate) fn versions(
    client: &mut Client,
    table: &Table,
    key: &[Part],
    values: &[String],
    bounds: Bounds,
) -> Result<Past> {
    let parameters: Vec<&(dyn ToSql + Sync)> =
        values.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
    let typed = |i: usize, part: &Part| format!("${}::text::{}", i + 1, part.of_type);
    let mut tx = client.build_transaction().read_only(true).start()?;
    let same: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(i, p)| format!("{} = {}", p.expression, typed(i, p)))
        .collect();
    // Revisions stand under one of the keys, whichever names the row.
    let followed: Option<String> = tx
        .query_one(
            "SELECT oa.key_value(oa.revised_index($1::text::regclass))",
            &[&table.quoted()],
        )?
        .get(0);
    let present = tx.query_opt(
        &format!(
            "SELECT to_jsonb(oa_row)::text, ({})::text FROM {} oa_row WHERE {}",
            followed.as_deref().unwrap_or("NULL"),
            table.quoted(),
            same.join(" AND ")
        ),
        &parameters,
    )?;
    let pairs: Vec<String> = key
        .iter()
        .enumerate()
        .map(|(i, p)| {
            let literal = oa_core::pg::quote_literal(&p.name);
            // As the key has it: see oa.key_parts.
            let utc = if p.value == p.expression {
                ""
            } else {
                " AT TIME ZONE 'UTC'"
            };
            format!("{literal}, {}{utc}", typed(i, p))
        })
        .collect();
    let its_key = present.as_ref().and_then(|r| r.get::<_, Option<String>>(1));
    let its_key = its_key.map_or_else(|| "NULL".to_owned(), |key| oa_core::pg::quote_literal(&key));
    let of_table = oa_core::pg::quote_literal(&table.quoted());
    let rows = tx.query(
        &format!(
            "SELECT r.at, r.operation, r.run_id, runs.task, runs.status, runs.started_at,
                    CASE WHEN zoned.fields IS NULL THEN r.old_row::text ELSE (r.old_row::jsonb || zoned.fields)::text END,
                    coalesce((SELECT jsonb_agg(jsonb_build_object('url', w.url, 'part', w.part, 'sha256', w.sha256, 'file', format('raw/%s/%s.zst', left(w.sha256, 2), w.sha256),
                                                                  'fetched_at', w.fetched_at) ORDER BY w.seq)
                              FROM oa.raw w WHERE w.run_id IN (r.run_id, (runs.details ->> 'replayed_from')::uuid)), '[]'),
                    ARRAY(SELECT i.fingerprint FROM oa.incidents i WHERE i.task = runs.task AND i.opened_at <= r.at
                          AND (i.resolved_at IS NULL OR i.resolved_at >= runs.started_at) ORDER BY i.opened_at),
                    runs.details ->> 'source_sha256', r.role_name, r.key::text, runs.details ->> 'day', coalesce((runs.details ->> 'replayed_from')::uuid, r.run_id)
             FROM oa.revised_table({of_table}::regclass) t
             CROSS JOIN (SELECT coalesce({its_key}::jsonb, jsonb_build_object({})) AS key) k
             CROSS JOIN LATERAL (
                SELECT o.at, o.operation, o.run_id, o.old_row, o.role_name, o.seq, o.key FROM oa.revisions o
                WHERE o.schema_name = t.schema_name AND o.table_name = t.table_name AND jsonb_hash(o.key) = jsonb_hash(k.key) AND o.key = k.key
                UNION ALL
                SELECT o.at, o.operation, o.run_id, o.old_row, o.role_name, o.seq, i.key FROM {} o CROSS JOIN LATERAL unnest(o.keys) i (key)
                WHERE o.newer < {} AND i.key = k.key) r
             -- Each was written in the zone of its writer.
             LEFT JOIN LATERAL (SELECT jsonb_object_agg(a.attname::text, (r.old_row ->> a.attname::text)::timestamptz) AS fields FROM pg_attribute a
                                WHERE a.attrelid = {of_table}::regclass AND a.atttypid = 'timestamptz'::regtype AND NOT a.attisdropped
                                  AND r.old_row ->> a.attname::text IS NOT NULL) zoned ON true
             LEFT JOIN oa.runs ON runs.id = r.run_id
             ORDER BY r.seq DESC LIMIT {}",
            pairs.join(", "),
            together("t.schema_name", "t.table_name"),
            bounds.bytes,
            i64::try_from(bounds.versions.saturating_add(1)).unwrap_or(i64::MAX),
        ),
        &parameters,
    )?;
    let unseen = unseen(&mut tx, &of_table, bounds)?;
    let more = rows.len() > bounds.versions;
    let mut next = present.map(|r| row_of(r.get(0)));
    let mut versions = Vec::new();
    for row in rows.iter().take(bounds.versions) {
        let old = row.get::<_, Option<&str>>(6).map(row_of);
        let Json(raw): Json<Vec<Value>> = row.try_get(7)?;
        versions.push(Version {
            at: row.get(0),
            operation: row.get(1),
            run_id: row.get(2),
            task: row.get(3),
            status: row.get(4),
            started_at: row.get(5),
            raw: raw.into_iter().map(redacted).collect(),
            incidents: redacted_texts(&row.get::<_, Vec<String>>(8)),
            source_sha256: row.get(9),
            role: row.get(10),
            origin: row
                .get::<_, Option<Uuid>>(13)
                .zip(row.get(12))
                .map(|(run, day)| Origin {
                    run,
                    day,
                    key: row.get(11),
                }),
            backup: None,
            row: std::mem::replace(&mut next, old),
        });
    }
    // Something that keeps no revisions has put it there.
    if next.is_some() && !more && unseen.is_none() {
        versions.push(Version {
            at: None,
            operation: "unknown".to_owned(),
            run_id: None,
            task: None,
            status: None,
            started_at: None,
            raw: Vec::new(),
            incidents: Vec::new(),
            source_sha256: None,
            role: None,
            origin: None,
            backup: None,
            row: next,
        });
    }
    let mut until = None;
    for version in &mut versions {
        if version.row.is_some() {
            version.backup = backup(&mut tx, version.at, until)?;
        }
        until = version.at;
    }
    tx.commit()?;
    Ok(Past {
        versions,
        more,
        unseen,
    })
}

/// See [`Past::unseen`].
fn unseen(
    tx: &mut impl GenericClient,
    of_table: &str,
    bounds: Bounds,
) -> Result<Option<(i64, DateTime<Utc>)>> {
    let row = tx.query_one(
        &format!(
            "SELECT count(*), max(o.at) FROM oa.revised_table({of_table}::regclass) t, LATERAL {} o WHERE o.newer >= {}",
            together("t.schema_name", "t.table_name"),
            bounds.bytes
        ),
        &[],
    )?;
    let newest: Option<DateTime<Utc>> = row.get(1);
    Ok(newest.map(|newest| (row.get(0), newest)))
}

/// The newest backup that holds what was stored from one time until another.
fn backup(
    tx: &mut impl GenericClient,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
) -> Result<Option<Value>> {
    let row = tx.query_opt(
        "SELECT jsonb_build_object('id', b.id, 'repository', b.repository, 'kind', b.kind, 'level', b.level, 'finished_at', b.finished_at,
                                   'restore_to', greatest(b.restorable_from, $1::timestamptz))
         FROM oa.backups b
         WHERE b.removed_at IS NULL AND b.check_error IS NULL AND b.missing_since IS NULL AND b.unrestorable IS NULL AND b.kind IN ('physical', 'logical')
           AND (b.kind = 'physical' OR b.database = current_database())
           AND b.restorable_to >= coalesce($1::timestamptz, '-infinity') AND b.restorable_from < coalesce($2::timestamptz, 'infinity')
         ORDER BY b.restorable_to DESC, b.id LIMIT 1",
        &[&from, &until],
    )?;
    let Some(row) = row else { return Ok(None) };
    let Json(found): Json<Value> = row.try_get(0)?;
    Ok(Some(redacted(found)))
}

/// A row of `to_jsonb`, with all digits.
fn row_of(text: &str) -> Map<String, Value> {
    match exact::parse(text) {
        Some(Value::Object(row)) => row,
        _ => Map::new(),
    }
}
