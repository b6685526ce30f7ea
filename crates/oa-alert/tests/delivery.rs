//! Alerts reach people once, whatever dies or refuses.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::process::Stdio;
use std::time::Duration;

use common::{DINGTALK, FEISHU, Service, WECOM, rules};
use oa_core::app::work::{Job, JobOutcome, recorded};
use oa_core::base::links::{LinkAction, LinkKey};
use oa_core::base::secrets::Secret;
use oa_core::journal::Recorder;
use oa_core::journal::incidents;
use oa_core::model::event::{Alert, Event, Fault};
use oa_sim::Options;
use oa_testkit::wait_until;
use serde_json::Value;

#[test]
fn all_three_robots_take_a_signed_message_and_the_alert_is_settled() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}{FEISHU}"));
    service.put("a", "采集失败");
    assert_eq!(service.flush(), 0);
    let mut robots: Vec<String> = service
        .sim
        .messages()
        .iter()
        .map(|m| m.robot.clone())
        .collect();
    robots.sort();
    assert_eq!(robots, ["dingtalk", "feishu", "wecom"]);
    for message in service.sim.messages() {
        assert!(
            message.text.contains("😀 \"quotes\" </script> \\ 原因"),
            "{message:?}"
        );
    }
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NOT NULL"),
        "1"
    );
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.messages().len(), 3, "nothing is sent twice");

    // With a key, each message carries links that act, of its own channel and of nothing else.
    oa_testkit::write_private(
        &service.dir.path().join(".env"),
        "OA_LINK_KEY=test-key-of-links-0123\n",
    );
    service.configure(
        "",
        &format!("[report]\nurl = \"https://oa.example.com/x/admin/\"\nlink_key = \"env:OA_LINK_KEY\"\n{DINGTALK}{WECOM}{FEISHU}"),
    );
    service.put("with-links", "有链接");
    assert_eq!(service.flush(), 0);
    let key = LinkKey::new(Secret::new("test-key-of-links-0123".to_owned())).unwrap();
    let messages = service.sim.messages();
    for (robot, channel) in [("dingtalk", "ops"), ("wecom", "wx"), ("feishu", "fs")] {
        let text = &messages.iter().rfind(|m| m.robot == robot).unwrap().text;
        let begin = "[认领](https://oa.example.com/x/act/";
        let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("{text}"));
        let (signed, rest) = rest.split_once(')').unwrap();
        let link = key.verify(signed, chrono::Utc::now()).unwrap();
        assert_eq!(
            (link.action, link.channel.as_str()),
            (LinkAction::Acknowledge, channel)
        );
        assert!(
            rest.contains(" | [静默 2 小时](") && !rest.contains("重跑"),
            "{rest}"
        );
    }
}

#[test]
fn a_robot_that_is_down_gets_the_message_later() {
    let service = Service::start(DINGTALK);
    for fault in ["502", "soft-block"] {
        service.sim.clear_faults();
        service
            .sim
            .fault(&format!("/dingtalk: {fault} x1 then ok"))
            .unwrap();
        let before = service.sim.messages().len();
        service.put(fault, fault);
        assert_eq!(service.flush(), 1, "{fault}");
        assert_eq!(
            service.one("SELECT state FROM oa.deliveries ORDER BY alert_id DESC LIMIT 1"),
            "pending"
        );
        assert_eq!(service.flush(), 0, "not due yet");
        assert_eq!(service.sim.messages().len(), before);
        service.hurry();
        assert_eq!(service.flush(), 0);
        assert_eq!(service.sim.messages().len(), before + 1);
    }
}

