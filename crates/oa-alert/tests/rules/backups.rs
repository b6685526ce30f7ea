//! Backups, drills and the repository.

use std::fs;

use chrono::Utc;
use oa_core::app::work::{Job, JobOutcome, recorded};
use oa_core::journal::Recorder;
use oa_core::model::run::{Batch, Status};
use serde_json::json;

use super::Heard;
use crate::common::{DINGTALK, Service, rules};

const BACKUP: &str =
    "[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_BACKUP\"\n";

fn backup(service: &Service, id: &str, level: &str, hours_ago: f64, checked: &str) {
    service.sql(&format!(
        "INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
           restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked, checked_at)
         SELECT '{id}', gen_random_uuid(), '/var/backups/oa', 'physical', '{level}', 'h', 'oa', 150000, 's', 1, t, t, t, t, 1, 2000000, 1000000, '{checked}', t
         FROM (SELECT now() - make_interval(secs => {hours_ago}::float8 * 3600) AS t) x"
    ));
}

#[test]
fn a_backup_that_is_late_or_was_never_made_is_reported() {
    let service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    assert_eq!(service.check(), (0, vec![]), "the first one is not due yet");
    service.configure("", &format!("{BACKUP}full_every = \"1ms\"\n{DINGTALK}"));
    let text = heard.once(&service, "backup_late", 2);
    assert!(text.contains("没有任何备份"), "{text}");
    service.configure("", &format!("{BACKUP}{DINGTALK}"));
    backup(&service, "b1", "full", 1.0, "structure");
    heard.over(&service);
    // Another repository's backups are another machine's.
    service.sql("UPDATE oa.backups SET restorable_to = now() - interval '3 hours'; INSERT INTO oa.backups SELECT 'other', gen_random_uuid(), '/elsewhere', kind, level, parent_id, host, database, server_version, system_id, timeline, start_lsn, end_lsn, restorable_from, now(), started_at, finished_at, files, size_bytes, added_bytes FROM oa.backups");
    let text = heard.once(&service, "backup_late", 2);
    assert!(text.contains("目标是最多丢失 2 小时"), "{text}");
    // A machine that never had [backup] knows nothing of it, and does not say that it is over.
    let noted = service.state().join("backup-since.json");
    let own = fs::read(&noted).unwrap();
    fs::remove_file(&noted).unwrap();
    service.configure("", DINGTALK);
    assert_eq!(service.check(), (0, vec![]));
    assert!(heard.new_texts(&service).is_empty());
    fs::write(&noted, own).unwrap();
    service.configure("", &format!("{BACKUP}{DINGTALK}"));
    backup(&service, "b2", "incremental", 0.5, "none");
    heard.over(&service);
    service.sql("UPDATE oa.backups SET finished_at = now() - interval '27 hours' WHERE id = 'b1'");
    let text = heard.once(&service, "backup_late", 1);
    assert!(
        text.contains("最近一次全量备份完成于") && text.contains("full_every"),
        "{text}"
    );
    backup(&service, "b3", "full", 0.1, "none");
    heard.over(&service);
}

#[test]
fn a_dump_made_beside_physical_backups_does_not_stand_in_for_the_full_one() {
    let service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b1", "full", 27.0, "data");
    backup(&service, "b2", "incremental", 0.5, "none");
    backup(&service, "weekly", "full", 1.0, "none");
    service.sql("UPDATE oa.backups SET kind = 'logical' WHERE id = 'weekly'");
    let text = heard.once(&service, "backup_late", 1);
    assert!(text.contains("full_every"), "{text}");
    service.sql("UPDATE oa.backups SET kind = 'logical'");
    heard.over(&service);
}

#[test]
fn what_was_reported_of_a_repository_is_over_when_it_is_configured_no_more() {
    let service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b1", "full", 30.0, "data");
    heard.once(&service, "backup_late", 2);
    let moved = BACKUP.replace("/var/backups/oa", "/srv/backups");
    service.configure("", &format!("{moved}{DINGTALK}"));
    heard.over(&service);
    // From now on it is the incident of a machine that still has it.
    service.sql("UPDATE oa.alerts SET kind = 'problem' WHERE kind = 'recovery'");
    assert_eq!(service.check(), (0, vec![]));
    assert!(heard.new_texts(&service).is_empty());
    service.configure("", &format!("{moved}full_every = \"1ms\"\n{DINGTALK}"));
    heard.once(&service, "backup_late", 2);
    service.configure("", DINGTALK);
    heard.over(&service);
}

