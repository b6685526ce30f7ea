//! What was known when: what a site revises is still there as it was, with the run that changed it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use common::{DAY, Done, Service};
use oa_sim::{Options, Sim};
use serde_json::{Value, json};

fn report(service: &Service, arguments: &[&str]) -> Done {
    Command::new(oa_testkit::program("oa-report"))
        .arg("--config")
        .arg(service.config())
        .args(arguments)
        .env("DATABASE_URL", &service.url)
        .output()
        .unwrap()
        .into()
}

/// The site shows other values for the same day.
fn revise(service: &mut Service) {
    let options = Options {
        seed: 2,
        ..Options::default()
    };
    service.sim = Sim::start(options).unwrap();
    service.configure("retries = 0\n");
}

/// The table as JSON lines in the order of their texts.
fn copy(service: &Service) -> String {
    service.text("SELECT coalesce(string_agg(row_to_json(t)::text, E'\\n' ORDER BY row_to_json(t)::text COLLATE \"C\"), '') FROM market_full_view t")
}

fn now(service: &Service) -> String {
    service.text(
        "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')",
    )
}

#[test]
fn a_table_is_shown_as_it_was_before_the_site_revised_it() {
    let mut service = Service::start();
    let before = now(&service);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let (first, at) = (copy(&service), now(&service));
    revise(&mut service);
    let second = service.run("zhihui-full-view").row();
    assert!(second["updated"].as_u64() > Some(10), "{second}");
    assert_ne!(copy(&service), first);

    let as_of = |more: &[&str]| report(&service, &[&["as-of", "market_full_view"], more].concat());
    let done = as_of(&["--at", &at, "--format", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), first);
    let done = as_of(&["--at", "now", "--format", "json"]);
    assert_eq!(done.stdout.lines().count(), copy(&service).lines().count());
    let done = as_of(&["--at", &before, "--format", "json"]);
    assert_eq!(done.stdout, "", "nothing was there");
    assert!(done.stderr.contains("kept since"), "{done:?}");

    let code = service.text("SELECT min(comm_code) FROM market_full_view");
    let condition = format!("comm_code = '{code}' -- of this one");
    let done = as_of(&["--at", &at, "--where", &condition, "--format", "csv"]);
    assert_eq!(done.stdout.lines().count(), 2, "{done:?}");
    assert!(
        done.stdout
            .starts_with("id,comm_code,variety_name,record_date,")
    );

    let wrong = report(&service, &["as-of", "market_ful_view", "--at", &at]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("did you mean \"market_full_view\"?"),
        "{wrong:?}"
    );
    assert_eq!(report(&service, &["as-of", "oa.runs", "--at", &at]).code, 2);
    assert_eq!(as_of(&["--at", "soon"]).code, 2);
    let writes = as_of(&[
        "--at",
        &at,
        "--where",
        "set_config('transaction_read_only', 'off', true) IS NOT NULL AND oa.next_in_order() > 0",
    ]);
    assert_eq!(writes.code, 1, "{writes:?}");

    // Kept for a year: what is older is removed by the month, and a time before is refused.
    service.db().batch_execute("UPDATE oa.revisions SET at = at - interval '3 years' WHERE operation = 'insert'; UPDATE oa.revised_tables SET began_at = began_at - interval '3 years'").unwrap();
    service.configure("retries = 0\n[store]\nkeep_revisions = \"1y\"\n");
    let kept = service.count("oa.revisions WHERE operation <> 'insert'");
    let prune = |more: &[&str]| service.crawl(&[&["prune"], more].concat());
    assert_eq!(prune(&["--dry-run"]).code, 0);
    assert!(service.count("oa.revisions") > kept);
    assert_eq!(prune(&[]).code, 0);
    assert_eq!(service.count("oa.revisions"), kept);
    assert_eq!(as_of(&["--at", &at]).code, 0);
    assert_eq!(as_of(&["--at", "800d"]).code, 1);
}

