//! Alerts reach people while PostgreSQL, this machine's disk or a channel is away, or a task's row is somebody else's.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::time::Duration;

use common::{DINGTALK, Service, WECOM, rules};
use oa_core::journal::spool::Record;
use oa_sim::Options;
use oa_testkit::wait_until;

#[test]
fn without_postgresql_the_spools_alerts_are_sent_and_the_drain_does_not_send_them_again() {
    let mut service = Service::start(DINGTALK);
    service.put_in_spool("database", "数据库连不上");
    service.server.stop();
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 75);
    assert!(
        done.stderr.contains("all the same 1 message(s) were sent"),
        "{done:?}"
    );
    assert_eq!(service.titles(), ["数据库连不上"]);
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 75);
    assert!(!done.stderr.contains("were sent"), "{done:?}");
    service.server.start_again();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles().len(), 1);
    assert_eq!(service.one("SELECT state FROM oa.deliveries"), "sent");
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NOT NULL"),
        "1"
    );
}

#[test]
fn a_channel_for_what_is_bad_enough_hears_no_more_without_postgresql() {
    let critical = WECOM.replace("kind", "min_severity = \"critical\"\nkind");
    let mut service = Service::start(&format!("{DINGTALK}{critical}"));
    service.server.stop();
    let mut warning = service.put_in_spool("a", "故障");
    warning.id = uuid::Uuid::now_v7();
    warning.severity = oa_core::model::Severity::Warning;
    warning.event = common::text("警告", "**警告**\n");
    warning.fingerprint = "b".to_owned();
    service.spool().put(&[Record::Alert(warning)]).unwrap();
    assert_eq!(service.flush(), 75);
    let heard = |robot: &str| {
        let messages = service.sim.messages();
        let of = messages.iter().filter(|m| m.robot == robot);
        of.map(|m| m.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(heard("dingtalk").len(), 2);
    let wecom = heard("wecom");
    assert!(wecom.len() == 1 && wecom[0].contains("故障"), "{wecom:?}");
    service.server.start_again();
    assert_eq!(service.flush(), 0);
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );
}

#[test]
fn many_alerts_of_the_spool_are_one_message_too() {
    let mut service = Service::start_with(
        DINGTALK,
        Options {
            rate_limit_per_minute: 20,
            ..Options::default()
        },
    );
    service.server.stop();
    for n in 0..25 {
        service.put_in_spool(&format!("f{n}"), &format!("告警 {n}"));
    }
    assert_eq!(service.flush(), 75);
    let titles = service.titles();
    assert!(
        titles.len() == 1 && titles[0].starts_with("【汇总】25 条告警"),
        "{titles:?}"
    );
}

#[test]
fn a_refusal_is_followed_by_a_wait_also_from_the_spool_and_the_drain_knows_of_it() {
    let mut service = Service::start_with(
        DINGTALK,
        Options {
            rate_limit_per_minute: 1,
            ..Options::default()
        },
    );
    service.server.stop();
    for n in 0..3 {
        service.put_in_spool(&format!("f{n}"), &format!("t{n}"));
    }
    assert_eq!(service.flush(), 75);
    assert_eq!(service.titles(), ["t0"]);
    let asked = service.sim.requests().len();
    service.put_in_spool("new", "made during the pause");
    assert_eq!(service.flush(), 75);
    assert_eq!(service.sim.requests().len(), asked, "too fast means: wait");
    service.server.start_again();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.requests().len(), asked, "PostgreSQL or not");
    assert_eq!(
        service.one(
            "SELECT string_agg(state || ' ' || tries, ', ' ORDER BY alert_id) FROM oa.deliveries"
        ),
        "sent 1, pending 1, pending 0, pending 0"
    );
}

#[test]
fn an_answer_lost_from_the_spool_may_be_a_repeat_and_order_is_kept() {
    let mut service = Service::start(DINGTALK);
    service.server.stop();
    service.put_in_spool("same", "first");
    service.put_in_spool("same", "second");
    service.sim.fault("/dingtalk: reset x1 then ok").unwrap();
    assert_eq!(service.flush(), 75);
    assert_eq!(service.flush(), 75, "nothing is due, not even the second");
    assert_eq!(service.titles(), ["first"]);
    service.hurry_spool();
    assert_eq!(service.flush(), 75);
    assert_eq!(service.titles(), ["first", "first（可能重复）", "second"]);
}

#[test]
fn killed_between_send_and_record_from_the_spool_the_message_comes_once_more_and_says_so() {
    let mut service = Service::start(DINGTALK);
    service.server.stop();
    service.put_in_spool("a", "t");
    for point in ["alert.claimed", "alert.sent"] {
        service
            .command(&["flush"])
            .env("OA_FAILPOINT", point)
            .output()
            .unwrap();
    }
    assert_eq!(service.flush(), 75);
    let titles = service.titles();
    assert_eq!(titles.len(), 2);
    assert_eq!(titles[1], "t（可能重复）");
}

