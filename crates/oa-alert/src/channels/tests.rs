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
        parts: Vec::new(),
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
}
