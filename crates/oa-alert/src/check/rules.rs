//! Rules that PostgreSQL answers.

use std::time::Instant;

use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::base::text::error_text;
use oa_core::model::event::Finding;
use postgres::Client;

use super::seconds_since;

pub(super) fn find(
    client: &mut Client,
    host: &str,
    config: &Config,
) -> Result<Vec<Finding>, postgres::Error> {
    let mut found = partial(client, config)?;
    found.extend(too_long(client, config)?);
    found.extend(connections(client, config)?);
    found.extend(wal_held(client, config)?);
    found.extend(clock(client, host, config)?);
    Ok(found)
}

/// A first incomplete run is a warning (`run_partial`) that is not repeated for hours.
fn partial(client: &mut Client, config: &Config) -> Result<Vec<Finding>, postgres::Error> {
    let limit = i64::from(config.alert.partial_limit);
    let rows = client.query(
        "SELECT t.name, t.title, coalesce(last.error, ''), t.last_success_at
         FROM oa.tasks t, LATERAL (
           SELECT count(*) FILTER (WHERE x.status = 'partial') AS partial, (array_agg(x.error_message ORDER BY x.seq DESC))[1] AS error FROM (
             SELECT r.seq, r.status, r.error_message FROM oa.runs r
             WHERE r.task = t.name AND r.finished_at IS NOT NULL AND r.status <> 'skipped' AND r.trigger <> 'backfill' AND NOT r.other_day
             ORDER BY r.seq DESC LIMIT $1) x) last
         WHERE t.schedule IS NOT NULL AND last.partial = $1 ORDER BY t.name",
        &[&limit],
    )?;
    let finding = |row: &postgres::Row| Finding::PartialStreak {
        task: row.get(0),
        title: row.get(1),
        times: config.alert.partial_limit,
        error: error_text(row.get(2)),
        last_success_at: row.get(3),
    };
    Ok(rows.iter().map(finding).collect())
}

fn too_long(client: &mut Client, config: &Config) -> Result<Vec<Finding>, postgres::Error> {
    let rows = client.query(
        "SELECT r.task, coalesce(t.title, ''), min(r.started_at), min(r.host), now() FROM oa.runs r LEFT JOIN oa.tasks t ON t.name = r.task
         WHERE r.finished_at IS NULL AND r.started_at < now() - make_interval(secs => $1)
           AND NOT EXISTS (SELECT FROM oa.attempts a WHERE a.run_id = r.id AND a.finished_at > now() - make_interval(secs => $1))
         GROUP BY r.task, t.title",
        &[&config.alert.running_limit.0.as_secs_f64()],
    )?;
    let finding = |row: &postgres::Row| {
        let started_at = row.get(2);
        Finding::RunTooLong {
            task: row.get(0),
            title: row.get(1),
            started_at,
            lasts: seconds_since(started_at, row.get(4)),
            host: row.get(3),
        }
    };
    Ok(rows.iter().map(finding).collect())
}

fn connections(client: &mut Client, config: &Config) -> Result<Option<Finding>, postgres::Error> {
    // pg_stat_activity shows only one's own sessions to a role without pg_read_all_stats.
    let row = client.query_one(
        "SELECT coalesce(sum(pg_stat_get_db_numbackends(oid)), 0)::bigint, current_setting('max_connections')::bigint FROM pg_database",
        &[],
    )?;
    let (used, limit): (i64, i64) = (row.get(0), row.get(1));
    let many = used as f64 > limit as f64 * config.alert.connections_share;
    Ok(many.then_some(Finding::Connections { used, limit }))
}

fn wal_held(client: &mut Client, config: &Config) -> Result<Vec<Finding>, postgres::Error> {
    let limit = i64::try_from(config.alert.wal_limit.0).unwrap_or(i64::MAX);
    let rows = client.query(
        "SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
         WHERE NOT pg_is_in_recovery() AND NOT active AND restart_lsn IS NOT NULL
           AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > $1::bigint",
        &[&limit],
    )?;
    let finding = |row: &postgres::Row| Finding::WalHeld {
        slot: row.get(0),
        bytes: row.get::<_, i64>(1).unsigned_abs(),
    };
    Ok(rows.iter().map(finding).collect())
}

fn clock(
    client: &mut Client,
    host: &str,
    config: &Config,
) -> Result<Option<Finding>, postgres::Error> {
    let (before, asked) = (Utc::now(), Instant::now());
    let theirs: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[])?.get(0);
    let ours = before + asked.elapsed() / 2;
    let off = (theirs - ours).abs().to_std().unwrap_or_default();
    Ok(
        (off > config.alert.clock_limit.0).then(|| Finding::ClockOff {
            host: host.to_owned(),
            seconds: off.as_secs_f64().round() as u64,
        }),
    )
}
