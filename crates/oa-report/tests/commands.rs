//! The commands as people and pipelines use them.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use common::{SERVICE, Site};
use oa_core::base::state_dir::StateDir;
use oa_core::base::supervise::Progress;
use oa_core::journal::live_output::LiveOutput;
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
    let code = |arguments: &[&str]| site.run(&[&["health"], arguments].concat()).0;
    assert_eq!(code(&[]), Some(0));
    assert_eq!(code(&["--fail-on", "warning"]), Some(20));
    let of = |task: &str, level: &str| code(&["--task", task, "--fail-on", level]);
    assert_eq!(of("rongda-positions", "warning"), Some(10));
    assert_eq!(of("rongda-positions", "critical"), Some(0));
    assert_eq!(of("zhihui-full-view", "warning"), Some(0));
    // Usage errors are something else.
    assert_eq!(code(&["--fail-on", "warnign"]), Some(2));
    let (_, table, _) = site.run(&["health"]);
    assert!(
        table.contains("rdqh-indicators") && table.contains("应运行而未运行，已晚"),
        "{table}"
    );
    let first = table.lines().nth(1).unwrap();
    assert!(
        first.trim_start().starts_with("失败"),
        "the worst first: {table}"
    );
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("故障 2，注意 1，正常 8；oa-alert check 最近启动于")
            && last.contains("oa-crawl run --due 最近启动于"),
        "{table}"
    );
    // With what to do about each.
    assert!(
        table.contains("  ✕ 容大期货-技术指标: ")
            && table.contains("    → ")
            && table.contains("oa-crawl run jiaoyikecha-positions"),
        "{table}"
    );
    assert!(
        table.contains("小时前") || table.contains("天前"),
        "{table}"
    );
    let (_, json, _) = site.run(&["health", "--format", "json"]);
    assert_eq!(lines(&json).len(), 11);
    // A Chinese Excel knows that it is UTF-8; what programs read has the API's words and whole times.
    let (_, csv, _) = site.run(&["health", "--format", "csv-excel"]);
    assert!(
        csv.starts_with("\u{feff}state,task,") && csv.contains("\nfailed,"),
        "{csv}"
    );
    // Without a terminal the overview is printed once.
    let (code, top, error) = site.run(&["top"]);
    assert_eq!(code, Some(0), "{error}");
    for part in [
        "✕ ",
        "个问题需要处理",
        "告警检查 ",
        "可恢复到 ",
        "融达期货-机构持仓",
        "oa-crawl run",
    ] {
        assert!(top.contains(part), "{part} is not in {top}");
    }
    assert!(!top.contains('\u{1b}'), "{top:?}");
    for command in ["health", "logs", "quality"] {
        let (code, _, error) = site.run(&[command, "--task", "rongda-position"]);
        assert_eq!(code, Some(2), "{command}");
        assert!(
            error.contains("no task \"rongda-position\"; did you mean \"rongda-positions\"?"),
            "{error}"
        );
    }
}

