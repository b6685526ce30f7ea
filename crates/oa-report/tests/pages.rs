//! What pages show of a run and its files, and what their buttons do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::time::Duration;

use common::{Reply, Serving, Site, TOKEN};
use oa_testkit::wait_until;
use postgres::{Client, NoTls};
use serde_json::json;

/// A small picture.
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";

/// A program that failed twice and was run once more, with everything that a run can leave behind.
fn run_with_everything(site: &Site) -> String {
    let state = site.dir.path().join("state");
    let body = r#"{"token": "abc123secret99", "rows": ["螺纹钢"]}"#;
    let sha256 = "ab".repeat(32);
    fs::create_dir_all(state.join("raw/ab")).unwrap();
    fs::create_dir_all(state.join("failures")).unwrap();
    fs::create_dir_all(state.join("sources")).unwrap();
    fs::write(
        state.join(format!("raw/ab/{sha256}.zst")),
        zstd::encode_all(body.as_bytes(), 1).unwrap(),
    )
    .unwrap();
    fs::write(
        state.join(format!("sources/{}.toml", "cd".repeat(32))),
        "task = \"zhihui-reports\" # as it was\n",
    )
    .unwrap();
    let mut client = site.server.connect();
    let row = client
        .query_one(
            "SELECT id::text, to_char((started_at + interval '1 second') AT TIME ZONE 'UTC', 'YYYYMMDD\"T\"HH24MISS') FROM oa.runs
             WHERE task = 'zhihui-reports' AND status = 'failed' ORDER BY seq DESC LIMIT 1",
            &[],
        )
        .unwrap();
    let (id, at): (String, String) = (row.get(0), row.get(1));
    for (ending, content) in [("png", PNG), ("html", b"<script>alert(1)</script>")] {
        let name = format!("{at}.000Z-zhihui-reports.{ending}");
        fs::write(state.join("failures").join(name), content).unwrap();
    }
    let output: String = (0..80).map(|n| format!("line {n}\n")).collect();
    let details = json!({
        "source_sha256": "cd".repeat(32), "program": "python3", "ended": "exit 1",
        "output": format!("{output}\u{1b}[31mTraceback (most recent call last):\u{1b}[0m\n  File \"<stdin>\"\nValueError: <b>no</b>\n"),
        "earlier_output": [{"attempt": 1, "ended": "exit 1", "output": "first words"}],
    });
    client
        .execute(
            "UPDATE oa.runs SET details = $1 WHERE id::text = $2",
            &[&details, &id],
        )
        .unwrap();
    client
        .batch_execute(&format!(
            "INSERT INTO oa.raw (run_id, seq, attempt, url, status, content_type, sha256, size_bytes, stored_bytes, fetched_at)
             VALUES ('{id}', 1, 1, 'https://x/', 200, 'application/json', '{sha256}', 40, 40, now()), ('{id}', 2, 1, 'https://x/', 200, NULL, '{}', 40, 40, now())",
            "ef".repeat(32)
        ))
        .unwrap();
    id
}

