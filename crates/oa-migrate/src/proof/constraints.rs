//! What the proof checks beside the rows: that constraints are valid and that identities will not give a number that is there.

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use postgres::GenericClient;

/// Looks at one table. Returns findings in sentences; none means all is well.
pub(crate) fn check(
    client: &mut impl GenericClient,
    schema: &str,
    table: &str,
) -> Result<Vec<String>> {
    let explain = |e: postgres::Error| {
        anyhow!(
            "could not check the constraints of {table}: {}",
            describe(&e)
        )
    };
    let mut findings = Vec::new();
    let rows = client
        .query(
            "SELECT k.conname::text, pg_get_constraintdef(k.oid) FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND NOT k.convalidated
             UNION ALL
             SELECT i.relname::text, 'index that is not valid' FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
             JOIN pg_class c ON c.oid = x.indrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE n.nspname = $1 AND c.relname = $2 AND NOT (x.indisvalid AND x.indisready)",
            &[&schema, &table],
        )
        .map_err(explain)?;
    for row in rows {
        findings.push(format!(
            "{} is not valid: {}",
            row.get::<_, String>(0),
            row.get::<_, String>(1)
        ));
    }
    let identities = client
        .query(
            "SELECT a.attname::text, s.oid::regclass::text FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             JOIN pg_depend d ON d.refobjid = c.oid AND d.refobjsubid = a.attnum AND d.classid = 'pg_class'::regclass AND d.deptype = 'i'
             JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S'
             WHERE n.nspname = $1 AND c.relname = $2 AND a.attidentity <> ''",
            &[&schema, &table],
        )
        .map_err(explain)?;
    for row in identities {
        let (column, sequence): (String, String) = (row.get(0), row.get(1));
        let row = client
            .query_one(
                &format!(
                    "SELECT s.last_value, s.is_called, (SELECT max({})::int8 FROM {}.{}) FROM {sequence} AS s",
                    quote_ident(&column),
                    quote_ident(schema),
                    quote_ident(table)
                ),
                &[],
            )
            .map_err(explain)?;
        let (last, is_called, highest): (i64, bool, Option<i64>) =
            (row.get(0), row.get(1), row.get(2));
        // One that has given the last number there is gives none twice.
        let next = match is_called {
            true => last.checked_add(1),
            false => Some(last),
        };
        if let (Some(next), Some(highest)) = (next, highest)
            && next <= highest
        {
            findings.push(format!(
                "the next {column} would be {next}, but {highest} exists already"
            ));
        }
    }
    Ok(findings)
}
