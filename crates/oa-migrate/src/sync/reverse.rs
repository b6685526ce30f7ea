//! The reverse migration: PostgreSQL's rows written to a copy of the base snapshot.
//!
//! Only what differs is written, so that everything else keeps its bytes, its types and its rows that never fitted PostgreSQL:
//! also the other values of a row of which one changed. What is written is written as the application writes it ([`spelling`]).
//! Both sides are read in the normal form of the proof; rows of buckets that differ are matched in temporary tables, not in
//! memory.

use anyhow::{Context, Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use postgres::GenericClient;
use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::Changes;
use super::spelling::{self, Spelling};
use crate::inspect::{Database, Table, ddl, quote};
use crate::load::forms;
use crate::load::rejects::skip_clause;
use crate::proof::canon::{end_of_value, of_source, value_of};
use crate::proof::diff::{key_of, show_key};
use crate::proof::digest::{Digest, RowFingerprint};
use crate::proof::{Column, Comparison, readback, source};

/// Makes a table of the copy hold what PostgreSQL holds. `copy` has the quarantined rows attached; they stay as they are.
pub(crate) fn write_table(
    client: &mut impl GenericClient,
    copy: &Connection,
    table: &Table,
    comparison: &Comparison,
) -> Result<Changes> {
    let context = || format!("could not write table {}", table.name);
    let of_source = source::sum(copy, comparison).with_context(context)?;
    let of_target = readback::sum(client, comparison).with_context(context)?;
    if of_source.same_rows(&of_target) {
        return Ok(Changes::default());
    }
    let buckets = of_source.differing_buckets(&of_target);
    copy.execute_batch(
        "DROP TABLE IF EXISTS temp.oa_here; DROP TABLE IF EXISTS temp.oa_come;
         DROP TABLE IF EXISTS temp.oa_old;
         CREATE TEMP TABLE oa_here (key BLOB NOT NULL, hash BLOB NOT NULL, row_key TEXT NOT NULL, row BLOB NOT NULL);
         CREATE TEMP TABLE oa_come (key BLOB NOT NULL, row BLOB NOT NULL)",
    )?;
    note_rows(copy, table, comparison, &buckets).with_context(context)?;
    copy.execute_batch("CREATE INDEX temp.oa_here_key ON oa_here (key, hash)")?;
    match_rows(client, copy, comparison, &buckets).with_context(context)?;

    let count = |sql: &str| -> rusqlite::Result<u64> {
        copy.query_row(sql, [], |row| row.get::<_, i64>(0).map(i64::unsigned_abs))
    };
    let (went, came) = (
        count("SELECT count(*) FROM temp.oa_here")?,
        count("SELECT count(*) FROM temp.oa_come")?,
    );
    let updated = if table.primary_key.is_empty() {
        0
    } else {
        count("SELECT count(*) FROM temp.oa_come WHERE key IN (SELECT key FROM temp.oa_here)")?
    };
    let key = table.key_expression(&table.name).context("no key")?;
    let written = Written::of(copy, table, comparison).with_context(context)?;
    written.keep_old(copy, table, &key).with_context(context)?;
    copy.execute(
        &format!(
            "DELETE FROM main.{} WHERE {key} IN (SELECT row_key FROM temp.oa_here)",
            quote(&table.name)
        ),
        [],
    )
    .with_context(context)?;
    written
        .insert(copy, table, comparison)
        .with_context(context)?;
    Ok(Changes {
        inserted: came - updated,
        updated,
        deleted: went - updated,
        quarantined: 0,
    })
}

/// Notes the copy's rows in the buckets that differ, with the key by which each can be found again.
fn note_rows(
    copy: &Connection,
    table: &Table,
    comparison: &Comparison,
    buckets: &[bool],
) -> Result<()> {
    let key = table.key_expression(&table.name).with_context(|| {
        format!(
            "table {} has neither a primary key nor a rowid, by which its rows could be distinguished",
            table.name
        )
    })?;
    let columns: Vec<String> = comparison
        .columns
        .iter()
        .map(|c| forms::expression(&quote(&c.source), c.pg, "quarantine.forms"))
        .collect();
    let mut statement = copy.prepare(&format!(
        "SELECT {key}, {} FROM main.{}{}",
        columns.join(", "),
        quote(&table.name),
        skip_clause(table)
    ))?;
    let mut insert = copy.prepare("INSERT INTO temp.oa_here VALUES (?1, ?2, ?3, ?4)")?;
    let mut digest = Digest::new(comparison);
    let mut bytes = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        bytes.clear();
        for (i, column) in comparison.columns.iter().enumerate() {
            of_source(column, row.get_ref(i + 1)?, &mut bytes);
        }
        let fingerprint = digest.add(&bytes);
        if buckets[fingerprint.bucket] {
            let row_key: String = row.get(0)?;
            insert.execute(params![
                key_of(comparison, &bytes),
                hash(fingerprint),
                row_key,
                bytes
            ])?;
        }
    }
    Ok(())
}

