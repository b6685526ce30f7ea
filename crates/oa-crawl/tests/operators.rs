//! What operators do with sources: days of the past, another look at what was received, files of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use common::{DAY, Done, Service, VIEW};
use oa_sim::sites::zhihui;
use serde_json::json;

fn backfill(service: &Service, more: &[&str]) -> Done {
    let fixed = [
        "backfill",
        "zhihui-full-view",
        "--pause",
        "10ms",
        "--format",
        "json",
    ];
    service.crawl(&[&fixed, more].concat())
}

#[test]
fn a_backfill_collects_the_days_that_are_not_there_and_goes_on_where_it_was() {
    let service = Service::start();
    service.run("zhihui-full-view");
    let span = ["--from", "2025-11-29", "--to", "2025-12-03"];
    let done = backfill(&service, &span);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(done.rows().len(), 4, "2025-12-01 was there");
    assert_eq!(
        service.count("(SELECT DISTINCT record_date FROM market_full_view) d"),
        5
    );
    assert_eq!(backfill(&service, &span).rows().len(), 0);
    let again = [&span[..], &["--again"]].concat();
    assert_eq!(backfill(&service, &again).rows().len(), 5);
    assert_eq!(
        service.count("oa.runs WHERE trigger = 'backfill'"),
        9,
        "those that a backfill started; the first was run by hand"
    );
}

#[test]
fn a_backfill_leaves_out_days_without_trading_and_stops_when_it_is_hopeless() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let days = service.crawl(&[
        "backfill",
        "fangqi-morning",
        "--from",
        "2025-11-28",
        "--to",
        "2025-12-02",
        "--dry-run",
    ]);
    assert_eq!(days.stdout, "2025-11-28\n2025-12-01\n2025-12-02\n");
    service.sim.fault(&format!("{VIEW}: 500")).unwrap();
    let done = backfill(&service, &["--from", "2025-11-01", "--to", "2025-11-30"]);
    assert_eq!((done.code, done.rows().len()), (1, 3), "{done:?}");
    service.sim.clear_faults();
    service
        .sim
        .fault(&format!("{VIEW}: expired-token"))
        .unwrap();
    let done = backfill(&service, &["--from", "2025-11-01", "--to", "2025-11-30"]);
    assert_eq!(done.rows().len(), 1, "a token does not come back by itself");
    let wrong = backfill(&service, &["--from", "2025-12-02", "--to", "2025-12-01"]);
    assert_eq!(wrong.code, 2);
}

fn rows_due() -> usize {
    zhihui::full_view(1, DAY.parse().unwrap()).len()
}

fn export(service: &Service) -> (std::path::PathBuf, String) {
    let folder = service.export_sources();
    (folder.clone().into(), folder)
}

#[test]
fn after_a_source_file_is_fixed_a_replay_stores_what_was_received() {
    let service = Service::start();
    service
        .sim
        .fault(&format!("{VIEW}: rename varietyName=name"))
        .unwrap();
    let row = service.run("zhihui-full-view").row();
    assert_eq!(row["error_kind"], "shape");
    let (folder, name) = export(&service);
    let file = folder.join("zhihui-full-view.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("from = \"varietyName\"", "from = \"name\""),
    )
    .unwrap();
    let asked = service.sim.requests().len();
    let replay = |more: &[&str]| {
        let fixed = [
            "replay",
            "zhihui-full-view",
            "--date",
            DAY,
            "--sources",
            &name,
            "--format",
            "json",
        ];
        service.crawl(&[&fixed, more].concat())
    };
    let shown = replay(&[]);
    assert_eq!(shown.code, 0, "{shown:?}");
    assert_eq!(
        (&shown.row()["insert"], &shown.row()["stored"]),
        (&json!(rows_due()), &json!(false))
    );
    assert_eq!(service.count("market_full_view"), 0);
    let stored = replay(&["--yes"]).row();
    assert_eq!(
        (&stored["status"], &stored["inserted"]),
        (&json!("success"), &json!(rows_due()))
    );
    assert_eq!(replay(&[]).row()["unchanged"], rows_due());
    assert_eq!(
        service.sim.requests().len(),
        asked,
        "nobody was asked again"
    );
    assert_eq!(service.count("oa.runs WHERE details ? 'replayed_from'"), 1);
    let other_day = service.crawl(&["replay", "zhihui-full-view", "--date", "2025-12-05"]);
    assert_eq!(other_day.code, 1);
    assert!(
        other_day
            .stderr
            .contains("no run of zhihui-full-view for 2025-12-05"),
        "{other_day:?}"
    );
}

