//! What goes wrong is reported with what to do about it, and nothing half done is listed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};

use common::{PASSWORD, Service, done};
use oa_testkit::{Postgres, SmallDisk};

const PHYSICAL: &str = "kind = \"physical\"";

#[test]
fn without_repository_password_or_right_location_the_remedy_is_named() {
    let service = Service::start(PHYSICAL);
    let absent = service.backup(&["full"]).expect(78);
    assert!(
        absent.stderr.contains("oa-backup init"),
        "{}",
        absent.stderr
    );
    service.backup(&["init"]).expect(0);
    service.backup(&["init"]).expect(0);
    let wrong = done(
        service
            .command(&["full"])
            .env("OA_BACKUP_PASSWORD", "not-the-password")
            .output()
            .unwrap(),
    )
    .expect(78);
    assert!(
        wrong.stderr.contains("password does not open")
            && !wrong.stderr.contains("not-the-password"),
        "{}",
        wrong.stderr
    );
    let unset = done(
        service
            .command(&["list"])
            .env_remove("OA_BACKUP_PASSWORD")
            .output()
            .unwrap(),
    )
    .expect(78);
    assert!(
        unset.stderr.contains("OA_BACKUP_PASSWORD"),
        "{}",
        unset.stderr
    );
    let unknown = service.backup(&["verify", "abcdef"]).expect(1);
    assert!(
        unknown.stderr.contains("no backup abcdef"),
        "{}",
        unknown.stderr
    );
    for (place, words) in [
        ("ftp://host/x", "neither a folder nor s3://"),
        ("s3://bucket/x", "[backup.s3]"),
    ] {
        let text = fs::read_to_string(service.path("oa.toml"))
            .unwrap()
            .replace("\"repo\"", &format!("\"{place}\""));
        fs::write(service.path("other.toml"), text).unwrap();
        let refused = done(
            service
                .command_with("other.toml", &["list"])
                .output()
                .unwrap(),
        );
        assert!(
            refused.code == Some(78) && refused.stderr.contains(words),
            "{refused:?}"
        );
    }
    fs::write(service.path("none.toml"), "state_dir = \"state\"\n").unwrap();
    let none = done(
        std::process::Command::new(env!("CARGO_BIN_EXE_oa-backup"))
            .args([
                "--config",
                service.path("none.toml").to_str().unwrap(),
                "status",
            ])
            .output()
            .unwrap(),
    );
    assert!(
        none.code == Some(78) && none.stderr.contains("[backup] is not set"),
        "{none:?}"
    );
}

#[test]
fn an_unreachable_server_is_tried_again_recorded_and_reported() {
    let mut service = Service::ready(PHYSICAL);
    service.take("full");
    service.configure("kind = \"physical\"\n# once more\n");
    let text = fs::read_to_string(service.path("oa.toml"))
        .unwrap()
        .replace("retries = 0", "retries = 1");
    fs::write(service.path("oa.toml"), text).unwrap();
    service.server.stop();
    let unreachable = service.backup(&["incremental", "--cron"]).expect(75);
    assert!(
        unreachable.stderr.contains("could not reach PostgreSQL"),
        "{}",
        unreachable.stderr
    );
    assert_eq!(
        service.list().len(),
        2,
        "the repository does not need the server"
    );
    service.server.start_again();
    service.take("incremental");
    assert_eq!(
        service.texts("SELECT status || ' ' || attempts || ' ' || trigger FROM oa.runs WHERE task = 'backup-incremental' ORDER BY id"),
        ["failed 2 cron", "success 1 manual"]
    );
    assert_eq!(
        service.texts("SELECT kind FROM oa.alerts WHERE task = 'backup-incremental' ORDER BY id"),
        ["problem", "recovery"]
    );
}

#[test]
fn an_incremental_backup_without_a_full_one_makes_one() {
    let service = Service::ready(PHYSICAL);
    let first = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    assert!(
        first.stderr.contains("no full backup of this server yet"),
        "{}",
        first.stderr
    );
    assert_eq!(first.json()[0]["level"], "full");
}

