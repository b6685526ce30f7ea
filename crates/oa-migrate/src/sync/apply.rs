//! The difference applied to the target's tables, by key.

use anyhow::{Result, anyhow, bail};
use oa_core::pg::{describe, quote_ident, quote_literal};
use postgres::Transaction;
use postgres::error::SqlState;

use super::{Changes, SyncTable};
use crate::load::belongings::{self, Belonging};
use crate::load::{forms, misfits};
use crate::plan::PgType;

/// Rows that are named when something else wrote to the target.
const NAMED: i64 = 10;

/// Statements that make the tables as they were before [`lock`].
#[derive(Debug, Default)]
pub(crate) struct LockUndo {
    statements: Vec<String>,
    /// After these, policies hide rows again.
    policies: Vec<String>,
}

/// Locks the tables against writers until the end of the transaction, lets foreign keys be checked at its end, because rows come
/// table by table, and silences the target's own triggers and rules: what SQLite's rows are to cause has happened there. Policies
/// do not hide rows from the tables' owner meanwhile. With `keeps_revisions`, what changes goes into `oa.revisions`.
pub(crate) fn lock(
    tx: &mut Transaction<'_>,
    schema: &str,
    targets: &[&str],
    keeps_revisions: bool,
) -> Result<LockUndo> {
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not lock the tables of {schema}: {}; is a program writing to them?",
            describe(&e)
        )
    };
    tx.batch_execute("SET LOCAL lock_timeout = '30s'")
        .map_err(explain)?;
    for target in targets {
        tx.batch_execute(&format!(
            "LOCK TABLE {}.{} IN SHARE ROW EXCLUSIVE MODE",
            quote_ident(schema),
            quote_ident(target)
        ))
        .map_err(explain)?;
    }
    let keys = tx
        .query(
            "SELECT format('ALTER TABLE %s ALTER CONSTRAINT %I', k.conrelid::regclass, k.conname) FROM pg_constraint k
             JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype = 'f' AND NOT k.condeferrable AND n.nspname = $1 AND c.relname = ANY ($2)",
            &[&schema, &targets],
        )
        .map_err(explain)?;
    let mut undo = LockUndo::default();
    for row in &keys {
        let key: String = row.get(0);
        tx.batch_execute(&format!("{key} DEFERRABLE INITIALLY DEFERRED"))
            .map_err(explain)?;
        undo.statements.push(format!("{key} NOT DEFERRABLE"));
    }
    tx.batch_execute("SET CONSTRAINTS ALL DEFERRED")
        .map_err(explain)?;
    let silenced = tx
        .query(
            "SELECT format('ALTER TABLE %s DISABLE TRIGGER %I', t.tgrelid::regclass, t.tgname),
                    format('ALTER TABLE %s %s TRIGGER %I', t.tgrelid::regclass, CASE t.tgenabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, t.tgname)
             FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE NOT t.tgisinternal AND t.tgenabled <> 'D' AND t.tgfoid <> 'oa.audit()'::regprocedure AND n.nspname = $1 AND c.relname = ANY ($2)
             UNION ALL
             SELECT format('ALTER TABLE %s DISABLE RULE %I', r.ev_class::regclass, r.rulename),
                    format('ALTER TABLE %s %s RULE %I', r.ev_class::regclass, CASE r.ev_enabled WHEN 'R' THEN 'ENABLE REPLICA' WHEN 'A' THEN 'ENABLE ALWAYS' ELSE 'ENABLE' END, r.rulename)
             FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND r.ev_enabled <> 'D' AND n.nspname = $1 AND c.relname = ANY ($2)",
            &[&schema, &targets],
        )
        .map_err(explain)?;
    for row in &silenced {
        tx.batch_execute(row.get::<_, &str>(0)).map_err(explain)?;
        undo.statements.push(row.get(1));
    }
    let forced = tx
        .query(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relforcerowsecurity AND pg_has_role(c.relowner, 'USAGE') AND n.nspname = $1 AND c.relname = ANY ($2)",
            &[&schema, &targets],
        )
        .map_err(explain)?;
    for row in &forced {
        let table: String = row.get(0);
        tx.batch_execute(&format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"))
            .map_err(explain)?;
        undo.policies
            .push(format!("ALTER TABLE {table} FORCE ROW LEVEL SECURITY"));
    }
    if keeps_revisions {
        let audited = audit(tx, schema, targets).map_err(explain)?;
        undo.statements.extend(audited);
    }
    Ok(undo)
}

