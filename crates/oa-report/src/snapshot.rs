//! What most answers are made of, taken anew each second while somebody asks: health of all tasks, open incidents, backups.
//!
//! Whoever asks gets the newest one at once, so a thousand who ask cost PostgreSQL what one does, and while nobody asks none is taken. While PostgreSQL is unreachable the last one
//! is given out, marked as stale, with its time. A PostgreSQL that takes the question and does not answer (stopped, or its disk is stuck)
//! holds up the thread that asks for as long as it likes, so whoever wants to know looks at how long that has waited.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::base::secrets::redact;
use oa_core::base::threads::{self, NoThread};
use oa_core::pg::Tx;
use schemars::JsonSchema;
use serde::Serialize;
use serde::ser::SerializeMap;
use tokio::sync::watch;

use crate::digest::change_tag;
use crate::pool::Pool;
use crate::queries::alerts::{Incident, Waiting};
use crate::queries::backups::Status as BackupStatus;
use crate::queries::days::Unfilled;
use crate::queries::health::{Health, TaskHealth};
use crate::queries::requests::RequestEntry;
use crate::queries::watch::{Watch, Watching};
use crate::queries::{self, alerts, backups, days, health};

/// How old a snapshot may be before whoever asks waits for the next one.
const FRESH: Duration = Duration::from_millis(2500);
/// The time between two of them.
const INTERVAL: Duration = Duration::from_secs(1);
/// PostgreSQL is unreachable when it has not answered for so long.
const SILENT: Duration = Duration::from_secs(10);

/// The state of everything at one point in time.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// When, by PostgreSQL's clock (UTC).
    pub(crate) taken_at: DateTime<Utc>,
    pub(crate) tasks: Vec<TaskHealth>,
    pub(crate) incidents: Vec<Incident>,
    pub(crate) waiting: Waiting,
    pub(crate) backups: BackupStatus,
    pub(crate) watches: Vec<Watch>,
    /// Holes of the last two weeks that a command fills.
    pub(crate) unfilled: Vec<Unfilled>,
    /// What people asked for last, newest first.
    pub(crate) requests: Vec<RequestEntry>,
}

/// Tasks by how they are now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Summary {
    /// Healthy ones.
    pub(crate) healthy: usize,
    /// Those with a warning.
    pub(crate) warning: usize,
    /// Critical ones.
    pub(crate) critical: usize,
}

impl Snapshot {
    pub(crate) fn take(tx: &mut Tx<'_, '_>, config: &Config) -> Result<Self, postgres::Error> {
        Ok(Self {
            taken_at: tx.query_one("SELECT now()", &[])?.get(0),
            tasks: health::tasks(tx, config, None)?,
            incidents: alerts::open(tx, &crate::lang::wording(config))?,
            waiting: alerts::waiting(tx)?,
            backups: backups::status(&mut **tx, config, &crate::lang::wording(config))?,
            watches: queries::watch::all(tx)?,
            unfilled: days::unfilled(tx, config)?,
            requests: queries::requests::recent(&mut **tx, None, 20)?,
        })
    }

    pub(crate) fn summary(&self) -> Summary {
        let count = |health| self.tasks.iter().filter(|t| t.severity == health).count();
        Summary {
            healthy: count(Health::Healthy),
            warning: count(Health::Warning),
            critical: count(Health::Critical),
        }
    }

    /// The worst of the tasks, and of whether anybody watches them.
    pub(crate) fn worst(&self) -> Health {
        health::worst(&self.tasks).max(self.watching().severity)
    }

    pub(crate) fn watching(&self) -> Watching {
        Watching::of(&self.watches, !self.tasks.is_empty())
    }

    /// Tasks, the worst first.
    pub(crate) fn worst_first(&self) -> Vec<&TaskHealth> {
        let mut tasks: Vec<&TaskHealth> = self.tasks.iter().collect();
        tasks.sort_by_key(|t| (std::cmp::Reverse(t.severity), t.name.as_str()));
        tasks
    }
}