#[test]
fn what_waited_for_days_still_gets_its_tries() {
    let service = Service::start(DINGTALK);
    service.put("a", "t");
    service
        .db()
        .batch_execute("UPDATE oa.alerts SET created_at = now() - interval '3 days'")
        .unwrap();
    service.sim.fault("/dingtalk: 502 x1 then ok").unwrap();
    assert_eq!(service.flush(), 1);
    assert_eq!(service.one("SELECT state FROM oa.deliveries"), "pending");
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles(), ["t"]);
}

#[test]
fn a_channel_that_refuses_for_a_day_is_reported_on_the_others_until_it_works_again() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.put("a", "没有送到的告警");
    service.sim.fault("/dingtalk: 502").unwrap();
    assert_eq!(service.flush(), 1);
    service
        .db()
        .batch_execute(
            "UPDATE oa.deliveries SET first_try_at = now() - interval '25 h' WHERE channel = 'ops'",
        )
        .unwrap();
    service.hurry();
    assert_eq!(service.flush(), 1);
    assert_eq!(
        service.one("SELECT state FROM oa.deliveries WHERE channel = 'ops'"),
        "failed"
    );
    service.flush();
    let messages = service.sim.messages().pop().unwrap();
    assert!(
        messages
            .text
            .contains("【故障】告警通道 ops 放弃了 1 条告警"),
        "{}",
        messages.text
    );
    assert!(
        messages.text.contains("没有送到的告警") && messages.text.contains("502"),
        "{}",
        messages.text
    );
    service.sim.clear_faults();
    service.put("b", "又一条");
    assert_eq!(service.flush(), 0);
    assert_eq!(service.flush(), 0);
    let recovered = |m: &&oa_sim::Message| m.text.contains("告警通道 ops 恢复正常");
    assert_eq!(service.sim.messages().iter().filter(recovered).count(), 1);
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );
}

#[test]
fn without_a_state_directory_what_is_in_postgresql_is_sent_all_the_same() {
    let service = Service::start(DINGTALK);
    service.put("a", "t");
    fs::write(service.state(), "a file, where a directory is due").unwrap();
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 77, "{done:?}");
    assert_eq!(service.titles(), ["t"]);
}

#[test]
fn a_schema_that_does_not_fit_is_no_reason_to_keep_silent() {
    let service = Service::start(DINGTALK);
    service.put_in_spool("schema", "数据库结构与程序不符");
    service
        .db()
        .batch_execute("UPDATE oa.schema_history SET version = 99 WHERE version = 1")
        .unwrap();
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 78, "{done:?}");
    assert_eq!(service.titles(), ["数据库结构与程序不符"]);
}

/// After a fail-over the address may still name the server that was the primary.
#[test]
fn a_server_that_takes_no_writes_is_unreachable_and_no_mistake_of_the_schema() {
    let service = Service::start(DINGTALK);
    service.put_in_spool("a", "t");
    let mut superuser =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    let mut set = |what: &str| {
        let sql = format!(
            "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I {what}', current_database()); END $$"
        );
        superuser.batch_execute(&sql).unwrap();
    };
    set("SET default_transaction_read_only = on");
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 75, "{done:?}");
    assert_eq!(service.titles(), ["t"]);
    // Nor does a setting for texts of an old application stop anything.
    set("RESET ALL");
    set("SET standard_conforming_strings = off");
    let silence = ["silence", "--rule", "run_*", "--for", "1h"];
    assert_eq!(service.alert(&silence).code, 0);
    service.sql("UPDATE oa.silences SET until = now()");
    service.put("b", "u");
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(service.titles(), ["t", "u"]);
}

#[test]
fn an_address_that_is_none_is_a_configuration_error() {
    let service = Service::start(DINGTALK);
    let output = service
        .command(&["flush"])
        .env("DATABASE_URL", "mysql://x")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{output:?}");
}

#[test]
fn an_incident_of_the_spool_is_over_also_when_whoever_drained_it_was_killed() {
    let service = Service::start(DINGTALK);
    assert_eq!(service.flush(), 0);
    let host = oa_core::base::supervise::ProcessId::current().host;
    service.sql(&format!(
        "INSERT INTO oa.incidents (fingerprint, rule, task, severity)
         VALUES ('spool_stuck:{host}:t', 'spool_stuck', 't', 'critical'), ('spool_full:{host}', 'spool_full', NULL, 'critical'),
                ('spool_stuck:another:t', 'spool_stuck', 't', 'critical')"
    ));
    assert_eq!(service.flush(), 0);
    assert_eq!(
        service
            .one("SELECT string_agg(fingerprint, ' ') FROM oa.incidents WHERE resolved_at IS NULL"),
        "spool_stuck:another:t",
        "of another machine nothing is known here"
    );
    assert_eq!(service.titles().len(), 2);
}