/// A segment of the log is complete, and the server has removed what it need not keep.
fn write_wal(service: &Service) {
    for _ in 0..3 {
        service
            .db()
            .batch_execute("INSERT INTO quotes SELECT (SELECT max(id) FROM quotes) + i, 1, repeat(md5(i::text), 8) FROM generate_series(1, 4000) i; SELECT pg_switch_wal(); CHECKPOINT")
            .unwrap();
    }
}

#[test]
fn a_server_that_lets_nobody_in_for_replication_is_dumped_and_what_to_add_is_named() {
    let service = Service::start("");
    let hba = service.server.data_dir().join("pg_hba.conf");
    let rules = fs::read_to_string(&hba).unwrap();
    fs::write(&hba, format!("host replication all all reject\n{rules}")).unwrap();
    service
        .db()
        .batch_execute("SELECT pg_reload_conf()")
        .unwrap();
    service.create_repositories();
    assert_eq!(service.take("full")[0]["kind"], "logical");
    let refused = service.backup(&["full", "--kind", "physical"]).expect(77);
    assert!(
        refused.stderr.contains("pg_hba.conf") && refused.stderr.contains("host replication"),
        "{}",
        refused.stderr
    );
    fs::write(&hba, rules).unwrap();
    service
        .db()
        .batch_execute("SELECT pg_reload_conf()")
        .unwrap();
    assert_eq!(service.take("full")[0]["kind"], "physical");

    // A server that is lost while it is asked has refused nothing: there is no dump in the copy's place.
    let programs: String = service
        .superuser_db()
        .query_one("SELECT setting FROM pg_config WHERE name = 'BINDIR'", &[])
        .unwrap()
        .get(0);
    let folder = service.path("programs");
    fs::create_dir(&folder).unwrap();
    for program in fs::read_dir(&programs).unwrap() {
        let program = program.unwrap();
        if program.file_name() != "psql" {
            symlink(program.path(), folder.join(program.file_name())).unwrap();
        }
    }
    let script = format!(
        "#!/bin/sh\n{programs}/psql -qAtX '{}' -c \"SELECT pg_terminate_backend(pid, 9000) FROM pg_stat_activity WHERE application_name = 'oa-backup'\"\nexit 2\n",
        service.server.superuser_url()
    );
    fs::write(folder.join("psql"), script).unwrap();
    fs::set_permissions(folder.join("psql"), Permissions::from_mode(0o700)).unwrap();
    service.configure(&format!(
        "kind = \"auto\"\nbin_dir = \"{}\"",
        folder.display()
    ));
    let before = service.list().len();
    let lost = service.backup(&["full"]).expect(75);
    assert!(!lost.stderr.contains("pg_hba.conf"), "{}", lost.stderr);
    assert_eq!(service.list().len(), before);
}

/// What was received of the log.
fn segments(service: &Service) -> Vec<std::path::PathBuf> {
    let mut files = service.files("state/backup");
    files.retain(|f| {
        f.parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with("wal-")
    });
    files
}

