//! The commands as people and pipelines use them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{SERVICE, Site};
use serde_json::Value;

fn site() -> Site {
    let site = Site::start("");
    site.sql(SERVICE);
    site
}

fn lines(text: &str) -> Vec<Value> {
    text.lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn health_ends_a_pipeline_when_something_is_wrong() {
    let site = site();
    let code = |arguments: &[&str]| site.run(arguments).0;
    assert_eq!(code(&["health"]), Some(0));
    assert_eq!(code(&["health", "--fail-on", "warning"]), Some(2));
    assert_eq!(
        code(&[
            "health",
            "--fail-on",
            "warning",
            "--task",
            "rdqh-indicators"
        ]),
        Some(1)
    );
    assert_eq!(
        code(&[
            "health",
            "--fail-on",
            "critical",
            "--task",
            "rdqh-indicators"
        ]),
        Some(0)
    );
    assert_eq!(
        code(&[
            "health",
            "--fail-on",
            "warning",
            "--task",
            "zhihui-full-view"
        ]),
        Some(0)
    );
    let (_, table, _) = site.run(&["health"]);
    assert!(
        table.contains("rdqh-indicators") && table.contains("late"),
        "{table}"
    );
    let (_, json, _) = site.run(&["health", "--format", "json"]);
    assert_eq!(lines(&json).len(), 11);
    let (code, _, error) = site.run(&["health", "--task", "none"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("no task \"none\""), "{error}");
}

#[test]
fn the_log_is_printed_with_filters_and_in_every_form() {
    let site = site();
    let (code, json, _) = site.run(&[
        "logs",
        "--task",
        "zhihui-reports",
        "--status",
        "failed",
        "--limit",
        "700",
        "--format",
        "json",
    ]);
    assert_eq!(code, Some(0));
    let runs = lines(&json);
    let all: i64 = site
        .server
        .connect()
        .query_one(
            "SELECT count(*) FROM oa.runs WHERE task = 'zhihui-reports' AND status = 'failed'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(runs.len() as i64, all, "more than one page");
    assert!(runs[0]["start_time"].as_str() > runs[1]["start_time"].as_str());
    let (_, csv, _) = site.run(&[
        "logs",
        "--since",
        "3h",
        "--task",
        "zhihui-full-view",
        "--format",
        "csv",
    ]);
    assert!(
        csv.starts_with("started,task_name,status,seconds,records,retry_count,error,id\n")
            && (6..=8).contains(&csv.lines().count()),
        "{csv}"
    );
    let (_, markdown, _) = site.run(&["logs", "--limit", "3", "--format", "markdown"]);
    assert_eq!(markdown.lines().count(), 5, "{markdown}");
    let (code, _, error) = site.run(&["logs", "--since", "soon"]);
    assert_eq!(code, Some(2));
    assert!(
        error.contains("--since") && error.contains("yesterday"),
        "{error}"
    );
}

#[test]
fn the_log_is_followed_as_runs_end() {
    let site = site();
    let mut child = site
        .command(&[
            "logs", "--follow", "--task", "new", "--status", "failed", "--format", "json",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    site.sql("INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at)
              SELECT (left(oa.uuid_floor(now())::text, 24) || '00000000000' || n)::uuid, 'oa-crawl', 'new', 'manual', 'h', 'm', 'b', 1, 1, '0', 'running', now() FROM generate_series(1, 2) n");
    site.sql("UPDATE oa.runs SET status = CASE WHEN id::text LIKE '%1' THEN 'success' ELSE 'failed' END, finished_at = now() WHERE task = 'new'");
    let run: Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
    assert_eq!(
        (&run["task_name"], &run["status"]),
        (&"new".into(), &"failed".into())
    );
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn backups_and_quality_are_listed() {
    let site = site();
    let (code, json, error) = site.run(&["backups", "--format", "json"]);
    assert_eq!((code, lines(&json).len()), (Some(0), 20));
    assert_eq!(error, "", "without [backup] there are no objectives");
    let (_, table, _) = site.run(&["quality"]);
    let first = table.lines().nth(1).unwrap();
    assert!(
        first.contains("rongda-positions") && first.contains("第 13 页"),
        "{table}"
    );
    let (_, json, _) = site.run(&[
        "quality",
        "--task",
        "zhihui-reports",
        "--limit",
        "5",
        "--format",
        "json",
    ]);
    assert_eq!(lines(&json).len(), 5);
    let (code, _, _) = site.run(&["quality", "--limit", "5"]);
    assert_eq!(code, Some(2), "a limit without a task would be ignored");
    site.sql("UPDATE oa.backups SET check_error = 'a chunk is damaged', checked_at = now() WHERE id = md5('full0')");
    let (_, table, error) = site.run(&["backups"]);
    assert!(
        table.contains("FAILED") && error.contains("a chunk is damaged"),
        "{table}{error}"
    );
}

#[test]
fn backups_that_have_all_disappeared_are_not_taken_for_none_that_were_configured() {
    let site = site();
    site.sql("UPDATE oa.backups SET missing_since = now()");
    let (_, _, error) = site.run(&["backups"]);
    assert!(
        error.contains("消失") && !error.contains("没有配置备份"),
        "{error}"
    );
}

#[test]
fn one_file_holds_the_whole_overview() {
    let site = site();
    let file = site.dir.path().join("overview.html");
    let (code, out, error) = site.run(&["html", "--output", file.to_str().unwrap()]);
    assert_eq!((code, out.as_str()), (Some(0), ""), "{error}");
    let html = fs::read_to_string(&file).unwrap();
    assert!(html.contains("智汇期讯-研报淘金") && html.contains("<style>"));
    for other in ["<script", "<link", " href=\"/", " src=", "url(", "<form"] {
        assert!(!html.contains(other), "{other}");
    }
    assert_eq!(
        fs::read_dir(site.dir.path())
            .unwrap()
            .filter(|e| e
                .as_ref()
                .unwrap()
                .file_name()
                .to_str()
                .unwrap()
                .starts_with("overview"))
            .count(),
        1
    );
    // A web server may read it; nobody else may write it, whatever the umask is.
    let open = site.dir.path().join("open.html");
    let status = Command::new("sh")
        .args([
            "-c",
            "umask 000; exec \"$0\" --config \"$1\" html --output \"$2\"",
        ])
        .arg(env!("CARGO_BIN_EXE_oa-report"))
        .arg(site.dir.path().join("oa.toml"))
        .arg(&open)
        .env("DATABASE_URL", site.server.url())
        .status();
    assert!(status.unwrap().success());
    assert_eq!(
        fs::metadata(&open).unwrap().permissions().mode() & 0o777,
        0o644
    );
    let (code, _, error) = site.run(&["html", "--output", "/nowhere/x.html"]);
    assert_eq!(code, Some(1));
    assert!(error.contains("could not write /nowhere/x.html"), "{error}");
    let (_, printed, _) = site.run(&["html"]);
    assert!(printed.starts_with("<!DOCTYPE html>"));
}

#[test]
fn a_new_token_is_shown_once_and_its_hash_opens() {
    let site = Site::start("");
    let (code, out, _) = site.run(&["token", "li"]);
    assert_eq!(code, Some(0));
    let token: &'static str = out
        .lines()
        .map(str::trim)
        .find(|l| l.len() == 43)
        .unwrap()
        .to_owned()
        .leak();
    let line = out
        .lines()
        .map(str::trim)
        .find(|l| l.starts_with("li = "))
        .unwrap();
    let config = site.dir.path().join("oa.toml");
    let text = fs::read_to_string(&config).unwrap();
    fs::write(&config, format!("{text}\n[report.tokens]\n{line}\n")).unwrap();
    let serving = site.serve(Some(token));
    assert_eq!(serving.get("/admin/crawler/health").status, 200);
    assert_eq!(site.run(&["token", "a b"]).0, Some(2));
    fs::write(&config, "[report.tokens]\nli = \"hunter2\"\n").unwrap();
    let (code, _, error) = site.run(&["serve"]);
    assert_eq!(code, Some(78));
    assert!(
        error.contains("oa-report token") && !error.contains("hunter2"),
        "{error}"
    );
}

#[test]
fn commands_say_when_postgresql_is_away() {
    let mut site = Site::start("");
    site.server.stop();
    for command in ["health", "logs", "backups", "quality", "html"] {
        let (code, _, error) = site.run(&[command]);
        assert_eq!(code, Some(75), "{command}: {error}");
        assert!(
            error.contains("could not reach PostgreSQL"),
            "{command}: {error}"
        );
    }
}
