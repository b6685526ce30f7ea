//! What people are notified of one incident, whatever comes in whatever order: a small model of it, and the database beside it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::cell::RefCell;
use std::time::Duration;

use chrono::Utc;
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::store::TaskState;
use oa_core::model::Severity;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{Outcome, RunError, RunStart, Status, Trigger};
use oa_core::pg::schema;
use oa_testkit::Postgres;
use postgres::Client;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};

use super::{Database, Route};

const WORDING: oa_wording::Wording = oa_wording::Wording {
    locale: oa_core::app::config::Locale::Zh,
    timezone: chrono_tz::Asia::Shanghai,
};

const TASK: &str = "rongda-positions";
/// Minutes after which a incident that goes on is notified again.
const REPEAT: u64 = 60;
/// Recoveries that are notified within an hour.
const MOST_RECOVERIES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Event {
    Failure,
    Abandoned,
    Partial,
    Success,
    /// Another start while one runs.
    Skipped,
    Ack,
    SilenceBegins,
    SilenceEnds,
    /// No sum of these is close to an hour.
    Minutes25,
    Minutes45,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Failure),
        1 => Just(Event::Abandoned),
        3 => Just(Event::Partial),
        5 => Just(Event::Success),
        1 => Just(Event::Skipped),
        1 => Just(Event::Ack),
        1 => Just(Event::SilenceBegins),
        1 => Just(Event::SilenceEnds),
        2 => Just(Event::Minutes25),
        2 => Just(Event::Minutes45),
    ]
}

/// One alert, as the model and as the database have it.
#[derive(Debug, Clone, PartialEq)]
struct Notified {
    recovery: bool,
    critical: bool,
    /// Persisted, sent to nobody.
    silenced: bool,
}

#[derive(Debug, Clone, Default)]
struct Model {
    now: u64,
    /// What was notified when.
    notified: Vec<(u64, Notified)>,
    acked: bool,
    silence: bool,
    /// The last alert was not sent because of a silence that is over.
    unheard: bool,
}

impl Model {
    fn is_open(&self) -> bool {
        self.notified.last().is_some_and(|(_, t)| !t.recovery)
    }

    fn notify(&mut self, recovery: bool, critical: bool) {
        // Who has heard of a incident hears that it is over, and nobody else.
        let mut problems = self.notified.iter().rev().take_while(|(_, t)| !t.recovery);
        let silenced = if recovery {
            problems.all(|(_, t)| t.silenced)
        } else {
            self.silence
        };
        let notified = Notified {
            recovery,
            critical,
            silenced,
        };
        self.notified.push((self.now, notified));
        self.unheard = false;
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Failure | Event::Abandoned | Event::Partial => {
                let critical = event != Event::Partial;
                let known = self.is_open()
                    && self.notified.last().is_some_and(|(at, last)| {
                        let worse = critical && !last.critical;
                        !worse && !self.unheard && (self.acked || self.now - at < REPEAT)
                    });
                if !known {
                    self.notify(false, critical);
                }
            }
            Event::Success => {
                let recoveries = self
                    .notified
                    .iter()
                    .filter(|(at, t)| t.recovery && self.now - at < 60);
                if self.is_open() && recoveries.count() < MOST_RECOVERIES {
                    self.notify(true, false);
                    self.acked = false;
                }
            }
            Event::Skipped => {}
            Event::Ack => self.acked |= self.is_open(),
            Event::SilenceBegins => self.silence = true,
            Event::SilenceEnds => {
                self.unheard |=
                    self.silence && self.notified.last().is_some_and(|(_, t)| t.silenced);
                self.silence = false;
            }
            Event::Minutes25 => self.now += 25,
            Event::Minutes45 => self.now += 45,
        }
    }
}

/// The same with the database.
struct Real {
    client: Client,
    policy: Policy,
    routes: Vec<Route>,
}

impl Real {
    fn happens(&mut self, event: Event, model: &Model) {
        let status = match event {
            Event::Failure => Status::Failed,
            Event::Abandoned => Status::Abandoned,
            Event::Partial => Status::Partial,
            Event::Success => Status::Success,
            Event::Skipped => Status::Skipped,
            Event::Ack => {
                // As oa-alert ack does it.
                incidents::acknowledge(&mut self.client, TASK, "me", "").unwrap();
                return;
            }
            Event::SilenceBegins if model.silence => return,
            Event::SilenceBegins => {
                let sql = format!(
                    "INSERT INTO oa.silences (task, by, until) VALUES ('{TASK}', 'me', now() + interval '30 days')"
                );
                return self.client.batch_execute(&sql).unwrap();
            }
            Event::SilenceEnds => {
                let sql = "UPDATE oa.silences SET until = now() WHERE until > now()";
                return self.client.batch_execute(sql).unwrap();
            }
            Event::Minutes25 => return self.pass(25),
            Event::Minutes45 => return self.pass(45),
        };
        let start = RunStart::now(
            "oa-crawl",
            "0",
            TASK,
            "持仓",
            Trigger::Cron,
            Duration::from_secs(60),
        );
        let mut outcome = Outcome::bare(start, status, Utc::now());
        if status != Status::Success {
            outcome.error = Some(RunError::new(ErrorKind::Network, "reset"));
        }
        let mut tx = self.client.transaction().unwrap();
        incidents::after_run(&mut tx, &outcome, &TaskState::default(), &self.policy).unwrap();
        tx.commit().unwrap();
        Database::open(&mut self.client, &self.routes, None, WORDING).unwrap();
    }