/// Takes out of the notes what PostgreSQL has too, and notes what only PostgreSQL has.
fn match_rows(
    client: &mut impl GenericClient,
    copy: &Connection,
    comparison: &Comparison,
    buckets: &[bool],
) -> Result<()> {
    let mut same = copy.prepare(
        "DELETE FROM temp.oa_here WHERE rowid = (SELECT rowid FROM temp.oa_here WHERE key = ?1 AND hash = ?2 LIMIT 1)",
    )?;
    let mut come = copy.prepare("INSERT INTO temp.oa_come VALUES (?1, ?2)")?;
    let mut failed = None;
    readback::read(client, comparison, |row, fingerprint| {
        if !buckets[fingerprint.bucket] || failed.is_some() {
            return;
        }
        let key = key_of(comparison, row);
        let noted = same
            .execute(params![key, hash(fingerprint)])
            .and_then(|found| match found {
                0 => come.execute(params![key, row]),
                n => Ok(n),
            });
        failed = noted.err();
    })?;
    failed.map_or(Ok(()), |e| Err(e.into()))
}

fn hash(fingerprint: RowFingerprint) -> Vec<u8> {
    fingerprint
        .hash
        .iter()
        .flat_map(|part| part.to_le_bytes())
        .collect()
}

/// The columns that are written: their positions, and how the application writes their values.
struct Written<'a> {
    columns: Vec<(usize, &'a Column, Option<Spelling>)>,
    /// A rowid that is no column: it stays as it is.
    rowid: Option<&'static str>,
}

impl<'a> Written<'a> {
    fn of(copy: &Connection, table: &Table, comparison: &'a Comparison) -> Result<Self> {
        let rowid = table.rowid_name.filter(|_| table.rowid_alias.is_none());
        let mut columns = Vec::new();
        for (i, column) in comparison.columns.iter().enumerate() {
            let of_table = table.column(&column.source);
            if of_table.is_some_and(|c| c.generated.is_some()) {
                continue;
            }
            columns.push((i, column, latest_spelling(copy, table, column)?));
        }
        Ok(Self { columns, rowid })
    }

    fn names(&self) -> Vec<String> {
        let names = self.columns.iter().map(|(_, c, _)| quote(&c.source));
        names.chain(self.rowid.map(str::to_owned)).collect()
    }

    /// Keeps the values of rows that are about to be written again.
    fn keep_old(&self, copy: &Connection, table: &Table, key: &str) -> Result<()> {
        copy.execute_batch(&format!(
            "CREATE TEMP TABLE oa_old AS SELECT {key} AS oa_row_key, {} FROM main.{} WHERE {key} IN
               (SELECT row_key FROM temp.oa_here WHERE key IN (SELECT key FROM temp.oa_come));
             CREATE UNIQUE INDEX temp.oa_old_key ON oa_old (oa_row_key)",
            self.names().join(", "),
            quote(&table.name)
        ))?;
        Ok(())
    }

