//! A list that was cut off is no success, however it was cut off.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::sync::{Arc, Mutex};

use common::Service;
use common::site::{Answer, Site};
use serde_json::{Value, json};

/// A source of numbered pages with three records each, without a total.
fn paged(site: &Site, paging: &str, answer: &str) -> String {
    format!(
        r#"
name = "paged"
title = "分页"
provider = "own"
schedule = "0 9 * * *"
fetch = {{ kind = "http", base = "{}", path = "/list" }}
paging = {{ page = "page", size = "size", page_size = 3, id = "code", {paging} }}
answer = {{ records = "/list", {answer} }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "code", type = "text", required = true }},
]
"#,
        site.url
    )
}

fn page_of(path: &str) -> usize {
    let number = path.split("page=").nth(1).unwrap();
    number.split('&').next().unwrap().parse().unwrap()
}

/// Pages of so many records each; the pages behind the last one are empty.
fn pages(sizes: &'static [usize]) -> Site {
    Site::start(move |asked| {
        let page = page_of(&asked.path);
        let size = sizes.get(page - 1).copied().unwrap_or(0);
        Answer::json(list((0..size).map(|n| format!("P{page}N{n}"))))
    })
}

fn list(codes: impl Iterator<Item = String>) -> String {
    let records: Vec<Value> = codes.map(|code| json!({"code": code})).collect();
    json!({"list": records, "total": 12}).to_string()
}

/// Four pages of three records, and a last one of one, with this total on each.
fn totals(total: u64) -> Site {
    Site::start(move |asked| {
        let page = page_of(&asked.path);
        let size = [3, 3, 3, 3, 1].get(page - 1).copied().unwrap_or(0);
        let records: Vec<Value> = (0..size)
            .map(|n| json!({"code": format!("P{page}N{n}")}))
            .collect();
        Answer::json(json!({"list": records, "total": total}).to_string())
    })
}

/// Twelve records on the first page, six on the next one, which is the last.
fn shrinks() -> Site {
    Site::start(|asked| {
        let page = page_of(&asked.path);
        let size = if page > 2 { 0 } else { 3 };
        let records: Vec<Value> = (0..size)
            .map(|n| json!({"code": format!("P{page}N{n}")}))
            .collect();
        let total = if page == 1 { 12 } else { 6 };
        Answer::json(json!({"list": records, "total": total}).to_string())
    })
}

/// Status, kind of error and the findings of a run, and the status that `try` says.
fn outcome(service: &Service, text: &str) -> (String, Value, String, Value) {
    service.add("paged", text);
    let row = service.crawl(&["run", "paged", "--format", "json"]).row();
    let file = service.dir.path().join("own/paged.toml");
    let tried = service.crawl(&["try", file.to_str().unwrap(), "--format", "json"]);
    let said = tried.row();
    assert_eq!(tried.code == 0, said["status"] == "success", "{tried:?}");
    let status = row["status"].as_str().unwrap().to_owned();
    (
        status,
        row["error_kind"].clone(),
        service.findings(),
        said["status"].clone(),
    )
}

#[test]
fn pages_that_were_cut_off_are_partial_and_say_where() {
    let endless = || pages(&[3; 100]);
    let repeats = || {
        Site::start(|asked| {
            let page = page_of(&asked.path).min(2);
            Answer::json(list((0..3).map(|n| format!("P{page}N{n}"))))
        })
    };
    let service = Service::start();
    for (site, paging, answer, says) in [
        (endless(), "max_pages = 3", "", "stopped after 3 pages"),
        (
            endless(),
            "max_pages = 3, end = \"short page\"",
            "",
            "stopped after 3 pages",
        ),
        (
            repeats(),
            "",
            "",
            "page 3 held nothing that was not on an earlier page",
        ),
        (
            pages(&[3, 0, 3]),
            "",
            "",
            "page 2 was empty, but page 3 was not",
        ),
        (
            pages(&[2, 2, 1]),
            "end = \"short page\"",
            "",
            "the site gives 2 records a page where 3 were asked for",
        ),
        // Whoever asks for three and gets two may miss every third one.
        (
            pages(&[2, 2, 1]),
            "end = \"empty page\"",
            "",
            "the site gives 2 records a page where 3 were asked for",
        ),
        (pages(&[2, 1]), "", "", "the site gives 2 records a page"),
        (pages(&[3, 3]), "", "total = \"/total\"", ""),
        (shrinks(), "", "total = \"/total\"", "announced 12 records"),
        // A total that counts a page is none, whatever it is.
        (
            totals(3),
            "",
            "total = \"/total\"",
            "announced 3 records, but gave more",
        ),
        (
            totals(0),
            "",
            "total = \"/total\"",
            "announced 0 records, but gave more",
        ),
        (
            totals(5),
            "",
            "total = \"/total\"",
            "announced 5 records, but gave more",
        ),
    ] {
        let (status, kind, findings, tried) = outcome(&service, &paged(&site, paging, answer));
        assert_eq!(
            (status.as_str(), &kind),
            ("partial", &json!("partial")),
            "{says}: {findings}"
        );
        assert_eq!(tried, "partial", "{says}");
        let error = service.text("SELECT error_message FROM oa.runs ORDER BY id DESC LIMIT 1");
        assert!(error.contains(says), "{says}: {error}");
    }
    assert_eq!(
        service.count("oa.alerts WHERE kind = 'problem'"),
        1,
        "one incident"
    );
}

