//! Configuration and keys, their spare copies, and places where a repository should be: what is good is never replaced.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Done, PASSWORD, Service, done};

const LOGICAL: &str = "kind = \"logical\"";

/// What happens to a file.
const DAMAGES: [&str; 4] = ["flipped", "emptied", "removed", "swapped"];

fn damage(file: &Path, how: &str, other: &Path) {
    let mut bytes = fs::read(file).unwrap();
    match how {
        "flipped" => {
            let at = bytes.len() / 2;
            bytes[at] ^= 0x10;
            fs::write(file, bytes).unwrap();
        }
        "emptied" => fs::write(file, "").unwrap(),
        "removed" => fs::remove_file(file).unwrap(),
        _ => fs::write(file, fs::read(other).unwrap()).unwrap(),
    }
}

/// Configuration, key, and their spare copies.
fn guarded(service: &Service) -> [PathBuf; 4] {
    let key = service.files("repo/keys").pop().unwrap();
    let spare = service
        .path("repo/spare/keys")
        .join(key.file_name().unwrap());
    [
        service.path("repo/config"),
        service.path("repo/spare/config"),
        key,
        spare,
    ]
}

fn contents(service: &Service) -> BTreeMap<PathBuf, Vec<u8>> {
    ["repo/config", "repo/keys", "repo/spare"]
        .iter()
        .flat_map(|folder| match service.path(folder).is_dir() {
            true => service.files(folder),
            false => vec![service.path(folder)],
        })
        .filter_map(|f| Some((f.clone(), fs::read(f).ok()?)))
        .collect()
}

/// The remedy "cp A B" that a message names.
fn advised(done: &Done) -> Vec<String> {
    let (_, rest) = done.stderr.split_once("or cp ").expect("it says cp");
    let words = rest.split_whitespace().take(2);
    words
        .map(|w| w.trim_end_matches(['"', ';']).to_owned())
        .collect()
}

fn heals(which: [usize; 2]) {
    let service = Service::ready(LOGICAL);
    service.take("full");
    let before = contents(&service);
    let files = guarded(&service);
    for n in which {
        let (file, is_spare) = (&files[n], n % 2 == 1);
        for how in DAMAGES {
            damage(file, how, &files[(n + 2) % 4]);
            let found = if is_spare {
                service.backup(&["list"]).expect(0);
                service.backup(&["verify"]).expect(1)
            } else {
                service.backup(&["list"]).expect(78)
            };
            let what = format!("{} {how}: {}", file.display(), found.stderr);
            // Its advice is true, whether a person or the program follows it.
            let advice = advised(&found);
            assert_eq!(advice[1], file.to_str().unwrap(), "{what}");
            if how == "flipped" {
                fs::copy(&advice[0], &advice[1]).unwrap();
            } else {
                service.backup(&["repair", "--yes"]).expect(0);
            }
            assert!(contents(&service) == before, "{what}");
        }
    }
    service.backup(&["verify"]).expect(0);
}

#[test]
fn a_damaged_configuration_or_key_is_healed_from_its_spare_copy() {
    heals([0, 2]);
}

#[test]
fn a_damaged_spare_copy_is_healed_and_never_copied_over_the_good_file() {
    heals([1, 3]);
}

#[test]
fn of_each_pair_one_good_copy_is_enough() {
    let service = Service::ready(LOGICAL);
    let before = contents(&service);
    let files = guarded(&service);
    for bad in [[0, 3], [1, 2], [0, 2], [1, 3]] {
        damage(&files[bad[0]], "flipped", &files[2]);
        damage(&files[bad[1]], "emptied", &files[0]);
        service.backup(&["repair", "--yes"]).expect(0);
        assert!(contents(&service) == before, "{bad:?}");
    }
    service.backup(&["list"]).expect(0);
}