#[test]
fn a_refusal_is_explained_in_words_without_secrets() {
    let service = Service::start(&DINGTALK.replace("SECx-secret", "SEC-wrong"));
    service.put("a", "t");
    let done = service.alert(&["flush", "--format", "json"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stdout.contains("310000") && done.stdout.contains("copy the robot's secret"),
        "{}",
        done.stdout
    );
    let error = service.one("SELECT last_error FROM oa.deliveries");
    for text in [&done.stdout, &done.stderr, &error] {
        assert!(
            !text.contains("tok-secret") && !text.contains("SEC-wrong"),
            "{text}"
        );
    }
}

#[test]
fn a_robot_that_cannot_be_reached_does_not_leak_its_address() {
    let service = Service::start(&DINGTALK.replace("BASE", "http://127.0.0.1:1"));
    service.put("a", "t");
    let done = service.alert(&["-vv", "flush"]);
    assert_eq!(done.code, 1);
    assert!(
        !format!("{}{}", done.stdout, done.stderr).contains("tok-secret"),
        "{}{}",
        done.stdout,
        done.stderr
    );
    // Without a connection nobody has got anything: no try of it is marked as a repeat.
    let nowhere = DINGTALK.replace("BASE", "http://no-such-host.invalid");
    service.configure("", &nowhere.replace("\"ops\"", "\"nowhere\""));
    assert_eq!(service.flush(), 1);
    assert_eq!(
        service.one("SELECT string_agg(DISTINCT state, ',') FROM oa.deliveries"),
        "pending"
    );
}

#[test]
fn a_throttled_robot_is_left_alone_and_nothing_is_lost() {
    let service = Service::start_with(
        DINGTALK,
        Options {
            rate_limit_per_minute: 2,
            ..Options::default()
        },
    );
    for n in 0..4 {
        service.put(&format!("f{n}"), &format!("t{n}"));
    }
    assert_eq!(service.flush(), 1);
    assert_eq!(service.titles(), ["t0", "t1"]);
    let asked = service.sim.requests().len();
    assert_eq!(service.flush(), 0, "nothing is due for ten minutes");
    assert_eq!(service.sim.requests().len(), asked);
    service.put("later", "made during the pause");
    service.hurry();
    assert_eq!(service.flush(), 0, "nor is what was made meanwhile");
    assert_eq!(service.sim.requests().len(), asked);
    assert_eq!(
        service.one(
            "SELECT count(*)::text FROM oa.channels WHERE paused_until > now() + interval '9 min'"
        ),
        "1"
    );
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.deliveries WHERE state = 'pending'"),
        "3"
    );
}

#[test]
fn a_hundred_alerts_become_one_message() {
    let service = Service::start(DINGTALK);
    for n in 0..100 {
        service.put(&format!("f{n}"), &format!("告警 {n}"));
    }
    assert_eq!(service.flush(), 0);
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(
        messages[0].title,
        "【汇总】100 条告警（故障 100）：告警 0、告警 1、告警 2 等"
    );
    assert!(messages[0].text.contains("- 告警 0（") && messages[0].text.contains("- 告警 99（"));
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );
}

