//! What the page says to do can be done: every command in a remedy is one that the named program takes.
use std::process::Command;

use oa_core::app::config::Locale;
use uuid::Uuid;

use super::again;
use crate::lang::Lang;
use crate::queries::health::{Health, Reason, State, TaskHealth};

fn task(tool: &str, name: &str, schedule: Option<&str>) -> TaskHealth {
    TaskHealth {
        name: name.to_owned(),
        title: name.to_owned(),
        tool: tool.to_owned(),
        state: State::Failed,
        severity: Health::Critical,
        health: Health::Critical,
        reasons: vec![Reason::Failing],
        runs: 3,
        success: 0,
        partial: 0,
        failed: 3,
        success_rate: Some(0.0),
        inserted: 0,
        last_run: None,
        last_run_id: Some(Uuid::nil()),
        last_status: Some("failed".to_owned()),
        last_duration: None,
        last_success: None,
        last_error: None,
        consecutive_failures: 3,
        failing_since: None,
        schedule: schedule.map(str::to_owned),
        next_due: None,
        late_seconds: None,
        running: false,
        // What has a schedule here is a source; a program's line may have one too, see the last case.
        collects: schedule.is_some() && name != "scheduled-program",
    }
}

/// Command lines within a sentence: from a program's name to where other words begin.
fn commands(text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    let ends = |c: char| "；，。（）();,:：".contains(c) || c as u32 > 0x2e80;
    for part in text.split(ends) {
        let mut words = part
            .split_whitespace()
            .skip_while(|w| !w.starts_with("oa-"));
        let Some(program) = words.next().filter(|p| oa_programs().contains(p)) else {
            continue;
        };
        // English goes on behind a command; what a command takes has no such words.
        let arguments = words.take_while(|w| !["line", "and", "that"].contains(w));
        found.push(
            [program]
                .into_iter()
                .chain(arguments)
                .map(str::to_owned)
                .collect(),
        );
    }
    found
}

fn oa_programs() -> [&'static str; 6] {
    [
        "oa-migrate",
        "oa-crawl",
        "oa-alert",
        "oa-backup",
        "oa-restore",
        "oa-report",
    ]
}

#[test]
fn every_remedy_names_the_tasks_own_program_in_a_command_that_it_takes() {
    for (tool, name, schedule, again_by) in [
        (
            "oa-crawl",
            "zhihui-reports",
            Some("* * * * *"),
            Some("oa-crawl run zhihui-reports"),
        ),
        ("oa-crawl", "receipts", None, None),
        ("oa-crawl", "scheduled-program", Some("0 9 * * *"), None),
        (
            "oa-crawl",
            "it's mine",
            Some("* * * * *"),
            Some("oa-crawl run 'it'\\''s mine'"),
        ),
        ("oa-backup", "backup-full", None, Some("oa-backup full")),
        (
            "oa-backup",
            "backup-incremental",
            None,
            Some("oa-backup incremental"),
        ),
        ("oa-backup", "backup-verify", None, Some("oa-backup verify")),
        ("oa-backup", "backup-prune", None, Some("oa-backup prune")),
        ("oa-backup", "backup-copy", None, Some("oa-backup copy")),
        (
            "oa-restore",
            "restore-drill",
            None,
            Some("oa-restore drill"),
        ),
        ("oa-restore", "restore-table", None, None),
        (
            "oa-report",
            "daily-report",
            None,
            Some("oa-report daily --send"),
        ),
        ("oa-alert", "check", None, Some("oa-alert check")),
        ("oa-migrate", "sync", None, None),
    ] {
        let task = task(tool, name, schedule);
        assert_eq!(again(&task).as_deref(), again_by, "{tool} {name}");
        for reason in [
            Reason::SuccessRate,
            Reason::LastRun,
            Reason::Failing,
            Reason::Late,
            Reason::NeverRun,
            Reason::Stale,
            Reason::Incident,
        ] {
            for locale in [Locale::Zh, Locale::En] {
                let text = Lang(locale).remedy(reason, &task);
                assert!(!text.contains("oa.runs"), "{text}");
                if name.contains('\'') {
                    continue; // A shell takes it apart; words do not.
                }
                let found = commands(&text);
                assert!(!found.is_empty(), "{text}");
                for command in found {
                    let done = Command::new(oa_testkit::program(&command[0]))
                        .args(&command[1..])
                        .arg("--help")
                        .output()
                        .unwrap();
                    assert!(done.status.success(), "{text}: {command:?}");
                }
            }
        }
    }
}