/// Of thousands of versions, and of millions of rows that came together, some are looked at, and it is said that there are more.
fn looks_so_far(service: &Service, why: &dyn Fn(&[&str]) -> Done) {
    let json = ["--format", "json"];
    let before = why(&json);
    assert!(!before.stderr.contains("--all"), "{before:?}");
    service
        .db()
        .batch_execute(
            "DO $$ DECLARE p regclass; BEGIN
               FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'oa.revisions'::regclass LOOP
                 EXECUTE format('ALTER TABLE %s ALTER keys SET STORAGE EXTERNAL', p);
               END LOOP; END $$;
             INSERT INTO oa.revisions (schema_name, table_name, key, operation, old_row, run_id, oldest_xid, at, seq)
             SELECT schema_name, table_name, key, operation, old_row, NULL, oldest_xid, at, -n
             FROM (SELECT * FROM oa.revisions WHERE operation = 'update' ORDER BY key LIMIT 1) r, generate_series(1, 60) n;
             INSERT INTO oa.revisions (schema_name, table_name, keys, operation, run_id, oldest_xid, at, seq)
             SELECT schema_name, table_name, CASE n WHEN 1 THEN ARRAY[key] ELSE many.keys END, 'insert', NULL, oldest_xid, now() + n * interval '1 ms', -100
             FROM (SELECT * FROM oa.revisions WHERE operation = 'update' ORDER BY key LIMIT 1) r, generate_series(1, 2) n,
                  (SELECT array_agg(jsonb_build_object('comm_code', k, 'more', repeat('x', 400))) AS keys FROM generate_series(1, 90000) k) many",
        )
        .unwrap();
    let some = why(&json);
    assert_eq!((some.code, some.rows().len()), (0, 50), "{}", some.stderr);
    assert!(
        some.stderr.contains("the newest 50 versions")
            && some.stderr.contains("1 insertion(s) of many rows"),
        "{}",
        some.stderr
    );
    let all = why(&["--all", "--format", "json"]);
    assert_eq!(all.rows().len(), before.rows().len() + 61, "{}", all.stderr);
    assert!(!all.stderr.contains("--all"), "{}", all.stderr);
    service
        .db()
        .batch_execute("DELETE FROM oa.revisions WHERE seq < 0")
        .unwrap();
}