/// Audits tables for the transaction that are not audited anyhow. Rows without a key cannot be followed.
fn audit(
    tx: &mut Transaction<'_>,
    schema: &str,
    targets: &[&str],
) -> Result<Vec<String>, postgres::Error> {
    let rows = tx.query(
        "SELECT c.oid::regclass::text, oa.is_audited(c.oid) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = ANY ($2) AND oa.revised_index(c.oid) IS NOT NULL",
        &[&schema, &targets],
    )?;
    let mut undo = Vec::new();
    for row in &rows {
        let table = quote_literal(row.get(0));
        // The key is what it is now, also while unique indexes are suspended.
        tx.batch_execute(&format!(
            "SELECT oa.begin_revisions({table}::regclass, oa.revised_index({table}::regclass))"
        ))?;
        if !row.get::<_, bool>(1) {
            tx.batch_execute(&format!("SELECT oa.start_audit({table})"))?;
            undo.push(format!("SELECT oa.stop_audit({table})"));
        }
    }
    Ok(undo)
}

/// Rows of the source refer to missing rows, which SQLite allows.
#[derive(Debug, thiserror::Error)]
#[error("the source's rows violate a foreign key: {0}")]
pub(crate) struct DanglingRows(String);

/// Rows of a table would share a unique value while they change one after the other, as when two swap theirs.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct UniqueClash(String);

/// A table whose unique indexes are made again at the end, and what belonged to it.
#[derive(Debug)]
pub(crate) struct SuspendedIndexes {
    table: String,
    had: Vec<Belonging>,
}

/// Builds indexes for the foreign keys that refer to rows that go, where the referring table has none: PostgreSQL looks there for
/// each of them. They are dropped with `undo`.
pub(crate) fn index_references(
    tx: &mut Transaction<'_>,
    sync: &SyncTable,
    removed: u64,
    undo: &mut LockUndo,
) -> Result<()> {
    // For a few rows, reading the table is quicker.
    const FEW: u64 = 10;
    if removed <= FEW {
        return Ok(());
    }
    let table = sync.qualified();
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not build an index for the foreign keys that refer to {table}: {}",
            describe(&e)
        )
    };
    let rows = tx
        .query(
            "SELECT c.oid::regclass::text, c.relnamespace::regnamespace::text,
                    (SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY u.place) FROM unnest(k.conkey) WITH ORDINALITY AS u(n, place)
                     JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n)
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
             WHERE k.contype = 'f' AND k.confrelid = $1::text::regclass AND c.relkind = 'r' AND c.relpages > 10 AND pg_has_role(c.relowner, 'USAGE')
               AND NOT EXISTS (SELECT FROM pg_index x WHERE x.indrelid = k.conrelid AND x.indisvalid AND x.indpred IS NULL
                               AND (x.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey)",
            &[&table],
        )
        .map_err(explain)?;
    for row in &rows {
        let (child, schema, columns): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let name = format!("oa_sync_{}", undo.statements.len());
        tx.batch_execute(&format!("CREATE INDEX {name} ON {child} ({columns})"))
            .map_err(explain)?;
        undo.statements.push(format!("DROP INDEX {schema}.{name}"));
    }
    Ok(())
}

