//! What is wrong although nothing failed is found, told once, and told when it is over; people can take it on or silence it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::io::Write;
use std::process::Stdio;

use common::{DINGTALK, Service, rules};
use oa_core::app::cli::Failure;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::journal::{Recorder, incidents};
use oa_core::model::Trigger;
use serde_json::Value;

fn check(service: &Service) -> (i32, Vec<Value>) {
    service.check()
}

/// A task that was due so many minutes ago and ran last so many minutes ago, for that when it was since.
fn task(service: &Service, name: &str, due: i32, started: Option<i32>) {
    service
        .db()
        .batch_execute(&format!(
            "INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at) VALUES ('{name}', 'oa-crawl', '多空全景', '* * * * *', now() - interval '{due} minutes')
             ON CONFLICT (name) DO UPDATE SET next_due_at = excluded.next_due_at; DELETE FROM oa.runs WHERE task = '{name}';
             DELETE FROM oa.slots WHERE task = '{name}';
             INSERT INTO oa.slots (task, due_at, day, state, run_id, closed_at)
             SELECT '{name}', now() - interval '{due} minutes', now()::date, s, CASE WHEN s = 'done' THEN gen_random_uuid() END, CASE WHEN s = 'done' THEN now() END
             FROM (SELECT CASE WHEN {since} BETWEEN 0 AND {due} THEN 'done' ELSE 'open' END AS s) x",
            since = started.unwrap_or(-1)
        ))
        .unwrap();
    if let Some(started) = started {
        ran(service, name, started, "success", "cron");
    }
}

fn ran(service: &Service, task: &str, minutes_ago: i32, status: &str, trigger: &str) {
    service
        .db()
        .batch_execute(&format!(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, error_message)
             SELECT id, 'oa-crawl', '{task}', '{trigger}', 'h', 'm', 'b', 1, 1, '0', t, t, '{status}', 'only 100 of 2434 came'
             FROM (SELECT t, (left(oa.uuid_floor(t)::text, 24) || right(md5('{task}'), 12))::uuid AS id FROM (SELECT now() - interval '{minutes_ago} minutes' AS t) x) y;
             UPDATE oa.tasks SET last_status = '{status}', last_started_at = now() - interval '{minutes_ago} minutes', last_run_id = gen_random_uuid() WHERE name = '{task}'"
        ))
        .unwrap();
}

#[test]
fn a_run_that_did_not_happen_is_reported_once_and_when_it_is_over() {
    let service = Service::start(DINGTALK);
    assert_eq!(check(&service), (0, vec![]));
    task(&service, "late", 11, Some(60));
    task(&service, "never", 11, None);
    task(&service, "within-grace", 9, Some(60));
    task(&service, "runs-since", 11, Some(10));
    task(&service, "not-due", -5, None);
    let (code, found) = check(&service);
    assert_eq!((code, rules(&found)), (2, vec!["run_missed", "never_run"]));
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 2);
    assert!(
        messages[0].text.contains("【故障】多空全景 没有按时运行"),
        "{messages:?}"
    );
    assert!(
        messages[0].text.contains("oa-crawl forget late"),
        "{messages:?}"
    );
    assert!(
        messages[1].text.contains("【故障】多空全景 从未运行"),
        "{messages:?}"
    );
    assert_eq!(check(&service).0, 2);
    assert_eq!(service.sim.messages().len(), 2, "not messages again");
    task(&service, "late", -30, Some(1));
    task(&service, "never", -30, Some(1));
    assert_eq!(check(&service), (0, vec![]));
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 4);
    let over = |m: &oa_sim::Message| m.text.contains("【解除】多空全景 没有按时运行");
    assert!(messages[2..].iter().any(over), "{messages:?}");
    assert_eq!(check(&service).0, 0);
    assert_eq!(service.sim.messages().len(), 4);
}

/// As a program does it.
fn run(service: &Service, trigger: Trigger, code: u8) {
    let recorder = Recorder::open(&service.config(), "oa-crawl").unwrap();
    let job = Job {
        trigger,
        ..Job::by_hand("oa-crawl", "late", "多空全景")
    };
    let result = work::recorded(&recorder, &job, |_| match code {
        0 => Ok(JobOutcome::success(())),
        code => Err(Failure::new(code, anyhow::anyhow!("it does not work"))),
    });
    assert_eq!(result.is_ok(), code == 0);
}

