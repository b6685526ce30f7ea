//! A message that a robot will not have takes nothing down with it, and what does not leave is heard of outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::{DINGTALK, FEISHU, Service, WECOM, new_alert};
use oa_core::journal::incidents;
use oa_core::journal::spool::Record;
use oa_core::model::event::Alert;
use serde_json::Value;

const HEARTBEAT: &str = "[alert]\nheartbeat_url = \"BASE/webhook/ping-uuid\"\n";

/// What the address outside was asked, and what it was messages.
fn pings(service: &Service) -> Vec<String> {
    let asked = service.sim.requests();
    asked
        .iter()
        .filter(|r| r.path.starts_with("/webhook/ping-uuid"))
        .map(|r| r.path.replace("/webhook/ping-uuid", ""))
        .collect()
}

fn last_ping(service: &Service) -> String {
    pings(service).pop().unwrap()
}

/// Alerts that wait together, and the one with this number has a text that robots refuse.
fn waiting_together(service: &Service, count: usize, bad: &[usize]) {
    let mut db = service.db();
    let mut tx = db.transaction().unwrap();
    for n in 0..count {
        let mut alert = new_alert(&format!("f{n}"), &format!("t{n:03}"));
        if bad.contains(&n) {
            let body = format!("**t{n:03}**\n\n- http://evil.example/不当 \n");
            alert.event = common::text(&format!("t{n:03}"), &body);
        }
        incidents::put(&mut tx, &alert).unwrap();
    }
    tx.commit().unwrap();
}

/// All that a robot has taken, in order, digests taken apart.
fn taken(service: &Service, robot: &str) -> Vec<String> {
    let messages = service.sim.messages();
    let of = messages.iter().filter(|m| m.robot == robot);
    of.flat_map(|m| {
        let first = |l: &str| {
            let at = l.find("**t")?;
            Some(l[at + 2..].chars().take(4).collect::<String>())
        };
        m.text.lines().filter_map(first).collect::<Vec<_>>()
    })
    .collect()
}

fn states(service: &Service) -> String {
    service.one(
        "SELECT string_agg(state || ' ' || n, ', ' ORDER BY state) FROM (SELECT state, count(*)::text AS n FROM oa.deliveries GROUP BY 1) x",
    )
}

#[test]
fn one_message_that_a_robot_will_not_have_does_not_keep_the_others_from_it() {
    let service = Service::start("");
    for (channel, robot) in [(DINGTALK, "dingtalk"), (WECOM, "wecom"), (FEISHU, "feishu")] {
        service.configure("", channel);
        service.sql("TRUNCATE oa.alerts, oa.deliveries, oa.incidents");
        service
            .sim
            .fault(&format!("/{robot}: refuse evil.example"))
            .unwrap();
        waiting_together(&service, 7, &[3]);
        if robot == "feishu" {
            // It takes five a second, so that it is not asked for as much at once.
            service.minute();
        }
        assert_eq!(service.flush(), 0, "the bad one goes without its text");
        let mut got = taken(&service, robot);
        let all: Vec<String> = (0..7).map(|n| format!("t{n:03}")).collect();
        if robot == "feishu" {
            // The title of a single message stands in the card's head.
            let messages = service.sim.messages();
            let of = messages.iter().filter(|m| m.robot == robot);
            got = of.map(|m| m.text.clone()).collect();
            assert!(got.concat().contains("已略去"), "{got:?}");
        } else {
            assert_eq!(got, all, "{robot}");
        }
        assert_eq!(states(&service), "sent 7", "{robot}");
        let bad = service.sim.messages();
        let mut bad = bad.iter().filter(|m| m.robot == robot);
        let bad = bad.find(|m| m.text.contains("已略去")).unwrap();
        assert!(!bad.text.contains("evil"), "{bad:?}");
        assert_eq!(service.flush(), 0);
    }
}

