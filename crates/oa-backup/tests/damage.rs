//! Damage is found, reported for the backups that it concerns and of no others, and mended as far as it can be.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{PASSWORD, Service, done};

fn flip(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let at = bytes.len() / 2;
    bytes[at] ^= 0x10;
    let _ = fs::set_permissions(file, fs::Permissions::from_mode(0o600));
    fs::write(file, bytes).unwrap();
}

#[test]
fn a_flipped_bit_is_found_and_named_and_the_other_backups_stay_whole() {
    let service = Service::ready("kind = \"logical\"");
    let first = service.take("full");
    service.db().batch_execute("CREATE TABLE more AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 20000) i").unwrap();
    let before: Vec<_> = service.files("repo/data");
    let second = service.take("full");
    let new: Vec<_> = service
        .files("repo/data")
        .into_iter()
        .filter(|f| !before.contains(f))
        .collect();
    let largest = new
        .iter()
        .max_by_key(|f| fs::metadata(f).unwrap().len())
        .unwrap();
    let damaged = |what: &str, remedy: &str| {
        let verified = service.backup(&["verify", "--read-data"]);
        assert!(
            verified.code != Some(0)
                && verified.stderr.contains(what)
                && verified.stderr.contains(remedy),
            "{what}: {verified:?}"
        );
        verified
    };
    // Data of the second backup only.
    flip(largest);
    let pack = largest.file_name().unwrap().to_str().unwrap();
    damaged(&pack[..8], "repair");
    let rows = service
        .backup(&["verify", "--read-data", "--format", "json"])
        .expect(1)
        .json();
    let result =
        |id: &serde_json::Value| rows.iter().find(|r| r["id"] == *id).unwrap()["result"].clone();
    assert_eq!(
        (result(&first[0]["id"]), result(&second[0]["id"])),
        ("ok".into(), "damaged".into())
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE check_error IS NOT NULL"),
        1
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.alerts WHERE task = 'backup-verify'"),
        0,
        "oa-alert check tells of it (backup_unverified)"
    );
    service.backup(&["repair"]).expect(77);
    let repaired = service.backup(&["repair", "--yes"]).expect(1);
    assert!(
        repaired.stdout.contains(pack) && repaired.stdout.contains("1 of 2 backups are not whole"),
        "{}",
        repaired.stdout
    );
    // What the server still has is stored again, which heals the older backup as well if nothing has changed since.
    service.take("full");
    service
        .backup(&["verify", first[0]["id"].as_str().unwrap(), "--read-data"])
        .expect(0);

    for folder in ["repo/index", "repo/snapshots"] {
        let file = service.files(folder).pop().unwrap();
        flip(&file);
        damaged(file.file_name().unwrap().to_str().unwrap(), "repair");
        service.backup(&["repair", "--yes"]);
        service.take("full");
    }
    for file in [
        service.path("repo/config"),
        service.files("repo/keys").pop().unwrap(),
    ] {
        flip(&file);
        let output = service.backup(&["list"]);
        assert!(
            output.code == Some(78) && output.stderr.contains("spare copy"),
            "{output:?}"
        );
        service.backup(&["repair", "--yes"]);
        service.take("incremental");
    }
    let last = service.take("full");
    service
        .backup(&["verify", last[0]["id"].as_str().unwrap(), "--read-data"])
        .expect(0);
}