#[test]
fn a_task_has_one_state_and_what_is_mended_needs_nobody() {
    let site = site();
    let task = |name: &str| {
        let (_, json, error) = site.run(&["health", "--task", name, "--format", "json"]);
        assert!(!json.is_empty(), "{error}");
        lines(&json).remove(0)
    };
    let is = |name: &str, state: &str, severity: &str| {
        let found = task(name);
        assert_eq!(
            (&found["state"], &found["severity"]),
            (&state.into(), &severity.into()),
            "{found}"
        );
    };
    // Reported as critical, so it is that here too.
    is("rdqh-indicators", "late", "critical");
    is("jiaoyikecha-positions", "failed", "critical");
    is("rongda-positions", "partial", "warning");
    is("zhihui-full-view", "ok", "healthy");
    // Failed and mended: half of its runs failed, and nobody has anything to do.
    let ran = |task: &str, ago: &str, status: &str, kind: &str| {
        site.sql(&format!(
            "WITH run AS (
               INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, error_kind)
               SELECT (left(oa.uuid_floor(t)::text, 24) || right(md5(random()::text), 12))::uuid, 'oa-crawl', '{task}', 'due', 'h', 'm', 'b', 1, 1, '0',
                      '{status}', t, t, nullif('{kind}', '') FROM (SELECT now() - interval '{ago}' AS t) x RETURNING *)
             INSERT INTO oa.tasks AS t (name, tool, last_run_id, last_status, last_started_at, consecutive_failures)
             SELECT task, tool, id, status, started_at, (status = 'failed')::int FROM run
             ON CONFLICT (name) DO UPDATE SET last_run_id = excluded.last_run_id, last_status = excluded.last_status, last_started_at = excluded.last_started_at,
               consecutive_failures = CASE excluded.last_status WHEN 'failed' THEN t.consecutive_failures + 1 ELSE 0 END"
        ));
    };
    ran("healed", "3 hours", "failed", "http_5xx");
    is("healed", "failed", "warning");
    ran("healed", "1 hour", "success", "");
    is("healed", "ok", "healthy");
    let healed = task("healed");
    assert_eq!(
        (&healed["health"], &healed["success_rate"]),
        (&"critical".into(), &50.0.into())
    );
    assert_eq!(
        site.run(&["health", "--task", "healed", "--fail-on", "warning"])
            .0,
        Some(0)
    );
    // Only a person can mend that.
    ran("password", "30 hours", "success", "");
    ran("password", "2 hours", "success", "");
    ran("password", "1 hour", "failed", "auth");
    is("password", "failed", "critical");
    // A slot that nobody took, and that a run then made up for.
    ran("slots", "5 hours", "success", "");
    site.sql("UPDATE oa.tasks SET schedule = '0 * * * *' WHERE name = 'slots'; INSERT INTO oa.slots (task, due_at, day, state, closed_at) VALUES
              ('slots', now() - interval '3 hours', current_date, 'missed', now()), ('slots', now() + interval '1 hour', current_date, 'open', NULL)");
    is("slots", "late", "warning");
    site.sql("UPDATE oa.slots SET filled_by = gen_random_uuid(), filled_at = now() WHERE task = 'slots' AND state = 'missed'");
    is("slots", "ok", "healthy");
    site.sql("INSERT INTO oa.days (task, day, expected, state) VALUES ('slots', current_date, true, 'stale')");
    is("slots", "stale", "warning");
    // Silenced as a whole it is paused, and nothing to do.
    site.sql("INSERT INTO oa.silences (task, by, until) VALUES ('slots', 'wang', now() + interval '1 hour')");
    is("slots", "paused", "healthy");
    assert!(site.run(&["health"]).1.contains("，静默 1"));
    site.sql("INSERT INTO oa.tasks (name, tool) VALUES ('new', 'oa-crawl')");
    is("new", "unknown", "warning");
    // Nobody watches: that is part of the verdict.
    site.sql("UPDATE oa.watches SET at = now() - interval '2 hours'; UPDATE oa.starts SET last_at = now() - interval '1 hour'; DELETE FROM oa.tasks WHERE name <> 'healed'");
    let (code, table, _) = site.run(&["health", "--fail-on", "critical"]);
    assert_eq!(code, Some(20), "{table}");
    assert!(
        table.contains("告警检查已停止") && table.contains("到期任务无人启动"),
        "{table}"
    );
    site.sql("UPDATE oa.starts SET last_at = now(), gap_from = now() - interval '2 hours', gap_to = now()");
    let (code, table, _) = site.run(&["health", "--fail-on", "warning"]);
    assert_eq!(code, Some(0), "a start says that it watches: {table}");
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
    let (code, json, error) = site.run(&[
        "logs", "--status", "not-ok", "--limit", "5000", "--format", "json",
    ]);
    assert_eq!(code, Some(0), "{error}");
    let runs = lines(&json);
    let count = |condition: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM oa.runs WHERE {condition}");
        let mut db = site.server.connect();
        db.query_one(&sql, &[]).unwrap().get(0)
    };
    assert_eq!(
        runs.len() as i64,
        count("status IN ('partial', 'failed', 'timeout', 'abandoned')")
    );
    assert!(runs.is_sorted_by(|a, b| a["start_time"].as_str() >= b["start_time"].as_str()));
    let same = |status: &str| {
        let day = "2025-01-01";
        let (_, json, _) = site.run(&[
            "logs", "--status", status, "--since", day, "--format", "json", "--limit", "5000",
        ]);
        lines(&json).len()
    };
    assert_eq!(same("partial,failed"), runs.len());
    assert_eq!(same("!success"), runs.len());
    // The same day twice is that whole day.
    let (_, json, _) = site.run(&[
        "logs",
        "--task",
        "zhihui-full-view",
        "--since",
        "yesterday",
        "--until",
        "yesterday",
        "--format",
        "json",
    ]);
    assert_eq!(lines(&json).len(), 48);
    for (arguments, said) in [
        (["--since", "1h", "--until", "2h"], "is not before"),
        (
            ["--status", "fialed", "--limit", "5"],
            "did you mean \"failed\"",
        ),
        (
            ["--status", "success,!success", "--limit", "5"],
            "leaves no status",
        ),
    ] {
        let (code, _, error) = site.run(&[&["logs"], &arguments[..]].concat());
        assert_eq!(code, Some(2), "{error}");
        assert!(error.contains(said), "{error}");
    }
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
    // One of a machine whose clock is ahead, and then more at once than a page has: each is shown, once.
    let mut shown: Vec<String> = Vec::new();
    for (count, ahead) in [(1, "1 day"), (1200, "0"), (1, "0")] {
        site.sql(&format!(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
             SELECT (left(oa.uuid_floor(now() + interval '{ahead}')::text, 19) || right(gen_random_uuid()::text, 17))::uuid, 'oa-crawl', 'new', 'manual', 'h', 'm', 'b', 1, 1, '0', 'failed',
                    clock_timestamp(), clock_timestamp() FROM generate_series(1, {count})"
        ));
        for _ in 0..count {
            let run: Value = serde_json::from_str(&out.next().unwrap().unwrap()).unwrap();
            shown.push(run["id"].to_string());
        }
    }
    let all = shown.len();
    shown.sort_unstable();
    shown.dedup();
    assert_eq!((shown.len(), all), (1202, 1202));
    child.kill().unwrap();
    child.wait().unwrap();
    the_output_of_a_run_is_followed_until_it_ends(&site);
}