#[test]
fn why_a_row_is_as_it_is_is_told_by_its_versions() {
    let mut service = Service::start();
    let first = service.run("zhihui-full-view");
    assert_eq!(first.code, 0);
    // A backup that holds the first version and not the second.
    service.text(
        "INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline, restorable_from, restorable_to,
                                 started_at, finished_at, files, size_bytes, added_bytes)
         VALUES ('0123456789abcdef', gen_random_uuid(), 'r', 'physical', 'full', 'h', 'd', 15, '1', 1, clock_timestamp(), clock_timestamp(), now(), now(), 1, 1, 1) RETURNING id",
    );
    revise(&mut service);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let code = service.text(
        "SELECT key ->> 'comm_code' FROM oa.revisions WHERE operation = 'update' ORDER BY key LIMIT 1",
    );
    let key = format!("comm_code={code},record_date={DAY}");
    let why = |more: &[&str]| {
        report(
            &service,
            &[&["why", "market_full_view", "--key"], more].concat(),
        )
    };
    let done = why(&[&key, "--format", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    let versions = done.rows();
    let operations: Vec<&Value> = versions.iter().map(|v| &v["operation"]).collect();
    assert_eq!(operations, [&json!("update"), &json!("insert")]);
    // Its number names the same row, although revisions stand under the natural key.
    let id = service.text(&format!(
        "SELECT id::text FROM market_full_view WHERE comm_code = '{code}' AND record_date = '{DAY}'"
    ));
    let by_number = why(&[&format!("id={id}"), "--format", "json"]);
    assert_eq!(by_number.rows(), versions);
    for (version, run) in versions.iter().zip(["max", "min"]) {
        assert_eq!(
            version["run_id"],
            service.text(&format!("SELECT {run}(id::text) FROM oa.runs"))
        );
        assert_eq!(version["task"], "zhihui-full-view");
        assert_eq!(version["status"], "success");
        assert_eq!(version["raw"].as_array().unwrap().len(), 1);
        assert_eq!(version["row"]["comm_code"], code);
    }
    assert_eq!(versions[1]["backup"]["id"], "0123456789abcdef");
    assert_eq!(versions[0]["backup"], Value::Null);
    let source = versions[0]["source_sha256"].as_str().unwrap();
    assert_eq!(source.len(), 64);
    assert_eq!(versions[1]["source_sha256"], source);
    let answer = &versions[0]["raw"][0];
    let file = service
        .config()
        .with_file_name("state")
        .join(answer["file"].as_str().unwrap());
    assert!(file.is_file(), "{}", file.display());
    // Where in it the record stands.
    let body = zstd::decode_all(fs::File::open(&file).unwrap()).unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap();
    let number = usize::try_from(answer["record"].as_u64().unwrap()).unwrap();
    let records = body["result"].as_array().unwrap();
    assert_eq!(answer["records"], records.len());
    let record = records[number - 1].to_string().to_uppercase();
    assert!(record.contains(&format!("\"{code}\"")), "{record}");
    let (column, change) = versions[0]["changed"]
        .as_object()
        .unwrap()
        .iter()
        .find(|(name, _)| *name != "updated_at")
        .unwrap();
    assert_eq!(change["from"], versions[1]["row"][column]);
    assert_eq!(change["to"], versions[0]["row"][column]);
    looks_so_far(&service, &|more: &[&str]| {
        why(&[&[key.as_str()], more].concat())
    });
    let table = why(&[&key]).stdout;
    assert!(
        table.contains(&format!("{column}: ")) && table.contains(" -> "),
        "{table}"
    );

    assert_eq!(why(&["comm_code=none,record_date=2025-12-01"]).code, 1);
    let partial = why(&["comm_code=RB"]);
    assert_eq!(partial.code, 2);
    assert!(
        partial.stderr.contains("comm_code=…,record_date=…"),
        "{partial:?}"
    );
    let by_id = service.text("SELECT 'id=' || min(id) FROM market_full_view");
    assert_eq!(why(&[&by_id]).code, 0);
}

#[test]
fn a_row_of_a_day_is_followed_although_its_time_changes() {
    let mut service = Service::start();
    assert_eq!(service.run("openvlab-flow").code, 0);
    let at = now(&service);
    let rows = service.count("option_flows");
    revise(&mut service);
    assert_eq!(service.run("openvlab-flow").code, 0);
    let done = report(
        &service,
        &["as-of", "option_flows", "--at", &at, "--format", "json"],
    );
    assert_eq!(done.stdout.lines().count() as i64, rows, "{}", done.stderr);
    let key = service.text(
        "SELECT format('contract_code=%s,date_trunc(''minute''::text, record_time)=%s', contract_code, date_trunc('minute', record_time))
         FROM option_flows LIMIT 1",
    );
    let done = report(&service, &["why", "option_flows", "--key", &key]);
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn what_a_replay_and_a_backfill_change_is_kept_too() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    for command in [
        &["replay", "zhihui-full-view", "--date", DAY, "--yes"][..],
        &[
            "backfill",
            "zhihui-full-view",
            "--from",
            DAY,
            "--to",
            DAY,
            "--again",
        ],
    ] {
        let by_hand = "UPDATE market_full_view SET total_num = -1 WHERE id = (SELECT min(id) FROM market_full_view)";
        service.db().batch_execute(by_hand).unwrap();
        let done = service.crawl(command);
        assert_eq!(done.code, 0, "{done:?}");
        assert_eq!(
            service.text(
                "SELECT string_agg(old_row ->> 'total_num', ' ') FROM oa.revisions
                 WHERE operation = 'update' AND run_id = (SELECT id FROM oa.runs ORDER BY seq DESC LIMIT 1)"
            ),
            "-1",
            "{command:?}"
        );
    }
}

#[test]
fn nothing_is_kept_when_it_is_off_and_nothing_of_a_killed_run() {
    let service = Service::start();
    service.run_killed_at("zhihui-full-view", "run.finish.begin");
    assert_eq!(service.count("oa.revisions"), 0);
    service.configure("retries = 0\n[store]\nrevisions = \"off\"\n");
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(service.count("oa.revisions"), 0);
    let done = report(&service, &["as-of", "market_full_view", "--at", "1h"]);
    assert!(
        done.stderr
            .contains("no change of market_full_view was kept"),
        "{done:?}"
    );
    service.configure("[store]\nrevisions = \"of\"\n");
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78);
    assert!(done.stderr.contains("did you mean \"off\"?"), "{done:?}");
}

