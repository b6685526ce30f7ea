//! Each rule of the check finds its trouble, tells it once, and tells when it is over.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod backups;

use crate::common;

use std::fs;

use chrono::{Days, NaiveDate, Utc};
use common::{DINGTALK, Service, rules};
use oa_core::base::state_dir::StateDir;
use oa_core::schedule::Calendar;
use oa_sim::Options;
use oa_testkit::Postgres;

fn robots() -> Options {
    Options {
        dingtalk_secret: Some("SECx-secret".into()),
        ..Options::default()
    }
}

/// What the robot took since the last look.
struct Heard(usize);

impl Heard {
    fn new_texts(&mut self, service: &Service) -> Vec<String> {
        let messages = service.sim.messages();
        let texts = messages[self.0..].iter().map(|m| m.text.clone()).collect();
        self.0 = messages.len();
        texts
    }

    /// One check finds just this and tells it, the next one finds it and tells nothing.
    fn once(&mut self, service: &Service, rule: &str, code: i32) -> String {
        let (got, found) = service.check();
        assert_eq!((got, rules(&found)), (code, vec![rule]), "{found:?}");
        let texts = self.new_texts(service);
        assert_eq!(texts.len(), 1, "{texts:?}");
        let (_, found) = service.check();
        assert_eq!(rules(&found), [rule]);
        let more = self.new_texts(service);
        assert!(more.is_empty(), "messages again: {more:?}");
        texts.into_iter().next().unwrap()
    }

    /// It is over, told once.
    fn over(&mut self, service: &Service) {
        let (code, found) = service.check();
        assert_eq!((code, found), (0, vec![]));
        let texts = self.new_texts(service);
        assert!(
            texts.len() == 1 && texts[0].contains("【解除】"),
            "{texts:?}"
        );
        assert_eq!(service.check().0, 0);
        let more = self.new_texts(service);
        assert!(more.is_empty(), "messages again: {more:?}");
    }
}

/// The last trading days before today in the service's zone, oldest first.
fn trading_days(count: usize) -> Vec<NaiveDate> {
    let calendar = Calendar::shipped();
    let today = Utc::now()
        .with_timezone(&chrono_tz::Asia::Shanghai)
        .date_naive();
    let mut days: Vec<NaiveDate> = (1..60)
        .map(|n| today - Days::new(n))
        .filter(|d| calendar.is_trading_day(*d).is_open())
        .take(count)
        .collect();
    days.reverse();
    days
}

fn scheduled(service: &Service, task: &str) {
    service.sql(&format!(
        "INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at, last_status, last_run_id, last_success_at)
         VALUES ('{task}', 'oa-crawl', '多空全景', '0 12 * * *', now() + interval '1 day', 'success', gen_random_uuid(), now())"
    ));
}

/// A successful run at noon of a day.
fn ran(service: &Service, task: &str, day: NaiveDate, inserted: u64, collected: u64) {
    service.sql(&format!(
        "WITH run AS (
           INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, inserted)
           SELECT oa.uuid_floor(t), 'oa-crawl', '{task}', 'cron', 'h', 'm', 'b', 1, 1, '0', t, t, 'success', {inserted}
           FROM (SELECT timestamp '{day} 12:00' AT TIME ZONE 'Asia/Shanghai' AS t) x RETURNING id)
         INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score) SELECT id, '{task}', '{day}', {collected}, 0, 100 FROM run"
    ));
}

#[test]
fn a_stream_of_wal_that_has_ended_is_reported_although_nothing_has_a_schedule() {
    let service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    let begun = |ago: &str| {
        format!(
            "UPDATE oa.tasks SET last_started_at = now() - interval '{ago}' WHERE name = 'backup-stream'"
        )
    };
    service.sql(
        "INSERT INTO oa.tasks (name, tool, title, last_status, last_run_id, last_success_at)
         VALUES ('backup-stream', 'oa-backup', '连续备份', 'success', gen_random_uuid(), now());
         INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, inserted)
         SELECT oa.uuid_floor(t), 'oa-backup', 'backup-stream', 'cron', 'h', 'm', 'b', 1, 1, '0', t, t, 'success', 0
         FROM generate_series(now() - interval '6 hours', now() - interval '40 minutes', interval '1 minute') t",
    );
    service.sql(&begun("20 minutes"));
    assert!(rules(&service.check().1).is_empty(), "it may be restarted");
    service.sql(&begun("40 minutes"));
    let text = heard.once(&service, "run_missed", 2);
    assert!(
        text.contains("连续备份") && text.contains("systemctl start oa-backup-stream"),
        "{text}"
    );
    service.sql(&begun("1 second"));
    heard.over(&service);
}