#[test]
fn what_is_refused_without_its_text_too_is_given_up_and_that_is_said() {
    let service = Service::start(&format!("{HEARTBEAT}{DINGTALK}"));
    service.sim.fault("/dingtalk: refuse t003").unwrap();
    waiting_together(&service, 7, &[]);
    let done = service.alert(&["check"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert_eq!(last_ping(&service), "/fail");
    assert_eq!(
        taken(&service, "dingtalk"),
        ["t000", "t001", "t002", "t004", "t005", "t006"]
    );
    let titles = service.titles();
    assert!(
        titles.iter().any(|t| t.contains("拒收了 1 条告警的内容")),
        "{titles:?}"
    );
    assert_eq!(states(&service), "failed 1, sent 7");
    // It was said, also here: nothing waits and nobody is left in the dark.
    assert_eq!(service.alert(&["check"]).code, 0);
    assert_eq!(last_ping(&service), "");
}

#[test]
fn a_code_that_nobody_knows_is_taken_for_the_message_while_others_pass() {
    let service = Service::start(DINGTALK);
    service.sim.fault("/dingtalk: refuse 777777=t003").unwrap();
    waiting_together(&service, 7, &[]);
    assert_eq!(service.flush(), 1);
    assert_eq!(taken(&service, "dingtalk").len(), 6);
    assert_eq!(states(&service), "pending 1, sent 6");
    service.sim.clear_faults();
    service.hurry();
    assert_eq!(service.flush(), 0);
    assert_eq!(taken(&service, "dingtalk").len(), 7);
    // It was refused without its text too, so that was not why: it comes with it.
    let last = service.sim.messages().pop().unwrap();
    assert!(!last.text.contains("已略去"), "{last:?}");
}

#[test]
fn a_robot_that_takes_nothing_at_all_is_not_asked_for_each_message() {
    let service = Service::start(DINGTALK);
    service.sim.fault("/dingtalk: code 777777").unwrap();
    waiting_together(&service, 100, &[]);
    assert_eq!(service.flush(), 1);
    let asked = service.sim.requests().len();
    assert!(asked < 25, "{asked} requests");
    assert_eq!(states(&service), "pending 100");
    service.sim.clear_faults();
    service.hurry();
    service.minute();
    assert_eq!(service.flush(), 0);
    assert_eq!(states(&service), "sent 100");
    assert_eq!(taken(&service, "dingtalk").len(), 100);
}

#[test]
fn killed_while_a_digest_is_taken_apart_each_message_comes_at_most_twice() {
    let service = Service::start(DINGTALK);
    service.sim.fault("/dingtalk: refuse evil.example").unwrap();
    waiting_together(&service, 7, &[3]);
    for point in [
        "alert.sent",
        "alert.recorded",
        "alert.claimed",
        "alert.sent",
    ] {
        let mut command = service.command(&["flush"]);
        command.env("OA_FAILPOINT", point).output().unwrap();
        service.hurry();
    }
    while service.one("SELECT count(*)::text FROM oa.deliveries WHERE state <> 'sent'") != "0" {
        service.flush();
        service.hurry();
    }
    let got = taken(&service, "dingtalk");
    for n in 0..7 {
        let times = got.iter().filter(|t| **t == format!("t{n:03}")).count();
        assert!((1..=2).contains(&times), "t{n:03}: {times} {got:?}");
    }
}

#[test]
fn without_postgresql_a_refused_digest_is_taken_apart_too() {
    let mut service = Service::start(DINGTALK);
    service.server.stop();
    service.sim.fault("/dingtalk: refuse evil.example").unwrap();
    for n in 0..7 {
        let text = if n == 3 { "evil.example" } else { "gut" };
        service.put_in_spool(&format!("f{n}"), &format!("t{n:03}"));
        if n == 3 {
            service.put_in_spool("bad", &format!("t999 {text}"));
        }
    }
    service.flush();
    let got = taken(&service, "dingtalk");
    for n in 0..7 {
        assert!(got.contains(&format!("t{n:03}")), "{got:?}");
    }
}

#[test]
fn somebody_outside_hears_in_each_minute_that_what_should_have_left_waits() {
    let service = Service::start(&format!("{HEARTBEAT}{DINGTALK}"));
    service.sim.fault("/dingtalk: code 400102").unwrap();
    service.put("a", "t");
    assert_eq!(service.alert(&["check"]).code, 1, "refused just now");
    assert_eq!(last_ping(&service), "/fail");
    // In its back-off, a minute old: on its way, and yet there is no channel of which anybody knows that it works.
    service.sql("UPDATE oa.deliveries SET next_try_at = now() + interval '15 min'");
    assert_eq!(service.alert(&["check"]).code, 1);
    assert_eq!(last_ping(&service), "/fail");
    let said = service.sim.messages().pop().unwrap().text;
    assert!(
        said.contains("ops: 最近一条消息没有被收下") && said.contains("400102"),
        "{said}"
    );
    let older = |by: &str| {
        service.sql(&format!(
            "UPDATE oa.deliveries SET first_try_at = first_try_at - interval '{by}'; UPDATE oa.alerts SET created_at = created_at - interval '{by}'"
        ));
    };
    older("6 min");
    for _ in 0..3 {
        let done = service.alert(&["check"]);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains("1 alert(s) undelivered"), "{done:?}");
        assert_eq!(last_ping(&service), "/fail");
    }
    let said = service.sim.messages();
    let said = &said.iter().rfind(|m| m.robot == "webhook").unwrap().text;
    assert!(
        said.contains("ops: 1 条告警未送达，最久已等待 6 分钟"),
        "{said}"
    );
    assert!(!said.contains("tok-secret"), "{said}");
    // A day later it is given up, and nobody has heard of that either.
    older("25 hours");
    service.hurry();
    for _ in 0..3 {
        assert_eq!(service.alert(&["check"]).code, 1);
        assert_eq!(last_ping(&service), "/fail");
    }
    assert_eq!(states(&service), "failed 1");
    // It works again: the next message says what was not delivered.
    service.sim.clear_faults();
    service.put("b", "neu");
    assert_eq!(service.alert(&["check"]).code, 0);
    let messages = service.sim.messages();
    let over = messages
        .iter()
        .find(|m| m.title.contains("恢复正常"))
        .unwrap();
    assert!(
        over.text.contains("没有收到 (1)") && over.text.contains("- t"),
        "{over:?}"
    );
    assert_eq!(service.alert(&["check"]).code, 0);
    assert_eq!(last_ping(&service), "");
}

#[test]
fn what_waits_while_a_robot_is_banned_is_undelivered_also_when_it_was_never_tried() {
    let service = Service::start(&format!("{HEARTBEAT}{DINGTALK}"));
    service.sql("INSERT INTO oa.channels VALUES ('ops', now() + interval '10 min')");
    let alert = service.put("a", "t");
    assert_eq!(service.alert(&["check"]).code, 0);
    assert_eq!(last_ping(&service), "");
    service.sql(&format!(
        "UPDATE oa.deliveries SET next_try_at = now() - interval '9 min' WHERE alert_id = '{}'",
        alert.id
    ));
    assert_eq!(service.alert(&["check"]).code, 1);
    assert_eq!(last_ping(&service), "/fail");
}

#[test]
fn a_robot_that_must_be_set_up_anew_is_reported_on_the_others_before_a_day_is_over() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.sim.fault("/dingtalk: code 400102").unwrap();
    service.put("a", "t");
    assert_eq!(service.flush(), 1);
    service.sql(
        "UPDATE oa.deliveries SET first_try_at = now() - interval '6 min' WHERE channel = 'ops'",
    );
    service.hurry();
    assert_eq!(service.flush(), 1);
    let messages = service.sim.messages();
    let messages = messages
        .iter()
        .find(|m| m.robot == "wecom" && m.text.contains("通道 ops 拒收消息"));
    assert!(messages.is_some(), "{messages:?}");
}

