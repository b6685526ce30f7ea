#![allow(clippy::unwrap_used)]
use std::path::Path;

use oa_core::model::Severity;

use super::*;

fn channel(toml: &str) -> Channel {
    let config = Config::parse(
        Path::new("/x/oa.toml"),
        &format!("[[alert.channels]]\nname = \"a\"\n{toml}"),
    )
    .unwrap();
    Channel::resolve(&config, &config.alert.channels[0]).unwrap()
}

fn message(body: &str) -> Message {
    Message {
        title: "标题".into(),
        body: format!("**标题**\n\n{body}"),
        severity: Severity::Critical,
        recovery: false,
        link: None,
        facts: None,
        digest: None,
        actions: Vec::new(),
    }
}

fn now() -> DateTime<Utc> {
    "2025-12-01T00:00:00Z".parse().unwrap()
}

const NASTY: &str = "😀 \"quotes\" </script> \\ \u{1} ' ` 反斜杠";

#[test]
fn dingtalk_is_signed_in_the_query_and_mentions_stand_in_the_text() {
    let channel = channel(
        "kind = \"dingtalk\"\nurl = \"http://r/send?access_token=t\"\nsecret = \"SEC1\"\nat_mobiles = [\"138\"]\n",
    );
    let request = channel.request(&message(NASTY), now()).unwrap();
    // echo -ne "1764547200000\nSEC1" | openssl dgst -sha256 -hmac SEC1 -binary | base64
    assert_eq!(
        request.url.expose(),
        "http://r/send?access_token=t&timestamp=1764547200000&sign=d6srDiSRzPs%2Fs7C1SP4Z0qGCzVPPflHlHgpQTJeNbMk%3D"
    );
    let text = request.body["markdown"]["text"].as_str().unwrap();
    assert!(text.contains(NASTY) && text.ends_with("@138"), "{text}");
    assert_eq!(request.body["at"]["atMobiles"][0], "138");
}

#[test]
fn feishu_is_signed_in_the_body_and_coloured() {
    let channel = channel("kind = \"feishu\"\nurl = \"http://r/hook/h\"\nsecret = \"S\"\n");
    let request = channel.request(&message(NASTY), now()).unwrap();
    // echo -n "" | openssl dgst -sha256 -hmac "$(printf '1764547200\nS')" -binary | base64
    assert_eq!(
        request.body["sign"],
        "3Nu7QW1w2QyY9I8CCm1efPrw97e1eTw/JhuBqV2woy0="
    );
    assert_eq!(request.body["card"]["header"]["template"], "red");
    assert_eq!(
        request.body["card"]["elements"][0]["text"]["content"], NASTY,
        "the title stands in the header"
    );
}

#[test]
fn wecom_gets_markdown_or_text_with_mentions_within_its_limits() {
    let plain = channel("kind = \"wecom\"\nurl = \"http://r/send?key=k\"\n")
        .request(&message(&"长".repeat(3000)), now())
        .unwrap();
    assert!(plain.body["markdown"]["content"].as_str().unwrap().len() <= 4096);
    let text = channel("kind = \"wecom\"\nurl = \"http://r/send?key=k\"\nat_all = true\n")
        .request(&message(&"长".repeat(3000)), now())
        .unwrap();
    assert!(text.body["text"]["content"].as_str().unwrap().len() <= 2048);
    assert_eq!(text.body["text"]["mentioned_mobile_list"][0], "@all");
}

#[test]
fn what_a_channel_cannot_do_is_a_configuration_error() {
    for (toml, word) in [
        (
            "kind = \"feishu\"\nurl = \"http://r\"\nat_mobiles = [\"1\"]\n",
            "at_mobiles",
        ),
        (
            "kind = \"wecom\"\nurl = \"http://r\"\nsecret = \"x\"\n",
            "signing secret",
        ),
        ("kind = \"dingtalk\"\nurl = \"ftp://r\"\n", "https://"),
        (
            "kind = \"dingtalk\"\nurl = \"env:OA_TEST_NO_SUCH\"\n",
            "OA_TEST_NO_SUCH",
        ),
    ] {
        let config = Config::parse(
            Path::new("/x/oa.toml"),
            &format!("[[alert.channels]]\nname = \"a\"\n{toml}"),
        )
        .unwrap();
        let error = Channel::resolve(&config, &config.alert.channels[0])
            .unwrap_err()
            .to_string();
        assert!(error.contains(word), "{error}");
    }
}

