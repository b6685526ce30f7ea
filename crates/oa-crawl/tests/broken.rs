//! A source file that cannot be used stops only its own source, and somebody is notified of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::path::PathBuf;

use common::{DAY, Done, Service};

/// With two sources of the operator's own that are due, and no built-in one but `fangqi-morning`, which one of the files replaces.
fn start() -> (Service, PathBuf) {
    let service = Service::start();
    let folder = service.dir.path().join("own");
    fs::create_dir(&folder).unwrap();
    for name in ["good", "other"] {
        fs::write(folder.join(format!("{name}.toml")), source(name)).unwrap();
    }
    service.configure(&format!(
        "retries = 0\nsources = \"{}\"\nenable = [\"good\", \"other\", \"fangqi-morning\"]\n",
        folder.display(),
    ));
    (service, folder)
}

fn source(name: &str) -> String {
    format!(
        r#"name = "{name}"
title = "报价"
provider = "own"
schedule = "* * * * *"
fetch = {{ kind = "command", command = ["echo", '{{"code": "{name}"}}'] }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "code", type = "text", required = true }},
]
"#
    )
}

fn statuses(service: &Service, task: &str) -> String {
    service.text(&format!(
        "SELECT coalesce(string_agg(DISTINCT status, ' '), 'none') FROM oa.runs WHERE task = '{task}'"
    ))
}

