//! Storms of failures, robots that are dead for hours or take back their answers, PostgreSQL that goes away meanwhile, two machines ten
//! minutes apart, and senders that are killed, on a fast clock. What is checked is what others would say: whoever reads the groups, the
//! robots, and the watcher outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use common::{DINGTALK, Dice, FEISHU, Service, WECOM};
use oa_core::journal::incidents::{self, Policy};
use oa_core::model::event::{Event, RunFailed, Work, run_fingerprint};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{RunError, Status};
use oa_sim::Message;
use oa_testkit::Clock;
use uuid::Uuid;

const ROBOTS: [&str; 3] = ["dingtalk", "wecom", "feishu"];
/// So long after its message should have left, in seconds, the watcher outside must know that it has not.
const KNOWN_BY: u64 = 400;

/// `OA_ALERT_SCENES` makes it longer, `OA_ALERT_SEED` another one.
fn given(name: &str, otherwise: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.map_or(otherwise, |n| n.parse().expect("a number"))
}

struct Machine {
    config: PathBuf,
    state: PathBuf,
    /// How far its clock is ahead of the server's.
    ahead: i64,
}

/// Something that people must hear of on each robot.
struct Known {
    name: String,
    /// It has an end of which they must hear as well.
    is_incident: bool,
    began: u64,
    ended: bool,
}