#[test]
fn the_doctor_leads_out_of_damage_and_says_what_cannot_be_mended() {
    let service = Service::ready("kind = \"logical\"");
    let fill = |table: &str| {
        let sql = format!(
            "DROP TABLE IF EXISTS big; CREATE TABLE big AS SELECT i, md5(random()::text || '{table}') AS t FROM generate_series(1, 20000) i"
        );
        service.db().batch_execute(&sql).unwrap();
    };
    let mut known: Vec<PathBuf> = Vec::new();
    let mut damage_of = |level: &str| {
        fill(level);
        let id = service.take(level)[0]["id"].clone();
        let files = service.files("repo/data").into_iter();
        let new: Vec<_> = files.filter(|f| !known.contains(f)).collect();
        known.extend(new.clone());
        let size = |f: &PathBuf| fs::metadata(f).unwrap().len();
        (id, new.into_iter().max_by_key(size).unwrap())
    };
    let (_, first) = damage_of("full");
    let (newest, second) = damage_of("full");
    flip(&first);
    flip(&second);
    service.backup(&["verify", "--read-data"]).expect(1);
    // Taken out, and stored again what the server still has. What it has not makes both backups useless, and that is said.
    let mut orders = Vec::new();
    while let Some((order, _)) = common::doctors_orders(&service) {
        orders.push(order);
        assert!(orders.len() < 9, "it leads nowhere: {orders:?}");
    }
    assert_eq!(orders, ["oa-backup repair", "oa-backup full"]);
    let said = service.backup(&["doctor"]).expect(1).stdout;
    let newest = newest.as_str().unwrap();
    let what = format!("2 backup(s) are not whole; the newest is {}", &newest[..8]);
    assert!(
        said.contains(&what)
            && said.contains("cannot be mended")
            && said.contains("can be restored"),
        "{said}"
    );

    // What is gone from the repository is not brought back by a further full backup either.
    let gone = service.path("repo/snapshots").join(newest);
    fs::remove_file(gone).unwrap();
    let (order, done) = common::doctors_orders(&service).unwrap();
    assert_eq!(order, "oa-backup prune --missing");
    done.expect(0);
    service.backup(&["doctor"]).expect(0);

    // An index that is gone is made anew of what is there, which is everything.
    for file in service.files("repo/index") {
        fs::remove_file(file).unwrap();
    }
    let (order, done) = common::doctors_orders(&service).unwrap();
    assert_eq!(order, "oa-backup repair");
    done.expect(0);
    service.backup(&["doctor"]).expect(0);
}

#[test]
fn what_lacks_data_for_good_can_be_given_up() {
    let service = Service::ready("kind = \"logical\"");
    let sql = |sql: &str| service.db().batch_execute(sql).unwrap();
    service.take("full");
    let known = service.files("repo/data");
    sql("CREATE TABLE big AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 20000) i");
    let id = service.take("incremental")[0]["id"].clone();
    let size = |f: &PathBuf| fs::metadata(f).unwrap().len();
    let new = service.files("repo/data").into_iter();
    let pack = new.filter(|f| !known.contains(f)).max_by_key(size).unwrap();
    sql("DROP TABLE big");
    fs::remove_file(&pack).unwrap();
    let damaged = &["prune", "--damaged", "--yes"][..];
    let early = service.backup(damaged).expect(77);
    assert!(
        early.stderr.contains("first: oa-backup repair"),
        "{early:?}"
    );
    service.backup(&["repair", "--yes"]).expect(1);
    service.take("full");
    // Nobody can say what it still needs, so nothing is freed while it is there.
    let stuck = service.backup(&["prune", "--yes"]).expect(1);
    assert!(stuck.stderr.contains("prune --damaged"), "{stuck:?}");
    service
        .backup(&["prune", "--damaged", "--dry-run"])
        .expect(0);
    assert!(service.list().iter().any(|b| b["id"] == id));
    service.backup(damaged).expect(0);
    assert!(service.list().iter().all(|b| b["id"] != id));
    service.backup(&["doctor"]).expect(0);
}

#[test]
fn what_reading_back_has_found_stays_until_reading_back_finds_nothing() {
    let service = Service::ready("kind = \"logical\"");
    service.take("full");
    let recorded = |code: i32, arguments: &[&str]| {
        service.backup(arguments).expect(code);
        service
            .texts("SELECT checked || coalesce(' ' || check_error, '') FROM oa.backups")
            .pop()
            .unwrap()
    };
    let (structure, data) = (&["verify"][..], &["verify", "--read-data"][..]);
    assert_eq!(recorded(0, data), "data");
    assert_eq!(recorded(0, structure), "data");
    let largest = |folder: &str| {
        let files = service.files(folder);
        let size = |f: &std::path::PathBuf| fs::metadata(f).unwrap().len();
        files.into_iter().max_by_key(size).unwrap()
    };
    let pack = largest("repo/data");
    let name = &pack.file_name().unwrap().to_str().unwrap()[..8];
    // A flipped bit changes no size: who reads nothing does not see it.
    flip(&pack);
    let found = recorded(1, data);
    assert!(
        found.starts_with("data ") && found.contains(name),
        "{found}"
    );
    assert_eq!(recorded(0, structure), found);
    flip(&pack);
    assert_eq!(recorded(0, data), "data");
    // What the structure lacks was not there to be read back, and is over when it is there again.
    let moved = pack.with_extension("moved");
    fs::rename(&pack, &moved).unwrap();
    let found = recorded(1, structure);
    assert!(
        found.starts_with("structure ") && found.contains(name),
        "{found}"
    );
    fs::rename(&moved, &pack).unwrap();
    assert_eq!(recorded(0, structure), "structure");
    // Nobody can tell what this backup was, but it is listed in the database, and must not look whole there.
    let snapshot = largest("repo/snapshots");
    flip(&snapshot);
    let found = recorded(1, structure);
    assert!(found.starts_with("structure snapshots/"), "{found}");
    flip(&snapshot);
    assert_eq!(recorded(0, structure), "structure");
    // Without its index nothing was read.
    flip(&largest("repo/index"));
    assert_eq!(recorded(1, data), "structure");
}

