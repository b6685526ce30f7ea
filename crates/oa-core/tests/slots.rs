//! Half a year with the long holidays, outages, kills and clocks that jump, on a server whose clock is led through them: at the end every slot is
//! closed, once and rightly, and every hole has its name.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Asia::Shanghai;
use oa_core::journal::abandoned;
use oa_core::journal::due::{self, Scheduled, Times};
use oa_core::journal::history;
use oa_core::journal::incidents;
use oa_core::journal::slots::{self, Decision, Policy, Unmade};
use oa_core::journal::store::{self, Lease};
use oa_core::model::run::{Attempt, Outcome, RunStart, Status, Trigger};
use oa_core::pg::schema;
use oa_core::schedule::{Calendar, CatchUp, Days};
use oa_testkit::{Clock, Postgres};
use postgres::Client;

fn outcomes() -> incidents::Policy {
    incidents::Policy {
        timezone: Shanghai,
        keep_revisions: false,
        repeat: Duration::from_secs(3600),
    }
}

/// The same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }

    /// So often of a thousand times.
    fn happens(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }
}

fn set(clock: &Clock, at: DateTime<Utc>) {
    clock.set(at.timestamp_millis() as f64 / 1000.0);
}

fn local(text: &str) -> DateTime<Utc> {
    let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
    Shanghai.from_local_datetime(&local).unwrap().to_utc()
}

fn day_of(at: DateTime<Utc>) -> NaiveDate {
    at.with_timezone(&Shanghai).date_naive()
}

fn task(name: &str, schedule: &str, days: Days, collects: bool) -> Scheduled {
    Scheduled {
        days,
        collects,
        backfills: name == "all",
        ..Scheduled::program(name, name, schedule)
    }
}

/// What each task does with what it missed, and whether its site shows only the present day.
fn rule(name: &str) -> (Policy, bool) {
    let all = name == "all";
    let policy = Policy {
        catch_up: if all { CatchUp::All } else { CatchUp::Latest },
        limit: 5,
        age: if all {
            TimeDelta::days(20)
        } else {
            TimeDelta::hours(24)
        },
    };
    (policy, name == "today")
}

struct World {
    client: Client,
    calendar: Calendar,
    tasks: Vec<Scheduled>,
    random: Random,
    /// Slots for which a run ended while the clocks were right, and whether it succeeded.
    ended: BTreeMap<(String, DateTime<Utc>), bool>,
    /// The day that each success is for, and the time that it stands for.
    successes: BTreeSet<(String, NaiveDate, DateTime<Utc>)>,
}

impl World {
    fn now(&mut self) -> DateTime<Utc> {
        self.client
            .query_one("SELECT clock_timestamp()", &[])
            .unwrap()
            .get(0)
    }

    fn run(&mut self, name: &str, due_at: Option<DateTime<Utc>>, trigger: Trigger, killed: bool) {
        let now = self.now();
        let mut start = RunStart::now("oa-test", "0", name, name, trigger, Duration::from_secs(60));
        start.started_at = now;
        start.clock_offset = Some(0.0);
        start.due_at = due_at;
        start.day = due_at.map(day_of);
        if killed {
            // No such process, on this machine.
            start.process.pid_started = 1;
        }
        let lease = store::begin(&mut self.client, &start).unwrap();
        assert_eq!(lease, Lease::Acquired, "{name} {due_at:?}");
        if killed {
            let marked = abandoned::mark_abandoned(
                &mut self.client,
                &HashSet::new(),
                |_| abandoned::LeftByRun::default(),
                &outcomes(),
            );
            assert_eq!(marked.unwrap(), [start.id]);
            return;
        }
        let fine = self.random.happens(950);
        let status = if fine {
            Status::Success
        } else {
            Status::Failed
        };
        let outcome = Outcome::bare(start, status, now);
        store::apply(&mut self.client, &outcome, &outcomes()).unwrap();
        let named: Option<DateTime<Utc>> = self
            .client
            .query_one(
                "SELECT due_at FROM oa.runs WHERE id = $1",
                &[&outcome.start.id],
            )
            .unwrap()
            .get(0);
        if let Some(named) = named {
            self.ended.insert((name.to_owned(), named), fine);
        }
        if fine {
            let at = named.unwrap_or(now);
            self.successes.insert((name.to_owned(), day_of(at), at));
        }
    }

