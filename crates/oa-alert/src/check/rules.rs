//! Rules that PostgreSQL answers.

use std::time::Instant;

use chrono::{DateTime, Utc};
use oa_core::alerts::{LONGEST_EXCERPT, Policy, Severity, excerpt, human_duration};
use oa_core::config::{Bytes, Config};
use postgres::Client;

use super::{Finding, finding, local, say};

pub(super) const MISSED: &str = "run_missed";
pub(super) const NEVER_RUN: &str = "never_run";
pub(super) const PARTIAL: &str = "partial_streak";
pub(super) const TOO_LONG: &str = "run_too_long";
pub(super) const CONNECTIONS: &str = "connections";
pub(super) const WAL_HELD: &str = "wal_held";
pub(super) const CLOCK: &str = "clock_off";

pub(super) fn find(
    client: &mut Client,
    host: &str,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let mut found = missed(client, config, policy)?;
    found.extend(partial(client, config, policy)?);
    found.extend(too_long(client, config, policy)?);
    found.extend(connections(client, config, policy)?);
    found.extend(wal_held(client, config, policy)?);
    found.extend(clock(client, host, config, policy)?);
    Ok(found)
}

/// A task whose due moment and grace are over without a start. `oa.tasks.next_due_at` knows zone, trading days and sessions.
/// A backfill is for other days.
fn missed(
    client: &mut Client,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let grace = (config.alert.grace.0 + config.crawl.jitter.0).as_secs_f64();
    let rows = client.query(
        "SELECT name, title, next_due_at, last_started_at, last_success_at, last_run_id IS NULL, now() FROM oa.tasks t
         WHERE next_due_at < now() - make_interval(secs => $1) AND (lease_until IS NULL OR lease_until < now()) AND name <> ALL($2)
           AND NOT EXISTS (SELECT FROM oa.runs r WHERE r.task = t.name AND r.started_at >= t.next_due_at AND oa.takes_care(r, t.next_due_at))
         ORDER BY name",
        &[&grace, &config.crawl.skip],
    )?;
    let at = |moment: Option<DateTime<Utc>>| {
        moment.map_or_else(
            || say(policy, "尚无记录", "none on record").to_owned(),
            |m| local(m, policy),
        )
    };
    let told = |row: &postgres::Row| {
        let (task, title): (String, String) = (row.get(0), row.get(1));
        let due: DateTime<Utc> = row.get(2);
        let name = if title.is_empty() { &task } else { &title };
        let never: bool = row.get(5);
        let now: DateTime<Utc> = row.get(6);
        let late = human_duration((now - due).to_std().unwrap_or_default(), policy.locale);
        let (due, started, success) = (local(due, policy), at(row.get(3)), at(row.get(4)));
        finding(
            (if never { NEVER_RUN } else { MISSED }, &task),
            Some(&task),
            Severity::Critical,
            policy,
            || {
                (
                    format!(
                        "{name} {}",
                        if never {
                            "从未运行"
                        } else {
                            "没有按时运行"
                        }
                    ),
                    vec![
                        format!("应于 {due} 运行，已晚 {late}，没有任何启动记录"),
                        format!("上次启动：{started}；上次成功：{success}"),
                        "影响：此后没有新数据，也没有失败记录".to_owned(),
                        format!(
                            "处理：检查 cron 是否在运行、crontab 中是否有 oa-crawl run --due，以及机器是否关机；不再需要则执行 oa-crawl disable {task}（数据源已删除或改名：oa-crawl forget {task}）"
                        ),
                    ],
                )
            },
            || {
                (
                    format!(
                        "{name} {}",
                        if never {
                            "has never run"
                        } else {
                            "did not run when it was due"
                        }
                    ),
                    vec![
                        format!("It was due at {due}, {late} ago, and nothing was started"),
                        format!("Last start: {started}; last success: {success}"),
                        "Effect: no new data since then, and no failure either".to_owned(),
                        format!(
                            "What to do: check that cron runs, that the crontab has oa-crawl run --due, and that the machine was on; if it is not needed any more: oa-crawl disable {task} (for a source that was removed or renamed: oa-crawl forget {task})"
                        ),
                    ],
                )
            },
        )
    };
    Ok(rows.iter().map(told).collect())
}