#[test]
fn a_pack_that_is_missing_keeps_no_new_backup_from_being_made() {
    let service = Service::ready("kind = \"logical\"");
    let first = service.take("full");
    let before = service.files("repo/data");
    service.db().batch_execute("CREATE TABLE more AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 20000) i").unwrap();
    let second = service.take("full");
    let remove_largest_of = |files: Vec<std::path::PathBuf>| {
        let largest = files
            .into_iter()
            .max_by_key(|f| fs::metadata(f).unwrap().len())
            .unwrap();
        fs::remove_file(&largest).unwrap();
        largest.file_name().unwrap().to_str().unwrap()[..8].to_owned()
    };
    let new = service
        .files("repo/data")
        .into_iter()
        .filter(|f| !before.contains(f));
    let gone = remove_largest_of(new.collect());
    // What the second one was the first to hold of the programs' own tables is not to be shared with the third.
    service
        .db()
        .batch_execute("DROP TABLE more; UPDATE oa.clock SET latest = latest - interval '1 second'; INSERT INTO oa.locks VALUES ('test')")
        .unwrap();

    // The third one does not need it, and is made; that something is damaged is reported.
    let partial = service.backup(&["full", "--format", "json"]).expect(1);
    assert!(
        partial.stderr.contains("damaged elsewhere") && partial.stderr.contains(&gone),
        "{}",
        partial.stderr
    );
    let third = partial.json();
    assert_eq!(service.list().len(), 3);
    let rows = service
        .backup(&["verify", "--format", "json"])
        .expect(1)
        .json();
    let result = |b: &[serde_json::Value]| {
        rows.iter().find(|r| r["id"] == b[0]["id"]).unwrap()["result"].clone()
    };
    assert_eq!(
        [result(&first), result(&second), result(&third)],
        ["ok", "damaged", "ok"]
    );

    // The next one would need what is missing now: it is not listed, and says what helps.
    remove_largest_of(before);
    let refused = service.backup(&["full"]).expect(1);
    assert!(
        refused.stderr.contains("not whole") && refused.stderr.contains("oa-backup repair"),
        "{}",
        refused.stderr
    );
    assert_eq!(service.list().len(), 3);
    service.backup(&["repair", "--yes"]).expect(1);
    let last = service.take("full");
    service
        .backup(&["verify", last[0]["id"].as_str().unwrap(), "--read-data"])
        .expect(0);
}

#[test]
fn a_damaged_tree_does_not_keep_the_data_of_others_from_being_read() {
    let service = Service::ready("kind = \"logical\"");
    let size = |f: &&PathBuf| fs::metadata(f).unwrap().len();
    let first = service.take("full");
    let before = service.files("repo/data");
    // A second backup that shares nothing with the first one but nothing of its data either.
    service.db().batch_execute("CREATE TABLE more AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 20000) i").unwrap();
    let second = service.take("full");
    let new: Vec<PathBuf> = service
        .files("repo/data")
        .into_iter()
        .filter(|f| !before.contains(f))
        .collect();
    let (tree, data) = (
        new.iter().min_by_key(size).unwrap(),
        before.iter().max_by_key(size).unwrap(),
    );
    flip(tree);
    flip(data);
    let rows = service
        .backup(&["verify", "--read-data", "--format", "json"])
        .expect(1)
        .json();
    for (backup, file) in [(&first, data), (&second, tree)] {
        let row = rows.iter().find(|r| r["id"] == backup[0]["id"]).unwrap();
        let name = &file.file_name().unwrap().to_str().unwrap()[..8];
        assert_eq!(row["result"], "damaged", "{name}: {rows:?}");
    }
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE check_error IS NOT NULL"),
        2
    );
}