    /// `run --due`, and the crontab line of the program.
    fn minute(&mut self, kills: bool) {
        self.client.execute("SELECT oa.watch_clock()", &[]).unwrap();
        let times = Times {
            zone: Shanghai,
            calendar: &self.calendar,
        };
        due::register(&mut self.client, "oa-test", &self.tasks, times).unwrap();
        let now = self.now();
        let sources: Vec<(&str, TimeDelta)> = self
            .tasks
            .iter()
            .filter(|t| t.collects)
            .map(|t| (t.name.as_str(), TimeDelta::zero()))
            .collect();
        let open = slots::open(&mut self.client, &sources).unwrap();
        for (name, open) in open {
            let (policy, only_today) = rule(&name);
            let today = day_of(now);
            let decision = slots::decide(&open, policy, now, None, |day| {
                (only_today && day != today).then(|| format!("shows {today}"))
            });
            assert!(slots::close(&mut self.client, &name, &decision, true).unwrap());
            for (due_at, _) in decision.run {
                let killed = kills && self.random.happens(200);
                self.run(&name, Some(due_at), Trigger::Due, killed);
                if killed {
                    break;
                }
            }
        }
        slots::close_unmade(&mut self.client, TimeDelta::minutes(10)).unwrap();
    }
}

/// When a task was due, counted by other means than the schedule's.
fn expected(
    name: &str,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    calendar: &Calendar,
) -> BTreeSet<DateTime<Utc>> {
    let mut found = BTreeSet::new();
    let mut day = day_of(from);
    while day <= day_of(to) {
        let weekend = day.weekday().num_days_from_monday() >= 5;
        let open = !weekend && calendar.is_trading_day(day).is_open();
        let hours: &[(u32, u32)] = match name {
            "all" if open => &[(15, 30)],
            "today" if open => &[(9, 5), (13, 5)],
            "night" if open && calendar.has_night_session(day) => &[(20, 50)],
            "program" if !weekend => &[(18, 0)],
            _ => &[],
        };
        for (h, m) in hours {
            let at = Shanghai
                .from_local_datetime(&day.and_hms_opt(*h, *m, 0).unwrap())
                .unwrap()
                .to_utc();
            if at > from && at <= to {
                found.insert(at);
            }
        }
        day = day.succ_opt().unwrap();
    }
    found
}

#[test]
fn half_a_year_with_outages_kills_and_wrong_clocks_leave_no_slot_open_and_no_hole_unnamed() {
    let mut server = Postgres::start();
    let clock = Clock::of(&mut server);
    let begin = local("2025-09-15 08:00");
    set(&clock, begin);
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "CREATE TABLE public.closed_twice (task text, due_at timestamptz, was text, is_now text);
             CREATE FUNCTION public.seen() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF OLD.state <> 'open' AND NEW.state <> 'open' AND OLD.state <> NEW.state THEN
                 INSERT INTO public.closed_twice VALUES (NEW.task, NEW.due_at, OLD.state, NEW.state);
               END IF;
               RETURN NEW; END $$;
             CREATE TRIGGER seen BEFORE UPDATE ON oa.slots FOR EACH ROW EXECUTE FUNCTION public.seen()",
        )
        .unwrap();
    let mut world = World {
        client,
        calendar: Calendar::shipped(),
        tasks: vec![
            task("all", "30 15 * * *", Days::Trading, true),
            task("today", "5 9,13 * * *", Days::Trading, true),
            task("night", "50 20 * * *", Days::Night, true),
            task("program", "0 18 * * 1-5", Days::All, false),
        ],
        random: Random(20_250_102),
        ended: BTreeMap::new(),
        successes: BTreeSet::new(),
    };
    let end = local("2026-03-10 23:00");
    let mut now = begin;
    let mut line_removed = begin;
    let mut wrong = 0;
    while now < end {
        set(&clock, now);
        let hour = now.with_timezone(&Shanghai).hour();
        let kills = now.day().is_multiple_of(9);
        world.minute(kills);
        // The crontab line of the program is there most of the time.
        if hour == 18 && now > line_removed {
            world.run("program", None, Trigger::Cron, false);
        }
        if world.random.happens(3) {
            line_removed = now + TimeDelta::days(2 + world.random.below(13) as i64);
        }
        // A clock that is wrong for a minute, between -1 and +30 days.
        if world.random.happens(20) {
            wrong += 1;
            let before = world.ended.clone();
            let off = [
                TimeDelta::days(-1),
                TimeDelta::hours(8),
                TimeDelta::days(3),
                TimeDelta::days(30),
            ];
            set(&clock, now + off[wrong % 4] + TimeDelta::minutes(2));
            world.minute(false);
            // Right again; what ran for a time that has not come has not run.
            set(&clock, now + TimeDelta::minutes(4));
            world
                .client
                .execute("SELECT oa.watch_clock()", &[])
                .unwrap();
            let come = now + TimeDelta::minutes(4);
            world
                .ended
                .retain(|slot, _| before.contains_key(slot) || slot.1 <= come);
            world.successes.retain(|(_, _, at)| *at <= come);
        }
        now += if world.random.happens(20) {
            TimeDelta::hours(12 + world.random.below(228) as i64)
        } else {
            // Just after what is due: 9:06, 13:06, 15:31, 18:01, 20:51.
            let times = [(9, 6), (13, 6), (15, 31), (18, 1), (20, 51)];
            let at = now.with_timezone(&Shanghai);
            let next = times
                .iter()
                .find(|(h, m)| (at.hour(), at.minute()) < (*h, *m));
            let (day, (h, m)) = match next {
                Some(time) => (at.date_naive(), *time),
                None => (at.date_naive().succ_opt().unwrap(), times[0]),
            };
            let local = day.and_hms_opt(h, m, 0).unwrap();
            Shanghai.from_local_datetime(&local).unwrap().to_utc() - now
        };
    }
    assert!(wrong > 5, "clocks went wrong {wrong} times");
    judge(&mut world, begin, now);
}

