//! Half a year with the long holidays, outages, kills and clocks that jump, on a server whose clock is led through them: at the end every slot is
//! closed, once and rightly, and every hole has its name.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::Duration;

use chrono::{DateTime, Datelike, NaiveDate, TimeDelta, TimeZone, Timelike, Utc};
use chrono_tz::Asia::Shanghai;
use oa_core::journal::abandoned;
use oa_core::journal::due::{self, Scheduled, Times};
use oa_core::journal::slots::{self, Policy};
use oa_core::journal::store::{self, Lease};
use oa_core::model::run::{Outcome, RunStart, Status, Trigger};
use oa_core::pg::schema;
use oa_core::schedule::{Calendar, CatchUp, Days};
use oa_testkit::{Clock, Postgres};
use postgres::Client;

use crate::common::policy;

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
                &policy(),
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
        store::apply(&mut self.client, &outcome, &policy()).unwrap();
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
    assess(&mut world, begin, now);
}

/// Everything that was due is closed, by what truly happened.
fn assess(world: &mut World, begin: DateTime<Utc>, now: DateTime<Utc>) {
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
