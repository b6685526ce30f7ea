//! What would make a run fail at its end or wait there, looked for before anything is loaded, in a rehearsal too.

use std::fs;

use anyhow::{Result, anyhow};
use oa_core::pg::describe;
use postgres::Client;

use super::{PgType, Plan};
use crate::errors::Refused;
use crate::inspect::scan::ColumnStats;

/// What PostgreSQL's tables can have.
const MAX_COLUMNS: usize = 1600;

fn explain(e: &postgres::Error) -> anyhow::Error {
    anyhow!(
        "could not look at the target before the run: {}",
        describe(e)
    )
}

/// Refuses what cannot work, and notes in the plan what may have to wait.
pub(crate) fn check(client: &mut Client, plan: &mut Plan, connections: usize) -> Result<()> {
    limits(plan)?;
    free_connections(client, connections)?;
    names_of_types(client, plan)?;
    references(client, plan)?;
    room(client, plan)?;
    locks(client, plan)
}

/// Rows of fewer bytes are stored as they are; longer values may be compressed.
const UNCOMPRESSED: u64 = 1000;

/// How many bytes a column's values take at least: a time has more letters in SQLite than bytes in PostgreSQL.
fn least_bytes(pg: PgType, stats: &ColumnStats, compressed: bool) -> u64 {
    match pg {
        PgType::Text | PgType::Varchar(_) | PgType::Bytea | PgType::Json => {
            let numbers = 8 * (stats.integers + stats.reals);
            if compressed || stats.longest >= UNCOMPRESSED {
                0
            } else {
                stats.bytes.saturating_sub(numbers)
            }
        }
        PgType::Bool => stats.values(),
        PgType::Int2 => 2 * stats.values(),
        PgType::Int4 | PgType::Date => 4 * stats.values(),
        PgType::Int8
        | PgType::Float8
        | PgType::Time
        | PgType::Timestamp(_)
        | PgType::Timestamptz(_) => 8 * stats.values(),
        PgType::Numeric(_) | PgType::Jsonb | PgType::Interval | PgType::Other(_) => 0,
    }
}

/// How many bytes a plan's tables need on the server: at least, and probably.
fn bytes_needed(plan: &Plan) -> (u64, u64) {
    let (mut least, mut probably) = (0, 0);
    for table in &plan.tables {
        let (rows, columns) = (table.stats.rows, &table.stats.columns);
        let values: u64 = columns.iter().map(|c| c.bytes).sum();
        least += 28 * rows;
        let compressed = values / rows.max(1) >= UNCOMPRESSED;
        let stored = table.columns.iter().zip(columns);
        least += stored
            .map(|(column, stats)| least_bytes(column.pg, stats, compressed))
            .sum::<u64>();
        let keys = table.indexes.len() as u64 + u64::from(!table.primary_key.is_empty());
        let with_indexes = (values + 44 * rows + 24 * rows * keys) / 20 * 21;
        // What goes into a table that exists is beside it first.
        probably += with_indexes * if table.existing.is_some() { 2 } else { 1 };
    }
    (least, probably)
}

/// Whether the server's disk has room for the tables, where that can be found out: it must be this machine's.
fn room(client: &mut Client, plan: &mut Plan) -> Result<()> {
    // Settings of a superuser are shown to few.
    let row = client
        .query_one(
            "SELECT coalesce(nullif(pg_tablespace_location(coalesce(t.oid, d.dattablespace)), ''), (SELECT setting FROM pg_settings WHERE name = 'data_directory')),
                    pg_backend_pid()
             FROM pg_database d LEFT JOIN pg_tablespace t ON t.spcname = current_setting('default_tablespace') WHERE d.datname = current_database()",
            &[],
        )
        .map_err(|e| explain(&e))?;
    let (folder, pid): (Option<String>, i32) = (row.get(0), row.get(1));
    let (least, probably) = bytes_needed(plan);
    let on_this_machine = fs::read_to_string(format!("/proc/{pid}/comm"))
        .is_ok_and(|name| name.trim_end().starts_with("postgres"));
    let disk = folder
        .as_ref()
        .filter(|_| on_this_machine)
        .and_then(|f| rustix::fs::statvfs(f).ok());
    let (Some(folder), Some(disk)) = (folder, disk) else {
        tracing::info!(
            "the tables will take about {} MB on the server; how much is free there is not known",
            probably.div_ceil(1 << 20)
        );
        return Ok(());
    };
    let free = disk.f_bavail * disk.f_frsize;
    let text = |needed: u64| {
        format!(
            "the tables take {} MB on the server, and {} MB are free in {folder}",
            needed.div_ceil(1 << 20),
            free >> 20
        )
    };
    if free < least {
        return Err(Refused(format!(
            "{}; nothing was changed. Free space there, or leave tables out with --exclude",
            text(least)
        ))
        .into());
    }
    if free < probably {
        let warning = format!("{}: that is probably not enough", text(probably));
        tracing::warn!("{warning}");
        plan.warnings.push(warning);
    }
    Ok(())
}

fn limits(plan: &Plan) -> Result<()> {
    for table in &plan.tables {
        if table.columns.len() > MAX_COLUMNS {
            return Err(Refused(format!(
                "table {} has {} columns, and PostgreSQL's tables can have {MAX_COLUMNS}; nothing was changed. Leave it out with --exclude, or split it",
                table.source.name,
                table.columns.len()
            ))
            .into());
        }
    }
    Ok(())
}