#[test]
fn a_robots_codes_decide_and_not_its_words() {
    let service = Service::start("");
    // Code, whether the channel pauses, what is said.
    for (robot, channel, code, pauses, says) in [
        ("dingtalk", DINGTALK, "410100", true, "ten minutes"),
        ("dingtalk", DINGTALK, "-1", false, "busy"),
        ("dingtalk", DINGTALK, "300005", false, "token is wrong"),
        ("dingtalk", DINGTALK, "400106", false, "removed"),
        ("dingtalk", DINGTALK, "310000", false, "security check"),
        ("wecom", WECOM, "45009", true, "too many"),
        ("wecom", WECOM, "45033", true, "too many"),
        ("wecom", WECOM, "93000", false, "key is wrong"),
        ("feishu", FEISHU, "11232", true, "too many"),
        ("feishu", FEISHU, "19024", false, "keyword"),
    ] {
        service.configure("", channel);
        service
            .sim
            .fault(&format!("/{robot}: code {code} x1 then ok"))
            .unwrap();
        service.put("a", "t");
        let done = service.alert(&["flush", "--format", "json"]);
        assert_eq!(done.code, 1);
        let row: Value = serde_json::from_str(done.stdout.trim()).unwrap();
        let error = row["error"].as_str().unwrap();
        assert!(
            error.contains(says) && error.contains(code),
            "{code}: {error}"
        );
        let paused = "SELECT count(*)::text FROM oa.channels WHERE paused_until > now()";
        assert_eq!(service.one(paused) == "1", pauses, "{code}");
        service.sql("UPDATE oa.channels SET paused_until = now()");
        service.hurry();
        service.hurry_spool();
        assert_eq!(service.flush(), 0, "{code}");
    }
}

