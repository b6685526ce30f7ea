//! Metrics as Prometheus reads them, and the sums that they come from.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::BTreeMap;

use common::{Site, TOKEN};

/// Samples by name and labels, and what is declared.
fn samples(text: &str) -> (BTreeMap<String, f64>, BTreeMap<String, String>) {
    let (mut all, mut kinds) = (BTreeMap::new(), BTreeMap::new());
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(
                kinds.insert(name.to_owned(), kind.to_owned()).is_none(),
                "{name} is declared twice"
            );
        } else if !line.starts_with('#') {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(
                all.insert(name.to_owned(), value.parse().unwrap())
                    .is_none(),
                "{name} twice"
            );
        }
    }
    (all, kinds)
}

#[test]
fn metrics_are_prometheus_and_counters_never_go_back() {
    let site = Site::with_token(
        "[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_KEY\"\n",
    );
    // Something waits, so that each metric is there.
    site.sql("UPDATE oa.alerts SET settled_at = NULL WHERE rule = 'run_missed'");
    let serving = site.serve(Some(TOKEN));
    let reply = serving.get("/metrics");
    assert_eq!(
        reply.header("content-type"),
        Some("text/plain; version=0.0.4; charset=utf-8")
    );
    let text = reply.text();
    let (all, kinds) = samples(&text);
    for name in [
        "oa_task_last_success_timestamp_seconds{task=\"zhihui-reports\"}",
        "oa_task_lateness_seconds{task=\"rdqh-indicators\"}",
        "oa_runs_total{task=\"zhihui-reports\",status=\"failed\"}",
        "oa_run_duration_seconds_sum{task=\"zhihui-reports\"}",
        "oa_records_total{task=\"zhihui-reports\",result=\"rejected\"}",
        "oa_alerts_open{severity=\"critical\"}",
        "oa_backup_restorable_timestamp_seconds",
        "oa_backup_verified_timestamp_seconds",
        "oa_drill_rto_seconds",
        "oa_database_up",
    ] {
        assert!(all[name] > 0.0, "{name} in {text}");
    }
    for name in all.keys() {
        let bare = name.split('{').next().unwrap();
        let family = bare.trim_end_matches("_sum").trim_end_matches("_count");
        assert!(
            kinds.contains_key(bare) || kinds.get(family).is_some_and(|k| k == "summary"),
            "{name} is not declared"
        );
        assert_eq!(
            kinds.get(bare).is_some_and(|k| k == "counter"),
            bare.ends_with("_total"),
            "{name}"
        );
    }
    let read_back: f64 = site
        .server
        .connect()
        .query_one(
            "SELECT extract(epoch FROM max(checked_at))::float8 FROM oa.backups WHERE checked = 'data'",
            &[],
        )
        .unwrap()
        .get(0);
    assert!(
        (all["oa_backup_verified_timestamp_seconds"] - read_back).abs() < 0.01,
        "that a structure was looked at is not that it was read: {text}"
    );
    promtool(&["check", "metrics"], &text);
    // What ships for Prometheus and Grafana asks for nothing that is not there.
    let folder = oa_testkit::workspace_root().join("scripts/monitoring");
    for file in ["prometheus-rules.yml", "grafana-dashboard.json"] {
        let asked = std::fs::read_to_string(folder.join(file)).unwrap();
        let mut words = asked.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let is_metric = |w: &&str| w.starts_with("oa_") && w.len() > 5;
        let unknown: Vec<&str> = words
            .by_ref()
            .filter(is_metric)
            .filter(|w| !kinds.contains_key(w.trim_end_matches("_sum").trim_end_matches("_count")))
            .collect();
        assert!(unknown.is_empty(), "{file} asks for {unknown:?}");
    }
    let dashboard: serde_json::Value = serde_json::from_str(
        &std::fs::read_to_string(folder.join("grafana-dashboard.json")).unwrap(),
    )
    .unwrap();
    let ids: std::collections::BTreeSet<i64> = dashboard["panels"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_i64().unwrap())
        .collect();
    assert_eq!(ids.len(), dashboard["panels"].as_array().unwrap().len());
    let rules = |name: &str| folder.join(name).to_string_lossy().into_owned();
    promtool(&["check", "rules", &rules("prometheus-rules.yml")], "");
    promtool(&["test", "rules", &rules("prometheus-rules-test.yml")], "");
    // A month of the log is dropped, and the server starts again.
    site.sql("DO $$ DECLARE child regclass; BEGIN
                FOR child IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'oa.runs'::regclass LOOP EXECUTE 'DROP TABLE ' || child; END LOOP; END $$");
    drop(serving);
    let serving = site.serve(Some(TOKEN));
    let (after, _) = samples(&serving.get("/metrics").text());
    for (name, before) in all.iter().filter(|(n, _)| {
        n.starts_with("oa_runs_total")
            || n.starts_with("oa_records_total")
            || n.contains("_seconds_sum")
    }) {
        assert_eq!(after.get(name), Some(before), "{name}");
    }
}

/// Debian's `prometheus` has it.
fn promtool(arguments: &[&str], text: &str) {
    use std::io::Write;
    use std::process::{Command, Stdio};
    let unpacked = oa_testkit::workspace_root().join("target/promtool/usr/bin/promtool");
    let program = if unpacked.is_file() {
        unpacked
    } else {
        "promtool".into()
    };
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        oa_testkit::skip("promtool (Debian: prometheus)", "scripts/setup --tests");
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(
        done.status.success() && String::from_utf8_lossy(&done.stderr).trim().is_empty(),
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
}

#[test]
fn sums_follow_a_run_whose_outcome_comes_late() {
    let site = Site::start("");
    let sums = |table: &str| -> Vec<(String, i64, i64)> {
        let rows = site.server.connect().query(&format!("SELECT status, sum(runs)::bigint, sum(inserted)::bigint FROM oa.{table} GROUP BY status ORDER BY status"), &[]);
        rows.unwrap()
            .iter()
            .map(|r| (r.get(0), r.get(1), r.get(2)))
            .collect()
    };
    let sums_of_days = || -> Vec<(String, i64)> {
        let rows = site.server.connect().query(
            "SELECT status, sum(runs)::bigint FROM oa.run_days GROUP BY status ORDER BY status",
            &[],
        );
        rows.unwrap().iter().map(|r| (r.get(0), r.get(1))).collect()
    };
    let run = |id: u8, trigger: &str| {
        site.sql(&format!(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at)
             VALUES ('01a20d34-a8b3-7000-8000-0000000000{id:02}', 'oa-crawl', 'a', '{trigger}', 'h', 'm', 'b', 1, 1, '0', 'running', now())"
        ));
    };
    let end = |id: u8, status: &str, inserted: u32| {
        site.sql(&format!("UPDATE oa.runs SET status = '{status}', finished_at = now(), inserted = {inserted} WHERE id::text LIKE '%{id:02}'"));
    };
    run(1, "due");
    assert!(sums("run_hours").is_empty(), "it runs");
    end(1, "abandoned", 0);
    assert_eq!(sums("run_hours"), [("abandoned".to_owned(), 1, 0)]);
    end(1, "success", 75);
    assert_eq!(
        sums("run_hours"),
        [
            ("abandoned".to_owned(), 0, 0),
            ("success".to_owned(), 1, 75)
        ]
    );
    // Counters do not go back.
    assert_eq!(
        sums("run_totals"),
        [
            ("abandoned".to_owned(), 1, 0),
            ("success".to_owned(), 1, 75)
        ]
    );
    assert_eq!(
        sums_of_days(),
        [("abandoned".to_owned(), 0), ("success".to_owned(), 1)]
    );
    run(2, "backfill");
    end(2, "success", 5);
    assert_eq!(
        sums("run_hours")[1],
        ("success".to_owned(), 1, 75),
        "a backfill says nothing of today"
    );
    assert_eq!(sums("run_totals")[1], ("success".to_owned(), 2, 80));
}
