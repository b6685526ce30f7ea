//! What belongs to somebody else, or may be changed by others, is not used; secrets are nowhere in what comes out.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::process::Command;

use common::{Done, Service};

/// An account that is not this one, and has no name either.
const SOMEBODY: u32 = 65_432;

fn is_root() -> bool {
    let root = fs::metadata("/proc/self").unwrap().uid() == 0;
    if !root {
        println!("skipped: only root can give files away");
    }
    root
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn list_in(service: &Service, folder: &Path) -> Done {
    let mut command = service.command(&[]);
    let program = command.get_program().to_owned();
    command = Command::new(program);
    command
        .arg("list")
        .current_dir(folder)
        .env_remove("OA_CONFIG");
    command.output().unwrap().into()
}

#[test]
fn a_configuration_of_another_user_is_refused_wherever_it_is() {
    let service = Service::start();
    let config = service.config();
    assert_eq!(list_in(&service, service.dir.path()).code, 0, "one's own");
    for open in [0o666, 0o606] {
        set_mode(&config, open);
        let done = service.crawl(&["list"]);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(
            done.stderr
                .contains(&format!("run: chmod go-w {}", config.display())),
            "{done:?}"
        );
    }
    set_mode(&config, 0o644);
    assert_eq!(service.crawl(&["list"]).code, 0);
    if !is_root() {
        return;
    }
    // A link of somebody else's that leads to a file of one's own.
    let real = service.dir.path().join("real.toml");
    fs::rename(&config, &real).unwrap();
    symlink(&real, &config).unwrap();
    std::os::unix::fs::lchown(&config, Some(SOMEBODY), None).unwrap();
    let linked = service.crawl(&["list"]);
    assert_eq!(linked.code, 78, "{linked:?}");
    fs::remove_file(&config).unwrap();
    fs::rename(&real, &config).unwrap();
    chown(&config, Some(SOMEBODY), None).unwrap();
    for done in [
        service.crawl(&["list"]),
        list_in(&service, service.dir.path()),
    ] {
        assert_eq!((done.code, done.stdout.as_str()), (78, ""), "{done:?}");
        assert!(
            done.stderr.contains("belongs to 65432") && done.stderr.contains("chown root"),
            "{done:?}"
        );
    }
    chown(&config, Some(0), None).unwrap();
    // Whom an access list lets write stands behind the group's bits.
    let list: [u16; 5] = [0x01, 0x02, 0x04, 0x10, 0x20];
    let mut access = 2u32.to_le_bytes().to_vec();
    for (tag, rights) in list.into_iter().zip([6u16, 6, 4, 6, 4]) {
        let whose = if tag == 0x02 { SOMEBODY } else { u32::MAX };
        access.extend([tag.to_le_bytes(), rights.to_le_bytes()].concat());
        access.extend(whose.to_le_bytes());
    }
    let flags = rustix::fs::XattrFlags::empty();
    if rustix::fs::setxattr(&config, "system.posix_acl_access", &access, flags).is_ok() {
        let done = service.crawl(&["list"]);
        assert!(done.stderr.contains("may be changed by others"), "{done:?}");
        rustix::fs::removexattr(&config, "system.posix_acl_access").unwrap();
        set_mode(&config, 0o644);
    }
    // Nor does a pipe of somebody else's keep us waiting.
    fs::rename(&config, &real).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(&config)
            .status()
            .unwrap()
            .success()
    );
    chown(&config, Some(SOMEBODY), None).unwrap();
    assert_eq!(service.crawl(&["list"]).code, 78);
    fs::rename(&real, &config).unwrap();
    assert_eq!(service.crawl(&["list"]).code, 0);
    let env = service.dir.path().join(".env");
    chown(&env, Some(SOMEBODY), None).unwrap();
    assert_eq!(service.crawl(&["list"]).code, 78, "nor its .env");
    chown(&env, Some(0), None).unwrap();
    // Source files and the calendar say what is run, too.
    let own = service.dir.path().join("own");
    service.export_sources();
    service.configure("sources = \"own\"\n");
    assert_eq!(service.crawl(&["list"]).code, 0);
    let file = own.join("fangqi-night.toml");
    chown(&file, Some(SOMEBODY), None).unwrap();
    let done = service.crawl(&["list"]);
    assert!(
        done.stderr.contains("fangqi-night.toml belongs to 65432"),
        "{done:?}"
    );
    chown(&file, Some(0), None).unwrap();
    set_mode(&own, 0o777);
    let done = service.crawl(&["list"]);
    assert!(done.stderr.contains("chmod go-w"), "{done:?}");
}