fn the_output_of_a_run_is_followed_until_it_ends(site: &Site) {
    site.sql("INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at)
              VALUES (gen_random_uuid(), 'oa-crawl', 'long', 'manual', 'h', 'm', 'b', 1, 1, '0', 'running', now())");
    let mut client = site.server.connect();
    let id: uuid::Uuid = client
        .query_one("SELECT id FROM oa.runs WHERE task = 'long'", &[])
        .unwrap()
        .get(0);
    let state = StateDir::open(&site.dir.path().join("state")).unwrap();
    let mut live = LiveOutput::create(&state, "long", id);
    live.attempt(1);
    live.printed(b"first \x1b[31mline\x1b[0m\n");
    let mut child = site
        .command(&["logs", "--run", &id.to_string(), "--follow"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || out.next().unwrap().unwrap();
    assert_eq!(next(), "first line");
    // The same of one that still runs.
    let (_, whole, _) = site.run(&["logs", "--run", &id.to_string()]);
    assert!(whole.contains("OUTPUT\n  first line\n"), "{whole}");
    live.printed(b"second line\n");
    assert_eq!(next(), "second line");
    live.attempt(2);
    live.printed(b"once more\n");
    assert_eq!(
        (next().as_str(), next().as_str()),
        ("--- 2 ---", "once more")
    );
    live.printed(b"the last\n");
    site.sql("UPDATE oa.runs SET status = 'failed', error_message = 'no luck', finished_at = started_at + interval '75 seconds' WHERE task = 'long'");
    assert_eq!(next(), "the last");
    assert_eq!(next(), "--- 失败 1 分钟 15 秒: no luck");
    assert_eq!(child.wait().unwrap().code(), Some(0));
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
        table.contains("失败") && error.contains("a chunk is damaged"),
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
    for command in ["health", "days", "logs", "backups", "quality", "html"] {
        let (code, _, error) = site.run(&[command]);
        assert_eq!(code, Some(75), "{command}: {error}");
        assert!(
            error.contains("could not reach PostgreSQL"),
            "{command}: {error}"
        );
    }
}
