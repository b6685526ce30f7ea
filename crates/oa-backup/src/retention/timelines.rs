//! Clusters that are promoted, put back to older backups and copied, with WAL that gets lost: whatever could be restored of the time
//! that retention promises still can be.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proptest::prelude::*;

use super::tests::{ZONE, backup};
use super::*;
use oa_repository::timeline::TimelinePath;
use oa_repository::{Lsn, WalRange};

/// One unit of WAL: the cluster, the timeline that wrote it, and its LSN.
type Unit = (u8, u32, u64);
const SEGMENT: u64 = 10;

#[derive(Debug, Clone)]
struct Server {
    system: u8,
    /// Each timeline and where it begins.
    path: Vec<(u32, u64)>,
    lsn: u64,
    /// Where the WAL begins that is staged on the machine.
    staged: Option<u64>,
}

impl Server {
    fn timeline(&self) -> u32 {
        self.path.last().unwrap().0
    }

    fn unit(&self, lsn: u64) -> Unit {
        let owner = self.path.iter().rev().find(|(_, begins)| *begins <= lsn);
        (self.system, owner.unwrap().0, lsn)
    }

    fn known(&self) -> TimelinePath {
        let mut history = String::new();
        for pair in self.path.windows(2) {
            history += &format!("{}\t{}\tpromoted\n", pair[0].0, Lsn(pair[1].1));
        }
        TimelinePath::parse(self.timeline(), &history).unwrap()
    }
}

#[derive(Debug, Default)]
struct World {
    hour: i64,
    servers: Vec<Server>,
    timelines: HashMap<u8, u32>,
    /// When each unit was written.
    written: BTreeMap<Unit, i64>,
    backups: Vec<Backup>,
    /// The server as it was at the end of each backup.
    states: Vec<Server>,
    content: Vec<BTreeSet<Unit>>,
}

impl World {
    fn begin() -> Self {
        let mut world = Self::default();
        world.cluster(1);
        world
    }

    fn cluster(&mut self, system: u8) {
        self.timelines.insert(system, 1);
        self.servers.push(Server {
            system,
            path: vec![(1, 0)],
            lsn: SEGMENT,
            staged: None,
        });
    }

    fn write(&mut self, server: usize, units: u64) {
        let state = &mut self.servers[server];
        for lsn in state.lsn..state.lsn + units {
            self.written.insert(state.unit(lsn), self.hour);
        }
        state.lsn += units;
    }

    fn store(&mut self, server: usize, level: Level, from: u64, to: u64) {
        let state = &self.servers[server];
        let mut one = backup(Kind::Physical, level, self.hour, None);
        one.meta.system_id = state.system.to_string();
        one.meta.timeline = state.timeline();
        let floor = from / SEGMENT * SEGMENT;
        if level == Level::Full {
            (one.meta.start_lsn, one.meta.end_lsn) = (Some(Lsn(from)), Some(Lsn(to)));
        } else {
            one.meta.wal = Some(WalRange {
                from: Lsn(floor),
                to: Lsn(to),
                segment_bytes: SEGMENT,
            });
        }
        self.content
            .push((floor..to).map(|lsn| state.unit(lsn)).collect());
        self.states.push(state.clone());
        self.backups.push(one);
    }

    fn full(&mut self, server: usize) {
        let start = self.servers[server].lsn;
        self.servers[server]
            .staged
            .get_or_insert(start / SEGMENT * SEGMENT);
        self.write(server, 3);
        let end = self.servers[server].lsn;
        self.store(server, Level::Full, start, end);
        self.wal(server);
        self.servers[server].staged = Some(start / SEGMENT * SEGMENT);
    }

    /// Without staged WAL there is a gap, which is answered by a full backup.
    fn wal(&mut self, server: usize) {
        let (staged, lsn) = (self.servers[server].staged, self.servers[server].lsn);
        match staged {
            Some(from) => self.store(server, Level::Incremental, from, lsn),
            None => self.full(server),
        }
    }

    fn promote(&mut self, mut state: Server) -> Server {
        let next = self.timelines.get_mut(&state.system).unwrap();
        *next += 1;
        state.path.push((*next, state.lsn));
        state
    }

    fn step(&mut self, what: u8, at: usize, hours: i64) {
        self.hour += hours;
        let server = at % self.servers.len();
        match what {
            0..=3 => self.full(server),
            4..=11 => {
                self.write(server, 1 + at as u64 % 17);
                self.wal(server);
            }
            12 => self.write(server, 1 + at as u64 % 40),
            13 => self.servers[server].staged = None,
            14 => {
                // A promotion: the WAL goes on.
                let state = self.servers[server].clone();
                self.servers[server] = self.promote(state);
            }
            15..=17 if !self.states.is_empty() => {
                // Put back to an older backup; the server from before may live on beside it.
                let mut state = self.states[at % self.states.len()].clone();
                state.staged = None;
                state = self.promote(state);
                if what == 17 && self.servers.len() < 4 {
                    self.servers.push(state);
                } else {
                    self.servers[server] = state;
                }
            }
            18 if !self.timelines.contains_key(&2) => self.cluster(2),
            _ => {}
        }
    }

    fn paths(&self, which: &[usize]) -> TimelinePaths {
        which
            .iter()
            .map(|i| Some(self.states[*i].known()))
            .collect()
    }