/// A first incomplete run is told as a warning (`run_partial`) and not told again for hours.
fn partial(
    client: &mut Client,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let limit = i64::from(config.alert.partial_limit);
    let rows = client.query(
        "SELECT t.name, coalesce(nullif(t.title, ''), t.name), coalesce(last.error, ''), t.last_success_at
         FROM oa.tasks t, LATERAL (
           SELECT count(*) FILTER (WHERE x.status = 'partial') AS partial, (array_agg(x.error_message ORDER BY x.seq DESC))[1] AS error FROM (
             SELECT r.seq, r.status, r.error_message FROM oa.runs r
             WHERE r.task = t.name AND r.finished_at IS NOT NULL AND r.status <> 'skipped' AND r.trigger <> 'backfill' AND NOT r.other_day
             ORDER BY r.seq DESC LIMIT $1) x) last
         WHERE t.schedule IS NOT NULL AND last.partial = $1 ORDER BY t.name",
        &[&limit],
    )?;
    let told = |row: &postgres::Row| {
        let (task, name, error): (String, String, String) = (row.get(0), row.get(1), row.get(2));
        let success = row.get::<_, Option<DateTime<Utc>>>(3).map_or_else(
            || say(policy, "尚无记录", "none on record").to_owned(),
            |m| local(m, policy),
        );
        let error = excerpt(&error, LONGEST_EXCERPT);
        finding(
            (PARTIAL, &task),
            Some(&task),
            Severity::Critical,
            policy,
            || {
                (
                    format!("{name} 连续 {limit} 次数据不完整"),
                    vec![
                        format!("最近一次：{error}"),
                        format!("上次完整：{success}"),
                        "影响：收到的部分已入库，缺的部分一直没有补上".to_owned(),
                        format!(
                            "处理：用 oa-crawl run {task} --dry-run 查看网站现在给出什么；网站确有变化时修改数据源文件，再用 oa-crawl replay {task} --date 日期 补齐"
                        ),
                    ],
                )
            },
            || {
                (
                    format!("{name} brought incomplete data {limit} times in a row"),
                    vec![
                        format!("The last one: {error}"),
                        format!("Last complete run: {success}"),
                        "Effect: what came is stored, the rest is missing ever since".to_owned(),
                        format!(
                            "What to do: see with oa-crawl run {task} --dry-run what the site gives now; when it has changed, mend the source file and make up with oa-crawl replay {task} --date DAY"
                        ),
                    ],
                )
            },
        )
    };
    Ok(rows.iter().map(told).collect())
}

fn too_long(
    client: &mut Client,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let rows = client.query(
        "SELECT r.task, coalesce(t.title, ''), min(r.started_at), min(r.host), now() FROM oa.runs r LEFT JOIN oa.tasks t ON t.name = r.task
         WHERE r.finished_at IS NULL AND r.started_at < now() - make_interval(secs => $1) GROUP BY r.task, t.title",
        &[&config.alert.running_limit.0.as_secs_f64()],
    )?;
    let told = |row: &postgres::Row| {
        let (task, title, host): (String, String, String) = (row.get(0), row.get(1), row.get(3));
        let since: DateTime<Utc> = row.get(2);
        let name = if title.is_empty() { &task } else { &title };
        let now: DateTime<Utc> = row.get(4);
        let lasts = human_duration((now - since).to_std().unwrap_or_default(), policy.locale);
        let since = local(since, policy);
        finding(
            (TOO_LONG, &task),
            Some(&task),
            Severity::Warning,
            policy,
            || {
                (
                    format!("{name} 运行时间过长"),
                    vec![
                        format!("始于 {since}，已运行 {lasts}，在 {host} 上"),
                        "影响：它结束之前没有新数据，同一任务的下一次运行也会跳过".to_owned(),
                        "处理：到该机器查看进程；确认卡住后结束它，运行会记为中断并重新排期"
                            .to_owned(),
                    ],
                )
            },
            || {
                (
                format!("{name} runs for too long"),
                vec![
                    format!("It began at {since}, {lasts} ago, on {host}"),
                    "Effect: no new data until it ends, and the task's next starts are skipped".to_owned(),
                    "What to do: look at the process there; when it hangs, end it: the run becomes abandoned and the task is due again".to_owned(),
                ],
            )
            },
        )
    };
    Ok(rows.iter().map(told).collect())
}