#[test]
fn several_senders_at_once_send_each_alert_once_and_in_order() {
    let service = Service::start(DINGTALK);
    for n in 0..5 {
        service.put("same", &format!("t{n}"));
    }
    let children: Vec<_> = (0..4)
        .map(|_| {
            service
                .command(&["flush"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        child.wait().unwrap();
    }
    wait_until("all to be sent", Duration::from_secs(30), || {
        service.flush();
        service.titles().len() >= 5
    });
    assert_eq!(service.titles(), ["t0", "t1", "t2", "t3", "t4"]);
}

#[test]
fn killed_between_send_and_record_the_message_comes_once_more_and_says_so() {
    let service = Service::start(DINGTALK);
    service.put("a", "t");
    let killed = service
        .command(&["flush"])
        .env("OA_FAILPOINT", "alert.sent")
        .output()
        .unwrap();
    assert_eq!(
        std::os::unix::process::ExitStatusExt::signal(&killed.status),
        Some(9)
    );
    assert_eq!(service.titles(), ["t"]);
    assert_eq!(service.flush(), 0, "leased: not sent again yet");
    assert_eq!(service.titles(), ["t"]);
    // Written by a server whose clock was ahead, all of it would hold the message for a day.
    service.one("UPDATE oa.deliveries SET leased_until = now() + interval '1 day', next_try_at = now() + interval '1 day' RETURNING state");
    service.one("INSERT INTO oa.channels AS c (name, paused_until) SELECT channel, now() + interval '1 day' FROM oa.deliveries
                 ON CONFLICT (name) DO UPDATE SET paused_until = excluded.paused_until RETURNING c.name");
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles(), ["t", "t（可能重复）"]);
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles().len(), 2);
}

#[test]
fn a_lost_answer_means_that_the_next_try_may_be_a_repeat() {
    let service = Service::start(DINGTALK);
    service.sim.fault("/dingtalk: reset x1 then ok").unwrap();
    service.put("a", "t");
    assert_eq!(service.flush(), 1);
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles(), ["t", "t（可能重复）"]);
}

#[test]
fn killed_before_the_send_the_message_comes() {
    let service = Service::start(DINGTALK);
    service.put("a", "t");
    service
        .command(&["flush"])
        .env("OA_FAILPOINT", "alert.claimed")
        .output()
        .unwrap();
    assert!(service.titles().is_empty());
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles().len(), 1);
}

#[test]
fn one_misconfigured_channel_does_not_stop_the_others() {
    let service = Service::start(&format!(
        "{}{WECOM}",
        DINGTALK.replace("SECx-secret", "env:OA_TEST_NOT_SET")
    ));
    service.put("a", "t");
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 78);
    assert!(
        done.stderr.contains("channel ops cannot be used")
            && done.stderr.contains("OA_TEST_NOT_SET"),
        "{}",
        done.stderr
    );
    assert_eq!(service.sim.messages().len(), 1);
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "1",
        "the broken channel still owes it"
    );
}