#[test]
fn neither_a_backfill_nor_a_refused_start_takes_care_of_what_is_due() {
    let service = Service::start(DINGTALK);
    task(&service, "late", 11, Some(60));
    run(&service, Trigger::Backfill, 1);
    run(&service, Trigger::Manual, 77);
    let open = "SELECT state FROM oa.slots WHERE task = 'late'";
    assert_eq!(service.one(open), "open");
    assert!(rules(&check(&service).1).contains(&"run_missed"));
    // Another time, before anybody has looked.
    task(&service, "late", 5, Some(60));
    run(&service, Trigger::Cron, 1);
    let closed = "SELECT s.state || ' ' || r.status FROM oa.slots s JOIN oa.runs r ON r.id = s.run_id WHERE s.task = 'late'";
    assert_eq!(service.one(closed), "done failed");
    assert!(
        !rules(&check(&service).1).contains(&"run_missed"),
        "a failure is reported by the run itself"
    );
}

#[test]
fn a_run_that_takes_too_long_is_a_warning() {
    let service = Service::start(DINGTALK);
    service
        .db()
        .batch_execute(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, status, lease_until)
             VALUES (oa.uuid_floor(now() - interval '2 hours'), 'oa-crawl', 'slow', 'cron', 'another', 'm', 'b', 1, 1, '0', now() - interval '2 hours', 'running', now() + interval '1 hour')",
        )
        .unwrap();
    let (code, found) = check(&service);
    assert_eq!((code, rules(&found)), (1, vec!["run_too_long"]));
    assert!(
        found[0]["lines"][0].as_str().unwrap().contains("2 小时"),
        "{found:?}"
    );
}

#[test]
fn what_somebody_has_acknowledged_is_not_repeated_until_the_next_time() {
    let service = Service::start(&format!("[alert]\nrepeat = \"1ms\"\n{DINGTALK}"));
    task(&service, "late", 60, Some(120));
    for messages in [1, 2] {
        check(&service);
        assert_eq!(
            service.sim.messages().len(),
            messages,
            "repeated without a word"
        );
    }
    assert_eq!(service.alert(&["ack", "nobody"]).code, 1);
    let done = service.alert(&["ack", "late", "--note", "在查"]);
    assert_eq!(done.code, 0, "{done:?}");
    let open = service.alert(&["list", "--open", "--format", "json"]);
    let open: Value = serde_json::from_str(open.stdout.trim()).unwrap();
    assert_eq!(
        (&open["fingerprint"], &open["note"]),
        (&"run_missed:late".into(), &"在查".into())
    );
    assert!(open["acknowledged_by"].is_string(), "{open}");
    assert_eq!(check(&service).0, 2);
    assert_eq!(service.sim.messages().len(), 2);
    // One that is not there keeps nothing from the other; and an acknowledgement can be taken back.
    let done = service.alert(&["unack", "nobody", "run_missed:late"]);
    assert!(
        done.code == 1
            && done.stdout.contains("run_missed:late")
            && done.stderr.contains("incident of nobody"),
        "{done:?}"
    );
    assert_eq!(
        service.one("SELECT coalesce(acknowledged_by, '') FROM oa.incidents"),
        ""
    );
    assert_eq!(service.alert(&["ack", "run_missed:late", "late"]).code, 0);
    let shown = service.alert(&["show", "run_missed:late"]);
    assert!(
        shown.code == 0
            && shown.stdout.contains("没有按时运行")
            && shown.stdout.contains("ops: sent"),
        "{shown:?}"
    );
    let id = service.one("SELECT id::text FROM oa.alerts ORDER BY seq LIMIT 1");
    let shown = service.alert(&["show", &id, "--format", "json"]);
    let shown: Value = serde_json::from_str(shown.stdout.trim()).unwrap();
    assert_eq!(
        (&shown["id"], &shown["rule"]),
        (&id.as_str().into(), &"run_missed".into())
    );
    assert_eq!(service.alert(&["show", "no-such-alert"]).code, 1);
    assert!(
        service.titles()[1].contains("第 1 次提醒"),
        "{:?}",
        service.titles()
    );
    task(&service, "late", -5, Some(1));
    check(&service);
    assert_eq!(service.sim.messages().len(), 3, "it is over");
    task(&service, "late", 60, Some(120));
    check(&service);
    assert_eq!(service.sim.messages().len(), 4, "another trouble");
    // Names of channels and repositories may have capital letters.
    service.sql("UPDATE oa.alerts SET fingerprint = 'channel:Ops' WHERE seq = (SELECT max(seq) FROM oa.alerts)");
    assert_eq!(service.alert(&["show", "channel:Ops"]).code, 0);
}