    fn pass(&mut self, minutes: u32) {
        let back = format!("- interval '{minutes} minutes'");
        let sql = format!(
            "UPDATE oa.alerts SET created_at = created_at {back};
             UPDATE oa.incidents SET opened_at = opened_at {back}, notified_at = notified_at {back},
               recoveries = ARRAY(SELECT r {back} FROM unnest(recoveries) r);
             UPDATE oa.silences SET created_at = created_at {back}, until = CASE WHEN until > now() THEN until ELSE until {back} END"
        );
        self.client.batch_execute(&sql).unwrap();
    }

    fn notified(&mut self) -> Vec<Notified> {
        let rows = self.client.query(
            "SELECT kind = 'recovery', severity = 'critical', silenced_by IS NOT NULL, EXISTS (SELECT FROM oa.deliveries d WHERE d.alert_id = a.id)
             FROM oa.alerts a ORDER BY id",
            &[],
        );
        let notified = |row: &postgres::Row| {
            let (silenced, queued): (bool, bool) = (row.get(2), row.get(3));
            assert_ne!(silenced, queued, "either silenced or for the channel");
            Notified {
                recovery: row.get(0),
                critical: row.get(1),
                silenced,
            }
        };
        rows.unwrap().iter().map(notified).collect()
    }

    fn is_open(&mut self) -> bool {
        let row = self.client.query_one(
            "SELECT count(*) FROM oa.incidents WHERE resolved_at IS NULL",
            &[],
        );
        row.unwrap().get::<_, i64>(0) == 1
    }
}

/// What a person may rely on, without the model: from what happened and what was notified after each event.
fn promises(log: &[(Event, u64, Vec<Notified>)]) -> Result<(), TestCaseError> {
    let mut before: &[Notified] = &[];
    let mut notified_at: Vec<u64> = Vec::new();
    let (mut bad, mut acked, mut silence_ended) = (false, false, false);
    for (event, now, notified) in log {
        let new = &notified[before.len()..];
        prop_assert!(new.len() <= 1, "one event, one message");
        match event {
            Event::Failure | Event::Abandoned | Event::Partial => bad = true,
            Event::Success => bad = false,
            Event::SilenceEnds => silence_ended = true,
            Event::Ack => acked |= before.last().is_some_and(|t| !t.recovery),
            _ => {}
        }
        if let [new] = new {
            let last = before.last();
            prop_assert!(
                !new.recovery || last.is_some_and(|l| !l.recovery),
                "over without having been notified, or twice"
            );
            prop_assert!(
                new.recovery != bad,
                "a problem when it failed, a recovery when it succeeded"
            );
            if let (false, Some(last), Some(at)) = (
                new.recovery,
                last.filter(|l| !l.recovery),
                notified_at.last(),
            ) {
                let worse = new.critical && !last.critical;
                let due = now - at >= REPEAT && !acked;
                prop_assert!(worse || due || silence_ended, "notified twice");
            }
            acked &= !new.recovery;
            silence_ended = false;
            notified_at.push(*now);
        }
        // Whoever is notified that it is over can rely on it; only what comes and goes counts as open for a while longer.
        let open = notified.last().is_some_and(|t| !t.recovery);
        let flapping = notified
            .iter()
            .zip(&notified_at)
            .filter(|(t, at)| t.recovery && now - **at < 60)
            .count()
            >= MOST_RECOVERIES;
        prop_assert!(
            open == bad || (open && !bad && (flapping || !matches!(event, Event::Success))),
            "open {open}, bad {bad}"
        );
        before = notified;
    }
    Ok(())
}

/// `OA_ALERT_CASES` makes it longer.
fn cases() -> u32 {
    let given = std::env::var("OA_ALERT_CASES").ok();
    given.map_or(40, |n| n.parse().expect("OA_ALERT_CASES is a number"))
}

#[test]
fn whatever_happens_in_whatever_order_is_reported_as_promised() {
    let server = Postgres::start();
    schema::upgrade(&mut server.connect()).unwrap();
    let real = RefCell::new(Real {
        client: server.connect(),
        policy: Policy {
            timezone: chrono_tz::Asia::Shanghai,
            keep_revisions: true,
            repeat: Duration::from_secs(REPEAT * 60),
        },
        routes: vec![Route {
            name: "ops".to_owned(),
            after: Duration::ZERO,
            least: Severity::Info,
            takes: oa_core::app::config::Takes::default(),
            quiet: false,
        }],
    });
    let config = Config {
        cases: cases(),
        failure_persistence: None,
        ..Config::default()
    };
    let result = TestRunner::new(config).run(&prop::collection::vec(event(), 1..40), |events| {
        let mut real = real.borrow_mut();
        real.client
            .batch_execute("TRUNCATE oa.alerts, oa.deliveries, oa.incidents, oa.silences")
            .unwrap();
        let mut model = Model::default();
        let mut log = Vec::new();
        for event in events {
            real.happens(event, &model);
            model.happens(event);
            let notified = real.notified();
            let expected: Vec<Notified> = model.notified.iter().map(|(_, t)| t.clone()).collect();
            prop_assert_eq!(&notified, &expected, "after {:?}", log);
            prop_assert_eq!(real.is_open(), model.is_open());
            log.push((event, model.now, notified));
        }
        promises(&log)
    });
    result.unwrap();
}