#[test]
fn a_server_that_names_a_wait_gets_it() {
    let service = Service::start(DINGTALK);
    service
        .sim
        .fault("/dingtalk: 429 retry-after=120 x1 then ok")
        .unwrap();
    service.put("a", "t");
    // One of a server whose clock was ahead does not take its place.
    service.sql(
        "INSERT INTO oa.channels (name, paused_until) VALUES ('ops', now() + interval '1 day')",
    );
    let done = service.alert(&["flush", "--format", "json"]);
    assert!(
        done.code == 1 && done.stdout.contains("after 120 s"),
        "{done:?}"
    );
    let left = service.one(
        "SELECT (paused_until BETWEEN now() + interval '100 s' AND now() + interval '121 s')::text FROM oa.channels",
    );
    assert_eq!(left, "true");
}

#[test]
fn the_channel_of_another_machine_gets_what_this_one_settles() {
    let service = Service::start(DINGTALK);
    // The other machine has one channel more; it has been here before.
    service.sql(
        "INSERT INTO oa.channel_routes (name, host, after_seconds, min_rank) VALUES ('wx', 'other', 0, 0), ('gone', 'other', 0, 0);
         UPDATE oa.channel_routes SET seen_at = now() - interval '4 days' WHERE name = 'gone'",
    );
    service.put("a", "t");
    assert_eq!(service.flush(), 0);
    let waiting = "SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL";
    assert_eq!(service.one(waiting), "1", "wx has not got it");
    service.configure("", &format!("{DINGTALK}{WECOM}"));
    assert_eq!(service.flush(), 0);
    assert_eq!(service.sim.messages().len(), 2);
    assert_eq!(service.one(waiting), "0");
    // What this machine has no more is waited for no more.
    service.configure("", DINGTALK);
    service.sql("DELETE FROM oa.channel_routes WHERE host = 'other'");
    service.put("b", "t");
    assert_eq!(service.flush(), 0);
    assert_eq!(service.one(waiting), "0");
}

#[test]
fn a_role_that_only_reads_stops_no_alert() {
    let service = Service::start(DINGTALK);
    let mut admin =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE oa_reader LOGIN PASSWORD 'p'; GRANT USAGE ON SCHEMA oa TO oa_reader; GRANT SELECT ON ALL TABLES IN SCHEMA oa TO oa_reader",
        )
        .unwrap();
    let url = service.server.url();
    let url = url.replace("oa:oa-test-password", "oa_reader:p");
    let mut reader = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    for name in [
        "oa-alert check",
        "oa-alert:ops",
        "oa-report daily",
        "oa.ensure_partitions",
    ] {
        reader
            .execute("SELECT pg_advisory_lock(hashtext($1))", &[&name])
            .unwrap();
    }
    assert!(
        reader
            .execute("SELECT FROM oa.locks FOR UPDATE", &[])
            .is_err()
    );
    service.put("a", "t");
    assert_eq!(service.alert(&["check"]).code, 0);
    assert_eq!(service.titles(), ["t"]);
}