    fn insert(&self, copy: &Connection, table: &Table, comparison: &Comparison) -> Result<()> {
        let names = self.names();
        let places: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
        let mut insert = copy.prepare(&format!(
            "INSERT INTO main.{} ({}) VALUES ({})",
            quote(&table.name),
            names.join(", "),
            places.join(", ")
        ))?;
        let mut old_row = copy.prepare(
            "SELECT h.rowid, h.row, o.* FROM temp.oa_here AS h JOIN temp.oa_old AS o ON o.oa_row_key = h.row_key WHERE h.key = ?1 LIMIT 1",
        )?;
        let mut used = copy.prepare("DELETE FROM temp.oa_here WHERE rowid = ?1")?;
        // Rows that were there first, so that no new row takes their rowids.
        let mut statement = copy.prepare(
            "SELECT row FROM temp.oa_come ORDER BY key NOT IN (SELECT key FROM temp.oa_here), rowid",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let bytes = row.get_ref(0)?.as_blob()?;
            let key = key_of(comparison, bytes);
            let old = old_row
                .query_row([&key], |row| {
                    let values = (3..3 + names.len()).map(|i| row.get::<_, Value>(i));
                    Ok((
                        row.get::<_, i64>(0)?,
                        row.get::<_, Vec<u8>>(1)?,
                        values.collect::<rusqlite::Result<Vec<_>>>()?,
                    ))
                })
                .optional()?;
            if let Some((number, ..)) = &old {
                used.execute([number])?;
            }
            let old = old.map(|(_, bytes, values)| (bytes, values));
            let values = self.values(bytes, old.as_ref(), comparison)?;
            insert
                .execute(params_from_iter(values))
                .map_err(|e| anyhow!("row with key {}: {e}", show_key(&key)))?;
        }
        Ok(())
    }

    /// The values of a row in the order of [`Written::names`]; those that did not change keep their bytes.
    fn values(
        &self,
        bytes: &[u8],
        old: Option<&(Vec<u8>, Vec<Value>)>,
        comparison: &Comparison,
    ) -> Result<Vec<Value>> {
        let mut values: Vec<Value> = Vec::with_capacity(self.columns.len() + 1);
        let mut next = self.columns.iter().peekable();
        let (mut start, mut old_start) = (0, 0);
        for (i, column) in comparison.columns.iter().enumerate() {
            let end = end_of_value(bytes, start);
            let old_end = old.map_or(0, |(row, _)| end_of_value(row, old_start));
            if let Some((_, _, spelling)) = next.next_if(|(k, ..)| *k == i) {
                let before = old.and_then(|(row, old)| {
                    let same = row.get(old_start..old_end) == Some(&bytes[start..end]);
                    old.get(values.len()).map(|value| (value, same))
                });
                let value = match before {
                    Some((value, true)) => value.clone(),
                    _ => {
                        let value = value_of(&bytes[start..end]).with_context(|| {
                            format!(
                                "column {}: PostgreSQL sent a value that cannot be written; please report this",
                                column.target
                            )
                        })?;
                        let own = before.and_then(|(value, _)| Spelling::of(column, value));
                        match own.as_ref().or(spelling.as_ref()) {
                            Some(spelling) => spelling.write(column, value),
                            None => Spelling::usual(column, value),
                        }
                    }
                };
                values.push(value);
            }
            (start, old_start) = (end, old_end);
        }
        if self.rowid.is_some() {
            let rowid = old.and_then(|(_, values)| values.last().cloned());
            values.push(rowid.unwrap_or(Value::Null));
        }
        Ok(values)
    }
}

/// How the newest value of a column is written.
fn latest_spelling(copy: &Connection, table: &Table, column: &Column) -> Result<Option<Spelling>> {
    if !spelling::varies(column) {
        return Ok(None);
    }
    let order = table
        .rowid_name
        .map_or_else(String::new, |rowid| format!(" ORDER BY {rowid} DESC"));
    let value = copy
        .query_row(
            &format!(
                "SELECT {0} FROM main.{1} WHERE typeof({0}) IN ('text', 'blob'){order} LIMIT 1",
                quote(&column.source),
                quote(&table.name)
            ),
            [],
            |row| row.get::<_, Value>(0),
        )
        .optional()?;
    Ok(value.and_then(|value| Spelling::of(column, &value)))
}

