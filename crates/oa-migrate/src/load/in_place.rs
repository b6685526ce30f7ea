//! Rows into a table that the target has already: from the finished table of the staging schema into the table itself, in the
//! last transaction. So everything stays that belongs to it or depends on it: views, foreign keys of other tables, policies, grants.
//!
//! While rows come, the table's own triggers and rules are silenced and its foreign keys are dropped; they are made again before
//! COMMIT, and the catalogue is compared with what it said before. No column that is there is altered.

use anyhow::{Result, anyhow, ensure};
use oa_core::pg::{describe, quote_ident, quote_literal};
use postgres::Transaction;
use postgres::error::SqlState;

use super::belongings::{self, Belonging};
use super::staging::column_definition;
use super::swap::{Busy, try_statement};
use crate::errors::Refused;
use crate::plan::PlannedTable;

/// The table in the schema of the tables as they were that has the statements which take back what a run added to them.
const UNDO: &str = "oa undo";

/// Tables that are open for rows, and what makes them as they were.
#[derive(Debug)]
pub(crate) struct Opened {
    tables: Vec<(String, Vec<Belonging>)>,
    /// Foreign keys: the table that has it, and the statement that makes it again.
    keys: Vec<(String, String)>,
    restore: Vec<String>,
}

fn explain(e: &postgres::Error) -> anyhow::Error {
    if e.code() == Some(&SqlState::LOCK_NOT_AVAILABLE)
        || e.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)
    {
        return Busy.into();
    }
    if e.code() == Some(&SqlState::PROGRAM_LIMIT_EXCEEDED) {
        return anyhow!(
            "a value is too long for an index of the target's table: {}; nothing was changed. Shorten it in SQLite, or drop the index and create one on md5(column) or a prefix",
            describe(e)
        );
    }
    anyhow!(
        "could not put rows into the target's tables: {}",
        describe(e)
    )
}

fn texts(tx: &mut Transaction<'_>, sql: &str, tables: &[&str]) -> Result<Vec<(String, String)>> {
    let rows = tx.query(sql, &[&tables]).map_err(|e| explain(&e))?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

/// Opens tables, whose names are qualified and which are locked already. `emptied` are those of them that lose rows.
pub(crate) fn open(tx: &mut Transaction<'_>, tables: &[&str], emptied: &[&str]) -> Result<Opened> {
    let mut opened = Opened {
        tables: Vec::new(),
        keys: Vec::new(),
        restore: Vec::new(),
    };
    for table in tables {
        let had = belongings::of(tx, table)?;
        opened.tables.push(((*table).to_owned(), had));
    }
    let rows = tx
        .query(
            "SELECT k.conrelid::regclass::text, quote_ident(k.conname), pg_get_constraintdef(k.oid), obj_description(k.oid, 'pg_constraint'),
                    pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
             WHERE k.contype = 'f' AND k.conparentid = 0
               AND (k.conrelid = ANY ($1::text[]::regclass[]) OR k.confrelid = ANY ($2::text[]::regclass[]))
             ORDER BY 1, 2",
            &[&tables, &emptied],
        )
        .map_err(|e| explain(&e))?;
    for row in &rows {
        let (table, name, definition): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        if !row.get::<_, bool>(4) {
            return Err(Refused(format!(
                "the foreign key {name} of table {table} refers to rows that are to be replaced, and {table} belongs to role {}; nothing was changed. Run as a member of that role, or drop the foreign key first",
                row.get::<_, String>(5)
            ))
            .into());
        }
        run(tx, &format!("ALTER TABLE {table} DROP CONSTRAINT {name}"))?;
        let mut make = format!("ALTER TABLE {table} ADD CONSTRAINT {name} {definition}");
        if let Some(comment) = row.get::<_, Option<String>>(3) {
            make.push_str(&format!(
                "; COMMENT ON CONSTRAINT {name} ON {table} IS {}",
                quote_literal(&comment)
            ));
        }
        opened.keys.push((table, make));
    }
    let silenced = texts(
        tx,
        "SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', tgrelid::regclass, tgname),
                format('ALTER TABLE %s %s TRIGGER %I', tgrelid::regclass, CASE tgenabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, tgname)
         FROM pg_trigger WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgparentid = 0 AND tgrelid = ANY ($1::text[]::regclass[])
         UNION ALL
         SELECT format('ALTER TABLE %s DISABLE RULE %I', ev_class::regclass, rulename),
                format('ALTER TABLE %s %s RULE %I', ev_class::regclass, CASE ev_enabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, rulename)
         FROM pg_rewrite WHERE ev_enabled <> 'D' AND ev_class = ANY ($1::text[]::regclass[])
         UNION ALL
         SELECT format('ALTER TABLE %s NO FORCE ROW LEVEL SECURITY', oid::regclass), format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', oid::regclass)
         FROM pg_class WHERE relforcerowsecurity AND oid = ANY ($1::text[]::regclass[])",
        tables,
    )?;
    for (silence, restore) in silenced {
        run(tx, &silence)?;
        opened.restore.push(restore);
    }
    Ok(opened)
}

/// Makes everything as it was, and reads it back from the catalogue. `except` are items that may be missing.
pub(crate) fn close(tx: &mut Transaction<'_>, opened: &Opened, except: &[String]) -> Result<()> {
    for (table, key) in &opened.keys {
        tx.batch_execute(key).map_err(|e| {
            if e.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) {
                let detail = e.as_db_error().and_then(|e| e.detail()).unwrap_or_default();
                Refused(format!(
                    "rows of {table} refer to rows that would be gone ({detail}); nothing was changed. Delete or correct them, and run again"
                ))
                .into()
            } else {
                explain(&e)
            }
        })?;
    }
    for statement in &opened.restore {
        run(tx, statement)?;
    }
    for (table, had) in &opened.tables {
        let now = belongings::of(tx, table)?;
        let lost = had
            .iter()
            .find(|old| !except.contains(&old.item) && !now.iter().any(|new| old.same_as(new)));
        ensure!(
            lost.is_none(),
            "{} of {table} would not be as it was; nothing was changed. Please report this",
            lost.map_or("", |l| &l.item)
        );
    }
    Ok(())
}