/// The answer of `health`.
#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct HealthAnswer<'a> {
    /// When it was taken (UTC). While `stale` it stays what it was.
    pub(crate) timestamp: DateTime<Utc>,
    /// The worst of the tasks as they are now, and of whether anybody watches them.
    pub(crate) status: Health,
    /// PostgreSQL does not answer, and this is the last that is known.
    pub(crate) stale: bool,
    /// Why it is stale.
    pub(crate) message: Option<String>,
    /// Tasks by how they are now.
    pub(crate) summary: Summary,
    /// Who watches: when the last check and the last start of due runs were.
    pub(crate) watching: Watching,
    /// Each task by its name.
    #[serde(serialize_with = "by_name")]
    #[schemars(with = "std::collections::BTreeMap<String, TaskHealth>")]
    pub(crate) tasks: &'a [TaskHealth],
}

impl<'a> HealthAnswer<'a> {
    /// Of a snapshot; `outage` is why there is no newer one.
    pub(crate) fn of(snapshot: &'a Snapshot, outage: Option<String>) -> Self {
        Self {
            timestamp: snapshot.taken_at,
            status: snapshot.worst(),
            stale: outage.is_some(),
            message: outage,
            summary: snapshot.summary(),
            watching: snapshot.watching(),
            tasks: &snapshot.tasks,
        }
    }
}

fn by_name<S: serde::Serializer>(tasks: &[TaskHealth], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(tasks.len()))?;
    for task in tasks {
        map.serialize_entry(&task.name, task)?;
    }
    map.end()
}

/// The last snapshot, and whether there should be a newer one.
#[derive(Debug, Clone)]
pub(crate) struct LatestSnapshot {
    /// The last snapshot; `None` when there never was one.
    pub(crate) snapshot: Option<Arc<Snapshot>>,
    /// Why there is no newer one.
    pub(crate) outage: Option<String>,
    /// The answer of `health`, ready to be sent.
    pub(crate) health: Bytes,
    /// A hash of that answer without its time.
    pub(crate) health_tag: String,
    /// When this was looked for.
    looked_at: Instant,
    /// It shows all that was done before this.
    pub(crate) begun: Instant,
}

impl LatestSnapshot {
    fn new(snapshot: Option<Arc<Snapshot>>, outage: Option<String>) -> Self {
        let mut health = Bytes::new();
        let mut health_tag = String::new();
        if let Some(snapshot) = snapshot.as_deref() {
            let answer = HealthAnswer::of(snapshot, outage.clone());
            health = match serde_json::to_vec(&answer) {
                Ok(json) => json.into(),
                Err(e) => {
                    return Self::new(None, Some(format!("the answer cannot be written: {e}")));
                }
            };
            // The time stands first.
            let rest = health.iter().position(|b| *b == b',').unwrap_or(0);
            health_tag = change_tag(&health[rest..]);
        }
        Self {
            snapshot,
            outage,
            health,
            health_tag,
            looked_at: Instant::now(),
            begun: Instant::now(),
        }
    }

    /// Nothing at all, for whoever may not know anything.
    pub(crate) fn unknown() -> Self {
        Self::new(None, None)
    }

    /// Just a snapshot, without anybody who takes newer ones.
    pub(crate) fn of(snapshot: Arc<Snapshot>) -> Self {
        Self::new(Some(snapshot), None)
    }

    /// The same when PostgreSQL does not answer any more.
    fn since_then_silent(&self, silent: Duration) -> Self {
        let reason = format!("PostgreSQL has not answered for {} s", silent.as_secs());
        Self::new(self.snapshot.clone(), Some(reason))
    }

    /// PostgreSQL did not answer the last time, or does not now.
    pub(crate) fn is_stale(&self) -> bool {
        self.outage.is_some()
    }
}

/// Takes snapshots while somebody asks for them.
#[derive(Debug, Clone)]
pub(crate) struct SnapshotFeed {
    demand: Arc<(Mutex<Demand>, Condvar)>,
    latest: watch::Receiver<Arc<LatestSnapshot>>,
}

#[derive(Debug)]
struct Demand {
    /// Since the last one was begun.
    asked: bool,
    at_once: bool,
    /// Since when PostgreSQL has been asked for the snapshot that is under way.
    under_way_since: Option<Instant>,
}

