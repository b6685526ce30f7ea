//! Channels that are no robots, and channels that want only some alerts.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::thread;

use common::{DINGTALK, Service};
use serde_json::Value;

#[test]
fn a_webhook_takes_its_own_form_and_nothing_in_a_message_breaks_it() {
    let service = Service::start(
        r#"[[alert.channels]]
name = "hook"
kind = "webhook"
url = "BASE/webhook/own"
headers = { authorization = "env:HOOK_TOKEN" }
template = '{"msg": "{severity}: {title}", "nested": [{"text": "{text}"}], "n": 1}'
[[alert.channels]]
name = "plain"
kind = "webhook"
url = "BASE/webhook/plain"
"#,
    );
    oa_testkit::write_private(&service.dir.path().join(".env"), "HOOK_TOKEN=token-value\n");
    service.put("a", "{text} \"引号\"");
    let body = common::body("{text} \"引号\"");
    assert_eq!(service.flush(), 0);
    let messages = service.sim.messages();
    let of = |name: &str| messages.iter().find(|m| m.token == name).unwrap();
    assert_eq!(of("own").raw["msg"], "critical: {text} \"引号\"");
    assert_eq!(of("own").raw["nested"][0]["text"], body);
    assert_eq!(of("own").raw["n"], 1);
    assert_eq!(of("plain").raw["kind"], "problem");
    assert_eq!(of("plain").raw["text"], body);
    for (fault, said) in [
        ("401", "correct its address"),
        ("502", "tried again"),
        ("429", "too many"),
    ] {
        service.sim.clear_faults();
        service
            .sim
            .fault(&format!("/webhook/own: {fault}"))
            .unwrap();
        service.put(fault, fault);
        let done = service.alert(&["flush", "--format", "json"]);
        assert_eq!(done.code, 1);
        assert!(
            done.stdout.contains(said) && !done.stdout.contains("token-value"),
            "{done:?}"
        );
        service.hurry();
    }
}

#[test]
fn a_program_gets_the_message_on_stdin_and_its_failure_is_a_refusal() {
    let service = Service::start(
        r#"[[alert.channels]]
name = "program"
kind = "command"
command = ["sh", "-c", "cat > got; env > environment; [ ! -e refuse ] || { echo no luck >&2; exit 3; }"]
env = ["SMS_KEY"]
"#,
    );
    oa_testkit::write_private(
        &service.dir.path().join(".env"),
        "SMS_KEY=given\nOTHER_KEY=from-the-file\n",
    );
    let flush = || {
        let mut command = service.command(&["flush", "--format", "json"]);
        command
            .env("OA_BACKUP_PASSWORD", "hunter2")
            .env("TZ", "Asia/Shanghai");
        let output = command.current_dir(service.dir.path()).output().unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
        )
    };
    service.put("a", "采集失败");
    assert_eq!(flush().0, Some(0));
    let got: Value =
        serde_json::from_slice(&fs::read(service.dir.path().join("got")).unwrap()).unwrap();
    assert_eq!(
        (&got["title"], &got["text"]),
        (&"采集失败".into(), &common::body("采集失败").into())
    );
    // It sees no secret but the one that is meant for it.
    let seen = fs::read_to_string(service.dir.path().join("environment")).unwrap();
    for (line, is) in [
        ("SMS_KEY=given", true),
        ("TZ=Asia/Shanghai", true),
        ("PATH=", true),
        ("OTHER_KEY", false),
        ("DATABASE_URL", false),
        ("hunter2", false),
    ] {
        let is_seen = seen
            .lines()
            .any(|l| l.starts_with(line) || l.contains(line));
        assert_eq!(is_seen, is, "{line}: {seen}");
    }
    fs::write(service.dir.path().join("refuse"), "").unwrap();
    service.put("b", "t");
    let (code, shown) = flush();
    assert_eq!(code, Some(1));
    assert!(shown.contains("exit status: 3: no luck"), "{shown}");
}