#[test]
fn pages_that_end_as_the_source_says_are_whole() {
    let service = Service::start();
    for (site, paging, answer) in [
        (pages(&[3, 3, 1]), "", ""),
        (pages(&[3, 3, 1]), "end = \"short page\"", ""),
        // A site that filters its pages.
        (pages(&[2, 3, 1, 2]), "end = \"empty page\"", ""),
        (pages(&[3, 2, 1]), "end = \"empty page\"", ""),
        (pages(&[1]), "end = \"short page\"", ""),
        (pages(&[3, 3]), "end = \"short page\"", ""),
        (pages(&[3, 3, 3, 3]), "max_pages = 4", "total = \"/total\""),
        // There may be nothing behind the last page, not even an answer.
        (
            Site::start(|asked| match page_of(&asked.path) {
                5.. => Answer::status(500),
                page => Answer::json(list((0..3).map(|n| format!("P{page}N{n}")))),
            }),
            "",
            "total = \"/total\"",
        ),
        // The site gives no pages of three, but all records that it announces.
        (pages(&[2; 6]), "", "total = \"/total\""),
    ] {
        let text = paged(&site, paging, answer);
        let (status, _, findings, tried) = outcome(&service, &text);
        assert_eq!(
            (status.as_str(), tried),
            ("success", json!("success")),
            "{text} {findings}"
        );
    }
}

#[test]
fn an_id_that_does_not_tell_records_apart_loses_none_and_proves_nothing() {
    let service = Service::start();
    let of = |all: &[(&str, i64)]| -> Value {
        all.iter()
            .map(|(code, n)| json!({"code": code, "name": format!("{code}{n}"), "more": n}))
            .collect()
    };
    let twice = [
        vec![("A", 1), ("A", 2), ("B", 1)],
        vec![("B", 1), ("B", 2), ("C", 1)],
    ];
    // The second record changed while pages were read, and the third one slipped from the second page to the first.
    let changed = [vec![("A", 1), ("B", 1)], vec![("B", 2)]];
    let ambiguous = "different records of one answer have the same code";
    for (pages, total, stored, said) in [
        (&twice, None, "A1 A2 B1 B2 C1", ambiguous),
        (&twice, Some(5), "A1 A2 B1 B2 C1", ambiguous),
        (
            &changed,
            Some(3),
            "A1 B1 B2",
            "the source announced 3 records, only 2 different ones came",
        ),
    ] {
        let lists = [of(&pages[0]), of(&pages[1])];
        let site = Site::start(move |asked| {
            let list = lists.get(page_of(&asked.path) - 1);
            let list = list.cloned().unwrap_or_else(|| json!([]));
            Answer::json(json!({"list": list, "total": total.unwrap_or(0)}).to_string())
        });
        let answer = total.map_or("", |_| "total = \"/total\"");
        let text = paged(&site, "end = \"empty page\"", answer)
            .replace(
                "unique = [\"code\"]",
                "unique = [\"code\", \"name\"], key = [\"code\", \"name\"]",
            )
            .replace("\"name\", from = \"code\"", "\"name\", from = \"name\"")
            .replace("\"commodities\"", "\"named\"");
        service
            .db()
            .batch_execute(
                "DROP TABLE IF EXISTS public.named; CREATE TABLE public.named (code text, name text, UNIQUE (code, name))",
            )
            .unwrap();
        service.add("paged", &text);
        let row = service.crawl(&["run", "paged", "--format", "json"]).row();
        assert_eq!(row["status"], "partial", "{row}");
        assert!(row["error"].as_str().unwrap().contains(said), "{row}");
        let sql = "SELECT string_agg(name, ' ' ORDER BY name) FROM named";
        assert_eq!(service.text(sql), stored);
        service.db().batch_execute("TRUNCATE named").unwrap();
        let day = service.text("SELECT details ->> 'day' FROM oa.runs ORDER BY id DESC LIMIT 1");
        let replay = [
            "replay", "paged", "--date", &day, "--yes", "--format", "json",
        ];
        let row = service.crawl(&replay).row();
        assert_eq!(row["status"], "partial", "{row}");
        assert_eq!(service.text(sql), stored);
    }
}

