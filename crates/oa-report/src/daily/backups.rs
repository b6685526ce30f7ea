//! The report's part about backups: how far back one could go, whether anybody has tried, and how long the disk lasts.

use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use chrono_tz::Tz;
use oa_core::app::config::{Config, Locale};
use oa_core::app::output::human_duration;
use oa_core::base::secrets::redact;
use oa_core::base::units::Bytes;
use oa_core::journal::catalog::{self, Limits};
use postgres::{Row, Transaction};
use serde::Serialize;

use crate::lang::wording;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Repository {
    pub(crate) repository: String,
    pub(crate) backups: u64,
    /// Of these, made within the report's 24 hours.
    pub(crate) made: u64,
    /// The newest point in time that can be restored (UTC).
    pub(crate) restorable_to: Option<DateTime<Utc>>,
    /// End of the newest full backup (UTC), of the kind that restores most: a dump made beside physical ones does not count.
    pub(crate) last_full_at: Option<DateTime<Utc>>,
    /// How that was verified: `none`, `structure`, `data`.
    pub(crate) last_full_checked: Option<String>,
    /// Backups whose verification failed.
    pub(crate) broken: u64,
    /// Backups that have disappeared from the repository, or have lost the full backup that they need.
    pub(crate) missing: u64,
    /// End of the last rehearsed restore (UTC).
    pub(crate) drill_at: Option<DateTime<Utc>>,
    pub(crate) drill_ok: Option<bool>,
    /// How long it took until the server answered, in seconds.
    pub(crate) drill_seconds: Option<f64>,
    /// Size in bytes when it was measured last.
    pub(crate) size_bytes: Option<u64>,
    /// Growth in bytes within the last 30 days of measurements.
    pub(crate) grown_bytes: Option<i64>,
    /// Free bytes of its disk, where it has one.
    pub(crate) free_bytes: Option<u64>,
    /// The day on which that is full at the rate of the last 30 days.
    pub(crate) full_on: Option<NaiveDate>,
    /// What is wrong now, in sentences: the verdict that alerts and the page give too.
    pub(crate) problems: Vec<String>,
}

/// A forecast needs measurements over so many days.
const LEAST_DAYS: f64 = 2.0;

/// The configured repository, or without one all that hold backups.
pub(super) fn repositories(
    tx: &mut Transaction<'_>,
    configured: Option<&str>,
    (from, until): (DateTime<Utc>, DateTime<Utc>),
    config: &Config,
) -> Result<Vec<Repository>, postgres::Error> {
    let rows = tx.query(
        "SELECT p.repository,
                (SELECT count(*) FROM oa.backups b WHERE b.repository = p.repository AND b.removed_at IS NULL AND b.missing_since IS NULL),
                (SELECT count(*) FROM oa.backups b WHERE b.repository = p.repository AND b.finished_at >= $2 AND b.finished_at < $3),
                s.restorable_to, s.full_at, s.full_checked,
                (SELECT count(*) FROM oa.backups b WHERE b.repository = p.repository AND b.removed_at IS NULL AND b.check_error IS NOT NULL),
                d.finished_at, d.ok, d.rto_seconds, m.size_bytes, m.grown, m.days, m.free_bytes, m.measured_at,
                (SELECT count(*) FROM oa.backups b WHERE b.repository = p.repository AND b.removed_at IS NULL
                   AND (b.missing_since IS NOT NULL OR b.unrestorable IS NOT NULL))
         FROM (SELECT $1::text AS repository WHERE $1 IS NOT NULL
               UNION SELECT repository FROM oa.backups WHERE $1 IS NULL AND removed_at IS NULL) p
         LEFT JOIN oa.repository_state s ON s.repository = p.repository
         LEFT JOIN LATERAL (SELECT finished_at, ok, rto_seconds FROM oa.drills d
           WHERE d.repository = p.repository ORDER BY d.seq DESC LIMIT 1) d ON true
         LEFT JOIN LATERAL (
           SELECT size_bytes, free_bytes, measured_at, size_bytes - first_value(size_bytes) OVER w AS grown,
                  (extract(epoch FROM measured_at - first_value(measured_at) OVER w) / 86400)::float8 AS days
           FROM oa.repositories r WHERE r.repository = p.repository AND r.measured_at > now() - interval '30 days'
           WINDOW w AS (ORDER BY measured_at) ORDER BY measured_at DESC LIMIT 1) m ON true
         ORDER BY p.repository",
        &[&configured, &from, &until],
    )?;
    let limits = Limits::from_config(config).unwrap_or_else(|| Limits::without_objectives(config));
    let wording = wording(config);
    rows.iter()
        .map(|row| {
            let mut one = repository(row, config.timezone);
            let found = catalog::facts(tx, &one.repository)?.assess(&limits);
            let sentences = found.iter().map(|f| oa_wording::sentence(f, &wording));
            one.problems = sentences.map(|s| redact(&s)).collect();
            Ok(one)
        })
        .collect()
}

fn repository(row: &Row, zone: Tz) -> Repository {
    let count = |column| row.get::<_, i64>(column).unsigned_abs();
    let bytes = |column| row.get::<_, Option<i64>>(column);
    let (grown, days): (Option<i64>, Option<f64>) = (bytes(11), row.get(12));
    let rate = grown
        .zip(days)
        .filter(|(grown, days)| *grown > 0 && *days >= LEAST_DAYS)
        .map(|(grown, days)| grown as f64 / days);
    let full_at = bytes(13).zip(rate).and_then(|(free, rate)| {
        let left = TimeDelta::try_seconds((free as f64 / rate * 86_400.0) as i64)?;
        row.get::<_, Option<DateTime<Utc>>>(14)?
            .checked_add_signed(left)
    });
    Repository {
        repository: row.get(0),
        backups: count(1),
        made: count(2),
        restorable_to: row.get(3),
        last_full_at: row.get(4),
        last_full_checked: row.get(5),
        broken: count(6),
        missing: count(15),
        drill_at: row.get(7),
        drill_ok: row.get(8),
        drill_seconds: row.get(9),
        size_bytes: bytes(10).map(i64::unsigned_abs),
        grown_bytes: grown,
        free_bytes: bytes(13).map(i64::unsigned_abs),
        full_on: full_at.map(|at| at.with_timezone(&zone).date_naive()),
        problems: Vec::new(),
    }
}