/// Everything that was due is closed, by what truly happened.
fn judge(world: &mut World, begin: DateTime<Utc>, now: DateTime<Utc>) {
    let twice: i64 = world
        .client
        .query_one("SELECT count(*) FROM public.closed_twice", &[])
        .unwrap()
        .get(0);
    assert_eq!(twice, 0, "closed once");
    let until = now - TimeDelta::days(1);
    let mut holes = 0;
    for task in world.tasks.clone() {
        let name = task.name.as_str();
        let rows = world
            .client
            .query(
                "SELECT s.due_at, s.state, s.reason, s.filled_by IS NOT NULL, r.task, s.day, s.run_id IS NOT NULL FROM oa.slots s LEFT JOIN oa.runs r ON r.id = s.run_id
                 WHERE s.task = $1 AND s.due_at BETWEEN $2 AND $3 AND s.owed ORDER BY 1",
                &[&name, &begin, &until],
            )
            .unwrap();
        let due: BTreeSet<DateTime<Utc>> = rows.iter().map(|r| r.get(0)).collect();
        assert_eq!(
            due,
            expected(name, begin, until, &world.calendar),
            "{name}: every time that was due, and no other"
        );
        for row in rows {
            let (due_at, state): (DateTime<Utc>, &str) = (row.get(0), row.get(1));
            let what = format!(
                "{name} {} {state} {:?}",
                due_at.with_timezone(&Shanghai),
                row.get::<_, Option<&str>>(2)
            );
            let ran = world.ended.contains_key(&(name.to_owned(), due_at));
            match state {
                "done" => assert!(
                    row.get(6) && row.get::<_, Option<&str>>(4) == Some(name),
                    "{what}: by a run of its own"
                ),
                "missed" | "unfetchable" => {
                    assert!(!ran, "{what}: a run of it ended");
                    assert!(row.get::<_, Option<&str>>(2).is_some(), "{what}: why");
                    let day: NaiveDate = row.get(5);
                    let mut later = world
                        .successes
                        .iter()
                        .filter(|(n, d, at)| n == name && *d == day && *at > due_at);
                    let filled = later.next().is_some();
                    assert_eq!(
                        row.get::<_, bool>(3),
                        filled,
                        "{what}: a success of its day fills it, and nothing else"
                    );
                    holes += usize::from(!filled);
                }
                other => panic!("{what}: {other}"),
            }
            if ran {
                assert_eq!(state, "done", "{what}");
            }
        }
        if task.collects {
            let days: i64 = world
                .client
                .query_one(
                    "SELECT count(*) FROM oa.days d WHERE d.task = $1 AND d.day < ($2::timestamptz - interval '2 days')::date AND d.state = 'pending'
                       AND NOT EXISTS (SELECT FROM oa.slots s WHERE s.task = d.task AND s.day = d.day AND s.state = 'done')",
                    &[&name, &until],
                )
                .unwrap()
                .get(0);
            assert_eq!(days, 0, "{name}: what became of each day is said");
        }
    }
    assert!(holes > 10, "{holes} holes: outages leave some");
}