impl SnapshotFeed {
    pub(crate) fn start(pool: Arc<Pool>, config: Arc<Config>) -> Result<Self, NoThread> {
        let nothing = Arc::new(LatestSnapshot {
            looked_at: Instant::now()
                .checked_sub(FRESH * 2)
                .unwrap_or_else(Instant::now),
            ..LatestSnapshot::new(None, Some("PostgreSQL was not asked yet".to_owned()))
        });
        let (sender, latest) = watch::channel(nothing);
        let demand = Arc::new((
            Mutex::new(Demand {
                asked: false,
                at_once: false,
                under_way_since: None,
            }),
            Condvar::new(),
        ));
        let demands = Arc::clone(&demand);
        threads::spawn("ask for news", move || {
            loop {
                wait_for_demand(&demands);
                let last = sender.borrow().snapshot.clone();
                let begun = Instant::now();
                let mut latest = match take(&pool, &config) {
                    Ok(snapshot) => LatestSnapshot::new(Some(Arc::new(snapshot)), None),
                    Err(reason) => {
                        tracing::warn!("no news: {reason}");
                        LatestSnapshot::new(last, Some(reason))
                    }
                };
                latest.begun = begun;
                lock(&demands.0).under_way_since = None;
                if sender.send(Arc::new(latest)).is_err() {
                    return;
                }
                wait_a_second(&demands);
            }
        })?;
        Ok(Self { demand, latest })
    }

    /// The newest snapshot. Waits for news, but not for long, when what there is is old because nobody has asked for a while.
    pub(crate) async fn latest(&self) -> Arc<LatestSnapshot> {
        let mut receiver = self.latest.clone();
        let latest = Arc::clone(&receiver.borrow_and_update());
        if latest.looked_at.elapsed() >= INTERVAL {
            self.ask(false);
        }
        if latest.looked_at.elapsed() < FRESH {
            return latest;
        }
        if self.silent_for().is_none() {
            let _ = tokio::time::timeout(Duration::from_secs(5), receiver.changed()).await;
        }
        let latest = Arc::clone(&receiver.borrow());
        match self.silent_for() {
            Some(silent) => Arc::new(latest.since_then_silent(silent)),
            None => latest,
        }
    }

    /// How long PostgreSQL has not answered, when that is too long.
    fn silent_for(&self) -> Option<Duration> {
        let since = lock(&self.demand.0).under_way_since?;
        Some(since.elapsed()).filter(|silent| *silent >= SILENT)
    }

    /// The same after something was changed.
    pub(crate) async fn refreshed(&self) -> Arc<LatestSnapshot> {
        let mut receiver = self.latest.clone();
        receiver.borrow_and_update();
        // One that was under way may have missed the change.
        for _ in 0..2 {
            self.ask(true);
            let _ = tokio::time::timeout(Duration::from_secs(2), receiver.changed()).await;
        }
        Arc::clone(&receiver.borrow())
    }

    fn ask(&self, at_once: bool) {
        let (demand, changed) = &*self.demand;
        let mut demand = lock(demand);
        demand.asked = true;
        demand.at_once |= at_once;
        changed.notify_one();
    }
}

fn lock(demand: &Mutex<Demand>) -> MutexGuard<'_, Demand> {
    demand.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a snapshot, or says why there is none. A value that this program cannot read makes it panic; the next one may be readable.
fn take(pool: &Pool, config: &Config) -> Result<Snapshot, String> {
    let asked = AssertUnwindSafe(|| pool.read(|tx| Snapshot::take(tx, config)));
    match catch_unwind(asked) {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(e)) => Err(redact(&e.to_string())),
        Err(_) => Err("this program made a mistake; its log has more".to_owned()),
    }
}

fn wait_for_demand((demand, changed): &(Mutex<Demand>, Condvar)) {
    let mut demand = lock(demand);
    while !demand.asked && !demand.at_once {
        demand = changed.wait(demand).unwrap_or_else(PoisonError::into_inner);
    }
    (demand.asked, demand.at_once) = (false, false);
    demand.under_way_since = Some(Instant::now());
}

fn wait_a_second((demand, changed): &(Mutex<Demand>, Condvar)) {
    let _ = changed.wait_timeout_while(lock(demand), INTERVAL, |w| !w.at_once);
}
