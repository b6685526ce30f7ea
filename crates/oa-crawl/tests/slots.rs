//! What was missed has a name until it is made up for, and one incident with one end; whoever misses it, and whatever the clocks do.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::Command;

use chrono::{NaiveDate, TimeDelta};
use common::{Done, Service};
use oa_testkit::Clock;

const DAY: f64 = 86_400.0;

/// Sources that are due daily half an hour before noon, each of which shows any day.
fn sources(service: &Service, names: &[&str], more: &str) {
    let due = common::noon() - TimeDelta::minutes(30);
    let folder = service.dir.path().join("sources");
    fs::create_dir_all(&folder).unwrap();
    for name in names {
        let text = format!(
            r#"
name = "{name}"
title = "{name}"
provider = "local"
schedule = "{} * * *"
fetch = {{ kind = "command", command = ["sh", "-c", 'echo "{{\"code\": \"{name}\", \"name\": \"$OA_DATE\"}}"'] }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "name", type = "text", required = true }},
]
"#,
            due.format("%M %H")
        );
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
    service.configure_at_noon(&format!(
        "enable = [\"local\"]\nsources = \"sources\"\nretries = 0\ncatch_up_pause = \"0s\"\n{more}\n[alert]\noff = [\"clock_off\", \"disk_filling\"]\n"
    ));
}

fn check(service: &Service) -> Done {
    let mut command = Command::new(oa_testkit::program("oa-alert"));
    command
        .arg("--config")
        .arg(service.config())
        .args(["check", "--format", "json"])
        .env("DATABASE_URL", &service.url);
    let done: Done = command.output().unwrap().into();
    assert!([0, 1, 2].contains(&done.code), "{done:?}");
    done
}

fn due(service: &Service) {
    let done = service.crawl(&["run", "--due"]);
    assert_eq!(done.code, 0, "{done:?}");
}

fn kinds(service: &Service, which: &str) -> String {
    service.text(&format!(
        "SELECT coalesce(string_agg(kind || ' ' || rule, ', ' ORDER BY seq), '') FROM oa.alerts WHERE {which}"
    ))
}

/// The day of the last slot, so many days ago.
fn day(ago: i64) -> NaiveDate {
    (common::noon() - TimeDelta::minutes(30)).date_naive() - TimeDelta::days(ago)
}

fn states(service: &Service, task: &str) -> String {
    service.text(&format!(
        "SELECT string_agg(state || CASE WHEN filled_by IS NOT NULL THEN '+' ELSE '' END, ' ' ORDER BY due_at) FROM oa.slots WHERE task = '{task}' AND due_at <= now()"
    ))
}

