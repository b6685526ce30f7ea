//! Sources with a picture, and sources that are programs of this machine.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use common::processes::{has_ended, pid_in};
use common::{DAY, Done, Service};
use oa_testkit::wait_until;
use rustix::process::{Signal, kill_process};
use serde_json::json;

const PICTURES: &str = "/jiaoyikecha/uploadfile";
const ADDRESS: &str = "/jiaoyikecha/ajax/guangao.php";

fn blueprint(service: &Service) -> serde_json::Value {
    service.run("jiaoyikecha-blueprint").row()
}

#[test]
fn the_picture_of_the_day_is_kept_by_its_content_and_the_row_points_at_it() {
    let service = Service::start();
    let row = blueprint(&service);
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("success"), &json!(1)),
        "{row}"
    );
    let path = service.text("SELECT local_path FROM daily_blueprints");
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() > 10_000 && path.ends_with(".jpg"), "{path}");
    assert!(Path::new(&path).starts_with(service.state().join("files")));
    assert_eq!(blueprint(&service)["unchanged"], 1);
    assert_eq!(service.count("oa.raw WHERE content_type = 'image/jpeg'"), 2);
}

#[test]
fn without_an_address_the_picture_of_the_home_page_is_taken() {
    let service = Service::start();
    service.sim.fault(&format!("{ADDRESS}: empty")).unwrap();
    let row = blueprint(&service);
    assert_eq!(row["status"], "success", "{row}");
    assert!(
        service
            .text("SELECT image_url FROM daily_blueprints")
            .ends_with("/jiaoyikecha/uploadfile/today.jpg")
    );
    assert!(
        service
            .text("SELECT findings::text FROM oa.quality")
            .contains("imageUrl is empty")
    );
}

#[test]
fn a_picture_is_replayed_from_the_archive() {
    let service = Service::start();
    for fault in ["", "empty"] {
        if !fault.is_empty() {
            service.sim.fault(&format!("{ADDRESS}: {fault}")).unwrap();
        }
        blueprint(&service);
        let path = service.text("SELECT local_path FROM daily_blueprints ORDER BY id DESC LIMIT 1");
        fs::remove_file(&path).unwrap();
        let asked = service.sim.requests().len();
        let day = service.text("SELECT record_date::text FROM daily_blueprints");
        let arguments = [
            "replay",
            "jiaoyikecha-blueprint",
            "--date",
            &day,
            "--format",
            "json",
        ];
        let row = service.crawl(&arguments).row();
        assert_eq!(
            (&row["answers"], &row["unchanged"]),
            (&json!(2), &json!(1)),
            "{row}"
        );
        assert_eq!(
            service.sim.requests().len(),
            asked,
            "nobody was asked again"
        );
        assert!(
            fs::metadata(&path).unwrap().len() > 10_000,
            "the file is there again"
        );
    }
}

#[test]
fn what_is_no_whole_picture_is_never_stored() {
    let service = Service::start();
    service.configure("retries = 0\n");
    for (path, fault, kind) in [
        (PICTURES, "truncate", "network"),
        (PICTURES, "soft-block", "empty"),
        (PICTURES, "404", "http_4xx"),
        (ADDRESS, "500", "http_5xx"),
        (ADDRESS, "rename adall=ad", "shape"),
    ] {
        service.sim.clear_faults();
        service.sim.fault(&format!("{path}: {fault}")).unwrap();
        let row = blueprint(&service);
        assert_eq!(row["error_kind"], json!(kind), "{fault}: {row}");
    }
    assert_eq!(service.count("daily_blueprints"), 0);
    assert!(!service.state().join("files").exists());
}

/// A source of the operator's own.
fn add_source(service: &Service, name: &str, text: &str) {
    let folder = service.dir.path().join("sources");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(format!("{name}.toml")), text).unwrap();
}

fn script(service: &Service, name: &str, text: &str) -> String {
    let path = service.dir.path().join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.to_str().unwrap().to_owned()
}

fn run_own(service: &Service, task: &str) -> Done {
    let folder = service.dir.path().join("sources");
    let folder = folder.to_str().unwrap();
    service.crawl(&["run", task, "--sources", folder, "--format", "json"])
}

fn contracts(command: &str) -> String {
    format!(
        r#"
name = "contracts"
title = "合约信息"
provider = "local"
schedule = "0 16 * * *"
fetch = {{ kind = "command", command = ["{command}", "{{date}}"] }}

[store]
table = "contract_infos"
unique = ["comm_code"]
key = ["comm_code"]

[[fields]]
column = "comm_code"
from = "contract"
type = "variety"
required = true

[[fields]]
column = "multiplier"
from = "multiplier"
type = "integer"
min = 1
"#
    )
}

