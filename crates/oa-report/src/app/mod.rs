//! What every request needs, and the terms in which requests are read and answered. The network is `http`'s business.

mod act;
pub(crate) mod answer;
pub(crate) mod body;
pub(crate) mod guard;
pub(crate) mod kept_pages;
pub(crate) mod params;
pub(crate) mod request;
pub(crate) mod routes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use chrono::{DateTime, Utc};
use hyper::{StatusCode, header};
use oa_core::app::config::Config;
use oa_core::pg::Tx;
use oa_core::schedule::Calendar;
use postgres::Transaction;
use tokio::sync::Semaphore;

pub(crate) use self::act::LONGEST_NOTE;
use self::answer::Answer;
use self::guard::{Guard, lasting_key, random_key};
use self::kept_pages::KeptPages;
use crate::pool::Pool;
use crate::queries::overview::Overview;
use crate::queries::totals::Total;
use crate::snapshot::SnapshotFeed;

/// More questions to PostgreSQL at once wait.
pub(crate) const MOST_QUESTIONS: usize = 4;
const QUESTION_WAITS: Duration = Duration::from_secs(3);
/// PostgreSQL ends a statement that takes too long by itself, unless it hangs.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);

pub(crate) struct App {
    pub(crate) config: Arc<Config>,
    pub(crate) calendar: Calendar,
    pub(crate) snapshots: SnapshotFeed,
    pub(crate) guard: Guard,
    pub(crate) kept_pages: KeptPages,
    pub(crate) started_at: DateTime<Utc>,
    pool: Arc<Pool>,
    questions: Arc<Semaphore>,
    /// For when PostgreSQL is unreachable.
    last_overview: Mutex<Option<Arc<Overview>>>,
    /// For the same.
    last_totals: Mutex<Arc<Vec<Total>>>,
    answered: Mutex<HashMap<u16, u64>>,
}

impl App {
    /// Starts the thread that takes snapshots; nothing is asked before somebody asks.
    pub(crate) fn start(config: Config, calendar: Calendar) -> anyhow::Result<Arc<Self>> {
        let pool = Arc::new(Pool::from_config(&config)?);
        let config = Arc::new(config);
        let snapshots = SnapshotFeed::start(Arc::clone(&pool), Arc::clone(&config))?;
        let key = if config.report.tokens.is_empty() {
            random_key()
        } else {
            lasting_key(&config.state_dir)
        };
        let key = key.context("could not read /dev/urandom")?;
        Ok(Arc::new(Self {
            guard: Guard::new(config.report.tokens.clone(), key),
            config,
            calendar,
            snapshots,
            kept_pages: KeptPages::default(),
            started_at: Utc::now(),
            pool,
            questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
            last_overview: Mutex::default(),
            last_totals: Mutex::default(),
            answered: Mutex::default(),
        }))
    }

    /// Asks PostgreSQL, without holding up others. The error is the answer to give instead: 503 while PostgreSQL is unreachable or too
    /// much is asked at once.
    pub(crate) async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        mut question: impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Answer> {
        self.ask_prepared(move |tx| question(tx)).await
    }

    /// The same with statements that stay prepared on their connection, for what is asked again and again.
    pub(crate) async fn ask_prepared<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnMut(&mut Tx<'_, '_>) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Answer> {
        let busy = || {
            Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "too much is asked at once; ask again in a few seconds",
            )
            .with(header::RETRY_AFTER, "3")
        };
        let turn = Arc::clone(&self.questions).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(QUESTION_WAITS, turn).await else {
            return Err(busy());
        };
        let pool = Arc::clone(&self.pool);
        let asked = tokio::task::spawn_blocking(move || {
            // PostgreSQL is at it until it answers, also when nobody waits for that any more.
            let _permit = permit;
            pool.read(question)
        });
        match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
            Ok(Ok(answered)) => answered.map_err(Answer::from),
            Ok(Err(_)) => Err(Answer::own_mistake()),
            Err(_) => Err(Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "PostgreSQL has not answered within {} s",
                    ANSWERED_WITHIN.as_secs()
                ),
            )
            .with(header::RETRY_AFTER, "5")),
        }
    }

    /// Whoever did something sees it at once.
    pub(crate) async fn changed(&self) {
        self.kept_pages.clear();
        self.snapshots.refreshed().await;
    }

    pub(crate) fn last_overview(&self) -> Option<Arc<Overview>> {
        self.last_overview
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn keep_overview(&self, overview: &Arc<Overview>) {
        *self
            .last_overview
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(overview));
    }

    /// The newest totals: `fresh` ones, or else those of the last time.
    pub(crate) fn newest_totals(&self, fresh: Option<Vec<Total>>) -> Arc<Vec<Total>> {
        let mut last = self
            .last_totals
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(fresh) = fresh {
            *last = Arc::new(fresh);
        }
        Arc::clone(&last)
    }

    pub(crate) fn count_answer(&self, status: u16) {
        *self
            .answered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(status)
            .or_default() += 1;
    }

    pub(crate) fn answers_by_status(&self) -> Vec<(u16, u64)> {
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = answered.iter().map(|(s, n)| (*s, *n)).collect();
        all.sort_unstable();
        all
    }
}