#[test]
fn what_a_robot_would_refuse_later_is_seen_in_the_configuration() {
    let service = Service::start(DINGTALK);
    let sec = "secret = \"SECabc\"\n";
    for (wrong, says) in [
        ("kind = \"dingtalk\"\nurl = \"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=k\"\n".to_owned(), "wecom robot"),
        ("kind = \"webhook\"\nurl = \"https://open.feishu.cn/open-apis/bot/v2/hook/x\"\n".to_owned(), "feishu robot"),
        ("kind = \"dingtalk\"\nurl = \"https://oapi.dingtalk.com/robot/send\"\n".to_owned(), "access_token"),
        ("kind = \"dingtalk\"\nurl = \"http://oapi.dingtalk.com/robot/send?access_token=t\"\n".to_owned(), "https://"),
        ("kind = \"dingtalk\"\nurl = \"https://oapi.dingtalk.com/robot/send?access_token=t\"\nsecret = \"abc\"\n".to_owned(), "SEC"),
        ("kind = \"dingtalk\"\nurl = \"https://oapi.dingtalk.com/robot/send?access_token=t\"\nsecret = \"SEC abc\"\n".to_owned(), "blanks"),
        (format!("kind = \"dingtalk\"\nurl = \"https://oapi.dingtalk.com/robot/send?access_token=t\"\n{sec}at_mobiles = [\"hello\"]\n"), "hello"),
        ("kind = \"wecom\"\nurl = \"https://qyapi.weixin.qq.com/cgi-bin/webhook/send?key=\"\n".to_owned(), "key="),
        ("kind = \"feishu\"\nurl = \"https://open.feishu.cn/open-apis/bot/hook\"\n".to_owned(), "/bot/v2/hook/"),
    ] {
        service.configure("", &format!("[[alert.channels]]\nname = \"a\"\n{wrong}"));
        let done = service.alert(&["check-config"]);
        assert_eq!(done.code, 78, "{wrong} {done:?}");
        assert!(done.stdout.contains(says), "{wrong} {done:?}");
    }
    for (alert, says) in [
        ("repeat = \"0s\"\n", "at least 1m"),
        (
            "heartbeat_url = \"https://h.example/ping?state=up\"\n",
            "heartbeat_url",
        ),
    ] {
        service.configure("", &format!("[alert]\n{alert}{DINGTALK}"));
        let done = service.alert(&["check-config"]);
        assert!(done.code == 78 && done.stdout.contains(says), "{done:?}");
    }
    let right = format!(
        "[alert]\nheartbeat_url = \"https://hc-ping.com/4f1b9b9e-1f0e-4a7a-9f0e-1b2c3d4e5f60?rid=1\"\n[[alert.channels]]\nname = \"a\"\nkind = \"dingtalk\"\nurl = \"https://oapi.dingtalk.com/robot/send?access_token=t\"\n{sec}at_mobiles = [\"13800000000\", \"+852-91234567\"]\n"
    );
    service.configure("", &right);
    let done = service.alert(&["check-config"]);
    assert_eq!(done.code, 0, "{done:?}");
}

/// What was sent and not answered may have arrived: whoever reads it must not read it for a day.
#[test]
fn what_is_not_answered_comes_three_times_and_then_somebody_hears_of_it() {
    for spooled in [false, true] {
        let mut service = Service::start(&format!("{DINGTALK}{WECOM}"));
        service.sim.fault("/dingtalk: truncate").unwrap();
        if spooled {
            service.server.stop();
            service.put_in_spool("a", "t001");
        } else {
            service.put("a", "t001");
        }
        for _ in 0..5 {
            service.flush();
            if spooled {
                service.hurry_spool();
            } else {
                service.hurry();
            }
        }
        assert_eq!(taken(&service, "dingtalk"), ["t001"; 3]);
        if spooled {
            service.server.start_again();
            service.flush();
            service.hurry();
            service.flush();
            assert_eq!(taken(&service, "dingtalk"), ["t001"; 3], "carried over");
        }
        let told = |robot: &str, says: &str| {
            let messages = service.sim.messages();
            let of = |m: &&oa_sim::Message| m.robot == robot && m.text.contains(says);
            messages.iter().filter(of).count()
        };
        assert_eq!(told("wecom", "发送 3 次都没有得到应答"), 1);
        assert_eq!(told("wecom", "可能没有收到："), 1);
        // It answers again, and whoever reads only that one hears what he may have missed.
        service.sim.clear_faults();
        service.put("b", "t002");
        assert_eq!(service.flush(), 0);
        assert_eq!(told("wecom", "期间该通道可能没有收到 (1)"), 1);
        assert_eq!(taken(&service, "dingtalk")[3..], ["t002"]);
    }
}

