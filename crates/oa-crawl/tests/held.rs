//! A program is held with everything it starts: by the time limit, by signals, after `kill -9`, and across containers.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use common::processes::{exec, has_ended, pid_in};
use common::{Done, Service};
use oa_testkit::{Terminal, wait_until};
use rustix::process::{Pid, Signal, kill_process};

/// Writes its process id into a file `NAME` and goes on for ever, deaf to SIGTERM, outside the program's process group.
fn deaf(name: &str) -> String {
    format!("setsid sh -c 'trap \"\" TERM HUP INT; echo $$ > {name}; while :; do sleep 1; done' & ")
}

fn started(service: &Service, arguments: &[&str]) -> std::process::Child {
    service
        .command(arguments)
        .current_dir(service.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

fn pid_of(child: &std::process::Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap()
}

/// The guard, which would end what a killed run leaves.
fn kill_guard_of(program: Pid) {
    let guard = rustix::process::getpgid(Some(program)).unwrap();
    kill_process(guard, Signal::KILL).unwrap();
}

#[test]
fn the_time_limit_holds_for_what_has_left_the_process_group() {
    let service = Service::start();
    for script in [
        "timeout 600 sh -c 'echo $$ > escaped; sleep 600'".to_owned(),
        "nohup setsid sh -c 'echo $$ > escaped; sleep 600' & sleep 600".to_owned(),
        "(setsid sh -c '(echo $$ > escaped; exec env -i /bin/sleep 600) &' &); sleep 600"
            .to_owned(),
        deaf("escaped") + "wait",
    ] {
        let file = service.dir.path().join("escaped");
        let _ = fs::remove_file(&file);
        let done = exec(&service, &["--retries", "0", "--timeout", "2s"], &script);
        assert_eq!(done.row()["status"], "timeout", "{script}: {done:?}");
        assert!(has_ended(pid_in(&file).unwrap()), "{script}");
        let took = done.row()["seconds"].as_f64().unwrap();
        assert!(took < 60.0, "{script}: {took} s");
    }
}

#[test]
fn every_stop_signal_ends_the_whole_tree_and_leaves_a_final_row() {
    let service = Service::start();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        let file = service.dir.path().join("pid");
        let _ = fs::remove_file(&file);
        let script = "timeout 600 sh -c 'echo $$ > pid; sleep 600'";
        let mut child = started(
            &service,
            &["exec", "--task", "job", "--", "sh", "-c", script],
        );
        wait_until("the program", Duration::from_secs(20), || {
            pid_in(&file).is_some()
        });
        kill_process(pid_of(&child), signal).unwrap();
        // As `timeout` and terminals do.
        let _ = kill_process(pid_of(&child), signal);
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal:?}");
        assert!(has_ended(pid_in(&file).unwrap()));
        assert_eq!(
            service.text("SELECT status FROM oa.runs ORDER BY id DESC LIMIT 1"),
            "failed"
        );
    }
    assert_eq!(service.count("oa.runs WHERE finished_at IS NULL"), 0);
}

#[test]
fn a_stop_signal_between_two_attempts_closes_the_run() {
    let service = Service::start();
    let arguments = [
        "exec",
        "--task",
        "job",
        "--retry-delay",
        "1h",
        "--",
        "sh",
        "-c",
        "exit 1",
    ];
    let mut child = started(&service, &arguments);
    wait_until("the first try", Duration::from_secs(20), || {
        service.count("oa.runs WHERE status = 'retrying'") == 1
    });
    kill_process(pid_of(&child), Signal::HUP).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(
        service
            .text("SELECT status || ' ' || error_message FROM oa.runs")
            .starts_with("failed sh ended with exit status: 1; stopped by a signal")
    );
}

#[test]
fn no_second_copy_runs_beside_what_a_killed_run_has_left() {
    let service = Service::start();
    let file = service.dir.path().join("left");
    // One that nothing but its number is known of: no environment, no parent, a session of its own.
    let cleared = service.dir.path().join("cleared");
    let script = format!(
        "(env -i setsid sh -c 'echo $$ > cleared; exec sleep 300' &); {} echo $$ > pid; wait",
        deaf("left")
    );
    let mut child = started(
        &service,
        &["exec", "--task", "job", "--", "sh", "-c", &script],
    );
    let noted = service.dir.path().join("state/held/job");
    wait_until("the program", Duration::from_secs(20), || {
        let noted = std::fs::read_to_string(&noted).unwrap_or_default();
        let is_noted = |pid: Pid| noted.contains(&format!("\n{} ", pid.as_raw_nonzero()));
        pid_in(&file).is_some()
            && pid_in(&service.dir.path().join("pid")).is_some()
            && pid_in(&cleared).is_some_and(is_noted)
    });
    let left = pid_in(&file).unwrap();
    let cleared = pid_in(&cleared).unwrap();
    kill_guard_of(pid_in(&service.dir.path().join("pid")).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!has_ended(left));

    // Another task, and one of the same name in another installation, have nothing to do with it.
    let other = Service::start();
    assert_eq!(exec(&other, &[], "true").code, 0);
    let arguments = ["exec", "--task", "other", "--", "true"];
    assert_eq!(service.crawl(&arguments).code, 0);
    assert!(!has_ended(left));

    let check = format!(
        "[ ! -e /proc/{0} ] || grep -q 'State:.Z' /proc/{0}/status",
        left.as_raw_nonzero()
    );
    let next = exec(&service, &["--retries", "0"], &check);
    assert_eq!(next.row()["status"], "success", "{next:?}");
    assert!(
        next.stderr.contains("ended what an earlier run has left"),
        "{next:?}"
    );
    assert!(
        service
            .text("SELECT details ->> 'ended_of_earlier_run' FROM oa.runs WHERE task = 'job' AND status = 'success'")
            .contains("sh (process ")
    );
    assert!(has_ended(cleared));
}