#[test]
fn a_replay_of_many_pages_counts_each_record_once() {
    let service = Service::start();
    service.run("zhihui-reports");
    let done = service.crawl(&[
        "replay",
        "zhihui-reports",
        "--date",
        DAY,
        "--format",
        "json",
    ]);
    let row = done.row();
    assert_eq!(
        (&row["answers"], &row["unchanged"], &row["insert"]),
        (&json!(25), &json!(2434), &json!(0)),
        "{done:?}"
    );
}

#[test]
fn exported_files_are_the_built_in_ones_and_are_not_overwritten_once_edited() {
    let service = Service::start();
    let (folder, name) = export(&service);
    export(&service);
    let count = service.crawl(&["list", "--format", "json"]).rows().len();
    assert_eq!(fs::read_dir(&folder).unwrap().count(), count + 1);
    let schema = fs::read_to_string(folder.join("source.schema.json")).unwrap();
    assert_eq!(schema, service.crawl(&["sources", "schema"]).stdout);
    fs::write(folder.join("fangqi-night.toml"), "# mine").unwrap();
    let done = service.crawl(&["sources", "export", &name]);
    assert_eq!(done.code, 77);
    assert!(done.stderr.contains("fangqi-night.toml"), "{done:?}");
    assert_eq!(
        service.crawl(&["sources", "export", &name, "--force"]).code,
        0
    );
}

#[test]
fn the_crontab_has_a_line_for_each_source() {
    let service = Service::start();
    let text = service.crawl(&["crontab"]).stdout;
    assert!(
        text.contains("*/30 * * * * oa-crawl run --cron zhihui-full-view\n"),
        "{text}"
    );
    assert!(
        text.contains("夜盘提示, on days with a night session only\n"),
        "{text}"
    );
}

/// Without configuration, database or state directory.
fn try_file(service: &Service, text: &str, more: &[&str]) -> Done {
    let file = service.dir.path().join("new.toml");
    fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_oa-crawl"))
        .current_dir("/")
        .args(["try", file.to_str().unwrap(), "--date", DAY])
        .args(more)
        .output()
        .unwrap()
        .into()
}