#[test]
fn runs_that_succeed_with_nothing_new_for_days_are_stale() {
    let service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    let days = trading_days(9);
    scheduled(&service, "zhihui-full-view");
    for (n, day) in days.iter().enumerate() {
        ran(
            &service,
            "zhihui-full-view",
            *day,
            if n < 7 { 5 } else { 0 },
            100,
        );
    }
    let text = heard.once(&service, "data_stale", 1);
    service.under_way("zhihui-full-view", "running");
    assert_eq!(rules(&service.check().1), ["data_stale"]);
    assert!(heard.new_texts(&service).is_empty(), "a run is under way");
    service.sql("DELETE FROM oa.runs WHERE finished_at IS NULL");
    let last = days[6];
    assert!(
        text.contains("【警告】多空全景 数据没有更新")
            && text.contains(&format!("{last} 之后的 2 个交易日")),
        "{text}"
    );
    // A backfill of an old day is not news of today.
    let days = days.last().unwrap();
    service.sql(&format!(
        "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, inserted)
         SELECT oa.uuid_floor(t), 'oa-crawl', 'zhihui-full-view', 'backfill', 'h', 'm', 'b', 1, 1, '0', t, t, 'success', 5
         FROM (SELECT timestamp '{days} 13:00' AT TIME ZONE 'Asia/Shanghai' AS t) x"
    ));
    assert_eq!(rules(&service.check().1), ["data_stale"]);
    service.sql("UPDATE oa.runs SET trigger = 'cron' WHERE trigger = 'backfill'");
    heard.over(&service);
    // A failing task is told by its runs.
    service.sql("UPDATE oa.runs SET inserted = 0, status = 'failed' WHERE id = (SELECT id FROM oa.runs ORDER BY id DESC LIMIT 1)");
    assert_eq!(service.check(), (0, vec![]));
}

#[test]
fn far_fewer_records_than_usual_for_three_days_are_falling_data() {
    let service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    let days = trading_days(10);
    scheduled(&service, "zhihui-reports");
    for (n, day) in days.iter().enumerate() {
        ran(
            &service,
            "zhihui-reports",
            *day,
            1,
            if n < 7 { 2434 } else { 100 },
        );
    }
    let text = heard.once(&service, "data_falling", 1);
    service.under_way("zhihui-reports", "retrying");
    assert_eq!(rules(&service.check().1), ["data_falling"]);
    assert!(heard.new_texts(&service).is_empty(), "a run is under way");
    service.sql("DELETE FROM oa.runs WHERE finished_at IS NULL");
    assert!(
        text.contains("此前通常每日 2434 条")
            && text.contains(&format!("{} 100", days[9].format("%m-%d"))),
        "{text}"
    );
    service.sql("UPDATE oa.quality SET collected = 2400 WHERE run_id = (SELECT run_id FROM oa.quality ORDER BY run_id DESC LIMIT 1)");
    heard.over(&service);
}

#[test]
fn results_that_wait_for_long_are_reported_also_without_postgresql() {
    let mut service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    let aged = |service: &Service| {
        let db = rusqlite::Connection::open(service.state().join("spool.db")).unwrap();
        db.execute_batch("UPDATE entries SET created_at = created_at - 7200000")
            .unwrap();
    };
    service.server.stop();
    assert_eq!(
        service.check(),
        (2, vec![]),
        "it is away, and nothing waits for long"
    );
    heard.new_texts(&service);
    aged(&service);
    let text = heard.once(&service, "spool_waiting", 2);
    assert!(text.contains("暂存的结果已等待 2 小时"), "{text}");
    service.server.start_again();
    assert_eq!(service.check(), (0, vec![]));
    let texts = heard.new_texts(&service);
    assert_eq!(
        texts
            .iter()
            .filter(|t| t.contains("【恢复】") || t.contains("【解除】"))
            .count(),
        2,
        "{texts:?}"
    );
    // PostgreSQL is there, and somebody else has held the drain for an hour.
    let state = StateDir::open(&service.state()).unwrap();
    service.put_in_spool("x", "t");
    aged(&service);
    let lock = state.try_lock("spool-drain").unwrap().unwrap();
    let (_, found) = service.check();
    assert_eq!(rules(&found), ["spool_waiting"]);
    assert_eq!(heard.new_texts(&service).len(), 1);
    drop(lock);
    assert_eq!(service.check(), (0, vec![]));
}

