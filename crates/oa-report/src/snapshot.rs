//! What most answers are made of, taken anew each second while somebody asks: health of all tasks, open troubles, backups.
//!
//! Whoever asks gets the newest one at once, so a thousand who ask cost PostgreSQL what one does. While PostgreSQL is away the last one
//! is given out, marked as stale, with its time. A PostgreSQL that takes the question and does not answer (stopped, or its disk is stuck)
//! holds up the thread that asks for as long as it likes, so whoever wants to know looks at how long that has waited.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{io, thread};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use oa_core::app::config::Config;
use oa_core::base::secrets::redact;
use postgres::Transaction;
use schemars::JsonSchema;
use serde::Serialize;
use serde::ser::SerializeMap;
use tokio::sync::watch;

use crate::pool::Pool;
use crate::queries::alerts::{Trouble, Waiting};
use crate::queries::backups::Status as BackupStatus;
use crate::queries::health::{Health, TaskHealth};
use crate::queries::watch::Watch;
use crate::queries::{self, alerts, backups, health};
use crate::server::answer::hash;

/// How old a snapshot may be before whoever asks waits for the next one.
const FRESH: Duration = Duration::from_millis(2500);
/// The time between two of them.
const EACH: Duration = Duration::from_secs(1);
/// PostgreSQL is away when it has not answered for so long.
const SILENT: Duration = Duration::from_secs(10);
/// They are taken for so long after somebody asked.
const WANTED: Duration = Duration::from_secs(15);

/// The state of everything at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// That moment, by PostgreSQL's clock (UTC).
    pub taken_at: DateTime<Utc>,
    /// All tasks by name.
    pub tasks: Vec<TaskHealth>,
    /// What is wrong and not over.
    pub troubles: Vec<Trouble>,
    /// Alerts that wait to be sent.
    pub waiting: Waiting,
    /// Whether the backups can be relied on.
    pub backups: BackupStatus,
    /// Who watches.
    pub watches: Vec<Watch>,
}

/// Tasks by how they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Summary {
    /// Healthy ones.
    pub healthy: usize,
    /// Those with a warning.
    pub warning: usize,
    /// Critical ones.
    pub critical: usize,
}

impl Snapshot {
    /// Takes one.
    ///
    /// # Errors
    /// When PostgreSQL fails.
    pub fn take(tx: &mut Transaction<'_>, config: &Config) -> Result<Self, postgres::Error> {
        Ok(Self {
            taken_at: tx.query_one("SELECT now()", &[])?.get(0),
            tasks: health::tasks(tx, config, None)?,
            troubles: alerts::open(tx)?,
            waiting: alerts::waiting(tx)?,
            backups: backups::status(tx, config, config.locale)?,
            watches: queries::watch::all(tx)?,
        })
    }

    /// Tasks by how they are.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let count = |health| self.tasks.iter().filter(|t| t.health == health).count();
        Summary {
            healthy: count(Health::Healthy),
            warning: count(Health::Warning),
            critical: count(Health::Critical),
        }
    }

    /// The worst of the tasks.
    #[must_use]
    pub fn worst(&self) -> Health {
        self.tasks
            .iter()
            .map(|t| t.health)
            .max()
            .unwrap_or(Health::Healthy)
    }
}

/// The answer of `health`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct HealthAnswer<'a> {
    /// The moment it is of (UTC). While `stale` it stays what it was.
    pub timestamp: DateTime<Utc>,
    /// The worst of the tasks.
    pub status: Health,
    /// PostgreSQL does not answer, and this is the last that is known.
    pub stale: bool,
    /// Why it is stale.
    pub message: Option<String>,
    /// Tasks by how they are.
    pub summary: Summary,
    /// Each task by its name.
    #[serde(serialize_with = "by_name")]
    #[schemars(with = "std::collections::BTreeMap<String, TaskHealth>")]
    pub tasks: &'a [TaskHealth],
}

