//! Bad input is normal: a clear error, nothing lost, the right exit code.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use common::{DAY, Done, Service};
use oa_sim::Options;
use serde_json::json;

fn bare(arguments: &[&str], folder: &std::path::Path) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(arguments)
        .current_dir(folder)
        .env_remove("OA_CONFIG")
        .env_remove("DATABASE_URL")
        .env_remove("ZHIHUI_AUTH_TOKEN");
    command.output().unwrap().into()
}

#[test]
fn without_a_configuration_it_says_where_it_looked() {
    let dir = tempfile::tempdir().unwrap();
    let done = bare(&["list"], dir.path());
    assert_eq!(done.code, 78);
    assert!(
        done.stderr
            .contains("no configuration found at oa.toml, /etc/oa/oa.toml; copy oa.example.toml"),
        "{done:?}"
    );
    let done = bare(&["list", "--config", "elsewhere.toml"], dir.path());
    assert_eq!(done.code, 78);
    assert!(done.stderr.contains("elsewhere.toml"), "{done:?}");
}

#[test]
fn the_example_configuration_is_valid() {
    let dir = tempfile::tempdir().unwrap();
    fs::copy(
        oa_testkit::workspace_root().join("oa.example.toml"),
        dir.path().join("oa.toml"),
    )
    .unwrap();
    let done = bare(&["list", "--format", "json"], dir.path());
    assert_eq!(done.code, 0, "{done:?}");
    assert!(done.rows().len() >= 5);
}

#[test]
fn broken_toml_and_unknown_keys_are_configuration_errors() {
    let dir = tempfile::tempdir().unwrap();
    for (text, expected) in [
        ("[crawl]\nretrys = 3\n", "did you mean \"retries\"?"),
        ("[crawl\n", "line 1"),
        ("timezone = \"Mars\"\n", "line 1"),
    ] {
        fs::write(dir.path().join("oa.toml"), text).unwrap();
        let done = bare(&["list"], dir.path());
        assert_eq!(done.code, 78, "{done:?}");
        assert!(done.stderr.contains(expected), "{done:?}");
    }
}

#[test]
fn an_unknown_source_is_a_usage_error_with_the_nearest_name() {
    let service = Service::start();
    let done = service.crawl(&["run", "zhihui-fullview"]);
    assert_eq!(done.code, 2);
    assert!(
        done.stderr
            .contains("there is no source \"zhihui-fullview\"; did you mean \"zhihui-full-view\"?"),
        "{done:?}"
    );
    assert_eq!(service.count("oa.runs"), 0);
}

#[test]
fn a_missing_token_fails_with_78_and_is_reported_like_any_failure() {
    let service = Service::start();
    fs::remove_file(service.dir.path().join(".env")).unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78);
    assert!(
        done.row()["error"]
            .as_str()
            .unwrap()
            .contains("refers to env:ZHIHUI_AUTH_TOKEN, which is not set")
    );
    assert_eq!(
        service.count("oa.runs WHERE status = 'failed' AND error_kind = 'auth'"),
        1
    );
    assert_eq!(service.count("oa.alerts"), 1);
    assert!(service.sim.requests().is_empty());
}

#[test]
fn a_wrong_password_or_database_loses_nothing() {
    let mut service = Service::start();
    let right = service.url.clone();
    for (wrong, expected) in [
        (right.replace("oa-test-password", "no"), "refused the login"),
        (
            right
                .replace("/oa", "/nowhere")
                .replace("//nowhere:", "//oa:"),
            "has no such database",
        ),
    ] {
        service.url = wrong;
        let done = service.run("zhihui-full-view");
        assert_eq!(done.code, 75, "{done:?}");
        assert!(
            done.row()["spooled"].as_str().unwrap().contains(expected),
            "{done:?}"
        );
        assert!(!done.stderr.contains("oa-test-password"));
        let drain = service.crawl(&["drain"]);
        assert_eq!(drain.code, 78, "draining needs a person: {drain:?}");
    }
    service.url = right;
    assert_eq!(service.crawl(&["drain"]).code, 0);
    assert_eq!(service.count("oa.runs WHERE status = 'success'"), 2);
}