/// Applies the changes of all tables; where unique values change places, without the unique indexes, which [`finish`] makes
/// again.
pub(crate) fn all(
    tx: &mut Transaction<'_>,
    work: &[(SyncTable, bool)],
) -> Result<(Vec<Changes>, Vec<SuspendedIndexes>)> {
    let explain = |e: postgres::Error| anyhow!("PostgreSQL refused: {}", describe(&e));
    let mut suspended: Vec<SuspendedIndexes> = Vec::new();
    loop {
        // A table with changes that are still to be checked cannot be altered: everything is rolled back first.
        let mut attempt = tx.transaction().map_err(explain)?;
        let mut changes = Vec::new();
        let mut clash = None;
        for (sync, any) in work {
            let done = if *any {
                apply(&mut attempt, sync)
            } else {
                Ok(Changes::default())
            };
            match done {
                Ok(done) => changes.push(done),
                Err(e) if e.is::<UniqueClash>() => {
                    clash = Some((sync, e));
                    break;
                }
                Err(e) => return Err(e),
            }
        }
        let Some((sync, error)) = clash else {
            attempt.commit().map_err(explain)?;
            return Ok((changes, suspended));
        };
        attempt.rollback().map_err(explain)?;
        let table = sync.qualified();
        if suspended.iter().any(|l| l.table == table) {
            return Err(error);
        }
        suspended.push(suspend_unique_indexes(tx, table)?);
    }
}

/// Drops the unique indexes of a table that no foreign key needs.
fn suspend_unique_indexes(tx: &mut Transaction<'_>, table: String) -> Result<SuspendedIndexes> {
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not suspend the unique indexes of {table}: {}",
            describe(&e)
        )
    };
    let had = belongings::of(tx, &table)?;
    let rows = tx
        .query(
            "SELECT CASE WHEN k.oid IS NULL THEN format('DROP INDEX %s', x.indexrelid::regclass)
                         ELSE format('ALTER TABLE %s DROP CONSTRAINT %I', x.indrelid::regclass, k.conname) END
             FROM pg_index x LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('u', 'x')
             WHERE x.indrelid = $1::text::regclass AND (x.indisunique OR x.indisexclusion) AND NOT x.indisprimary
               AND NOT EXISTS (SELECT 1 FROM pg_constraint f WHERE f.contype = 'f' AND f.conindid = x.indexrelid)",
            &[&table],
        )
        .map_err(explain)?;
    for row in &rows {
        tx.batch_execute(&row.get::<_, String>(0))
            .map_err(explain)?;
    }
    Ok(SuspendedIndexes { table, had })
}

/// Checks the foreign keys that [`lock`] deferred, and makes them, the triggers and unique indexes as they were.
pub(crate) fn finish(
    tx: &mut Transaction<'_>,
    undo: &LockUndo,
    suspended: &[SuspendedIndexes],
) -> Result<()> {
    tx.batch_execute("SET CONSTRAINTS ALL IMMEDIATE")
        .map_err(|e| {
            let text = describe(&e).to_string();
            if e.code() == Some(&SqlState::FOREIGN_KEY_VIOLATION) {
                anyhow::Error::new(DanglingRows(text))
            } else {
                anyhow!("the source's rows violate a constraint: {text}")
            }
        })?;
    for SuspendedIndexes { table, had } in suspended {
        let missing = belongings::carry_over(tx, table, had)?;
        if let Some(first) = missing.first() {
            bail!(
                "after the source's changes {}; nothing was changed",
                first.sentence()
            );
        }
    }
    run(tx, &undo.statements)
}

/// Lets policies hide rows again, when they have been read back.
pub(crate) fn restore_policies(tx: &mut Transaction<'_>, undo: &LockUndo) -> Result<()> {
    run(tx, &undo.policies)
}

fn run(tx: &mut Transaction<'_>, statements: &[String]) -> Result<()> {
    for statement in statements {
        tx.batch_execute(statement)
            .map_err(|e| anyhow!("could not run {statement}: {}", describe(&e)))?;
    }
    Ok(())
}