impl<'a> HealthAnswer<'a> {
    /// Of a snapshot; `trouble` is why there is no newer one.
    #[must_use]
    pub fn of(snapshot: &'a Snapshot, trouble: Option<String>) -> Self {
        Self {
            timestamp: snapshot.taken_at,
            status: snapshot.worst(),
            stale: trouble.is_some(),
            message: trouble,
            summary: snapshot.summary(),
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

/// What is known now.
#[derive(Debug, Clone)]
pub struct Known {
    /// The last snapshot; `None` when there never was one.
    pub snapshot: Option<Arc<Snapshot>>,
    /// Why there is no newer one.
    pub trouble: Option<String>,
    /// The answer of `health`, ready to be sent.
    pub health: Bytes,
    /// A hash of that answer without its moment.
    pub health_tag: String,
    /// When this was looked for.
    looked_at: Instant,
}

impl Known {
    fn new(snapshot: Option<Arc<Snapshot>>, trouble: Option<String>) -> Self {
        let mut health = Bytes::new();
        let mut health_tag = String::new();
        if let Some(snapshot) = snapshot.as_deref() {
            let answer = HealthAnswer::of(snapshot, trouble.clone());
            health = serde_json::to_vec(&answer).unwrap_or_default().into();
            // The moment stands first.
            let rest = health.iter().position(|b| *b == b',').unwrap_or(0);
            health_tag = hash(&health[rest..]);
        }
        Self {
            snapshot,
            trouble,
            health,
            health_tag,
            looked_at: Instant::now(),
        }
    }

    /// Just a snapshot, without anybody who takes newer ones.
    #[must_use]
    pub fn of(snapshot: Arc<Snapshot>) -> Self {
        Self::new(Some(snapshot), None)
    }

    /// The same when PostgreSQL does not answer any more.
    fn since_then_silent(&self, silent: Duration) -> Self {
        let reason = format!("PostgreSQL has not answered for {} s", silent.as_secs());
        Self::new(self.snapshot.clone(), Some(reason))
    }

    /// PostgreSQL did not answer the last time, or does not now.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.trouble.is_some()
    }
}

/// Takes snapshots while somebody asks for them.
#[derive(Debug, Clone)]
pub struct Live {
    wish: Arc<(Mutex<Wish>, Condvar)>,
    known: watch::Receiver<Arc<Known>>,
}

#[derive(Debug)]
struct Wish {
    asked_at: Option<Instant>,
    at_once: bool,
    /// Since when PostgreSQL has been asked for the snapshot that is under way.
    under_way_since: Option<Instant>,
}

impl Live {
    /// Starts the thread that takes them.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub fn start(pool: Arc<Pool>, config: Arc<Config>) -> io::Result<Self> {
        let nothing = Arc::new(Known {
            looked_at: Instant::now()
                .checked_sub(FRESH * 2)
                .unwrap_or_else(Instant::now),
            ..Known::new(None, Some("PostgreSQL was not asked yet".to_owned()))
        });
        let (sender, known) = watch::channel(nothing);
        let wish = Arc::new((
            Mutex::new(Wish {
                asked_at: None,
                at_once: false,
                under_way_since: None,
            }),
            Condvar::new(),
        ));
        let wishes = Arc::clone(&wish);
        thread::Builder::new()
            .name("snapshot".to_owned())
            .spawn(move || {
                loop {
                    wait_for_wish(&wishes);
                    let last = sender.borrow().snapshot.clone();
                    let known = match take(&pool, &config) {
                        Ok(snapshot) => Known::new(Some(Arc::new(snapshot)), None),
                        Err(reason) => {
                            tracing::warn!("no news: {reason}");
                            Known::new(last, Some(reason))
                        }
                    };
                    lock(&wishes.0).under_way_since = None;
                    if sender.send(Arc::new(known)).is_err() {
                        return;
                    }
                    wait_a_second(&wishes);
                }
            })?;
        Ok(Self { wish, known })
    }

    /// What is known now. Waits for news, but not for long, when what there is is old because nobody has asked for a while.
    pub async fn known(&self) -> Arc<Known> {
        self.ask(false);
        let mut receiver = self.known.clone();
        let known = Arc::clone(&receiver.borrow_and_update());
        if known.looked_at.elapsed() < FRESH {
            return known;
        }
        if self.silent_for().is_none() {
            let _ = tokio::time::timeout(Duration::from_secs(5), receiver.changed()).await;
        }
        let known = Arc::clone(&receiver.borrow());
        match self.silent_for() {
            Some(silent) => Arc::new(known.since_then_silent(silent)),
            None => known,
        }
    }

    /// How long PostgreSQL has not answered, when that is too long.
    fn silent_for(&self) -> Option<Duration> {
        let since = lock(&self.wish.0).under_way_since?;
        Some(since.elapsed()).filter(|silent| *silent >= SILENT)
    }

    /// The same after something was changed.
    pub async fn renewed(&self) -> Arc<Known> {
        let mut receiver = self.known.clone();
        receiver.borrow_and_update();
        self.ask(true);
        // One that was under way may have missed the change.
        for _ in 0..2 {
            let _ = tokio::time::timeout(Duration::from_secs(2), receiver.changed()).await;
            self.ask(true);
        }
        Arc::clone(&receiver.borrow())
    }

    fn ask(&self, at_once: bool) {
        let (wish, changed) = &*self.wish;
        let mut wish = lock(wish);
        let slept = wish.asked_at.is_none_or(|at| at.elapsed() >= WANTED);
        wish.asked_at = Some(Instant::now());
        wish.at_once |= at_once;
        if slept || at_once {
            changed.notify_one();
        }
    }
}

fn lock(wish: &Mutex<Wish>) -> MutexGuard<'_, Wish> {
    wish.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes a snapshot, or says why there is none. A value that this program cannot read makes it panic; the next one may be readable.
fn take(pool: &Pool, config: &Config) -> Result<Snapshot, String> {
    let asked = AssertUnwindSafe(|| pool.ask(|tx| Snapshot::take(tx, config)));
    match catch_unwind(asked) {
        Ok(Ok(snapshot)) => Ok(snapshot),
        Ok(Err(e)) => Err(redact(&e.to_string())),
        Err(_) => Err("this program made a mistake; its log has more".to_owned()),
    }
}

fn wait_for_wish((wish, changed): &(Mutex<Wish>, Condvar)) {
    let mut wish = lock(wish);
    while wish.asked_at.is_none_or(|at| at.elapsed() >= WANTED) && !wish.at_once {
        wish = changed.wait(wish).unwrap_or_else(PoisonError::into_inner);
    }
    wish.at_once = false;
    wish.under_way_since = Some(Instant::now());
}

fn wait_a_second((wish, changed): &(Mutex<Wish>, Condvar)) {
    let _ = changed.wait_timeout_while(lock(wish), EACH, |w| !w.at_once);
}
