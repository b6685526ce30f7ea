//! `oa-crawl new`: what it proposes can be tried at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::Done;
use common::site::{Answer, Site};
use serde_json::Value;

fn oa_crawl(folder: &Path, arguments: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("OA_CONFIG");
    command.output().unwrap().into()
}

fn site() -> Site {
    Site::start(|asked| {
        let path = asked.path.split('?').next().unwrap();
        let text = match path {
            "/json" => {
                r#"{"code": 0, "data": {"other": [1], "rows": [{"id": "rb2601", "px": {"close": 3.5}, "n": "1,200", "d": "20251201", "updateTime": 1764518400000}, {"id": "hc2601", "px": {"close": 4}, "n": "-", "d": "20251201", "updateTime": 1764518460000}]}}"#
            }
            "/lists" => r#"[["rb2601", 1.5], ["hc2601", 2]]"#,
            "/keyed" => {
                r#"{"rb2601": {"close": 1}, "hc2601": {"close": 2}, "i2601": {"close": 3}}"#
            }
            "/jsonp" => {
                r#"callback({"list": [{"id": "a", "close": 1}, {"id": "b", "close": 2}]});"#
            }
            "/csv" => "行情(2025-12-01)\n合约代码|今收盘|成交量\nrb2601|3,500.0|1\nhc2601|--|2\n",
            "/html" => {
                "<!doctype html><html><title>x</title><table><tr><td>合约<td>收盘价<tr><td>rb2601<td>5<tr><td>hc2601<td>6</table>"
            }
            "/xml" => {
                "<?xml version='1.0'?><rss><channel><title>t</title><item id='1' k='x'><title>a</title></item><item id='2' k='y'><title>b</title></item></channel></rss>"
            }
            "/one" => "hello",
            "/empty" => "",
            "/wall" => "<html><title>验证</title><p>x</html>",
            "/lines" => "{\"a\": 1}\n{\"a\": 2}\n",
            "/nothing" => r#"{"data": []}"#,
            "/twice" => r#"{"list": [{"order": 1, "px": 2.5}]}"#,
            _ => return Answer::status(404),
        };
        Answer {
            status: 200,
            headers: vec![("content-type", "text/plain; charset=utf-8".to_owned())],
            body: text.to_owned(),
        }
    })
}

#[test]
fn a_proposed_file_reads_what_came() {
    let site = site();
    let folder = tempfile::tempdir().unwrap();
    for (path, rows, has) in [
        ("json", 2, "from = \"/px/close\""),
        ("lists", 2, "columns = [\"column_1\", \"column_2\"]"),
        ("keyed", 3, "key_as = \"key\""),
        ("jsonp", 2, "script = \"callback\""),
        ("csv", 2, "separator = \"|\""),
        ("html", 2, "[answer.table]"),
        ("xml", 2, "records = \"rss/channel/item\""),
    ] {
        let file = format!("{path}.toml");
        let url = format!("{}/{path}?day=2025-12-01&x=1", site.url);
        let done = oa_crawl(folder.path(), &["new", &url, "--name", path, "-o", &file]);
        assert_eq!(done.code, 0, "{path}: {done:?}");
        let text = fs::read_to_string(folder.path().join(&file)).unwrap();
        assert!(text.contains(has), "{has}: {text}");
        assert!(text.contains("\"day\" = \"{date}\""), "{text}");
        assert!(text.contains("CREATE TABLE public.my_table"), "{text}");
        let tried = oa_crawl(
            folder.path(),
            &["try", &file, "--date", "2025-12-02", "--format", "json"],
        );
        let tried: Value =
            serde_json::from_str(&tried.stdout).unwrap_or_else(|_| panic!("{tried:?}"));
        assert_eq!(
            (&tried["typed"]["rows"], &tried["status"]),
            (&Value::from(rows), &Value::from("success")),
            "{path}: {tried}"
        );
        assert!(site.asked().pop().unwrap().path.contains("day=2025-12-02"));
    }
    let text = fs::read_to_string(folder.path().join("json.toml")).unwrap();
    for has in [
        "type = \"date\"",
        "null = [\"-\"]",
        "epoch = \"ms\"",
        "unique = [\"id\"]",
        "#   rb2601 | 3.5 | 1200",
    ] {
        assert!(text.contains(has), "{has}: {text}");
    }
}

