//! Killed at any point: the repository opens, every listed backup is whole, and the next backup works.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::time::{Duration, Instant};

use common::Service;

fn all_whole(service: &Service, when: &str) {
    let verified = service.backup(&["verify", "--read-data"]);
    assert_eq!(
        verified.code,
        Some(0),
        "{when}: {}{}",
        verified.stdout,
        verified.stderr
    );
}

#[test]
fn at_every_named_point_what_is_listed_is_whole() {
    let service = Service::ready("kind = \"physical\"\nkeep_daily = 1\nkeep_weekly = 1");
    service.take("full");
    for point in [
        "run.begun",
        "backup.copied",
        "backup.stored",
        "backup.published",
        "backup.wal_received",
        "run.finish.begin",
        "run.finish.stored",
    ] {
        service.killed_at(point, &["full"]);
        all_whole(&service, point);
        service
            .db()
            .batch_execute("UPDATE quotes SET price = price + 1 WHERE id % 10 = 0")
            .unwrap();
    }
    for point in [
        "run.begun",
        "backup.wal_received",
        "backup.stored",
        "backup.published",
        "run.finish.begin",
    ] {
        service.killed_at(point, &["incremental"]);
        all_whole(&service, point);
    }
    service.killed_at("backup.forgotten", &["prune", "--yes"]);
    all_whole(&service, "backup.forgotten");
    service.take("full");
    service.take("incremental");
    all_whole(&service, "at the end");
    assert_eq!(
        service.number("SELECT count(*) FROM oa.runs WHERE status = 'abandoned'"),
        12
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.runs WHERE finished_at IS NULL"),
        0
    );
    assert_eq!(
        service.number("SELECT count(*) FROM oa.backups WHERE removed_at IS NULL"),
        i64::try_from(service.list().len()).unwrap(),
        "the records follow the repository"
    );
}

#[test]
fn killed_at_random_what_is_listed_is_whole() {
    let mut service = Service::ready("kind = \"physical\"");
    let began = Instant::now();
    service.take("full");
    let whole = began.elapsed();
    // More of them by hand: NEXTEST_PROFILE=long OA_BACKUP_KILLS=300 scripts/test random_moments
    let kills: u32 = std::env::var("OA_BACKUP_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(12);
    for n in 0..kills {
        service
            .db()
            .batch_execute("UPDATE quotes SET price = price + 1 WHERE id % 7 = 0")
            .unwrap();
        let level = if n % 3 == 0 { "incremental" } else { "full" };
        let mut child = service.command(&[level]).spawn().unwrap();
        // Spread over the whole length of a backup; not a wait for something.
        std::thread::sleep(whole * (n + 1) / (kills + 1));
        match n % 4 {
            // The program itself.
            0 | 1 => child.kill().unwrap(),
            // One of PostgreSQL's programs that work for it, if one does now.
            2 => end_a_child(child.id()),
            // The server.
            _ => {
                service.server.kill();
                let _ = child.wait();
                service.server.start_again();
            }
        }
        let _ = child.wait();
        let listed = service.backup(&["verify"]);
        assert_eq!(
            listed.code,
            Some(0),
            "kill {n}: {}{}",
            listed.stdout,
            listed.stderr
        );
    }
    service.take("full");
    service.take("incremental");
    all_whole(&service, "at the end");
    // What is listed does not only look whole: it restores.
    for arguments in [
        &["drill", "--yes"][..],
        &["drill", "--random", "--yes"],
        &["drill", "--random", "--yes"],
    ] {
        common::done(service.restore(arguments).output().unwrap()).expect(0);
    }
}

/// Kills a child of that process with SIGKILL, if there is one of PostgreSQL's programs.
fn end_a_child(parent: u32) {
    let ended = oa_children(parent).into_iter().find(|pid| {
        std::fs::read_to_string(format!("/proc/{pid}/comm"))
            .is_ok_and(|name| name.starts_with("pg_"))
    });
    if let Some(pid) = ended
        .and_then(|p| i32::try_from(p).ok())
        .and_then(rustix::process::Pid::from_raw)
    {
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
    }
}

fn oa_children(parent: u32) -> Vec<u32> {
    let task = format!("/proc/{parent}/task/{parent}/children");
    let text = std::fs::read_to_string(task).unwrap_or_default();
    text.split_whitespace()
        .filter_map(|p| p.parse().ok())
        .collect()
}

#[test]
fn a_program_that_hangs_ends_with_the_one_that_started_it() {
    let service = Service::ready("kind = \"physical\"\nlimit_rate = \"64KiB\"");
    let mut child = service.command(&["full"]).spawn().unwrap();
    let copy = std::cell::RefCell::new(Vec::new());
    oa_testkit::wait_until("pg_basebackup to run", Duration::from_secs(60), || {
        *copy.borrow_mut() = oa_children(child.id());
        copy.borrow().iter().any(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .is_ok_and(|n| n.starts_with("pg_basebackup"))
        })
    });
    child.kill().unwrap();
    child.wait().unwrap();
    oa_testkit::wait_until("it to end", Duration::from_secs(20), || {
        copy.borrow().iter().all(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .map_or(true, |s| s.contains(") Z "))
        })
    });
    service.configure("kind = \"physical\"");
    service.take("full");
}