#[test]
fn a_database_without_schema_or_with_a_newer_one_is_refused_before_anything_is_fetched() {
    let service = Service::without_schema(Options::default());
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78);
    assert!(
        done.stderr.contains("create it with: oa-migrate init"),
        "{done:?}"
    );
    let mut client = service.db();
    oa_core::pg::schema::upgrade(&mut client).unwrap();
    client.batch_execute("INSERT INTO oa.schema_history SELECT 999, 'future', applied_on, checksum FROM oa.schema_history LIMIT 1").unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78);
    assert!(
        done.stderr.contains("is version 999, newer than"),
        "{done:?}"
    );
    assert!(service.sim.requests().is_empty());
}

#[test]
fn missing_tables_are_named_with_the_remedy() {
    let service = Service::without_schema(Options::default());
    oa_core::pg::schema::upgrade(&mut service.db()).unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 78);
    assert!(done.row()["error"].as_str().unwrap().contains(
        "table market_full_view does not exist; create the service's tables with: oa-migrate init"
    ));
}

#[test]
fn a_state_directory_that_cannot_be_written_is_refused() {
    let service = Service::start();
    fs::write(service.dir.path().join("file"), "").unwrap();
    let text = fs::read_to_string(service.config())
        .unwrap()
        .replace("\"state\"", "\"file/state\"");
    fs::write(service.config(), text).unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 77, "{done:?}");
    assert!(
        done.stderr.contains("cannot write to state_dir"),
        "{done:?}"
    );
}

/// `/dev/full` fails every write with "no space left on device"; a small tmpfs would need root.
#[test]
fn a_full_disk_is_named() {
    let service = Service::start();
    let state = service.state();
    fs::create_dir_all(&state).unwrap();
    std::os::unix::fs::symlink("/dev/full", state.join("spool.db")).unwrap();
    let done = service.crawl(&["drain"]);
    assert_ne!(done.code, 0);
    assert!(done.stderr.contains("spool.db"), "{done:?}");
    // A tmpfs of 64 KiB, where the tests may mount one.
    let small = service.dir.path().join("small");
    fs::create_dir(&small).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "none"])
        .arg(&small)
        .output();
    if !mounted.is_ok_and(|o| o.status.success()) {
        oa_testkit::skip("a small tmpfs", "run the tests as root");
        return;
    }
    let text = fs::read_to_string(service.config())
        .unwrap()
        .replace("\"state\"", "\"small\"");
    fs::write(service.config(), text).unwrap();
    let done = service.run("zhihui-reports");
    let unmounted = Command::new("umount")
        .arg("-l")
        .arg(&small)
        .status()
        .unwrap();
    assert!(unmounted.success());
    assert!(done.code == 1 || done.code == 77, "{done:?}");
    let said = format!("{}{}", done.stdout, done.stderr).to_lowercase();
    assert!(
        said.contains("no space left") || said.contains("disk is full"),
        "{done:?}"
    );
}

#[test]
fn a_clock_that_jumps_leaves_runs_that_can_be_found() {
    let service = Service::start();
    // A run of a machine whose clock was years ahead lands in the default partition and stays usable.
    service
        .db()
        .batch_execute(
            "INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at)
             VALUES (oa.uuid_floor('2099-01-01'), 'oa-crawl', 'zhihui-full-view', 'manual', 'h', 'm', 'b', 1, 1, '0', 'success', '2099-01-01', '2099-01-01'),
                    (oa.uuid_floor('1999-01-01'), 'oa-crawl', 'zhihui-full-view', 'manual', 'h', 'm', 'b', 1, 1, '0', 'success', '1999-01-01', '1999-01-01')",
        )
        .unwrap();
    assert_eq!(service.count("oa.runs_default"), 2);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    assert_eq!(service.count("oa.runs WHERE finished_at >= started_at"), 3);
}

