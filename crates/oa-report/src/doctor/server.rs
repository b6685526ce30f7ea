//! PostgreSQL: whether it can be reached and keeps what it confirms, the schema, the roles, the clock, and by what the programs have left
//! there, whether anything really starts them.

use std::path::Path;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::base::trust::quoted;
use oa_core::pg::schema::SchemaError;
use oa_core::pg::{self, ConnectError, Settings, describe, schema};
use postgres::{Client, Error};

use super::{Findings, State, access, certificates, edit, schedule};
use crate::PROGRAM;
use crate::queries::watch::{self, Fault};

/// What is started each minute and was not for so long is started no more, in seconds.
pub(super) const SILENT: f64 = 300.0;
/// autovacuum freezes rows at 200 million transactions, whatever else it does.
const OLD_TRANSACTIONS: i32 = 1_000_000_000;
/// The oldest version that the programs are tested with.
const OLDEST: i32 = 150_000;

pub(super) fn look(config: &Config, findings: &mut Findings) {
    let settings = match Settings::from_config(config, PROGRAM) {
        Ok(settings) => settings,
        Err(e) => return findings.error("database", e.to_string(), edit_secrets(config)),
    };
    let addresses = addresses(config, &settings);
    let mut client = match pg::connect(&settings) {
        Ok(client) => client,
        Err(e) => {
            // Servers that do not answer are asked for nothing more.
            let asked = match &e {
                ConnectError::Tls { .. } => &addresses[..],
                _ => &[],
            };
            let mut seen = Findings::default();
            certificates::of_databases(config, asked, Utc::now(), &mut seen);
            let why = seen.lines.iter().find(|line| line.state == State::Error);
            let mend = why.and_then(|line| line.command.clone());
            findings.error(
                "database",
                e.to_string(),
                mend.unwrap_or_else(|| connect_by(config, &e)),
            );
            findings.lines.extend(seen.lines);
            certificates::elsewhere(config, Utc::now(), findings);
            return;
        }
    };
    let asked = settled(&mut client, config, findings)
        .and_then(|()| clock(&mut client, config, findings))
        .and_then(|()| wal(&mut client, config, findings))
        .and_then(|()| Ok(client.query_one("SELECT now()", &[])?.get(0)));
    let lacking = asked.and_then(|now| {
        certificates::look(config, &addresses, now, findings);
        access::rights(&mut client, findings)
    });
    let lacking = match lacking {
        Ok(lacking) => lacking,
        Err(e) => return findings.error("database", describe(&e), "oa-report doctor"),
    };
    if let Err(e) = schema::check(&mut client) {
        // What may not be read is said already.
        if lacking && matches!(e, SchemaError::Query(_)) {
            return;
        }
        let command = match &e {
            SchemaError::Newer { .. } => {
                "sudo apt-get install oa   # or scripts/install of the newer version"
            }
            SchemaError::Query(_) => "oa-report doctor",
            _ => "oa-migrate init",
        };
        return findings.error("schema", e.to_string(), command);
    }
    findings.ok("schema", format!("version {}", schema::needed()));
    let asked = access::logins(&mut client, config, findings)
        .and_then(|()| access::functions(&mut client, findings))
        .and_then(|()| firing(&mut client, findings))
        .and_then(|()| proven(&mut client, config, findings))
        .and_then(|()| slots(&mut client, config, findings));
    if let Err(e) = asked {
        findings.error("database", describe(&e), "oa-report doctor");
    }
    access::reader(config, findings);
}

/// All addresses of the configuration, that of the programs first.
fn addresses(config: &Config, first: &Settings) -> Vec<Settings> {
    let backup = config.backup.as_ref().and_then(|b| b.database_url.as_ref());
    let more = config
        .report
        .database_url
        .as_ref()
        .into_iter()
        .chain(backup);
    let more = more.filter_map(|reference| config.secret(reference, "database_url").ok());
    let with = |url| Settings {
        url,
        ..first.clone()
    };
    [first.clone()].into_iter().chain(more.map(with)).collect()
}

/// Opens the file with the database's address.
pub(super) fn edit_secrets(config: &Config) -> String {
    let env = config.path.with_file_name(".env");
    edit(if env.exists() { &env } else { &config.path })
}