#[test]
fn where_both_copies_are_bad_nothing_is_touched() {
    let service = Service::ready(LOGICAL);
    service.take("full");
    let before = contents(&service);
    let files = guarded(&service);
    for pair in [[0, 1], [2, 3]] {
        for (here, beside) in [
            ("flipped", "flipped"),
            ("emptied", "swapped"),
            ("removed", "flipped"),
            ("removed", "removed"),
        ] {
            damage(&files[pair[0]], here, &files[(pair[0] + 2) % 4]);
            damage(&files[pair[1]], beside, &files[(pair[0] + 2) % 4]);
            let damaged = contents(&service);
            let output = service.backup(&["repair", "--yes"]);
            assert!(
                matches!(output.code, Some(1 | 78)),
                "{here}, {beside}: {output:?}"
            );
            if here != "removed" {
                assert!(
                    output.code == Some(1)
                        && output.stderr.contains(files[pair[0]].to_str().unwrap()),
                    "{output:?}"
                );
            }
            assert!(contents(&service) == damaged && !service.path("repo/damaged").exists());
            assert_ne!(service.backup(&["list"]).code, Some(0));
            service.backup(&["init"]);
            assert!(contents(&service) == damaged, "init touches nothing either");
            for (file, content) in &before {
                fs::write(file, content).unwrap();
            }
        }
    }
    // The password is what is wrong: who knows which copy is good?
    damage(&files[0], "flipped", &files[2]);
    let damaged = contents(&service);
    let mut wrong = service.command(&["repair", "--yes"]);
    let output = done(wrong.env("OA_BACKUP_PASSWORD", "another").output().unwrap()).expect(78);
    assert!(output.stderr.contains("password"), "{}", output.stderr);
    assert!(contents(&service) == damaged);
    service.backup(&["repair", "--yes"]).expect(0);
    assert!(contents(&service) == before);
}

fn add_key(service: &Service) -> PathBuf {
    let before = service.files("repo/keys");
    fs::write(service.path("new-password"), "another-key-for-tests").unwrap();
    let output = Command::new("restic")
        .args(["--no-cache", "-r"])
        .arg(service.path("repo"))
        .args(["key", "add", "--new-password-file"])
        .arg(service.path("new-password"))
        .env("RESTIC_PASSWORD", PASSWORD)
        .output()
        .expect("restic is installed (scripts/setup)");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let after = service.files("repo/keys");
    after.into_iter().find(|f| !before.contains(f)).unwrap()
}

/// Root without the right to pass over permissions.
fn without_rights(service: &Service, arguments: &[&str]) -> Done {
    let plain = service.command(arguments);
    if !rustix::process::geteuid().is_root() {
        return service.backup(arguments);
    }
    let mut command = Command::new("setpriv");
    command
        .arg("--bounding-set=-dac_override,-dac_read_search")
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap());
    }
    done(command.output().unwrap())
}