#[test]
fn what_cannot_be_read_now_is_not_taken_out() {
    let service = Service::ready("kind = \"logical\"");
    service.take("full");
    let packs = service.files("repo/data");
    fs::set_permissions(&packs[0], fs::Permissions::from_mode(0o0)).unwrap();
    let repair = service.command(&["repair", "--yes"]);
    let mut command = if rustix::process::geteuid().is_root() {
        // Root without the right to pass over permissions.
        let mut command = Command::new("setpriv");
        command
            .arg("--bounding-set=-dac_override,-dac_read_search")
            .arg(repair.get_program())
            .args(repair.get_args());
        for (name, value) in repair.get_envs() {
            command.env(name, value.unwrap());
        }
        command
    } else {
        repair
    };
    let refused = done(command.output().unwrap()).expect(78);
    assert!(
        refused.stderr.contains("nothing was taken out"),
        "{}",
        refused.stderr
    );
    assert!(service.files("repo/data") == packs && !service.path("repo/damaged").exists());
    fs::set_permissions(&packs[0], fs::Permissions::from_mode(0o600)).unwrap();
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_backup_whose_snapshot_cannot_be_read_is_not_recorded_as_removed() {
    let service = Service::ready("kind = \"logical\"");
    let first = service.take("full");
    let id = first[0]["id"].as_str().unwrap();
    flip(&service.path(&format!("repo/snapshots/{id}")));
    service.backup(&["verify"]).expect(1);
    let output = service.backup(&["full"]).expect(1);
    assert!(
        output.stderr.contains("take it out with oa-backup repair"),
        "{}",
        output.stderr
    );
    let row = format!(
        "SELECT (removed_at IS NULL) || ' ' || (check_error IS NOT NULL) FROM oa.backups WHERE id = '{id}'"
    );
    assert_eq!(service.texts(&row), ["true true"]);
    let repaired = service.backup(&["repair", "--yes"]).expect(0);
    assert!(repaired.stdout.contains(id), "{}", repaired.stdout);
    service.take("full");
    assert_eq!(service.texts(&row), ["false true"]);
}

#[test]
fn a_copy_that_is_not_whole_is_not_listed() {
    let service = Service::ready("kind = \"logical\"");
    service.configure("kind = \"logical\"\n[backup.copy]\nrepository = \"second\"");
    service.create_repositories();
    service.take("full");
    service.backup(&["copy"]).expect(0);
    let largest = |folder: &str| {
        service
            .files(folder)
            .into_iter()
            .max_by_key(|f| fs::metadata(f).unwrap().len())
            .unwrap()
    };
    fs::remove_file(largest("second/data")).unwrap();
    // It shares with the first one what the second place has lost.
    service.take("full");
    let refused = service.backup(&["copy"]).expect(1);
    assert!(refused.stderr.contains("not whole"), "{}", refused.stderr);
    assert_eq!(
        service
            .backup(&["list", "--copy", "--format", "json"])
            .expect(0)
            .json()
            .len(),
        1
    );
    service.backup(&["repair", "--copy", "--yes"]).expect(1);
    service.backup(&["copy"]).expect(0);
    let last = service
        .backup(&["list", "--copy", "--format", "json"])
        .expect(0)
        .json()
        .pop()
        .unwrap();
    service
        .backup(&[
            "verify",
            "--copy",
            "--read-data",
            last["id"].as_str().unwrap(),
        ])
        .expect(0);
}

/// PostgreSQL's programs, of which `pg_basebackup` says of a table that the server sent something else than what has come.
fn programs_with_a_wrong_checksum(service: &Service) -> PathBuf {
    let folder = service.path("programs");
    fs::create_dir(&folder).unwrap();
    let real = service.server.programs();
    for program in fs::read_dir(real).unwrap() {
        let program = program.unwrap();
        std::os::unix::fs::symlink(program.path(), folder.join(program.file_name())).unwrap();
    }
    let copy = folder.join("pg_basebackup");
    fs::remove_file(&copy).unwrap();
    let script = format!(
        "#!/bin/sh\n{}/pg_basebackup \"$@\" || exit\nfor a; do case $a in --pgdata=*) data=${{a#*=}} ;; esac; done\n\
         [ -z \"$data\" ] || sed -i '/\"global.1260\"/s/\"Checksum\": \"[^\"]*\"/\"Checksum\": \"00000000\"/' \"$data/backup_manifest\"\n",
        real.display()
    );
    fs::write(&copy, script).unwrap();
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

#[test]
fn what_is_not_what_the_server_sent_is_not_listed() {
    let service = Service::ready("kind = \"physical\"");
    let folder = programs_with_a_wrong_checksum(&service);
    service.configure(&format!(
        "kind = \"physical\"\nbin_dir = \"{}\"",
        folder.display()
    ));
    let refused = service.backup(&["full"]);
    assert!(
        refused.code != Some(0) && refused.stderr.contains("global/1260"),
        "{refused:?}"
    );
    assert!(service.list().is_empty());
    service.configure("kind = \"physical\"");
    service.take("full");
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_key_that_was_removed_does_not_come_back() {
    let service = Service::ready("kind = \"logical\"");
    service.take("full");
    let restic = |arguments: &[&str], password: &str| {
        let output = Command::new("restic")
            .args(["--no-cache", "-r"])
            .arg(service.path("repo"))
            .args(arguments)
            .env("RESTIC_PASSWORD", password)
            .output()
            .expect("restic is installed (scripts/setup)");
        assert!(
            output.status.success(),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    // As docs/backup.md has it.
    let old = service.files("repo/keys").pop().unwrap();
    let new = "another-key-for-tests";
    fs::write(service.path("new-password"), new).unwrap();
    restic(
        &[
            "key",
            "add",
            "--new-password-file",
            service.path("new-password").to_str().unwrap(),
        ],
        PASSWORD,
    );
    let run = |arguments: &[&str]| {
        done(
            service
                .command(arguments)
                .env("OA_BACKUP_PASSWORD", new)
                .output()
                .unwrap(),
        )
    };
    run(&["list"]).expect(0);
    restic(
        &["key", "remove", old.file_name().unwrap().to_str().unwrap()],
        new,
    );
    run(&["init"]).expect(0);
    run(&["verify"]).expect(0);
    run(&["repair", "--yes"]).expect(0);
    let names = |folder: &str| -> Vec<_> {
        service
            .files(folder)
            .iter()
            .map(|f| f.file_name().unwrap().to_owned())
            .collect()
    };
    assert!(!old.exists() && names("repo/keys") == names("repo/spare/keys"));
    service.backup(&["list"]).expect(78);
    // The new one has a spare copy.
    flip(&service.files("repo/keys")[0]);
    run(&["repair", "--yes"]).expect(0);
    run(&["list"]).expect(0);
}

#[test]
fn damage_is_named_by_file_once_and_without_the_insides_of_the_engine() {
    let service = Service::ready("kind = \"logical\"");
    for i in 0..4 {
        service.db().batch_execute(&format!("CREATE TABLE more{i} AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 3000) i")).unwrap();
        service.take("full");
    }
    let size = |f: &&PathBuf| fs::metadata(f).unwrap().len();
    let packs = service.files("repo/data");
    let first: Vec<&PathBuf> = packs.iter().collect();
    let (largest, smallest) = (
        *first.iter().max_by_key(|f| size(f)).unwrap(),
        *first.iter().min_by_key(|f| size(f)).unwrap(),
    );
    let snapshot = service.files("repo/snapshots").pop().unwrap();
    let check = |file: &Path, arguments: &[&str]| {
        let found = service.backup(arguments).expect(1);
        let name = file.file_name().unwrap().to_str().unwrap();
        let lines = found
            .stderr
            .lines()
            .filter(|l| l.contains(&name[..8]))
            .count();
        assert_eq!(lines, 1, "{}", found.stderr);
        for inside in [
            "nonce",
            "aead",
            "rustic",
            "Caused by",
            "Mac",
            "sent this as a bug",
            "panicked",
        ] {
            assert!(
                !found.stderr.contains(inside) && !found.stdout.contains(inside),
                "{inside}: {}{}",
                found.stdout,
                found.stderr
            );
        }
    };
    for file in [largest, smallest, &snapshot] {
        flip(file);
        check(file, &["verify", "--read-data"]);
        flip(file);
    }
    for file in [largest, smallest] {
        let moved = file.with_extension("moved");
        fs::rename(file, &moved).unwrap();
        check(file, &["verify"]);
        fs::rename(&moved, file).unwrap();
    }
    service.backup(&["verify", "--read-data"]).expect(0);
}