/// A mail server on loopback that takes mails, or refuses them with the answer that is set. Gives its port and the mails.
fn mail_server(refuse: Arc<Mutex<Option<&'static str>>>) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mails = Arc::new(Mutex::new(Vec::new()));
    let kept = mails.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            let mut out = stream.try_clone().unwrap();
            let mut lines = BufReader::new(stream).lines();
            out.write_all(b"220 test\r\n").unwrap();
            while let Some(Ok(line)) = lines.next() {
                let refusal = *refuse.lock().unwrap();
                let verb = line.split([' ', ':']).next().unwrap_or_default();
                let answer = match (verb, refusal) {
                    ("EHLO", _) => "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN".to_owned(),
                    ("RCPT", _) if line.contains("gone@") => "550 no such user".to_owned(),
                    ("RCPT", Some(refusal)) => refusal.to_owned(),
                    ("AUTH", _) => "235 ok".to_owned(),
                    ("DATA", _) => {
                        out.write_all(b"354 go\r\n").unwrap();
                        let mail: Vec<String> = lines
                            .by_ref()
                            .map(Result::unwrap)
                            .take_while(|l| l != ".")
                            .collect();
                        kept.lock().unwrap().push(mail.join("\n"));
                        "250 taken".to_owned()
                    }
                    ("QUIT", _) => "221 bye".to_owned(),
                    _ => "250 ok".to_owned(),
                };
                if out.write_all(format!("{answer}\r\n").as_bytes()).is_err() || verb == "QUIT" {
                    break;
                }
            }
        }
    });
    (port, mails)
}

#[test]
fn a_mail_is_sent_and_a_refusal_is_explained_without_the_password() {
    let refuse = Arc::new(Mutex::new(None));
    let (port, mails) = mail_server(refuse.clone());
    let service = Service::start(&format!(
        "[[alert.channels]]\nname = \"mail\"\nkind = \"email\"\nurl = \"smtp://user:mail-password@127.0.0.1:{port}\"\nfrom = \"oa <oa@example.com>\"\nto = [\"ops@example.com\", \"值班 <duty@example.com>\"]\n"
    ));
    service.put("a", "采集失败");
    assert_eq!(service.flush(), 0);
    let mail = mails.lock().unwrap()[0].clone();
    assert!(
        mail.contains("To: ops@example.com, ") && mail.contains("duty@example.com"),
        "{mail}"
    );
    assert!(mail.contains("Subject: =?utf-8?b?"), "{mail}");
    assert!(
        mail.contains("Message-ID: <") && mail.contains("@example.com>"),
        "{mail}"
    );
    *refuse.lock().unwrap() = Some("550 no such user");
    service.put("b", "t");
    let done = service.alert(&["-vv", "flush", "--format", "json"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stdout.contains("refused sender or recipient"),
        "{done:?}"
    );
    assert!(!format!("{done:?}").contains("mail-password"), "{done:?}");
    assert_eq!(
        service.one("SELECT state FROM oa.deliveries WHERE state <> 'sent'"),
        "pending",
        "certainly not sent"
    );
}

/// Certainly it has not got them: they wait, for a day, and are no repeats when it is back.
#[test]
fn mails_wait_for_a_server_that_is_down_for_longer_than_three_tries() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = nobody.local_addr().unwrap().port();
    drop(nobody);
    let mail = "kind = \"email\"\nfrom = \"oa@example.com\"\nto = [\"ops@example.com\"]\n";
    let channel = |port| {
        format!("[[alert.channels]]\nname = \"mail\"\n{mail}url = \"smtp://127.0.0.1:{port}\"\n")
    };
    let service = Service::start(&channel(port));
    service.put("a", "采集失败");
    for _ in 0..4 {
        assert_eq!(service.flush(), 1);
        service.sql("UPDATE oa.deliveries SET next_try_at = now()");
    }
    assert_eq!(
        service.one("SELECT state || ' ' || unanswered FROM oa.deliveries"),
        "pending 0"
    );
    let (port, mails) = mail_server(Arc::new(Mutex::new(None)));
    service.configure("", &channel(port));
    assert_eq!(service.flush(), 0);
    assert_eq!(mails.lock().unwrap().len(), 1);
}