fn free_connections(client: &mut Client, needed: usize) -> Result<()> {
    let row = client
        .query_one(
            "SELECT least(
               CASE WHEN r.rolsuper THEN NULL ELSE current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
                 - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend') END,
               CASE WHEN r.rolconnlimit < 0 THEN NULL ELSE r.rolconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE usesysid = r.oid) END,
               CASE WHEN d.datconnlimit < 0 OR r.rolsuper THEN NULL ELSE d.datconnlimit - (SELECT count(*) FROM pg_stat_activity WHERE datid = d.oid) END)::int8
             FROM pg_roles r, pg_database d WHERE r.rolname = current_user AND d.datname = current_database()",
            &[],
        )
        .map_err(|e| explain(&e))?;
    if let Some(free) = row.get::<_, Option<i64>>(0)
        && usize::try_from(free).unwrap_or(0) < needed
    {
        return Err(Refused(format!(
            "PostgreSQL has {} free connection(s) for this role, and {needed} more are needed; nothing was changed. Use fewer --jobs, or end other sessions",
            free.max(0)
        ))
        .into());
    }
    Ok(())
}

/// A table's name is also that of a type.
fn names_of_types(client: &mut Client, plan: &Plan) -> Result<()> {
    let new: Vec<&str> = plan
        .tables
        .iter()
        .filter(|t| t.existing.is_none())
        .map(|t| t.target.as_str())
        .collect();
    let taken = client
        .query_opt(
            "SELECT t.typname::text FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
             WHERE n.nspname = $1 AND t.typname = ANY ($2) AND t.typrelid = 0 AND NOT (t.typelem <> 0 AND t.typname LIKE '\\_%') LIMIT 1",
            &[&plan.schema, &new],
        )
        .map_err(|e| explain(&e))?;
    if let Some(row) = taken {
        let name: String = row.get(0);
        return Err(Refused(format!(
            "schema {} has a type {name}, so no table can have that name; nothing was changed. Give the table another name with --mapping ([tables.{name}] target = \"…\"), or use another --schema",
            plan.schema
        ))
        .into());
    }
    Ok(())
}

/// Foreign keys of the target's tables are made again, for which the role needs a privilege on the other table.
fn references(client: &mut Client, plan: &Plan) -> Result<()> {
    let there = existing(plan);
    let refused = client
        .query_opt(
            "SELECT k.confrelid::regclass::text, current_user::text FROM pg_constraint k
             WHERE k.contype = 'f' AND k.conparentid = 0 AND k.conrelid = ANY ($1::text[]::regclass[]) AND NOT has_table_privilege(k.confrelid, 'REFERENCES') LIMIT 1",
            &[&there],
        )
        .map_err(|e| explain(&e))?;
    if let Some(row) = refused {
        return Err(Refused(format!(
            "a foreign key refers to table {0}, and role {1} may not make such keys; nothing was changed. As the owner of {0}: GRANT REFERENCES ON {0} TO {1}",
            row.get::<_, String>(0),
            row.get::<_, String>(1)
        ))
        .into());
    }
    Ok(())
}

/// Sessions that hold tables which are to take rows, or have for long held anything.
fn locks(client: &mut Client, plan: &mut Plan) -> Result<()> {
    let rows = client
        .query(
            "SELECT format('session %s (%s, %s for %s s) holds %s', a.pid, coalesce(nullif(a.application_name, ''), a.usename::text, 'unknown'),
                           coalesce(a.state, 'busy'), extract(epoch FROM clock_timestamp() - a.xact_start)::int8, string_agg(DISTINCT l.relation::regclass::text, ', '))
             FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
             WHERE l.granted AND l.locktype = 'relation' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND l.pid <> pg_backend_pid() AND l.relation = ANY ($1::text[]::regclass[])
             GROUP BY a.pid, a.application_name, a.usename, a.state, a.xact_start",
            &[&existing(plan)],
        )
        .map_err(|e| explain(&e))?;
    for row in &rows {
        plan.warnings.push(format!(
            "{}; the run needs these tables for itself at its end and waits up to a minute for them: end that session's transaction before",
            row.get::<_, String>(0)
        ));
    }
    Ok(())
}

fn existing(plan: &Plan) -> Vec<&str> {
    plan.tables
        .iter()
        .filter(|t| t.existing.is_some())
        .map(|t| t.qualified.as_str())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_column_takes_at_least_is_no_more_than_it_takes() {
        let times = ColumnStats {
            texts: 1000,
            longest: 26,
            bytes: 26_000,
            ..ColumnStats::default()
        };
        assert_eq!(least_bytes(PgType::Timestamp(6), &times, false), 8000);
        assert_eq!(least_bytes(PgType::Text, &times, false), 26_000);
        assert_eq!(least_bytes(PgType::Text, &times, true), 0);
        let flags = ColumnStats {
            integers: 1000,
            bytes: 8000,
            ..ColumnStats::default()
        };
        assert_eq!(least_bytes(PgType::Bool, &flags, false), 1000);
        assert_eq!(least_bytes(PgType::Text, &flags, false), 0);
    }
}