#[test]
fn a_channel_that_works_again_says_how_long_it_did_not() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.sql(
        "INSERT INTO oa.incidents (fingerprint, rule, severity, opened_at, notified_at)
         VALUES ('channel:ops', 'channel_refuses', 'critical', now() - interval '3 days', now() - interval '1 hour')",
    );
    service.put("a", "故障");
    assert_eq!(service.flush(), 0);
    let texts: Vec<String> = service
        .sim
        .messages()
        .iter()
        .map(|m| m.text.clone())
        .collect();
    assert!(
        texts.iter().any(|t| t.contains("距首次报告 3 天")),
        "{texts:?}"
    );
}

#[test]
fn a_full_disk_is_reported_and_the_phone_rings_while_postgresql_is_down() {
    let on_call = WECOM.replace("kind", "after = \"1s\"\nkind");
    let mut service = Service::start(&format!(
        "[alert]\ndisk_warning = 1.0\ndisk_critical = 1.0\n{DINGTALK}{on_call}"
    ));
    service.server.stop();
    let heard = |service: &Service, robot: &str| -> Vec<String> {
        let messages = service.sim.messages();
        let of = messages.iter().filter(|m| m.robot == robot);
        of.map(|m| m.text.clone()).collect()
    };
    let (code, found) = service.check();
    assert_eq!((code, common::rules(&found)), (2, vec!["disk_filling"]));
    let messages = heard(&service, "dingtalk");
    assert!(
        messages.len() == 2 && messages.iter().any(|t| t.contains("磁盘")),
        "{messages:?}"
    );
    wait_until(
        "the time of the second channel",
        Duration::from_secs(30),
        || {
            service.flush();
            heard(&service, "wecom").len() == 2
        },
    );
    assert_eq!(service.check().0, 2);
    assert_eq!(heard(&service, "dingtalk").len(), 2, "messages once");
    service.server.start_again();
    assert_eq!(service.check().0, 2);
    let messages = heard(&service, "dingtalk");
    assert!(
        messages.len() == 3 && messages[2].contains("【恢复】"),
        "{messages:?}"
    );
    // What was reported is not news when the server goes again.
    service.server.stop();
    assert_eq!(service.check().0, 2);
    let messages = heard(&service, "dingtalk");
    assert!(
        messages.len() == 4 && messages[3].contains("连不上数据库"),
        "{messages:?}"
    );
}

#[test]
fn a_task_whose_outcome_takes_long_to_store_keeps_nobody_from_hearing_of_it() {
    let service = Service::start(DINGTALK);
    // Its slots are to be written ahead as well.
    service.sql(
        "INSERT INTO oa.tasks (name, tool, title, schedule, last_run_id, slots_until)
         VALUES ('late', 'oa-crawl', '多空全景', '* * * * *', gen_random_uuid(), now() + interval '1 hour');
         INSERT INTO oa.slots (task, due_at, day) VALUES ('late', now() - interval '11 minutes', now()::date)",
    );
    let mut other = service.db();
    let mut storing = other.transaction().unwrap();
    let lock = "SELECT FROM oa.tasks FOR UPDATE";
    storing.execute(lock, &[]).unwrap();
    let (_, found) = service.check();
    assert_eq!(rules(&found), ["run_missed"]);
    assert_eq!(service.sim.messages().len(), 1);
    let noted = "SELECT count(*)::text FROM oa.slots WHERE reported_at IS NOT NULL";
    assert_eq!(service.one(noted), "0");
    let is_ahead = "SELECT (slots_until > now() + interval '1 day')::text FROM oa.tasks";
    assert_eq!(service.one(is_ahead), "false");
    storing.rollback().unwrap();
    service.check();
    assert_eq!(service.one(noted), "1");
    assert_eq!(service.one(is_ahead), "true");
    assert_eq!(service.sim.messages().len(), 1, "not messages again");

    // For so long that there is no slot of it any more: then it cannot be said whether it ran, and that is said.
    let open = "SELECT count(*)::text FROM oa.incidents WHERE resolved_at IS NULL AND rule = 'check_failed'";
    service.sql("UPDATE oa.tasks SET slots_until = now() - interval '1 minute'");
    let mut storing = other.transaction().unwrap();
    storing.execute(lock, &[]).unwrap();
    let done = service.alert(&["check"]);
    assert_eq!(done.code, 2, "{done:?}");
    assert!(
        done.stderr
            .contains("whether late ran as scheduled cannot be said"),
        "{done:?}"
    );
    assert_eq!(service.one(open), "1");
    storing.rollback().unwrap();
    service.check();
    assert_eq!(service.one(open), "0");
    assert_eq!(service.one(is_ahead), "true");
}