#[test]
fn a_killed_run_is_followed_up_from_another_state_directory_too() {
    let service = Service::start();
    let file = service.dir.path().join("left");
    let script = format!("{} echo $$ > pid; wait", deaf("left"));
    let mut child = started(
        &service,
        &["exec", "--task", "job", "--", "sh", "-c", &script],
    );
    wait_until("the program", Duration::from_secs(20), || {
        pid_in(&file).is_some() && pid_in(&service.dir.path().join("pid")).is_some()
    });
    kill_guard_of(pid_in(&service.dir.path().join("pid")).unwrap());
    child.kill().unwrap();
    child.wait().unwrap();
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(service.config(), text.replace("\"state\"", "\"state2\"")).unwrap();
    assert_eq!(exec(&service, &[], "true").row()["status"], "success");
    assert!(has_ended(pid_in(&file).unwrap()));
}

#[test]
fn a_live_run_in_another_container_is_neither_declared_dead_nor_joined_by_a_second() {
    let service = Service::start();
    let unshared = |state: &str| {
        let text = fs::read_to_string(service.config()).unwrap();
        let config = service.dir.path().join(format!("{state}.toml"));
        let text = text.replace("\"state\"", &format!("\"{state}\""));
        fs::write(&config, text).unwrap();
        let mut command = std::process::Command::new("unshare");
        command
            .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
            .args([env!("CARGO_BIN_EXE_oa-crawl"), "--config"])
            .arg(config)
            .args(["exec", "--task", "job", "--format", "json", "--"])
            .env("DATABASE_URL", &service.url)
            .current_dir(service.dir.path());
        command
    };
    let possible = std::process::Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "true"])
        .output();
    if !possible.is_ok_and(|o| o.status.success()) {
        println!("this user may not make pid namespaces");
        return;
    }
    let mut first = unshared("one")
        .args(["sleep", "600"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the first run", Duration::from_secs(30), || {
        service.count("oa.runs WHERE status = 'running'") == 1
    });
    let inside: Done = unshared("two").arg("true").output().unwrap().into();
    assert_eq!(inside.row()["status"], "skipped", "{inside:?}");
    let outside = exec(&service, &[], "true");
    assert_eq!(outside.row()["status"], "skipped", "{outside:?}");
    assert_eq!(service.count("oa.runs WHERE status = 'abandoned'"), 0);
    first.kill().unwrap();
    first.wait().unwrap();
}

#[test]
fn a_killed_run_takes_what_has_left_its_group_with_it() {
    let service = Service::start();
    let file = service.dir.path().join("left");
    let script = format!("{} wait", deaf("left"));
    let mut child = started(
        &service,
        &["exec", "--task", "job", "--", "sh", "-c", &script],
    );
    wait_until("the program", Duration::from_secs(20), || {
        pid_in(&file).is_some()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let left = pid_in(&file).unwrap();
    wait_until("its end", Duration::from_secs(20), || has_ended(left));
}

#[test]
fn every_stop_signal_ends_a_source_that_is_collected() {
    let service = Service::start();
    for signal in [Signal::HUP, Signal::INT, Signal::TERM] {
        service
            .sim
            .fault(&format!("{}: hang", common::LIST))
            .unwrap();
        let before = service.sim.requests().len();
        let mut child = started(&service, &["run", "zhihui-reports", "--date", common::DAY]);
        wait_until("a request", Duration::from_secs(30), || {
            service.sim.requests().len() > before
        });
        kill_process(pid_of(&child), signal).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(1), "{signal:?}");
    }
    assert_eq!(service.count("oa.runs WHERE status = 'failed'"), 3);
    assert_eq!(service.count("oa.runs WHERE finished_at IS NULL"), 0);
}

#[test]
fn on_a_terminal_a_line_says_how_far_it_is_and_goes_with_the_end() {
    let service = Service::start();
    let dir = service.dir.path();
    fs::write(dir.join("wait.sh"), "until [ -e go ]; do sleep 0.1; done").unwrap();
    let mut terminal = Terminal::run(
        service
            .command(&["exec", "--task", "job", "--", "sh", "wait.sh"])
            .env("TERM", "xterm")
            .current_dir(dir),
    );
    terminal.wait_for("\r\u{1b}[Kjob: attempt 1, ");
    fs::write(dir.join("go"), "").unwrap();
    assert!(terminal.end().success());
    let shown = terminal.screen();
    let (_, end) = shown.rsplit_once("\u{1b}[K").unwrap();
    assert!(
        !end.contains("attempt 1") && end.contains("成功"),
        "{shown:?}"
    );
}