#[test]
fn what_was_cut_off_is_no_success_of_a_replay_either() {
    let service = Service::start();
    let total = "total = \"/total\"";
    for (site, answer, status) in [
        (pages(&[3; 9]), "", "partial"),
        (pages(&[3, 1]), "", "success"),
        (totals(3), total, "partial"),
        (totals(13), total, "success"),
    ] {
        outcome(&service, &paged(&site, "max_pages = 6", answer));
        let day = service.text("SELECT details ->> 'day' FROM oa.runs ORDER BY id DESC LIMIT 1");
        let replay = [
            "replay", "paged", "--date", &day, "--yes", "--format", "json",
        ];
        assert_eq!(service.crawl(&replay).row()["status"], status);
    }
}

#[test]
fn one_of_several_values_that_fails_costs_only_its_own_records() {
    let service = Service::start();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/hc" => Answer::status(404),
        path => Answer::json(list(std::iter::once(path[1..].to_uppercase()))),
    });
    let text = paged(&site, "", "")
        .replace("path = \"/list\"", "path = \"/{one}\"")
        .lines()
        .filter(|l| !l.starts_with("paging"))
        .map(|l| format!("{l}\n"))
        .collect::<String>()
        .replace(
            "answer =",
            "each = { name = \"one\", values = [\"rb\", \"hc\", \"i\"] }\nanswer =",
        );
    service.add("paged", &text);
    let done = service.crawl(&["run", "paged", "--format", "json"]);
    let row = done.row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("partial"), &json!(2)),
        "{row}"
    );
    let error = row["error"].as_str().unwrap();
    assert!(error.contains("one hc: HTTP 404"), "{error}");
    let day = service.text("SELECT details ->> 'day' FROM oa.runs LIMIT 1");
    let again = [
        "replay", "paged", "--date", &day, "--yes", "--format", "json",
    ];
    let row = service.crawl(&again).row();
    assert_eq!(
        (&row["status"], &row["unchanged"]),
        (&json!("partial"), &json!(2)),
        "{row}"
    );
}

#[test]
fn one_of_several_values_may_be_empty_where_nothing_is_a_result() {
    let service = Service::start();
    let site = Site::start(|asked| match asked.path.as_str() {
        "/hc" => Answer::json(list(std::iter::empty())),
        path => Answer::json(list(std::iter::once(path[1..].to_uppercase()))),
    });
    let text = paged(&site, "", "")
        .replace("path = \"/list\"", "path = \"/{one}\"")
        .lines()
        .filter(|l| !l.starts_with("paging"))
        .map(|l| format!("{l}\n"))
        .collect::<String>()
        .replace(
            "answer =",
            "allow_empty = true\neach = { name = \"one\", values = [\"rb\", \"hc\", \"i\"] }\nanswer =",
        );
    service.add("paged", &text);
    let row = service.crawl(&["run", "paged", "--format", "json"]).row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("success"), &json!(2)),
        "{row}"
    );
    let day = service.text("SELECT details ->> 'day' FROM oa.runs LIMIT 1");
    let again = [
        "replay", "paged", "--date", &day, "--yes", "--format", "json",
    ];
    let row = service.crawl(&again).row();
    assert_eq!(row["status"], "success", "{row}");
}

#[test]
fn one_of_several_values_that_hangs_leaves_time_for_the_others() {
    let service = Service::start();
    let ended = Arc::new(Mutex::new(()));
    let held = ended.clone();
    let hangs = ended.lock().unwrap();
    let site = Site::start(move |asked| match asked.path.as_str() {
        "/rb" => {
            // Until the test is over.
            drop(held.lock());
            Answer::status(500)
        }
        path => Answer::json(list(std::iter::once(path[1..].to_uppercase()))),
    });
    let text = paged(&site, "", "")
        .replace("path = \"/list\"", "path = \"/{one}\"")
        .lines()
        .filter(|l| !l.starts_with("paging"))
        .map(|l| format!("{l}\n"))
        .collect::<String>()
        .replace(
            "answer =",
            "retry = { timeout = \"6s\", retries = 0 }\neach = { name = \"one\", values = [\"rb\", \"hc\", \"i\"] }\nanswer =",
        );
    service.add("paged", &text);
    let row = service.crawl(&["run", "paged", "--format", "json"]).row();
    drop(hangs);
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("partial"), &json!(2)),
        "{row}"
    );
    assert!(row["error"].as_str().unwrap().contains("one rb: "), "{row}");
}