fn run(tx: &mut Transaction<'_>, sql: &str) -> Result<()> {
    tx.batch_execute(sql).map_err(|e| {
        let cause = explain(&e);
        if cause.is::<Busy>() {
            cause
        } else {
            cause.context(format!("could not run {sql}"))
        }
    })
}

/// Creates the table that [`undo`] reads.
pub(crate) fn create_undo(tx: &mut Transaction<'_>, before: &str) -> Result<()> {
    run(
        tx,
        &format!(
            "CREATE TABLE {}.{} (number int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, statement text NOT NULL, late boolean NOT NULL)",
            quote_ident(before),
            quote_ident(UNDO)
        ),
    )
}

/// Whether a rollback is possible still: whoever needs none may have dropped the schema.
pub(crate) fn has_undo(tx: &mut Transaction<'_>, before: &str) -> Result<bool> {
    let name = format!("{}.{}", quote_ident(before), quote_ident(UNDO));
    let row = tx
        .query_one("SELECT to_regclass($1::text) IS NOT NULL", &[&name])
        .map_err(|e| explain(&e))?;
    Ok(row.get(0))
}

/// Notes a statement for a rollback: `late` ones are run when the older rows are back.
pub(crate) fn note_undo(
    tx: &mut Transaction<'_>,
    before: &str,
    statement: &str,
    late: bool,
) -> Result<()> {
    let sql = format!(
        "INSERT INTO {}.{} (statement, late) VALUES ($1, $2)",
        quote_ident(before),
        quote_ident(UNDO)
    );
    tx.execute(&sql, &[&statement, &late])
        .map(|_| ())
        .map_err(|e| explain(&e))
}

/// Notes the foreign key of a table that was created last.
pub(crate) fn note_new_key(tx: &mut Transaction<'_>, before: &str, table: &str) -> Result<()> {
    let row = tx
        .query_one(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT IF EXISTS %I', conrelid::regclass, conname) FROM pg_constraint
             WHERE conrelid = $1::text::regclass AND contype = 'f' ORDER BY oid DESC LIMIT 1",
            &[&table],
        )
        .map_err(|e| explain(&e))?;
    note_undo(tx, before, row.get(0), false)
}

/// Notes a column that was added to a table.
pub(crate) fn note_new_column(
    tx: &mut Transaction<'_>,
    before: &str,
    table: &str,
    column: &str,
) -> Result<()> {
    // Whoever has dropped it since has done the same.
    let drop = format!(
        "ALTER TABLE {table} DROP COLUMN IF EXISTS {}",
        quote_ident(column)
    );
    note_undo(tx, before, &drop, false)
}

/// Takes back what a run added to the tables.
pub(crate) fn undo(tx: &mut Transaction<'_>, before: &str, late: bool) -> Result<()> {
    let sql = format!(
        "SELECT statement FROM {}.{} WHERE late = $1 ORDER BY number DESC",
        quote_ident(before),
        quote_ident(UNDO)
    );
    let rows = tx.query(&sql, &[&late]).map_err(|e| explain(&e))?;
    for row in &rows {
        run(tx, row.get(0))?;
    }
    Ok(())
}

pub(crate) fn drop_undo(tx: &mut Transaction<'_>, before: &str) -> Result<()> {
    let (schema, table) = (quote_ident(before), quote_ident(UNDO));
    run(tx, &format!("DROP TABLE {schema}.{table}"))
}

