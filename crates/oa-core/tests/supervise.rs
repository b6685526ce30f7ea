//! Everything that a supervised program starts is held, however it tries to get away.
#![allow(clippy::unwrap_used, missing_docs)]

use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use oa_core::base::supervise::{Ended, Finished, Launch};
use rustix::process::{Pid, Signal, kill_process};

fn sh(script: &str, timeout: Duration) -> Finished {
    Launch::new(timeout)
        .run(Command::new("sh").args(["-c", script]))
        .unwrap()
}

fn pids(printed: &[u8]) -> Vec<i32> {
    let text = String::from_utf8_lossy(printed);
    text.split_whitespace()
        .filter_map(|w| w.parse().ok())
        .collect()
}

fn is_gone(pid: i32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |s| s.contains(") Z "))
}

/// Ways of leaving the process group.
const ESCAPES: [&str; 6] = [
    "timeout 300 sh -c 'echo $$; sleep 300'",
    "setsid sh -c 'echo $$; sleep 300'",
    "nohup sh -c 'echo $$; sleep 300' 2>/dev/null",
    "setsid sh -c 'setsid sh -c \"setsid sleep 300 & echo \\$!\" &'",
    "env -i /usr/bin/setsid /bin/sh -c '/bin/sleep 300 & echo $!'",
    "setsid sh -c 'trap \"\" TERM HUP INT; echo $$; while :; do sleep 1; done'",
];

#[test]
fn whatever_leaves_the_group_ends_with_the_time_limit() {
    for escape in ESCAPES {
        let began = Instant::now();
        let done = sh(&format!("{escape} & sleep 300"), Duration::from_secs(1));
        assert_eq!(done.ended, Some(Ended::TimedOut), "{escape}");
        let pids = pids(&done.stdout);
        assert!(
            !pids.is_empty() && pids.iter().all(|p| is_gone(*p)),
            "{escape}: {pids:?}"
        );
        assert!(done.still_there.is_empty());
        assert!(began.elapsed() < Duration::from_secs(60), "{escape}");
    }
}

#[test]
fn what_a_program_leaves_behind_ends_with_it_and_is_named() {
    for escape in ESCAPES {
        // It has the script's output open, too, and the script ends when it has got away.
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().display();
        let script = format!(
            "exec 3>&1; {{ {escape}; }} >{path} & until [ -s {path} ]; do sleep 0.01; done; cat {path}"
        );
        let done = sh(&script, Duration::from_secs(60));
        assert!(done.status.success() && done.ended.is_none(), "{escape}");
        let pids = pids(&done.stdout);
        assert!(
            !pids.is_empty() && pids.iter().all(|p| is_gone(*p)),
            "{escape}: {pids:?}"
        );
        assert!(!done.left_behind.is_empty(), "{escape}");
    }
    let done = sh("true", Duration::from_secs(60));
    assert_eq!(done.left_behind, Vec::<String>::new());
}

#[test]
fn programs_at_the_same_time_leave_each_other_alone() {
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let script = "setsid sleep 300 & for i in 1 2 3; do setsid -w sh -c 'sleep 0.1; echo $PPID >/dev/null'; done; echo whole";
                let done = sh(script, Duration::from_secs(60));
                assert_eq!(done.stdout, b"whole\n");
                assert_eq!(done.left_behind.len(), 1, "{:?}", done.left_behind);
            });
        }
    });
}

#[test]
fn a_daemon_lives_on_where_leaving_it_is_what_the_program_is_for() {
    let launch = Launch {
        leaves_daemon: true,
        ..Launch::new(Duration::from_secs(60))
    };
    let script = "setsid sleep 300 >/dev/null 2>&1 & echo $!";
    let done = launch.run(Command::new("sh").args(["-c", script])).unwrap();
    sh("true", Duration::from_secs(60));
    let daemon = pids(&done.stdout)[0];
    assert!(!is_gone(daemon));
    kill_process(Pid::from_raw(daemon).unwrap(), Signal::KILL).unwrap();
}