#[test]
fn a_test_message_needs_no_database_and_its_outcome_is_explained() {
    let mut service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.server.stop();
    let done = service.alert(&["test", "--format", "json"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(service.sim.messages().len(), 2);
    let done = service.alert(&["test", "opps"]);
    assert_eq!(done.code, 2);
    assert!(
        done.stderr.contains("did you mean \"ops\"?"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_list_shows_who_has_what() {
    let service = Service::start(DINGTALK);
    service.put("a", "等待中");
    let row: Value =
        serde_json::from_str(service.alert(&["list", "--format", "json"]).stdout.trim()).unwrap();
    assert_eq!(
        (row["title"].as_str(), row["delivered"].as_str()),
        (Some("等待中"), Some("nobody yet"))
    );
    service.flush();
    assert_eq!(service.alert(&["list", "--format", "json"]).stdout, "");
    let row: Value = serde_json::from_str(
        service
            .alert(&["list", "--all", "--format", "json"])
            .stdout
            .trim(),
    )
    .unwrap();
    assert_eq!(row["delivered"], "ops: sent");
}

#[test]
fn what_others_wrote_mentions_nobody_and_leads_nowhere() {
    let backup = "[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_BACKUP\"\n";
    let service = Service::start(&format!("{backup}{DINGTALK}{WECOM}{FEISHU}"));
    let hostile =
        "<at id=all></at> <@all> <font color=warning>x</font> [点此登录](http://evil.example)";
    let recorder = Recorder::open(&service.config(), "oa-crawl").unwrap();
    let job = Job::by_hand("oa-crawl", "task", "标题");
    let failed = recorded(&recorder, &job, |_| {
        Err::<JobOutcome<()>, _>(anyhow::anyhow!(hostile).into())
    });
    failed.unwrap_err();
    let stuck = Alert::new(Event::Machine {
        fault: Fault::SpoolStuck,
        host: "host".to_owned(),
        task: Some("task".to_owned()),
        reason: hostile.to_owned(),
        schema: None,
        at: chrono::Utc::now(),
    });
    incidents::put(&mut service.db(), &stuck).unwrap();
    service.sql(&format!(
        "INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at) VALUES ('half', 'oa-crawl', '研报', '* * * * *', now() + interval '1 hour');
         INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, error_message)
         SELECT oa.uuid_floor(now() - make_interval(mins => n)), 'oa-crawl', 'half', 'cron', 'h', 'm', 'b', 1, 1, '0', now(), now(), 'partial', '{hostile}'
         FROM generate_series(1, 3) n;
         INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
           restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, check_error)
         VALUES ('b1', gen_random_uuid(), '/var/backups/oa', 'physical', 'full', 'h', 'oa', 150000, 's', 1, now(), now(), now(), now(), 1, 1, 1, '{hostile}');
         INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, error)
         VALUES (gen_random_uuid(), 'b1', '/var/backups/oa', 'h', now(), now(), now(), false, '{hostile}')"
    ));
    let (_, found) = service.check();
    assert_eq!(
        rules(&found),
        ["partial_streak", "backup_unverified", "drill_failed"]
    );
    let messages = service.sim.messages();
    for robot in ["dingtalk", "wecom", "feishu"] {
        let of: Vec<String> = messages
            .iter()
            .filter(|m| m.robot == robot)
            .map(|m| m.raw.to_string())
            .collect();
        assert_eq!(of.len(), 5, "{robot}: {of:?}");
        for sent in of {
            assert!(sent.contains("点此登录"), "it is messages: {sent}");
            for markup in ["<at", "<@", "<font", "]("] {
                assert!(!sent.contains(markup), "{markup} in {sent}");
            }
        }
    }
}

/// Sends of many processes at once, as the lines of a crontab make them.
fn storm(service: &Service, from: usize, count: usize) {
    let children: Vec<_> = (from..from + count)
        .map(|n| {
            service
                .command(&["send", "--title", &format!("告警 {n:03}"), "x"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        child.wait().unwrap();
    }
}

#[test]
fn a_storm_of_many_processes_does_not_get_the_robot_banned_and_is_grouped() {
    let service = Service::start(&format!("[alert]\ngroup_wait = \"3s\"\n{DINGTALK}"));
    storm(&service, 0, 40);
    wait_until("all to be sent", Duration::from_secs(60), || {
        service.flush();
        service.one("SELECT count(*)::text FROM oa.deliveries WHERE state = 'sent'") == "40"
    });
    let messages = service.sim.messages();
    // On a fast machine all of them are put before the first one leaves.
    assert!((1..30).contains(&messages.len()), "{:?}", service.titles());
    for n in 0..40 {
        let title = format!("告警 {n:03}");
        let heard = messages.iter().filter(|m| m.text.contains(&title));
        assert_eq!(heard.count(), 1, "{title}");
    }
    assert_eq!(
        service.one(
            "SELECT count(*)::text FROM oa.deliveries WHERE tries > 1 OR last_error IS NOT NULL"
        ),
        "0",
        "the robot never refused"
    );
    // Whoever waits for the others is killed: the next process does it.
    service.sql("UPDATE oa.robots SET sent_at = array_fill(now(), ARRAY[5]); UPDATE oa.channels SET paused_until = now()");
    service.configure("", &format!("[alert]\ngroup_wait = \"15s\"\n{DINGTALK}"));
    let mut waits = service
        .command(&["send", "--title", "killed", "x"])
        .spawn()
        .unwrap();
    wait_until("it to wait", Duration::from_secs(30), || {
        service.one("SELECT count(*)::text FROM oa.robots WHERE gathering_until > now()") == "1"
    });
    waits.kill().unwrap();
    waits.wait().unwrap();
    service.sql("UPDATE oa.robots SET gathering_until = now(), sent_at = '{}'");
    wait_until("another to take over", Duration::from_secs(30), || {
        service.flush();
        service.titles().contains(&"killed".to_owned())
    });
}

#[test]
fn a_robot_is_sent_no_more_a_minute_than_was_asked_for_by_whichever_channel_and_machine() {
    let slow = "group_wait = \"0s\"\n";
    let two = format!(
        "[alert]\n{slow}{DINGTALK}per_minute = 3\n{}per_minute = 3\n",
        DINGTALK.replace("\"ops\"", "\"again\"")
    );
    let mut service = Service::start(&two);
    for n in 0..3 {
        service.put(&format!("f{n}"), &format!("t{n}"));
    }
    assert_eq!(service.flush(), 0);
    assert_eq!(service.titles(), ["t0", "t1", "t2"], "one robot, one limit");
    service.server.stop();
    service.put_in_spool("s", "from the spool");
    assert_eq!(service.flush(), 75);
    assert_eq!(service.titles().len(), 3, "also without PostgreSQL");
    service.server.start_again();
    service.sql("UPDATE oa.robots SET sent_at = '{}'");
    service.flush();
    assert_eq!(service.titles().len(), 6);
}

#[test]
fn each_channel_gets_what_it_is_for_and_quiet_hours_hold_what_is_not_critical() {
    use oa_core::journal::requests::{self, Action};
    use oa_core::model::event::{Finding, Severity};

    let now = chrono::Utc::now().with_timezone(&chrono_tz::Asia::Shanghai);
    let hour = chrono::TimeDelta::hours(1);
    let hours = format!(
        "{}-{}",
        (now - hour).format("%H:%M"),
        (now + hour).format("%H:%M")
    );
    let only = |what: &str| WECOM.replace("kind", &format!("{what}\nkind"));
    let quiet = DINGTALK.replace("kind", &format!("quiet.hours = \"{hours}\"\nkind"));
    let service = Service::start(&format!(
        "{quiet}{}",
        only("tasks = [\"zhihui-*\"]\nrules = [\"data_*\"]")
    ));
    let policy = service.config();
    let policy = incidents::Policy::from_config(&policy);
    let raise = |event| incidents::raise(&mut service.db(), event, &policy).unwrap();
    let stale = |task: &str| {
        Event::Found(Finding::DataStale {
            task: task.to_owned(),
            title: String::new(),
            last: now.date_naive(),
            days: 3,
        })
    };
    let heard = |robot: &str| {
        let messages = service.sim.messages();
        let of = messages.iter().filter(|m| m.robot == robot);
        // WeCom's messages have no title of their own.
        of.map(|m| format!("{}{}", m.title, m.text))
            .collect::<Vec<_>>()
    };
    raise(stale("zhihui-reports"));
    raise(stale("rongda-positions"));
    service.put("critical", "数据库坏了");
    assert_eq!(service.flush(), 0);
    let dingtalk = heard("dingtalk");
    assert!(
        dingtalk.len() == 1 && dingtalk[0].contains("数据库坏了"),
        "{dingtalk:?}"
    );
    let wecom = heard("wecom");
    assert!(
        wecom.len() == 1 && wecom[0].contains("zhihui-reports"),
        "{wecom:?}"
    );
    // A machine whose clock says that it is over believes the server.
    let mut fast = service.command(&["flush"]);
    fast.envs(oa_testkit::Clock::of_a_program(6.0 * 3600.0));
    assert!(fast.status().unwrap().success());
    assert_eq!(heard("dingtalk").len(), 1);
    // What waits for the morning is not what is lost.
    service.sql("UPDATE oa.alerts SET created_at = created_at - interval '1 hour'; UPDATE oa.deliveries SET next_try_at = next_try_at - interval '1 hour' WHERE state = 'pending'");
    assert_eq!(service.alert(&["check"]).code, 0);
    assert_eq!(
        service.one("SELECT ok::text || detail FROM oa.watches WHERE what = 'check'"),
        "true"
    );
    // What is over by then is over; a test that was asked for on the page is sent by the check.
    let ask = Action::TestChannel {
        channel: "wx".to_owned(),
    };
    requests::put(&mut service.db(), &ask, "wang").unwrap();
    service.configure(
        "",
        &format!(
            "{DINGTALK}{}",
            only("tasks = [\"zhihui-*\"]\nrules = [\"data_*\"]")
        ),
    );
    service.check();
    let dingtalk = heard("dingtalk");
    assert_eq!(
        dingtalk.len(),
        5,
        "both, and that both are over: {dingtalk:?}"
    );
    assert_eq!(
        service.one("SELECT state || ' ' || result FROM oa.requests"),
        "done sent"
    );
    assert!(heard("wecom").iter().any(|t| t.contains("【测试】")));
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );

    // A pattern that fits nothing, and a rotation with a stranger, are found before they are needed.
    service.configure(
        "",
        &format!("{DINGTALK}{}", only("rules = [\"run_faild\"]")),
    );
    let done = service.alert(&["check-config"]);
    assert!(
        done.code == 78 && done.stdout.contains("run_faild"),
        "{done:?}"
    );
    let rotation = "[alert.rotation]\nfirst = \"2025-12-01\"\npeople = [{ name = \"wang\", mobile = \"13800000000\" }]\n";
    let duty = DINGTALK.replace("kind", "at_duty = true\nkind");
    service.configure("", &format!("{duty}{rotation}"));
    let done = service.alert(&["check-config"]);
    assert!(done.code == 0 && done.stdout.contains("wang"), "{done:?}");
    let mut alert = common::new_alert("duty", "值班的看一下");
    alert.severity = Severity::Critical;
    incidents::put(&mut service.db(), &alert).unwrap();
    assert_eq!(service.flush(), 0);
    let text = service.sim.messages().last().unwrap().text.clone();
    assert!(text.contains("@13800000000"), "{text}");
    // A run that was abandoned says no site, and a source that has never ended a run has none yet.
    service.sql(
        "INSERT INTO oa.tasks (name, tool, provider, collects) VALUES ('of-it', 'oa-crawl', 'zhihui', true), ('another', 'oa-crawl', 'fangqi', true),
           ('new', 'oa-crawl', NULL, true), ('program', 'oa-crawl', NULL, false)",
    );
    assert_eq!(
        service.one(
            "SELECT string_agg(t.name, ',' ORDER BY t.name) FROM oa.tasks t
             WHERE t.name IN ('of-it', 'another', 'new', 'program') AND oa.route_takes(
               jsonb_populate_record(NULL::oa.alerts, jsonb_build_object('task', t.name, 'event', jsonb_build_object('provider', ''))),
               jsonb_build_object('providers', ARRAY['zhihui']))"
        ),
        "new,of-it"
    );
    // Li's number would be refused in the first week of li.
    let two = rotation.replace("}]", "}, { name = \"li\", mobile = \"1380000\" }]");
    service.configure("", &format!("{duty}{two}"));
    let done = service.alert(&["check-config"]);
    assert!(
        done.code == 78 && done.stdout.contains("1380000"),
        "{done:?}"
    );
    // What is for no channel is said.
    service.configure("", &only("rules = [\"data_*\"]"));
    service.put("nobody", "没有通道要");
    let done = service.alert(&["flush"]);
    assert!(
        done.code == 0 && done.stderr.contains("没有通道要"),
        "{done:?}"
    );
    let done = service.alert(&["list", "--all", "--format", "json"]);
    assert!(
        done.stdout.contains("nobody, it was for no channel"),
        "{done:?}"
    );
    assert!(!service.alert(&["flush"]).stderr.contains("没有通道要"));
    let stranger = format!("{duty}{rotation}weeks = {{ \"2025-12-08\" = \"li\" }}\n");
    service.configure("", &stranger);
    let done = service.alert(&["check-config"]);
    assert!(
        done.code == 78 && done.stderr.contains("who is not in people"),
        "{done:?}"
    );
}