#[test]
fn secrets_that_others_may_read_are_refused_with_the_command_that_mends_it() {
    let service = Service::start();
    let env = service.dir.path().join(".env");
    for open in [0o644, 0o604, 0o666, 0o660, 0o601] {
        set_mode(&env, open);
        let done = service.crawl(&["run", "zhihui-full-view"]);
        assert_eq!(done.code, 78, "{open:o}: {done:?}");
        // The advice is what it takes.
        let advice = done.stderr.split("run: ").nth(1).unwrap().trim();
        let mended = Command::new("sh").args(["-c", advice]).status().unwrap();
        assert!(mended.success(), "{advice}");
        assert_eq!(service.crawl(&["list"]).code, 0, "{open:o}");
        assert_eq!(mode(&env) & 0o027, 0);
    }
    for closed in [0o600, 0o400, 0o640] {
        set_mode(&env, closed);
        assert_eq!(service.crawl(&["list"]).code, 0, "{closed:o}");
    }
    // A file with one secret likewise.
    let text = fs::read_to_string(service.config()).unwrap();
    let file = service.dir.path().join("address");
    oa_testkit::write_private(&file, &service.url);
    fs::write(
        service.config(),
        text.replace("env:DATABASE_URL", "file:address"),
    )
    .unwrap();
    let drain = || -> Done {
        let mut command = service.command(&["drain"]);
        command.env_remove("DATABASE_URL").output().unwrap().into()
    };
    assert_eq!(drain().code, 0);
    set_mode(&file, 0o644);
    let done = drain();
    assert_eq!(done.code, 78, "{done:?}");
    assert!(done.stderr.contains("chmod 600"), "{done:?}");
}

#[test]
fn the_state_of_another_user_is_left_alone() {
    let service = Service::start();
    assert_eq!(service.run("zhihui-full-view").code, 0);
    let state = service.state();
    for open in [0o777, 0o770, 0o1777] {
        set_mode(&state, open);
        let done = service.run("zhihui-full-view");
        assert_eq!(done.code, 77, "{done:?}");
        assert!(
            done.stderr
                .contains(&format!("run: chmod 700 {}", state.display())),
            "{done:?}"
        );
    }
    set_mode(&state, 0o700);
    assert_eq!(service.run("zhihui-full-view").code, 0);
    if !is_root() {
        return;
    }
    let listing = || {
        let mut found: Vec<_> = fs::read_dir(&state)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        found.sort();
        found
    };
    chown(&state, Some(SOMEBODY), None).unwrap();
    let before = listing();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 77, "{done:?}");
    assert!(
        done.stderr
            .contains("run it as 65432: sudo -u 65432 oa-crawl"),
        "{done:?}"
    );
    assert_eq!(listing(), before);
    // A link of theirs says where files of ours would go.
    chown(&state, Some(0), None).unwrap();
    let real = service.dir.path().join("real");
    fs::rename(&state, &real).unwrap();
    symlink(&real, &state).unwrap();
    assert_eq!(service.run("zhihui-full-view").code, 0, "one's own link");
    std::os::unix::fs::lchown(&state, Some(SOMEBODY), None).unwrap();
    let done = service.run("zhihui-full-view");
    assert_eq!(done.code, 77, "{done:?}");
    assert!(done.stderr.contains("belongs to 65432"), "{done:?}");
}