#[test]
fn a_parameter_that_stands_twice_and_a_word_of_sql_are_proposed_as_they_work() {
    let site = site();
    let folder = tempfile::tempdir().unwrap();
    let url = format!("{}/twice?c=a&c=b&day=2025-12-01", site.url);
    let done = oa_crawl(
        folder.path(),
        &["new", &url, "--name", "twice", "-o", "twice.toml"],
    );
    assert_eq!(done.code, 0, "{done:?}");
    let text = fs::read_to_string(folder.path().join("twice.toml")).unwrap();
    assert!(
        text.contains("path = \"/twice?c=a&c=b&day={date}\""),
        "{text}"
    );
    assert!(text.contains("UNIQUE (\"order\")"), "{text}");
    let tried = oa_crawl(
        folder.path(),
        &["try", "twice.toml", "--date", "2025-12-02"],
    );
    assert_eq!(tried.code, 0, "{tried:?}");
    let asked = site.asked().pop().unwrap().path;
    assert_eq!(asked, "/twice?c=a&c=b&day=2025-12-02");
}

#[test]
fn a_token_in_the_address_becomes_a_reference_that_works() {
    let site = site();
    let folder = tempfile::tempdir().unwrap();
    let url = format!(
        "{}/json?access_token=s3cr3t-of-mine&day=2025-12-01",
        site.url
    );
    let done = oa_crawl(
        folder.path(),
        &["new", &url, "--name", "my-json", "-o", "my-json.toml"],
    );
    assert_eq!(done.code, 0, "{done:?}");
    let text = fs::read_to_string(folder.path().join("my-json.toml")).unwrap();
    let reference = "secret_query = { \"access_token\" = \"env:MY_JSON_ACCESS_TOKEN\" }";
    assert!(
        text.contains(reference) && !text.contains("s3cr3t"),
        "{text}"
    );
    assert!(
        done.stderr.contains("MY_JSON_ACCESS_TOKEN=") && !done.stderr.contains("s3cr3t"),
        "{done:?}"
    );
    let config = "state_dir = \"state\"\n[database]\nurl = \"postgresql:///none\"\n";
    fs::write(folder.path().join("oa.toml"), config).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args([
            "--config",
            "oa.toml",
            "try",
            "my-json.toml",
            "--date",
            "2025-12-02",
        ])
        .env("MY_JSON_ACCESS_TOKEN", "t0ken-of-another")
        .current_dir(folder.path());
    let tried: Done = command.output().unwrap().into();
    assert_eq!(tried.code, 0, "{tried:?}");
    assert!(!tried.stdout.contains("t0ken-of-another"), "{tried:?}");
    let asked = site.asked().pop().unwrap().path;
    assert_eq!(asked, "/json?day=2025-12-02&access_token=t0ken-of-another");
}

#[test]
fn what_is_no_data_is_said_and_nothing_is_written() {
    let site = site();
    let folder = tempfile::tempdir().unwrap();
    for (path, says) in [
        (
            "one",
            "the form of the answer is not known; it begins: hello",
        ),
        ("empty", "the answer is empty"),
        ("wall", "without any table"),
        ("nothing", "has no list of records"),
        ("lines", "begins as JSON and is none (at byte 9"),
        ("gone", "HTTP 404"),
    ] {
        let done = oa_crawl(
            folder.path(),
            &["new", &format!("{}/{path}", site.url), "-o", "x.toml"],
        );
        assert_eq!(done.code, 1, "{done:?}");
        assert!(done.stderr.contains(says), "{says}: {done:?}");
        assert!(!folder.path().join("x.toml").exists());
    }
    assert_eq!(oa_crawl(folder.path(), &["new", "ftp://x/y"]).code, 2);
    fs::write(folder.path().join("mine.toml"), "mine").unwrap();
    let done = oa_crawl(
        folder.path(),
        &["new", &format!("{}/json", site.url), "-o", "mine.toml"],
    );
    assert_eq!(done.code, 2, "{done:?}");
    assert_eq!(
        fs::read_to_string(folder.path().join("mine.toml")).unwrap(),
        "mine"
    );
}
