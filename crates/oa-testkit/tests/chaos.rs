//! A few rounds of `scripts/chaos`, so that it works on the day on which somebody wants an hour of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::process::Command;

use oa_testkit::{program, workspace_root};

#[test]
fn a_few_days_with_faults_lose_nothing_and_leave_nothing_behind() {
    let programs = program("oa-crawl");
    let dir = oa_testkit::temp_dir();
    let done = Command::new(workspace_root().join("scripts/chaos"))
        .args(["--rounds", "5", "--minutes", "0.7", "--seed", "5"])
        .args(["--restores", "0", "--dir"])
        .arg(dir.path())
        .env("OA_BIN", programs.parent().unwrap())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(
        done.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&done.stdout)
    );
}