/// Applies one table's changes.
pub(crate) fn apply(tx: &mut Transaction<'_>, sync: &SyncTable) -> Result<Changes> {
    let target = &sync.comparison.target;
    let explain =
        |e: postgres::Error| anyhow!("could not apply the changes of {target}: {}", describe(&e));
    for name in [sync.removed(), sync.added()] {
        tx.batch_execute(&format!("ANALYZE {name}"))
            .map_err(explain)?;
    }
    if sync.key.is_empty() {
        return whole_rows(tx, sync);
    }
    refuse_foreign_writes(tx, sync)?;
    let sql = Sql::of(sync);
    let (table, removed, added) = (&sql.table, sync.removed(), sync.added());
    let deleted = tx
        .execute(
            &format!(
                "DELETE FROM {table} AS t USING {removed} AS g WHERE {} AND NOT EXISTS (SELECT 1 FROM {added} AS c WHERE {})",
                sql.key("t", "g"),
                sql.key("c", "g")
            ),
            &[],
        )
        .map_err(explain)?;
    let others: Vec<String> = sync
        .columns
        .iter()
        // A key of which letters have no case may be written otherwise now.
        .filter(|(_, c, codec)| {
            let text = matches!(
                codec.pg,
                PgType::Text | PgType::Varchar(_) | PgType::Other(_)
            );
            text || !sync.key.contains(c)
        })
        .map(|(_, c, codec)| {
            let name = quote_ident(c);
            format!("{name} = {}", forms::cast(&format!("c.{name}"), codec.pg))
        })
        .collect();
    let updated = if others.is_empty() {
        0
    } else {
        tx.execute(
            &format!(
                "UPDATE {table} AS t SET {} FROM {added} AS c WHERE {}",
                others.join(", "),
                sql.key("t", "c")
            ),
            &[],
        )
        .map_err(|e| {
            let clash = [SqlState::UNIQUE_VIOLATION, SqlState::EXCLUSION_VIOLATION];
            if e.code().is_some_and(|code| clash.contains(code)) {
                let text = explain(e).to_string();
                anyhow::Error::new(UniqueClash(text))
            } else {
                explain(e)
            }
        })?
    };
    let inserted = tx
        .execute(
            &format!(
                "INSERT INTO {3} ({0}) OVERRIDING SYSTEM VALUE SELECT {2} FROM {added} AS c WHERE NOT EXISTS (SELECT 1 FROM {removed} AS g WHERE {1})",
                sql.list,
                sql.key("g", "c"),
                sql.values,
                sync.qualified()
            ),
            &[],
        )
        .map_err(explain)?;
    Ok(Changes {
        inserted,
        updated,
        deleted,
        quarantined: 0,
    })
}

/// Rows without a key are the same when all their values are; each counts.
fn whole_rows(tx: &mut Transaction<'_>, sync: &SyncTable) -> Result<Changes> {
    let target = &sync.comparison.target;
    let explain =
        |e: postgres::Error| anyhow!("could not apply the changes of {target}: {}", describe(&e));
    let sql = Sql::of(sync);
    let added = sync.added();
    let deleted = delete_whole(tx, sync, &sync.removed())?;
    let inserted = tx
        .execute(
            &format!(
                "INSERT INTO {} ({}) SELECT {} FROM {added}",
                sync.qualified(),
                sql.list,
                sql.values
            ),
            &[],
        )
        .map_err(explain)?;
    Ok(Changes {
        inserted,
        updated: 0,
        deleted,
        quarantined: 0,
    })
}

/// Deletes as many of each row as a temporary table has.
fn delete_whole(tx: &mut Transaction<'_>, sync: &SyncTable, removed: &str) -> Result<u64> {
    let target = &sync.comparison.target;
    let explain =
        |e: postgres::Error| anyhow!("could not apply the changes of {target}: {}", describe(&e));
    let sql = Sql::of(sync);
    let due: i64 = tx
        .query_one(&format!("SELECT count(*) FROM {removed}"), &[])
        .map_err(explain)?
        .get(0);
    let names = sync.columns.iter().map(|(_, c, _)| c.as_str());
    let number = misfits::free_name("oa_number", names, "");
    let deleted = if due == 0 {
        0
    } else {
        tx.execute(
            &format!(
                "WITH g AS (SELECT {0}, count(*) AS {number} FROM {removed} AS t GROUP BY {0}),
                      t AS (SELECT ctid, row_number() OVER (PARTITION BY {0}) AS {number}, {1} FROM {2} AS t)
                 DELETE FROM {2} AS d USING t, g WHERE d.ctid = t.ctid AND t.{number} <= g.{number} AND {3}",
                sql.texts("t"),
                sql.texts_named("t"),
                sql.table,
                sql.same_texts("t", "g"),
            ),
            &[],
        )
        .map_err(explain)?
    };
    if i64::try_from(deleted)? != due {
        bail!(
            "{} row(s) of {target} that were deleted or changed in SQLite are not in PostgreSQL as they were: something else has written there since the last run or sync; compare with oa-migrate verify",
            due - i64::try_from(deleted)?
        );
    }
    Ok(deleted)
}