/// Three slots of one day, due three, two and one hours ago; its content came two and a half hours ago.
fn afternoon(client: &mut Client) -> NaiveDate {
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) VALUES ('t', 'oa-test', 't', true);
             INSERT INTO oa.slots (task, due_at, day) SELECT 't', now() - make_interval(hours => h), '2026-11-20' FROM generate_series(1, 3) h;
             INSERT INTO oa.days (task, day, expected, state, run_id, collected_at)
             VALUES ('t', '2026-11-20', true, 'complete', gen_random_uuid(), now() - interval '150 minutes')",
        )
        .unwrap();
    NaiveDate::from_ymd_opt(2026, 11, 20).unwrap()
}

fn filled(client: &mut Client) -> String {
    let query = "SELECT string_agg(state || ' ' || (filled_by IS NOT NULL), ', ' ORDER BY due_at) FROM oa.slots";
    client.query_one(query, &[]).unwrap().get(0)
}

#[test]
fn what_was_collected_before_a_slot_was_due_does_not_fill_it() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    afternoon(&mut client);
    let rows = client.query("SELECT due_at FROM oa.slots", &[]).unwrap();
    let close = rows
        .iter()
        .map(|r| {
            let due_at: DateTime<Utc> = r.get(0);
            (due_at, Unmade::Missed, "off".to_owned())
        })
        .collect();
    let decision = Decision {
        close,
        ..Decision::default()
    };
    assert!(slots::close(&mut client, "t", &decision, true).unwrap());
    assert_eq!(
        filled(&mut client),
        "missed true, missed false, missed false"
    );
    let row = client.query_one("SELECT state FROM oa.days", &[]).unwrap();
    assert_eq!(row.get::<_, &str>(0), "partial");
}

#[test]
fn a_run_that_waited_in_a_spool_does_not_fill_what_was_due_after_it() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let day = afternoon(&mut client);
    client
        .batch_execute("UPDATE oa.slots SET state = 'missed', closed_at = now(), reason = 'off'")
        .unwrap();
    let mut start = RunStart::now(
        "oa-test",
        "0",
        "t",
        "t",
        Trigger::Manual,
        Duration::from_secs(60),
    );
    start.started_at = Utc::now() - TimeDelta::minutes(150);
    start.clock_offset = Some(0.0);
    start.day = Some(day);
    let finished_at = start.started_at + TimeDelta::minutes(1);
    let outcome = Outcome::bare(start, Status::Success, finished_at);
    store::apply(&mut client, &outcome, &outcomes()).unwrap();
    assert_eq!(
        filled(&mut client),
        "missed true, missed false, missed false"
    );
    // What is missing of the day is what a backfill is for.
    client
        .batch_execute(
            "INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score) SELECT id, task, '2026-11-20', 1, 0, 100 FROM oa.runs",
        )
        .unwrap();
    let there = |client: &mut Client| history::collected_days(client, "t", day, day).unwrap();
    assert!(there(&mut client).is_empty());
    client
        .batch_execute("UPDATE oa.slots SET filled_by = gen_random_uuid(), filled_at = now()")
        .unwrap();
    assert_eq!(there(&mut client), [day]);
}

#[test]
fn after_days_without_any_note_what_is_open_waits_for_run_due() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    afternoon(&mut client);
    client
        .batch_execute(
            "UPDATE oa.slots SET state = 'done', run_id = gen_random_uuid(), closed_at = now() WHERE due_at = (SELECT max(due_at) FROM oa.slots);
             INSERT INTO oa.starts (what, host, day, first_at, last_at) SELECT w, 'h', now()::date - 3, now() - interval '3 days', now() - interval '3 days'
             FROM unnest(ARRAY['check', 'due']) w;
             INSERT INTO oa.starts (what, host, day, gap_from, gap_to) VALUES ('check', 'h', now()::date, now() - interval '3 days', now())",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    assert_eq!(filled(&mut client), "open false, open false, done false");
    client
        .batch_execute("UPDATE oa.starts SET gap_from = NULL, gap_to = NULL")
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    assert_eq!(
        filled(&mut client),
        "missed false, missed false, done false"
    );
}

#[test]
fn what_a_clock_that_was_ahead_took_for_past_is_owed_when_it_comes() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) VALUES ('t', 'oa-test', 't', true);
             INSERT INTO oa.slots (task, due_at, day, owed) VALUES ('t', now() + interval '1 day', now()::date + 1, false);
             UPDATE oa.clock SET latest = now() + interval '2 days';
             SELECT oa.watch_clock()",
        )
        .unwrap();
    let owed = client.query_one("SELECT owed FROM oa.slots", &[]).unwrap();
    assert!(owed.get::<_, bool>(0));
}