#[test]
fn the_days_of_a_long_outage_are_one_incident_that_ends_when_they_are_filled() {
    let mut service = Service::start();
    sources(&service, &["tick"], "");
    let clock = Clock::of(&mut service.server);
    clock.ahead(-5.0 * DAY);
    due(&service);
    check(&service);
    assert_eq!(kinds(&service, "true"), "");
    // All off for five days; the check comes before cron's other line.
    clock.ahead(0.0);
    check(&service);
    assert_eq!(kinds(&service, "true"), "problem run_missed");
    let line = format!("oa-crawl backfill tick --from {} --to {}", day(4), day(0));
    let text = service.alerts("true");
    assert!(text.contains("漏 5 次") && text.contains(&line), "{text}");
    assert!(text.contains(&day(3).to_string()), "{text}");
    due(&service);
    due(&service);
    assert_eq!(
        states(&service, "tick"),
        "done missed missed missed missed done"
    );
    assert_eq!(
        service.text("SELECT string_agg(state, ' ' ORDER BY day) FROM oa.days WHERE state IN ('missing', 'unfetchable', 'skipped')"),
        "missing missing missing missing"
    );
    let found = check(&service);
    assert_eq!(
        (found.code, found.rows().len()),
        (1, 1),
        "it runs again: {found:?}"
    );
    let line = format!("oa-crawl backfill tick --from {} --to {}", day(4), day(1));
    assert!(found.stdout.contains(&line), "{found:?}");
    assert_eq!(
        kinds(&service, "true"),
        "problem run_missed",
        "the same incident"
    );
    // The line is true.
    let words: Vec<String> = line.split(' ').skip(1).map(str::to_owned).collect();
    let words: Vec<&str> = words
        .iter()
        .map(String::as_str)
        .chain(["--pause", "0s"])
        .collect();
    let done = service.crawl(&words);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        states(&service, "tick"),
        "done missed+ missed+ missed+ missed+ done"
    );
    assert_eq!(check(&service).stdout, "");
    assert_eq!(
        kinds(&service, "true"),
        "problem run_missed, recovery run_missed"
    );
    let text = service.alerts("kind = 'recovery'");
    assert!(
        text.contains("已补")
            && text.contains(&day(3).to_string())
            && text.contains(&day(0).to_string()),
        "{text}"
    );
    assert!(!text.contains("仍缺"), "{text}");
    check(&service);
    assert_eq!(service.count("oa.alerts"), 2);
    assert_eq!(service.text("SELECT (sum(starts) >= 4 AND max(longest_gap) > interval '4 days')::text FROM oa.starts WHERE what = 'check'"), "true");
}

#[test]
fn all_days_are_made_up_for_where_the_source_says_so() {
    let mut service = Service::start();
    sources(
        &service,
        &["tick"],
        "catch_up = \"all\"\ncatch_up_limit = 3\n",
    );
    let clock = Clock::of(&mut service.server);
    clock.ahead(-5.0 * DAY);
    due(&service);
    clock.ahead(0.0);
    due(&service);
    assert_eq!(
        states(&service, "tick"),
        "done missed missed done done done"
    );
    assert_eq!(
        service.text("SELECT name FROM commodities"),
        day(0).to_string(),
        "oldest first"
    );
    check(&service);
    let text = service.alerts("true");
    let line = format!("oa-crawl backfill tick --from {} --to {}", day(4), day(3));
    assert!(text.contains(&line), "{text}");
}

#[test]
fn a_clock_that_was_a_month_ahead_silences_nothing_and_misses_nothing() {
    let mut service = Service::start();
    sources(&service, &["tick"], "");
    let clock = Clock::of(&mut service.server);
    clock.ahead(-2.0 * DAY);
    due(&service);
    clock.ahead(28.0 * DAY);
    due(&service);
    check(&service);
    // Right again, an hour, a day and two days after that.
    for (ahead, runs) in [(-2.0 * DAY + 3600.0, 2), (-DAY, 3), (0.0, 4)] {
        clock.ahead(ahead);
        due(&service);
        due(&service);
        assert_eq!(
            service.count("oa.runs WHERE task = 'tick'"),
            runs,
            "{ahead}"
        );
        assert_eq!(
            states(&service, "tick").replace("done", "").trim(),
            "",
            "{ahead}"
        );
    }
    assert_eq!(check(&service).stdout, "");
    assert_eq!(service.count("oa.incidents WHERE resolved_at IS NULL"), 0);
}

#[test]
fn sources_that_missed_runs_because_cron_stood_still_are_one_incident() {
    let mut service = Service::start();
    let names = ["one", "two", "three", "four"];
    sources(&service, &names, "");
    let clock = Clock::of(&mut service.server);
    clock.ahead(-2.0 * DAY);
    due(&service);
    clock.ahead(0.0);
    for _ in 0..2 {
        check(&service);
        assert_eq!(kinds(&service, "true"), "problem cron_stopped");
    }
    let text = service.alerts("true");
    for name in names {
        assert!(
            text.contains(&format!("backfill {name} --from {}", day(1))),
            "{text}"
        );
    }
    due(&service);
    let found = check(&service);
    assert_eq!((found.code, found.rows().len()), (1, 1), "{found:?}");
    for name in names {
        let (task, from) = (name, day(1).to_string());
        let done = service.crawl(&["backfill", task, "--from", &from, "--to", &from]);
        assert_eq!(done.code, 0, "{done:?}");
    }
    assert_eq!(check(&service).stdout, "");
    assert_eq!(
        kinds(&service, "true"),
        "problem cron_stopped, recovery cron_stopped"
    );
    let text = service.alerts("kind = 'recovery'");
    assert_eq!(text.matches("已补").count(), 4, "{text}");
}