#[test]
fn a_second_key_that_is_damaged_or_unreadable_keeps_nobody_out() {
    let service = Service::ready(LOGICAL);
    service.take("full");
    let own = service.files("repo/keys").pop().unwrap();
    let second = add_key(&service);
    let whole = fs::read(&second).unwrap();
    fs::set_permissions(&second, fs::Permissions::from_mode(0o600)).unwrap();
    // Without a spare copy of it there is nothing to heal it from; it is left for whoever may know.
    damage(&second, "flipped", &own);
    let damaged = fs::read(&second).unwrap();
    service.backup(&["list"]).expect(0);
    let found = service.backup(&["verify"]).expect(1);
    assert!(
        found.stderr.contains(second.to_str().unwrap()),
        "{}",
        found.stderr
    );
    let output = service.backup(&["repair", "--yes"]).expect(1);
    assert!(
        output.stdout.contains(second.to_str().unwrap()),
        "{}",
        output.stdout
    );
    assert!(fs::read(&second).unwrap() == damaged);
    // With one, whatever its password is: a key's name says what is in it.
    fs::write(&second, &whole).unwrap();
    service.take("full");
    damage(&second, "flipped", &own);
    service.backup(&["repair", "--yes"]).expect(0);
    assert!(fs::read(&second).unwrap() == whole);

    fs::set_permissions(&second, fs::Permissions::from_mode(0o000)).unwrap();
    without_rights(&service, &["list"]).expect(0);
    let says = |output: &Done, file: &Path| {
        assert!(
            output.stderr.contains(file.to_str().unwrap())
                && output.stderr.contains("chown")
                && output.stderr.contains("chmod")
                && !output.stderr.contains("damaged"),
            "{}",
            output.stderr
        );
    };
    let output = without_rights(&service, &["verify"]).expect(1);
    assert!(
        output.stderr.contains("chown") && !output.stderr.contains("is damaged"),
        "{}",
        output.stderr
    );
    fs::set_permissions(&second, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(&own, fs::Permissions::from_mode(0o000)).unwrap();
    says(&without_rights(&service, &["list"]).expect(78), &own);
    says(
        &without_rights(&service, &["repair", "--yes"]).expect(78),
        &own,
    );
    fs::set_permissions(&own, fs::Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(service.path("repo"), fs::Permissions::from_mode(0o000)).unwrap();
    says(
        &without_rights(&service, &["list"]).expect(78),
        &service.path("repo"),
    );
    fs::set_permissions(service.path("repo"), fs::Permissions::from_mode(0o700)).unwrap();
    service.backup(&["verify"]).expect(0);
    // A folder above it is closed: what is said to do is what helps.
    fs::create_dir(service.path("disk")).unwrap();
    fs::rename(service.path("repo"), service.path("disk/repo")).unwrap();
    service.configure(LOGICAL);
    let config = fs::read_to_string(service.path("oa.toml")).unwrap();
    let config = config.replace("\"repo\"", "\"disk/repo\"");
    fs::write(service.path("oa.toml"), config).unwrap();
    fs::set_permissions(service.path("disk"), fs::Permissions::from_mode(0o000)).unwrap();
    let refused = without_rights(&service, &["list"]).expect(78).stderr;
    let (_, command) = refused.trim().split_once("root: ").unwrap();
    let done = Command::new("sh").args(["-c", command]).status().unwrap();
    assert!(done.success(), "{refused}");
    without_rights(&service, &["list"]).expect(0);
}

#[test]
fn init_makes_no_repository_over_what_is_left_of_one() {
    let service = Service::ready(LOGICAL);
    service.take("full");
    let config = service.path("repo/config");
    let whole = fs::read(&config).unwrap();
    let all = service.files("repo").len();
    fs::remove_file(&config).unwrap();
    for (command, code) in [
        ("init", 77),
        ("list", 78),
        ("full", 78),
        ("verify", 78),
        ("status", 78),
    ] {
        let output = service.backup(&[command]).expect(code);
        assert!(
            output.stderr.contains("no configuration")
                && output.stderr.contains("oa-backup repair"),
            "{command}: {}",
            output.stderr
        );
    }
    service.backup(&["init", "--anew"]).expect(77);
    assert_eq!(service.files("repo").len(), all - 1, "nothing was added");
    service.backup(&["repair", "--yes"]).expect(0);
    assert!(fs::read(&config).unwrap() == whole);
    assert_eq!(service.list().len(), 1);
    // Also where nothing would put it back, and only one sort of file is left.
    for left in ["keys", "snapshots", "index", "data"] {
        fs::create_dir(service.path("rest")).unwrap();
        fs::rename(service.path("repo"), service.path("rest/repo")).unwrap();
        fs::create_dir(service.path("repo")).unwrap();
        fs::rename(
            service.path("rest/repo").join(left),
            service.path("repo").join(left),
        )
        .unwrap();
        service.backup(&["init", "--anew"]).expect(77);
        assert!(!config.exists(), "{left}");
        fs::rename(
            service.path("repo").join(left),
            service.path("rest/repo").join(left),
        )
        .unwrap();
        fs::remove_dir(service.path("repo")).unwrap();
        fs::rename(service.path("rest/repo"), service.path("repo")).unwrap();
        fs::remove_dir(service.path("rest")).unwrap();
    }
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn an_empty_location_where_backups_were_recorded_may_not_be_mounted() {
    let service = Service::start(LOGICAL);
    let nothing = service.backup(&["list"]).expect(78);
    assert!(
        nothing.stderr.contains("create it with: oa-backup init"),
        "{}",
        nothing.stderr
    );
    let copy = format!("{LOGICAL}\n[backup.copy]\nrepository = \"second\"");
    service.configure(&copy);
    service.backup(&["init"]).expect(0);
    let id = service.take("full")[0]["short_id"]
        .as_str()
        .unwrap()
        .to_owned();
    service.take("full");
    service.backup(&["copy"]).expect(0);
    for (folder, commands) in [
        (
            "repo",
            [
                &["full", "--cron"][..],
                &["status"],
                &["verify"],
                &["repair", "--yes"],
            ],
        ),
        (
            "second",
            [
                &["copy"][..],
                &["list", "--copy"],
                &["verify", "--copy"],
                &["prune", "--copy", "--yes"],
            ],
        ),
    ] {
        let (here, away) = (service.path(folder), service.path("away"));
        fs::rename(&here, &away).unwrap();
        for empty in [false, true] {
            if empty {
                fs::create_dir(&here).unwrap();
            }
            let says = |output: &Done| {
                let text = &output.stderr;
                assert!(
                    text.contains("2 backups were recorded there") && text.contains("mounted"),
                    "{folder}: {text}"
                );
            };
            for command in commands {
                says(&service.backup(command).expect(78));
            }
            says(&service.backup(&["init"]).expect(77));
        }
        assert_eq!(
            fs::read_dir(&here).unwrap().count(),
            0,
            "nothing was made there"
        );
        fs::remove_dir(&here).unwrap();
        if folder == "repo" {
            let planned = done(
                service
                    .restore(&["plan", "--to", "latest"])
                    .output()
                    .unwrap(),
            )
            .expect(78);
            assert!(
                planned.stderr.contains("2 backups were recorded there"),
                "{}",
                planned.stderr
            );
        }
        fs::rename(&away, &here).unwrap();
    }
    assert!(service.list().iter().any(|b| b["short_id"] == *id));
    fs::rename(service.path("repo"), service.path("away")).unwrap();
    service.backup(&["init", "--anew"]).expect(0);
    service.take("full");
    service.backup(&["verify"]).expect(0);
    service.backup(&["status"]).expect(0);
}

fn open_to_others(service: &Service, folders: &[&str]) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> = folders.iter().map(|f| service.path(f)).collect();
    let mut found = Vec::new();
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().unwrap();
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
        if !meta.is_symlink() && meta.permissions().mode() & 0o077 != 0 {
            found.push(path);
        }
    }
    found
}

fn with_umask(service: &Service, umask: &str, arguments: &[&str]) {
    let plain = service.command(arguments);
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("umask {umask}; exec \"$@\""), "sh"])
        .arg(plain.get_program())
        .args(plain.get_args());
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap());
    }
    done(command.output().unwrap()).expect(0);
}