#[test]
fn whatever_the_umask_nobody_else_may_read_what_is_made() {
    let service = Service::start();
    let run = |umask: &str, arguments: &[&str]| {
        let program = service.command(&[]).get_program().to_owned();
        let script = format!("umask {umask}; exec \"$@\"");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, "sh"])
            .arg(program)
            .arg("--config")
            .arg(service.config());
        let done = command
            .args(arguments)
            .env("DATABASE_URL", &service.url)
            .output()
            .unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    run("000", &["run", "zhihui-full-view", "--date", common::DAY]);
    run("000", &["exec", "--task", "mine", "--", "true"]);
    let mut folders = vec![service.state()];
    let mut seen = 0;
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                seen += 1;
                assert_eq!(mode(&path), 0o600, "{}", path.display());
            }
        }
    }
    assert!(seen > 3, "{seen}");
    // A program that is only run makes its files as its user wants them.
    let file = service.dir.path().join("theirs");
    run(
        "022",
        &[
            "exec",
            "--task",
            "mine",
            "--",
            "touch",
            file.to_str().unwrap(),
        ],
    );
    assert_eq!(mode(&file), 0o644);
}

#[test]
fn try_without_a_configuration_uses_a_new_folder_and_follows_no_link() {
    let service = Service::start();
    let temporary = service.temporary();
    let victim = service.dir.path().join("victim");
    fs::create_dir(&victim).unwrap();
    fs::create_dir(victim.join("old")).unwrap();
    symlink(&victim, temporary.join("oa-crawl-try")).unwrap();
    let file = service.dir.path().join("a.toml");
    let text = include_str!("../sources/fangqi-night.toml");
    fs::write(&file, text).unwrap();
    let mut command = Command::new(service.command(&[]).get_program());
    command
        .args([
            "try",
            file.to_str().unwrap(),
            "--url",
            &service.sim.site("fangqi"),
        ])
        .current_dir(&victim)
        .env("TMPDIR", &temporary);
    let done: Done = command.output().unwrap().into();
    assert!(done.code == 0 || done.code == 1, "{done:?}");
    assert!(victim.join("old").is_dir());
    assert_eq!(
        fs::read_dir(&temporary).unwrap().count(),
        1,
        "and it is gone again"
    );
}

/// Every text in every table.
fn database(service: &Service) -> String {
    let mut client = service.db();
    let tables = client
        .query("SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname IN ('oa', 'public')", &[])
        .unwrap();
    let mut all = String::new();
    for table in tables {
        let table: String = table.get(0);
        let rows = client
            .query(&format!("SELECT t::text FROM {table} t"), &[])
            .unwrap();
        for row in rows {
            all.push_str(&row.get::<_, String>(0));
            all.push('\n');
        }
    }
    all
}

#[test]
fn a_password_that_is_not_encoded_is_shown_nowhere() {
    let service = Service::start();
    let alert = |arguments: &[&str], url: &str| -> Done {
        Command::new(oa_testkit::program("oa-alert"))
            .arg("--config")
            .arg(service.config())
            .args(arguments)
            .env("DATABASE_URL", url)
            .output()
            .unwrap()
            .into()
    };
    for url in [
        "postgresql://oa:Geheim66@Passwort77@127.0.0.1:54999/oa",
        "postgresql://oa:Geheim66/Passwort77@127.0.0.1:54999/oa",
        "postgresql://oa:12?Passwort77@127.0.0.1:54999/oa",
        "postgresql://oa:Geheim66#Passwort77@127.0.0.1:54999/oa",
        "postgresql://oa:Geheim66:Passwort77@127.0.0.1:54999/oa",
        "postgresql://oa:Passwort77%@127.0.0.1:54999/oa",
    ] {
        let crawl: Done = service
            .command(&["run", "zhihui-full-view"])
            .env("DATABASE_URL", url)
            .output()
            .unwrap()
            .into();
        assert_eq!(crawl.code, 78, "{crawl:?}");
        assert!(crawl.stderr.contains("percent-encode"), "{crawl:?}");
        for done in [crawl, alert(&["check"], url), alert(&["list"], url)] {
            assert_eq!(done.code, 78, "{done:?}");
            for part in ["Geheim66", "Passwort77"] {
                assert!(!format!("{done:?}").contains(part), "{done:?}");
            }
        }
    }
}