struct World {
    service: Service,
    clock: Clock,
    machines: [Machine; 2],
    dice: Dice,
    /// Seconds since the beginning.
    now: u64,
    known: Vec<Known>,
    /// What has come so far, robot by robot, of so many messages.
    heard: [Heard; 3],
    seen: usize,
    /// PostgreSQL is there.
    up: bool,
    /// A robot does not do as it should at this moment.
    faults: bool,
    story: Vec<String>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut service = Service::start("");
        let channels = format!(
            "[alert]\ngroup_wait = \"1s\"\noff = [\"clock_off\"]\nheartbeat_url = \"BASE/webhook/ping-uuid\"\n{DINGTALK}{WECOM}{FEISHU}"
        );
        service.configure("", &channels);
        let dir = service.dir.path().to_owned();
        let text = fs::read_to_string(dir.join("oa.toml")).unwrap();
        let machine = |name: &str, ahead| {
            let (config, state) = (dir.join(format!("{name}.toml")), dir.join(name));
            let own = text.replace("\"state\"", &format!("\"{name}\""));
            fs::write(&config, own).unwrap();
            Machine {
                config,
                state,
                ahead,
            }
        };
        let machines = [machine("a", 0), machine("b", 600)];
        let clock = Clock::of(&mut service.server);
        Self {
            service,
            clock,
            machines,
            dice: Dice(seed),
            now: 0,
            known: Vec::new(),
            heard: Default::default(),
            seen: 0,
            up: true,
            faults: false,
            story: Vec::new(),
        }
    }

    fn tell(&mut self, what: &str) {
        self.story.push(format!("{:>6} s: {what}", self.now));
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{what}\n{}", self.story.join("\n"));
    }

    fn pass(&mut self, seconds: u64) {
        self.now += seconds;
        self.clock.ahead(self.now as f64);
        self.service.sim.advance(Duration::from_secs(seconds));
    }

    fn command(&self, machine: usize, arguments: &[&str]) -> std::process::Command {
        let machine = &self.machines[machine];
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_oa-alert"));
        command
            .arg("--config")
            .arg(&machine.config)
            .args(arguments)
            .env("DATABASE_URL", self.service.server.url())
            .env_remove("OA_FAILPOINT")
            .envs(Clock::of_a_program(self.now as f64 + machine.ahead as f64));
        command
    }

    /// So many tasks fail at once.
    fn storm(&mut self, count: usize) {
        let policy = Policy {
            timezone: chrono_tz::Asia::Shanghai,
            keep_revisions: true,
            repeat: Duration::from_secs(24 * 3600),
        };
        let mut db = self.service.db();
        let mut tx = db.transaction().unwrap();
        for _ in 0..count {
            let name = format!("e{:04}", self.known.len());
            let at = Utc::now() + TimeDelta::seconds(self.now.cast_signed());
            // A text that a robot may not want is in one of seven.
            let said = if self.known.len() % 7 == 3 {
                "unwanted"
            } else {
                "said so"
            };
            let event = Event::RunFailed(Box::new(RunFailed {
                run: Uuid::now_v7(),
                task: name.clone(),
                title: name.clone(),
                work: Work::Source,
                status: Status::Failed,
                error: RunError::new(ErrorKind::Shape, said),
                attempts: 1,
                started_at: at,
                finished_at: at,
                failing_since: None,
                failures: 1,
                last_success_at: None,
                tables: String::new(),
                day: None,
                collected: 0,
                expected: None,
                host: "crawler1".to_owned(),
                provider: String::new(),
                history_unknown: false,
            }));
            assert!(incidents::raise(&mut tx, event, &policy).unwrap());
            self.known.push(Known {
                name,
                is_incident: true,
                began: self.now,
                ended: false,
            });
        }
        tx.commit().unwrap();
        self.tell(&format!("{count} fail"));
    }

    /// Some of what is open recovers.
    fn recover(&mut self, share: u64) {
        let mut db = self.service.db();
        let mut tx = db.transaction().unwrap();
        let mut count = 0;
        for known in self.known.iter_mut().filter(|k| k.is_incident && !k.ended) {
            if self.dice.below(100) >= share {
                continue;
            }
            let name = known.name.clone();
            let resolved = incidents::resolve(&mut tx, &run_fingerprint(&name), |_, at| {
                Event::RunRecovered {
                    run: Uuid::now_v7(),
                    task: name.clone(),
                    title: name.clone(),
                    failing_since: None,
                    failures: 1,
                    finished_at: at,
                    fetched: 1,
                }
            });
            assert!(resolved.unwrap());
            known.ended = true;
            count += 1;
        }
        tx.commit().unwrap();
        self.tell(&format!("{count} recover"));
    }

    /// A script on a machine says something.
    fn send(&mut self, machine: usize) {
        let name = format!("e{:04}", self.known.len());
        let done = self
            .command(machine, &["send", "--title", &name, "x"])
            .output()
            .unwrap();
        assert_ne!(done.status.code(), None, "{done:?}");
        self.known.push(Known {
            name,
            is_incident: false,
            began: self.now,
            ended: true,
        });
        self.tell(&format!("a message from machine {machine}"));
    }

    fn fault(&mut self, plan: &str) {
        self.service.sim.fault(plan).unwrap();
        self.faults = true;
        self.tell(plan);
    }

    fn mend(&mut self) {
        self.service.sim.clear_faults();
        self.faults = false;
        self.tell("robots work");
    }

    /// A minute passes, and one machine looks; killed on the way where that is said.
    fn minute(&mut self, kill: Option<&str>) {
        // A little more, so that no limit of the minute before is waited for in earnest.
        self.look_after(63, kill);
    }

    fn look_after(&mut self, seconds: u64, kill: Option<&str>) {
        self.pass(seconds);
        let machine = usize::try_from(self.dice.below(2)).unwrap();
        let mut command = self.command(machine, &["check"]);
        if let Some(point) = kill {
            command.env("OA_FAILPOINT", point);
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        let killed = done.status.code().is_none();
        self.tell(&format!(
            "machine {machine} looks{}",
            if killed { ", and is killed" } else { "" }
        ));
        if said.contains("panicked") {
            self.fail(&said);
        }
        if !killed {
            self.watched(&said);
        }
        let bans = self.service.sim.bans();
        if !bans.is_empty() {
            self.fail(&format!("too fast for {bans:?}"));
        }
    }

    /// What has come since the last time.
    fn hear(&mut self) {
        let messages = self.service.sim.messages();
        for (place, message) in messages.iter().enumerate().skip(self.seen) {
            if let Some(robot) = ROBOTS.iter().position(|r| *r == message.robot) {
                self.heard[robot].add(place, message);
            }
        }
        self.seen = messages.len();
    }

    /// What the watcher outside heard last must be right.
    fn watched(&mut self, said: &str) {
        self.hear();
        let asked = self.service.sim.requests();
        let mut pings = asked
            .iter()
            .filter(|r| r.path.starts_with("/webhook/ping-uuid"));
        let last = pings.next_back().expect("it was asked");
        let fine = last.path.ends_with("ping-uuid");
        if fine && !self.up {
            self.fail("the watcher outside does not hear that PostgreSQL is down");
        }
        if fine && let Some(late) = self.late() {
            self.fail(&format!("the watcher outside does not hear that {late}"));
        }
        if !fine && self.is_all_well() {
            self.fail(&format!(
                "the watcher outside hears of what is not: {}\n{said}",
                last.body
            ));
        }
        if !fine && last.body.trim().is_empty() {
            self.fail("the watcher outside does not hear why");
        }
    }

    /// What a robot should have got long ago and has not.
    fn late(&self) -> Option<String> {
        ROBOTS.iter().zip(&self.heard).find_map(|(robot, heard)| {
            // In a digest without room for all names somebody else is counted.
            if heard.uncounted > 0 {
                return None;
            }
            let late = self
                .known
                .iter()
                .find(|k| self.now - k.began > KNOWN_BY && !heard.problems.contains_key(&k.name))?;
            Some(format!("{robot} has not got {}", late.name))
        })
    }

    fn is_all_well(&self) -> bool {
        if !self.up || self.faults || self.waits_in_spools() {
            return false;
        }
        let waiting = "SELECT (SELECT count(*) FROM oa.deliveries WHERE state IN ('pending', 'sending'))::text || ' '
            || (SELECT count(*) FROM oa.incidents WHERE rule = 'channel_refuses' AND resolved_at IS NULL)";
        self.service.one(waiting) == "0 0"
    }

    fn waits_in_spools(&self) -> bool {
        let waits = |file: PathBuf| {
            let db = rusqlite::Connection::open(file).unwrap();
            let count = db.query_row("SELECT count(*) FROM entries", [], |r| r.get::<_, i64>(0));
            count.unwrap() > 0
        };
        let files = self.machines.iter().map(|m| m.state.join("spool.db"));
        files.filter(|file| file.exists()).any(waits)
    }

    fn stop_server(&mut self) {
        self.service.server.stop();
        self.up = false;
        self.tell("PostgreSQL goes");
    }

    fn start_server(&mut self) {
        self.service.server.start_again();
        self.up = true;
        self.tell("PostgreSQL comes");
    }

    fn robot(&mut self) -> &'static str {
        ROBOTS[usize::try_from(self.dice.below(3)).unwrap()]
    }

    /// One thing after the other goes wrong.
    fn scene(&mut self, number: u64) {
        let robot = self.robot();
        let size = [6, 60, 1, 25][usize::try_from(self.dice.below(4)).unwrap()];
        self.storm(size);
        let robots = |world: &mut Self, fault: &str| {
            for robot in ROBOTS {
                world.fault(&format!("/{robot}: {fault}"));
            }
        };
        match number % 6 {
            0 => {
                // Killed between any two steps.
                for point in ["alert.claimed", "alert.sent", "alert.recorded"] {
                    self.minute(Some(point));
                }
                self.minute(None);
            }
            1 => {
                self.fault(&format!("/{robot}: refuse unwanted"));
                self.minute(None);
                self.recover(40);
                self.minute(Some("alert.recorded"));
                self.minute(None);
                self.mend();
            }
            2 => {
                let lost = ["reset", "truncate"][usize::try_from(self.dice.below(2)).unwrap()];
                self.fault(&format!("/{robot}: {lost} x1 then ok"));
                self.minute(None);
                self.recover(50);
                self.minute(None);
                self.mend();
            }
            3 => {
                // PostgreSQL is away, the robots are too for a while, and a machine is killed with what it says.
                self.stop_server();
                self.minute(None);
                robots(self, "502");
                for machine in [0, 1, 0] {
                    self.send(machine);
                }
                self.minute(None);
                self.mend();
                self.minute(Some("alert.sent"));
                self.minute(None);
                self.start_server();
                self.minute(Some("spool.drain.after_apply"));
            }
            4 => {
                self.fault(&format!("/{robot}: 502"));
                for step in [60, 60, 300, 900] {
                    self.look_after(step, None);
                }
                self.recover(30);
                self.mend();
                self.look_after(900, None);
            }
            _ => {
                // Nothing works for most of a day.
                robots(self, "503");
                for step in [60, 400] {
                    self.look_after(step, None);
                }
                for _ in 0..3 {
                    self.storm(5);
                    self.recover(20);
                    self.look_after(6 * 3600, None);
                }
                self.mend();
            }
        }
        self.recover(30);
        self.minute(None);
    }

    /// All is well, and what waits leaves.
    fn settle(&mut self) {
        self.recover(100);
        for _ in 0..12 {
            self.look_after(900, None);
            if self.is_all_well() {
                return;
            }
        }
        self.fail("it does not leave");
    }

    fn verify(&mut self) {
        self.hear();
        for (robot, heard) in ROBOTS.iter().zip(&self.heard) {
            let mut unnamed = 0;
            for known in &self.known {
                let (name, none) = (&known.name, Vec::new());
                let problems = heard.problems.get(name).unwrap_or(&none);
                let ends = heard.ends.get(name).unwrap_or(&none);
                unnamed += usize::from(problems.is_empty());
                if known.is_incident {
                    unnamed += usize::from(ends.is_empty());
                }
                if problems.len() > 2 || ends.len() > 2 {
                    self.fail(&format!("{robot} hears of {name} {problems:?} {ends:?}"));
                }
                if let (Some(end), Some(last)) = (ends.first(), problems.last())
                    && last > end
                {
                    self.fail(&format!(
                        "{robot} hears of {name} after its end: {problems:?} {ends:?}"
                    ));
                }
            }
            if unnamed > heard.uncounted {
                self.fail(&format!(
                    "{robot} never heard of {unnamed}, and {} were only counted",
                    heard.uncounted
                ));
            }
        }
    }
}