#[test]
fn a_program_that_prints_json_lines_is_a_source_like_any_other() {
    let service = Service::start();
    let program = script(
        &service,
        "contracts.sh",
        r#"echo "asked for $1 by $OA_TASK" >&2
echo starting
echo '{"contract": "rb2601", "multiplier": 10}'
echo '{"contract": "螺纹", "multiplier": 10}'
echo '{"contract": "?", "multiplier": 10}'"#,
    );
    let text = contracts(&program).replace("schedule", "max_rejected = 0.5\nschedule");
    add_source(&service, "contracts", &text);
    let row = run_own(&service, "contracts").row();
    assert_eq!(
        (&row["status"], &row["inserted"], &row["rejected"]),
        (&json!("success"), &json!(1), &json!(1)),
        "{row}"
    );
    assert_eq!(service.count("oa.raw"), 1, "what it printed is archived");
}

#[test]
fn a_program_that_fails_is_distinguished_and_stores_nothing() {
    let service = Service::start();
    service.configure("retries = 1\n");
    for (text, kind, attempts, says) in [
        ("echo '{\"contract\": \"rb\"'", "shape", 1, "no JSON object"),
        (
            "echo oops >&2; exit 3",
            "network",
            2,
            "exit status: 3: oops",
        ),
        ("exit 78", "internal", 1, "exit status: 78"),
        ("echo nothing", "empty", 2, "no records"),
    ] {
        let program = script(&service, "contracts.sh", text);
        add_source(&service, "contracts", &contracts(&program));
        let row = run_own(&service, "contracts").row();
        assert_eq!(
            (row["error_kind"].as_str(), row["attempts"].as_u64()),
            (Some(kind), Some(attempts)),
            "{text}: {row}"
        );
        assert!(row["error"].as_str().unwrap().contains(says), "{row}");
    }
    // It prints on and on, and is not waited for.
    service.configure("retries = 1\nmax_body = \"1MiB\"\n");
    for text in ["yes '{\"contract\": \"rb\"}'", "yes", "yes >&2"] {
        let program = script(&service, "contracts.sh", text);
        add_source(&service, "contracts", &contracts(&program));
        let row = run_own(&service, "contracts").row();
        assert_eq!(
            (&row["error_kind"], &row["attempts"]),
            (&json!("shape"), &json!(1)),
            "{row}"
        );
        assert!(
            row["error"]
                .as_str()
                .unwrap()
                .contains("printed more than 1048576 bytes on std"),
            "{row}"
        );
    }
    add_source(&service, "contracts", &contracts("/nowhere/at-all"));
    let row = run_own(&service, "contracts").row();
    assert!(
        row["error"]
            .as_str()
            .unwrap()
            .contains("could not be started"),
        "{row}"
    );
    assert_eq!(service.count("contract_infos"), 0);
}

#[test]
fn each_value_is_asked_for_and_unwanted_records_are_skipped() {
    let service = Service::start();
    let program = script(
        &service,
        "brokers.sh",
        r#"echo "{\"broker\": \"国泰君安（代客）\", \"net\": \"1,234\"}"
echo "{\"broker\": \"永安期货\", \"net\": \"5\"}""#,
    );
    add_source(
        &service,
        "brokers",
        &format!(
            r#"
name = "brokers"
title = "席位"
provider = "local"
schedule = "0 19 * * *"
fetch = {{ kind = "command", command = ["{program}", "{{code}}"] }}
each = {{ name = "code", values = ["rb", "hc"], pause = "10ms" }}
keep = [{{ field = "broker", contains = ["东方财富", "国泰君安"] }}]
store = {{ table = "institutional_positions", unique = ["comm_code", "broker_name", "record_date"] }}

[[fields]]
column = "comm_code"
from = "code"
type = "variety"
required = true

[[fields]]
column = "broker_name"
from = "broker"
type = "text"
required = true

[[fields]]
column = "net_position"
from = "net"
type = "integer"

[[fields]]
column = "record_date"
value = "{{date}}"
type = "date"
"#
        ),
    );
    let row = run_own(&service, "brokers").row();
    assert_eq!(
        (&row["status"], &row["inserted"]),
        (&json!("success"), &json!(2)),
        "{row}"
    );
    assert_eq!(
        service.text("SELECT string_agg(comm_code || net_position, ' ' ORDER BY comm_code) FROM institutional_positions"),
        "HC1234 RB1234"
    );
    let own = service.dir.path().join("sources");
    let own = own.to_str().unwrap();
    let today = service.text("SELECT details ->> 'day' FROM oa.runs LIMIT 1");
    let replay = ["replay", "brokers", "--date", &today, "--sources", own];
    let row = service
        .crawl(&[&replay[..], &["--format", "json"]].concat())
        .row();
    assert_eq!(
        (&row["answers"], &row["unchanged"]),
        (&json!(2), &json!(2)),
        "{row}"
    );
    service
        .db()
        .batch_execute("UPDATE institutional_positions SET net_position = 7 WHERE comm_code = 'RB'; DELETE FROM institutional_positions WHERE comm_code = 'HC'")
        .unwrap();
    let done = service.crawl(&replay);
    for line in [
        format!("~ [\"RB\", \"国泰君安（代客）\", \"{today}\"]: net_position 7 → 1234"),
        format!("+ [\"HC\", \"国泰君安（代客）\", \"{today}\"]: "),
    ] {
        assert!(done.stdout.contains(&line), "{line} in {done:?}");
    }
    assert_eq!(
        service.count("institutional_positions"),
        1,
        "nothing was stored"
    );
}