#[test]
fn a_gap_in_the_wal_is_noticed_at_once_and_answered_by_a_full_backup() {
    let service = Service::ready(PHYSICAL);
    service.take("full");
    // The slot is gone, and with it the log that it kept.
    service
        .db()
        .batch_execute("SELECT pg_drop_replication_slot('oa_backup')")
        .unwrap();
    write_wal(&service);
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(1);
    assert!(
        output.stderr.contains("a full backup is made instead")
            && output.stderr.contains("is lost: no time from then"),
        "{}",
        output.stderr
    );
    assert_eq!(
        service.number(
            "SELECT count(*) FROM oa.alerts WHERE task = 'backup-incremental' AND kind = 'problem'"
        ),
        1,
        "a person hears of it"
    );
    assert_eq!(output.json()[0]["level"], "full");
    assert_eq!(service.texts("SELECT details->>'full_instead' IS NOT NULL || '' FROM oa.runs WHERE task = 'backup-incremental'"), ["true"]);
    assert_eq!(
        service.take("incremental")[0]["level"],
        "incremental",
        "it goes on from there"
    );

    // What was received is lost with its folder: the slot has moved on, but nothing is missing between the backups.
    write_wal(&service);
    service.take("incremental");
    for file in segments(&service) {
        fs::remove_file(file).unwrap();
    }
    write_wal(&service);
    assert_eq!(service.take("incremental")[0]["level"], "incremental");

    // One segment of several is lost: found now, not when somebody needs it.
    write_wal(&service);
    service.take("incremental");
    let wal = segments(&service);
    assert!(wal.len() > 4, "{wal:?}");
    fs::remove_file(&wal[wal.len() / 2]).unwrap();
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    assert!(
        output.stderr.contains("the WAL has a gap"),
        "{}",
        output.stderr
    );
    assert_eq!(output.json()[0]["level"], "full");
    // A segment of another server under the right name.
    write_wal(&service);
    service.take("incremental");
    let wal = segments(&service);
    let mut bytes = fs::read(&wal[0]).unwrap();
    bytes[24] ^= 1;
    fs::write(&wal[0], bytes).unwrap();
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    assert!(
        output.stderr.contains("is not the segment of this server"),
        "{}",
        output.stderr
    );
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_slot_that_the_server_gave_up_is_made_anew() {
    let server = Postgres::start_with(&[
        // More than the schema and a backup write.
        ("max_slot_wal_keep_size", "8MB"),
        ("max_wal_size", "2MB"),
        ("min_wal_size", "2MB"),
    ]);
    let service = Service::with(server, PHYSICAL);
    service.create_repositories();
    service.take("full");
    for _ in 0..6 {
        write_wal(&service);
    }
    assert_eq!(
        service.texts("SELECT wal_status FROM pg_replication_slots"),
        ["lost"]
    );
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(1);
    assert!(
        output.stderr.contains("max_slot_wal_keep_size")
            && output.stderr.contains("is lost: no time from then"),
        "{}",
        output.stderr
    );
    assert_eq!(output.json()[0]["level"], "full");
    assert_eq!(service.take("incremental")[0]["level"], "incremental");
    assert_eq!(
        service.texts("SELECT wal_status FROM pg_replication_slots"),
        ["reserved"]
    );
    // The nightly full one finds it so.
    for _ in 0..6 {
        write_wal(&service);
    }
    let output = service.backup(&["full"]).expect(1);
    assert!(
        output.stderr.contains("is lost: no time from then"),
        "{}",
        output.stderr
    );
    service.take("full");
}

#[test]
fn another_server_at_the_same_address_gets_a_full_backup_of_its_own() {
    let mut service = Service::ready(PHYSICAL);
    let first = service.take("full");
    write_wal(&service);
    service.take("incremental");
    service.take("full");
    // Copied from the same template, it even has the same system identifier; only its log tells.
    service.server = Postgres::start();
    oa_core::pg::schema::upgrade(&mut service.db()).unwrap();
    let second = service
        .backup(&["incremental", "--format", "json"])
        .expect(0)
        .json();
    assert_eq!(second[0]["level"], "full");
    assert_ne!(first[0]["id"], second[0]["id"]);
    assert_eq!(service.take("incremental")[0]["level"], "incremental");
    service.backup(&["verify"]).expect(0);
}

#[test]
fn two_at_once_do_not_disturb_each_other() {
    let service = Service::ready(PHYSICAL);
    service.take("full");
    // The same task on the same machine: the second one is refused, or quiet under cron.
    let first = service.command(&["full"]).spawn().unwrap();
    oa_testkit::wait_until(
        "the first to run",
        std::time::Duration::from_secs(60),
        || {
            service.number(
                "SELECT count(*) FROM oa.runs WHERE task = 'backup-full' AND finished_at IS NULL",
            ) > 0
        },
    );
    let second = service.backup(&["full"]).expect(77);
    assert!(second.stderr.contains("runs already"), "{}", second.stderr);
    service.backup(&["full", "--cron"]).expect(0);
    // Another task meanwhile: both get there.
    service.backup(&["incremental"]).expect(0);
    done(first.wait_with_output().unwrap()).expect(0);
    // Another machine with the same repository.
    let text = fs::read_to_string(service.path("oa.toml")).unwrap();
    let text = text
        .replace("\"state\"", "\"state2\"")
        .replace(PHYSICAL, "kind = \"physical\"\nslot = \"other\"");
    fs::write(service.path("two.toml"), text).unwrap();
    let other = service
        .command_with("two.toml", &["full", "--kind", "logical"])
        .spawn()
        .unwrap();
    service.take("incremental");
    let other = done(other.wait_with_output().unwrap());
    assert!(matches!(other.code, Some(0 | 77)), "{other:?}");
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn full_disks_are_named_and_leave_nothing_half_listed() {
    let service = Service::start(PHYSICAL);
    let Some(repository) = SmallDisk::mount(&service.path("repo"), "6m") else {
        return;
    };
    service.create_repositories();
    service
        .db()
        .batch_execute("CREATE TABLE big AS SELECT i, (SELECT string_agg(md5(random()::text || g), '') FROM generate_series(1, 30) g WHERE i > 0) FROM generate_series(1, 12000) i")
        .unwrap();
    let full = service.backup(&["full"]).expect(1);
    assert!(
        full.stderr.contains("No space left on device")
            || full.stderr.contains("not stored as a whole"),
        "{}",
        full.stderr
    );
    assert!(service.list().is_empty(), "nothing half done is listed");
    let doctor = service.backup(&["doctor"]).expect(1).stdout;
    assert!(doctor.contains("the disk of the repository"), "{doctor}");
    assert_eq!(
        service.texts("SELECT status FROM oa.runs WHERE task = 'backup-full'"),
        ["failed"]
    );
    service.db().batch_execute("DROP TABLE big").unwrap();
    drop(repository);
    // On a disk with room, but with a staging folder that has none.
    let Some(_staging) = SmallDisk::mount(&service.path("state/backup"), "8m") else {
        return;
    };
    fs::remove_dir_all(service.path("repo")).unwrap();
    service.create_repositories();
    let full = service.backup(&["full"]).expect(1);
    assert!(
        full.stderr.contains("are needed to stage the backup")
            && full.stderr.contains("staging in [backup]"),
        "{}",
        full.stderr
    );
}

#[test]
fn a_repository_that_cannot_be_written_is_named() {
    let service = Service::ready(PHYSICAL);
    fs::remove_dir_all(service.path("repo/data")).unwrap();
    fs::write(service.path("repo/data"), "a file in the way").unwrap();
    let failed = service.backup(&["full"]).expect(1);
    assert!(failed.stderr.contains("repo"), "{}", failed.stderr);
    assert!(service.list().is_empty());
}

#[test]
fn a_backup_stopped_by_a_signal_ends_with_the_pack_it_is_at() {
    let service = Service::ready(PHYSICAL);
    let stopped = |arguments: &[&str]| {
        let ended = done(
            service
                .command(arguments)
                .env("OA_FAILPOINT", "stop:repository.pack")
                .output()
                .unwrap(),
        )
        .expect(1);
        assert!(ended.stderr.contains("stop"), "{}", ended.stderr);
        ended
    };
    let first = stopped(&["full"]);
    assert!(
        first
            .stderr
            .contains("stopped by a signal; what it was making is not listed"),
        "{}",
        first.stderr
    );
    assert!(service.list().is_empty() && service.files("repo/snapshots").is_empty());
    assert_eq!(
        service.texts("SELECT status FROM oa.runs WHERE task = 'backup-full'"),
        ["failed"]
    );
    service.take("full");
    stopped(&["incremental"]);
    stopped(&["verify", "--read-data"]);
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE check_error IS NOT NULL"),
        0,
        "that is no damage"
    );
    let packs = service.files("repo/data");
    stopped(&["repair", "--yes"]);
    assert_eq!(
        service.files("repo/data"),
        packs,
        "nothing is taken out that was only not read"
    );
    service.take("incremental");
    service.backup(&["verify", "--read-data"]).expect(0);
    assert_eq!(service.list().len(), 3);
}

#[test]
fn the_key_is_in_no_output_no_argument_and_not_in_the_database() {
    let service = Service::ready(PHYSICAL);
    for arguments in [
        &["-vv", "full"][..],
        &["-vv", "incremental"],
        &["-vv", "verify"],
        &["-vv", "status"],
    ] {
        let done = service.backup(arguments).expect(0);
        assert!(
            !done.stderr.contains(PASSWORD) && !done.stdout.contains(PASSWORD),
            "{arguments:?}"
        );
        assert!(!done.stderr.contains("superuser-password"), "{arguments:?}");
    }
    // Neither in what other users of the machine see of it and of the programs that work for it.
    service.configure("kind = \"physical\"\nlimit_rate = \"64KiB\"");
    let mut running = service.command(&["full"]).spawn().unwrap();
    let seen = std::cell::RefCell::new(Vec::new());
    oa_testkit::wait_until(
        "pg_basebackup to run",
        std::time::Duration::from_secs(60),
        || {
            *seen.borrow_mut() = command_lines_below(running.id());
            seen.borrow()
                .iter()
                .any(|line| line.contains("pg_basebackup"))
        },
    );
    let _ = running.kill();
    let _ = running.wait();
    for line in seen.into_inner() {
        assert!(
            !line.contains(PASSWORD) && !line.contains("superuser-password"),
            "{line}"
        );
    }
    for table in ["runs", "attempts", "backups", "alerts"] {
        let found = service.number(&format!(
            "SELECT count(*) FROM oa.{table} t WHERE t::text LIKE '%{PASSWORD}%' OR t::text LIKE '%superuser-password%'"
        ));
        assert_eq!(found, 0, "{table}");
    }
}

/// The command lines of a process and of all that it has started.
fn command_lines_below(parent: u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = vec![parent];
    while let Some(pid) = left.pop() {
        lines.extend(fs::read_to_string(format!("/proc/{pid}/cmdline")));
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        left.extend(
            children
                .unwrap_or_default()
                .split_whitespace()
                .filter_map(|p| p.parse::<u32>().ok()),
        );
    }
    lines
}

#[test]
fn a_dump_waits_for_no_other_one_and_takes_nothing_from_it() {
    let service = Service::ready("kind = \"logical\"");
    service.take("full");
    let locks = service.path("state/backup/locks");
    let lock = fs::File::options()
        .write(true)
        .open(locks.join("full.lock"))
        .unwrap();
    lock.lock().unwrap();
    let staged = service.path("state/backup/full/dump");
    fs::create_dir_all(&staged).unwrap();
    for level in ["incremental", "full"] {
        let refused = service.backup(&[level]).expect(77);
        assert!(
            refused.stderr.contains("another backup is staged"),
            "{}",
            refused.stderr
        );
        service.backup(&[level, "--cron"]).expect(0);
    }
    assert!(staged.exists(), "what another one stages stays");
    assert_eq!(service.number("SELECT count(*) FROM oa.alerts"), 0);
    drop(lock);
    service.take("incremental");
}

#[test]
fn under_cron_only_somebody_else_at_work_is_no_failure() {
    let mut service = Service::ready("kind = \"logical\"");
    service.take("full");
    for task in ["verify", "prune"] {
        let lock = fs::File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(service.path(&format!("state/locks/task-backup-{task}.lock")))
            .unwrap();
        lock.lock().unwrap();
        service.backup(&[task, "--cron"]).expect(0);
    }
    // A table that this role may not read is a failure, also under cron.
    service.db().batch_execute("GRANT USAGE ON SCHEMA oa TO oa; GRANT ALL ON ALL TABLES IN SCHEMA oa TO oa; GRANT ALL ON ALL SEQUENCES IN SCHEMA oa TO oa; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA oa TO oa").unwrap();
    service.superuser = false;
    let closed = service.backup(&["full", "--cron"]).expect(77);
    assert!(
        closed.stderr.contains("pg_read_all_data"),
        "{}",
        closed.stderr
    );
}

#[test]
fn a_file_that_cannot_be_read_keeps_the_backup_from_being_listed() {
    // It is there and has a size, but reading it fails, also for root; the engine would leave it out and go on.
    let service = Service::ready("kind = \"logical\"\npaths = [\"oa.toml\", \"/proc/self/mem\"]");
    let partial = service.backup(&["full", "--format", "json"]).expect(1);
    assert!(
        partial.stderr.contains("not stored as a whole") && partial.stderr.contains("1 files"),
        "{}",
        partial.stderr
    );
    let kinds: Vec<_> = service.list().iter().map(|b| b["kind"].clone()).collect();
    assert_eq!(kinds, ["logical"], "what is not whole is not listed");
}
