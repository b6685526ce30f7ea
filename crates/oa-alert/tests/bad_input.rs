//! Robots that are slow, strict or wrong, and messages that are too long, too many or strange.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;

use chrono::TimeDelta;
use common::{DINGTALK, FEISHU, Service, WECOM, new_alert};
use oa_core::journal::incidents;
use oa_core::model::Severity;
use oa_sim::{Message, Options};

fn secrets() -> Options {
    Options {
        dingtalk_secret: Some("SECx-secret".into()),
        feishu_secret: Some("FS-secret".into()),
        ..Options::default()
    }
}

fn of<'a>(messages: &'a [Message], robot: &str) -> Vec<&'a Message> {
    messages.iter().filter(|m| m.robot == robot).collect()
}

#[test]
fn a_slow_robot_holds_nobody_up_and_may_get_the_message_twice_with_a_mark() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.sim.fault("/dingtalk: hang x1 then ok").unwrap();
    service.put("a", "慢");
    assert_eq!(service.flush(), 1);
    assert_eq!(of(&service.sim.messages(), "wecom").len(), 1);
    assert!(
        service
            .one("SELECT last_error FROM oa.deliveries WHERE channel = 'ops'")
            .contains("no answer from the robot")
    );
    service.hurry();
    assert_eq!(service.flush(), 0);
    let messages = service.sim.messages();
    assert!(
        of(&messages, "dingtalk")
            .last()
            .unwrap()
            .text
            .contains("可能重复"),
        "{messages:?}"
    );
}

#[test]
fn each_robots_refusal_of_a_signature_or_a_keyword_is_explained() {
    let keyword = Options {
        dingtalk_keyword: Some("告警".into()),
        ..secrets()
    };
    let service = Service::start_with(
        &format!("{DINGTALK}{FEISHU}").replace("FS-secret", "FS-wrong"),
        keyword,
    );
    service.put("a", "t");
    let done = service.alert(&["flush", "--format", "json"]);
    assert_eq!(done.code, 1);
    for says in [
        "lacks the robot's keyword",
        "19021",
        "copy the secret again",
    ] {
        assert!(done.stdout.contains(says), "{says}: {}", done.stdout);
    }
    assert!(!done.stdout.contains("FS-wrong"), "{}", done.stdout);
}

#[test]
fn a_clock_that_is_off_by_more_than_an_hour_is_named_as_the_cause() {
    for hours in [2, -2] {
        let skewed = Options {
            clock_ahead: TimeDelta::hours(hours),
            ..secrets()
        };
        let service = Service::start_with(&format!("{DINGTALK}{FEISHU}{WECOM}"), skewed);
        service.put("a", "t");
        let done = service.alert(&["flush", "--format", "json"]);
        assert_eq!(done.code, 1);
        assert!(
            done.stdout.contains("correct this machine's clock"),
            "{}",
            done.stdout
        );
        assert!(
            done.stdout
                .contains("this machine's clock is more than an hour off"),
            "{}",
            done.stdout
        );
        assert_eq!(
            of(&service.sim.messages(), "wecom").len(),
            1,
            "it asks for no signature"
        );
    }
    let close = Options {
        clock_ahead: TimeDelta::minutes(59),
        ..secrets()
    };
    let service = Service::start_with(&format!("{DINGTALK}{FEISHU}"), close);
    service.put("a", "t");
    assert_eq!(service.flush(), 0);
}

#[test]
fn what_waits_while_a_robot_takes_nothing_comes_as_one_message_afterwards() {
    let few = Options {
        rate_limit_per_minute: 2,
        ..secrets()
    };
    let service = Service::start_with(DINGTALK, few);
    for n in 0..3 {
        service.put(&format!("f{n}"), &format!("t{n}"));
    }
    assert_eq!(service.flush(), 1, "the third is too much");
    for n in 3..12 {
        service.put(&format!("f{n}"), &format!("t{n}"));
    }
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.messages().len(), 2, "nothing for ten minutes");
    // Ten minutes later: the robot counts by its token.
    service.sql("UPDATE oa.channels SET paused_until = now()");
    service.hurry_spool();
    service.configure("", &DINGTALK.replace("tok-secret", "tok-later"));
    service.hurry();
    assert_eq!(service.flush(), 0);
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 3);
    assert!(
        messages[2]
            .title
            .starts_with("【汇总】10 条告警（故障 10）：t2、"),
        "{messages:?}"
    );
    assert!(
        (2..12).all(|n| messages[2].text.contains(&format!("- t{n}（"))),
        "{messages:?}"
    );
}