fn connect_by(config: &Config, error: &ConnectError) -> String {
    match error {
        ConnectError::Unreachable { hosts, .. } => {
            let here = |host: &str| {
                host.starts_with('/') || host.starts_with("127.") || host.starts_with("localhost")
            };
            match hosts.split(", ").any(here) {
                true => "pg_lsclusters; sudo systemctl start postgresql".to_owned(),
                false => "sudo systemctl start postgresql   # on that machine".to_owned(),
            }
        }
        ConnectError::Database { .. } => {
            "sudo -u postgres createdb --owner=ROLE DATABASE".to_owned()
        }
        ConnectError::Limit(_) => "ulimit -a   # as the user who runs it".to_owned(),
        ConnectError::Address(_) | ConnectError::Login { .. } | ConnectError::Tls { .. } => {
            edit_secrets(config)
        }
    }
}

/// A server that confirms what it does not keep, or that takes nothing.
fn settled(client: &mut Client, config: &Config, findings: &mut Findings) -> Result<(), Error> {
    let row = client.query_one(
        "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), current_setting('server_encoding'),
                pg_is_in_recovery(), current_setting('default_transaction_read_only')::bool, current_setting('fsync')::bool,
                current_setting('full_page_writes')::bool, current_setting('synchronous_commit'), current_setting('data_checksums')::bool,
                current_setting('is_superuser')::bool, quote_ident(current_user), quote_ident(current_database()),
                current_setting('autovacuum')::bool AND current_setting('track_counts')::bool, (SELECT max(age(datfrozenxid)) FROM pg_database)",
        &[],
    )?;
    let (version, shown, encoding): (i32, String, String) = (row.get(0), row.get(1), row.get(2));
    let (role, database): (String, String) = (row.get(10), row.get(11));
    let before = findings.lines.len();
    if version >= OLDEST {
        collation(client, findings)?;
    } else {
        let detail = format!("PostgreSQL {shown} is too old; the programs need 15 or newer");
        findings.error("database", detail, "sudo pg_upgradecluster VERSION main");
    }
    if encoding != "UTF8" {
        findings.error(
            "database",
            format!("the encoding of {database} is {encoding}: Chinese texts may not fit; it must be UTF8"),
            format!("sudo -u postgres createdb --template=template0 --encoding=UTF8 --owner={role} NEW_NAME"),
        );
    }
    if row.get(3) {
        findings.error(
            "database",
            "it is a standby, which takes nothing; name the primary",
            edit_secrets(config),
        );
    } else if row.get(4) {
        findings.error(
            "database",
            "default_transaction_read_only is on: nothing can be written",
            format!("psql -d {database} -c 'ALTER ROLE {role} RESET default_transaction_read_only'   # or ALTER DATABASE"),
        );
    }
    for (name, on) in [("fsync", row.get(5)), ("full_page_writes", row.get(6))] {
        let on: bool = on;
        if !on {
            findings.error(
                "database",
                format!("{name} is off: a power cut destroys the database"),
                format!("sudo -u postgres psql -c 'ALTER SYSTEM SET {name} = on' -c 'SELECT pg_reload_conf()'"),
            );
        }
    }
    let commit: String = row.get(7);
    if commit == "off" {
        findings.warn(
            "database",
            "synchronous_commit is off: a power cut loses what was confirmed last",
            "sudo -u postgres psql -c 'ALTER SYSTEM SET synchronous_commit = on' -c 'SELECT pg_reload_conf()'",
        );
    }
    if !row.get::<_, bool>(12) {
        findings.warn(
            "database",
            "autovacuum or track_counts is off: tables grow, plans get worse, and at last the server takes nothing more",
            "sudo -u postgres psql -c 'ALTER SYSTEM SET autovacuum = on' -c 'ALTER SYSTEM SET track_counts = on' -c 'SELECT pg_reload_conf()'",
        );
    }
    let age: i32 = row.get(13);
    if age > OLD_TRANSACTIONS {
        findings.error(
            "database",
            format!("the oldest transaction is {age} transactions back; at 2100 million the server takes nothing more"),
            "sudo -u postgres vacuumdb --all --freeze",
        );
    }
    let checksums: bool = row.get(8);
    if !checksums {
        findings.warn(
            "database",
            "data checksums are off: a disk that returns wrong bytes goes unnoticed",
            format!(
                "D=$(sudo -u postgres psql -qAtc 'SHOW data_directory'); sudo systemctl stop postgresql && sudo -u postgres /usr/lib/postgresql/{}/bin/pg_checksums --enable -D \"$D\" && sudo systemctl start postgresql",
                version / 10_000
            ),
        );
    }
    if row.get(9) {
        findings.warn(
            "roles",
            format!("{role} is a superuser; the programs need none"),
            "oa-migrate init --roles   # then the roles' addresses into the configuration: docs/configuration.md, Database roles",
        );
    }
    if findings.lines.len() == before {
        findings.ok(
            "database",
            format!("PostgreSQL {shown}, {database} as {role}"),
        );
    }
    Ok(())
}

