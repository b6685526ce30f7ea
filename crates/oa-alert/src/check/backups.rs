//! Backups that are late, unverified, or were never rehearsed, and a repository that fills.
//!
//! Only of the repository that is configured here. Its rows in `oa.backups`, `oa.drills` and `oa.repositories` are written by
//! `oa-backup` and `oa-restore`; a failure of theirs is told by their run, except what is found here (`told_by_check`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::alerts::{LONGEST_EXCERPT, Policy, Severity, excerpt, human_duration};
use oa_core::config::{Backup, Bytes, Config};
use oa_core::secrets::redact;
use oa_core::state_dir::{StateDir, write_durably};
use oa_core::supervise::ProcessId;
use postgres::Client;

use super::{Finding, finding, local};

pub(super) const LATE: &str = "backup_late";
pub(super) const UNVERIFIED: &str = "backup_unverified";
pub(super) const MISSING: &str = "backup_missing";
pub(super) const OVERDUE: &str = "drill_overdue";
pub(super) const FAILED: &str = "drill_failed";
pub(super) const SLOW: &str = "drill_slow";
pub(super) const FILLING: &str = "repository_filling";

/// A forecast needs measurements over at least this long, in days, and looks at no older ones than that.
const FORECAST_DAYS: (f64, i32) = (2.0, 30);

pub(super) fn find(
    client: &mut Client,
    state: &StateDir,
    config: &Config,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let Some(backup) = &config.backup else {
        return Ok(Vec::new());
    };
    let backup = &Backup {
        repository: place(backup),
        ..backup.clone()
    };
    let since = note_configured(state, &backup.repository);
    let known = known(client, &backup.repository)?;
    let mut found: Vec<Finding> = Vec::new();
    found.extend(late(&known, since, backup, policy));
    found.extend(missing(client, backup, policy)?);
    found.extend(unverified(&known, config, backup, policy));
    found.extend(drills(client, &known, backup, policy)?);
    found.extend(filling(client, &known, config, backup, policy)?);
    Ok(found)
}

/// The repository as `oa-backup` names it in the database.
fn place(backup: &Backup) -> String {
    redact(&backup.repository)
}

/// What is known of the backups that are still there.
struct Known {
    /// The newest moment that can be restored.
    restorable_to: Option<DateTime<Utc>>,
    /// The newest full backup of the kind that restores most, so not a dump made beside physical ones: its end, and what it added
    /// to the repository in bytes.
    full: Option<(DateTime<Utc>, i64)>,
    /// When the oldest one ended, also one that is gone.
    since: Option<DateTime<Utc>>,
    /// When one was last read back, every byte, without a fault; also one that is gone.
    read_back: Option<DateTime<Utc>>,
    /// The newest one whose verification failed, and why.
    broken: Option<(String, String)>,
}

fn known(client: &mut Client, repository: &str) -> Result<Known, postgres::Error> {
    let row = client.query_one(
        "SELECT (SELECT restorable_to FROM oa.repository_state WHERE repository = $1),
                (SELECT min(finished_at) FROM oa.backups WHERE repository = $1),
                (SELECT max(checked_at) FROM oa.backups WHERE repository = $1 AND kind <> 'files' AND checked = 'data' AND check_error IS NULL)",
        &[&repository],
    )?;
    let full = client.query_opt(
        "SELECT full_at, full_added_bytes FROM oa.repository_state WHERE repository = $1 AND full_id IS NOT NULL",
        &[&repository],
    )?;
    let broken = client.query_opt(
        "SELECT id, check_error FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL AND check_error IS NOT NULL ORDER BY finished_at DESC LIMIT 1",
        &[&repository],
    )?;
    Ok(Known {
        restorable_to: row.get(0),
        full: full.map(|r| (r.get(0), r.get(1))),
        since: row.get(1),
        read_back: row.get(2),
        broken: broken.map(|r| (r.get(0), r.get(1))),
    })
}

fn age(moment: DateTime<Utc>) -> std::time::Duration {
    (Utc::now() - moment).to_std().unwrap_or_default()
}

