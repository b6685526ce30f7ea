//! What the tables hold at one LSN, so that a restore up to there can be compared with it.
//!
//! The snapshot of a transaction and an LSN belong together when nothing was written between asking for the LSN and
//! taking the snapshot, and no transaction with writes was under way then: its end would be before or after the LSN by chance.
//! On a busy server that moment may not come; then the fingerprint says so.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use oa_core::pg::{describe, quote_ident};
use postgres::{Client, IsolationLevel, Transaction};

use crate::{ContentFingerprint, Lsn, PostgresError, TableFingerprint};

/// So often a quiet moment is looked for.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// Rows at each end of a table, in the order of its key, that are hashed.
const HASHED: u32 = 500;
/// Reading the same values back must give the same text, whoever reads. For a transaction.
pub const SAME_TEXT: &str = "SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL xmloption = 'content'; SET LOCAL search_path = pg_catalog;
    SET LOCAL row_security = off";

/// Takes the fingerprints of the tables that this role can read, for at most `budget`; tables for which no time is left are not in it.
pub fn take(
    client: &mut Client,
    standby: bool,
    budget: Duration,
) -> Result<ContentFingerprint, PostgresError> {
    let failed = PostgresError::query("could not record what the tables hold");
    let (until, quiet_until) = (Instant::now() + budget, Instant::now() + budget / 2);
    let lsn_of = if standby {
        "pg_last_wal_replay_lsn()"
    } else {
        "pg_current_wal_insert_lsn()"
    };
    let lsn_query = format!("SELECT ({lsn_of} - '0/0'::pg_lsn)::int8");
    let snapshot_query = format!(
        "SELECT ({lsn_of} - '0/0'::pg_lsn)::int8, pg_snapshot_xmin(s) = pg_snapshot_xmax(s) FROM pg_current_snapshot() s"
    );
    for round in 1.. {
        let before: i64 = client.query_one(&lsn_query, &[]).map_err(&failed)?.get(0);
        let mut tx = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .map_err(&failed)?;
        let row = tx.query_one(&snapshot_query, &[]).map_err(&failed)?;
        let (after, idle): (i64, bool) = (row.get(0), row.get(1));
        let exact = before == after && idle;
        if !exact && round < TRIES && Instant::now() + PAUSE < quiet_until {
            drop(tx);
            thread::sleep(PAUSE);
            continue;
        }
        let tables = tables(&mut tx, until)?;
        return Ok(ContentFingerprint {
            lsn: Lsn(after.cast_unsigned()),
            exact,
            tables,
        });
    }
    unreachable!("the loop ends at the latest with its last round")
}

/// Counts and hashes in the caller's transaction, as [`take`] does; for comparing a restored database.
pub fn tables(
    tx: &mut Transaction<'_>,
    until: Instant,
) -> Result<BTreeMap<String, TableFingerprint>, PostgresError> {
    let failed = PostgresError::query("could not record what the tables hold");
    tx.batch_execute(SAME_TEXT).map_err(&failed)?;
    let found = tx
        .query(
            "SELECT n.nspname::text, c.relname::text, c.relrowsecurity AND row_security_active(c.oid),
                    (SELECT array_agg(a.attname::text ORDER BY k.ord) FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k(attnum, ord), pg_attribute a
                     WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND a.attnum = k.attnum)
             FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
               AND has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(c.oid, 'SELECT')
             ORDER BY c.relpages, n.nspname, c.relname",
            &[],
        )
        .map_err(&failed)?;
    let mut fingerprints = BTreeMap::new();
    for row in &found {
        let (schema, table): (String, String) = (row.get(0), row.get(1));
        if row.get(2) {
            // It would be counted as this role sees it, and nobody else does.
            tracing::info!(
                "{schema}.{table} is not counted for the drill: row security hides rows of it from this role; as a superuser: ALTER ROLE … BYPASSRLS"
            );
            continue;
        }
        let key: Option<Vec<String>> = row.get(3);
        let left = until.saturating_duration_since(Instant::now());
        if left < Duration::from_millis(20) {
            tracing::info!("no time left to count {schema}.{table} and larger tables");
            break;
        }
        let mut point = tx.savepoint("oa_mark").map_err(&failed)?;
        point
            .batch_execute(&format!(
                "SET LOCAL statement_timeout = {}",
                left.as_millis()
            ))
            .map_err(&failed)?;
        match fingerprint_of(&mut point, &schema, &table, key.as_deref()) {
            Ok(fingerprint) => {
                fingerprints.insert(format!("{schema}.{table}"), fingerprint);
                point.commit().map_err(&failed)?;
            }
            Err(e) if e.code().is_some() => {
                tracing::info!("could not count {schema}.{table}: {}", describe(&e));
                point.rollback().map_err(&failed)?;
            }
            Err(e) => return Err(failed(e)),
        }
    }
    Ok(fingerprints)
}

fn fingerprint_of(
    tx: &mut Transaction<'_>,
    schema: &str,
    table: &str,
    key: Option<&[String]>,
) -> Result<TableFingerprint, postgres::Error> {
    let name = format!("{}.{}", quote_ident(schema), quote_ident(table));
    let rows: i64 = tx
        .query_one(&format!("SELECT count(*) FROM ONLY {name}"), &[])?
        .get(0);
    let hash = match key {
        Some(key) if !key.is_empty() => {
            let order = |direction: &str| {
                let parts: Vec<String> = key
                    .iter()
                    .map(|column| format!("{} {direction}", quote_ident(column)))
                    .collect();
                parts.join(", ")
            };
            let sql = format!(
                "SELECT md5(coalesce(string_agg(h, '' ORDER BY side, n), '')) FROM (
                   SELECT 1 AS side, row_number() OVER () AS n, md5(t::text) AS h FROM (SELECT * FROM ONLY {name} ORDER BY {} LIMIT {HASHED}) t
                   UNION ALL
                   SELECT 2, row_number() OVER (), md5(t::text) FROM (SELECT * FROM ONLY {name} ORDER BY {} LIMIT {HASHED}) t) x",
                order("ASC"),
                order("DESC")
            );
            Some(tx.query_one(&sql, &[])?.get(0))
        }
        _ => None,
    };
    Ok(TableFingerprint {
        rows: rows.cast_unsigned(),
        hash,
    })
}