/// A system's upgrade that sorts texts otherwise than the indexes were built: they no longer find what is there, and unique ones let in what is.
fn collation(client: &mut Client, findings: &mut Findings) -> Result<(), Error> {
    let row = client.query_opt(
        "SELECT quote_ident(datname) FROM pg_database
         WHERE datname = current_database() AND datcollversion IS NOT NULL
           AND datcollversion IS DISTINCT FROM pg_database_collation_actual_version(oid)",
        &[],
    )?;
    if let Some(row) = row {
        let database: String = row.get(0);
        findings.error(
            "database",
            format!("the system sorts texts otherwise than when {database} was made: its indexes may miss rows, and unique ones may take duplicates"),
            format!("sudo -u postgres psql -d {database} -c 'REINDEX DATABASE {database}' -c 'ALTER DATABASE {database} REFRESH COLLATION VERSION'"),
        );
    }
    Ok(())
}

fn clock(client: &mut Client, config: &Config, findings: &mut Findings) -> Result<(), Error> {
    let (before, asked) = (Utc::now(), Instant::now());
    let theirs: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[])?.get(0);
    let ours = before + asked.elapsed() / 2;
    let off = (theirs - ours).abs().to_std().unwrap_or_default();
    let detail = format!("{:.1} s from the database's", off.as_secs_f64());
    match off > config.alert.clock_limit.0 {
        true => findings.error("clock", detail, "sudo timedatectl set-ntp true"),
        false => findings.ok("clock", detail),
    }
    Ok(())
}

/// What makes the server keep its WAL until its disk is full.
fn wal(client: &mut Client, config: &Config, findings: &mut Findings) -> Result<(), Error> {
    let row = client.query_one(
        "SELECT current_setting('archive_mode') <> 'off' AND last_failed_time > coalesce(last_archived_time, '-infinity'),
                coalesce(last_failed_wal, ''), extract(epoch FROM now() - coalesce(last_archived_time, last_failed_time))::float8
         FROM pg_stat_archiver",
        &[],
    )?;
    if row.get::<_, Option<bool>>(0) == Some(true) {
        let (segment, since): (String, f64) = (row.get(1), row.get(2));
        findings.error(
            "wal",
            format!(
                "the server's archive_command fails ({segment}), for {} now: it keeps all WAL until its disk is full",
                ago(since)
            ),
            "sudo -u postgres psql -c 'SHOW archive_command'; sudo tail /var/log/postgresql/*.log",
        );
    }
    // Without a name in the configuration, oa-backup has chosen one that begins so.
    let is_ours = |slot: &str| {
        config.backup.as_ref().is_some_and(|b| match &b.slot {
            Some(name) => name == slot,
            None => slot.starts_with("oa_backup"),
        })
    };
    let limit = i64::try_from(config.alert.wal_limit.0).unwrap_or(i64::MAX);
    let held = client.query(
        "SELECT slot_name::text, NOT active AND bytes > $1::bigint, bytes::float8, current_setting('max_slot_wal_keep_size') = '-1'
         FROM (SELECT *, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) AS bytes FROM pg_replication_slots
               WHERE NOT pg_is_in_recovery() AND restart_lsn IS NOT NULL) s ORDER BY slot_name",
        &[&limit],
    )?;
    // Of several one is this service's; the others may be of services beside it, or of none any more.
    let alike = held.iter().filter(|row| is_ours(row.get(0))).count();
    for row in &held {
        let (slot, many, bytes): (String, bool, f64) = (row.get(0), row.get(1), row.get(2));
        let is_ours = is_ours(&slot);
        if many {
            findings.error(
                "wal",
                format!("nobody reads slot {slot}, which holds back {:.1} GiB of WAL: the server's disk fills", bytes / f64::from(1 << 30)),
                match is_ours {
                    true if alike > 1 => format!("oa-backup incremental   # also of other services that back this server up; if no service has the slot any more: SELECT pg_drop_replication_slot('{slot}')"),
                    true => "oa-backup incremental".to_owned(),
                    false => format!("sudo -u postgres psql -c \"SELECT pg_drop_replication_slot('{slot}')\"   # when nothing needs it any more"),
                },
            );
        } else if is_ours && row.get(3) {
            findings.warn(
                "wal",
                format!("max_slot_wal_keep_size has no limit: when backups stop, the WAL that slot {slot} holds back fills the server's disk"),
                "sudo -u postgres psql -c \"ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'\" -c 'SELECT pg_reload_conf()'",
            );
        }
    }
    Ok(())
}