/// Drops the copy's triggers while rows are written; they have run when the rows were made. Returns their texts.
pub(crate) fn drop_triggers(copy: &Connection) -> Result<Vec<String>> {
    let mut statement = copy.prepare(
        "SELECT name, sql FROM main.sqlite_master WHERE type = 'trigger' ORDER BY rowid",
    )?;
    let triggers: Vec<(String, String)> = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (name, _) in &triggers {
        copy.execute_batch(&format!("DROP TRIGGER main.{}", quote(name)))?;
    }
    Ok(triggers.into_iter().map(|(_, sql)| sql).collect())
}

/// Rebuilds the full-text indexes over other tables, whose triggers are dropped while rows are written. Returns those that
/// cannot be rebuilt, as warnings.
pub(crate) fn rebuild_indexes(copy: &Connection, database: &Database) -> Result<Vec<String>> {
    let mut warnings = Vec::new();
    for index in &database.virtual_tables {
        let sql: String = copy.query_row(
            "SELECT sql FROM main.sqlite_master WHERE type = 'table' AND name = ?1",
            [&index.name],
            |row| row.get(0),
        )?;
        let create = ddl::parse_create_virtual(&sql);
        let full_text = matches!(create.module.as_str(), "fts4" | "fts5");
        let over = create.option("content").filter(|c| !c.is_empty());
        if full_text && over.is_some() && !index.lost {
            let name = quote(&index.name);
            copy.execute_batch(&format!(
                "INSERT INTO main.{name} ({name}) VALUES ('rebuild')"
            ))
            .with_context(|| format!("could not rebuild the index {}", index.name))?;
        } else if full_text || index.lost {
            warnings.push(format!(
                "virtual table {} is as it was in the base: it {}",
                index.name, index.why
            ));
        }
    }
    Ok(warnings)
}

/// What the target schema holds that SQLite has no place for, as warnings: tables with rows, columns with values.
pub(crate) fn left_behind(
    client: &mut impl GenericClient,
    schema: &str,
    comparisons: &[(Table, Comparison)],
) -> Result<Vec<String>> {
    let explain =
        |e: postgres::Error| anyhow!("could not look at schema {schema}: {}", describe(&e));
    let rows = client
        .query(
            "SELECT c.relname::text, a.attname::text, has_table_privilege(c.oid, 'SELECT') AND NOT row_security_active(c.oid)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_attribute a ON a.attrelid = c.oid WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1, a.attnum",
            &[&schema],
        )
        .map_err(explain)?;
    let mut warnings: Vec<String> = Vec::new();
    let mut last_table = String::new();
    for row in &rows {
        let (table, column, readable): (String, String, bool) =
            (row.get(0), row.get(1), row.get(2));
        let name = format!("{}.{}", quote_ident(schema), quote_ident(&table));
        let of_run = comparisons.iter().find(|(_, c)| c.target == table);
        let (what, condition) = match of_run {
            None if table == last_table => continue,
            None => (format!("table {table}"), String::new()),
            Some((_, c)) if c.columns.iter().any(|k| k.target == column) => continue,
            Some(_) => (
                format!("column {column} of {table}"),
                format!(" WHERE {} IS NOT NULL", quote_ident(&column)),
            ),
        };
        last_table = table;
        if of_run.is_none() && !readable {
            warnings.push(format!(
                "{what} is in PostgreSQL only, and this role may not read all of it: none of it was written"
            ));
            continue;
        }
        let count: i64 = client
            .query_one(&format!("SELECT count(*) FROM {name}{condition}"), &[])
            .map_err(explain)?
            .get(0);
        if count > 0 {
            warnings.push(format!(
                "{what} is in PostgreSQL only: {count} row(s) of it were not written and stay there"
            ));
        }
    }
    Ok(warnings)
}