#[test]
fn what_a_program_prints_about_its_tokens_is_stored_and_sent_without_them() {
    let service = Service::start();
    service.configure("retries = 0\n");
    let config = fs::read_to_string(service.config()).unwrap();
    let hook = format!(
        "{}/dingtalk/robot/send?access_token=hook-token-55",
        service.sim.base()
    );
    fs::write(
        service.config(),
        format!(
            "{config}[[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"env:HOOK\"\n"
        ),
    )
    .unwrap();
    oa_testkit::write_private(
        &service.dir.path().join(".env"),
        format!("HOOK={hook}\nMY_SECRET='pa\"ss word/66'\n"),
    );
    let script = r#"
echo 'Max retries exceeded with url: /data/receipts?token=abc12344 (Caused by x)' >&2
echo 'connect to oa:abc12344@10.0.0.1 failed; Authorization: Bearer abc12344' >&2
echo 'Cookie: sid=abc12344; other=abc12344' >&2
echo '{"password": "abc12344", "code": 1}'
echo 'dsn host=h password=abc12344 pa%22ss%20word%2F66 cGEic3Mgd29yZC82Ng== pa\"ss word/66' >&2
exit 3"#;
    let done: Done = service
        .command(&[
            "-vv", "exec", "--task", "receipts", "--", "sh", "-c", script,
        ])
        .env(
            "PATH",
            format!(
                "{}:/usr/bin:/bin",
                oa_testkit::program("oa-alert").parent().unwrap().display()
            ),
        )
        .output()
        .unwrap()
        .into();
    assert_eq!(done.code, 1, "{done:?}");
    let report = |arguments: &[&str]| -> Done {
        Command::new(oa_testkit::program("oa-report"))
            .arg("--config")
            .arg(service.config())
            .args(arguments)
            .env("DATABASE_URL", &service.url)
            .output()
            .unwrap()
            .into()
    };
    // The address holds the robot's token, as it must; what is said to people does not.
    let sent: Vec<_> = service
        .sim
        .messages()
        .into_iter()
        .map(|m| (m.title, m.text))
        .collect();
    assert!(format!("{sent:?}").contains("receipts"), "{sent:?}");
    let stored = database(&service);
    assert!(stored.contains("Max retries exceeded"), "{stored}");
    let mut all = format!("{done:?}{sent:?}{stored}");
    for arguments in [
        &["logs"][..],
        &["logs", "--format", "csv"],
        &["html"],
        &["daily"],
    ] {
        all.push_str(&format!("{:?}", report(arguments)));
    }
    // And while PostgreSQL is down, in the spool.
    service
        .command(&["exec", "--task", "receipts", "--", "sh", "-c", script])
        .env("DATABASE_URL", "postgresql://oa:abc12344@127.0.0.1:9/oa")
        .output()
        .map(|o| all.push_str(&format!("{:?}", Done::from(o))))
        .unwrap();
    let spool = fs::read(service.state().join("spool.db")).unwrap();
    all.push_str(&String::from_utf8_lossy(&spool));
    for secret in [
        "abc12344",
        "hook-token-55",
        "ss word/66",
        "ss%20word%2F66",
        "cGEic3Mgd29yZC82Ng",
    ] {
        let at = all.find(secret);
        let around = at.map(|at| {
            all[at.saturating_sub(80)..]
                .chars()
                .take(200)
                .collect::<String>()
        });
        assert_eq!(around, None, "{secret}");
    }
}