#[test]
fn the_others_run_and_the_broken_one_is_recorded_once_and_alerted() {
    let (service, folder) = start();
    let file = folder.join("fangqi-morning.toml");
    let text = include_str!("../sources/fangqi-morning.toml");
    fs::write(
        &file,
        text.replace("retry", "x")
            .replace("min_of_usual", "min_of_usuall"),
    )
    .unwrap();
    let due = || service.crawl(&["run", "--due"]);
    for _ in 0..3 {
        let done = due();
        assert_eq!(done.code, 78, "{done:?}");
        assert!(done.stderr.contains("fangqi-morning.toml"), "{done:?}");
        assert!(done.stderr.contains("min_of_usuall"), "{done:?}");
    }
    assert_eq!(statuses(&service, "good"), "success");
    assert_eq!(
        statuses(&service, "fangqi-morning"),
        "failed",
        "the built-in one did not come back"
    );
    assert_eq!(
        service.count("oa.runs WHERE task = 'fangqi-morning'"),
        1,
        "not each minute"
    );
    let said = service.text("SELECT error_message FROM oa.runs WHERE task = 'fangqi-morning'");
    assert!(
        said.contains("fangqi-morning.toml") && said.contains("line "),
        "{said}"
    );
    let alert = service.alerts("task = 'fangqi-morning'");
    assert!(alert.contains("fangqi-morning.toml"), "{alert}");
    // By hand, and as a list.
    for arguments in [
        &["run", "fangqi-morning", "--date", DAY][..],
        &["backfill", "fangqi-morning", "--from", DAY, "--to", DAY],
    ] {
        let done = service.crawl(arguments);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(done.stderr.contains("min_of_usuall"), "{done:?}");
    }
    assert_eq!(
        service.crawl(&["run", "good"]).code,
        0,
        "nothing of it is broken"
    );
    for command in ["list", "check", "crontab"] {
        let done = service.crawl(&[command]);
        assert_eq!(done.code, 78, "{command}: {done:?}");
        let all = format!("{}{}", done.stdout, done.stderr);
        assert!(all.contains("min_of_usuall"), "{command}: {all}");
        assert!(
            command == "check" || done.stdout.contains("good"),
            "{command}: {done:?}"
        );
    }
    assert_eq!(
        service.crawl(&["prune"]).code,
        78,
        "nobody knows how long its answers are kept"
    );
    // Mended, it runs and its incident ends.
    fs::write(&file, text).unwrap();
    let done = service.crawl(&["run", "fangqi-morning", "--date", DAY]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(due().code, 0);
    assert_eq!(
        service
            .count("oa.incidents WHERE resolved_at IS NULL AND fingerprint = 'run:fangqi-morning'"),
        0
    );
}

#[test]
fn whatever_is_wrong_with_a_file_the_others_run() {
    let (service, folder) = start();
    let all = || -> Done { service.crawl(&["run", "--all", "--format", "json"]) };
    type Write = dyn Fn(&std::path::Path);
    let wrong: [(&str, &Write); 6] = [
        ("x", &|p| fs::write(p, "name = \"x\"\nno toml").unwrap()),
        ("x", &|p| {
            fs::write(p, b"name = \"x\"\ntitle = \"\xb1\xa8\"\n").unwrap();
        }),
        ("bad", &|p| fs::write(p, "").unwrap()),
        ("bad", &|p| fs::create_dir(p).unwrap()),
        ("bad", &|p| {
            std::os::unix::fs::symlink("/nowhere/at/all", p).unwrap();
        }),
        ("other", &|p| fs::write(p, source("other")).unwrap()),
    ];
    for (n, (task, write)) in wrong.iter().enumerate() {
        let path = folder.join("Bad.toml");
        write(&path);
        let done = all();
        assert_eq!(done.code, 78, "{n}: {done:?}");
        let rows = done.rows();
        let status = |name: &str| {
            let row = rows.iter().find(|r| r["task"] == name);
            row.map(|r| r["status"].as_str().unwrap().to_owned())
        };
        assert_eq!(status(task).as_deref(), Some("failed"), "{n}: {done:?}");
        assert_eq!(status("good").as_deref(), Some("success"), "{n}: {done:?}");
        assert!(done.stderr.contains("Bad.toml"), "{n}: {done:?}");
        let _ = fs::remove_dir(&path);
        let _ = fs::remove_file(&path);
    }
    // What is there no more needs nobody.
    assert_eq!(all().code, 0);
    assert_eq!(
        service.count(
            "oa.incidents WHERE resolved_at IS NULL AND fingerprint IN ('run:x', 'run:bad')"
        ),
        0
    );
}

#[test]
fn without_the_folder_nothing_runs_in_the_place_of_its_files() {
    let (service, folder) = start();
    let aside = folder.with_extension("aside");
    fs::rename(&folder, &aside).unwrap();
    for _ in 0..2 {
        let done = service.crawl(&["run", "--due"]);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(
            done.stderr.contains(&folder.display().to_string()),
            "{done:?}"
        );
    }
    assert_eq!(
        service.count("oa.runs WHERE task = 'source-files' AND status = 'failed'"),
        1
    );
    assert_eq!(service.count("oa.runs"), 1);
    assert_eq!(service.count("oa.alerts WHERE task = 'source-files'"), 1);
    fs::rename(&aside, &folder).unwrap();
    assert_eq!(service.crawl(&["run", "--due"]).code, 0);
    assert_eq!(
        service
            .count("oa.incidents WHERE resolved_at IS NULL AND fingerprint = 'run:source-files'"),
        0
    );
    assert_eq!(statuses(&service, "good"), "success");
}

#[test]
fn a_provider_whose_only_file_is_broken_stops_no_other_and_is_not_forgotten() {
    let (service, folder) = start();
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("\"good\", \"other\"", "\"mine\", \"other\"");
    fs::write(service.config(), text).unwrap();
    let file = folder.join("good.toml");
    let whole = source("good").replace("provider = \"own\"", "provider = \"mine\"");
    fs::write(&file, &whole).unwrap();
    assert_eq!(service.crawl(&["run", "--due"]).code, 0);
    assert_eq!(statuses(&service, "good"), "success");
    let expected = "SELECT expected_since::text FROM oa.tasks WHERE name = 'good'";
    let since = service.text(expected);
    fs::write(&file, whole.replace("schedule = ", "shedule = ")).unwrap();
    let before = service.count("oa.runs WHERE task = 'other'");
    let done = service.crawl(&["run", "other"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        service.count("oa.runs WHERE task = 'other'"),
        before + 1,
        "the others run"
    );
    for _ in 0..2 {
        assert_eq!(service.crawl(&["run", "--due"]).code, 78);
    }
    assert_eq!(
        service.count("oa.incidents WHERE resolved_at IS NULL AND fingerprint = 'run:good'"),
        1
    );
    assert_eq!(service.text(expected), since, "its runs are still expected");
    fs::write(&file, &whole).unwrap();
    assert_eq!(service.crawl(&["run", "good"]).code, 0);
    assert_eq!(service.crawl(&["run", "--due"]).code, 0);
    assert_eq!(service.text(expected), since);
    assert_eq!(
        service.count("oa.incidents WHERE resolved_at IS NULL AND fingerprint = 'run:good'"),
        0
    );
}

#[test]
fn a_broken_copy_of_a_file_that_works_stops_nothing() {
    let (service, folder) = start();
    let broken = source("good").replace("schedule = ", "shedule = ");
    for (name, text) in [
        ("a-copy", broken.as_str()),
        ("zcopy", broken.as_str()),
        ("other-old", ""),
    ] {
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
    // Named like a source that another file holds.
    fs::rename(folder.join("other.toml"), folder.join("mine.toml")).unwrap();
    fs::write(folder.join("other.toml"), "").unwrap();
    assert_eq!(service.crawl(&["run", "--due"]).code, 78);
    assert_eq!(statuses(&service, "good"), "success");
    assert_eq!(statuses(&service, "other"), "success");
    for task in ["a-copy", "zcopy", "other-old", "other-file"] {
        assert_eq!(statuses(&service, task), "failed", "{task}");
    }
}

#[test]
fn where_nothing_is_enabled_a_broken_file_is_said_and_alerts_nobody() {
    let (service, folder) = start();
    let text = fs::read_to_string(service.config()).unwrap();
    let enabled = "enable = [\"good\", \"other\", \"fangqi-morning\"]";
    fs::write(service.config(), text.replace(enabled, "enable = []")).unwrap();
    fs::write(folder.join("good.toml"), "").unwrap();
    for _ in 0..2 {
        let done = service.crawl(&["run", "--due"]);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(done.stderr.contains("good.toml"), "{done:?}");
    }
    assert_eq!(service.count("oa.runs"), 0);
    assert_eq!(service.count("oa.alerts"), 0);
}