#[test]
fn what_ran_while_the_servers_clock_was_wrong_has_run_and_was_not_reported_in_the_future() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    // Daily, an hour ago the last time. A server that was behind by an hour, one that was ahead by a month (from before the run, and during it),
    // and a machine that was by a day.
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title) SELECT t, 'oa-test', t FROM unnest(ARRAY['never', 'behind', 'ahead', 'before', 'machine']) t;
             INSERT INTO oa.slots (task, due_at, day, state, closed_at, run_id, reported_at)
             SELECT name, now() - interval '25 hours', current_date - 1, 'done', now(), gen_random_uuid(), NULL FROM oa.tasks
             UNION ALL SELECT name, now() - interval '1 hour', current_date, 'open', NULL, NULL, now() + interval '1 month' FROM oa.tasks
             UNION ALL SELECT name, now() + interval '23 hours', current_date + 1, 'open', NULL, NULL, NULL FROM oa.tasks;
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, due_at)
             SELECT CASE task WHEN 'before' THEN oa.uuid_floor(due_at + interval '5 minutes') ELSE gen_random_uuid() END, 'oa-test', task, 'cron', 'h',
                    '', '', 1, 1, '', 'success', due_at + after, due_at + after, due_at + names
             FROM oa.slots
             JOIN (VALUES ('behind', interval '-1 hour', interval '0'), ('ahead', '5 minutes', '1 month'), ('before', '1 month', '1 month'), ('machine', '-24 hours', '0'))
               v (task, after, names) USING (task) WHERE day = current_date",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    let slots = |client: &mut Client, columns: &str| -> String {
        let query = format!(
            "SELECT string_agg(task || ' ' || {columns}, ', ' ORDER BY task, due_at) FROM oa.slots WHERE due_at > now() - interval '2 hours' AND day <= current_date + 1
               AND (day = current_date OR task = 'never')"
        );
        client.query_one(&query, &[]).unwrap().get(0)
    };
    assert_eq!(
        slots(&mut client, "state || ' ' || (run_id IS NOT NULL)"),
        "ahead done true, before done true, behind done true, machine missed false, never missed false, never open false"
    );
    let (now, day) = (Utc::now(), TimeDelta::days(1));
    slots::reported(&mut client, "never", (now - day, now + day)).unwrap();
    client
        .batch_execute("DELETE FROM oa.slots WHERE task <> 'never'")
        .unwrap();
    assert_eq!(
        slots(&mut client, "coalesce(reported_at <= now(), false)"),
        "never true, never false"
    );
}

#[test]
fn a_source_that_collected_another_day_while_the_clock_was_wrong_has_missed_its_own() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    // A server that was ahead by a month, and one that was behind by an hour, on the same day. Nothing collects it once more.
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, title, collects) SELECT t, 'oa-test', t, true FROM unnest(ARRAY['ahead', 'behind']) t;
             INSERT INTO oa.slots (task, due_at, day, state, closed_at, run_id)
             SELECT name, now() - interval '25 hours', current_date - 1, 'open', NULL, NULL::uuid FROM oa.tasks
             UNION ALL SELECT name, now() - interval '1 hour', current_date, 'done', now(), gen_random_uuid() FROM oa.tasks;
             INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, status, started_at, finished_at, due_at)
             SELECT gen_random_uuid(), 'oa-test', task, 'cron', 'h', '', '', 1, 1, '', 'success', due_at + after, due_at + after, due_at + names
             FROM oa.slots JOIN (VALUES ('ahead', interval '5 minutes', interval '1 month'), ('behind', '-1 hour', '0')) v (task, after, names) USING (task)
             WHERE state = 'open';
             INSERT INTO oa.days (task, day, expected, state) VALUES ('ahead', current_date - 1, true, 'pending'), ('behind', current_date - 1, true, 'complete')",
        )
        .unwrap();
    slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
    let found = "SELECT string_agg(task || ' ' || s.state || ' ' || d.state, ', ' ORDER BY task) FROM oa.slots s JOIN oa.days d USING (task, day)";
    let found: String = client.query_one(found, &[]).unwrap().get(0);
    assert_eq!(found, "ahead missed missing, behind done complete");
}