#[test]
fn no_other_user_can_read_a_repository_whatever_the_umask() {
    let nobody: Vec<PathBuf> = Vec::new();
    for (umask, kind) in [("022", "logical"), ("000", "physical")] {
        let service = Service::start("");
        service.configure(&format!(
            "kind = \"{kind}\"\n[backup.copy]\nrepository = \"second\""
        ));
        // Somebody has made its folder, and some of what belongs into it.
        fs::create_dir_all(service.path("repo/data")).unwrap();
        with_umask(&service, umask, &["init"]);
        assert_eq!(open_to_others(&service, &["repo"]), nobody, "{umask}");
        for command in ["full", "copy"] {
            with_umask(&service, umask, &[command]);
        }
        let all = ["repo", "second", "state/backup"];
        assert_eq!(open_to_others(&service, &all), nobody, "{umask}");
    }
}

#[test]
fn what_was_left_open_is_reported_and_closed_by_whatever_writes() {
    let nobody: Vec<PathBuf> = Vec::new();
    let service = Service::start("");
    service.configure("kind = \"logical\"\n[backup.copy]\nrepository = \"second\"");
    service.backup(&["init"]).expect(0);
    for (folder, writes) in [
        ("repo", &["full"][..]),
        ("repo", &["repair", "--yes"]),
        ("repo", &["init"]),
        ("repo", &["prune", "--yes"]),
        ("second", &["copy"]),
    ] {
        let opened = Command::new("chmod")
            .args(["-R", "go+rX"])
            .arg(service.path(folder))
            .status();
        assert!(opened.unwrap().success());
        if writes[0] == "repair" {
            let warned = service.backup(&["verify"]).expect(0);
            assert!(warned.stderr.contains("other users"), "{}", warned.stderr);
        }
        with_umask(&service, "022", writes);
        assert_eq!(open_to_others(&service, &[folder]), nobody, "{writes:?}");
    }
}

#[test]
fn a_pipe_among_the_keys_of_a_repository_is_passed_over() {
    let service = Service::ready(LOGICAL);
    let pipe = service.path(&format!("repo/keys/{}", "a".repeat(64)));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.unwrap().success());
    service.take("full");
    service.backup(&["verify"]).expect(0);
}