#[test]
fn a_wrapped_program_that_cron_forgot_is_reported() {
    let mut service = Service::start();
    let due = common::noon() - TimeDelta::minutes(30);
    let schedule = format!(
        "[exec.receipts]\nschedule = \"{} * * *\"\ntitle = \"仓单\"",
        due.format("%M %H")
    );
    sources(&service, &["tick"], &schedule);
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        text.replace("enable = [\"local\"]", "enable = []"),
    )
    .unwrap();
    let clock = Clock::of(&mut service.server);
    let exec = |task: &str| {
        let done = service.crawl(&["exec", "--cron", "--task", task, "--", "true"]);
        assert_eq!(done.code, 0, "{done:?}");
    };
    // Two programs, one with a schedule, day by day until nine days ago.
    for ago in (9..16).rev() {
        clock.ahead(-f64::from(ago) * DAY);
        exec("receipts");
        exec("analysis");
        if ago == 9 {
            check(&service);
        }
    }
    assert_eq!(kinds(&service, "true"), "");
    assert_eq!(
        service.count("oa.slots WHERE task = 'receipts' AND state = 'done'"),
        6,
        "the first was before its schedule was known"
    );
    clock.ahead(0.0);
    let found = check(&service);
    let rows = found.rows();
    let tasks: Vec<&str> = rows.iter().map(|r| r["task"].as_str().unwrap()).collect();
    assert_eq!(tasks, ["receipts", "analysis"], "{found:?}");
    let text = service.alerts("true");
    assert!(
        text.contains("仓单") && text.contains("漏 9 次") && text.contains("按以往规律"),
        "{text}"
    );
    check(&service);
    assert_eq!(
        kinds(&service, "true"),
        "problem run_missed, problem run_missed"
    );
    exec("receipts");
    exec("analysis");
    assert_eq!(check(&service).stdout, "", "by hand the same day");
    assert_eq!(service.count("oa.alerts WHERE kind = 'recovery'"), 2);
    assert!(
        service
            .alerts("kind = 'recovery' AND task = 'receipts'")
            .contains("仍缺 8 次")
    );
    let done = service.crawl(&["forget", "receipts"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        service.count("oa.slots WHERE task = 'receipts' AND state = 'open'"),
        0
    );
}

#[test]
fn a_program_that_was_run_by_hand_the_next_morning_runs_again() {
    let mut service = Service::start();
    let due = common::noon() - TimeDelta::minutes(30);
    let schedule = format!(
        "[exec.receipts]\nschedule = \"{} * * *\"",
        due.format("%M %H")
    );
    sources(&service, &["tick"], &schedule);
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        text.replace("enable = [\"local\"]", "enable = []"),
    )
    .unwrap();
    let clock = Clock::of(&mut service.server);
    clock.ahead(-2.0 * DAY);
    check(&service);
    clock.ahead(-DAY);
    check(&service);
    assert_eq!(kinds(&service, "true"), "problem never_run");
    // It is for no slot: that of the day before is closed, that of its own day is not due.
    clock.ahead(-0.4 * DAY);
    let done = service.crawl(&["exec", "--task", "receipts", "--", "true"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(check(&service).stdout, "");
    assert_eq!(
        kinds(&service, "true"),
        "problem never_run, recovery never_run"
    );
    assert_eq!(states(&service, "receipts"), "missed");
}