#[test]
fn what_waited_in_the_spool_is_kept_when_it_is_stored() {
    let mut service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let (first, at) = (copy(&service), now(&service));
    revise(&mut service);
    service.server.stop();
    assert_eq!(service.run("zhihui-full-view").code, 75);
    service.server.start_again();
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_ne!(copy(&service), first);
    let done = report(
        &service,
        &["as-of", "market_full_view", "--at", &at, "--format", "json"],
    );
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines.join("\n"), first);
}

const MANY: &str = r#"
name = "many"
title = "many"
provider = "own"
schedule = "0 16 * * *"
shows = "any day"
fetch = { kind = "command", command = ["sh", "PROGRAM"] }
store = { table = "market_full_view", unique = ["comm_code"], key = ["comm_code", "record_date"] }
fields = [
  { column = "comm_code", from = "code", type = "text", required = true },
  { column = "record_date", value = "{date}", type = "date" },
  { column = "total_num", from = "n", type = "integer" },
]
"#;

/// More rows than are in memory at once, and that are read while the program prints on.
#[test]
fn what_a_program_prints_by_the_thousand_is_stored_once_and_followed_back() {
    let service = Service::start();
    let program = service.dir.path().join("many.sh");
    let prints = |more: &str| {
        let seq =
            r#"seq -f '{"code": "C%05g", "n": 1, "text": "夜盘继续走高，夜盘继续走高"}' 10000"#;
        fs::write(&program, format!("echo starting\n{seq}\n{more}\n")).unwrap();
        service.run("many").row()
    };
    service.add("many", &MANY.replace("PROGRAM", program.to_str().unwrap()));
    let broken = prints("echo '{\"code\": \"X\"'");
    assert_eq!(broken["error_kind"], "shape", "{broken}");
    let error = broken["error"].as_str().unwrap();
    assert!(
        error.contains("a line 10002 that is no JSON object"),
        "{error}"
    );
    assert_eq!(service.count("market_full_view"), 0);

    let before = now(&service);
    let row = prints(
        r#"echo '{"code": "C00001", "n": 1}'; echo '{"code": "C00002", "n": 2}'; echo '{"code": 3, "n": 1.5}'"#,
    );
    assert_eq!(
        (&row["fetched"], &row["inserted"], &row["rejected"]),
        (&json!(10_003), &json!(10_000), &json!(2)),
        "{row}"
    );
    assert_eq!(service.count("oa.quality WHERE duplicates = 1"), 1);
    assert_eq!(service.count("oa.revisions"), 1, "all of them have one");
    let after = now(&service);
    for (at, format, lines) in [
        (&after, "csv", 10_001),
        (&after, "json", 10_000),
        (&before, "json", 0),
    ] {
        let arguments = ["as-of", "market_full_view", "--at", at, "--format", format];
        let done = report(&service, &arguments);
        assert_eq!(done.code, 0, "{}", done.stderr);
        assert_eq!(done.stdout.lines().count(), lines, "{format}");
        assert_eq!(done.stdout.matches("id,comm_code").count(), lines % 10_000);
    }
    let key = format!("comm_code=C07000,record_date={DAY}");
    let arguments = ["why", "market_full_view", "--key", &key, "--format", "json"];
    let versions = report(&service, &arguments).rows();
    assert_eq!(versions.len(), 1, "{versions:?}");
    assert_eq!(
        (&versions[0]["operation"], &versions[0]["run_id"]),
        (&json!("insert"), &row["run_id"])
    );
    assert_eq!(versions[0]["raw"][0]["record"], 7000, "{versions:?}");
}
