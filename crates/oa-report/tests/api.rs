//! The API as other programs see it: names, meanings, paging, errors, on a real server and a real database.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::HashSet;

use common::{Serving, Site, TOKEN};
use oa_testkit::wait_until;
use serde_json::{Value, json};

const PATIENCE: std::time::Duration = std::time::Duration::from_secs(40);

const BACKUP: &str = "[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_KEY\"\n";

fn site() -> (Site, Serving) {
    let site = Site::with_token(BACKUP);
    let serving = site.serve(Some(TOKEN));
    (site, serving)
}

fn start_time(run: &Value) -> chrono::DateTime<chrono::Utc> {
    run["start_time"].as_str().unwrap().parse().unwrap()
}

fn problem(serving: &Serving, method: &str, path: &str, status: u16) -> String {
    let reply = serving.ask(method, path, &[], "");
    assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
    assert_eq!(
        reply.header("content-type"),
        Some("application/problem+json"),
        "{path}"
    );
    let problem = reply.json();
    assert_eq!(problem["status"], status);
    problem["detail"].as_str().unwrap().to_owned()
}

#[test]
fn health_has_each_task_under_the_names_of_the_plan() {
    let (site, serving) = site();
    let health = serving.get("/admin/crawler/health").json();
    assert!(health["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(
        (&health["status"], &health["stale"]),
        (&json!("critical"), &json!(false))
    );
    let tasks = health["tasks"].as_object().unwrap();
    assert_eq!(tasks.len(), 11);
    for (name, task) in tasks {
        for key in ["success", "failed", "success_rate", "last_run", "health"] {
            assert!(task.get(key).is_some(), "{key} of {name}");
        }
    }
    for (name, health, reason) in [
        ("zhihui-full-view", "healthy", None),
        ("rongda-positions", "critical", Some("success_rate")),
        ("jiaoyikecha-positions", "critical", Some("failing")),
        // It was reported as critical.
        ("rdqh-indicators", "critical", Some("late")),
    ] {
        assert_eq!(tasks[name]["health"], health, "{name}: {}", tasks[name]);
        assert!(
            reason.is_none_or(|r| tasks[name]["reasons"]
                .as_array()
                .unwrap()
                .contains(&json!(r))),
            "{}",
            tasks[name]
        );
    }
    assert_eq!(tasks["rdqh-indicators"]["state"], "late");
    assert_eq!(
        health["summary"],
        json!({"healthy": 8, "warning": 1, "critical": 2})
    );
    assert!(health["watching"]["last_check"].is_string());
    assert_eq!(health["watching"]["faults"], json!([]));
    // Whoever watches from outside does not hear of it.
    site.sql("INSERT INTO oa.watches (what, host, ok, detail) VALUES ('heartbeat', 'vm', false, 'connection refused')");
    wait_until("the heartbeat is part of the verdict", PATIENCE, || {
        let watching = &serving.get("/admin/crawler/health").json()["watching"];
        watching["faults"] == json!(["no_heartbeat"]) && watching["severity"] == "warning"
    });
    assert!(serving.get("/admin/").text().contains("外部心跳没有送达"));
    site.sql("DELETE FROM oa.watches WHERE what = 'heartbeat'");
    let faults = |faults: Value| {
        wait_until("the verdict on the watching", PATIENCE, || {
            serving.get("/admin/crawler/health").json()["watching"]["faults"] == faults
        });
    };
    // Checks that are killed, each before its end, say that all is well as the last whole one did.
    site.sql(
        "INSERT INTO oa.watches (what, host, at, ok) VALUES ('check', 'killed', now() - interval '20 minutes', true);
         INSERT INTO oa.starts (what, host, day, first_at, last_at)
         SELECT 'check', host, '2025-12-01', now() - interval '1 hour', now() FROM (VALUES ('killed'), ('never ended')) v (host);
         -- One that was off, and whose first check goes on, is none of these.
         INSERT INTO oa.watches (what, host, at, ok) VALUES ('check', 'back', now() - interval '20 minutes', true);
         INSERT INTO oa.starts (what, host, day, first_at, last_at, gap_from, gap_to)
         VALUES ('check', 'back', '2025-12-01', now() - interval '1 hour', now(), now() - interval '20 minutes', now())",
    );
    faults(json!(["unfinished", "unfinished"]));
    assert!(serving.get("/admin/").text().contains("没有跑完"));
    site.sql("DELETE FROM oa.watches WHERE host IN ('killed', 'back'); DELETE FROM oa.starts WHERE host IN ('killed', 'never ended', 'back')");
    // One of a day ahead was not the last one, and where there is no other nobody knows when that was.
    site.sql(
        "INSERT INTO oa.watches (what, host, at, ok) VALUES ('check', 'ahead', now() + interval '1 day', true)",
    );
    faults(json!([]));
    site.sql("CREATE TABLE public.was AS SELECT * FROM oa.watches; CREATE TABLE public.began AS SELECT * FROM oa.starts;
              DELETE FROM oa.watches WHERE what = 'check' AND host <> 'ahead'; DELETE FROM oa.starts WHERE what = 'check'");
    faults(json!(["no_check"]));
    site.sql("DELETE FROM oa.watches; INSERT INTO oa.watches SELECT * FROM public.was WHERE host <> 'ahead';
              DELETE FROM oa.starts; INSERT INTO oa.starts SELECT * FROM public.began");
    // The counts are those of the log, whatever they were summed from.
    let rows = site
        .server
        .connect()
        .query(
            "SELECT task, count(*) FILTER (WHERE status = 'success'), count(*) FILTER (WHERE status IN ('failed', 'timeout', 'abandoned')) FROM oa.runs
             WHERE id >= oa.uuid_floor($1::text::timestamptz - interval '24 hours') AND finished_at IS NOT NULL GROUP BY task",
            &[&health["timestamp"].as_str().unwrap()],
        )
        .unwrap();
    for row in rows {
        let task = &tasks[row.get::<_, &str>(0)];
        let counts = (
            task["success"].as_i64().unwrap(),
            task["failed"].as_i64().unwrap(),
        );
        assert_eq!(counts, (row.get(1), row.get(2)), "{task}");
    }
    let one = serving
        .get("/api/v1/crawler/health?task=zhihui-reports")
        .json();
    assert_eq!(
        one["tasks"].as_object().unwrap().keys().collect::<Vec<_>>(),
        ["zhihui-reports"]
    );
    assert_eq!(one["status"], "healthy");
    problem(&serving, "GET", "/api/v1/crawler/health?task=none", 404);
    // What is given up is not judged any more; a run takes it up again.
    site.sql("UPDATE oa.tasks SET schedule = NULL, next_due_at = NULL, forgotten_at = now() WHERE name = 'rdqh-indicators'");
    wait_until("the task is gone", PATIENCE, || {
        serving.get("/admin/crawler/health").json()["tasks"]
            .get("rdqh-indicators")
            .is_none()
    });
}

#[test]
fn a_task_that_runs_is_judged_by_its_newest_outcome() {
    let (site, serving) = site();
    let ran = |task: &str, hours_ago: f64, trigger: &str, status: &str| {
        site.sql(&format!(
            "WITH run AS (
               INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
               SELECT (left(oa.uuid_floor(t)::text, 24) || right(md5(random()::text), 12))::uuid, 'oa-crawl', '{task}', '{trigger}', 'h', 'm', 'b', 1, 1,
                      '0', '{status}', t, CASE WHEN '{status}' <> 'running' THEN t END
               FROM (SELECT now() - make_interval(secs => {hours_ago}::float8 * 3600) AS t) x RETURNING *),
             fresh AS (
               INSERT INTO oa.quality (run_id, task, collected, duplicates, fresh, score)
               SELECT id, task, 1, 0, trigger = 'backfill', 100 FROM run WHERE status = 'success')
             UPDATE oa.tasks t SET last_run_id = run.id, last_status = run.status, last_started_at = run.started_at,
                    last_finished_at = coalesce(run.finished_at, t.last_finished_at), lease_until = now() + interval '1 hour'
             FROM run WHERE t.name = run.task AND run.status <> 'skipped'"
        ));
    };
    let reasons = |task: &str, status: &str| {
        let mut last = Value::Null;
        wait_until(&format!("{task} {status}"), PATIENCE, || {
            let answer = serving.get(&format!("/admin/crawler/health?task={task}"));
            last = answer.json()["tasks"][task].clone();
            last["last_status"] == status
        });
        last["reasons"].clone()
    };
    site.sql(
        "INSERT INTO oa.tasks (name, tool) VALUES ('daily', 'oa-crawl'), ('weekly', 'oa-crawl')",
    );
    // Its data are of another day, whatever runs, waits or is fetched for the past meanwhile.
    ran("daily", 2.0, "due", "success");
    assert_eq!(reasons("daily", "success"), json!(["stale"]));
    ran("daily", 1.5, "due", "skipped");
    ran("daily", 1.0, "backfill", "success");
    ran("daily", 0.1, "due", "running");
    assert_eq!(reasons("daily", "running"), json!(["stale"]));
    // It brought less than there was, and no other run has ended since.
    ran("weekly", 50.0, "cron", "partial");
    ran("weekly", 0.1, "cron", "running");
    assert_eq!(reasons("weekly", "running"), json!(["last_run"]));
}

#[test]
fn pages_of_the_log_have_every_run_once_while_new_ones_come() {
    let (site, serving) = site();
    let logs = serving
        .get("/admin/crawler/logs?limit=50&status=&task=&before=")
        .json();
    let first = &logs["logs"][0];
    for key in [
        "id",
        "task_name",
        "status",
        "start_time",
        "duration",
        "records",
        "error",
        "retry_count",
    ] {
        assert!(first.get(key).is_some(), "{key} in {first}");
    }
    assert_eq!(logs["logs"].as_array().unwrap().len(), 50);
    let all: i64 = site
        .server
        .connect()
        .query_one("SELECT count(*) FROM oa.runs", &[])
        .unwrap()
        .get(0);
    let (mut seen, mut times, mut before) = (HashSet::new(), Vec::new(), String::new());
    loop {
        let page = serving
            .get(&format!("/api/v1/crawler/logs?limit=500&before={before}"))
            .json();
        for run in page["logs"].as_array().unwrap() {
            assert!(
                seen.insert(run["id"].as_str().unwrap().to_owned()),
                "{run} twice"
            );
            times.push(start_time(run));
        }
        site.sql("INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at)
                  SELECT (left(oa.uuid_floor(clock_timestamp())::text, 24) || right(md5(random()::text), 12))::uuid, 'oa-crawl', 'new', 'manual', 'h', 'm', 'b', 1, 1, '0', 'running', now()");
        let Some(next) = page["next"].as_str() else {
            break;
        };
        before = next.to_owned();
    }
    assert_eq!(seen.len() as i64, all);
    assert!(times.is_sorted_by(|a, b| a >= b), "newest first");
}

#[test]
fn the_log_is_filtered_by_task_status_and_time() {
    let (_site, serving) = site();
    let logs = |query: &str| {
        serving.get(&format!("/admin/crawler/logs?{query}")).json()["logs"]
            .as_array()
            .unwrap()
            .clone()
    };
    let failed = logs("status=failed&task=zhihui-reports&limit=500");
    assert!(
        failed.len() > 50
            && failed
                .iter()
                .all(|r| r["status"] == "failed" && r["task_name"] == "zhihui-reports")
    );
    assert_eq!(
        failed[0]["error"],
        "GET https://hzzhqx.com/api/report/list: HTTP 502 (Bad Gateway)"
    );
    assert_eq!(
        (&failed[0]["retry_count"], &failed[0]["duration"]),
        (&json!(3), &json!(184.0))
    );
    let early = chrono::Utc::now() - chrono::TimeDelta::hours(2) - chrono::TimeDelta::minutes(1);
    let late = logs("since=2h&limit=500");
    assert!(late.len() > 5 && late.iter().all(|r| start_time(r) > early));
    let day = logs("since=yesterday&until=today&task=zhihui-full-view&limit=500");
    assert_eq!(day.len(), 48, "a day of Shanghai");
    assert_eq!(
        logs("since=yesterday&until=yesterday&task=zhihui-full-view&limit=500"),
        day,
        "the same day twice is that whole day"
    );
    let not_ok = logs("status=not-ok&limit=500");
    assert!(not_ok.len() > failed.len() && not_ok.iter().all(|r| r["status"] != "success"));
    assert_eq!(logs("status=partial,failed&limit=500"), not_ok);
    assert!(logs("until=1970-01-02").is_empty());
    let detail = problem(
        &serving,
        "GET",
        "/admin/crawler/logs?since=1h&until=2h",
        409,
    );
    assert!(detail.contains("is not before"), "{detail}");
    for (query, said) in [
        ("limit=0", "from 1 to 500"),
        ("limit=501", "from 1 to 500"),
        ("limit=-1", "from 1 to 500"),
        ("limit=", "from 1 to 500"),
        ("limit=1e3", "from 1 to 500"),
        ("limit=5&limit=6", "twice"),
        ("status=fialed", "did you mean \\\"failed\\\""),
        ("since=soon", "is no point in time"),
        ("before=1", "is no id"),
        ("task=%00", "no name has"),
        ("status=!fialed", "did you mean"),
        ("taks=x", "did you mean \\\"task\\\""),
    ] {
        let detail = problem(
            &serving,
            "GET",
            &format!("/admin/crawler/logs?{query}"),
            400,
        );
        assert!(
            json!(detail).to_string().contains(said),
            "{query}: {detail}"
        );
    }
}

#[test]
fn a_run_comes_with_its_attempts_rejects_and_answers() {
    let (_site, serving) = site();
    let logs = serving.get("/admin/crawler/logs?status=partial").json();
    let id = logs["logs"][0]["id"].as_str().unwrap();
    let run = serving.get(&format!("/api/v1/runs/{id}")).json();
    assert_eq!(run["title"], "融达期货-机构持仓");
    assert_eq!(run["attempts"].as_array().unwrap().len(), 4);
    assert_eq!(
        (
            run["rejected"].as_i64(),
            run["rejects"].as_array().unwrap().len()
        ),
        (Some(4), 4)
    );
    assert_eq!(run["rejects"][0]["record"]["institution"], "国泰君安");
    assert_eq!(
        (
            run["raw"].as_array().unwrap().len(),
            &run["quality"]["score"]
        ),
        (13, &json!(50))
    );
    problem(
        &serving,
        "GET",
        "/api/v1/runs/00000000-0000-0000-0000-000000000000",
        404,
    );
    problem(&serving, "GET", "/api/v1/runs/x", 400);
    let task = serving.get("/api/v1/tasks/zhihui-reports").json();
    assert_eq!(
        (
            task["runs"].as_array().unwrap().len(),
            task["days"].as_array().unwrap().len()
        ),
        (48, 30)
    );
    problem(&serving, "GET", "/api/v1/tasks/none", 404);
    let quality = serving.get("/api/v1/quality").json();
    assert_eq!(
        quality["quality"][0]["task"], "rongda-positions",
        "the worst first"
    );
    let history = serving
        .get("/api/v1/quality?task=zhihui-reports&limit=3")
        .json();
    let next = history["next"].as_str().unwrap();
    let more = serving
        .get(&format!(
            "/api/v1/quality?task=zhihui-reports&limit=3&before={next}"
        ))
        .json();
    assert!(more["quality"][0]["run_id"].as_str().unwrap() < next);
}

#[test]
fn the_backups_are_judged_by_their_objectives() {
    let (site, serving) = site();
    let answer = |is: &dyn Fn(&Value) -> bool| {
        let mut last = Value::Null;
        wait_until("the status", PATIENCE, || {
            last = serving.get("/admin/backup/status").json();
            is(&last)
        });
        last
    };
    let status = |want: &str| answer(&|s| s["status"] == want);
    let says = |status: &Value, what: &str| status["message"].as_str().unwrap().contains(what);
    let ok = status("ok");
    assert_eq!(
        (&ok["total_backups"], &ok["chain_length"]),
        (&json!(20), &json!(6))
    );
    for key in ["file", "time", "size_mb"] {
        assert!(!ok["latest_backup"][key].is_null(), "{key}");
    }
    assert_eq!(ok["latest_full"]["size_mb"], 5368.71);
    // That the newest ones are all there was found out since; nothing of them was read.
    let read_back: chrono::DateTime<chrono::Utc> = site
        .server
        .connect()
        .query_one(
            "SELECT max(checked_at) FROM oa.backups WHERE checked = 'data'",
            &[],
        )
        .unwrap()
        .get(0);
    assert_eq!(ok["last_verified"], json!(read_back));
    // The first drill is due as long after the first backup, whether that is still there or not.
    site.sql("UPDATE oa.drills SET repository = '/elsewhere'");
    let young = answer(&|s| s["last_drill"].is_null());
    assert!(
        young["status"] == "ok" && says(&young, "尚未到期"),
        "{young}"
    );
    site.sql("UPDATE oa.backups SET finished_at = finished_at - interval '40 days', removed_at = now() WHERE id = md5('full13')");
    let never = status("warning");
    assert!(says(&never, "至今没有成功演练"), "{never}");
    site.sql("UPDATE oa.backups SET finished_at = finished_at + interval '40 days', removed_at = NULL WHERE id = md5('full13');
              UPDATE oa.drills SET repository = '/var/backups/oa'");
    status("ok");
    // A dump that was made after the copy, and is restored to its own point in time only.
    site.sql("INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline, restorable_from,
                restorable_to, started_at, finished_at, files, size_bytes, added_bytes)
              SELECT 'dump', run_id, repository, 'logical', level, host, database, server_version, system_id, timeline, t, t, t, t, 9, 1000000, 1000000
              FROM (SELECT *, finished_at + interval '5 minutes' AS t FROM oa.backups WHERE id = md5('full0')) x");
    let with_dump = answer(&|s| s["total_backups"] == 21);
    assert_eq!(
        (&with_dump["latest_full"], &with_dump["chain_length"]),
        (&ok["latest_full"], &json!(6))
    );
    site.sql("DELETE FROM oa.backups WHERE id = 'dump'; UPDATE oa.backups SET missing_since = now() WHERE id = md5('full0')");
    let gone = status("error");
    assert!(
        says(&gone, "消失") && gone["latest_full"] != ok["latest_full"],
        "{gone}"
    );
    site.sql(
        "UPDATE oa.backups SET missing_since = NULL; UPDATE oa.backups SET checked = 'structure'",
    );
    let unread = status("warning");
    assert!(says(&unread, "verify --read-data"), "{unread}");
    site.sql("UPDATE oa.backups SET restorable_to = restorable_to - interval '3 hours'");
    // The second place is newer, and no first one.
    site.sql("CREATE TEMP TABLE second AS SELECT * FROM oa.backups;
              UPDATE second SET id = id || '-second', repository = 's3://elsewhere', restorable_to = now();
              INSERT INTO oa.backups SELECT * FROM second");
    let old = status("error");
    assert!(says(&old, "rpo"), "{old}");
    site.sql("UPDATE oa.drills SET ok = false, error = 'market_full_view differs' WHERE started_at = (SELECT max(started_at) FROM oa.drills)");
    answer(&|s| says(s, "market_full_view differs"));
    let mut ids = Vec::new();
    let mut before = String::new();
    loop {
        let page = serving
            .get(&format!("/api/v1/backups?limit=7&before={before}"))
            .json();
        ids.extend(
            page["backups"]
                .as_array()
                .unwrap()
                .iter()
                .map(|b| b["id"].as_str().unwrap().to_owned()),
        );
        let Some(next) = page["next"].as_str() else {
            break;
        };
        before = next.to_owned();
    }
    assert_eq!(
        (ids.len(), ids.iter().collect::<HashSet<_>>().len()),
        (40, 40)
    );
    let drills = serving.get("/api/v1/drills").json();
    assert_eq!(
        (
            drills["drills"].as_array().unwrap().len(),
            drills["repositories"].as_array().unwrap().len()
        ),
        (3, 61)
    );
    // Files alone bring no database back.
    site.sql("UPDATE oa.backups SET removed_at = now() WHERE id <> md5('full0'); UPDATE oa.backups SET kind = 'files' WHERE id = md5('full0')");
    let none = answer(&|s| s["total_backups"] == 1);
    assert!(
        none["status"] == "error" && says(&none, "没有任何备份"),
        "{none}"
    );
    site.sql("UPDATE oa.backups SET removed_at = now()");
    assert_eq!(
        serving.get("/api/v1/backups?removed=true").json()["backups"]
            .as_array()
            .unwrap()
            .len(),
        40
    );
}

#[test]
fn an_incident_is_acknowledged_with_a_token_and_in_its_name() {
    let (site, serving) = site();
    let alerts = serving.get("/api/v1/alerts").json();
    assert_eq!(
        (
            alerts["open"].as_array().unwrap().len(),
            alerts["alerts"].as_array().unwrap().len()
        ),
        (3, 5)
    );
    assert_eq!(alerts["open"][0]["acknowledged_by"], Value::Null);
    let fingerprint = alerts["open"][0]["fingerprint"].as_str().unwrap();
    let body = json!({"fingerprint": fingerprint, "note": "  on it  "}).to_string();
    let json_type = [("Content-Type", "application/json")];
    let reply = serving.ask("POST", "/api/v1/acks", &json_type, &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    assert_eq!(reply.json()["by"], "wang");
    let row = site
        .server
        .connect()
        .query_one(
            "SELECT acknowledged_by, note FROM oa.incidents WHERE fingerprint = $1",
            &[&fingerprint],
        )
        .unwrap();
    assert_eq!((row.get(0), row.get(1)), ("wang", "on it"));
    // A form of another site can send no JSON.
    assert_eq!(
        serving
            .ask(
                "POST",
                "/api/v1/acks",
                &[("Content-Type", "text/plain")],
                &body
            )
            .status,
        415
    );
    for (body, status) in [
        ("{", 400),
        ("{\"fingerprint\": 1}", 400),
        ("{\"fingerprint\": \"x\", \"by\": \"li\"}", 400),
        ("{\"fingerprint\": \"none\"}", 404),
        ("{\"fingerprint\": \"a\\u0000\"}", 400),
    ] {
        assert_eq!(
            serving.ask("POST", "/api/v1/acks", &json_type, body).status,
            status,
            "{body}"
        );
    }
}

#[test]
fn errors_are_problems_and_methods_are_named() {
    let (_site, serving) = site();
    assert!(problem(&serving, "GET", "/nothing", 404).contains("/openapi.json"));
    for (path, allow) in [
        ("/admin/crawler/health", "GET, HEAD"),
        ("/api/v1/acks", "POST"),
        ("/login", "GET, POST, HEAD"),
    ] {
        let reply = serving.ask("DELETE", path, &[], "");
        assert_eq!(
            (reply.status, reply.header("allow")),
            (405, Some(allow)),
            "{path}"
        );
    }
    let head = serving.ask("HEAD", "/openapi.json", &[], "");
    let get = serving.get("/openapi.json");
    assert_eq!((head.status, head.body.len()), (200, 0));
    assert_eq!(
        head.header("content-length"),
        Some(get.body.len().to_string().as_str())
    );
    let document = get.json();
    assert_eq!(document["openapi"], "3.1.0");
    for path in [
        "/admin/crawler/health",
        "/admin/crawler/logs",
        "/admin/backup/status",
    ] {
        let v1 = path.replace("/admin/", "/api/v1/");
        assert_eq!(
            document["paths"][path]["get"]["responses"], document["paths"][&v1]["get"]["responses"],
            "{path}"
        );
    }
    assert!(document.to_string().matches("\"$ref\"").count() > 20);
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    let (site, serving) = site();
    // Nothing here is seen from now.
    for path in [
        "/api/v1/alerts",
        "/api/v1/backups",
        "/admin/crawler/logs?limit=5",
        "/openapi.json",
    ] {
        let first = serving.get(path);
        let tag = first.header("etag").unwrap();
        let again = serving.ask("GET", path, &[("If-None-Match", tag)], "");
        assert_eq!((again.status, again.body.len()), (304, 0), "{path}");
        let other = serving.ask("GET", path, &[("If-None-Match", "\"x\", W/\"y\"")], "");
        assert_eq!(other.status, 200);
    }
    // The page too, although it says how long ago things were; and what must be sent comes packed.
    site.sql("DELETE FROM oa.slots; DELETE FROM oa.watches; DELETE FROM oa.starts");
    let (mut tag, mut sizes) = (String::new(), (0, 0));
    wait_until("the same page twice", PATIENCE, || {
        let headers = [
            ("If-None-Match", tag.as_str()),
            ("Accept-Encoding", "br, gzip"),
        ];
        let reply = serving.ask("GET", "/admin/", &headers, "");
        let size = reply.head.len() + reply.body.len();
        if reply.status == 304 {
            sizes.1 = size;
            return true;
        }
        assert_eq!(reply.header("content-encoding"), Some("gzip"));
        sizes.0 = size;
        tag = reply.header("etag").unwrap().to_owned();
        false
    });
    assert!(sizes.0 <= 15_000 && sizes.1 <= 300, "{sizes:?}");
    let refused = serving.ask("GET", "/admin/", &[("Accept-Encoding", "gzip;q=0")], "");
    assert!(refused.header("content-encoding").is_none() && refused.text().contains("verdict"));
    // Health has a new time each second; late tasks aside it says the same.
    site.sql("DELETE FROM oa.slots");
    let mut tag = String::new();
    wait_until("the same tag twice", PATIENCE, || {
        let reply = serving.ask(
            "GET",
            "/admin/crawler/health",
            &[("If-None-Match", &tag)],
            "",
        );
        tag = reply.header("etag").unwrap().to_owned();
        reply.status == 304
    });
    site.sql("UPDATE oa.tasks SET last_error = 'new' WHERE name = 'zhihui-reports'");
    wait_until("another tag", PATIENCE, || {
        serving
            .ask(
                "GET",
                "/admin/crawler/health",
                &[("If-None-Match", &tag)],
                "",
            )
            .status
            == 200
    });
}