#[test]
fn what_a_channel_cannot_do_is_reported_and_the_others_are_served() {
    for (wrong, said) in [
        (
            "kind = \"email\"\nurl = \"smtp://u:p@mail.example.com:25\"\nfrom = \"a@x.cn\"\nto = [\"b@x.cn\"]\n",
            "without TLS",
        ),
        (
            "kind = \"email\"\nurl = \"smtps://u:p@mail.example.com\"\nfrom = \"nobody\"\nto = [\"b@x.cn\"]\n",
            "is no mail address",
        ),
        (
            "kind = \"email\"\nurl = \"smtps://mail.example.com\"\nfrom = \"a@x.cn\"\n",
            "to is missing",
        ),
        (
            "kind = \"webhook\"\nurl = \"http://127.0.0.1:1\"\ntemplate = \"{title}\"\n",
            "template is not JSON",
        ),
        (
            "kind = \"command\"\ncommand = [\"x\"]\nurl = \"http://x\"\n",
            "url does not belong",
        ),
        ("kind = \"command\"\n", "command is missing"),
        ("kind = \"dingtalk\"\n", "url is missing"),
        (
            "kind = \"webhook\"\nurl = \"http://127.0.0.1:1\"\nat_all = true\n",
            "at_all does not belong",
        ),
    ] {
        let service = Service::start(&format!(
            "[[alert.channels]]\nname = \"wrong\"\n{wrong}{DINGTALK}"
        ));
        service.put("a", "t");
        let done = service.alert(&["flush"]);
        assert_eq!(done.code, 78, "{wrong}: {done:?}");
        assert!(done.stderr.contains(said), "{said}: {done:?}");
        assert_eq!(service.sim.messages().len(), 1, "{wrong}");
    }
}

#[test]
fn a_second_channel_hears_of_what_goes_on_and_nobody_has_acknowledged() {
    let second = "[[alert.channels]]\nname = \"boss\"\nkind = \"webhook\"\nurl = \"BASE/webhook/boss\"\nafter = \"30m\"\nmin_severity = \"critical\"\n";
    let service = Service::start(&format!("[alert]\nrepeat = \"20m\"\n{DINGTALK}{second}"));
    let heard = || {
        assert_eq!(service.flush(), 0);
        let messages = service.sim.messages();
        messages.iter().filter(|m| m.robot == "webhook").count()
    };
    let age = |minutes: i32| {
        let sql =
            format!("UPDATE oa.alerts SET created_at = created_at - interval '{minutes} minutes'");
        service.db().batch_execute(&sql).unwrap();
    };
    let unsettled = || service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL");
    service.put("run:a", "第一次");
    service.put("run:taken-on", "有人处理");
    assert_eq!(heard(), 0);
    assert_eq!(unsettled(), "2", "it may still be for the second channel");
    assert_eq!(service.alert(&["ack", "run:taken-on"]).code, 0);
    assert_eq!(heard(), 0);
    assert_eq!(unsettled(), "1");
    age(20);
    service.put("run:a", "第二次");
    assert_eq!(heard(), 0);
    age(11);
    assert_eq!(heard(), 1, "31 minutes after the first one, once");
    assert_eq!(unsettled(), "0");
    let mut over = common::new_alert("run:a", "恢复");
    over.kind = oa_core::model::Kind::Recovery;
    over.severity = oa_core::model::Severity::Info;
    oa_core::journal::incidents::put(&mut service.db(), &over).unwrap();
    let mut over = common::new_alert("run:taken-on", "恢复");
    over.kind = oa_core::model::Kind::Recovery;
    oa_core::journal::incidents::put(&mut service.db(), &over).unwrap();
    assert_eq!(heard(), 2, "only what it heard of");
    assert_eq!(unsettled(), "0");
    service.put("run:a", "又一次");
    assert_eq!(heard(), 2, "counted anew");
}

#[test]
fn a_configuration_is_checked_without_sending_anything() {
    let service = Service::start(DINGTALK);
    let done = service.alert(&["check-config"]);
    assert_eq!(done.code, 0, "{done:?}");
    let wrong = "[alert]\noff = [\"nothing\"]\nheartbeat_url = \"env:OA_TEST_NO_SUCH\"\n\
        [[alert.channels]]\nname = \"a\"\nkind = \"command\"\ncommand = [\"/no/such/program\"]\n\
        [[alert.channels]]\nname = \"b\"\nkind = \"dingtalk\"\nurl = \"env:OA_TEST_NO_SUCH\"\n\
        [[alert.channels]]\nname = \"c\"\nkind = \"feishu\"\nurl = \"https://\"\n\
        [[alert.channels]]\nname = \"d\"\nkind = \"command\"\ncommand = [\"true\"]\nmin_severity = \"critical\"\n";
    service.configure("", wrong);
    let done = service.alert(&["check-config", "--format", "json"]);
    assert_eq!(done.code, 78, "{done:?}");
    let lines: Vec<Value> = done
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let state = |setting: &str| {
        lines
            .iter()
            .find(|l| l["setting"] == setting)
            .map(|l| (l["state"].as_str().unwrap(), l["detail"].as_str().unwrap()))
    };
    for (setting, says) in [
        ("channel a", "/no/such/program is not on this machine"),
        ("channel b", "OA_TEST_NO_SUCH"),
        ("channel c", "no address of the web"),
        ("heartbeat_url", "OA_TEST_NO_SUCH"),
        ("off", "\"nothing\""),
    ] {
        let (state, detail) = state(setting).unwrap();
        assert!(
            state == "wrong" && detail.contains(says),
            "{setting}: {detail}"
        );
    }
    assert_eq!(state("channel d").unwrap().0, "ok");
    assert_eq!(state("channels"), None, "the first ones hear of everything");
    service.configure("", "");
    assert_eq!(
        service.alert(&["check-config"]).code,
        78,
        "alerts reach nobody"
    );
    assert_eq!(service.sim.messages().len(), 0);
}