/// The grants of docs/configuration.md.
#[test]
fn a_role_that_may_only_read_and_write_rows_raises_and_resolves_incidents() {
    let service = Service::start(DINGTALK);
    let mut admin =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oa_crawler LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa, public TO oa_crawler;
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa, public TO oa_crawler;
             GRANT DELETE ON oa.raw TO oa_crawler",
        )
        .unwrap();
    let url = service.server.url();
    let url = url.replace("oa:oa-test-password", "oa_crawler:p");
    let alert = |arguments: &[&str]| {
        let mut command = service.command(arguments);
        command.env("DATABASE_URL", &url).status().unwrap().code()
    };
    task(&service, "late", 11, Some(60));
    assert_eq!(alert(&["check"]), Some(2));
    assert_eq!(alert(&["ack", "late"]), Some(0));
    task(&service, "late", -30, Some(1));
    assert_eq!(alert(&["check"]), Some(0));
    assert!(
        service.titles()[1].starts_with("【解除】"),
        "{:?}",
        service.titles()
    );
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.incidents WHERE acknowledged_by IS NOT NULL"),
        "0"
    );
}

#[test]
fn a_silence_sends_nothing_and_what_goes_on_is_reported_when_it_ends() {
    let service = Service::start(DINGTALK);
    for wrong in [
        &["silence", "--for", "8h"][..],
        &["silence", "--task", "late"],
        &["silence", "--task", "late", "--for", "90d"],
        &["silence", "--task", "late", "--for", "soon"],
        &["silence", "--task", "late", "--for", "8"],
        &[
            "silence",
            "--task",
            "late",
            "--anyway",
            "--for",
            "8h",
            "--from",
            "2026-01-01 10:00",
        ],
    ] {
        assert_eq!(service.alert(wrong).code, 2, "{wrong:?}");
    }
    task(&service, "late", -5, Some(1));
    let done = service.alert(&[
        "silence", "--task", "late", "--for", "8h", "--reason", "维护",
    ]);
    assert!(done.stdout.contains("oa-alert silence --end 1"), "{done:?}");
    task(&service, "late", 60, Some(120));
    task(&service, "other", 60, Some(120));
    for _ in 0..2 {
        assert_eq!(check(&service).0, 2, "found all the same");
    }
    assert_eq!(service.sim.messages().len(), 1, "the other one");
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE silenced_by = 1"),
        "1"
    );
    let listed = service.alert(&["silence", "--format", "json"]);
    assert!(listed.stdout.contains("维护"), "{listed:?}");
    assert_eq!(service.alert(&["silence", "--end", "1"]).code, 0);
    assert_eq!(service.alert(&["silence", "--end", "1"]).code, 1);
    check(&service);
    assert_eq!(
        service.sim.messages().len(),
        2,
        "it goes on, and now somebody hears of it"
    );
    check(&service);
    assert_eq!(service.sim.messages().len(), 2);
}

#[test]
fn who_has_heard_of_an_incident_hears_of_its_end_and_nobody_else() {
    let service = Service::start(DINGTALK);
    let over = "UPDATE oa.slots SET state = 'done', run_id = gen_random_uuid(), closed_at = now()";
    let titles = || -> Vec<String> {
        let messages = service.sim.messages();
        messages.iter().map(|m| m.text.clone()).collect()
    };
    // Found within a silence, which ends before the trouble does.
    let done = service.alert(&["silence", "--task", "unheard", "--for", "8h", "--anyway"]);
    assert_eq!(done.code, 0, "{done:?}");
    task(&service, "unheard", 60, Some(120));
    check(&service);
    service.sql(over);
    assert_eq!(service.alert(&["silence", "--end", "1"]).code, 0);
    check(&service);
    assert_eq!(titles(), Vec::<String>::new(), "nobody has heard of it");
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.incidents WHERE resolved_at IS NULL"),
        "0"
    );
    // Reported, then silenced, then over.
    task(&service, "heard", 60, Some(120));
    check(&service);
    assert_eq!(titles().len(), 1);
    let done = service.alert(&["silence", "--task", "heard", "--for", "8h"]);
    assert_eq!(done.code, 0, "{done:?}");
    service.sql(over);
    check(&service);
    assert_eq!(titles().len(), 2, "{:?}", titles());
    assert!(titles()[1].contains("【解除】"), "{:?}", titles());
}