/// Whether the channels have ever taken a message, and the last one.
fn proven(client: &mut Client, config: &Config, findings: &mut Findings) -> Result<(), Error> {
    for channel in &config.alert.channels {
        let row = client.query_one(
            "SELECT (SELECT took_last FROM oa.channels WHERE name = $1), EXISTS (SELECT FROM oa.deliveries WHERE channel = $1 AND state = 'sent')",
            &[&channel.name],
        )?;
        let check = format!("channel {}", channel.name);
        let test = format!("oa-alert test {}", quoted(Path::new(&channel.name)));
        match (row.get(0), row.get(1)) {
            (Some(false), _) => findings.error(&check, "it has not taken the last message", test),
            (None, false) => {
                findings.warn(
                    &check,
                    "it has never taken a message: nobody knows whether it would",
                    test,
                );
            }
            (Some(true), _) | (None, true) => findings.ok(&check, "it has taken the last message"),
        }
    }
    Ok(())
}

/// Whether cron or systemd really starts what it should each minute.
fn firing(client: &mut Client, findings: &mut Findings) -> Result<(), Error> {
    let check = "timers";
    let rows = client.query(
        "SELECT w.what, max(s.last_at) IS NOT NULL, extract(epoch FROM now() - max(s.last_at))::float8,
                (array_agg(s.host ORDER BY s.last_at DESC))[1]
         FROM unnest(ARRAY['check', 'due']) w (what) LEFT JOIN oa.starts s ON s.what = w.what
         GROUP BY w.what ORDER BY w.what",
        &[],
    )?;
    let look = schedule::revive();
    for row in &rows {
        let name = started(row.get(0));
        let (ever, age, host): (bool, Option<f64>, Option<String>) =
            (row.get(1), row.get(2), row.get(3));
        let host = host.unwrap_or_default();
        match age {
            Some(age) if age <= SILENT => findings.ok(
                check,
                format!("{name} was started {age:.0} s ago on {host}"),
            ),
            Some(age) if ever => findings.error(
                check,
                format!(
                    "{name} was last started {} ago on {host}; it should be each minute",
                    ago(age)
                ),
                look.as_str(),
            ),
            _ => findings.error(
                check,
                format!("{name} was never started by anything"),
                look.as_str(),
            ),
        }
    }
    // One machine of several that has stopped is covered up by the others.
    let quiet = client.query(
        "SELECT what, host, age FROM (
            SELECT what, host, extract(epoch FROM now() - max(last_at))::float8 AS age,
                   min(extract(epoch FROM now() - max(last_at))) OVER (PARTITION BY what)::float8 AS newest
            FROM oa.starts GROUP BY what, host) s
         WHERE newest <= $1 AND age > $1 AND age < 2 * 86400 ORDER BY what, host",
        &[&SILENT],
    )?;
    for row in &quiet {
        let (name, host): (&str, String) = (started(row.get(0)), row.get(1));
        let age = ago(row.get(2));
        findings.warn(
            check,
            format!("{name} was last started {age} ago on {host}, while another machine goes on; remove the schedule there, or mend it"),
            look.as_str(),
        );
    }
    // Most minutes of the day must have one: a cron that fires now and then is one that fails.
    let gaps = client.query(
        "SELECT what, host, starts, minutes::int8, starts > minutes
         FROM (SELECT *, ceil(extract(epoch FROM last_at - first_at) / 60) AS minutes FROM oa.starts) s
         WHERE last_at > now() - interval '1 day' AND minutes > 20 AND starts NOT BETWEEN 0.7 * minutes AND 1.6 * minutes",
        &[],
    )?;
    for row in &gaps {
        let (name, host): (&str, String) = (started(row.get(0)), row.get(1));
        let (starts, minutes): (i64, i64) = (row.get(2), row.get(3));
        let why = match row.get(4) {
            true => "two schedules start it, or two installations on one database",
            false => "it should be each minute",
        };
        findings.warn(
            check,
            format!("{name} was started {starts} times within {minutes} minutes on {host}; {why}"),
            look.as_str(),
        );
    }
    for fault in watch::faults(&watch::all(client)?, false) {
        match fault {
            Fault::Failing(w) => {
                let detail = format!("the last oa-alert check on {} failed: {}", w.host, w.detail);
                findings.error("alerts", detail, "oa-alert check");
            }
            Fault::Unfinished(w) => findings.error(
                "alerts",
                format!(
                    "oa-alert check is started on {} and does not come to its end",
                    w.host
                ),
                "oa-alert check",
            ),
            Fault::NoHeartbeat(w) => findings.warn(
                "heartbeat_url",
                format!("{} could not reach it: {}", w.host, w.detail),
                "oa-alert check",
            ),
            Fault::Never | Fault::NoCheck(_) | Fault::NoDue(_) => {}
        }
    }
    Ok(())
}

