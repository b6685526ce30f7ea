//! Sites that want a login or a signature, by the examples of docs/new-source.md.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};

use common::Done;
use common::site::{Answer, Asked, Site};
use serde_json::{Value, json};

fn example(title: &str) -> String {
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/new-source.md");
    let docs = fs::read_to_string(docs).unwrap();
    let text = &docs[docs.find(&format!("```toml\n# {title}\n")).unwrap() + 8..];
    text[..text.find("```").unwrap()].to_owned()
}

/// `oa-crawl try` of a source with two pages.
fn attempt(base: &str, access: &str) -> Value {
    let dir = tempfile::tempdir().unwrap();
    let source = format!(
        "name = \"s\"\ntitle = \"s\"\nprovider = \"own\"\nschedule = \"0 9 * * *\"\n[fetch]\nkind = \"http\"\nbase = \"{base}\"\npath = \"/data\"\n[paging]\nnext = \"/next\"\nid = \"code\"\n[answer]\nrecords = \"/list\"\n[store]\ntable = \"t\"\nunique = [\"code\"]\nkey = [\"code\"]\n[[fields]]\ncolumn = \"code\"\nfrom = \"code\"\ntype = \"text\"\nrequired = true\n{access}"
    );
    fs::write(dir.path().join("s.toml"), source).unwrap();
    fs::write(
        dir.path().join("oa.toml"),
        "state_dir = \"state\"\n[database]\nurl = \"env:X\"\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["--config", "oa.toml", "try", "s.toml", "--format", "json"])
        .current_dir(dir.path())
        .env("MYSITE_USER", "wang")
        .env("MYSITE_PASSWORD", "secret word")
        .env("MYSITE_KEY", "signing-key");
    let done: Done = command.output().unwrap().into();
    assert!(!format!("{done:?}").contains("secret word"), "{done:?}");
    serde_json::from_str(&done.stdout).unwrap_or_else(|_| json!({ "problem": done.stderr }))
}

fn page(asked: &Asked) -> Answer {
    Answer::json(match asked.path.contains("page=2") {
        true => json!({ "list": [{"code": "B"}] }).to_string(),
        false => json!({ "list": [{"code": "A"}], "next": "/data?page=2" }).to_string(),
    })
}

/// A site whose CSRF token changes with every page, and whose sessions end after `requests`; it says so by this status.
fn site(requests: u64, ended: u16) -> Site {
    let (logins, left) = (AtomicU64::new(0), AtomicU64::new(0));
    Site::start(move |asked| {
        let number = logins.load(Ordering::SeqCst);
        if asked.path == "/login" && asked.head.starts_with("get") {
            let mut answer = Answer::json(format!(
                "<form><input name=csrf value=\"c{number}\"></form>"
            ));
            answer.headers = vec![
                ("content-type", "text/html".to_owned()),
                ("set-cookie", format!("s=k{number}")),
            ];
            return answer;
        }
        if asked.path == "/login" {
            let due = format!("csrf=c{number}&name=wang&pass=secret+word");
            let due = asked.body.replace("%20", "+") == due
                && asked.head.contains(&format!("cookie: s=k{number}"));
            logins.fetch_add(1, Ordering::SeqCst);
            left.store(requests, Ordering::SeqCst);
            return Answer::json(
                json!({ "success": due, "token": format!("T{}", number + 1) }).to_string(),
            );
        }
        let due = format!("authorization: bearer t{number}");
        let lives = left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1))
            .is_ok();
        match asked.head.contains(&due) && lives {
            true => page(asked),
            false => Answer {
                body: "<html><title>登录</title></html>".to_owned(),
                ..Answer::status(ended)
            },
        }
    })
}

#[test]
fn a_login_is_made_first_and_again_when_the_session_ends() {
    let login = example("a login");
    let long = site(100, 401);
    let tried = attempt(&long.url, &login);
    assert_eq!(
        (&tried["status"], &tried["typed"]["rows"]),
        (&json!("success"), &json!(2)),
        "{tried}"
    );
    // A session for two requests: the third is the second page.
    for ended in [401, 200] {
        let short = site(2, ended);
        let tried = attempt(&short.url, &login);
        assert_eq!(
            (&tried["status"], &tried["typed"]["rows"]),
            (&json!("success"), &json!(2)),
            "{tried}"
        );
    }
    // One that never lasts is no endless circle.
    let never = site(0, 401);
    let tried = attempt(&never.url, &login);
    assert!(
        tried["problem"].as_str().unwrap().contains("HTTP 401"),
        "{tried}"
    );
    assert!(never.asked().len() < 10, "{:?}", never.asked());
}

#[test]
fn a_login_that_is_refused_says_so() {
    let login = example("a login");
    for (from, to, says) in [
        (
            "{password}",
            "{user}",
            "was refused (/success does not say yes)",
        ),
        (
            "input[name=csrf]",
            "input[name=other]",
            "no element that matches",
        ),
        (
            "token = \"/token\"",
            "token = \"/none\"",
            "no text at /none",
        ),
        (
            "ok = \"/success\"",
            "done = \"欢迎\"",
            "neither the answer nor its address has",
        ),
        ("{csrf}", "{crsf}", "the unknown placeholder {crsf}"),
        ("page = \"/login\"\n", "", "needs page"),
    ] {
        assert!(login.contains(from), "{from}");
        let site = site(100, 401);
        let tried = attempt(&site.url, &login.replacen(from, to, 1));
        assert!(
            tried["problem"].as_str().unwrap().contains(says),
            "{says}: {tried}"
        );
    }
}

#[test]
fn requests_are_signed_and_signatures_are_not_shown() {
    let signed =
        Site::start(
            |asked| match asked.path.contains("&sign=") || asked.path.contains("?sign=") {
                true => page(asked),
                false => Answer::status(403),
            },
        );
    let tried = attempt(&signed.url, &example("a signature"));
    assert_eq!(
        (&tried["status"], &tried["typed"]["rows"]),
        (&json!("success"), &json!(2)),
        "{tried}"
    );
    assert!(
        !tried["fetched"]["request"]
            .as_str()
            .unwrap()
            .contains("sign="),
        "{tried}"
    );
    let sign = example("a signature");
    for (from, to, says) in [
        ("&key={secret}", "", "lacks {secret}"),
        ("{signature}", "{signatur}", "puts {signature} into neither"),
        ("{query}", "{qury}", "the unknown placeholder {qury}"),
    ] {
        let tried = attempt(&signed.url, &sign.replace(from, to));
        assert!(
            tried["problem"].as_str().unwrap().contains(says),
            "{says}: {tried}"
        );
    }
}