pub(super) fn lines(repositories: &[Repository], locale: Locale, zone: Tz) -> Vec<String> {
    let zh = locale == Locale::Zh;
    if repositories.is_empty() {
        return vec![if zh {
            "**备份**：没有配置备份（[backup]），也没有任何备份".to_owned()
        } else {
            "**Backups**: none are configured ([backup]), and there are none".to_owned()
        }];
    }
    let mut out = Vec::new();
    for repository in repositories {
        let location = &repository.repository;
        out.push(if zh {
            format!("**备份** {location}")
        } else {
            format!("**Backups** in {location}")
        });
        out.push(backups(repository, locale, zone));
        out.push(drill(repository, locale, zone));
        out.extend(space(repository, zh));
        out.extend(repository.problems.iter().map(|p| format!("- **{p}**")));
    }
    out
}

fn short_time(at: DateTime<Utc>, zone: Tz) -> String {
    at.with_timezone(&zone).format("%m-%d %H:%M").to_string()
}

fn backups(repository: &Repository, locale: Locale, zone: Tz) -> String {
    let zh = locale == Locale::Zh;
    let missing = match (repository.missing, zh) {
        (0, _) => String::new(),
        (n, true) => format!("；**{n} 份已消失或失去所依赖的全量备份**"),
        (n, false) => {
            format!("; **{n} have disappeared or have lost the full backup that they need**")
        }
    };
    let Some(newest) = repository.restorable_to else {
        return match (repository.missing, zh) {
            (0, true) => "- 还没有任何备份".to_owned(),
            (0, false) => "- There is no backup yet".to_owned(),
            (_, true) => format!("- **没有任何可恢复的备份**{missing}"),
            (_, false) => format!("- **No backup can be restored**{missing}"),
        };
    };
    let newest = short_time(newest, zone);
    let (count, made) = (repository.backups, repository.made);
    let full = repository
        .last_full_at
        .map_or_else(|| "-".to_owned(), |at| short_time(at, zone));
    let checked = match (repository.last_full_checked.as_deref(), zh) {
        (Some("data"), true) => "已读回校验",
        (Some("structure"), true) => "已校验结构",
        (_, true) => "未校验",
        (Some("data"), false) => "read back",
        (Some("structure"), false) => "structure verified",
        (_, false) => "not verified",
    };
    let broken = match (repository.broken, zh) {
        (0, _) => String::new(),
        (n, true) => format!("；**{n} 份校验失败**"),
        (n, false) => format!("; **the verification of {n} failed**"),
    };
    if zh {
        format!(
            "- 可恢复到 {newest}；共 {count} 份，其中本期 {made} 份；最近全量 {full}（{checked}）{broken}{missing}"
        )
    } else {
        format!(
            "- Restorable up to {newest}; {count} in all, {made} of them new; last full one {full} ({checked}){broken}{missing}"
        )
    }
}

fn drill(repository: &Repository, locale: Locale, zone: Tz) -> String {
    let took = repository
        .drill_seconds
        .and_then(|s| Duration::try_from_secs_f64(s).ok())
        .map(|took| human_duration(took, locale));
    match (repository.drill_at, repository.drill_ok, locale) {
        (Some(at), Some(true), Locale::Zh) => format!(
            "- 上次恢复演练 {}：成功{}",
            short_time(at, zone),
            took.map_or_else(String::new, |t| format!("，用时 {t}"))
        ),
        (Some(at), Some(true), Locale::En) => format!(
            "- Last rehearsed restore {}: success{}",
            short_time(at, zone),
            took.map_or_else(String::new, |t| format!(" within {t}"))
        ),
        (Some(at), _, Locale::Zh) => format!("- 上次恢复演练 {}：**失败**", short_time(at, zone)),
        (Some(at), _, Locale::En) => {
            format!(
                "- Last rehearsed restore {}: **failed**",
                short_time(at, zone)
            )
        }
        (None, _, Locale::Zh) => "- 从未演练过恢复".to_owned(),
        (None, _, Locale::En) => "- A restore was never rehearsed".to_owned(),
    }
}

fn space(repository: &Repository, zh: bool) -> Option<String> {
    let size = Bytes(repository.size_bytes?);
    let mut text = if zh {
        format!("- 仓库 {size}")
    } else {
        format!("- The repository has {size}")
    };
    if let Some(grown) = repository.grown_bytes.filter(|g| *g != 0) {
        let sign = if grown > 0 { "+" } else { "-" };
        let grown = Bytes(grown.unsigned_abs());
        text += &if zh {
            format!("（近 30 天 {sign}{grown}）")
        } else {
            format!(" ({sign}{grown} within 30 days)")
        };
    }
    if let Some(free) = repository.free_bytes.map(Bytes) {
        text += &if zh {
            format!("，磁盘剩余 {free}")
        } else {
            format!(", its disk has {free} left")
        };
    }
    if let Some(day) = repository.full_on {
        text += &if zh {
            format!("，预计 {day} 写满")
        } else {
            format!(" and will be full about {day}")
        };
    }
    Some(text)
}