/// The command behind a name in `oa.starts`.
fn started(what: &str) -> &'static str {
    match what {
        "check" => "oa-alert check",
        _ => "oa-crawl run --due",
    }
}

/// What should have run and did not.
fn slots(client: &mut Client, config: &Config, findings: &mut Findings) -> Result<(), Error> {
    let grace = config.alert.grace.0 + config.crawl.jitter.0;
    let grace = grace.max(Duration::from_secs(60)).as_secs_f64();
    let rows = client.query(
        "SELECT s.task, count(*), to_char(min(s.day), 'YYYY-MM-DD'), to_char(max(s.day), 'YYYY-MM-DD'), bool_or(s.state = 'open'), bool_or(t.backfills)
         FROM oa.slots s JOIN oa.tasks t ON t.name = s.task
         WHERE s.owed AND s.filled_by IS NULL AND t.forgotten_at IS NULL AND s.due_at < now() - make_interval(secs => $1)
           AND (s.state = 'open' AND (t.lease_until IS NULL OR t.lease_until < now())
                OR s.state IN ('missed', 'unfetchable') AND s.closed_at > now() - interval '1 day')
         GROUP BY s.task ORDER BY s.task",
        &[&grace],
    )?;
    for row in &rows {
        let (task, times): (String, i64) = (row.get(0), row.get(1));
        let (from, to): (String, String) = (row.get(2), row.get(3));
        let (open, backfills): (bool, Option<bool>) = (row.get(4), row.get(5));
        let command = match backfills {
            Some(true) => format!("oa-crawl backfill {task} --from {from} --to {to}"),
            _ => "oa-report health".to_owned(),
        };
        let state = if open { State::Error } else { State::Warning };
        let detail = format!("{task} did not run {times} times when it was due, {from} to {to}");
        findings.push("slots", state, &detail, Some(&command));
    }
    if rows.is_empty() {
        findings.ok("slots", "nothing that was due is missing");
    }
    Ok(())
}

fn ago(seconds: f64) -> String {
    match seconds / 60.0 {
        minutes if minutes < 120.0 => format!("{minutes:.0} minutes"),
        minutes if minutes < 2880.0 => format!("{:.0} hours", minutes / 60.0),
        minutes => format!("{:.0} days", minutes / 1440.0),
    }
}