#[test]
fn a_backup_that_is_broken_or_was_never_verified_is_reported() {
    let service = Service::start(&format!("{BACKUP}full_every = \"3d\"\n{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b0", "full", 7.9 * 24.0, "structure");
    backup(&service, "b1", "full", 23.0, "structure");
    backup(&service, "b2", "incremental", 0.1, "none");
    assert_eq!(
        service.check(),
        (0, vec![]),
        "there is a week and a day for it"
    );
    // That everything is there does not say that it can be read.
    service.sql("UPDATE oa.backups SET finished_at = now() - interval '193 hours', checked_at = now() WHERE id = 'b0'");
    let text = heard.once(&service, "backup_unverified", 1);
    assert!(
        text.contains("至今没有完整读回校验过；应每 8 天一次") && text.contains("--read-data"),
        "{text}"
    );
    let read_back = |id: &str, days_ago: i32| {
        service.sql(&format!(
            "UPDATE oa.backups SET checked = 'data', checked_at = now() - interval '{days_ago} days' WHERE id = '{id}'"
        ));
    };
    // Also when it was pruned since.
    read_back("b0", 7);
    service.sql("UPDATE oa.backups SET removed_at = now() WHERE id = 'b0'");
    heard.over(&service);
    read_back("b0", 9);
    let text = heard.once(&service, "backup_unverified", 1);
    assert!(text.contains("上次完整读回校验是"), "{text}");
    read_back("b1", 0);
    heard.over(&service);
    service.sql("UPDATE oa.backups SET check_error = 'pack 4711 is damaged' WHERE id = 'b2'");
    let text = heard.once(&service, "backup_unverified", 2);
    assert!(text.contains("pack 4711 is damaged"), "{text}");
    service.sql("UPDATE oa.backups SET removed_at = now() WHERE id = 'b2'; UPDATE oa.backups SET checked = 'data', restorable_to = now()");
    heard.over(&service);
}

fn drill(service: &Service, backup: &str, days_ago: i32, ok: bool, rto_seconds: i32) {
    service.sql(&format!(
        "INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds, error)
         SELECT gen_random_uuid(), '{backup}', '/var/backups/oa', 'h', t, t, t, {ok}, {rto_seconds}, CASE WHEN {ok} THEN NULL ELSE 'table runs has 3 rows less' END
         FROM (SELECT now() - interval '{days_ago} days' AS t) x"
    ));
}

#[test]
fn a_drill_that_is_overdue_failed_or_slow_is_reported() {
    let service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b1", "full", 1.0, "data");
    assert_eq!(
        service.check(),
        (0, vec![]),
        "the first drill is not due yet"
    );
    backup(&service, "b0", "full", 36.0 * 24.0, "data");
    let text = heard.once(&service, "drill_overdue", 1);
    assert!(text.contains("至今没有成功演练过"), "{text}");
    drill(&service, "b1", 34, true, 60);
    heard.over(&service);
    drill(&service, "b1", 2, false, 0);
    let text = heard.once(&service, "drill_failed", 2);
    assert!(text.contains("table runs has 3 rows less"), "{text}");
    drill(&service, "b1", 1, true, 3700);
    let (code, found) = service.check();
    assert_eq!((code, rules(&found)), (1, vec!["drill_slow"]));
    let texts = heard.new_texts(&service);
    assert!(
        texts.iter().any(|t| t.contains("【解除】恢复演练失败")),
        "{texts:?}"
    );
    assert!(
        texts
            .iter()
            .any(|t| t.contains("用了 1 小时 1 分钟，目标是不超过 1 小时")),
        "{texts:?}"
    );
    drill(&service, "b1", 0, true, 30);
    heard.over(&service);
}

/// A drill as `oa-restore` records it: it failed, and the check reports that.
fn record_drill(service: &Service, backup: &str) {
    let columns = [
        "run_id",
        "backup_id",
        "repository",
        "host",
        "target",
        "started_at",
        "finished_at",
        "ok",
        "error",
    ];
    let recorder = Recorder::open(&service.config(), "oa-restore").unwrap();
    let job = Job::by_hand("oa-restore", "restore-drill", "恢复演练");
    recorded(&recorder, &job, |run| {
        let now = json!(Utc::now());
        let batch = Batch {
            schema: "oa".to_owned(),
            table: "drills".to_owned(),
            columns: columns.map(str::to_owned).to_vec(),
            key: vec!["run_id".to_owned()],
            rows: vec![vec![
                json!(run.id),
                json!(backup),
                json!("/var/backups/oa"),
                json!("h"),
                now.clone(),
                now.clone(),
                now,
                json!(false),
                json!("table runs has 3 rows less"),
            ]]
            .into(),
            collected_at: Utc::now(),
            timezone: "UTC".to_owned(),
            newest_by: None,
        };
        Ok(JobOutcome {
            status: Status::Failed,
            error: Some("table runs has 3 rows less".to_owned()),
            batches: vec![batch],
            reported_by_check: true,
            ..JobOutcome::success(())
        })
    })
    .unwrap();
}

#[test]
fn a_drill_that_failed_is_reported_once_and_by_its_run_where_the_check_cannot_see_it() {
    let mut service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b1", "full", 1.0, "data");
    record_drill(&service, "b1");
    assert_eq!(service.flush(), 0);
    assert!(heard.new_texts(&service).is_empty());
    heard.once(&service, "drill_failed", 2);
    drill(&service, "b1", 0, true, 30);
    heard.over(&service);
    // Its row is refused, alone or together with the table.
    service.sql("ALTER TABLE oa.drills ADD CHECK (backup_id <> 'refused')");
    record_drill(&service, "refused");
    service.flush();
    let texts = heard.new_texts(&service);
    assert!(
        texts.len() == 1
            && texts[0].contains("【故障】恢复演练 运行失败")
            && texts[0].contains("备份、校验或恢复演练没有通过（table runs has 3 rows less）")
            && !texts[0].contains("oa.rejects")
            && !texts[0].contains("没有新数据"),
        "{texts:?}"
    );
    service.sql("DELETE FROM oa.alerts; ALTER TABLE oa.drills RENAME TO away");
    record_drill(&service, "b1");
    service.flush();
    assert_eq!(heard.new_texts(&service).len(), 1);
    service.sql("DELETE FROM oa.alerts; ALTER TABLE oa.away RENAME TO drills");
    service.server.stop();
    record_drill(&service, "b1");
    assert_eq!(service.flush(), 75);
    let texts = heard.new_texts(&service);
    assert!(
        texts.iter().any(|t| t.contains("恢复演练 运行失败")),
        "now, and not when PostgreSQL is back: {texts:?}"
    );
}

#[test]
fn a_repository_that_fills_is_reported_with_the_day() {
    let service = Service::start(&format!("{BACKUP}{DINGTALK}"));
    let mut heard = Heard(0);
    backup(&service, "b1", "full", 1.0, "data");
    let measured = |days_ago: i32, size: i64, free: i64| {
        service.sql(&format!(
            "INSERT INTO oa.repositories VALUES ('/var/backups/oa', now() - interval '{days_ago} days', {size}, 1, {free})"
        ));
    };
    measured(10, 10_000_000, 60_000_000);
    measured(0, 20_000_000, 50_000_000);
    assert_eq!(service.check(), (0, vec![]), "fifty days");
    service.sql("UPDATE oa.repositories SET free_bytes = 5500000 WHERE size_bytes = 20000000");
    let text = heard.once(&service, "repository_filling", 1);
    let day = (Utc::now() + chrono::TimeDelta::hours(132))
        .with_timezone(&chrono_tz::Asia::Shanghai)
        .date_naive();
    assert!(text.contains(&format!("将于 {day} 前后写满")), "{text}");
    service.sql("UPDATE oa.repositories SET free_bytes = 999999 WHERE size_bytes = 20000000");
    assert_eq!(service.check().0, 2);
    assert!(heard.new_texts(&service)[0].contains("下一次很可能放不下"));
    service.sql("UPDATE oa.repositories SET free_bytes = NULL");
    heard.over(&service);
}