fn connections(
    client: &mut Client,
    config: &Config,
    policy: &Policy,
) -> Result<Option<Finding>, postgres::Error> {
    // pg_stat_activity shows only one's own sessions to a role without pg_read_all_stats.
    let row = client.query_one(
        "SELECT coalesce(sum(numbackends), 0)::bigint, current_setting('max_connections')::bigint FROM pg_stat_database",
        &[],
    )?;
    let (used, most): (i64, i64) = (row.get(0), row.get(1));
    if (used as f64) <= most as f64 * config.alert.connections_share {
        return Ok(None);
    }
    Ok(Some(finding(
        (CONNECTIONS, "database"),
        None,
        Severity::Warning,
        policy,
        || {
            (
                "数据库连接数接近上限".to_owned(),
                vec![
                    format!("已用 {used} 个，上限 {most} 个"),
                    "影响：用尽后任何程序都连不上数据库，采集结果会暂存在本机".to_owned(),
                    "处理：在 pg_stat_activity 中找出占用连接的程序，或调大 max_connections"
                        .to_owned(),
                ],
            )
        },
        || {
            (
            "the database's connections are nearly used up".to_owned(),
            vec![
                format!("{used} of {most} are in use"),
                "Effect: with none left no program reaches the database, and results wait in the spool".to_owned(),
                "What to do: find in pg_stat_activity who holds them, or raise max_connections".to_owned(),
            ],
        )
        },
    )))
}

fn wal_held(
    client: &mut Client,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let limit = i64::try_from(config.alert.wal_limit.0).unwrap_or(i64::MAX);
    let rows = client.query(
        "SELECT slot_name::text, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots
         WHERE NOT pg_is_in_recovery() AND NOT active AND restart_lsn IS NOT NULL
           AND pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn) > $1::bigint",
        &[&limit],
    )?;
    let told = |row: &postgres::Row| {
        let (slot, held): (String, i64) = (row.get(0), row.get(1));
        let held = Bytes(held.unsigned_abs());
        finding(
            (WAL_HELD, &slot),
            None,
            Severity::Warning,
            policy,
            || {
                (
                    format!("复制槽 {slot} 占住 {held} 预写日志（WAL）"),
                    vec![
                        "影响：没有程序在读它，日志会一直增长直到写满数据库磁盘".to_owned(),
                        format!(
                            "处理：恢复读取它的程序，或确认不再需要后执行 SELECT pg_drop_replication_slot('{slot}')"
                        ),
                    ],
                )
            },
            || {
                (
                format!("replication slot {slot} holds {held} of WAL"),
                vec![
                    "Effect: nobody reads it, and the log grows until the database's disk is full"
                        .to_owned(),
                    format!(
                        "What to do: start its reader again, or, when nobody needs it: SELECT pg_drop_replication_slot('{slot}')"
                    ),
                ],
            )
            },
        )
    };
    Ok(rows.iter().map(told).collect())
}

fn clock(
    client: &mut Client,
    host: &str,
    config: &Config,
    policy: &Policy,
) -> Result<Option<Finding>, postgres::Error> {
    let (before, asked) = (Utc::now(), Instant::now());
    let theirs: DateTime<Utc> = client.query_one("SELECT clock_timestamp()", &[])?.get(0);
    let ours = before + asked.elapsed() / 2;
    let off = (theirs - ours).as_seconds_f64();
    if off.abs() <= config.alert.clock_limit.0.as_secs_f64() {
        return Ok(None);
    }
    let off = off.abs().round();
    Ok(Some(finding(
        (CLOCK, host),
        None,
        Severity::Warning,
        policy,
        || {
            (
                format!("{host} 的时钟与数据库相差 {off} 秒"),
                vec![
                    "影响：机器人签名会出错；数据库断开期间，按本机时钟判断何时运行".to_owned(),
                    "处理：检查两台机器的时间同步（timedatectl、chronyc tracking）".to_owned(),
                ],
            )
        },
        || {
            (
            format!("the clock of {host} is {off} seconds off the database's"),
            vec![
                "Effect: signatures of robots go wrong; while the database cannot be reached, what is due is decided by this clock".to_owned(),
                "What to do: check the time service of both machines (timedatectl, chronyc tracking)".to_owned(),
            ],
        )
        },
    )))
}