fn cookies(service: &Service, provider: &str, days: i64, imported: bool) {
    let folder = service.state().join("browser");
    fs::create_dir_all(&folder).unwrap();
    let at = |d: i64| Utc::now().timestamp() + d * 86_400 + 60;
    let text = format!(
        r#"[{{"name": "session", "value": "hunter2", "domain": "x", "httpOnly": true, "expirationDate": {}.5}},
            {{"name": "waf", "value": "v", "domain": "x", "httpOnly": true, "expirationDate": {}}},
            {{"name": "_ga", "value": "v", "domain": "x", "expirationDate": {}}}]"#,
        at(days),
        at(0) + 1700,
        at(1)
    );
    fs::write(folder.join(format!("{provider}.json")), text).unwrap();
    if imported {
        fs::write(folder.join(format!("{provider}.imported")), "").unwrap();
    }
}

#[test]
fn a_login_that_only_a_person_can_renew_is_reported_before_it_ends() {
    let service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    cookies(&service, "rongda", 8, true);
    cookies(&service, "jiaoyikecha", 3, false);
    assert_eq!(service.check(), (0, vec![]));
    cookies(&service, "rongda", 3, true);
    let text = heard.once(&service, "cookie_expiring", 1);
    assert!(
        text.contains("还有 3 天") && text.contains("oa-crawl cookies import rongda"),
        "{text}"
    );
    assert!(!text.contains("hunter2"), "{text}");
    fs::write(service.state().join("browser/rongda.json"), "not JSON").unwrap();
    heard.over(&service);
}

#[test]
fn the_certificate_of_the_database_is_reported_before_it_expires() {
    let (server, _) = Postgres::start_with_tls();
    let service = Service::start_on(
        server,
        &format!("[alert]\nexpiry_notice = \"1h\"\n{DINGTALK}"),
        robots(),
    );
    let mut heard = Heard(0);
    assert_eq!(service.check(), (0, vec![]));
    service.configure(
        "",
        &format!("[alert]\nexpiry_notice = \"50000d\"\n{DINGTALK}"),
    );
    let text = heard.once(&service, "certificate_expiring", 1);
    assert!(
        text.contains("的证书即将过期") && text.contains("ssl_cert_file"),
        "{text}"
    );
    service.configure("", &format!("[alert]\nexpiry_notice = \"1h\"\n{DINGTALK}"));
    heard.over(&service);
    service.configure(
        "",
        &format!("[alert]\nexpiry_notice = \"50000d\"\n{DINGTALK}"),
    );
    heard.once(&service, "certificate_expiring", 1);
    service.configure(
        "",
        &format!(
            "[alert]\nexpiry_notice = \"50000d\"\noff = [\"certificate_expiring\"]\n{DINGTALK}"
        ),
    );
    heard.over(&service);
    // Of a server that the address names no more nobody can see anything.
    service.configure(
        "",
        &format!("[alert]\nexpiry_notice = \"50000d\"\n{DINGTALK}"),
    );
    heard.once(&service, "certificate_expiring", 1);
    service.sql(
        "UPDATE oa.incidents SET fingerprint = 'certificate_expiring:former:5432' WHERE fingerprint LIKE 'certificate_expiring:%' AND resolved_at IS NULL",
    );
    let note = service.state().join("certificate.json");
    let mut seen: serde_json::Value = serde_json::from_slice(&fs::read(&note).unwrap()).unwrap();
    seen["server"] = "former:5432".into();
    fs::write(&note, seen.to_string()).unwrap();
    service.configure("", &format!("[alert]\nexpiry_notice = \"1h\"\n{DINGTALK}"));
    heard.over(&service);
    // Nor where the address uses no TLS any more.
    service.configure(
        "",
        &format!("[alert]\nexpiry_notice = \"50000d\"\n{DINGTALK}"),
    );
    heard.once(&service, "certificate_expiring", 1);
    let open = "SELECT count(*)::text FROM oa.incidents WHERE rule = 'certificate_expiring' AND resolved_at IS NULL";
    assert_eq!(service.one(open), "1");
    let without = format!("{}?sslmode=disable", service.server.url());
    let mut check = service.command(&["check"]);
    let done = check.env("DATABASE_URL", without).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(service.one(open), "0");
}

