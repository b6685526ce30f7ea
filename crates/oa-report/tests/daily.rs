//! The daily report says what ran, and is sent exactly once a day.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::process::{Command, Output};

use chrono::{Timelike, Utc};
use oa_core::pg::schema;
use oa_testkit::Postgres;
use serde_json::Value;
use tempfile::TempDir;

/// A zone in which it is about noon now, so that no test runs across midnight.
fn noon() -> String {
    let east = 12 - i64::from(Utc::now().hour());
    format!("timezone = \"Etc/GMT{:+}\"\n", -east)
}

struct Service {
    dir: TempDir,
    server: Postgres,
}

impl Service {
    fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Postgres::start_prepared("schema", &[], |server| {
            schema::upgrade(&mut server.connect()).unwrap();
        });
        let (top, sections) = more.split_at(more.find('[').unwrap_or(more.len()));
        let text =
            format!("state_dir = \"state\"\n{top}[database]\nconnect_timeout = \"2s\"\n{sections}");
        fs::write(dir.path().join("oa.toml"), text).unwrap();
        Self { dir, server }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_oa-report"));
        command
            .arg("--config")
            .arg(self.dir.path().join("oa.toml"))
            .args(arguments)
            .env("DATABASE_URL", self.server.url());
        command
    }

    fn report(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = self.command(arguments).output().unwrap();
        let text = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
        (status.code(), text)
    }

    fn count(&self, what: &str) -> i64 {
        let mut db = self.server.connect();
        let row = db.query_one(&format!("SELECT count(*) FROM {what}"), &[]);
        row.unwrap().get(0)
    }

    /// A run that began at a local time and took some seconds.
    fn ran(&self, task: &str, at: &str, seconds: i32, status: &str, more: &str) {
        let sql = format!(
            "INSERT INTO oa.tasks (name, tool, title, schedule) VALUES ('{task}', 'oa-crawl', '标题 {task}', '* * * * *') ON CONFLICT DO NOTHING;
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, inserted, updated, rejected, error_message)
             SELECT (left(oa.uuid_floor(t)::text, 24) || right(md5('{task}{at}'), 12))::uuid, 'oa-crawl', '{task}', 'cron', 'h', 'm', 'b', 1, 1, '0', '{status}', t, t + interval '{seconds} s', {more}
             FROM (SELECT timestamp '{at}' AT TIME ZONE 'Asia/Shanghai' AS t) x"
        );
        self.server.connect().batch_execute(&sql).unwrap();
    }
}