/// Deletes the rows of a temporary table, which are quarantined and in the target as the source has them. Returns how many were
/// deleted, and how many of them had just come.
pub(crate) fn delete_quarantined(
    tx: &mut Transaction<'_>,
    sync: &SyncTable,
    quarantined: &str,
) -> Result<(u64, u64)> {
    let target = &sync.comparison.target;
    let explain =
        |e: postgres::Error| anyhow!("could not quarantine rows of {target}: {}", describe(&e));
    if sync.key.is_empty() {
        return Ok((delete_whole(tx, sync, quarantined)?, 0));
    }
    let sql = Sql::of(sync);
    let (removed, added) = (sync.removed(), sync.added());
    let row = tx
        .query_one(
            &format!(
                "SELECT count(*) FILTER (WHERE EXISTS (SELECT 1 FROM {0} AS t WHERE {1} AND NOT ({2}))),
                        count(*) FILTER (WHERE EXISTS (SELECT 1 FROM {added} AS c WHERE {3}) AND NOT EXISTS (SELECT 1 FROM {removed} AS g WHERE {4}))
                 FROM {quarantined} AS x",
                sql.table,
                sql.key("t", "x"),
                sql.same("t", "x"),
                sql.key("c", "x"),
                sql.key("g", "x")
            ),
            &[],
        )
        .map_err(explain)?;
    let (other, new): (i64, i64) = (row.get(0), row.get(1));
    if other > 0 {
        bail!(
            "{other} row(s) of {target} have been written in PostgreSQL since the last run or sync; nothing was changed; compare with oa-migrate verify"
        );
    }
    let deleted = tx
        .execute(
            &format!(
                "DELETE FROM {} AS t USING {quarantined} AS x WHERE {}",
                sql.table,
                sql.key("t", "x")
            ),
            &[],
        )
        .map_err(explain)?;
    Ok((deleted, new.unsigned_abs()))
}

/// A row that went or changed must be in the target as the base has it; a row that came must not be there.
fn refuse_foreign_writes(tx: &mut Transaction<'_>, sync: &SyncTable) -> Result<()> {
    let target = &sync.comparison.target;
    let sql = Sql::of(sync);
    let shown: Vec<String> = sync
        .key
        .iter()
        .map(|k| format!("x.{}::text", quote_ident(k)))
        .collect();
    let queries = [
        format!(
            "FROM {} AS x WHERE NOT EXISTS (SELECT 1 FROM {} AS t WHERE {} AND {})",
            sync.removed(),
            sql.table,
            sql.key("t", "x"),
            sql.same("t", "x")
        ),
        format!(
            "FROM {} AS x WHERE EXISTS (SELECT 1 FROM {} AS t WHERE {}) AND NOT EXISTS (SELECT 1 FROM {} AS g WHERE {})",
            sync.added(),
            sql.table,
            sql.key("t", "x"),
            sync.removed(),
            sql.key("g", "x")
        ),
    ];
    let mut keys: Vec<String> = Vec::new();
    for rest in queries {
        let rows = tx
            .query(
                &format!(
                    "SELECT concat_ws(', ', {}) {rest} LIMIT {NAMED}",
                    shown.join(", ")
                ),
                &[],
            )
            .map_err(|e| anyhow!("could not compare {target}: {}", describe(&e)))?;
        keys.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    }
    if keys.is_empty() {
        return Ok(());
    }
    keys.sort();
    bail!(
        "rows of {target} have been written in PostgreSQL since the last run or sync, and in SQLite too (keys: {}); use sync only before anything else writes there: oa-migrate to-sqlite brings PostgreSQL's rows back, oa-migrate run --replace takes SQLite's",
        keys.join("; ")
    )
}

