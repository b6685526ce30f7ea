//! Either store suffices: a disk that is full or broken costs nothing while PostgreSQL answers, and only without both is anything
//! refused, which people hear of all the same.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::io::Read;
use std::process::Command;

use common::{DAY, Done, Service};
use oa_sim::sites::zhihui;
use oa_testkit::SmallDisk;

/// Takes what the disk has left.
fn fill(disk: &SmallDisk) {
    let mut filler = fs::File::create(disk.path().join("filler")).unwrap();
    let filled = std::io::copy(&mut std::io::repeat(7).take(1 << 26), &mut filler);
    assert!(filled.is_err(), "the disk is full");
}

fn empty(disk: &SmallDisk) {
    for entry in fs::read_dir(disk.path()).unwrap() {
        let path = entry.unwrap().path();
        let _ = fs::remove_dir_all(&path).or_else(|_| fs::remove_file(&path));
    }
}

fn remount(disk: &SmallDisk, how: &str) {
    let done = Command::new("mount")
        .args(["-o", &format!("remount,{how}")])
        .arg(disk.path())
        .status();
    assert!(done.unwrap().success());
}

fn alerted(service: &Service) {
    let config = fs::read_to_string(service.config()).unwrap();
    let hook = format!("{}/dingtalk/robot/send?access_token=t", service.sim.base());
    let channel =
        format!("[[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"{hook}\"\n");
    fs::write(
        service.config(),
        format!("{config}[alert]\ngroup_wait = \"0s\"\n{channel}"),
    )
    .unwrap();
}

/// `oa-alert`, which it starts, is beside it.
fn run(service: &Service) -> Done {
    assert!(oa_testkit::program("oa-alert").is_file());
    service.run("zhihui-full-view")
}

fn titles(service: &Service) -> Vec<String> {
    let messages = service.sim.messages();
    messages.into_iter().map(|m| m.title).collect()
}

#[test]
fn a_full_or_broken_disk_loses_no_day_that_postgresql_can_take() {
    let service = Service::start();
    alerted(&service);
    let Some(disk) = SmallDisk::mount(&service.state(), "1m") else {
        return;
    };
    let rows = "SELECT count(*)::text FROM market_full_view";
    let due = zhihui::full_view(1, DAY.parse().unwrap()).len().to_string();
    let last = |what: &str| {
        service.text(&format!(
            "SELECT coalesce(({what})::text, '') FROM oa.runs ORDER BY seq DESC LIMIT 1"
        ))
    };
    let is_open = "SELECT count(*)::text FROM oa.incidents WHERE rule = 'spool_broken' AND resolved_at IS NULL";
    for broken in ["full", "read-only"] {
        empty(&disk);
        assert_eq!(run(&service).code, 0);
        assert_eq!(service.text(is_open), "0", "nothing is wrong, or no more");
        service
            .db()
            .batch_execute("DELETE FROM market_full_view")
            .unwrap();
        empty(&disk);
        match broken {
            "full" => fill(&disk),
            _ => remount(&disk, "ro"),
        }
        let done = run(&service);
        assert_eq!(done.code, 1, "{broken}: {done:?}");
        assert!(!done.stderr.contains("panicked"), "{broken}: {done:?}");
        assert_eq!(done.row()["status"], "partial", "{broken}: {done:?}");
        assert_eq!(service.text(rows), due, "{broken}: {done:?}");
        assert_eq!(last("status"), "partial");
        assert_eq!(last("details->'not_archived'->>'answers'"), "1");
        assert!(last("error_message").starts_with("not archived: "));
        assert_eq!(service.text(is_open), "1", "{broken}");
    }
    assert!(
        titles(&service)
            .iter()
            .any(|t| t.contains("本机暂存无法使用")),
        "{:?}",
        titles(&service)
    );
}

#[test]
fn without_either_store_it_is_refused_and_people_hear_of_it_once_and_of_its_end() {
    let mut service = Service::start();
    alerted(&service);
    let Some(disk) = SmallDisk::mount(&service.state(), "1m") else {
        return;
    };
    assert_eq!(run(&service).code, 0);
    let asked = |service: &Service| {
        let requests = service.sim.requests();
        requests
            .iter()
            .filter(|r| r.path.contains("overallView"))
            .count()
    };
    assert_eq!(asked(&service), 1);
    fill(&disk);
    service.server.stop();
    for _ in 0..2 {
        let done = run(&service);
        assert_eq!(done.code, 1, "{done:?}");
        assert!(
            done.stderr.contains("cannot wait on this machine")
                && !done.stderr.contains("panicked"),
            "{done:?}"
        );
    }
    assert_eq!(asked(&service), 1, "the site is left alone");
    let about = |service: &Service| -> Vec<String> {
        let of =
            |t: &String| t.contains("数据库和本机磁盘都无法写入") || t.contains("又能存放结果");
        titles(service).into_iter().filter(of).collect()
    };
    assert_eq!(about(&service).len(), 1, "{:?}", titles(&service));
    service.server.start_again();
    let done = run(&service);
    assert_eq!(
        done.row()["status"],
        "success",
        "the answer is in the archive: {done:?}"
    );
    // As cron does each minute.
    let flushed = Command::new(oa_testkit::program("oa-alert"))
        .arg("--config")
        .arg(service.config())
        .arg("flush")
        .env("DATABASE_URL", &service.url)
        .output();
    assert!(flushed.unwrap().status.success());
    let sent = about(&service);
    assert!(
        sent.len() == 2 && sent[1].contains("【恢复】"),
        "{:?}",
        titles(&service)
    );
}