#[test]
fn what_ran_within_the_24_hours_is_counted_and_failures_come_first() {
    let service = Service::start("");
    service.ran(
        "a-good",
        "2025-11-30 09:00:00",
        2,
        "success",
        "75, 0, 1, NULL",
    );
    service.ran(
        "a-good",
        "2025-11-30 09:30:00",
        61,
        "success",
        "0, 3, 0, NULL",
    );
    service.ran(
        "a-good",
        "2025-11-30 12:00:00",
        1,
        "success",
        "0, 0, 0, NULL",
    );
    service.ran(
        "a-good",
        "2025-11-30 08:40:00",
        900,
        "failed",
        "0, 0, 0, 'before'",
    );
    // Under way when the report of the day before is sent: it is in this one.
    service.ran(
        "over-nine",
        "2025-11-30 08:50:00",
        900,
        "success",
        "0, 0, 0, NULL",
    );
    service.ran(
        "a-good",
        "2025-12-01 09:00:00",
        900,
        "failed",
        "0, 0, 0, 'after'",
    );
    service.ran(
        "a-good",
        "2025-11-30 13:00:00",
        0,
        "skipped",
        "0, 0, 0, 'busy'",
    );
    let long = "密码\n".repeat(100);
    service.ran(
        "z-bad",
        "2025-12-01 08:00:00",
        5,
        "timeout",
        &format!("0, 0, 0, '{long}'"),
    );
    service.ran(
        "m-half",
        "2025-12-01 08:00:00",
        5,
        "partial",
        "5, 0, 0, 'only 5'",
    );
    service
        .server
        .connect()
        .batch_execute("INSERT INTO oa.tasks (name, tool, title, schedule) VALUES ('idle', 'oa-crawl', '闲置', '0 0 1 1 *')")
        .unwrap();
    let (code, text) = service.report(&["daily", "--date", "2025-12-01", "--format", "json"]);
    assert_eq!(code, Some(0), "{text}");
    let report: Value = serde_json::from_str(&text).unwrap();
    let names: Vec<&str> = report["tasks"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["z-bad", "m-half", "a-good", "over-nine"]);
    let good = &report["tasks"][2];
    for (key, value) in [
        ("runs", 3),
        ("success", 3),
        ("failed", 0),
        ("inserted", 75),
        ("updated", 3),
        ("rejected", 1),
    ] {
        assert_eq!(good[key], value, "{key}: {good}");
    }
    assert_eq!(
        (&good["slowest_seconds"], &good["worst_gap_seconds"]),
        (&61.0.into(), &9000.0.into())
    );
    assert_eq!(report["without_run"], serde_json::json!(["闲置"]));
    assert_eq!(
        report["today"],
        serde_json::json!({"trading": true, "guessed": false, "night": true})
    );
    let (_, text) = service.report(&["daily", "--date", "2025-12-01"]);
    for line in [
        "**【日报】2025-12-01 ❌ 1 失败 1 不完整：标题 z-bad、标题 m-half**",
        "**应采**：4 项，完整 2 项，缺 2 项（前一日：1 项，完整 0 项；运行 1 次，成功 0 次）",
        "统计 11-30 09:00 至 12-01 09:00",
        "**总体**：运行 6 次，成功 4 次（66.6%），不完整 1 次，失败 1 次；新增 80 条，更新 3 条，拒绝 1 条",
        "- 标题 m-half：0/1 次成功，新增 5，最慢 5 秒；最后一次：only 5",
        "- 标题 a-good：3/3 次成功，新增 75，更新 3，拒绝 1，最长间隔 2 小时 30 分钟，最慢 1 分钟 1 秒",
        "未到排期：闲置",
        "**今日**：周一，交易日，有夜盘",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    // Which records a success did not store, and where to see all of them.
    service
        .server
        .connect()
        .batch_execute(
            "UPDATE oa.runs SET fetched = 76 WHERE rejected > 0;
             INSERT INTO oa.rejects (run_id, seq, task, source_key, field, reason) SELECT id, 0, task, 'RB2601', 'price', 'is \"-1\", less than 0' FROM oa.runs WHERE rejected > 0",
        )
        .unwrap();
    let (_, text) = service.report(&["daily", "--date", "2025-12-01"]);
    let line =
        "- 标题 a-good：76 条中有 1 条没有入库（例如 RB2601 price is \"-1\", less than 0）；查看：";
    let (_, command) = text.split_once(line).unwrap();
    let command: Vec<&str> = command.lines().next().unwrap().split(' ').collect();
    assert_eq!(command[..3], ["oa-report", "logs", "--run"]);
    let (_, run) = service.report(&command[1..]);
    assert!(
        run.contains("NOT STORED 1\n  RB2601 price is \"-1\""),
        "{run}"
    );
    let (_, before) = service.report(&["daily", "--date", "2025-11-30", "--format", "json"]);
    let before: Value = serde_json::from_str(&before).unwrap();
    assert_eq!(before["tasks"].as_array().unwrap().len(), 1, "{before}");
    assert!(!before["without_run"].to_string().contains("over-nine"));
    let bad = text
        .lines()
        .find(|l| l.starts_with("- 标题 z-bad：0/1 次成功"))
        .unwrap();
    assert!(bad.ends_with('…') && bad.chars().count() < 200, "{bad}");
    let (_, text) = service.report(&["daily", "--date", "2025-12-06"]);
    assert!(
        text.contains("**没有任何运行**")
            && text.contains("周六，休市")
            && text.contains("**【日报】2025-12-06 无应采任务**"),
        "{text}"
    );
}

#[test]
fn it_is_sent_once_a_day_however_often_cron_calls() {
    let noon = noon();
    let service = Service::start(&format!("{noon}[report]\ndaily_at = \"00:00\"\n"));
    // As by the clock of a server that is ahead: tomorrow's is due too.
    let zone = noon.split('"').nth(1).unwrap();
    let slots = format!(
        "INSERT INTO oa.tasks (name, tool, title) VALUES ('daily-report', 'oa-report', '每日报告');
         INSERT INTO oa.slots (task, due_at, day, state)
         SELECT 'daily-report', at, (now() AT TIME ZONE '{zone}')::date + ahead, 'open'
         FROM (VALUES (date_trunc('day', now(), '{zone}'), 0), (now() - interval '1 minute', 1)) v (at, ahead)"
    );
    service.server.connect().batch_execute(&slots).unwrap();
    let many: Vec<_> = (0..4)
        .map(|_| {
            service
                .command(&["daily", "--send", "--cron"])
                .spawn()
                .unwrap()
        })
        .collect();
    for mut one in many {
        assert_eq!(one.wait().unwrap().code(), Some(0));
    }
    assert_eq!(service.report(&["daily", "--send"]).0, Some(0));
    assert_eq!(service.count("oa.alerts WHERE rule = 'daily_report'"), 1);
    assert_eq!(service.count("oa.runs WHERE task = 'daily-report' AND status = 'success' AND details ? 'database_bytes'"), 1);
    assert_eq!(
        service.count("oa.alerts WHERE event ->> 'title' LIKE '%（补发）'"),
        1,
        "at noon it is late"
    );
    let (due, first) = (
        "oa.slots WHERE due_at <= now()",
        "(SELECT min(day) FROM oa.slots)",
    );
    assert_eq!(
        service.count(&format!("{due} AND (state = 'done') = (day = {first})")),
        2
    );
}

#[test]
fn a_machine_whose_clock_is_wrong_sends_todays_report_and_no_other() {
    let noon = noon();
    let service = Service::start(&format!("{noon}[report]\ndaily_at = \"00:00\"\n"));
    let zone = noon.split('"').nth(1).unwrap();
    let library = fs::read_dir("/usr/lib")
        .unwrap()
        .flatten()
        .map(|e| e.path().join("faketime/libfaketime.so.1"))
        .find(|p| p.exists())
        .expect("libfaketime is not installed: scripts/setup");
    for offset in ["+1d", "-1d"] {
        let sent = service
            .command(&["daily", "--send", "--cron"])
            .env("LD_PRELOAD", &library)
            .env("FAKETIME", offset)
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
            .output()
            .unwrap();
        assert_eq!(sent.status.code(), Some(0), "{offset}: {sent:?}");
    }
    let sent = "oa.alerts WHERE rule = 'daily_report'";
    let today = format!("fingerprint = 'daily:' || (now() AT TIME ZONE '{zone}')::date");
    assert_eq!(service.count(sent), 1);
    assert_eq!(service.count(&format!("{sent} AND {today}")), 1);
}

#[test]
fn a_report_that_cannot_be_made_is_a_failure_with_its_cause() {
    let calendar = "calendar = \"absent.toml\"\n";
    let sections = "[report]\ndaily_at = \"00:00\"\n";
    let service = Service::start(&format!("{}{calendar}{sections}", noon()));
    let (code, text) = service.report(&["daily", "--send", "--cron"]);
    assert_eq!(code, Some(78), "{text}");
    assert_eq!(
        service.count("oa.runs WHERE status = 'failed' AND error_message LIKE '%absent.toml%'"),
        1
    );
    assert_eq!(service.count("oa.alerts WHERE rule = 'run_failed'"), 1);
    let config = service.dir.path().join("oa.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, text.replace(calendar, "")).unwrap();
    assert_eq!(service.report(&["daily", "--send", "--cron"]).0, Some(0));
    assert_eq!(service.count("oa.alerts WHERE kind = 'recovery'"), 1);
    // Its run failed after it was sent: as when the answer to a commit is lost.
    let failed =
        "UPDATE oa.incidents SET resolved_at = NULL; UPDATE oa.tasks SET last_status = 'failed'";
    service.server.connect().batch_execute(failed).unwrap();
    assert_eq!(service.report(&["daily", "--send", "--cron"]).0, Some(0));
    assert_eq!(service.count("oa.incidents WHERE resolved_at IS NULL"), 0);
    assert_eq!(service.count("oa.alerts WHERE rule = 'daily_report'"), 1);
    // That it is missing is over with the next check: until that comes one run says so, however often cron calls; and one more after each
    // reminder.
    let missed = "INSERT INTO oa.alerts (id, fingerprint, rule, task, severity, kind, event)
                  VALUES (oa.uuid_floor(clock_timestamp()), 'run_missed:daily-report', 'run_missed', 'daily-report', 'critical', 'problem', '{}');
                  INSERT INTO oa.incidents (fingerprint, rule, task, severity, last_alert)
                  SELECT fingerprint, rule, task, severity, id FROM oa.alerts WHERE rule = 'run_missed' ORDER BY seq DESC LIMIT 1
                  ON CONFLICT (fingerprint) DO UPDATE SET last_alert = excluded.last_alert";
    let well = "oa.runs WHERE task = 'daily-report' AND status = 'success'";
    let before = service.count(well);
    for more in [1, 2] {
        service.server.connect().batch_execute(missed).unwrap();
        for _ in 0..3 {
            assert_eq!(service.report(&["daily", "--send", "--cron"]).0, Some(0));
        }
        assert_eq!(service.count(well), before + more);
    }
    assert_eq!(service.count("oa.alerts WHERE rule = 'daily_report'"), 1);
}

#[test]
fn it_is_not_sent_before_its_time_and_waits_for_postgresql() {
    let mut service = Service::start(&format!("{}[report]\ndaily_at = \"23:59\"\n", noon()));
    assert_eq!(service.report(&["daily", "--send"]).0, Some(0));
    assert_eq!(service.count("oa.alerts"), 0);
    service.server.stop();
    let (code, text) = service.report(&["daily"]);
    assert_eq!(code, Some(75), "{text}");
    let config = service.dir.path().join("oa.toml");
    fs::write(&config, "[report]\ndaily_at = \"9 o'clock\"\n").unwrap();
    let (code, text) = service.report(&["daily"]);
    assert_eq!(code, Some(78));
    assert!(
        text.contains("is not a time such as \"09:00\"") && text.contains("line 2"),
        "{text}"
    );
}

#[test]
fn backups_the_last_drill_and_what_the_disks_hold_are_reported() {
    let service = Service::start("");
    let (_, text) = service.report(&["daily", "--date", "2025-12-01"]);
    assert!(text.contains("**备份**：没有配置备份"), "{text}");
    let configured = Service::start(
        "[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_BACKUP\"\n",
    );
    let (code, text) = configured.report(&["daily", "--date", "2025-12-01"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("**备份** /var/backups/oa\n- 还没有任何备份\n- 从未演练过恢复\n"),
        "{text}"
    );
    configured
        .server
        .connect()
        .batch_execute(
            "INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
               restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked, removed_at, check_error)
             SELECT id, gen_random_uuid(), repository, CASE WHEN id = 'weekly' THEN 'logical' ELSE 'physical' END, level, 'h', 'oa', 150000, 's', 1, t, t, t, t, 1, 8, 5, checked,
                    CASE WHEN id = 'gone' THEN t END, CASE WHEN id = 'broken' THEN 'pack 7 is damaged' END
             FROM (VALUES ('f', '/var/backups/oa', 'full', 'data', timestamptz '2025-12-01 02:00+08'),
                          ('i', '/var/backups/oa', 'incremental', 'none', '2025-12-01 08:00+08'),
                          ('weekly', '/var/backups/oa', 'full', 'none', '2025-12-01 03:00+08'),
                          ('broken', '/var/backups/oa', 'full', 'structure', '2025-11-29 02:00+08'),
                          ('gone', '/var/backups/oa', 'full', 'none', '2025-12-02 02:00+08'),
                          ('other', '/elsewhere', 'full', 'none', '2025-12-02 02:00+08')) v (id, repository, level, checked, t);
             INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds)
             VALUES (gen_random_uuid(), 'f', '/var/backups/oa', 'h', now(), '2025-11-20 03:00+08', '2025-11-20 03:10+08', true, 185);
             INSERT INTO oa.repositories VALUES ('/var/backups/oa', now() - interval '10 days', 1073741824, 1, 9000000000),
                                                ('/var/backups/oa', now(), 2147483648, 2, 5368709120);
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, details)
             SELECT oa.uuid_floor(t), 'oa-report', 'daily-report', 'cron', 'h', 'm', 'b', 1, 1, '0', 'success', t, t, '{\"database_bytes\": 1000000, \"day\": \"2025-11-01\"}'
             FROM (SELECT now() - interval '10 days' AS t) x",
        )
        .unwrap();
    let (_, text) = configured.report(&["daily", "--date", "2025-12-01"]);
    let full_on = (Utc::now() + chrono::TimeDelta::days(50))
        .with_timezone(&chrono_tz::Asia::Shanghai)
        .date_naive();
    for line in [
        "- 可恢复到 12-01 08:00；共 4 份，其中本期 3 份；最近全量 12-01 02:00（已读回校验）；**1 份校验失败**".to_owned(),
        "- 上次恢复演练 11-20 03:10：成功，用时 3 分钟 5 秒".to_owned(),
        format!("- 仓库 2.0 GiB（近 30 天 +1.0 GiB），磁盘剩余 5.0 GiB，预计 {full_on} 写满"),
        "；按近期增长，30 天后约 ".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} in {text}");
    }
    let (_, text) = configured.report(&["daily", "--date", "2025-12-01", "--format", "json"]);
    let report: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(report["backups"][0]["made"], 3, "{report}");

    let sql = |text: &str| configured.server.connect().batch_execute(text).unwrap();
    sql(
        "UPDATE oa.backups SET missing_since = now() WHERE id = 'weekly'; UPDATE oa.backups SET unrestorable = 'its full backup is gone' WHERE id = 'i'",
    );
    let (_, text) = configured.report(&["daily", "--date", "2025-12-01"]);
    assert!(
        text.contains("**1 份校验失败**；**2 份已消失或失去所依赖的全量备份**"),
        "{text}"
    );
    sql("UPDATE oa.backups SET missing_since = now()");
    let (_, text) = configured.report(&["daily", "--date", "2025-12-01"]);
    assert!(
        text.contains("- **没有任何可恢复的备份**；**4 份") && !text.contains("还没有任何备份"),
        "{text}"
    );
}