/// What whoever reads a robot's group has heard.
#[derive(Default)]
struct Heard {
    /// By name: in which messages it was wrong, and in which over.
    problems: HashMap<String, Vec<usize>>,
    ends: HashMap<String, Vec<usize>>,
    /// How many were counted and not named.
    uncounted: usize,
}

impl Heard {
    fn add(&mut self, place: usize, message: &Message) {
        let text = &message.text;
        let first = text.lines().next().unwrap_or_default();
        let title = if message.title.is_empty() {
            first
        } else {
            &message.title
        };
        if !title.contains("【汇总】") {
            let over = title.contains("【恢复】");
            for name in names(title) {
                self.note(&name, place, !over, over);
            }
            return;
        }
        // Behind the lines stand the texts of some of them.
        let lines = text
            .find("\n\n**【")
            .map_or(text.as_str(), |at| &text[..at]);
        let mut section = "";
        for line in lines.lines() {
            section = ["仍未恢复", "消息", "已恢复", "已自行恢复"]
                .into_iter()
                .find(|s| line.trim_start_matches('*').starts_with(s))
                .unwrap_or(section);
            if let Some(count) = line.strip_prefix("- 另有 ") {
                self.uncounted += count.split(' ').next().unwrap().parse::<usize>().unwrap() * 2;
                continue;
            }
            let Some(line) = line.strip_prefix("- ") else {
                continue;
            };
            let over = line.contains("【恢复】");
            for name in names(line) {
                // What has come and gone meanwhile is one line.
                let healed = over && (section == "已自行恢复" || line.contains(" 至 "));
                self.note(&name, place, !over || healed, over);
            }
        }
    }

    fn note(&mut self, name: &str, place: usize, problem: bool, end: bool) {
        for (is, of) in [(problem, &mut self.problems), (end, &mut self.ends)] {
            if is {
                of.entry(name.to_owned()).or_default().push(place);
            }
        }
    }
}

/// `e0000` and the like.
fn names(text: &str) -> Vec<String> {
    let starts = text.match_indices('e').map(|(at, _)| &text[at..]);
    let name = |rest: &str| {
        let name = rest.get(..5)?;
        name[1..]
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| name.to_owned())
    };
    starts.filter_map(name).collect()
}

#[test]
fn through_storms_and_outages_everybody_hears_of_everything_and_nobody_too_much() {
    let mut world = World::new(given("OA_ALERT_SEED", 22));
    world.storm(600);
    world.minute(None);
    world.minute(None);
    for number in 0..given("OA_ALERT_SCENES", 6) {
        world.scene(number);
    }
    world.settle();
    world.verify();
}