#[test]
fn a_new_source_is_tried_before_anything_is_stored() {
    let service = Service::start();
    let text = include_str!("../sources/rdqh-indicators.toml");
    let url = format!("{}/indicators", service.sim.site("rdqh"));
    let done = try_file(&service, text, &["--url", &url]);
    assert_eq!(done.code, 0, "{done:?}");
    for part in [
        "fetched    GET http",
        "HTTP 200, text/html; charset=gbk",
        "extracted  50 record(s)",
        "typed      50 row(s) for technical_indicators",
        "\"record_time\":\"2025-12-01 15:00:00\"",
        "rejected   0 record(s)",
        "ok ",
    ] {
        assert!(done.stdout.contains(part), "{part}\n{}", done.stdout);
    }
    let wrong = text.replace("\"MACD\"", "\"MAKD\"");
    let done = try_file(&service, &wrong, &["--url", &url, "--format", "json"]);
    assert_eq!(done.code, 1);
    assert!(
        done.row()["problem"]
            .as_str()
            .unwrap()
            .contains("the headings (品种, RSI, MACD, KDJ, MA)"),
        "{done:?}"
    );
    let body = service.dir.path().join("answer.html");
    fs::write(&body, "<table><tr><th>品种<th>RSI<th>MACD<th>KDJ<th>MA<tbody><tr><td>螺纹<td>x<td>1<td>2<td>3</table>").unwrap();
    let done = try_file(&service, text, &["--body", body.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    assert!(
        done.stdout.contains("rsi is \"x\", which is not a number")
            && done.stdout.contains("PROBLEM    every record was rejected"),
        "{done:?}"
    );
    let done = try_file(&service, &text.replace("title =", "titel ="), &[]);
    assert_eq!(done.code, 78);
    assert!(done.stderr.contains("did you mean \"title\"?"), "{done:?}");
}

#[test]
fn the_raw_archive_is_pruned_by_age_and_reports_when_it_is_too_large() {
    let service = Service::start();
    let prune = |more: &[&str]| service.crawl(&[&["prune", "--format", "json"], more].concat());
    for task in ["zhihui-full-view", "zhihui-reports", "fangqi-morning"] {
        assert_eq!(service.run(task).code, 0);
    }
    let row = prune(&[]).row();
    assert_eq!(
        (&row["files"], &row["left_files"]),
        (&json!(0), &json!(27)),
        "{row}"
    );
    // A run of two years ago: its id says when it was.
    let (_, name) = export(&service);
    let age = |task: &str, days: u32| {
        service.db().batch_execute(&format!(
            "UPDATE oa.raw SET run_id = x.new FROM (SELECT id, oa.uuid_floor(now() - interval '{days} days') AS new FROM oa.runs WHERE task = '{task}') x WHERE run_id = x.id;
             UPDATE oa.runs SET id = oa.uuid_floor(now() - interval '{days} days') WHERE task = '{task}'"
        )).unwrap();
    };
    age("zhihui-reports", 730);
    age("fangqi-morning", 30);
    let file = std::path::Path::new(&name).join("fangqi-morning.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, format!("raw_keep = \"20d\"\n{text}")).unwrap();
    let own = ["--sources", name.as_str()];
    let row = prune(&[&own[..], &["--dry-run"]].concat()).row();
    assert_eq!(
        (&row["answers"], &row["files"]),
        (&json!(26), &json!(0)),
        "the files are young: {row}"
    );
    assert_eq!(service.count("oa.raw"), 27, "nothing was removed");
    for folder in fs::read_dir(service.state().join("raw")).unwrap().flatten() {
        for file in fs::read_dir(folder.path()).unwrap().flatten() {
            let old = std::time::SystemTime::now() - std::time::Duration::from_secs(8 * 86400);
            let file = fs::File::options().append(true).open(file.path()).unwrap();
            file.set_modified(old).unwrap();
        }
    }
    let row = prune(&[&own[..], &["--dry-run"]].concat()).row();
    assert_eq!(
        (&row["answers"], &row["files"], &row["left_files"]),
        (&json!(26), &json!(26), &json!(1)),
        "{row}"
    );
    // The same answer comes again before it is removed.
    assert_eq!(service.run("fangqi-morning").code, 0);
    let row = prune(&own).row();
    assert_eq!(
        (&row["files"], &row["left_files"]),
        (&json!(25), &json!(2)),
        "{row}"
    );
    // Closed slots go with the answers; what became of each day stays.
    service
        .db()
        .batch_execute(
            "INSERT INTO oa.slots (task, due_at, day, state, reason, closed_at)
             SELECT 't', now() - make_interval(days => d, hours => length(s)), '2025-01-01', s, CASE WHEN s <> 'open' THEN 'x' END, CASE WHEN s <> 'open' THEN now() END
             FROM unnest(ARRAY[10, 390, 410]) d, unnest(ARRAY['open', 'missed']) s;
             INSERT INTO oa.days (task, day, expected, state) VALUES ('t', '2025-01-01', true, 'missing');
             INSERT INTO oa.requests (kind, subject, requested_by, requested_at, state, ended_at)
             SELECT 'run', 't', 'wang', now() - make_interval(days => d), 'done', now() - make_interval(days => d) FROM unnest(ARRAY[10, 410]) d;
             INSERT INTO oa.requests (kind, subject, requested_by, requested_at) VALUES ('run', 't', 'wang', now() - interval '410 days');
             INSERT INTO oa.used_links (link, action, alert, channel, used_at)
             SELECT decode(d::text, 'escape'), 'silence', gen_random_uuid(), 'ops', now() - make_interval(days => d) FROM unnest(ARRAY[10, 410]) d",
        )
        .unwrap();
    let row = prune(&["--dry-run"]).row();
    assert_eq!((&row["slots"], &row["requests"]), (&json!(1), &json!(2)));
    let row = prune(&[]).row();
    assert_eq!((&row["slots"], &row["requests"]), (&json!(1), &json!(2)));
    assert_eq!(service.count("oa.requests"), 2);
    assert_eq!(service.count("oa.used_links"), 1);
    assert_eq!(service.count("oa.slots WHERE task = 't'"), 5);
    assert_eq!(service.count("oa.days WHERE task = 't'"), 1);
    assert_eq!(service.count("oa.raw"), 2);
    service.configure("raw_limit = \"1KiB\"\n");
    let done = prune(&[]);
    assert_eq!(done.code, 1, "{done:?}");
    assert!(
        done.stderr.contains("more than its limit of 1.0 KiB"),
        "{done:?}"
    );
    assert_eq!(
        service.count("oa.alerts WHERE task = 'raw-prune' AND kind = 'problem'"),
        1
    );
}