/// A program that has left its process group and does not listen to SIGTERM.
const DEAF: &str =
    "setsid sh -c 'trap \"\" TERM HUP INT; echo $$ > deaf; while :; do sleep 1; done' &";

#[test]
fn a_program_that_takes_too_long_ends_with_all_it_has_started() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("timeout = \"20s\"", "timeout = \"3s\"");
    fs::write(service.config(), text).unwrap();
    let folder = service.dir.path().display();
    let text = format!("cd {folder}; {DEAF} timeout 600 sleep 600");
    let program = script(&service, "contracts.sh", &text);
    add_source(&service, "contracts", &contracts(&program));
    let row = run_own(&service, "contracts").row();
    assert_eq!(row["error_kind"], "timeout", "{row}");
    assert!(has_ended(pid_in(&service.dir.path().join("deaf")).unwrap()));
}

#[test]
fn what_a_killed_run_of_a_program_has_left_ends_before_the_next_run() {
    let service = Service::start();
    let folder = service.dir.path().display();
    let text = format!(
        "cd {folder}; [ -e deaf ] && {{ echo '{{\"contract\": \"rb\", \"multiplier\": 10}}'; exit; }}; {DEAF} echo $$ > pid; wait"
    );
    let program = script(&service, "contracts.sh", &text);
    add_source(&service, "contracts", &contracts(&program));
    let sources = service.dir.path().join("sources");
    let sources = sources.to_str().unwrap();
    let mut child = service
        .command(&["run", "contracts", "--date", DAY, "--sources", sources])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (deaf, pid) = (
        service.dir.path().join("deaf"),
        service.dir.path().join("pid"),
    );
    wait_until("the program", Duration::from_secs(30), || {
        pid_in(&deaf).is_some() && pid_in(&pid).is_some()
    });
    // The guard goes first: it would end the rest.
    let program = pid_in(&pid).unwrap();
    let guard = rustix::process::getpgid(Some(program)).unwrap();
    kill_process(guard, Signal::KILL).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!has_ended(pid_in(&deaf).unwrap()));
    let row = run_own(&service, "contracts").row();
    assert_eq!(row["status"], "success", "{row}");
    assert!(has_ended(pid_in(&deaf).unwrap()));
    assert!(
        service
            .text("SELECT details ->> 'ended_of_earlier_run' FROM oa.runs WHERE status = 'success'")
            .contains("sh (process ")
    );
}

#[test]
fn a_program_gets_the_secrets_that_its_task_is_given() {
    let service = Service::start();
    service.configure("retries = 0\n[exec.contracts]\nenv = [\"SITE_LOGIN\"]\n");
    let env = "SITE_LOGIN=from-dotenv\nOTHER=x\n";
    fs::write(service.dir.path().join(".env"), env).unwrap();
    let seen = service.dir.path().join("seen");
    let text = format!(
        "env > {}; echo '{{\"contract\": \"rb\", \"multiplier\": 10}}'",
        seen.display()
    );
    let program = script(&service, "contracts.sh", &text);
    add_source(&service, "contracts", &contracts(&program));
    assert_eq!(run_own(&service, "contracts").row()["status"], "success");
    let seen = fs::read_to_string(seen).unwrap();
    assert!(seen.contains("SITE_LOGIN=from-dotenv\n"), "{seen}");
    assert!(
        !seen.contains("DATABASE_URL=") && !seen.contains("OTHER="),
        "{seen}"
    );
}