/// Too much would be lost, or the last full backup is too old, or there is none at all.
fn late(known: &Known, since: DateTime<Utc>, backup: &Backup, policy: &Policy) -> Option<Finding> {
    let say = |span| human_duration(span, policy.locale);
    let place = &backup.repository;
    let (mut zh, mut en) = (Vec::new(), Vec::new());
    let mut severity = Severity::Warning;
    let full = known.full.as_ref();
    match (known.restorable_to, full) {
        (None, _) => {
            // The first one is due as often as a full one: counted from when the repository was configured.
            if since <= Utc::now() && age(since) <= backup.full_every.0 {
                return None;
            }
            severity = Severity::Critical;
            zh.push(format!(
                "自 {} 起已配置仓库 {place}，但其中没有任何备份",
                local(since, policy)
            ));
            en.push(format!(
                "The repository {place} is configured since {} and holds no backup",
                local(since, policy)
            ));
        }
        (Some(newest), full) => {
            if age(newest) > backup.rpo.0 {
                severity = Severity::Critical;
                zh.push(format!(
                    "最新可恢复到 {}（{}前），目标是最多丢失 {}（rpo）",
                    local(newest, policy),
                    say(age(newest)),
                    say(backup.rpo.0)
                ));
                en.push(format!(
                    "The newest moment that can be restored is {} ({} ago); the objective is {} (rpo)",
                    local(newest, policy),
                    say(age(newest)),
                    say(backup.rpo.0)
                ));
            }
            let full_end = full.map(|f| f.0).or(known.since);
            if let Some(end) = full_end.filter(|end| age(*end) > backup.full_every.0) {
                zh.push(format!(
                    "最近一次全量备份完成于 {}（{}前），应每 {}一次（full_every）",
                    local(end, policy),
                    say(age(end)),
                    say(backup.full_every.0)
                ));
                en.push(format!(
                    "The last full backup ended at {} ({} ago); one is due every {} (full_every)",
                    local(end, policy),
                    say(age(end)),
                    say(backup.full_every.0)
                ));
            }
        }
    }
    if zh.is_empty() {
        return None;
    }
    zh.extend([
        "影响：此刻如果数据库损坏，之后的数据无法从备份恢复".to_owned(),
        "处理：检查 crontab 中 oa-backup 是否按时运行、上一次为何失败（oa-backup status）"
            .to_owned(),
    ]);
    en.extend([
        "Effect: should the database be lost now, what came later could not be restored".to_owned(),
        "What to do: check that the crontab runs oa-backup, and why the last run failed (oa-backup status)".to_owned(),
    ]);
    let title = match known.restorable_to {
        None => ("没有任何备份", "there is no backup"),
        Some(_) => ("备份没有按时完成", "the backup is late"),
    };
    Some(finding(
        (LATE, place),
        None,
        severity,
        policy,
        || (title.0.to_owned(), zh),
        || (title.1.to_owned(), en),
    ))
}