/// Keeps a table's rows in another schema.
pub(crate) fn keep_rows(tx: &mut Transaction<'_>, table: &str, kept: &str) -> Result<()> {
    let row = tx
        .query_one(
            "SELECT relforcerowsecurity FROM pg_class WHERE oid = $1::text::regclass",
            &[&table],
        )
        .map_err(|e| explain(&e))?;
    // Otherwise its policies would hide rows from the owner too.
    let forced: bool = row.get(0);
    if forced {
        run(
            tx,
            &format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
        )?;
    }
    run(
        tx,
        &format!("CREATE TABLE {kept} AS SELECT * FROM ONLY {table}"),
    )?;
    if forced {
        run(tx, &format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"))?;
    }
    Ok(())
}

pub(crate) fn empty(tx: &mut Transaction<'_>, table: &str) -> Result<()> {
    run(tx, &format!("TRUNCATE ONLY {table}"))
}

/// Adds the columns that only the source has, and puts the rows of the staging table in.
pub(crate) fn fill(
    tx: &mut Transaction<'_>,
    table: &PlannedTable,
    schema: &str,
    staging: &str,
    before: &str,
) -> Result<()> {
    let Some(existing) = &table.existing else {
        return Ok(());
    };
    if let Some(index) = natural_key(table, schema) {
        let index_of = belongings::of(tx, &table.qualified)?;
        for had in index_of
            .iter()
            .filter(|b| b.item == format!("index {index}"))
        {
            run(tx, &format!("DROP INDEX {index}"))?;
            note_undo(tx, before, &had.statement, true)?;
        }
    }
    for column in &table.columns {
        if !existing.columns.iter().any(|c| c.name == column.target) {
            let definition = column_definition(staging, table, &column.target);
            run(
                tx,
                &format!("ALTER TABLE {} ADD COLUMN {definition}", table.qualified),
            )?;
            note_new_column(tx, before, &table.qualified, &column.target)?;
        }
    }
    let from = format!("{}.{}", quote_ident(staging), quote_ident(&table.target));
    copy_rows(tx, &from, &table.qualified)?;
    for (sequence, restart) in numbers(tx, table)? {
        let state = format!(
            "SELECT format('SELECT setval(%L, %s, %L)', '{}', last_value, is_called) FROM {sequence}",
            sequence.replace('\'', "''")
        );
        let undo: String = tx.query_one(&state, &[]).map_err(|e| explain(&e))?.get(0);
        note_undo(tx, before, &undo, true)?;
        run(tx, &restart)?;
    }
    Ok(())
}

/// The natural key of one of the service's tables that duplicates prevent, with its schema: this program has made it, and `dedupe`
/// makes it again.
pub(crate) fn natural_key(table: &PlannedTable, schema: &str) -> Option<String> {
    oa_core::service::natural_key(&table.target)
        .filter(|_| schema == "public" && table.natural_key_refused)
        .map(|key| format!("public.{}", key.index))
}

/// Drops the natural keys of the service's tables, which are open: `dedupe` may have made them since, and rows from before need not
/// fit them. Returns each table with what it had.
pub(crate) fn drop_natural_keys(
    tx: &mut Transaction<'_>,
    schema: &str,
    targets: &[&str],
) -> Result<Vec<(String, Belonging)>> {
    let mut dropped = Vec::new();
    for target in targets.iter().filter(|_| schema == "public") {
        let Some(key) = oa_core::service::natural_key(target) else {
            continue;
        };
        let table = format!("public.{}", quote_ident(target));
        let item = format!("index public.{}", key.index);
        let comment = format!("comment on {item}");
        let had = belongings::of(tx, &table)?.into_iter();
        let had: Vec<Belonging> = had
            .filter(|b| b.item == item || b.item == comment)
            .collect();
        if !had.is_empty() {
            run(tx, &format!("DROP INDEX public.{}", quote_ident(key.index)))?;
            dropped.extend(had.into_iter().map(|b| (table.clone(), b)));
        }
    }
    Ok(dropped)
}

/// Makes them again where the rows allow it.
pub(crate) fn make_natural_keys(
    tx: &mut Transaction<'_>,
    dropped: &[(String, Belonging)],
) -> Result<()> {
    for (table, key) in dropped {
        let now = belongings::of(tx, table)?;
        if now.iter().any(|b| b.item == key.item) {
            continue;
        }
        if let Some(why) = try_statement(tx, &key.statement)? {
            tracing::warn!(
                "{} of {table} is not there any more: the rows from before the run do not fit it ({why}); oa-migrate dedupe makes it again",
                key.item
            );
        }
    }
    Ok(())
}

/// Copies the rows of a table into another one that has its columns, and compares what PostgreSQL writes for both.
pub(crate) fn copy_rows(tx: &mut Transaction<'_>, from: &str, into: &str) -> Result<()> {
    let gone = tx
        .query_opt(
            "SELECT f.attname::text FROM pg_attribute f
             WHERE f.attrelid = $1::text::regclass AND f.attnum > 0 AND NOT f.attisdropped
               AND NOT EXISTS (SELECT FROM pg_attribute i WHERE i.attrelid = $2::text::regclass AND i.attname = f.attname AND i.attnum > 0 AND NOT i.attisdropped)
             ORDER BY f.attnum LIMIT 1",
            &[&from, &into],
        )
        .map_err(|e| explain(&e))?;
    if let Some(row) = gone {
        return Err(Refused(format!(
            "table {into} has lost its column {} meanwhile, so the values that {from} has for it would be gone; nothing was changed. Add the column again or give it its name back, and repeat this",
            row.get::<_, String>(0)
        ))
        .into());
    }
    let rows = tx
        .query(
            "SELECT quote_ident(f.attname), i.attgenerated <> '',
                    CASE f.atttypid WHEN 17 THEN format('sha256(%I)', f.attname) ELSE format('hashtextextended(%I::text, 1)', f.attname) END
             FROM pg_attribute f JOIN pg_attribute i ON i.attname = f.attname
             WHERE f.attrelid = $1::text::regclass AND i.attrelid = $2::text::regclass AND f.attnum > 0 AND i.attnum > 0
               AND NOT (f.attisdropped OR i.attisdropped) ORDER BY f.attnum",
            &[&from, &into],
        )
        .map_err(|e| explain(&e))?;
    let stored: Vec<&str> = rows
        .iter()
        .filter(|r| !r.get::<_, bool>(1))
        .map(|r| r.get(0))
        .collect();
    let stored = stored.join(", ");
    let hashes: Vec<&str> = rows.iter().map(|r| r.get(2)).collect();
    let hashes = hashes.join(", ");
    let sql = if stored.is_empty() {
        format!("INSERT INTO {into} SELECT FROM ONLY {from}")
    } else {
        format!(
            "INSERT INTO {into} ({stored}) OVERRIDING SYSTEM VALUE SELECT {stored} FROM ONLY {from}"
        )
    };
    run(tx, &sql)?;
    // Of rows, the texts are compared; their sum does not depend on their order.
    let sum = |table: &str| {
        format!(
            "(SELECT ROW(count(*), sum(hashtextextended(h, 1)::numeric), sum(hashtextextended(h, 2)::numeric))::text
              FROM (SELECT ROW({hashes})::text AS h FROM ONLY {table} OFFSET 0) AS t)"
        )
    };
    let same: bool = tx
        .query_one(&format!("SELECT {} = {}", sum(from), sum(into)), &[])
        .map_err(|e| explain(&e))?
        .get(0);
    ensure!(
        same,
        "the rows of {into} are not the ones that were loaded; nothing was changed. Please report this"
    );
    Ok(())
}

