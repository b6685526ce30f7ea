//! `oa-report doctor` on crontabs and schedules that are right in each word and come never, or too seldom. No server is needed for that.

use std::fs;
use std::process::Command;

use chrono::Utc;
use oa_core::schedule::{Calendar, Schedule};
use oa_testkit::{program, workspace_root, write_private};
use serde_json::Value;

const CONFIG: &str = r#"state_dir = "state"
[database]
url = "postgresql://oa@127.0.0.1:9/oa"
[backup]
repository = "backups"
password = "env:NO_PASSWORD"
"#;

struct Machine(tempfile::TempDir);

impl Machine {
    fn new() -> Self {
        let one = Self(tempfile::tempdir().unwrap());
        fs::create_dir(one.0.path().join("log")).unwrap();
        one
    }

    /// What the doctor says of schedules, with these lines of the example changed, and more behind the configuration.
    fn said(&self, changes: &[(&str, &str)], more: &str) -> Vec<Value> {
        let at = |name: &str| self.0.path().join(name);
        write_private(&at("oa.toml"), format!("{CONFIG}{more}"));
        let text = fs::read_to_string(workspace_root().join("crontab.example")).unwrap();
        let mut text = text
            .replace("/var/log/oa", &at("log").display().to_string())
            .replace("/etc/oa/oa.toml", &at("oa.toml").display().to_string())
            .replace(
                "PATH=/usr/local/bin",
                &format!("PATH={}", program("oa-crawl").parent().unwrap().display()),
            );
        for (command, when) in changes {
            let is_it = |l: &&str| l.contains(command) && !l.starts_with('#');
            let line = text.lines().find(is_it).expect("a line of the example");
            let words: Vec<&str> = line.split_whitespace().collect();
            let new = format!("{when} {}", words[5..].join(" "));
            text = text.replace(line, &new);
        }
        fs::write(at("crontab"), text).unwrap();
        let done = Command::new(program("oa-report"))
            .arg("--config")
            .arg(at("oa.toml"))
            .args(["doctor", "--format", "json", "--crontab"])
            .arg(at("crontab"))
            .env_remove("DATABASE_URL")
            .output()
            .unwrap();
        let text = String::from_utf8(done.stdout).unwrap();
        let lines = text.lines().map(|l| serde_json::from_str(l).unwrap());
        lines.filter(|l: &Value| l["check"] == "schedule").collect()
    }

    fn finds(&self, changes: &[(&str, &str)], more: &str, state: &str, detail: &str) {
        let said = self.said(changes, more);
        let is_it = |l: &&Value| l["detail"].as_str().unwrap().contains(detail);
        let line = said.iter().find(is_it);
        let line = line.unwrap_or_else(|| panic!("no line: {detail}: {said:?}"));
        assert_eq!(line["state"], state, "{line}");
        assert!(line["command"].as_str().unwrap().contains("crontab") || !more.is_empty());
    }
}

#[test]
fn a_line_that_never_comes_or_too_seldom_for_its_task_is_found() {
    let here = Machine::new();
    let well = here.said(&[], "");
    assert!(well.len() == 1 && well[0]["state"] == "ok", "{well:?}");
    // cron takes the line, and those beside it go on.
    let said = here.said(&[("oa-crawl prune", "0 9 31 2 *")], "");
    assert!(
        !said
            .iter()
            .any(|l| l.to_string().contains("starts nothing of the file")),
        "{said:?}"
    );
    for (command, when, state, detail) in [
        (
            "oa-crawl prune",
            "0 9 31 2 *",
            "error",
            "\"0 9 31 2 *\" never comes",
        ),
        ("oa-crawl run", "0 9 30 2,2 *", "error", "never comes"),
        (
            "oa-alert check",
            "*/10 * * * *",
            "error",
            "up to 10 min pass until oa-alert check",
        ),
        (
            "oa-alert check",
            "* 9-17 * * *",
            "error",
            "until oa-alert check",
        ),
        ("oa-alert check", "* * * * 1-5", "error", "up to 2 d"),
        (
            "oa-crawl run",
            "@hourly",
            "error",
            "up to 1 h pass until oa-crawl run",
        ),
        (
            "oa-report daily",
            "0 9 * * 1-5",
            "warning",
            "up to 3 d pass until oa-report daily",
        ),
        (
            "oa-backup full",
            "0 2 * * 0",
            "error",
            "up to 7 d pass until oa-backup full",
        ),
        (
            "oa-backup incremental",
            "5 */6 * * *",
            "warning",
            "up to 6 h pass until oa-backup full or oa-backup incremental",
        ),
        (
            "oa-restore drill",
            "0 5 1 */3 *",
            "warning",
            "until oa-restore drill",
        ),
        (
            "oa-backup verify",
            "0 5 1 * *",
            "warning",
            "until oa-backup verify",
        ),
        (
            "oa-backup prune",
            "0 5 1 1 *",
            "warning",
            "until oa-backup prune",
        ),
    ] {
        here.finds(&[(command, when)], "", state, detail);
    }
    // As often as it has to be.
    for (command, when) in [
        ("oa-alert check", "*/5 * * * *"),
        ("oa-crawl run", "*/2 * * * *"),
        ("oa-backup full", "@daily"),
        ("oa-report daily", "30 9 * * *"),
        ("oa-backup incremental", "*/15 * * * *"),
    ] {
        let said = here.said(&[(command, when)], "");
        assert!(
            said.len() == 1 && said[0]["state"] == "ok",
            "{when}: {said:?}"
        );
    }
    // The objective decides.
    let said = here.said(
        &[("oa-backup incremental", "5 */6 * * *")],
        "rpo = \"7h\"\n",
    );
    assert!(said.len() == 1 && said[0]["state"] == "ok", "{said:?}");
}

#[test]
fn a_schedule_whose_times_are_all_left_out_is_found() {
    let here = Machine::new();
    let left_out = "are on days or outside sessions that it leaves out";
    for (more, detail) in [
        (
            "[exec.one]\nschedule = \"0 9 * * 6\"\ndays = \"trading\"\n",
            left_out,
        ),
        (
            "[exec.one]\nschedule = \"0 12 * * *\"\nsessions = [\"night\"]\n",
            left_out,
        ),
    ] {
        here.finds(&[], more, "error", detail);
    }
    // A configuration with a time that never comes at all is refused. This one comes in one year of four.
    let leap_day = Schedule::parse("0 9 29 2 *", chrono_tz::UTC).unwrap();
    let comes = leap_day.next_after(Utc::now(), &Calendar::shipped());
    let never = [
        (
            "[exec.one]\nschedule = \"0 9 29 2 *\"\n",
            "task one: it never comes within a year",
        ),
        (
            "[backup.schedule]\nfull = \"0 9 29 2 *\"\n",
            "task backup-full: it never comes",
        ),
        (
            "[backup.schedule]\ndrill = \"0 9 29 2 *\"\n",
            "task restore-drill: it never comes",
        ),
    ];
    for (more, detail) in never.into_iter().filter(|_| comes.is_none()) {
        here.finds(&[], more, "error", detail);
    }
    let more = "[exec.one]\nschedule = \"0 9 * * *\"\ndays = \"trading\"\n[exec.two]\nschedule = \"0 22 * * *\"\nsessions = [\"night\"]\n";
    let said = here.said(&[], more);
    assert!(said.len() == 1 && said[0]["state"] == "ok", "{said:?}");
}