    /// Every unit up to which a recovery comes from these backups, along every branch that there ever was.
    fn restorable(&self, which: &[usize]) -> HashSet<Unit> {
        let stored: HashSet<Unit> = which
            .iter()
            .flat_map(|i| &self.content[*i])
            .copied()
            .collect();
        let mut reached = HashSet::new();
        let mut branches: Vec<&Server> = Vec::new();
        for state in &self.states {
            if !branches
                .iter()
                .any(|b| b.path == state.path && b.system == state.system)
            {
                branches.push(state);
            }
        }
        for on in branches {
            for i in which {
                let (Some(start), Some(end)) = (
                    self.backups[*i].meta.start_lsn,
                    self.backups[*i].meta.end_lsn,
                ) else {
                    continue;
                };
                let from = &self.states[*i];
                if (start.0..end.0).any(|lsn| on.unit(lsn) != from.unit(lsn)) {
                    continue;
                }
                reached.insert(on.unit(end.0 - 1));
                let mut lsn = end.0;
                while stored.contains(&on.unit(lsn)) {
                    reached.insert(on.unit(lsn));
                    lsn += 1;
                }
            }
        }
        reached
    }

    /// From when on everything is promised: the oldest of the newest full backups of each day.
    fn since(&self, system: u8, daily: u32) -> Option<i64> {
        let mine = |i: &usize| {
            self.states[*i].system == system && self.backups[*i].meta.level == Level::Full
        };
        let day = |i: usize| {
            self.backups[i]
                .meta
                .restorable_to
                .with_timezone(&ZONE)
                .date_naive()
        };
        let mut of_days = BTreeMap::new();
        for i in (0..self.backups.len()).filter(mine) {
            of_days.insert(day(i), i);
        }
        let kept = of_days.values().rev().take(daily.max(1) as usize);
        kept.map(|i| self.hour_of(*i)).min()
    }

    fn hour_of(&self, i: usize) -> i64 {
        let first = backup(Kind::Physical, Level::Full, 0, None)
            .meta
            .restorable_to;
        (self.backups[i].meta.restorable_to - first).num_hours()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]
    #[test]
    fn no_timeline_loses_what_could_be_restored(
        steps in proptest::collection::vec((0_u8..20, 0_usize..1000, 1_i64..9), 1..70),
        daily in 0_u32..6, weekly in 0_u32..4,
    ) {
        let mut world = World::begin();
        for (what, at, hours) in steps {
            world.step(what, at, hours);
        }
        let all: Vec<usize> = (0..world.backups.len()).collect();
        let now = backup(Kind::Physical, Level::Full, world.hour, None).meta.restorable_to;
        let keep = Keep { hourly: 3, daily, weekly };
        let gone = super::removable(&world.backups, &world.paths(&all), keep, ZONE, now);
        let left: Vec<usize> = all.iter().copied().filter(|i| !gone.contains(i)).collect();
        let (before, after) = (world.restorable(&all), world.restorable(&left));
        for unit in &before {
            let promised = world.since(unit.0, daily).is_some_and(|since| world.written[unit] > since);
            prop_assert!(!promised || after.contains(unit), "{unit:?} was lost, of {:?}", world.written[unit]);
        }
        for system in 1..=2 {
            let newest = all.iter().rev().find(|i| world.states[**i].system == system && world.backups[**i].meta.wal.is_some());
            prop_assert!(newest.is_none_or(|i| left.contains(i)), "the newest WAL of cluster {system}");
        }
        // A second time there is nothing left to do.
        let remaining: Vec<Backup> = left.iter().map(|i| world.backups[*i].clone()).collect();
        prop_assert_eq!(super::removable(&remaining, &world.paths(&left), keep, ZONE, now), Vec::<usize>::new());
    }
}

#[test]
fn a_cluster_put_back_to_before_the_kept_days_keeps_the_wal_of_its_new_timeline() {
    let mut world = World::begin();
    world.full(0);
    let old = world.states[0].clone();
    for _ in 0..40 {
        world.hour += 24;
        world.write(0, 50);
        world.full(0);
    }
    world.hour += 1;
    let mut state = world.promote(old);
    state.staged = None;
    world.servers[0] = state;
    for _ in 0..3 {
        world.write(0, 20);
        world.wal(0);
        world.hour += 1;
    }
    let all: Vec<usize> = (0..world.backups.len()).collect();
    let now = backup(Kind::Physical, Level::Full, world.hour, None)
        .meta
        .restorable_to;
    let keep = Keep {
        hourly: 24,
        daily: 30,
        weekly: 4,
    };
    let gone = super::removable(&world.backups, &world.paths(&all), keep, ZONE, now);
    let left: Vec<usize> = all.iter().copied().filter(|i| !gone.contains(i)).collect();
    let newest = world.states.last().unwrap();
    assert!(
        newest.lsn < 200 && world.states[0].lsn < newest.lsn && left.contains(&(all.len() - 1)),
        "lower LSNs, and kept"
    );
    let tip = newest.unit(newest.lsn - 1);
    assert!(tip.1 == 2 && world.restorable(&left).contains(&tip));
    // Without knowing the new timeline's history nothing of it goes either.
    let mut paths = world.paths(&all);
    for (path, state) in paths.iter_mut().zip(&world.states) {
        *path = path.take().filter(|_| state.timeline() == 1);
    }
    let gone = super::removable(&world.backups, &paths, keep, ZONE, now);
    assert!(
        gone.iter()
            .all(|i| world.states[*i].timeline() == 1 || world.backups[*i].meta.wal.is_none())
    );
}