/// The repositories that this machine has had in its configuration, and since when: that of now, and until the next check has told
/// that its troubles are over, the one before.
pub(super) fn configured(state: &StateDir) -> BTreeMap<String, DateTime<Utc>> {
    let text = fs::read(path(state)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// Since when this machine knows that the repository is configured.
fn note_configured(state: &StateDir, repository: &str) -> DateTime<Utc> {
    let mut since = configured(state);
    if let Some(known) = since.get(repository) {
        return *known;
    }
    let now = Utc::now();
    since.insert(repository.to_owned(), now);
    note(state, &since);
    now
}

/// What is configured no more is looked at no more. Another machine may still have it.
pub(super) fn forget_former(state: &StateDir, config: &Config) {
    let now = config.backup.as_ref().map(place);
    let mut since = configured(state);
    let known = since.len();
    since.retain(|repository, _| Some(repository) == now.as_ref());
    if since.len() < known {
        note(state, &since);
    }
}

fn note(state: &StateDir, since: &BTreeMap<String, DateTime<Utc>>) {
    let path = path(state);
    let text = serde_json::to_vec(since).unwrap_or_default();
    if let Err(e) = write_durably(&path, &text) {
        tracing::warn!(
            "could not note which repository is configured in {}: {e}",
            path.display()
        );
    }
}

fn path(state: &StateDir) -> PathBuf {
    state.path().join("backup-since.json")
}

/// Backups that were recorded and are not in the repository any more, and WAL whose full backup is gone.
fn missing(
    client: &mut Client,
    backup: &Backup,
    policy: &Policy,
) -> Result<Option<Finding>, postgres::Error> {
    let place = &backup.repository;
    let rows = client.query(
        "SELECT id, host, missing_since IS NOT NULL, unrestorable, kind, level, restorable_to FROM oa.backups
         WHERE repository = $1 AND removed_at IS NULL ORDER BY restorable_to DESC",
        &[place],
    )?;
    let mut unseen = Vec::new();
    let mut gone = Vec::new();
    let mut stranded = Vec::new();
    for row in &rows {
        let id: String = row.get(0);
        let at: DateTime<Utc> = row.get(6);
        let (kind, level): (String, String) = (row.get(4), row.get(5));
        let short: String = id.chars().take(8).collect();
        let shown = format!("{short} ({level} {kind}, {})", local(at, policy));
        if row.get(2) {
            gone.push(shown);
        } else if row.get::<_, String>(1) == ProcessId::current().host && is_gone(place, &id) {
            unseen.push((id, shown));
        } else if row.get::<_, Option<String>>(3).is_some() {
            stranded.push(shown);
        }
    }
    if !unseen.is_empty() {
        // What a prune removes was recorded as removed before.
        let ids: Vec<&str> = unseen.iter().map(|(id, _)| id.as_str()).collect();
        let rows = client.query(
            "SELECT id FROM oa.backups WHERE id = ANY($1) AND removed_at IS NULL",
            &[&ids],
        )?;
        let still: Vec<String> = rows.iter().map(|r| r.get(0)).collect();
        unseen.retain(|(id, _)| still.contains(id));
    }
    gone.extend(unseen.into_iter().map(|(_, shown)| shown));
    if gone.is_empty() && stranded.is_empty() {
        return Ok(None);
    }
    let list = |of: &[String]| {
        let first: Vec<&str> = of.iter().take(5).map(String::as_str).collect();
        let more = of.len().saturating_sub(first.len());
        (
            first.join(", "),
            if more > 0 {
                format!(" +{more}")
            } else {
                String::new()
            },
        )
    };
    Ok(Some(finding(
        (MISSING, place),
        None,
        Severity::Critical,
        policy,
        || {
            let mut lines = Vec::new();
            if !gone.is_empty() {
                let (first, more) = list(&gone);
                lines.push(format!(
                    "仓库 {place} 中缺少 {} 份曾经记录的备份：{first}{more}",
                    gone.len()
                ));
            }
            if !stranded.is_empty() {
                let (first, more) = list(&stranded);
                lines.push(format!(
                    "{} 份增量备份所依赖的全量备份已不在仓库中，无法恢复：{first}{more}",
                    stranded.len()
                ));
            }
            lines.push("影响：这些备份所覆盖的时间点无法恢复".to_owned());
            lines.push("处理：检查仓库所在磁盘是否已挂载、是否被替换或回滚；从其他副本找回文件。确认无法找回时：oa-backup full，然后 oa-backup prune --missing".to_owned());
            ("备份从仓库中消失".to_owned(), lines)
        },
        || {
            let mut lines = Vec::new();
            if !gone.is_empty() {
                let (first, more) = list(&gone);
                lines.push(format!(
                    "The repository {place} lacks {} backups that were recorded: {first}{more}",
                    gone.len()
                ));
            }
            if !stranded.is_empty() {
                let (first, more) = list(&stranded);
                lines.push(format!("{} incremental backups cannot be restored, because their full backup is gone: {first}{more}", stranded.len()));
            }
            lines
                .push("Effect: the points in time that they covered cannot be restored".to_owned());
            lines.push("What to do: see whether the repository's disk is mounted, was swapped or put back to an older state; bring the files back from another copy. If they are lost for good: oa-backup full, then oa-backup prune --missing".to_owned());
            (
                "backups have disappeared from the repository".to_owned(),
                lines,
            )
        },
    )))
}

/// Whether a backup's snapshot is not in a repository on this machine's disks. What cannot be looked at is not known to be gone.
fn is_gone(repository: &str, id: &str) -> bool {
    let is_id = id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    if repository.contains("://") || !is_id {
        return false;
    }
    let snapshot = Path::new(repository).join("snapshots").join(id);
    matches!(snapshot.symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound)
}

/// A backup is damaged, or nobody has read the backups back for too long.
fn unverified(known: &Known, config: &Config, backup: &Backup, policy: &Policy) -> Option<Finding> {
    let place = &backup.repository;
    if let Some((id, error)) = &known.broken {
        let error = excerpt(error, LONGEST_EXCERPT);
        return Some(finding(
            (UNVERIFIED, place),
            None,
            Severity::Critical,
            policy,
            || {
                (
                    "备份校验失败".to_owned(),
                    vec![
                        format!("备份 {id} 校验失败：{error}"),
                        "影响：这份备份可能无法恢复，依赖它的增量也可能无法恢复".to_owned(),
                        "处理：立即执行 oa-backup full 做一份新的全量备份，再执行 oa-backup verify --read-data；检查仓库所在磁盘"
                            .to_owned(),
                    ],
                )
            },
            || {
                (
                    "the verification of a backup failed".to_owned(),
                    vec![
                        format!("Backup {id}: {error}"),
                        "Effect: it may not be restorable, nor what continues it".to_owned(),
                        "What to do: make a new full backup now with oa-backup full, then oa-backup verify --read-data; check the repository's disk"
                            .to_owned(),
                    ],
                )
            },
        ));
    }
    // Without any the first one is due as long after the first backup.
    let since = known.read_back.or(known.since)?;
    let limit = config.alert.verify_limit.0;
    if age(since) <= limit {
        return None;
    }
    let say = |span| human_duration(span, policy.locale);
    let (at, ago, limit) = (local(since, policy), say(age(since)), say(limit));
    let never = known.read_back.is_none();
    Some(finding(
        (UNVERIFIED, place),
        None,
        Severity::Warning,
        policy,
        || {
            (
                "备份很久没有完整读回".to_owned(),
                vec![
                    if never {
                        format!(
                            "第一份备份完成于 {at}（{ago}前），至今没有完整读回校验过；应每 {limit}一次（verify_limit）"
                        )
                    } else {
                        format!(
                            "上次完整读回校验是 {at}（{ago}前），应每 {limit}一次（verify_limit）"
                        )
                    },
                    "影响：磁盘上悄悄损坏的数据，要到恢复时才会发现".to_owned(),
                    "处理：执行 oa-backup verify --read-data，并把它加入 crontab".to_owned(),
                ],
            )
        },
        || {
            (
                "the backups have not been read back for a long time".to_owned(),
                vec![
                    if never {
                        format!(
                            "The first backup ended at {at} ({ago} ago) and none was ever read back; that is due every {limit} (verify_limit)"
                        )
                    } else {
                        format!(
                            "They were last read back at {at} ({ago} ago); that is due every {limit} (verify_limit)"
                        )
                    },
                    "Effect: what has silently rotted on the disk is noticed only by a restore"
                        .to_owned(),
                    "What to do: run oa-backup verify --read-data, and put it into the crontab"
                        .to_owned(),
                ],
            )
        },
    ))
}

/// The last drill failed or was too slow, or is too long ago.
fn drills(
    client: &mut Client,
    known: &Known,
    backup: &Backup,
    policy: &Policy,
) -> Result<Vec<Finding>, postgres::Error> {
    let place = &backup.repository;
    let say = |span| human_duration(span, policy.locale);
    let last = client.query_opt(
        "SELECT ok, finished_at, backup_id, coalesce(error, ''), rto_seconds FROM oa.drills
         WHERE repository = $1 ORDER BY seq DESC LIMIT 1",
        &[place],
    )?;
    let good: Option<DateTime<Utc>> = client
        .query_one(
            "SELECT max(finished_at) FROM oa.drills WHERE repository = $1 AND ok",
            &[place],
        )?
        .get(0);
    let mut found = Vec::new();
    if let Some(row) = &last {
        let (ok, at): (bool, DateTime<Utc>) = (row.get(0), row.get(1));
        let (id, error): (String, String) = (row.get(2), row.get(3));
        let took = row
            .get::<_, Option<f64>>(4)
            .and_then(|s| std::time::Duration::try_from_secs_f64(s).ok());
        let at = local(at, policy);
        if !ok {
            let error = excerpt(&error, LONGEST_EXCERPT);
            found.push(finding(
                (FAILED, place),
                None,
                Severity::Critical,
                policy,
                || {
                    (
                        "恢复演练失败".to_owned(),
                        vec![
                            format!("{at} 用备份 {id} 演练：{error}"),
                            "影响：真正需要恢复时很可能也会失败".to_owned(),
                            "处理：按原因修复后再执行 oa-restore drill；同时执行 oa-backup full 再做一份备份".to_owned(),
                        ],
                    )
                },
                || {
                    (
                        "the rehearsed restore failed".to_owned(),
                        vec![
                            format!("{at}, with backup {id}: {error}"),
                            "Effect: a real restore would probably fail as well".to_owned(),
                            "What to do: mend the cause and run oa-restore drill again; make another backup with oa-backup full".to_owned(),
                        ],
                    )
                },
            ));
        }
        if let Some(took) = took.filter(|took| ok && *took > backup.rto.0) {
            let (took, most) = (say(took), say(backup.rto.0));
            found.push(finding(
                (SLOW, place),
                None,
                Severity::Warning,
                policy,
                || {
                    (
                        "恢复演练慢于目标".to_owned(),
                        vec![
                            format!("{at} 的演练用了 {took}，目标是不超过 {most}（rto）"),
                            "影响：数据库损坏时，服务中断会比承诺的更久".to_owned(),
                            "处理：把仓库放到更快的磁盘、增加全量备份的频率，或调大 [backup] rto".to_owned(),
                        ],
                    )
                },
                || {
                    (
                        "the rehearsed restore was slower than the objective".to_owned(),
                        vec![
                            format!("The drill of {at} took {took}; the objective is {most} (rto)"),
                            "Effect: should the database be lost, the service is away for longer than promised".to_owned(),
                            "What to do: put the repository on a faster disk, make full backups more often, or raise rto in [backup]".to_owned(),
                        ],
                    )
                },
            ));
        }
    }
    // Without any drill the first one is due as long after the first backup.
    if let Some(since) = good.or(known.since)
        && age(since) > backup.drill_every.0
    {
        let (at, ago, every) = (
            local(since, policy),
            say(age(since)),
            say(backup.drill_every.0),
        );
        let never = good.is_none();
        found.push(finding(
            (OVERDUE, place),
            None,
            Severity::Warning,
            policy,
            || {
                (
                    "恢复演练逾期".to_owned(),
                    vec![
                        if never {
                            format!("第一份备份完成于 {at}（{ago}前），至今没有成功演练过；应每 {every}一次（drill_every）")
                        } else {
                            format!("上次成功演练是 {at}（{ago}前），应每 {every}一次（drill_every）")
                        },
                        "影响：没有恢复过的备份不能算备份".to_owned(),
                        "处理：执行 oa-restore drill --yes，并把它加入 crontab".to_owned(),
                    ],
                )
            },
            || {
                (
                    "a rehearsed restore is overdue".to_owned(),
                    vec![
                        if never {
                            format!("The first backup ended at {at} ({ago} ago) and none was ever restored with success; a drill is due every {every} (drill_every)")
                        } else {
                            format!("The last one with success was at {at} ({ago} ago); one is due every {every} (drill_every)")
                        },
                        "Effect: a backup that was never restored is none".to_owned(),
                        "What to do: run oa-restore drill --yes, and put it into the crontab".to_owned(),
                    ],
                )
            },
        ));
    }
    Ok(found)
}

/// The repository's disk has no room for another full backup, or will be full soon at the rate at which the repository grows.
fn filling(
    client: &mut Client,
    known: &Known,
    config: &Config,
    backup: &Backup,
    policy: &Policy,
) -> Result<Option<Finding>, postgres::Error> {
    let place = &backup.repository;
    let row = client.query_opt(
        "WITH m AS (SELECT * FROM oa.repositories WHERE repository = $1 AND measured_at > now() - make_interval(days => $2)),
              first AS (SELECT * FROM m ORDER BY measured_at LIMIT 1),
              last AS (SELECT * FROM m ORDER BY measured_at DESC LIMIT 1)
         SELECT last.free_bytes, last.size_bytes, last.measured_at, last.size_bytes - first.size_bytes,
                extract(epoch FROM last.measured_at - first.measured_at)::float8 / 86400
         FROM first, last WHERE last.free_bytes IS NOT NULL",
        &[place, &FORECAST_DAYS.1],
    )?;
    let Some(row) = row else {
        return Ok(None);
    };
    let (free, size, measured): (i64, i64, DateTime<Utc>) = (row.get(0), row.get(1), row.get(2));
    let (grown, days): (i64, f64) = (row.get(3), row.get(4));
    let need = known.full.as_ref().map_or(0, |f| f.1);
    let full_at = (grown > 0 && days >= FORECAST_DAYS.0)
        .then(|| free as f64 / (grown as f64 / days))
        .and_then(|left| TimeDelta::try_milliseconds((left * 86_400_000.0) as i64))
        .and_then(|left| measured.checked_add_signed(left));
    let soon = TimeDelta::from_std(config.alert.disk_forecast.0).unwrap_or(TimeDelta::MAX);
    let full_at = full_at.filter(|at| *at - Utc::now() < soon);
    let tight = free < need;
    if !tight && full_at.is_none() {
        return Ok(None);
    }
    let bytes = |n: i64| Bytes(n.unsigned_abs());
    let (free, size, need) = (bytes(free), bytes(size), bytes(need));
    let day = full_at.map(|at| at.with_timezone(&policy.timezone).date_naive());
    Ok(Some(finding(
        (FILLING, place),
        None,
        if tight {
            Severity::Critical
        } else {
            Severity::Warning
        },
        policy,
        || {
            let mut lines = vec![format!("仓库 {place} 现有 {size}，所在磁盘剩余 {free}")];
            if tight {
                lines.push(format!("上一次全量备份新增 {need}，下一次很可能放不下"));
            }
            if let Some(day) = day {
                lines.push(format!("按最近的增长速度，将于 {day} 前后写满"));
            }
            lines.push("影响：写满后不再有新的备份".to_owned());
            lines.push(
                "处理：扩容，或减少保留份数（keep_daily、keep_weekly）后执行 oa-backup prune"
                    .to_owned(),
            );
            ("备份仓库空间不足".to_owned(), lines)
        },
        || {
            let mut lines = vec![format!(
                "The repository {place} has {size}; its disk has {free} left"
            )];
            if tight {
                lines.push(format!(
                    "The last full backup added {need}: the next one will probably not fit"
                ));
            }
            if let Some(day) = day {
                lines.push(format!("At the present rate it will be full about {day}"));
            }
            lines.push("Effect: once it is full, there are no new backups".to_owned());
            lines.push("What to do: make room, or keep fewer (keep_daily, keep_weekly) and run oa-backup prune".to_owned());
            ("the backup repository runs out of space".to_owned(), lines)
        },
    )))
}