/// A slot of a day of Shanghai.
fn slot(service: &Service, task: &str, due: &str, state: &str, more: &str) {
    let (columns, values) = more.split_once('=').unwrap_or_default();
    let (comma, closed) = (
        if columns.is_empty() { "" } else { "," },
        if state == "open" { "NULL" } else { "now()" },
    );
    let sql = format!(
        "INSERT INTO oa.tasks (name, tool, title, schedule, days, collects, backfills)
         VALUES ('{task}', 'oa-crawl', '标题 {task}', '* * * * *', 'all', '{task}' <> 'program', '{task}' <> 'program') ON CONFLICT DO NOTHING;
         INSERT INTO oa.slots (task, due_at, day, state, closed_at, run_id {comma} {columns})
         VALUES ('{task}', '{due}+08', '{due}'::timestamp::date, '{state}', {closed}, CASE '{state}' WHEN 'done' THEN gen_random_uuid() END {comma} {values})"
    );
    service.server.connect().batch_execute(&sql).unwrap();
}

#[test]
fn what_should_have_run_and_did_not_stands_in_the_title_with_the_command_that_fills_it() {
    let service = Service::start("");
    let sql = |text: &str| service.server.connect().batch_execute(text).unwrap();
    let day = |task: &str, day: &str, state: &str, more: &str| {
        let (columns, values) = more.split_once('=').unwrap_or_default();
        let comma = if columns.is_empty() { "" } else { "," };
        sql(&format!(
            "INSERT INTO oa.days (task, day, expected, state {comma} {columns}) VALUES ('{task}', '{day}', true, '{state}' {comma} {values})"
        ));
    };
    // Thursday the 26th of November. One is whole though a slot was missed before its end; one missed its only one; one was cut short.
    slot(&service, "whole", "2026-11-26 10:00", "missed", "");
    slot(&service, "whole", "2026-11-26 15:00", "done", "");
    day("whole", "2026-11-26", "complete", "records=75");
    slot(
        &service,
        "night",
        "2026-11-26 20:50",
        "missed",
        "reason='nothing was started'",
    );
    day("night", "2026-11-26", "missing", "");
    slot(&service, "short", "2026-11-26 21:00", "done", "");
    day("short", "2026-11-26", "partial", "");
    // A program without days, and what was skipped for a holiday, and what is not due until noon.
    slot(&service, "program", "2026-11-26 23:00", "missed", "");
    slot(&service, "holiday", "2026-11-26 23:00", "skipped", "");
    slot(&service, "noon", "2026-11-27 12:00", "open", "");
    // The night before.
    slot(&service, "whole", "2026-11-25 15:00", "done", "");
    day("whole", "2026-11-25", "complete", "");
    day("short", "2026-11-24", "failed", "");
    day(
        "night",
        "2026-11-20",
        "complete",
        "reported_at, filled_at='2026-11-21 09:00+08', '2026-11-26 12:00+08'",
    );
    sql("INSERT INTO oa.starts (what, host, day, starts, failures, first_at, last_at) VALUES
         ('check', 'h', '2026-11-26', 899, 1, '2026-11-26 09:01+08', '2026-11-26 23:59+08'),
         ('due', 'h', '2026-11-24', 10, 0, '2026-11-24 09:01+08', '2026-11-24 23:59+08');
         INSERT INTO oa.alerts (id, fingerprint, rule, severity, kind, title, body, created_at) VALUES
         (gen_random_uuid(), 'disk:h', 'disk', 'critical', 'problem', '磁盘', '', '2026-11-26 10:00+08'),
         (gen_random_uuid(), 'disk:h', 'disk', 'info', 'recovery', '磁盘', '', '2026-11-27 20:00+08'),
         (gen_random_uuid(), 'later:h', 'disk', 'critical', 'problem', '后来', '', '2026-11-27 20:00+08');
         INSERT INTO oa.incidents (fingerprint, rule, severity, opened_at, notified_at) VALUES ('later:h', 'disk', 'critical', '2026-11-27 20:00+08', now())");
    let (code, text) = service.report(&["daily", "--date", "2026-11-27"]);
    assert_eq!(code, Some(0), "{text}");
    for line in [
        "**【日报】2026-11-27 ❌ 2 未运行 1 不完整：标题 night、标题 program、标题 short；无人值守**",
        "**应采**：4 项，完整 1 项，缺 3 项（前一日：1 项，完整 1 项；运行 0 次，成功 0 次）",
        "- 标题 night 2026-11-26：未采集，应运行 1 次，1 次没有运行（nothing was started）；补采：oa-crawl backfill night --from 2026-11-26 --to 2026-11-26",
        "- 标题 program：未采集，应运行 1 次，1 次没有运行",
        "- 标题 short 2026-11-26：不完整；补采：oa-crawl backfill short --from 2026-11-26 --to 2026-11-26",
        "- 标题 night 2026-11-20（11-26 12:00 补齐）",
        "- 标题 short：失败 1 天，补采：oa-crawl backfill short --from 2026-11-24 --to 2026-11-24",
        "未到排期：标题 holiday、标题 noon",
        "**值守**：告警检查最近 11-26 23:59（899 次，失败 1 次），到期运行没有启动过",
        "- 磁盘（始于 11-26 10:00）",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
    assert!(!text.contains("后来"), "it was not open then: {text}");
    let (_, json) = service.report(&["daily", "--date", "2026-11-27", "--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["before"][0]["from"], "2026-11-24", "{json}");
    let (code, text) = service.report(&["daily", "--date", "+262142-12-31"]);
    assert_eq!(code, Some(2), "{text}");
    // Made up for after the report: it says so, of then.
    sql(
        "UPDATE oa.slots SET filled_by = gen_random_uuid(), filled_at = '2026-11-27 10:00+08' WHERE task = 'program'",
    );
    let (_, text) = service.report(&["daily", "--date", "2026-11-27"]);
    assert!(
        text.contains("- 标题 program：未采集，应运行 1 次，1 次没有运行；已于 11-27 10:00 补齐"),
        "{text}"
    );
    sql("UPDATE oa.slots SET filled_at = '2026-11-27 08:00+08' WHERE task = 'program'; UPDATE oa.days SET state = 'complete' WHERE task = 'short';
         UPDATE oa.days SET state = 'skipped' WHERE task = 'night' AND day = '2026-11-26'; DELETE FROM oa.slots WHERE task = 'night'; DELETE FROM oa.starts; DELETE FROM oa.alerts");
    let (_, text) = service.report(&["daily", "--date", "2026-11-27"]);
    assert!(
        text.contains("**【日报】2026-11-27 ✅ 3 项应采 3 项，完整**")
            && text.contains("- 标题 program：漏跑 1 次，已补"),
        "{text}"
    );
    let config = service.dir.path().join("oa.toml");
    let toml = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("locale = \"en\"\n{toml}")).unwrap();
    let (_, text) = service.report(&["daily", "--date", "2026-11-27"]);
    assert!(
        text.contains("**[DAILY] 2026-11-27 3 of 3 complete")
            || text.contains("**[DAILY] 2026-11-27 ✅ 3 of 3 complete**"),
        "{text}"
    );
    // A Sunday: nothing is due, and something is wrong all the same. That somebody watches now says nothing of then.
    sql("INSERT INTO oa.watches (what, host, ok, detail) VALUES ('check', 'h', true, '');
         INSERT INTO oa.alerts (id, fingerprint, rule, severity, kind, title, body, created_at)
         VALUES (gen_random_uuid(), 'disk_filling:h', 'disk_filling', 'critical', 'problem', 't', 'b', '2026-01-03 20:00+08');
         INSERT INTO oa.incidents (fingerprint, rule, severity, opened_at, notified_at)
         VALUES ('disk_filling:h', 'disk_filling', 'critical', '2026-01-03 20:00+08', '2026-01-03 20:00+08')");
    let (_, text) = service.report(&["daily", "--date", "2026-01-04"]);
    assert!(
        text.contains("**[DAILY] 2026-01-04 ⚠️ nothing was due; 1 open incidents**"),
        "{text}"
    );
}

#[test]
fn what_is_under_way_when_a_report_ends_is_not_missed_but_in_the_next_one() {
    let service = Service::start("");
    let sql = |text: &str| service.server.connect().batch_execute(text).unwrap();
    let report = |day: &str| service.report(&["daily", "--date", day]).1;
    slot(&service, "done", "2026-11-23 10:00", "done", "");
    slot(&service, "running", "2026-11-24 08:30", "open", "");
    slot(&service, "soon", "2026-11-24 08:55", "open", "");
    sql("INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at)
         SELECT oa.uuid_floor(t), 'oa-crawl', 'running', 'due', 'h', 'm', 'b', 1, 1, '0', 'running', t FROM (SELECT timestamptz '2026-11-24 08:30+08' AS t) x");
    for _ in 0..2 {
        let text = report("2026-11-24");
        assert!(
            text.contains("✅ 1 项应采 1 项，完整")
                && text.contains("尚未结束，计入下次日报：标题 running、标题 soon"),
            "{text}"
        );
        // What became of them later changes nothing of what could be known then.
        sql("UPDATE oa.runs SET status = 'failed', finished_at = '2026-11-24 09:20+08', error_message = 'HTTP 502';
             UPDATE oa.slots SET state = CASE task WHEN 'soon' THEN 'missed' ELSE 'done' END, closed_at = '2026-11-24 09:20+08', run_id = gen_random_uuid()
             WHERE day = '2026-11-24'");
    }
    let text = report("2026-11-25");
    for line in [
        "**应采**：2 项，完整 0 项，缺 2 项（前一日：1 项，完整 1 项；运行 0 次，成功 0 次）",
        "- 标题 soon：未采集，应运行 1 次，1 次没有运行",
        "- 标题 running：失败（HTTP 502）",
    ] {
        assert!(text.lines().any(|l| l == line), "{line}\n{text}");
    }
}

#[test]
fn reports_of_days_on_which_the_machine_was_off_are_made_up_for_and_marked() {
    let service = Service::start(&format!("{}[report]\ndaily_at = \"00:00\"\n", noon()));
    let sql = |text: &str| service.server.connect().batch_execute(text).unwrap();
    let east = 12 - i64::from(Utc::now().hour());
    let today = (Utc::now() + chrono::TimeDelta::hours(east)).date_naive();
    let ago = |days: u64| today - chrono::Days::new(days);
    sql(&format!(
        "INSERT INTO oa.alerts (id, fingerprint, rule, severity, kind, title, body) VALUES (gen_random_uuid(), 'daily:{}', 'daily_report', 'info', 'message', 't', 'b');
         INSERT INTO oa.tasks (name, tool, title) VALUES ('a', 'oa-crawl', 'A');
         INSERT INTO oa.days (task, day, expected, state) VALUES ('a', '{}', true, 'missing'), ('a', '{}', true, 'pending')",
        ago(3), ago(1), ago(0),
    ));
    assert_eq!(service.report(&["daily", "--send", "--cron"]).0, Some(0));
    let rows = service
        .server
        .connect()
        .query(
            "SELECT fingerprint, event ->> 'title' FROM oa.alerts WHERE event IS NOT NULL ORDER BY seq",
            &[],
        )
        .unwrap();
    let sent: Vec<(String, String)> = rows.iter().map(|r| (r.get(0), r.get(1))).collect();
    let days: Vec<&str> = sent.iter().map(|(f, _)| f.as_str()).collect();
    assert_eq!(days, [ago(2), ago(1), ago(0)].map(|d| format!("daily:{d}")));
    assert!(
        sent.iter().all(|(_, title)| title.ends_with("（补发）")),
        "{sent:?}"
    );
    assert!(sent[2].1.contains("❌ 1 未运行：A"), "{sent:?}");
    // People know of it from now on.
    assert_eq!(service.count("oa.days WHERE reported_at IS NOT NULL"), 1);
    assert_eq!(service.report(&["daily", "--send", "--cron"]).0, Some(0));
    assert_eq!(service.count("oa.alerts WHERE event IS NOT NULL"), 3);

    // Somebody who stores a long outcome keeps nobody from a report, which says what it could not note.
    sql("DELETE FROM oa.alerts WHERE event IS NOT NULL; UPDATE oa.days SET reported_at = NULL");
    let mut other = service.server.connect();
    let mut storing = other.transaction().unwrap();
    let lock = "SELECT FROM oa.tasks WHERE name = 'a' FOR UPDATE";
    storing.execute(lock, &[]).unwrap();
    let sent = service.command(&["daily", "--send", "--cron"]).output();
    let sent = sent.unwrap();
    let said = String::from_utf8_lossy(&sent.stderr);
    assert_eq!(sent.status.code(), Some(0), "{said}");
    assert!(
        said.contains("somebody else has these tasks locked"),
        "{said}"
    );
    assert_eq!(service.count("oa.alerts WHERE event IS NOT NULL"), 3);
    assert_eq!(service.count("oa.days WHERE reported_at IS NOT NULL"), 0);
}

/// Without checks nobody has looked for what did not run, and for old backups.
#[test]
fn a_report_of_a_service_that_nothing_checks_is_not_green() {
    let service = Service::start(&format!("{}[report]\ndaily_at = \"23:59\"\n", noon()));
    let sql = |sql: &str| service.server.connect().batch_execute(sql).unwrap();
    sql(
        "INSERT INTO oa.tasks (name, tool, title) VALUES ('a', 'oa-crawl', 'A');
         INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
         SELECT oa.uuid_floor(t), 'oa-crawl', 'a', 'cron', 'h', 'm', 'b', 1, 1, '0', 'success', t, t FROM (SELECT now() - interval '1 minute' AS t) x",
    );
    let (_, text) = service.report(&["daily"]);
    assert!(
        text.contains("❌ 无人值守") && text.contains("两周内没有启动过告警检查"),
        "{text}"
    );
    sql(
        "INSERT INTO oa.starts (what, host, day, first_at, last_at) VALUES ('check', 'h', current_date, now(), now())",
    );
    let (_, text) = service.report(&["daily"]);
    assert!(text.contains("✅ 1 项应采 1 项，完整"), "{text}");
}

/// The rest of the report is news, too, and a robot cuts what is too long.
#[test]
fn of_very_many_open_incidents_the_worst_are_listed_and_all_are_counted() {
    let service = Service::start(&noon());
    let many = "INSERT INTO oa.incidents (fingerprint, rule, task, severity, opened_at)
         SELECT 'run:t' || n, 'run_failed', 't' || n, CASE WHEN n > 20 THEN 'critical' ELSE 'warning' END, now() - interval '1 day' + n * interval '1 minute'
         FROM generate_series(1, 50) n";
    service.server.connect().batch_execute(many).unwrap();
    let (code, text) = service.report(&["daily"]);
    assert_eq!(code, Some(0), "{text}");
    let (_, list) = text.split_once("未恢复的故障").unwrap();
    let listed: Vec<&str> = list.lines().filter(|l| l.contains("（始于")).collect();
    assert_eq!(listed.len(), 20, "{text}");
    assert!(
        listed[0].contains("run:t21)") && listed[19].contains("run:t40)"),
        "{text}"
    );
    assert!(
        list.contains("另有 30 个") && text.contains("50 个故障未恢复"),
        "{text}"
    );
}
