//! A rehearsal uses up no numbers of the target's sequences, which no rollback gives back.

use std::collections::BTreeMap;

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, quote_ident, quote_literal};
use postgres::Transaction;

/// Lets the defaults of a table take their numbers from new sequences in `schema`, which go on from where the real ones are. Columns that
/// are `given` a value take none, and are left alone: whoever reads the table waits for what alters it.
pub(crate) fn stand_in(
    tx: &mut Transaction<'_>,
    table: &str,
    schema: &str,
    given: &[&str],
) -> Result<()> {
    let explain = |e: postgres::Error| explain(table, &e);
    let rows = tx
        .query(
            "SELECT a.attname::text, pg_get_expr(d.adbin, d.adrelid), q.oid::regclass::text, format('oa_numbers_%s_%s', d.adrelid, q.oid),
                    format('AS %s INCREMENT %s MINVALUE %s MAXVALUE %s START %s%s', format_type(s.seqtypid, NULL), s.seqincrement, s.seqmin, s.seqmax, s.seqstart,
                           CASE WHEN s.seqcycle THEN ' CYCLE' ELSE '' END),
                    CASE WHEN has_sequence_privilege(q.oid, 'USAGE, SELECT') THEN pg_sequence_last_value(q.oid) END
             FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated = ''
             JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass
             JOIN pg_class q ON q.oid = p.refobjid AND q.relkind = 'S' JOIN pg_sequence s ON s.seqrelid = q.oid
             WHERE d.adrelid = $1::text::regclass AND a.attname::text <> ALL ($2::text[])",
            &[&table, &given],
        )
        .map_err(explain)?;
    let mut defaults: BTreeMap<String, String> = BTreeMap::new();
    for row in &rows {
        let (column, default, sequence): (String, String, String) =
            (row.get(0), row.get(1), row.get(2));
        let name = format!("{}.{}", quote_ident(schema), row.get::<_, String>(3));
        let mut sql = format!(
            "CREATE SEQUENCE IF NOT EXISTS {name} {}",
            row.get::<_, String>(4)
        );
        if let Some(last) = row.get::<_, Option<i64>>(5) {
            sql.push_str(&format!(
                "; SELECT setval({}, {last})",
                quote_literal(&name)
            ));
        }
        tx.batch_execute(&sql).map_err(explain)?;
        let of = |sequence: &str| format!("{}::regclass", quote_literal(sequence));
        let known = defaults.entry(column).or_insert(default);
        *known = known.replace(&of(&sequence), &of(&name));
    }
    for (column, default) in &defaults {
        tx.batch_execute(&format!(
            "ALTER TABLE ONLY {table} ALTER COLUMN {} SET DEFAULT {default}",
            quote_ident(column)
        ))
        .map_err(explain)?;
    }
    Ok(())
}

/// The same for the identities of a table, until the transaction is rolled back: a sequence that it has restarted is its own.
pub(crate) fn restart_identities(
    tx: &mut Transaction<'_>,
    table: &str,
    given: &[&str],
) -> Result<()> {
    let explain = |e: postgres::Error| explain(table, &e);
    let rows = tx
        .query(
            "SELECT quote_ident(a.attname), s.seqrelid::regclass::text, s.seqincrement, s.seqmin, s.seqmax
             FROM pg_attribute a JOIN pg_depend p ON p.classid = 'pg_class'::regclass AND p.refclassid = 'pg_class'::regclass AND p.refobjid = a.attrelid
                  AND p.refobjsubid = a.attnum AND p.deptype = 'i'
             JOIN pg_sequence s ON s.seqrelid = p.objid WHERE a.attidentity <> '' AND a.attrelid = $1::text::regclass
                  AND a.attname::text <> ALL ($2::text[])",
            &[&table, &given],
        )
        .map_err(explain)?;
    for row in &rows {
        let (column, sequence): (String, String) = (row.get(0), row.get(1));
        let (step, least, most): (i64, i64, i64) = (row.get(2), row.get(3), row.get(4));
        let state = tx
            .query_one(
                &format!("SELECT last_value, is_called FROM {sequence}"),
                &[],
            )
            .map_err(explain)?;
        let (last, called): (i64, bool) = (state.get(0), state.get(1));
        let next = if called {
            last.checked_add(step)
        } else {
            Some(last)
        };
        // One that has used its last number gives none.
        if let Some(next) = next.filter(|n| (least..=most).contains(n)) {
            tx.batch_execute(&format!(
                "ALTER TABLE {table} ALTER COLUMN {column} RESTART WITH {next}"
            ))
            .map_err(explain)?;
        }
    }
    Ok(())
}

fn explain(table: &str, e: &postgres::Error) -> anyhow::Error {
    anyhow!(
        "could not make stand-ins for the sequences of {table}: {}",
        describe(e)
    )
}