#[test]
fn a_message_that_is_too_long_is_cut_for_each_robot_and_points_to_the_rest() {
    let mentions = WECOM
        .replace("\"wx\"", "\"wx-text\"")
        .replace("key-secret", "second")
        + "at_mobiles = [\"13800000000\"]\n";
    let page = "[report]\nurl = \"https://oa.example.com\"\n";
    for page in ["", page] {
        let service = Service::start(&format!("{page}{DINGTALK}{WECOM}{mentions}{FEISHU}"));
        // No more than Feishu takes in a second.
        for (n, part) in [
            "错误 😀 \"quotes\" </script> \\ \n",
            "\"\u{1}",
            "长",
            "😀",
            "a\n",
        ]
        .iter()
        .enumerate()
        {
            let mut alert = new_alert(&format!("f{n}"), "标题");
            let body = format!("**标题**\n\n- 原因\n{}", part.repeat(100_000 / part.len()));
            alert.event = common::text("标题", &body);
            incidents::put(&mut service.db(), &alert).unwrap();
            let done = service.alert(&["flush"]);
            assert_eq!(done.code, 0, "{part:?}: {done:?}");
        }
        let messages = service.sim.messages();
        assert_eq!(messages.len(), 5 * 4);
        for message in messages {
            assert!(
                message.text.contains("- 原因\n") && message.text.contains("内容过长"),
                "{}",
                message.robot
            );
            let rest = if page.is_empty() {
                "oa-alert list --all"
            } else {
                "https://oa.example.com/admin/"
            };
            assert!(message.text.contains(rest), "{}", message.robot);
        }
    }
}

#[test]
fn a_thousand_alerts_in_a_minute_are_one_message_that_names_the_worst_and_counts_all() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}{FEISHU}"));
    let mut db = service.db();
    let mut tx = db.transaction().unwrap();
    for n in 0..1000 {
        let mut alert = new_alert(
            &format!("f{n}"),
            &format!("【警告】来源 {n} 数据不完整 😀 \"'</script>"),
        );
        alert.severity = Severity::Warning;
        if n == 777 {
            alert.severity = Severity::Critical;
            let title = "【故障】数据库";
            alert.event = common::text(title, &common::body(title));
        }
        incidents::put(&mut tx, &alert).unwrap();
    }
    tx.commit().unwrap();
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 0, "{}", done.stderr);
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 3, "one a robot");
    for message in &messages {
        let named = message.text.matches("\n- 【警告】").count()
            + usize::from(message.text.starts_with("- 【警告】"));
        assert!(
            message.text.contains("- 【故障】数据库"),
            "{}",
            message.robot
        );
        assert!(
            message
                .text
                .contains(&format!("- 另有 {} 条未列出", 999 - named)),
            "{named}: {}",
            message.text
        );
    }
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.messages().len(), 3);
}

#[test]
fn a_repository_whose_path_contains_a_password_has_lost_no_backup() {
    let service = Service::start("");
    let folder = service.dir.path().join("vault-7f31");
    let id = "a".repeat(64);
    let snapshot = folder.join("snapshots").join(&id);
    fs::create_dir_all(folder.join("snapshots")).unwrap();
    fs::write(&snapshot, "").unwrap();
    let repository = folder.display().to_string();
    let backup =
        format!("[backup]\nrepository = \"{repository}\"\npassword = \"env:OA_TEST_BACKUP\"\n");
    service.configure("", &backup);
    let host = oa_core::base::supervise::ProcessId::current().host;
    let named = repository.replace("vault-7f31", "[redacted]");
    service.sql(&format!(
        "INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
           restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked, checked_at)
         SELECT '{id}', gen_random_uuid(), '{named}', 'physical', 'full', '{host}', 'oa', 150000, 's', 1, now(), now(), now(), now(), 1, 1, 1, 'data', now()"
    ));
    let found = || {
        let mut check = service.command(&["check", "--format", "json"]);
        let done = check.env("OA_TEST_BACKUP", "vault-7f31").output().unwrap();
        let said = String::from_utf8(done.stdout).unwrap();
        assert!(!said.contains("vault-7f31"), "{said}");
        said.contains("\"backup_missing\"")
    };
    assert!(!found());
    fs::remove_file(snapshot).unwrap();
    assert!(found());
}
