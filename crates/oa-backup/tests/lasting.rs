//! What another try would only repeat is not tried again, and whoever waits at a terminal hears of it at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::FileExt;

use common::{Done, Service, done};
use oa_testkit::Postgres;

/// With the pauses that a service has.
fn patient(service: &Service) {
    let path = service.path("oa.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text = text
        .replace("retries = 0", "retries = 3")
        .replace("retry_delay = \"1s\"", "retry_delay = \"10m\"");
    fs::write(path, text).unwrap();
}

fn at_once(done: &Done, words: &str) {
    assert!(
        !done.stderr.contains("next try") && done.stderr.contains(words),
        "{}",
        done.stderr
    );
}

#[test]
fn a_wrong_port_or_password_is_said_at_once_to_whoever_waits() {
    let service = Service::ready("kind = \"physical\"");
    patient(&service);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let free = listener.local_addr().unwrap().port();
    drop(listener);
    let elsewhere = service.url().replace(
        &format!(":{}/", service.server.port()),
        &format!(":{free}/"),
    );
    let with = |url: &str, arguments: &[&str]| {
        let mut command = service.command(arguments);
        done(command.env("DATABASE_URL", url).output().unwrap())
    };
    at_once(
        &with(&elsewhere, &["full"]).expect(75),
        "could not reach PostgreSQL",
    );
    let wrong = service.url().replace("postgres:", "postgres:not-");
    at_once(&with(&wrong, &["full"]).expect(78), "refused the login");
    at_once(
        &with(&elsewhere, &["incremental"]).expect(75),
        "could not reach PostgreSQL",
    );
}

#[test]
fn a_damaged_page_is_named_with_its_table_and_keeps_no_backup_from_being_made() {
    let server = Postgres::start_anew_with(&["--data-checksums"]);
    let mut service = Service::with(server, "kind = \"physical\"");
    service.create_repositories();
    patient(&service);
    let file: String = service
        .db()
        .query_one("SELECT pg_relation_filepath('quotes')", &[])
        .unwrap()
        .get(0);
    service.server.stop();
    let file = service.server.data_dir().join(file);
    let file = fs::File::options().write(true).open(file).unwrap();
    // One is enough, though the server itself counts them from the second one of a file on.
    file.write_all_at(b"not what was here", 8192 + 4000)
        .unwrap();
    service.server.start_again();
    let made = service.backup(&["full", "--format", "json"]);
    at_once(&made, "table quotes, file base/");
    assert!(made.stderr.contains("page 1"), "{}", made.stderr);
    assert!(!made.stderr.contains("does not recover"), "{}", made.stderr);
    let full = &service
        .backup(&["list", "--format", "json"])
        .expect(0)
        .json()[0];
    assert!(
        full["damaged_pages"][0]
            .as_str()
            .unwrap()
            .contains("quotes"),
        "{full}"
    );
    // It is whole but for that, and what follows it goes on from it.
    service.backup(&["verify", "--read-data"]).expect(0);
    service.backup(&["incremental"]).expect(0);
    assert_eq!(
        service.number(
            "SELECT count(*) FROM oa.runs WHERE task = 'backup-full' AND status = 'partial'"
        ),
        1
    );
    // As long as the newest full one has it, nobody says that all is well.
    let status = service.backup(&["status", "--format", "json"]).expect(1);
    let problems = status.json()[0]["problems"].to_string();
    assert!(problems.contains("table quotes"), "{problems}");
    let verify = service.backup(&["verify", "--format", "json"]).expect(0);
    assert!(
        verify.stdout.contains("damaged on the server"),
        "{verify:?}"
    );
    // What an upgrade of the server has left here: the cluster has another number since then.
    let stale = service.path("state/backup/wal-123");
    fs::create_dir(&stale).unwrap();
    let doctor = service.backup(&["doctor"]).expect(1);
    for words in ["table quotes", &format!("rm -r {}", stale.display())] {
        assert!(doctor.stdout.contains(words), "{words}: {doctor:?}");
    }
    let on_record = "SELECT id FROM oa.backups WHERE damaged_pages LIKE '%table quotes%'";
    assert_eq!(service.texts(on_record), [full["id"].as_str().unwrap()]);
    let alert = oa_testkit::program("oa-alert");
    let check = || {
        let mut command = std::process::Command::new(&alert);
        command
            .args([
                "--config",
                service.path("oa.toml").to_str().unwrap(),
                "check",
            ])
            .env("DATABASE_URL", service.url())
            .env("OA_BACKUP_PASSWORD", common::PASSWORD)
            .stdin(std::process::Stdio::null());
        common::done(command.output().unwrap())
    };
    let open =
        "SELECT count(*) FROM oa.incidents WHERE rule = 'server_damaged' AND resolved_at IS NULL";
    check();
    assert_eq!(service.number(open), 1);
    service.db().batch_execute("DROP TABLE quotes").unwrap();
    service.take("full");
    service.backup(&["status"]).expect(0);
    check();
    assert_eq!(service.number(open), 0);
}

#[test]
fn a_channel_that_asked_for_it_is_notified_of_each_full_backup_and_others_are_not() {
    let service = Service::ready("kind = \"physical\"");
    let path = service.path("oa.toml");
    let channel = |name: &str, more: &str| {
        let file = service.path(name).display().to_string();
        format!(
            "[[alert.channels]]\nname = \"{name}\"\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"cat >>'{file}'\"]\n{more}\n"
        )
    };
    let asked = channel(
        "asked",
        "min_severity = \"critical\"\nnotify_success = \"full\"",
    );
    let text = fs::read_to_string(&path).unwrap() + &asked + &channel("other", "");
    fs::write(&path, text).unwrap();
    service.take("full");
    service.take("incremental");
    let got = fs::read_to_string(service.path("asked")).unwrap();
    assert_eq!(
        got.matches("【通知】全量备份成功").count(),
        2,
        "title and text, once: {got}"
    );
    assert!(!service.path("other").exists());
}

#[test]
fn four_hundred_megabytes_of_addresses_are_enough() {
    let service = Service::ready("kind = \"physical\"");
    for command in [
        service.command(&["full"]),
        service.restore(&["table", "quotes", "--to", "latest", "--as", "quotes_again"]),
    ] {
        done(oa_testkit::limited(&command, 400_000).output().unwrap()).expect(0);
    }
    assert_eq!(service.number("SELECT count(*) FROM quotes_again"), 2000);
}