#[test]
fn connections_wal_clock_and_disk_have_limits_that_can_be_set() {
    let service = Service::start(DINGTALK);
    let mut heard = Heard(0);
    let mut superuser =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    superuser
        .batch_execute("SELECT pg_create_physical_replication_slot('forgotten', true); SELECT pg_switch_wal(); CREATE TABLE public.x AS SELECT generate_series(1, 10000)")
        .unwrap();
    for (setting, rule, code, says) in [
        ("connections_share = 0", "connections", 1, "已用 "),
        (
            "wal_limit = 1",
            "wal_held",
            1,
            "pg_drop_replication_slot('forgotten')",
        ),
        ("clock_limit = 0", "clock_off", 1, "的时钟与数据库相差"),
        ("disk_warning = 1.0", "disk_filling", 1, "磁盘空间不足"),
        (
            "disk_warning = 1.0\ndisk_critical = 1.0",
            "disk_filling",
            2,
            "磁盘空间不足",
        ),
    ] {
        service.configure("", &format!("[alert]\n{setting}\n{DINGTALK}"));
        let text = heard.once(&service, rule, code);
        assert!(text.contains(says), "{text}");
        service.configure("", DINGTALK);
        heard.over(&service);
    }
    // Other roles' connections count, also for a role that may not see what they are.
    let most: f64 = service
        .one("SHOW max_connections")
        .parse()
        .expect("it is a number");
    let others: Vec<_> = (0..8)
        .map(|_| postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls))
        .collect();
    assert!(others.iter().all(Result::is_ok));
    let share = 7.0 / most;
    service.configure(
        "",
        &format!("[alert]\nconnections_share = {share}\n{DINGTALK}"),
    );
    heard.once(&service, "connections", 1);
    drop(others);
    service.configure("", DINGTALK);
    heard.over(&service);
    for wrong in [
        "disk_warning = 10",
        "connections_share = -0.1",
        "partial_limit = 0",
    ] {
        service.configure("", &format!("[alert]\n{wrong}\n{DINGTALK}"));
        let done = service.alert(&["check"]);
        assert!(
            done.code == 78 && done.stderr.contains(wrong.split(' ').next().unwrap()),
            "{done:?}"
        );
    }
}

#[test]
fn a_rule_that_is_off_is_not_asked_and_a_wrong_name_is_an_error() {
    let service = Service::start(&format!("[alert]\nconnections_share = 0\n{DINGTALK}"));
    let mut heard = Heard(0);
    heard.once(&service, "connections", 1);
    service.configure(
        "",
        &format!("[alert]\nconnections_share = 0\noff = [\"connections\"]\n{DINGTALK}"),
    );
    heard.over(&service);
    for (wrong, says) in [
        ("conections", "did you mean \"connections\"?"),
        ("run_failed", "oa-alert silence"),
    ] {
        service.configure("", &format!("[alert]\noff = [\"{wrong}\"]\n{DINGTALK}"));
        let done = service.alert(&["check"]);
        assert!(done.code == 78 && done.stderr.contains(says), "{done:?}");
        service.put("run:x", wrong);
        assert_eq!(service.alert(&["check"]).code, 78);
        assert_eq!(
            heard.new_texts(&service).len(),
            1,
            "what waits is sent all the same"
        );
    }
}

#[test]
fn alerts_end_with_a_link_to_the_page() {
    let page = "[report]\nurl = \"https://oa.example.com/\"\n[alert]\nconnections_share = 0\n";
    let service = Service::start(&format!("{page}{DINGTALK}"));
    let mut heard = Heard(0);
    let text = heard.once(&service, "connections", 1);
    assert!(
        text.ends_with("\n[查看详情](https://oa.example.com/admin/)"),
        "{text}"
    );
    let run = uuid::Uuid::now_v7();
    service.sql(&format!(
        "INSERT INTO oa.alerts (id, fingerprint, rule, task, run_id, severity, kind, title, body, created_at)
         VALUES (gen_random_uuid(), 'run:a', 'run_failed', 'a', '{run}', 'critical', 'problem', 't', 'body', now()),
                (gen_random_uuid(), 'run_missed:a b', 'run_missed', 'a b', NULL, 'critical', 'problem', 't', 'body', now())"
    ));
    service.flush();
    let texts = heard.new_texts(&service);
    let links = [
        format!("(https://oa.example.com/admin/runs/{run})"),
        "(https://oa.example.com/admin/tasks/a%20b)".to_owned(),
    ];
    for link in links {
        assert!(
            texts.iter().any(|t| t.ends_with(&link)),
            "{link}: {texts:?}"
        );
    }
    service.configure("", "[report]\nurl = \"oa.example.com\"\n");
    let done = service.alert(&["flush"]);
    assert!(
        done.code == 78 && done.stderr.contains("url in [report]"),
        "{done:?}"
    );
}