/// A robot that hangs: each message that nobody else gets is named on the others when it is given up, and not only the first of them.
#[test]
fn what_only_a_robot_that_does_not_answer_was_to_get_is_named_on_the_others_each_time() {
    for spooled in [false, true] {
        let only = format!(
            "{DINGTALK}rules = [\"rule-a\", \"rule-b\"]\n{WECOM}rules = [\"rule-b\", \"channel_refuses\"]\n"
        );
        let mut service = Service::start(&only);
        service.sim.fault("/dingtalk: truncate").unwrap();
        if spooled {
            service.server.stop();
        }
        let put = |service: &Service, rule: &str, title: &str| {
            let alert = Alert {
                rule: rule.to_owned(),
                ..new_alert(title, title)
            };
            if spooled {
                service.spool().put(&[Record::Alert(alert)]).unwrap();
            } else {
                incidents::put(&mut service.db(), &alert).unwrap();
            }
            for _ in 0..5 {
                service.flush();
                if spooled {
                    service.hurry_spool();
                } else {
                    service.hurry();
                }
            }
        };
        let named = |service: &Service, title: &str| {
            let messages = service.sim.messages();
            let of = |m: &&oa_sim::Message| {
                m.robot == "wecom" && m.text.contains("放弃了") && m.text.contains(title)
            };
            messages.iter().filter(of).count()
        };
        for (rule, title, times) in [
            ("rule-a", "t001", 1),
            ("rule-a", "t002", 1),
            // The others have that one.
            ("rule-b", "t003", 0),
            ("rule-a", "t004", 1),
        ] {
            put(&service, rule, title);
            assert_eq!(named(&service, title), times, "{title}, {spooled}");
        }
        if spooled {
            service.server.start_again();
        }
    }
}

/// Whoever is to get it later, when nobody has acknowledged it by then, is somebody.
#[test]
fn what_another_channel_is_to_get_later_is_not_named_each_time() {
    let later = WECOM.replace("kind", "after = \"30m\"\nkind");
    let service = Service::start(&format!("{DINGTALK}{later}"));
    service.sim.fault("/dingtalk: truncate").unwrap();
    for title in ["t001", "t002"] {
        service.put(title, title);
        for _ in 0..5 {
            service.flush();
            service.hurry();
        }
    }
    let failed = "SELECT count(*)::text FROM oa.deliveries WHERE state = 'failed'";
    assert_eq!(service.one(failed), "2");
    let reports = "SELECT count(*)::text FROM oa.alerts WHERE rule = 'channel_refuses'";
    assert_eq!(service.one(reports), "1");
}

/// Neither hears of the other: that is said once each.
#[test]
fn two_robots_that_do_not_answer_do_not_report_each_other_for_ever() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.sim.fault("/dingtalk: truncate").unwrap();
    service.sim.fault("/wecom: truncate").unwrap();
    service.put("a", "t001");
    for _ in 0..9 {
        service.flush();
        service.hurry();
    }
    let reports = "SELECT count(*)::text FROM oa.alerts WHERE rule = 'channel_refuses'";
    assert_eq!(service.one(reports), "2");
}