#[test]
fn a_run_shows_what_its_program_printed_and_what_it_left_behind_as_text() {
    let site = Site::with_token("");
    let id = run_with_everything(&site);
    let serving = site.serve(Some(TOKEN));
    let page = serving.get(&format!("/admin/runs/{id}?lang=zh")).text();
    for part in [
        // In words, with the command.
        "<h2 id=\"error\">程序以错误结束",
        "HTTP 502",
        "<span class=\"c1\">Traceback (most recent call last):</span>\n  File &quot;&lt;stdin&gt;&quot;",
        "前面的 43 行",
        "first words",
        "rel=\"prev\"",
        "rel=\"next\"",
        "svg class=\"durations\"",
        "# as it was",
        "<img src=",
        "oa-crawl run zhihui-reports",
    ] {
        let part = part.replace("程序以错误结束", "对方网站自身故障");
        assert!(page.contains(&part), "{part} is not in {page}");
    }
    assert!(!page.contains("ValueError: <b>"));
    // Only the one that is here can be opened.
    assert!(page.contains(&format!("/admin/runs/{id}/raw/1\"")));
    assert!(!page.contains(&format!("/admin/runs/{id}/raw/2\"")));
    let raw = serving.get(&format!("/admin/runs/{id}/raw/1"));
    assert_eq!(
        (raw.status, raw.header("content-type")),
        (200, Some("text/plain; charset=utf-8"))
    );
    assert!(raw.text().contains("螺纹钢") && !raw.text().contains("abc123secret99"));
    assert_eq!(raw.header("x-content-type-options"), Some("nosniff"));
    let named = |ending: &str| {
        let (_, rest) = page
            .split_once(&format!("/admin/runs/{id}/failures/"))
            .unwrap();
        let name = rest.split(['"', '.']).next().unwrap();
        format!("/admin/runs/{id}/failures/{name}.000Z-zhihui-reports.{ending}")
    };
    let (png, html) = (serving.get(&named("png")), serving.get(&named("html")));
    assert_eq!(
        (png.status, png.header("content-type"), png.body.as_slice()),
        (200, Some("image/png"), PNG)
    );
    assert_eq!(
        html.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    for wrong in [
        format!("/admin/runs/{id}/raw/2"),
        format!("/admin/runs/{id}/raw/x"),
        format!("/admin/runs/{id}/failures/..%2F..%2Foa.toml"),
        format!("/admin/runs/{id}/failures/20200101T000000.000Z-zhihui-reports.png"),
    ] {
        assert_eq!(serving.get(&wrong).status, 404, "{wrong}");
    }
}

/// What a page's form brings back.
fn form_token(page: &str) -> String {
    let (_, rest) = page.split_once("name=\"form\" value=\"").unwrap();
    rest.split('"').next().unwrap().to_owned()
}

fn act(serving: &Serving, form: &str, fields: &str) -> Reply {
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    serving.ask(
        "POST",
        "/admin/act",
        &headers,
        &format!("form={form}&back=%2Fadmin%2Falerts&{fields}"),
    )
}

/// What is held back because of its cause is not waiting to be sent; and a source that is not due yet is well.
fn follows_from_something_else(site: &Site, serving: &Serving) {
    site.sql(
        "UPDATE oa.alerts SET follows = 'run_missed:rdqh-indicators', settled_at = NULL, silenced_by = NULL WHERE fingerprint = 'run_failed:jiaoyikecha-positions' AND kind = 'problem';
         DELETE FROM oa.deliveries d USING oa.alerts a WHERE a.id = d.alert_id AND a.follows IS NOT NULL;
         INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at, collects) VALUES ('new-one', 'oa-crawl', '新来源', '0 15 * * 1-5', now() + interval '10 days', true)",
    );
    let page = serving.get("/admin/alerts?lang=zh").text();
    for part in ["不单独发送", "由此引起：", "容大期货-技术指标"] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    assert!(!page.contains("待发"), "{page}");
    let alerts = serving.get("/api/v1/alerts").json();
    let of = |i: &serde_json::Value| i["fingerprint"] == "run_failed:jiaoyikecha-positions";
    let held = alerts["alerts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|a| of(a))
        .unwrap();
    assert_eq!(held["follows"], "run_missed:rdqh-indicators");
    assert!(
        held["follows_title"]
            .as_str()
            .unwrap()
            .contains("容大期货-技术指标")
    );
    let (_, health, _) = site.run(&["health", "--task", "new-one", "--format", "json"]);
    let health: serde_json::Value = serde_json::from_str(&health).unwrap();
    assert_eq!(
        (&health["state"], &health["severity"]),
        (&json!("unknown"), &json!("healthy"))
    );
    assert!(
        health["why_shown"]
            .as_str()
            .unwrap()
            .starts_with("首次运行：")
    );
    site.sql("UPDATE oa.tasks SET next_due_at = now() - interval '1 day' WHERE name = 'new-one'");
    let (_, health, _) = site.run(&["health", "--task", "new-one"]);
    assert!(health.contains("从未运行"), "{health}");
    site.sql("DELETE FROM oa.tasks WHERE name = 'new-one'");
}

#[test]
fn what_a_button_asks_for_waits_for_crons_programs_in_the_name_of_its_token() {
    let site = Site::with_token(
        "[[alert.channels]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\n",
    );
    let serving = site.serve(Some(TOKEN));
    let form = form_token(&serving.get("/admin/alerts").text());
    for fields in [
        "do=run&subject=jiaoyikecha-positions",
        // Twice is once.
        "do=run&subject=jiaoyikecha-positions",
        "do=backfill&subject=rdqh-indicators&from=2025-12-01&to=2025-12-02",
        "do=test&subject=ops",
    ] {
        let reply = act(&serving, &form, fields);
        assert_eq!(
            (reply.status, reply.header("location")),
            (303, Some("/admin/alerts")),
            "{fields}: {}",
            reply.text()
        );
    }
    let mut client = site.server.connect();
    let asked: Vec<(String, String, String)> = client
        .query(
            "SELECT kind, subject, requested_by FROM oa.requests WHERE state = 'open' ORDER BY id",
            &[],
        )
        .unwrap()
        .iter()
        .map(|r| (r.get(0), r.get(1), r.get(2)))
        .collect();
    let by_wang =
        |kind: &str, subject: &str| (kind.to_owned(), subject.to_owned(), "wang".to_owned());
    assert_eq!(
        asked,
        [
            by_wang("run", "jiaoyikecha-positions"),
            by_wang("backfill", "rdqh-indicators"),
            by_wang("test_channel", "ops")
        ]
    );
    // At once on the page.
    let page = serving.get("/admin/?lang=zh").text();
    assert!(
        page.contains("重跑 交易可查-席位持仓") && page.contains("等待执行"),
        "{page}"
    );
    let answer = serving.get("/api/v1/requests?subject=ops").json();
    assert_eq!(answer["requests"][0]["state"], "open");
    // Where nothing is started any more, that is said.
    site.sql(
        "UPDATE oa.requests SET requested_at = now() - interval '61 minutes' WHERE subject = 'ops'",
    );
    let answer = serving.get("/api/v1/requests?subject=ops").json();
    let given_up = &answer["requests"][0];
    assert_eq!(given_up["state"], "expired");
    assert!(given_up["ended_at"].is_string() && given_up["result"].is_string());
    // What it cannot be.
    for (fields, status) in [
        ("do=run&subject=backup-full", 404),
        ("do=test&subject=none", 404),
        (
            "do=backfill&subject=rdqh-indicators&from=2025-12-03&to=2025-12-02",
            409,
        ),
        ("do=backfill&subject=rdqh-indicators&from=x&to=y", 400),
        ("do=silence&hours=0&task=rdqh-indicators", 400),
        ("do=rm", 400),
    ] {
        assert_eq!(act(&serving, &form, fields).status, status, "{fields}");
    }
    // Whoever pressed a button reads the answer.
    let refused = act(&serving, "guess", "do=test&subject=ops");
    let kind = refused.header("content-type").unwrap_or_default();
    assert_eq!((refused.status, kind), (403, "text/html; charset=utf-8"));
    assert!(refused.text().contains("this form is not from this page"));
    // Silenced from here, seen here, and ended here.
    let rule = "do=silence&task=rdqh-indicators&rule=run_missed&hours=8";
    assert_eq!(act(&serving, &form, rule).status, 303);
    let silences = serving.get("/api/v1/silences").json();
    let silence = &silences["silences"][0];
    assert_eq!(
        (&silence["task"], &silence["by"]),
        (&json!("rdqh-indicators"), &json!("wang"))
    );
    assert!(
        serving
            .get("/admin/alerts")
            .text()
            .contains("do\" value=\"unsilence")
    );
    // The incident says so at once, and not with its next message.
    let silent = || {
        let alerts = serving.get("/api/v1/alerts").json();
        let open = alerts["open"].as_array().unwrap().clone();
        let of = |i: &serde_json::Value| i["fingerprint"] == "run_missed:rdqh-indicators";
        open.into_iter().find(of).unwrap()["silenced"].clone()
    };
    assert_eq!(silent(), json!(true));
    // Weekends are not every day.
    site.sql(
        "UPDATE oa.silences SET daily_from = '09:00', daily_until = '18:00', weekdays = '{6,7}'",
    );
    let page = serving.get("/admin/alerts").text();
    assert!(page.contains("周六、周日 09:00-18:00"), "{page}");
    let end = format!("do=unsilence&subject={}", silence["id"]);
    assert_eq!(act(&serving, &form, &end).status, 303);
    assert_eq!(
        serving.get("/api/v1/silences").json(),
        json!({"silences": []})
    );
    // Of an incident without a task, and not of its rule on other machines.
    let one = "do=silence&fingerprint=channel%3Aops&hours=1";
    assert_eq!(act(&serving, &form, one).status, 303);
    let silences = serving.get("/api/v1/silences").json();
    let silence = &silences["silences"][0];
    assert_eq!(
        (&silence["fingerprint"], &silence["rule"]),
        (&json!("channel:ops"), &json!(null))
    );
    assert_eq!(silent(), json!(false));
    follows_from_something_else(&site, &serving);
    // Acknowledged, and taken back.
    let of = "subject=run_failed%3Ajiaoyikecha-positions";
    let by = |client: &mut postgres::Client| -> Option<String> {
        client
            .query_one(
                "SELECT acknowledged_by FROM oa.incidents WHERE fingerprint = 'run_failed:jiaoyikecha-positions'",
                &[],
            )
            .unwrap()
            .get(0)
    };
    assert_eq!(
        act(&serving, &form, &format!("do=ack&note=x&{of}")).status,
        303
    );
    assert_eq!(by(&mut client).as_deref(), Some("wang"));
    assert_eq!(act(&serving, &form, &format!("do=unack&{of}")).status, 303);
    assert_eq!(by(&mut client), None);
    // The same for programs.
    let ask = |body: serde_json::Value| {
        let headers = [("Content-Type", "application/json")];
        serving
            .ask("POST", "/api/v1/requests", &headers, &body.to_string())
            .status
    };
    assert_eq!(
        ask(json!({"action": "run", "task": "zhihui-reports", "day": "2025-12-01"})),
        202
    );
    assert_eq!(ask(json!({"action": "run", "task": "none"})), 404);
    assert_eq!(ask(json!({"action": "fly"})), 400);
}

#[test]
fn what_is_public_is_so_only_where_the_configuration_says_so_and_tells_no_details() {
    let site = Site::with_token("[report]\nurl = \"https://oa.example.com\"\n");
    let serving = site.serve(None);
    for path in ["/badge/zhihui-reports.svg", "/badge/oa.svg", "/status"] {
        assert_eq!(serving.get(path).status, 404, "{path}");
    }
    // Not even the tab of an error says how it is.
    let long = format!("/login?lang={}", "x".repeat(300));
    for path in ["/status", "/admin/", &long] {
        let page = serving.get(path).text();
        assert!(page.contains("<title>") && !page.contains("✕"), "{page}");
    }
    // A feed is for whoever has a token.
    assert_eq!(serving.get("/api/v1/incidents.rss").status, 401);
    let bearer = format!("Bearer {TOKEN}");
    let feed = serving.ask(
        "GET",
        "/api/v1/incidents.rss",
        &[("Authorization", &bearer)],
        "",
    );
    assert_eq!(feed.header("content-type"), Some("application/rss+xml"));
    let text = feed.text();
    assert_eq!(text.matches("<item>").count(), 5, "{text}");
    assert!(
        text.contains("<link>https://oa.example.com/admin/runs/") && text.contains("【故障】"),
        "{text}"
    );
    drop(serving);
    let site = Site::with_token("[report]\nbadges = true\nstatus_page = true\n");
    let serving = site.serve(None);
    let badge = serving.get("/badge/jiaoyikecha-positions.svg");
    assert_eq!(
        (
            badge.status,
            badge.header("content-type"),
            badge.header("cross-origin-resource-policy")
        ),
        (200, Some("image/svg+xml"), Some("cross-origin"))
    );
    assert!(
        badge.text().contains("交易可查-席位持仓: 失败"),
        "{}",
        badge.text()
    );
    assert!(serving.get("/badge/oa.svg").text().contains("oa: 故障"));
    for wrong in ["none.svg", "oa", "zhihui-reports", "%3Csvg%3E.svg"] {
        assert_eq!(
            serving.get(&format!("/badge/{wrong}")).status,
            404,
            "{wrong}"
        );
    }
    let page = serving.get("/status?lang=zh").text();
    assert!(
        page.contains("智汇期讯-研报淘金") && page.contains("部分数据有故障"),
        "{page}"
    );
    for detail in [
        "/admin/",
        "密码",
        "HTTP 502",
        "wang",
        "futures-01",
        "oa-crawl",
        "/metrics",
    ] {
        assert!(!page.contains(detail), "{detail} is public: {page}");
    }
    // A phone keeps it as an app.
    let (_, rest) = page.split_once("rel=\"manifest\" href=\"").unwrap();
    let manifest = serving.get(rest.split('"').next().unwrap());
    assert_eq!(
        manifest.header("content-type"),
        Some("application/manifest+json")
    );
    let icon = manifest.json()["icons"][0]["src"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(serving.get(&format!("/assets/{icon}")).status, 200);
    // What was known before is not how it is.
    let mut site = site;
    site.server.stop();
    oa_testkit::wait_until(
        "it is not known any more",
        std::time::Duration::from_secs(40),
        || {
            serving.get("/badge/oa.svg").text().contains("状态未知")
                && serving.get("/status").text().contains("状态未知")
        },
    );
    assert!(!serving.get("/status").text().contains("PostgreSQL"));
}

#[test]
fn a_source_shows_its_days_its_rows_and_its_schedule_in_words() {
    let site = Site::with_token("");
    site.sql(
        "CREATE TABLE public.institution_positions (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, comm_code text NOT NULL, trade_date date NOT NULL, net float8, UNIQUE (comm_code, trade_date));
         INSERT INTO public.institution_positions (comm_code, trade_date, net) SELECT c, '2025-12-01', 1.5 FROM unnest(ARRAY['RB', 'HC', '<b>']) c;
         INSERT INTO public.institution_positions (comm_code, trade_date, net) VALUES ('RB', '2025-11-28', NULL);
         UPDATE oa.runs SET details = '{\"table\": \"institution_positions\"}' WHERE task = 'rongda-positions'",
    );
    let serving = site.serve(Some(TOKEN));
    let page = serving.get("/admin/tasks/rongda-positions?lang=zh").text();
    for part in [
        "交易日 21:00",
        "<h2 id=\"days\">每一天",
        "各品种条数",
        "<span class=\"label\">RB</span>",
        "&lt;b&gt;",
        "oa-report why institution_positions --key &#39;comm_code=RB,trade_date=2025-12-01&#39;",
        "value=\"backfill\"",
    ] {
        let part = part.replace("&#39;", "'");
        assert!(page.contains(&part), "{part} is not in {page}");
    }
    // Whoever may not read the table sees the rest.
    site.sql("DROP TABLE public.institution_positions");
    let page = serving.get("/admin/tasks/rongda-positions?lang=zh").text();
    assert!(page.contains("每一天") && !page.contains("各品种条数"));
}

#[test]
fn a_password_that_was_changed_is_used_without_a_restart() {
    let site = Site::with_token("[report]\ndatabase_url = \"env:OA_TEST_READER\"\n");
    let mut admin = Client::connect(&site.server.superuser_url(), NoTls).unwrap();
    admin
        .batch_execute(
            "CREATE ROLE watcher LOGIN PASSWORD 'the-first-one'; GRANT pg_read_all_data TO watcher",
        )
        .unwrap();
    let port = site.server.port();
    let configure = |password: &str| {
        let env = site.dir.path().join(".env");
        let text = format!("OA_TEST_READER=postgresql://watcher:{password}@127.0.0.1:{port}/oa\n");
        oa_testkit::write_private(&env, text);
    };
    configure("the-first-one");
    let serving = site.serve(Some(TOKEN));
    let answers = |status: u16| serving.get("/admin/crawler/logs").status == status;
    assert!(answers(200));
    admin
        .batch_execute("ALTER ROLE watcher PASSWORD 'the-second-one'; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'watcher'")
        .unwrap();
    let limit = Duration::from_secs(20);
    wait_until("the old one is refused", limit, || answers(500));
    configure("the-second-one");
    wait_until("the new one is used", limit, || answers(200));
    let log = fs::read_to_string(site.log()).unwrap();
    assert!(
        !log.contains("the-first-one") && !log.contains("the-second-one"),
        "{log}"
    );
}

#[test]
fn a_table_that_is_changed_meanwhile_is_asked_anew() {
    let site = Site::with_token("");
    let serving = site.serve(Some(TOKEN));
    let health = || serving.get("/admin/crawler/health").json();
    let limit = Duration::from_secs(30);
    wait_until("it has asked", limit, || health()["stale"] == json!(false));
    let mut admin = Client::connect(&site.server.superuser_url(), NoTls).unwrap();
    // As what a kept statement gives would have another type.
    admin
        .batch_execute(
            "ALTER TABLE oa.incidents ALTER COLUMN rule TYPE varchar; ALTER TABLE oa.watches ALTER COLUMN host TYPE varchar",
        )
        .unwrap();
    let before = health()["timestamp"].clone();
    wait_until("it asks again", limit, || {
        serving.get("/admin/");
        health()["timestamp"] != before
    });
    assert_eq!(health()["stale"], json!(false), "{}", health());
    let log = fs::read_to_string(site.log()).unwrap();
    assert!(!log.contains("cached plan"), "{log}");
}