/// Sets the numbers of identities beyond all that SQLite has assigned.
pub(crate) fn advance_identities(tx: &mut Transaction<'_>, sync: &SyncTable) -> Result<()> {
    let numbers = |k: &&String| {
        let mut columns = sync.columns.iter();
        sync.key.len() == 1 && columns.any(|(_, c, codec)| c == *k && codec.pg.is_integer())
    };
    let Some(column) = sync.key.first().filter(numbers) else {
        return Ok(());
    };
    let table = sync.qualified();
    let assigned = sync.table.autoincrement.unwrap_or(0);
    tx.execute(
        &format!(
            "SELECT setval(s.name, s.next, true) FROM (
               SELECT q.name, coalesce(p.last_value, 0) AS last,
                      greatest(CASE WHEN $3::int8 <= p.max_value THEN $3::int8 END, (SELECT max(t.{0})::int8 FROM ONLY {table} AS t)) AS next
               FROM (SELECT pg_get_serial_sequence($1::text, $2::text)::regclass AS name) AS q
               JOIN pg_sequences AS p ON format('%I.%I', p.schemaname, p.sequencename)::regclass = q.name) AS s
             WHERE s.next > s.last",
            quote_ident(column)
        ),
        &[&table, &column, &assigned],
    )
    .map(|_| ())
    .map_err(|e| {
        anyhow!(
            "could not set the next {column} of {}: {}",
            sync.comparison.target,
            describe(&e)
        )
    })
}

/// Parts of statements for a table.
struct Sql<'a> {
    sync: &'a SyncTable,
    /// The target's table without those that inherit from it.
    table: String,
    list: String,
    /// The columns of the temporary tables, in the types of the target's.
    values: String,
}

impl<'a> Sql<'a> {
    fn of(sync: &'a SyncTable) -> Self {
        let list: Vec<String> = sync
            .columns
            .iter()
            .map(|(_, c, _)| quote_ident(c))
            .collect();
        let values: Vec<String> = sync
            .columns
            .iter()
            .map(|(_, c, codec)| forms::cast(&quote_ident(c), codec.pg))
            .collect();
        Self {
            sync,
            table: format!("ONLY {}", sync.qualified()),
            list: list.join(", "),
            values: values.join(", "),
        }
    }

    /// Equal keys; `t` is the target's table, all others are temporary.
    fn key(&self, a: &str, b: &str) -> String {
        let side = |of: &str, other: &str, k: &String| {
            let name = format!("{of}.{}", quote_ident(k));
            let codec = self.sync.columns.iter().find(|(_, c, _)| c == k);
            match codec {
                Some((_, _, codec)) if other == "t" => forms::cast(&name, codec.pg),
                _ => name,
            }
        };
        let parts: Vec<String> = self
            .sync
            .key
            .iter()
            .map(|k| format!("{} = {}", side(a, b, k), side(b, a, k)))
            .collect();
        parts.join(" AND ")
    }

    /// All values equal; `json` has no equality of its own.
    fn same(&self, a: &str, b: &str) -> String {
        let parts: Vec<String> = self
            .sync
            .columns
            .iter()
            .map(|(_, c, codec)| {
                let cast = if codec.pg == PgType::Json || codec.pg.is_other() {
                    "::text"
                } else {
                    ""
                };
                format!(
                    "{a}.{0}{cast} IS NOT DISTINCT FROM {b}.{0}{cast}",
                    quote_ident(c)
                )
            })
            .collect();
        parts.join(" AND ")
    }

    /// All values as texts, which can always be grouped.
    fn texts(&self, a: &str) -> String {
        let parts: Vec<String> = self
            .sync
            .columns
            .iter()
            .map(|(_, c, _)| format!("{a}.{}::text", quote_ident(c)))
            .collect();
        parts.join(", ")
    }

    fn texts_named(&self, a: &str) -> String {
        let parts: Vec<String> = self
            .sync
            .columns
            .iter()
            .map(|(_, c, _)| format!("{a}.{0}::text AS {0}", quote_ident(c)))
            .collect();
        parts.join(", ")
    }

    fn same_texts(&self, a: &str, b: &str) -> String {
        let parts: Vec<String> = self
            .sync
            .columns
            .iter()
            .map(|(_, c, _)| format!("{a}.{0} IS NOT DISTINCT FROM {b}.{0}", quote_ident(c)))
            .collect();
        parts.join(" AND ")
    }
}
