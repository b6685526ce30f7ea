//! What a site was trusted with goes to nobody else.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::Service;
use common::site::{Answer, Site};

fn source(base: &str, path: &str, more: &str) -> String {
    format!(
        r#"
name = "quotes"
title = "报价"
provider = "own"
schedule = "0 9 * * *"
answer = {{ records = "/list" }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "code", type = "text", required = true }},
]

[fetch]
kind = "http"
base = "{base}"
path = "{path}"
headers = {{ x-plain = "plain-key" }}
secret_headers = {{ x-api-key = "env:ZHIHUI_AUTH_TOKEN", authorization = "env:ZHIHUI_AUTH_TOKEN", cookie = "env:ZHIHUI_AUTH_TOKEN" }}
{more}
"#
    )
}

fn run(service: &Service, text: &str) -> (i32, serde_json::Value) {
    service.add("quotes", text);
    let done = service.crawl(&["run", "quotes", "--format", "json"]);
    (done.code, done.row())
}

const RECORDS: &str = r#"{"list": [{"code": "RB"}]}"#;

#[test]
fn a_redirect_elsewhere_takes_no_secret_header_and_no_cookie_along() {
    let service = Service::start();
    let other = Site::start(|_| Answer::json(RECORDS));
    for (followed, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        let there = format!("{}/x?y=1", other.url);
        let site = Site::start(move |asked| match asked.path.as_str() {
            "/start" => Answer::redirect(302, "/next"),
            _ => Answer::redirect(status, there.clone()),
        });
        let (code, row) = run(&service, &source(&site.url, "/start", ""));
        let error = row["error"].as_str().unwrap_or_default();
        assert!(code == 1 && error.contains("redirects in [fetch]"), "{row}");
        assert!(error.contains(&other.url), "{row}");
        assert_eq!(other.asked().len(), followed, "nobody has said that it may");
        let may = format!("redirects = [\"{}\"]", other.url);
        let (code, row) = run(&service, &source(&site.url, "/start", &may));
        assert_eq!(code, 0, "{row}");
        for asked in site.asked() {
            assert_eq!(asked.head.matches("sim-token").count(), 3, "{asked:?}");
        }
        assert!(
            site.asked()[1].head.contains("session=kept"),
            "cookies stay with their site"
        );
        let head = other.asked().pop().unwrap().head;
        for secret in [
            "sim-token",
            "plain-key",
            "session=kept",
            "cookie",
            "x-api-key",
            "authorization",
        ] {
            assert!(!head.contains(secret), "{secret}: {head}");
        }
        let findings = service.findings();
        assert!(
            findings.contains("redirected to another origin"),
            "{findings}"
        );
        assert!(findings.contains(&format!("{}/x", other.url)), "{findings}");
    }
    // And back at the site they are its own again.
    let site = Site::start(|_| Answer::json(RECORDS));
    let back = site.url.clone();
    let between = Site::start(move |_| Answer::redirect(302, format!("{back}/end")));
    let may = format!("redirects = [\"{}\"]", site.url);
    let (code, row) = run(&service, &source(&between.url, "/start", &may));
    assert_eq!(code, 0, "{row}");
    assert!(!site.asked()[0].head.contains("sim-token"));
}

#[test]
fn a_form_is_not_posted_elsewhere_and_a_circle_ends() {
    let service = Service::start();
    let other = Site::start(|_| Answer::json(RECORDS));
    let there = other.url.clone();
    let site = Site::start(move |asked| match asked.path.as_str() {
        "/away" => Answer::redirect(307, there.clone()),
        "/home" => Answer::redirect(307, "/end"),
        "/end" => Answer::json(RECORDS),
        _ => Answer::redirect(302, "/circle"),
    });
    for (path, code, says) in [
        ("/away", 1, "a form would go to"),
        ("/home", 0, ""),
        ("/circle", 1, "redirected in a circle"),
    ] {
        let (found, row) = run(&service, &source(&site.url, path, "form = { a = \"b\" }"));
        assert_eq!(found, code, "{row}");
        assert!(
            row["error"].as_str().unwrap_or_default().contains(says),
            "{row}"
        );
    }
    assert_eq!(other.asked().len(), 0);
    let posts = site
        .asked()
        .iter()
        .filter(|a| a.head.starts_with("post /end"))
        .count();
    assert_eq!(posts, 1, "307 keeps the form at home");
}

#[test]
fn a_site_elsewhere_cannot_make_this_machine_ask_itself() {
    let service = Service::start();
    let victim = Site::start(|_| Answer::json(RECORDS));
    let port = victim.url.rsplit(':').next().unwrap().to_owned();
    // Every request goes through this proxy, whatever the name of the site.
    let proxy = Site::start(move |asked| {
        let to = asked.path.rsplit("to=").next().unwrap_or_default();
        Answer::redirect(302, format!("http://{to}:{port}/"))
    });
    for to in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "169.254.169.254",
        "2130706433",
    ] {
        let text = source(
            "http://192.0.2.1",
            "/x",
            &format!("query = {{ to = \"{to}\" }}"),
        );
        service.add("quotes", &text.replace("%5B", "["));
        let done: common::Done = service
            .command(&["run", "quotes", "--format", "json"])
            .env("http_proxy", &proxy.url)
            .env("no_proxy", "localhost,127.0.0.1")
            .output()
            .unwrap()
            .into();
        let row = done.row();
        let error = row["error"].as_str().unwrap();
        assert!(
            (error.contains("refused to ask") && error.contains("to redirects in [fetch]"))
                || to.starts_with('['),
            "{to}: {row}"
        );
        assert_ne!(row["status"], "success");
    }
    assert_eq!(victim.asked().len(), 0, "nobody asked it");
}