#[test]
fn as_many_records_as_were_asked_for_are_not_all() {
    let service = Service::start();
    let site = pages_of_one_answer();
    let text = |query: &str, answer: &str| {
        let text = paged(&site, "", answer);
        let lines = text.lines().filter(|l| !l.starts_with("paging"));
        let lines: String = lines.map(|l| format!("{l}\n")).collect();
        lines.replace(
            "path = \"/list\"",
            &format!("path = \"/list\", query = {{ {query} }}"),
        )
    };
    for (query, answer, status) in [
        ("limit = \"3\"", "", "partial"),
        ("pageSize = \"3\"", "", "partial"),
        ("limit = \"4\"", "", "success"),
        ("variety = \"3\"", "", "success"),
        ("limit = \"3\"", "end = \"one answer\"", "success"),
        ("limit = \"3\"", "total = \"/total\"", "partial"),
    ] {
        let (got, _, findings, tried) = outcome(&service, &text(query, answer));
        assert_eq!(got, status, "{query} {answer}: {findings}");
        assert_eq!(tried, status, "{query} {answer}");
    }
}

fn pages_of_one_answer() -> Site {
    Site::start(|_| Answer::json(list((0..3).map(|n| format!("N{n}")))))
}

#[test]
fn try_shows_what_came_as_it_can_be_read() {
    let service = Service::start();
    let file = service.dir.path().join("own/paged.toml");
    let body = service.dir.path().join("answer");
    service.add("paged", &paged(&pages(&[1]), "", ""));
    let tried = |bytes: &[u8]| {
        fs::write(&body, bytes).unwrap();
        let (file, body) = (file.to_str().unwrap(), body.to_str().unwrap());
        service.crawl(&["try", file, "--body", body]).stdout
    };
    let gbk = b"\xcf\xb5\xcd\xb3\xce\xac\xbb\xa4"; // 系统维护
    assert!(tried(gbk).contains("it begins: 系统维护"), "{}", tried(gbk));
    let shown = tried(b"\x1b[31mred\x07\r\nnext\xe2\x80\xae");
    assert!(
        shown.contains("it begins: \\u{1b}[31mred\\u{7}\\r\\nnext\\u{202e}"),
        "{shown}"
    );
    let shown = tried("{\"list\": [{\"code\": \"A\u{9b}2J\u{202e}\"}]}".as_bytes());
    assert!(shown.contains("A\\u{9b}2J"), "{shown}");
    let steers = |c: char| c != '\n' && c.is_control() || c == '\u{202e}';
    assert!(!shown.contains(steers), "{shown:?}");
}

#[test]
fn try_ends_as_the_run_would() {
    let service = Service::start();
    let body = service.dir.path().join("answer.json");
    let text = |more: &str| {
        format!(
            r#"
name = "paged"
title = "一次"
provider = "own"
schedule = "0 9 * * *"
fetch = {{ kind = "http", base = "http://127.0.0.1:1" }}
answer = {{ records = "/list", {more} }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "price", type = "number", required = true }},
]
"#
        )
    };
    for (more, records, status) in [
        (
            "",
            json!([{"code": "A", "price": 1}, {"code": "B", "price": 2}]),
            "success",
        ),
        (
            "total = \"/total\"",
            json!([{"code": "A", "price": 1}]),
            "partial",
        ),
        (
            "",
            json!([{"code": "A", "price": 1}, {"code": "B", "price": "-"}]),
            "partial",
        ),
        (
            "",
            json!([{"code": "A", "price": 1}, {"code": "A", "price": 2}]),
            "partial",
        ),
        ("", json!([{"code": "A", "price": "-"}]), "failed"),
        ("", json!([]), "failed"),
    ] {
        service.add("paged", &text(more));
        fs::write(&body, json!({"list": records, "total": 12}).to_string()).unwrap();
        let file = service.dir.path().join("own/paged.toml");
        let arguments = [
            "try",
            file.to_str().unwrap(),
            "--body",
            body.to_str().unwrap(),
        ];
        let done = service.crawl(&[&arguments[..], &["--format", "json"]].concat());
        assert_eq!(done.row()["status"], status, "{done:?}");
        assert_eq!(done.code, i32::from(status != "success"));
        let last = match status {
            "success" => "ok ",
            "partial" => "PARTIAL ",
            _ => "PROBLEM ",
        };
        let shown = service.crawl(&arguments).stdout;
        assert!(shown.lines().last().unwrap().starts_with(last), "{shown}");
    }
}
