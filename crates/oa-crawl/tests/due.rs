//! `oa-crawl run --due`: every due time of a schedule gets its run once, whatever was off or killed.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use chrono::TimeDelta;
use common::Service;
use oa_testkit::wait_until;

/// Adds the source `tick`, due daily at the present time minus so many minutes.
fn tick(service: &Service, minutes_ago: i64, more: &str) {
    let due = common::noon() - TimeDelta::minutes(minutes_ago);
    let folder = service.dir.path().join("sources");
    fs::create_dir_all(&folder).unwrap();
    let text = format!(
        r#"
name = "tick"
title = "定时"
provider = "local"
schedule = "{} * * *"
fetch = {{ kind = "command", command = ["sh", "-c", 'echo "{{\"code\": \"ZZ\", \"name\": \"$OA_DATE\"}}"; {more}'] }}
store = {{ table = "commodities", unique = ["code"] }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "name", from = "name", type = "text", required = true }},
]
"#,
        due.format("%M %H")
    );
    fs::write(folder.join("tick.toml"), text).unwrap();
    service.configure_at_noon("sources = \"sources\"\nretries = 0\nenable = [\"tick\"]\n");
}

fn due(service: &Service) -> i32 {
    service.crawl(&["run", "--due", "--format", "json"]).code
}

fn runs(service: &Service) -> i64 {
    service.count("oa.runs WHERE task = 'tick'")
}

#[test]
fn a_missed_due_time_is_made_up_for_once_and_for_its_own_day() {
    let service = Service::start();
    tick(&service, 10, "");
    due(&service);
    due(&service);
    assert_eq!(runs(&service), 1);
    assert_eq!(
        service.text("SELECT trigger || ' ' || status FROM oa.runs WHERE task = 'tick'"),
        "due success"
    );
    let day = common::noon() - TimeDelta::minutes(10);
    assert_eq!(
        service.text("SELECT name FROM commodities WHERE code = 'ZZ'"),
        day.date_naive().to_string()
    );
}

#[test]
fn what_is_too_old_is_left() {
    let service = Service::start();
    tick(&service, 120, "");
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("[crawl]\n", "[crawl]\ncatch_up = \"1h\"\n");
    fs::write(service.config(), text).unwrap();
    due(&service);
    assert_eq!(runs(&service), 0);
}