/// Nobody could end it otherwise.
#[test]
fn the_incident_of_a_channel_that_was_removed_from_the_configuration_is_closed() {
    let service = Service::start(&format!("{DINGTALK}{WECOM}"));
    service.sim.fault("/dingtalk: truncate").unwrap();
    service.put("a", "t001");
    for _ in 0..4 {
        service.flush();
        service.hurry();
    }
    let open = "SELECT count(*)::text FROM oa.incidents WHERE resolved_at IS NULL AND rule = 'channel_refuses'";
    assert_eq!(service.one(open), "1");
    // Another machine has it still.
    service.sql(
        "INSERT INTO oa.channel_routes (name, host, after_seconds, min_rank) VALUES ('ops', 'other', 0, 0)",
    );
    service.put("b", "t002");
    service.flush();
    service.configure("", WECOM);
    service.flush();
    assert_eq!(service.one(open), "1");
    service.sql("DELETE FROM oa.channel_routes WHERE host = 'other'");
    // A second configuration of this machine may have it still, and the two take turns.
    for channels in [
        WECOM.to_owned(),
        format!("{DINGTALK}{WECOM}"),
        WECOM.to_owned(),
    ] {
        service.configure("", &channels);
        service.flush();
        assert_eq!(service.one(open), "1", "{channels}");
    }
    service.sql(
        "UPDATE oa.channel_routes SET seen_at = seen_at - interval '61 minutes' WHERE name = 'ops'",
    );
    service.flush();
    assert_eq!(service.one(open), "0");
    let texts: Vec<String> = service.sim.messages().into_iter().map(|m| m.text).collect();
    let closed: Vec<&String> = texts
        .iter()
        .filter(|t| t.contains("已无机器使用"))
        .collect();
    assert!(
        closed.len() == 1
            && closed[0].contains("【解除】告警通道 ops 已无机器使用，故障关闭")
            && closed[0].contains("可能没有收到 (2)")
            && closed[0].contains("t001")
            && closed[0].contains("t002"),
        "{texts:?}"
    );
    // Whoever adds it a week later gets no news of today.
    service.sim.clear_faults();
    service.sql("UPDATE oa.alerts SET settled_at = settled_at - interval '7 days'");
    service.put("c", "t003");
    service.flush();
    let given_up = "SELECT count(*)::text FROM oa.deliveries WHERE channel = 'ops' AND state = 'failed' AND last_error = 'no machine has had this channel for three days'";
    assert_ne!(service.one(given_up), "0");
    let before = taken(&service, "dingtalk").len();
    service.configure("", &format!("{DINGTALK}{WECOM}"));
    service.hurry();
    service.put("d", "t004");
    service.flush();
    assert_eq!(taken(&service, "dingtalk")[before..], ["t004"]);
}

/// Nothing is sent to it any more by itself, and whoever has mended it tries it.
#[test]
fn a_test_message_that_arrives_ends_what_was_reported_of_an_only_channel() {
    let service = Service::start(&format!("{HEARTBEAT}{DINGTALK}"));
    service.sim.fault("/dingtalk: truncate").unwrap();
    service.put("a", "t001");
    for _ in 0..3 {
        service.flush();
        service.hurry();
    }
    service.check();
    assert_eq!(last_ping(&service), "/fail");
    service.sim.clear_faults();
    assert_eq!(service.alert(&["test", "ops"]).code, 0);
    service.check();
    assert_eq!(last_ping(&service), "");
    let texts: Vec<String> = service.sim.messages().into_iter().map(|m| m.text).collect();
    assert!(
        texts
            .iter()
            .any(|t| t.contains("期间该通道可能没有收到 (1)")),
        "{texts:?}"
    );
}

/// The day after an answer that was lost is no reason to say that robots refused it.
#[test]
fn a_robot_that_answers_within_minutes_gets_what_was_not_answered() {
    let service = Service::start(DINGTALK);
    service.sim.fault("/dingtalk: reset x2 then ok").unwrap();
    service.put("a", "t001");
    for _ in 0..3 {
        service.flush();
        service.hurry();
    }
    assert_eq!(states(&service), "sent 1");
    assert_eq!(taken(&service, "dingtalk").len(), 3);
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.incidents WHERE rule = 'channel_refuses'"),
        "0"
    );
}