#[test]
fn a_source_that_is_off_still_runs_by_its_name_and_a_wrong_name_is_refused_with_the_nearest() {
    let service = Service::start();
    // What earlier versions wrote is read once more.
    service.configure("enable = [\"zhihui\"]\nskip = [\"zhihui-reports\"]\n");
    let done = service.crawl(&["list", "--format", "json"]);
    let enabled: Vec<_> = done
        .rows()
        .into_iter()
        .filter(|r| r["state"] == "enabled")
        .collect();
    let names: Vec<_> = enabled
        .iter()
        .map(|r| r["task"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["zhihui-full-view", "zhihui-varieties"]);
    assert!(done.stderr.contains("skip in [crawl]"), "{done:?}");
    assert_eq!(service.run("zhihui-reports").code, 0, "by its name it runs");
    for key in [
        "enable = [\"zhihui-report\"]\n",
        "enable = []\nskip = [\"zhihui-report\"]\n",
    ] {
        service.configure(key);
        let done = service.crawl(&["list"]);
        assert_eq!(done.code, 78);
        assert!(
            done.stderr.contains("did you mean \"zhihui-reports\"?"),
            "{done:?}"
        );
    }
}

#[test]
fn check_lists_what_is_missing() {
    let service = Service::start();
    let done = service.crawl(&["check", "--format", "json"]);
    assert_eq!(done.code, 0, "{done:?}");
    fs::remove_file(service.dir.path().join(".env")).unwrap();
    service
        .db()
        .batch_execute("DROP INDEX research_reports_key")
        .unwrap();
    let done = service.crawl(&["check", "--format", "json"]);
    assert_eq!(done.code, 78);
    let errors: Vec<_> = done
        .rows()
        .into_iter()
        .filter(|r| r["state"] == "error")
        .map(|r| r["check"].clone())
        .collect();
    assert_eq!(
        errors,
        [
            json!("zhihui-full-view"),
            json!("zhihui-reports"),
            json!("zhihui-varieties"),
            json!("research_reports")
        ]
    );
    a_table_of_ones_own_is_looked_at_too(&service);
}

fn a_table_of_ones_own_is_looked_at_too(service: &Service) {
    let sources = service.dir.path().join("sources");
    fs::create_dir(&sources).unwrap();
    let text = r#"
name = "own"
title = "own"
provider = "own"
schedule = "0 15 * * *"
[fetch]
kind = "http"
base = "http://127.0.0.1:9"
path = "/"
[answer]
records = "/data"
end = "one answer"
[store]
table = "own_quotes"
key = ["code"]
unique = ["code"]
[[fields]]
column = "code"
from = "code"
type = "text"
required = true
"#;
    fs::write(sources.join("own.toml"), text).unwrap();
    service.configure("sources = \"sources\"\nenable = [\"own\"]\n");
    for (change, says) in [
        (
            "CREATE TABLE oa.own_quotes (code text)",
            "table own_quotes is in schema oa, not in public; move it: ALTER TABLE oa.own_quotes SET SCHEMA public",
        ),
        (
            "ALTER TABLE oa.own_quotes SET SCHEMA public",
            "table own_quotes has no unique index on code",
        ),
        (
            "CREATE UNIQUE INDEX ON own_quotes (code); ALTER TABLE own_quotes ADD day date NOT NULL",
            "day of table own_quotes may not be null",
        ),
        ("ALTER TABLE own_quotes DROP day", ""),
    ] {
        service.db().batch_execute(change).unwrap();
        let rows = service.crawl(&["check", "--format", "json"]).rows();
        let errors = rows.iter().filter(|r| r["state"] == "error");
        let said: Vec<&str> = errors.map(|r| r["detail"].as_str().unwrap()).collect();
        let as_due = match says {
            "" => said.is_empty(),
            says => said.len() == 1 && said[0].contains(says),
        };
        assert!(as_due, "{says}: {said:?}");
    }
}

#[test]
fn secrets_are_in_no_table_no_log_and_no_file() {
    let service = Service::start();
    oa_testkit::write_private(
        &service.dir.path().join(".env"),
        "ZHIHUI_AUTH_TOKEN=very-secret-token\n",
    );
    let done = service.crawl(&["-vv", "run", "zhihui-full-view", "--date", DAY]);
    assert_eq!(done.code, 1);
    let dump = service.text("SELECT string_agg(r::text, '') FROM (SELECT * FROM oa.runs) r")
        + &service.text("SELECT string_agg(r::text, '') FROM oa.alerts r");
    for text in [&done.stdout, &done.stderr, &dump] {
        assert!(
            !text.contains("very-secret-token") && !text.contains("oa-test-password"),
            "{text}"
        );
    }
}

#[test]
fn usage_errors_end_with_2() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in [
        &["run"][..],
        &["run", "--all", "x"],
        &["run", "x", "--date", "yesterday"],
        &["nonsense"],
        &["run", "x", "--sources", "/nowhere"],
    ] {
        assert_eq!(bare(arguments, dir.path()).code, 2, "{arguments:?}");
    }
}