#[test]
fn an_error_code_behind_status_200_is_a_failure_with_a_remedy() {
    let dingtalk = channel("kind = \"dingtalk\"\nurl = \"http://r\"\n");
    let feishu = channel("kind = \"feishu\"\nurl = \"http://r\"\n");
    assert!(
        dingtalk
            .assess(200, r#"{"errcode":0,"errmsg":"ok"}"#)
            .is_ok()
    );
    assert!(feishu.assess(200, r#"{"StatusCode":0}"#).is_ok());
    assert!(
        dingtalk
            .assess(200, r#"{"errcode":310000,"errmsg":"sign not match"}"#)
            .unwrap_err()
            .message
            .contains("copy the robot's secret")
    );
    let throttled = dingtalk
        .assess(200, r#"{"errcode":130101,"errmsg":"send too fast"}"#)
        .unwrap_err();
    assert_eq!(throttled.pause(), Some(Duration::from_secs(600)));
    assert!(
        dingtalk
            .assess(200, "<html>")
            .unwrap_err()
            .message
            .contains("not a robot's")
    );
    assert!(
        dingtalk
            .assess(502, "")
            .unwrap_err()
            .message
            .contains("HTTP 502")
    );
    assert!(
        feishu.assess(200, r#"{"errcode":0}"#).is_err(),
        "another robot's answer"
    );
    // A number that became a text on its way is the same code: else the message would come for a day.
    assert!(dingtalk.assess(200, r#"{"errcode":"0"}"#).is_ok());
    let refused = dingtalk.assess(200, r#"{"errcode":"130101"}"#).unwrap_err();
    assert_eq!(refused.pause(), Some(Duration::from_secs(600)));
    // Who answers is not the robot, and stays somebody else until a person acts: the other channels hear of it within minutes.
    let hook = channel("kind = \"webhook\"\nurl = \"http://r\"\n");
    for (channel, status, body) in [
        (&dingtalk, 200, "<html>"),
        (&dingtalk, 200, ""),
        (&dingtalk, 200, "[]"),
        (&dingtalk, 200, r#"{"errcode":null}"#),
        (&feishu, 200, r#"{"errcode":0}"#),
        (&hook, 302, ""),
        (&hook, 404, ""),
        (&hook, 410, ""),
    ] {
        let error = channel.assess(status, body).unwrap_err();
        assert_eq!(error.cause, Cause::Setup, "{status} {body}");
    }
    assert_eq!(hook.assess(502, "").unwrap_err().cause, Cause::Now);
}

fn incident(kind: oa_core::model::event::Kind) -> Message {
    use oa_core::model::event::Kind;
    Message {
        recovery: kind == Kind::Recovery,
        severity: if kind == Kind::Recovery {
            Severity::Info
        } else {
            Severity::Critical
        },
        link: Some("https://oa.example.com/admin/tasks/a".into()),
        facts: Some(crate::render::Facts {
            id: uuid::Uuid::nil(),
            fingerprint: "run:a".into(),
            kind,
            severity: Severity::Critical,
            what: "标题".into(),
            rule: "run_failed".into(),
            task: Some("a".into()),
            run: None,
            host: Some("vm1".into()),
            at: now() + chrono::TimeDelta::hours(1),
            since: Some(now()),
            cause: None,
        }),
        ..message("原因")
    }
}

#[test]
fn each_service_gets_its_documented_form_and_the_end_closes_what_the_beginning_opened() {
    use oa_core::model::event::Kind;
    let both = |toml: &str| {
        let channel = channel(&format!("kind = \"webhook\"\n{toml}"));
        [Kind::Problem, Kind::Recovery].map(|kind| channel.request(&incident(kind), now()).unwrap())
    };
    let [begin, end] = both(
        "service = \"pagerduty\"\nurl = \"https://events.pagerduty.com/v2/enqueue\"\nsecret = \"R0\"\n",
    );
    assert_eq!(
        (&begin.body["event_action"], &end.body["event_action"]),
        (&"trigger".into(), &"resolve".into())
    );
    assert_eq!(begin.body["dedup_key"], end.body["dedup_key"]);
    assert_eq!(
        (&begin.body["routing_key"], &begin.body["dedup_key"]),
        (&"R0".into(), &"run:a".into())
    );
    let payload = &begin.body["payload"];
    assert_eq!(
        (
            &payload["severity"],
            &payload["source"],
            &payload["summary"]
        ),
        (&"critical".into(), &"vm1".into(), &"标题".into())
    );
    assert_eq!(payload["timestamp"], "2025-12-01T01:00:00+00:00");

    let [begin, end] = both("service = \"alertmanager\"\nurl = \"http://am:9093/api/v2/alerts\"\n");
    assert_eq!(begin.body[0]["labels"], end.body[0]["labels"]);
    assert_eq!(begin.body[0]["labels"]["fingerprint"], "run:a");
    assert_eq!(begin.body[0]["startsAt"], end.body[0]["startsAt"]);
    assert_eq!(end.body[0]["endsAt"], "2025-12-01T01:00:00+00:00");
    assert!(begin.body[0]["endsAt"].as_str() > end.body[0]["endsAt"].as_str());

    let [begin, end] = both(
        "service = \"flashduty\"\nurl = \"https://api.flashcat.cloud/event/push/alert/standard?integration_key=K\"\n",
    );
    assert_eq!(
        (&begin.body["event_status"], &end.body["event_status"]),
        (&"Critical".into(), &"Ok".into())
    );
    assert_eq!(begin.body["alert_key"], end.body["alert_key"]);

    let [begin, _] = both("service = \"ntfy\"\nurl = \"https://ntfy.sh/oa-alerts\"\n");
    assert_eq!(begin.url.expose(), "https://ntfy.sh/");
    assert_eq!(
        (&begin.body["topic"], &begin.body["priority"]),
        (&"oa-alerts".into(), &5.into())
    );
    let [begin, _] = both("service = \"bark\"\nurl = \"https://api.day.app/KEY\"\n");
    assert_eq!(
        (&begin.body["title"], &begin.body["level"]),
        (&"标题".into(), &"timeSensitive".into())
    );
    let [begin, _] =
        both("service = \"pushplus\"\nurl = \"https://www.pushplus.plus/send\"\nsecret = \"T\"\n");
    assert_eq!(
        (&begin.body["token"], &begin.body["template"]),
        (&"T".into(), &"markdown".into())
    );
    let [begin, _] = both("service = \"serverchan\"\nurl = \"https://sctapi.ftqq.com/KEY.send\"\n");
    assert!(begin.body["desp"].as_str().unwrap().contains("原因"));
}

#[test]
fn an_answer_of_200_that_says_no_is_no_success() {
    let own = channel(
        "kind = \"webhook\"\nurl = \"http://h\"\nsuccess = { pointer = \"/errcode\", equals = 0 }\n",
    );
    assert_eq!(own.assess(200, r#"{"errcode":0}"#), Ok(()));
    for no in [r#"{"errcode":-1,"errmsg":"no"}"#, "<html>", r#"{"ok":1}"#] {
        let refused = own.assess(200, no).unwrap_err();
        assert!(refused.message.contains("/errcode"), "{refused}");
    }
    let pushplus =
        channel("kind = \"webhook\"\nurl = \"http://h\"\nservice = \"pushplus\"\nsecret = \"t\"\n");
    assert_eq!(
        pushplus.assess(200, r#"{"code":200,"msg":"请求成功"}"#),
        Ok(())
    );
    assert!(
        pushplus
            .assess(200, r#"{"code":903,"msg":"无效的用户token"}"#)
            .is_err()
    );
    let pagerduty = channel(
        "kind = \"webhook\"\nurl = \"http://h\"\nservice = \"pagerduty\"\nsecret = \"t\"\n",
    );
    assert_eq!(
        pagerduty.assess(202, r#"{"status":"success","dedup_key":"x"}"#),
        Ok(())
    );
}

#[test]
fn people_are_called_for_what_is_critical_and_goes_on() {
    use oa_core::model::event::Kind;
    let robot = "kind = \"dingtalk\"\nurl = \"http://r/send?access_token=t\"\nat_mobiles = [\"138\"]\nat_all = true\n";
    let calls = |toml: &str, message: &Message| {
        let at = channel(toml).request(message, now()).unwrap().body["at"].clone();
        at["isAtAll"] == true && at["atMobiles"][0] == "138"
    };
    let warning = Message {
        severity: Severity::Warning,
        ..incident(Kind::Problem)
    };
    let over = incident(Kind::Recovery);
    for (mention, called) in [
        ("", [true, false, false]),
        ("mention = \"warning\"\n", [true, true, false]),
        ("mention = \"always\"\n", [true, true, true]),
    ] {
        let toml = format!("{robot}{mention}");
        let are = [&incident(Kind::Problem), &warning, &over].map(|m| calls(&toml, m));
        assert_eq!(are, called, "{mention}");
    }
    // Where nobody is called WeCom shows the message as it is formatted.
    let wecom = channel("kind = \"wecom\"\nurl = \"http://r/send?key=k\"\nat_all = true\n");
    assert_eq!(
        wecom.request(&over, now()).unwrap().body["msgtype"],
        "markdown"
    );
}

#[test]
fn what_was_not_sent_is_not_taken_for_sent_and_not_answered() {
    use std::io::{Error, ErrorKind};
    let expired = rustls::Error::InvalidCertificate(rustls::CertificateError::Expired);
    assert!(no_connection(&Error::new(ErrorKind::InvalidData, expired)));
    assert!(no_connection(&ErrorKind::ConnectionRefused.into()));
    assert!(!no_connection(&ErrorKind::InvalidData.into()));
    assert!(!lost(&ureq::Error::ConnectProxyFailed(String::new())).unknown);
    assert!(lost(&ureq::Error::Timeout(ureq::Timeout::Global)).unknown);
}