#[test]
fn a_silence_of_what_there_is_not_is_refused() {
    let service = Service::start(DINGTALK);
    task(&service, "zhihui-reports", -5, Some(1));
    for (wrong, hint) in [
        (
            ["--task", "zhihui-report"],
            "did you mean \"zhihui-reports\"?",
        ),
        (["--task", "zhihu-*"], "--anyway"),
        (["--host", "no-such-*"], "--anyway"),
        (["--rule", "run_faild"], "did you mean \"run_failed\"?"),
        (["--incident", "spool_full:db-1"], "oa-alert list --open"),
    ] {
        let done = service.alert(&["silence", wrong[0], wrong[1], "--for", "8h"]);
        assert_eq!(done.code, 2, "{done:?}");
        assert!(done.stderr.contains(hint), "{done:?}");
        let done = service.alert(&["silence", wrong[0], wrong[1], "--for", "8h", "--anyway"]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    for right in [["--task", "zhihui-reports"], ["--rule", "run_failed"]] {
        let done = service.alert(&["silence", right[0], right[1], "--for", "8h"]);
        assert_eq!(done.code, 0, "{done:?}");
    }
}

#[test]
fn a_message_of_a_script_reaches_the_channels_also_without_postgresql() {
    let mut service = Service::start(DINGTALK);
    let done = service.alert(&["send", "--title", "迁移完成", "13 张表"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(service.sim.messages()[0].text.contains("13 张表"));
    let pipe = |text: &[u8]| {
        let mut child = service
            .command(&[
                "send",
                "--title",
                "日报",
                "--severity",
                "warning",
                "--stdin",
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let _ = child.stdin.take().unwrap().write_all(text);
        child.wait_with_output().unwrap().status.code()
    };
    assert_eq!(pipe("第一行\n第二行\n".as_bytes()), Some(0));
    assert!(service.sim.messages()[1].text.contains("第一行  \n第二行"));
    assert_eq!(pipe(b" \n"), Some(2));
    assert_eq!(pipe(b"\xff\xfe"), Some(2));
    assert_eq!(pipe(&vec![b'x'; (1 << 20) + 1]), Some(2));
    assert_eq!(service.sim.messages().len(), 2);
    service.server.stop();
    assert_eq!(
        service.alert(&["send", "--title", "t", "数据库不在"]).code,
        75
    );
    assert!(service.sim.messages()[2].text.contains("数据库不在"));
}

#[test]
fn without_postgresql_the_check_is_critical_and_reports_it_once() {
    let mut service = Service::start(DINGTALK);
    service.server.stop();
    for _ in 0..2 {
        assert_eq!(check(&service).0, 2);
        let messages = service.sim.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        assert!(messages[0].text.contains("连不上数据库"), "{messages:?}");
    }
    service.server.start_again();
    assert_eq!(check(&service), (0, vec![]));
    assert!(service.sim.messages()[1].text.contains("已连上数据库"));
    // It comes and goes: then it is over when it has stayed away, and not never.
    service.sql("UPDATE oa.incidents SET recoveries = recoveries || recoveries || recoveries");
    service.server.stop();
    assert_eq!(check(&service).0, 2);
    service.server.start_again();
    let last = "SELECT kind FROM oa.alerts ORDER BY id DESC LIMIT 1";
    assert_eq!(check(&service), (0, vec![]));
    assert_eq!(service.one(last), "problem");
    service.sql(
        "UPDATE oa.incidents SET recoveries = ARRAY(SELECT r - interval '2 hours' FROM unnest(recoveries) r)",
    );
    assert_eq!(check(&service), (0, vec![]));
    assert_eq!(service.one(last), "recovery");
}

#[test]
fn somebody_outside_hears_that_the_check_works_and_when_it_does_not() {
    let mut service = Service::start(&format!(
        "[alert]\nheartbeat_url = \"BASE/webhook/ping-uuid\"\n{DINGTALK}"
    ));
    let pings = |service: &Service| -> Vec<String> {
        let asked = service.sim.requests();
        let pings = asked
            .iter()
            .filter(|r| r.path.starts_with("/webhook/ping-uuid"));
        pings
            .map(|r| r.path.replace("/webhook/ping-uuid", ""))
            .collect()
    };
    task(&service, "late", 60, Some(120));
    assert_eq!(check(&service).0, 2);
    assert_eq!(
        pings(&service),
        ["/start", ""],
        "a failing task is for the channels"
    );
    // The simulator takes only POST there, and says so by 404: the page knows that nobody outside has heard.
    let noted = "SELECT ok, detail FROM oa.watches WHERE what = 'heartbeat'";
    let row = service.server.connect().query_one(noted, &[]).unwrap();
    assert!(!row.get::<_, bool>(0) && !row.get::<_, &str>(1).is_empty());
    service.server.stop();
    assert_eq!(check(&service).0, 2);
    assert_eq!(pings(&service)[2..], ["/start", "/fail"]);
    service.server.start_again();
    service.sim.fault("/dingtalk: 502").unwrap();
    service.put("a", "t");
    assert_eq!(check(&service).0, 2);
    assert_eq!(
        pings(&service)[4..],
        ["/start", "/fail"],
        "no channel takes anything"
    );
    service.sim.clear_faults();
    service.hurry();
    assert_eq!(service.flush(), 0);
    // What is said to somebody outside is a message of the simulator's as well.
    let messages = |service: &Service| {
        let messages = service.sim.messages();
        messages.iter().filter(|m| m.robot == "dingtalk").count()
    };
    let before = messages(&service);
    service.put("b", "t");
    std::fs::remove_dir_all(service.state()).unwrap();
    std::fs::write(service.state(), "a file, where a directory is due").unwrap();
    let done = service.alert(&["check"]);
    assert_eq!(done.code, 77, "{done:?}");
    assert_eq!(
        pings(&service)[6..],
        ["/start", "/fail"],
        "it cannot look for anything"
    );
    assert_eq!(
        messages(&service),
        before + 1,
        "what waits is sent all the same"
    );
}

#[test]
fn incomplete_data_three_times_in_a_row_is_critical() {
    let service = Service::start(DINGTALK);
    task(&service, "half", -30, Some(100));
    let ran = |minutes_ago: i32, status: &str| ran(&service, "half", minutes_ago, status, "cron");
    for (minutes_ago, status) in [
        (90, "success"),
        (80, "partial"),
        (70, "partial"),
        (65, "skipped"),
    ] {
        ran(minutes_ago, status);
    }
    assert_eq!(check(&service), (0, vec![]));
    ran(60, "partial");
    let (code, found) = check(&service);
    assert_eq!((code, rules(&found)), (2, vec!["partial_streak"]));
    for status in ["running", "retrying"] {
        service.under_way("half", status);
        assert_eq!(rules(&check(&service).1), ["partial_streak"], "{status}");
        service.sql("DELETE FROM oa.runs WHERE finished_at IS NULL");
    }
    assert_eq!(service.sim.messages().len(), 1, "neither over nor again");
    assert!(
        service.sim.messages()[0]
            .text
            .contains("only 100 of 2434 came")
    );
    ran(50, "success");
    assert_eq!(check(&service), (0, vec![]));
    assert_eq!(service.sim.messages().len(), 2, "it is over");
}

#[test]
fn a_check_that_the_server_does_not_answer_is_not_reported_as_a_server_that_is_down() {
    let service = Service::start(DINGTALK);
    assert_eq!(check(&service).0, 0);
    service.sql("ALTER TABLE oa.slots RENAME TO elsewhere");
    let done = service.alert(&["check"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.stderr.contains("the check failed") && done.stderr.contains("oa.slots"),
        "{done:?}"
    );
    assert_eq!(check(&service).0, 2);
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 1, "messages once: {messages:?}");
    assert!(
        messages[0].text.contains("告警检查无法完成") && messages[0].text.contains("影响："),
        "{messages:?}"
    );
    assert!(!messages[0].text.contains("连不上数据库"), "{messages:?}");
    let open = "SELECT string_agg(rule, ',') FROM oa.incidents WHERE resolved_at IS NULL";
    assert_eq!(service.one(open), "check_failed");
    assert_eq!(service.flush(), 0, "a connection is no check");
    assert_eq!(service.one(open), "check_failed");
    service.sql("ALTER TABLE oa.elsewhere RENAME TO slots");
    assert_eq!(check(&service).0, 0);
    let messages = service.sim.messages();
    assert!(
        messages.len() == 2 && messages[1].text.contains("告警检查恢复正常"),
        "{messages:?}"
    );
    // Before a table can be asked at all: the same, by way of the spool.
    service.sql("ALTER TABLE oa.clock RENAME TO elsewhere");
    assert_eq!(check(&service).0, 2);
    let messages = service.sim.messages();
    assert!(
        messages.len() == 3 && messages[2].text.contains("告警检查无法完成"),
        "{messages:?}"
    );
    service.sql("ALTER TABLE oa.elsewhere RENAME TO clock");
    assert_eq!(check(&service).0, 0);
    let messages = service.sim.messages();
    assert!(
        messages.len() == 4 && messages[3].text.contains("告警检查恢复正常"),
        "{messages:?}"
    );
}

#[test]
fn a_silence_takes_patterns_machines_and_hours_and_says_what_it_keeps_from_people() {
    let service = Service::start(DINGTALK);
    task(&service, "late-1", 60, Some(120));
    task(&service, "late-2", 60, Some(120));
    task(&service, "other", 60, Some(120));
    let now = service.one("SELECT to_char(now() AT TIME ZONE 'Asia/Shanghai', 'HH24:MI')");
    let hour = |ahead: i32| {
        service.one(&format!("SELECT to_char((now() AT TIME ZONE 'Asia/Shanghai') + interval '{ahead} minutes', 'HH24:MI')"))
    };
    let (before, after, later) = (hour(-120), hour(120), hour(240));
    for (arguments, code) in [
        (
            vec![
                "silence",
                "--task",
                "late-*",
                "--for",
                "90d",
                "--daily",
                &format!("{before}-{after}"),
            ],
            0,
        ),
        (
            vec![
                "silence",
                "--task",
                "other",
                "--for",
                "90d",
                "--daily",
                &format!("{after}-{later}"),
            ],
            0,
        ),
        (
            vec![
                "silence",
                "--task",
                "other",
                "--for",
                "1d",
                "--from",
                "2099-01-01 00:00",
            ],
            0,
        ),
        (vec!["silence", "--task", "other", "--for", "90d"], 2),
        (
            vec!["silence", "--host", "vm-*", "--for", "1h", "--anyway"],
            0,
        ),
        (
            vec![
                "silence",
                "--task",
                "other",
                "--for",
                "1h",
                "--daily",
                "25:00-26:00",
            ],
            2,
        ),
    ] {
        let done = service.alert(&arguments);
        assert_eq!(done.code, code, "{arguments:?} at {now}: {done:?}");
    }
    check(&service);
    let messages = service.titles();
    assert_eq!(messages.len(), 1, "{messages:?}");
    let listed = service.alert(&["silence", "--format", "json"]);
    let listed: Vec<Value> = listed
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(listed.len(), 4, "{listed:?}");
    assert_eq!(
        (&listed[0]["hidden"], &listed[1]["hidden"]),
        (&2.into(), &0.into())
    );
    // Its hours are over: what goes on is heard of.
    service.sql(&format!("UPDATE oa.silences SET daily_from = '{after}', daily_until = '{later}' WHERE task = 'late-*'"));
    check(&service);
    assert_eq!(service.titles().len(), 3, "{:?}", service.titles());
    // Of a machine; of one incident, as the link in its message says, and not of the same rule elsewhere.
    let one = ["silence", "--incident", "spool_full:db-1", "--for", "2h"];
    assert_eq!(service.alert(&one).code, 2, "there is none yet");
    let done = service.alert(&[&one[..], &["--anyway"][..]].concat());
    assert_eq!(done.code, 0, "{done:?}");
    let full = |host: &str| {
        let event = oa_core::model::event::Event::Machine {
            fault: oa_core::model::event::Fault::SpoolFull,
            host: host.to_owned(),
            task: None,
            reason: "full".to_owned(),
            schema: None,
            at: chrono::Utc::now(),
        };
        let policy = incidents::Policy::from_config(&service.config());
        assert!(incidents::raise(&mut service.db(), event, &policy).unwrap());
        assert_eq!(service.flush(), 0);
        service.titles().len()
    };
    assert_eq!([full("vm-7"), full("db-1"), full("db-2")], [3, 3, 4]);
    let listed = service.alert(&["silence", "--format", "json"]).stdout;
    let listed: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&listed["fingerprint"], &listed["hides"], &listed["hidden"]),
        (
            &"spool_full:db-1".into(),
            &"spool_full:db-1".into(),
            &1.into()
        )
    );
}