/// The table's own sequences that would give a number that a row has, or that SQLite has given before: each with the statement
/// that sets it.
fn numbers(tx: &mut Transaction<'_>, table: &PlannedTable) -> Result<Vec<(String, String)>> {
    let rows = tx
        .query(
            "SELECT a.attname::text, d.objid::regclass::text, s.seqmax FROM pg_depend d
             JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid AND a.atttypid IN (21, 23, 20)
             JOIN pg_sequence s ON s.seqrelid = d.objid AND s.seqincrement > 0
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1::text::regclass
               AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')",
            &[&table.qualified],
        )
        .map_err(|e| explain(&e))?;
    let mut found = Vec::new();
    for row in &rows {
        let (column, sequence, last): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
        let planned = table.identity.as_ref().filter(|(c, _)| *c == column);
        let sql = format!(
            "SELECT last_value + CASE WHEN is_called THEN 1 ELSE 0 END, (SELECT max({})::int8 FROM ONLY {}) FROM {sequence}",
            quote_ident(&column),
            table.qualified
        );
        let state = tx.query_one(&sql, &[]).map_err(|e| explain(&e))?;
        let (now, highest): (i64, Option<i64>) = (state.get(0), state.get(1));
        // What SQLite has given beyond the last number is in no row here, and must not use up all numbers before it.
        let given = planned.map_or(1, |(_, next)| *next);
        let needed = highest
            .map_or(1, |h| h.saturating_add(1))
            .max(if given <= last { given } else { 1 })
            .min(last);
        if highest.is_some_and(|h| h >= last) {
            tracing::warn!(
                "{}: column {column} has used its last number, so rows without one are refused",
                table.qualified
            );
        }
        if now < needed {
            let restart = format!("ALTER SEQUENCE {sequence} RESTART WITH {needed}");
            found.push((sequence, restart));
        }
    }
    Ok(found)
}