#[test]
fn whoever_waits_for_a_task_has_nothing_that_its_run_waits_for() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    let lease = Duration::from_secs(60);
    let run = RunStart::now("oa-test", "0", "t", "t", Trigger::Manual, lease);
    store::begin(&mut client, &run).unwrap();
    client
        .batch_execute(
            "UPDATE oa.runs SET pid_started = 1;
             INSERT INTO oa.slots (task, due_at, day, state) VALUES ('t', now() - interval '2 hours', current_date, 'open'), ('t', now() + interval '1 hour', current_date, 'open');
             INSERT INTO oa.days (task, day, expected, state) VALUES ('t', current_date, true, 'pending')",
        )
        .unwrap();
    let at = client.query_one("SELECT min(due_at) FROM oa.slots", &[]);
    let close = Decision {
        close: vec![(at.unwrap().get(0), Unmade::Missed, "off".to_owned())],
        ..Decision::default()
    };
    let calendar = Calendar::shipped();
    let times = Times {
        zone: Shanghai,
        calendar: &calendar,
    };
    let attempt = Attempt {
        number: 1,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        outcome: Status::Failed,
        error: None,
    };
    let bare = |_: &RunStart| abandoned::LeftByRun::default();
    type Work<'a> = Box<dyn Fn(&mut Client) + Sync + 'a>;
    let work: [(&str, Work<'_>); 4] = [
        (
            "a try",
            Box::new(|c| store::record_attempt(c, &run, &attempt).unwrap()),
        ),
        (
            "the end of a slot",
            Box::new(|c| {
                slots::close(c, "t", &close, true).unwrap();
            }),
        ),
        (
            "another schedule",
            Box::new(|c| {
                let task = Scheduled::program("t", "t", "0 9 * * *");
                due::register(c, "oa-test", &[task], times).unwrap();
            }),
        ),
        (
            "the end of a run that was killed",
            Box::new(|c| {
                let marked = abandoned::mark_abandoned(c, &HashSet::new(), bare, &outcomes());
                assert_eq!(marked.unwrap(), [run.id]);
            }),
        ),
    ];
    let mut other = server.connect();
    for (what, work) in &work {
        // As whoever stores an outcome: the task, and then what belongs to it.
        let mut held = other.transaction().unwrap();
        held.execute("SELECT FROM oa.tasks FOR UPDATE", &[])
            .unwrap();
        std::thread::scope(|threads| {
            let waiting = threads.spawn(|| work(&mut server.connect()));
            oa_testkit::wait_until("it waits for the task", Duration::from_secs(20), || {
                let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
                client.query_one(waits, &[]).unwrap().get(0)
            });
            // What nobody can store now, the check leaves to the next one.
            slots::close_unmade(&mut client, TimeDelta::minutes(10)).unwrap();
            for table in ["runs", "slots", "days", "incidents"] {
                let lock = format!("SELECT FROM oa.{table} FOR UPDATE NOWAIT");
                held.execute(&lock, &[])
                    .unwrap_or_else(|e| panic!("{what} has {table}: {e}"));
            }
            drop(held);
            waiting.join().unwrap();
        });
    }
}

#[test]
fn a_clock_that_has_gone_back_locks_tasks_in_the_order_in_which_all_do() {
    let server = Postgres::start();
    let mut client = server.connect();
    schema::upgrade(&mut client).unwrap();
    client
        .batch_execute(
            "INSERT INTO oa.tasks (name, tool, lease_until) SELECT t, 'oa-test', now() + interval '1 day' FROM unnest(ARRAY['b', 'a']) t;
             UPDATE oa.clock SET latest = now() + interval '3 days'",
        )
        .unwrap();
    let mut other = server.connect();
    let mut held = other.transaction().unwrap();
    let lock = "SELECT FROM oa.tasks WHERE name = $1 FOR UPDATE NOWAIT";
    held.execute(lock, &[&"a"]).unwrap();
    std::thread::scope(|threads| {
        let waiting = threads.spawn(|| {
            let mut client = server.connect();
            client.batch_execute("SELECT oa.watch_clock()").unwrap();
        });
        oa_testkit::wait_until("it waits for the task", Duration::from_secs(20), || {
            let waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)";
            client.query_one(waits, &[]).unwrap().get(0)
        });
        held.execute(lock, &[&"b"]).unwrap();
        drop(held);
        waiting.join().unwrap();
    });
    let noted = client.query_one("SELECT count(*) FROM oa.clock_steps", &[]);
    assert_eq!(noted.unwrap().get::<_, i64>(0), 1);
}