#[test]
fn help_completions_and_man_page_are_there() {
    let dir = tempfile::tempdir().unwrap();
    assert!(
        bare(&["run", "--help"], dir.path())
            .stdout
            .contains("Examples:")
    );
    assert!(
        bare(&["--help"], dir.path())
            .stdout
            .contains("75  PostgreSQL could not be reached")
    );
    assert!(
        bare(&["completions", "bash"], dir.path())
            .stdout
            .contains("oa__crawl")
    );
    assert!(bare(&["man"], dir.path()).stdout.contains(".TH oa-crawl"));
}

#[test]
fn a_pipe_in_the_place_of_a_file_is_an_error_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    let pipe = folder.join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    let configured = |text: &str| {
        let text = format!("state_dir = \"state\"\n{text}");
        fs::write(folder.join("oa.toml"), text).unwrap();
    };
    configured("");
    assert_eq!(bare(&["sources", "export", "own"], folder).code, 0);
    let source = "own/fangqi-night.toml";
    for (arguments, code) in [
        (&["list", "--config", "pipe"][..], 78),
        (&["try", "pipe"], 2),
        (&["try", source, "--body", "pipe"], 1),
        (&["cookies", "import", "rongda", "pipe"], 1),
    ] {
        let done = bare(arguments, folder);
        assert_eq!(done.code, code, "{arguments:?}: {done:?}");
        let said = format!("{}{}", done.stdout, done.stderr);
        assert!(said.contains("a pipe to which nobody writes"), "{said}");
    }
    configured("calendar = \"pipe\"\n");
    assert_eq!(bare(&["list"], folder).code, 78);
    configured("[crawl]\nca_file = \"pipe\"\n");
    let done = bare(&["try", source], folder);
    assert!(
        done.stderr.contains("ca_file") && done.code == 78,
        "{done:?}"
    );
    // A secret that others need is passed over by whoever does not.
    configured("[backup]\nrepository = \"repo\"\npassword = \"file:pipe\"\n");
    assert_eq!(bare(&["list"], folder).code, 0);
    // What somebody writes is read to its end.
    let shell = format!(
        "{} list --config <(cat oa.toml)",
        env!("CARGO_BIN_EXE_oa-crawl")
    );
    let mut command = Command::new("bash");
    let done: Done = command
        .args(["-c", &shell])
        .current_dir(folder)
        .output()
        .unwrap()
        .into();
    assert_eq!(done.code, 0, "{done:?}");
}

#[test]
fn whatever_the_limit_of_memory_a_program_ends_as_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path();
    fs::write(folder.join("oa.toml"), "state_dir = \"state\"\n").unwrap();
    assert_eq!(bare(&["sources", "export", "own"], folder).code, 0);
    let text = format!("[\"{}\"]", "x".repeat(20 << 20));
    fs::write(folder.join("answer.json"), text).unwrap();
    let source = "own/fangqi-night.toml";
    let mut command = Command::new(env!("CARGO_BIN_EXE_oa-crawl"));
    command
        .args(["try", source, "--body", "answer.json"])
        .current_dir(folder);
    for kilobytes in [64_000, 80_000, 100_000, 140_000] {
        let done: Done = oa_testkit::limited(&command, kilobytes)
            .output()
            .unwrap()
            .into();
        assert_eq!(done.code, 1, "{kilobytes}: {done:?}");
        assert!(!done.stderr.is_empty() || !done.stdout.is_empty());
    }
}