#[test]
fn several_machines_share_the_work() {
    let service = Service::start();
    // It goes on until the others have looked.
    let goes = service.dir.path().join("goes");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", goes.display());
    tick(&service, 10, &wait);
    // Each with its own state directory, as machines have.
    let mut children: Vec<_> = (0..4)
        .map(|n| {
            let text = fs::read_to_string(service.config()).unwrap();
            let own = service.dir.path().join(format!("machine{n}.toml"));
            let text = text.replace(
                "state_dir = \"state\"",
                &format!("state_dir = \"state{n}\""),
            );
            fs::write(&own, text).unwrap();
            Command::new(env!("CARGO_BIN_EXE_oa-crawl"))
                .args(["--config", own.to_str().unwrap(), "run", "--due"])
                .env("DATABASE_URL", &service.url)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    oa_testkit::wait_until("the others' end", Duration::from_secs(60), || {
        let ended = children.iter_mut().map(|c| c.try_wait().unwrap());
        ended.flatten().count() == 3
    });
    fs::write(&goes, "").unwrap();
    for mut child in children {
        child.wait().unwrap();
    }
    assert_eq!(
        service.count("oa.runs WHERE task = 'tick' AND status = 'success'"),
        1
    );
    assert_eq!(
        service.count("oa.runs WHERE task = 'tick' AND status NOT IN ('success', 'skipped')"),
        0
    );
}

/// `run --due` as on a machine of this name, with a network, processes and a state directory of its own: it has PostgreSQL's socket.
fn on_machine(service: &Service, name: &str) -> Command {
    let own = service.dir.path().join(format!("{name}.toml"));
    let text = fs::read_to_string(service.config()).unwrap();
    let state = format!("state_dir = \"state-{name}\"");
    fs::write(&own, text.replace("state_dir = \"state\"", &state)).unwrap();
    let folder = service.server.data_dir();
    let socket = folder.parent().unwrap().display().to_string();
    let address = format!(
        "host={socket} port={} user=oa dbname=oa password=oa-test-password",
        service.server.port()
    );
    let mut command = Command::new("unshare");
    command
        .args(["--net", "--uts", "--pid", "--fork", "--kill-child"])
        .args(["--mount-proc", "sh", "-c"])
        .arg("hostname \"$1\" && exec \"$2\" --config \"$3\" run --due")
        .args(["sh", name, env!("CARGO_BIN_EXE_oa-crawl")])
        .arg(own)
        .env("DATABASE_URL", address)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

#[test]
fn machines_with_networks_of_their_own_share_a_task_by_its_lease_alone() {
    let can = Command::new("unshare")
        .args(["--net", "--uts", "--pid", "--fork", "--mount-proc", "true"])
        .status();
    if !can.is_ok_and(|s| s.success()) {
        oa_testkit::skip("namespaces for networks and processes", "run it as root");
        return;
    }
    let service = Service::start();
    let goes = service.dir.path().join("goes-on");
    let wait = format!("while [ ! -e {} ]; do sleep 0.05; done", goes.display());
    tick(&service, 10, &wait);
    let holder = || {
        service.text("SELECT coalesce(max(lease_host), '') FROM oa.tasks WHERE lease_until > now()")
    };
    let mut first = on_machine(&service, "oa-first").spawn().unwrap();
    wait_until("the first machine's lease", Duration::from_secs(60), || {
        holder() == "oa-first"
    });
    // The other one sees neither its processes nor its network, and does not take its work.
    for _ in 0..2 {
        on_machine(&service, "oa-second").status().unwrap();
        assert_eq!((holder().as_str(), runs(&service)), ("oa-first", 1));
    }
    // The first one is gone, with all that ran there; that it is, is known when its lease ends.
    first.kill().unwrap();
    first.wait().unwrap();
    on_machine(&service, "oa-second").status().unwrap();
    assert_eq!(holder(), "oa-first");
    service
        .db()
        .batch_execute("UPDATE oa.runs SET lease_until = now() WHERE status = 'running'; UPDATE oa.tasks SET lease_until = now()")
        .unwrap();
    fs::write(goes, "").unwrap();
    on_machine(&service, "oa-second").status().unwrap();
    assert_eq!(
        service.text("SELECT string_agg(host || ' ' || status, ', ' ORDER BY seq) FROM oa.runs WHERE task = 'tick'"),
        "oa-first abandoned, oa-second success"
    );
}

#[test]
fn while_postgresql_is_unreachable_this_machine_goes_on_alone() {
    let mut service = Service::start();
    tick(&service, 10, "");
    service.server.stop();
    assert_eq!(due(&service), 75);
    assert_eq!(due(&service), 0, "nothing is due any more");
    service.server.start_again();
    assert_eq!(due(&service), 0);
    assert_eq!(runs(&service), 1);
}

#[test]
fn a_killed_run_is_made_up_for_but_not_for_ever() {
    let service = Service::start();
    tick(&service, 10, "kill -9 $PPID");
    for _ in 0..5 {
        due(&service);
    }
    assert_eq!(
        service.count("oa.runs WHERE task = 'tick' AND status = 'abandoned'"),
        3
    );
    assert_eq!(runs(&service), 3, "the task itself kills");
}

#[test]
fn a_run_for_another_day_closes_no_due_time() {
    let service = Service::start();
    tick(&service, 10, "");
    assert_eq!(
        service.crawl(&["run", "tick", "--date", "2025-12-01"]).code,
        0
    );
    assert_eq!(
        service.text("SELECT trigger FROM oa.runs WHERE task = 'tick'"),
        "manual",
        "a person started it"
    );
    due(&service);
    assert_eq!(runs(&service), 2);
    // One by hand, for today, does.
    let again = Service::start();
    tick(&again, 10, "");
    assert_eq!(again.crawl(&["run", "tick"]).code, 0);
    due(&again);
    assert_eq!(runs(&again), 1);
}

#[test]
fn a_task_is_known_before_its_first_run_and_forgotten_when_it_is_run_no_more() {
    let service = Service::start();
    let folder = service.dir.path().join("own");
    fs::create_dir(&folder).unwrap();
    let file = folder.join("zhihui-full-view.toml");
    let text = include_str!("../sources/zhihui-full-view.toml");
    let at = |schedule: &str| text.replace("*/30 * * * *", schedule);
    // Never due within the next hours, and not within the last ones.
    fs::write(&file, at("0 0 1 1 *")).unwrap();
    service.configure("sources = \"own\"\ncatch_up = \"1h\"\nenable = [\"zhihui\", \"fangqi\"]\n");
    let due = || {
        let mut command = service.command(&["run", "--due"]);
        command.current_dir(service.dir.path()).output().unwrap()
    };
    due();
    let next = "SELECT coalesce(to_char(next_due_at AT TIME ZONE 'Asia/Shanghai', 'MM-DD HH24:MI'), 'never') FROM oa.tasks WHERE name = 'zhihui-full-view'";
    assert_eq!(service.text(next), "01-01 00:00");
    assert_eq!(
        service.count("oa.tasks WHERE name = 'openvlab-flow'"),
        0,
        "skipped"
    );
    let rest = "SELECT string_agg(format('%s %s %s', name, days, sessions), '; ' ORDER BY name) FROM oa.tasks WHERE name IN ('fangqi-night', 'zhihui-full-view')";
    assert_eq!(
        service.text(rest),
        "fangqi-night night {}; zhihui-full-view all {}"
    );
    fs::write(&file, at("30 7 1 2 *")).unwrap();
    due();
    assert_eq!(service.text(next), "02-01 07:30", "a new schedule");
    service.sim.fault("/: 500").unwrap();
    service.configure("sources = \"own\"\nretries = 0\n");
    assert_eq!(service.run("zhihui-full-view").code, 1);
    let open = "oa.incidents WHERE resolved_at IS NULL AND fingerprint = 'run:zhihui-full-view'";
    assert_eq!(service.count(open), 1);
    for _ in 0..2 {
        assert_eq!(service.crawl(&["forget", "zhihui-full-view"]).code, 0);
        assert_eq!(service.count(open), 0, "no success can end it any more");
        assert_eq!(service.count("oa.alerts WHERE kind = 'recovery'"), 1);
    }
    assert_eq!(service.text(next), "never");
    assert_eq!(
        service.count("oa.tasks WHERE forgotten_at IS NOT NULL"),
        1,
        "it is judged no more"
    );
    assert_eq!(service.crawl(&["forget", "nothing"]).code, 2);
}

#[test]
fn a_day_that_is_over_is_collected_once_more() {
    let service = Service::start();
    // Due once more ten minutes ago, after the last time of yesterday; its own time today comes later.
    let last = common::noon() + TimeDelta::minutes(60);
    let over = common::noon() - TimeDelta::minutes(10);
    tick(&service, -60, "");
    let file = service.dir.path().join("sources/tick.toml");
    let text = fs::read_to_string(&file).unwrap();
    let again = format!("again = \"next day {}\"\nschedule", over.format("%H:%M"));
    fs::write(&file, text.replacen("schedule", &again, 1)).unwrap();
    assert_eq!((due(&service), runs(&service)), (0, 0), "first seen now");
    let slots = "SELECT string_agg(state || ' ' || (filled_by IS NOT NULL), ', ' ORDER BY due_at) FROM oa.slots WHERE again AND due_at < now()";
    assert_eq!(
        service.count("oa.slots WHERE again AND due_at > now()"),
        2,
        "its next two are written"
    );
    // As if the source had been known for three days, and the machine was off for two of them.
    let earlier = "UPDATE oa.tasks SET expected_since = now() - interval '3 days', next_due_at = next_due_at - interval '1 day',
                     slots_until = now() - interval '2 days 1 hour';
                   DELETE FROM oa.slots; DELETE FROM oa.days";
    service.db().batch_execute(earlier).unwrap();
    assert_eq!(due(&service), 0);
    let yesterday = (last - TimeDelta::days(1)).date_naive().to_string();
    let day = "SELECT string_agg(details ->> 'day', ', ' ORDER BY seq) FROM oa.runs r WHERE EXISTS (SELECT FROM oa.slots s WHERE s.due_at = r.due_at AND s.again)";
    assert_eq!(service.text(day), yesterday);
    assert_eq!(
        service.text(slots),
        "missed false, missed false, done false",
        "only the latest is made up for, and the others are holes"
    );
    assert_eq!(
        service.text("SELECT name FROM commodities WHERE code = 'ZZ'"),
        yesterday
    );
    // Nothing follows.
    let before = runs(&service);
    assert_eq!((due(&service), due(&service)), (0, 0));
    assert_eq!(runs(&service), before, "once");
    // Whoever collects such a day later fills the hole.
    let hole = "SELECT min(day)::text FROM oa.slots WHERE again AND state = 'missed'";
    let hole = service.text(hole);
    let filled = service.crawl(&[
        "backfill", "tick", "--from", &hole, "--to", &hole, "--pause", "0s",
    ]);
    assert_eq!(filled.code, 0, "{filled:?}");
    assert_eq!(service.text(slots), "missed true, missed false, done false");
}

#[test]
fn a_day_that_the_site_shows_no_more_is_not_asked_for_once_more() {
    let service = Service::start();
    // Due once more ten minutes ago, a day after the last time of yesterday nearly.
    tick(&service, -60, "");
    let file = service.dir.path().join("sources/tick.toml");
    let text = fs::read_to_string(&file).unwrap();
    let again = "again = \"+1370m\"\nshows = \"today\"\nschedule";
    fs::write(&file, text.replacen("schedule", again, 1)).unwrap();
    due(&service);
    let earlier = "UPDATE oa.tasks SET expected_since = now() - interval '2 days'";
    service.db().batch_execute(earlier).unwrap();
    due(&service);
    due(&service);
    assert_eq!(
        service.count("oa.runs r JOIN oa.slots s USING (task, due_at) WHERE s.again"),
        0,
        "a run that is refused takes care of nothing"
    );
    // When it is due nobody can collect that day any more, so it is no hole.
    let slot = "INSERT INTO oa.slots (task, due_at, day, again) SELECT task, now() - interval '10 minutes', day - 1, true FROM oa.slots WHERE NOT again LIMIT 1";
    service.db().batch_execute(slot).unwrap();
    due(&service);
    assert_eq!(
        service.text("SELECT string_agg(state, ' ') FROM oa.slots WHERE again AND due_at < now()"),
        "skipped"
    );
    assert!(
        service
            .crawl(&["check"])
            .stdout
            .contains("again comes on the next day"),
    );
}

#[test]
fn what_was_asked_for_on_the_page_is_collected_by_the_next_run_due_in_the_name_of_who_asked() {
    use oa_core::journal::requests::{self, Action, Put};

    let service = Service::start();
    tick(&service, 10, "");
    due(&service);
    let mut db = service.db();
    let run = Action::Run {
        task: "tick".to_owned(),
        day: None,
    };
    let Put::New(first) = requests::put(&mut db, &run, "wang").unwrap() else {
        panic!("nothing else waits");
    };
    assert_eq!(
        requests::put(&mut db, &run, "li").unwrap(),
        Put::Waits(first),
        "asked for twice, done once"
    );
    let other = Action::Run {
        task: "nightly-export".to_owned(),
        day: None,
    };
    assert_eq!(
        requests::put(&mut db, &other, "wang").unwrap(),
        Put::NotASource
    );
    due(&service);
    due(&service);
    assert_eq!(
        service.text("SELECT string_agg(trigger || ' ' || status, ', ' ORDER BY seq) FROM oa.runs WHERE task = 'tick'"),
        "due success, manual success"
    );
    assert_eq!(
        service.text("SELECT state || ' ' || result || ' ' || requested_by || ' ' || (run_id IN (SELECT id FROM oa.runs))::text FROM oa.requests"),
        "done success, 1 records wang true"
    );

    // A program that was killed at it loses it; what waited for too long is not wanted any more; what the site cannot show is said.
    let today = common::noon().date_naive();
    let days = Action::Backfill {
        task: "tick".to_owned(),
        from: today - TimeDelta::days(3),
        to: today - TimeDelta::days(1),
    };
    requests::put(&mut db, &days, "wang").unwrap();
    let lease = std::time::Duration::from_secs(300);
    let taken = requests::take(&mut db, &["backfill"], &["tick"], "gone", lease).unwrap();
    let taken = taken.unwrap();
    due(&service);
    assert_eq!(runs(&service), 2, "another program is at it");
    db.execute(
        "UPDATE oa.requests SET leased_until = now() WHERE state = 'taken'",
        &[],
    )
    .unwrap();
    requests::put(&mut db, &run, "wang").unwrap();
    db.execute(
        "UPDATE oa.requests SET requested_at = now() - interval '61 minutes' WHERE state = 'open'",
        &[],
    )
    .unwrap();
    due(&service);
    assert_eq!(
        service.text("SELECT string_agg(kind || ' ' || state, ', ' ORDER BY id) FROM oa.requests"),
        "run done, backfill done, run expired"
    );
    assert_eq!(
        service.text("SELECT count(*) || ' ' || min(status) FROM oa.runs WHERE task = 'tick' AND trigger = 'backfill'"),
        "3 success"
    );
    // Late news of the program that had it before changes nothing.
    requests::end(&mut db, &taken, false, None, "late").unwrap();
    assert_eq!(service.count("oa.requests WHERE result = 'late'"), 0);
    // Nobody keeps what he is not at.
    let of_day = |n: i64| Action::Run {
        task: "tick".to_owned(),
        day: Some(today - TimeDelta::days(n)),
    };
    requests::put(&mut db, &of_day(1), "wang").unwrap();
    requests::put(&mut db, &of_day(2), "wang").unwrap();
    for expected in [Some(of_day(1)), Some(of_day(2)), None] {
        let taken = requests::take(&mut db, &["run"], &["tick"], "one", lease).unwrap();
        assert_eq!(taken.map(|taken| taken.action), expected);
    }
    // Its program was killed, and nobody has that source any more: that does not wait for ever.
    db.execute(
        "UPDATE oa.requests SET leased_until = now() - interval '61 minutes' WHERE state = 'taken'",
        &[],
    )
    .unwrap();
    let again = requests::put(&mut db, &of_day(1), "wang").unwrap();
    assert!(matches!(again, Put::New(_)), "{again:?}");
}

#[test]
fn what_changes_is_seen_at_once_although_nothing_was_due() {
    let service = Service::start();
    tick(&service, -60, "");
    let note = service.state().join("due/sources.seen");
    wait_until("the files are old enough", Duration::from_secs(60), || {
        due(&service) == 0 && note.is_file()
    });
    let starts = || -> i64 {
        service
            .text("SELECT sum(starts)::text FROM oa.starts")
            .parse()
            .unwrap()
    };
    let before = starts();
    // Nothing is read now: what the note says would be written once more.
    let written = fs::metadata(&note).unwrap().modified().unwrap();
    assert_eq!((due(&service), due(&service)), (0, 0));
    assert_eq!(starts(), before + 2, "each start is counted");
    assert_eq!(fs::metadata(&note).unwrap().modified().unwrap(), written);
    // Somebody asks for a run.
    let asked = oa_core::journal::requests::Action::Run {
        task: "tick".to_owned(),
        day: None,
    };
    oa_core::journal::requests::put(&mut service.db(), &asked, "wang").unwrap();
    assert_eq!((due(&service), runs(&service)), (0, 1));
    // A slot is due.
    let earlier = "UPDATE oa.slots SET due_at = now() - interval '1 minute' WHERE due_at = (SELECT min(due_at) FROM oa.slots)";
    service.db().batch_execute(earlier).unwrap();
    assert_eq!((due(&service), runs(&service)), (0, 2));
    // The database is another one.
    service
        .db()
        .batch_execute("DELETE FROM oa.slots; DELETE FROM oa.tasks")
        .unwrap();
    assert_eq!(due(&service), 0);
    assert!(service.count("oa.slots WHERE state = 'open'") > 0);
    // A file is broken.
    fs::write(service.dir.path().join("sources/other.toml"), "name = ").unwrap();
    assert_eq!(due(&service), 78);
    // What did not run for a reason was not owed, and a try by hand that fails does not change that.
    fs::remove_file(service.dir.path().join("sources/other.toml")).unwrap();
    tick(&service, -60, "exit 1");
    service
        .db()
        .batch_execute("UPDATE oa.days SET state = 'skipped'")
        .unwrap();
    assert_eq!(service.crawl(&["run", "tick"]).code, 1);
    assert_eq!(service.count("oa.days WHERE state <> 'skipped'"), 0);
}

#[test]
fn a_task_that_somebody_has_locked_keeps_no_other_waiting() {
    let service = Service::start();
    tick(&service, 10, "");
    let folder = service.dir.path().join("sources");
    let text = fs::read_to_string(folder.join("tick.toml")).unwrap();
    let text = text.replace("fetch =", "shows = \"any day\"\nfetch =");
    for name in ["held", "tick", "tock"] {
        let text = text.replace("\"tick\"", &format!("\"{name}\""));
        fs::write(folder.join(format!("{name}.toml")), text).unwrap();
    }
    service.configure_at_noon(
        "sources = \"sources\"\nretries = 0\nenable = [\"held\", \"tick\", \"tock\"]\n",
    );
    assert_eq!(due(&service), 0);
    // Each has slots to be written, a run that is due, and a slot that is too old to be made up for.
    let mut db = service.db();
    db.batch_execute(
        "UPDATE oa.tasks SET slots_until = now() + interval '1 hour';
         UPDATE oa.slots SET state = 'open', run_id = NULL, closed_at = NULL WHERE due_at <= now();
         UPDATE oa.days SET state = 'pending';
         INSERT INTO oa.slots (task, due_at, day, state)
         SELECT name, now() - interval '3 days', current_date - 3, 'open' FROM oa.tasks",
    )
    .unwrap();
    let mut lock = db.transaction().unwrap();
    lock.batch_execute("SELECT FROM oa.tasks WHERE name = 'held' FOR UPDATE")
        .unwrap();
    let running = service
        .command(&["run", "--due", "--format", "json"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // `lock_timeout` is half a minute.
    wait_until("the others", Duration::from_secs(20), || {
        service.count("oa.runs WHERE task IN ('tick', 'tock') AND status = 'success'") == 4
    });
    lock.rollback().unwrap();
    let done = running.wait_with_output().unwrap();
    let said = String::from_utf8(done.stderr).unwrap();
    for says in [
        "the slots of held are written later",
        "old slots of held are closed later",
    ] {
        assert!(said.contains(says), "{said}");
    }
    assert_eq!(runs(&service), 2);
    assert_eq!(service.count("oa.runs WHERE task = 'held'"), 2);
    assert_eq!(
        service.count("oa.slots WHERE state = 'missed' AND task <> 'held'"),
        2
    );
    // The next time does what is left.
    assert_eq!(due(&service), 0);
    assert_eq!(
        service.count("oa.slots WHERE state = 'missed' AND task = 'held'"),
        1
    );
    assert_eq!(
        service.count("oa.tasks WHERE slots_until > now() + interval '1 day'"),
        3
    );
}