#[test]
fn one_dead_address_keeps_no_mail_from_the_others_and_an_incident_is_a_thread() {
    let (port, mails) = mail_server(Arc::new(Mutex::new(None)));
    let service = Service::start(&format!(
        "[[alert.channels]]\nname = \"mail\"\nkind = \"email\"\nurl = \"smtp://127.0.0.1:{port}\"\nfrom = \"oa@example.com\"\nto = [\"gone@example.com\", \"ops@example.com\"]\n"
    ));
    service.put("run:a", "采集失败");
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert!(
        done.stderr
            .contains("gone@example.com does not get this mail"),
        "{done:?}"
    );
    let mut over = common::new_alert("run:a", "恢复");
    over.kind = oa_core::model::Kind::Recovery;
    oa_core::journal::incidents::put(&mut service.db(), &over).unwrap();
    assert_eq!(service.flush(), 0);
    let mails = mails.lock().unwrap().clone();
    assert_eq!(mails.len(), 2, "{mails:?}");
    let header = |mail: &str, name: &str| {
        let line = mail.lines().find(|l| l.starts_with(&format!("{name}: ")));
        line.map(|l| l[name.len() + 2..].trim().to_owned())
            .unwrap_or_default()
    };
    assert_eq!(
        header(&mails[0], "References"),
        header(&mails[1], "References")
    );
    assert!(
        header(&mails[0], "References").contains("incident-"),
        "{}",
        mails[0]
    );
    assert_ne!(
        header(&mails[0], "Message-ID"),
        header(&mails[1], "Message-ID")
    );
}

#[test]
fn a_program_gets_each_event_whole_and_a_service_that_says_no_has_not_got_it() {
    let service = Service::start(
        "[[alert.channels]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"BASE/webhook/hook\"\n\
         [[alert.channels]]\nname = \"no\"\nkind = \"webhook\"\nurl = \"BASE/webhook/code/903/x\"\nservice = \"pushplus\"\nsecret = \"PP-secret\"\n\
         [[alert.channels]]\nname = \"yes\"\nkind = \"webhook\"\nurl = \"BASE/webhook/code/0/x\"\nservice = \"serverchan\"\nafter = \"30d\"\n",
    );
    for n in 0..8 {
        service.put(&format!("run:t{n}"), &format!("t{n}"));
    }
    let done = service.alert(&["flush"]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        format!("{done:?}").contains("903") && !format!("{done:?}").contains("PP-secret"),
        "{done:?}"
    );
    let hook = |service: &Service| -> Vec<Value> {
        let messages = service.sim.messages();
        let of = messages
            .iter()
            .filter(|m| m.robot == "webhook" && m.text.contains("fingerprint"));
        of.map(|m| serde_json::from_str(&m.text).unwrap()).collect()
    };
    let got = hook(&service);
    assert_eq!(got.len(), 8, "each by itself: {got:?}");
    let mut over = common::new_alert("run:t3", "恢复");
    over.kind = oa_core::model::Kind::Recovery;
    over.severity = oa_core::model::Severity::Info;
    oa_core::journal::incidents::put(&mut service.db(), &over).unwrap();
    service.flush();
    let got = hook(&service);
    let (begin, end) = (&got[3], &got[8]);
    assert_eq!(
        (&begin["state"], &end["state"]),
        (&"firing".into(), &"resolved".into())
    );
    assert_eq!(begin["fingerprint"], end["fingerprint"]);
    assert_eq!(
        (&begin["rule"], &end["incident_severity"]),
        (&"run_failed".into(), &"critical".into())
    );
    assert_eq!(begin["since"], end["since"], "{begin} {end}");
}
