//! Runs of sources: a day of a source collected, or an earlier run's answers read again, as a task of the [`runner`].

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use oa_core::app::cli;
use oa_core::app::config::Config;
use oa_core::base::secrets::Secret;
use oa_core::base::supervise::{self, Owner, StopSignal};
use oa_core::base::threads;
use oa_core::journal::attempts::{Failed, longest};
use oa_core::journal::{NOT_ARCHIVED, Recorder, Run};
use oa_core::model::retry::{ErrorKind, Policy};
use oa_core::model::run::{
    DayOutcome, Outcome, Quality, RawRecord, RunError, RunStart, Status, Trigger,
};
use oa_core::schedule::Calendar;
use serde_json::json;
use uuid::Uuid;

use crate::PROGRAM;
use crate::archive::{Archive, Lost, RunArchive};
use crate::collect::{Collected, Context, cannot_wait, collect};
use crate::content::fingerprint;
use crate::fetch::gate::Gate;
use crate::fetch::{Client, FetchError, Network};
use crate::latest;
use crate::program::LEFTOVERS;
use crate::program::environment::{Environment, Programs};
use crate::progress;
use crate::source::{FetchKind, Source};
use crate::store;
use crate::validate::shape::Shape;
use crate::validate::{CollectionTime, Validated, validate};
use crate::verdict::{Before, assess, evidence};
use oa_core::journal::JournalError;
use oa_core::journal::runner::{self, NotReady, RunReport, Task};

/// How often an attempt under way looks for a signal to stop.
const POLL: Duration = Duration::from_millis(100);
/// What an attempt may take beyond its limit, which every request keeps by itself.
const GRACE: Duration = Duration::from_secs(10);

/// What all runs of one command share.
pub(crate) struct Collector<'a> {
    config: &'a Config,
    calendar: &'a Calendar,
    trigger: Trigger,
    gate: Gate,
    /// Or why no site can be asked.
    network: Result<Network, String>,
    pub(crate) recorder: Recorder,
    pub(crate) archive: Archive,
    pub(crate) stop: StopSignal,
}

/// One source for one day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Job<'a> {
    pub(crate) source: &'a Source,
    pub(crate) date: NaiveDate,
    /// The time of the schedule that it is for (UTC), when it is for one.
    pub(crate) due_at: Option<DateTime<Utc>>,
    /// The day is over, and is collected once more.
    pub(crate) again: bool,
}

impl Collector<'_> {
    /// From now on its runs have this trigger.
    pub(crate) fn set_trigger(&mut self, trigger: Trigger) {
        self.trigger = trigger;
    }
}

pub(crate) fn start_of(source: &Source, trigger: Trigger) -> RunStart {
    let mut start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        &source.name,
        &source.title,
        trigger,
        lease(source),
    );
    start.schedule = is_expected(source, trigger).then(|| source.schedule.clone());
    start
}

/// Long enough for every wait between two attempts.
fn lease(source: &Source) -> Duration {
    let waits = source
        .not_yet
        .as_ref()
        .map_or(Duration::ZERO, |n| n.every.0);
    Policy {
        delay: source.retry.delay.max(waits),
        ..source.retry
    }
    .lease()
}

/// What a run can take at the longest.
fn longest_run(source: &Source) -> Duration {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let waits = source.not_yet.as_ref().map_or(Duration::ZERO, |_| DAY);
    longest(&source.retry).saturating_add(waits)
}

/// Whether the next start is missed when it does not come: a source that is off and was run by hand owes nothing, one that has a
/// crontab line of its own does.
pub(crate) fn is_expected(source: &Source, trigger: Trigger) -> bool {
    source.enabled || trigger == Trigger::Cron
}

impl<'a> Collector<'a> {
    pub(crate) fn open(
        config: &'a Config,
        calendar: &'a Calendar,
        trigger: Trigger,
    ) -> anyhow::Result<Self> {
        Self::new(config, calendar, trigger, Recorder::open(config, PROGRAM)?)
    }

    pub(crate) fn new(
        config: &'a Config,
        calendar: &'a Calendar,
        trigger: Trigger,
        recorder: Recorder,
    ) -> anyhow::Result<Self> {
        Ok(Self {
            config,
            calendar,
            trigger,
            gate: Gate::new(config.crawl.per_host),
            network: Network::load(config.crawl.ca_file.as_deref()),
            archive: Archive::open(recorder.state())?,
            recorder,
            stop: supervise::install_stop_signal()?,
        })
    }

    /// Runs all jobs, several at a time; the reports come in their order.
    pub(crate) fn run_all(&self, jobs: &[Job<'_>]) -> Vec<Result<RunReport, JournalError>> {
        // One that waits for hours for its file keeps no other waiting.
        let patient = jobs.iter().filter(|j| j.source.not_yet.is_some()).count();
        let parallel = (self.config.crawl.parallel + patient).min(jobs.len());
        let longest = jobs.iter().map(|j| longest_run(j.source)).max();
        let rounds = u32::try_from(jobs.len().div_ceil(parallel.max(1))).unwrap_or(u32::MAX);
        cli::end_at_the_latest(longest.unwrap_or(Duration::ZERO).saturating_mul(rounds));

        let next = AtomicUsize::new(0);
        let results = Mutex::new(Vec::new());
        let work = || {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                let Some(job) = jobs.get(i) else {
                    return;
                };
                let result = self.run(job);
                if let Ok(report) = &result {
                    log(report);
                }
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                results.push((i, result));
            }
        };
        threads::several("run sources", parallel, work);
        let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
        results.sort_by_key(|(i, _)| *i);
        results.into_iter().map(|(_, r)| r).collect()
    }

    fn run(&self, job: &Job<'_>) -> Result<RunReport, JournalError> {
        let (source, date) = (job.source, job.date);
        let _shown = progress::run(&source.name);
        let mut start = start_of(source, self.trigger);
        start.due_at = job.due_at;
        start.day = Some(date);
        if let Some(reason) = self.not_scheduled(source, date) {
            return runner::skip(&self.recorder, &start, &reason);
        }
        if let Some(reason) = self.cannot_show(source, date) {
            return self.refuse(&start, &reason);
        }
        let mut task = Collection {
            collector: self,
            source,
            date,
            equipment: None,
            gathered: Gathered::default(),
        };
        runner::run(&self.recorder, self.stop, start, &mut task)
    }

    /// Stores what was made anew of the answers of an earlier run, `of`, as a run of its own.
    pub(crate) fn replay(
        &self,
        source: &Source,
        time: CollectionTime,
        of: Uuid,
        raw: Vec<RawRecord>,
        collected: Collected,
    ) -> Result<RunReport, JournalError> {
        let mut start = start_of(source, self.trigger);
        start.day = Some(time.date);
        let mut task = Replay {
            collector: self,
            source,
            time,
            of,
            collected: Some(collected),
            gathered: Gathered {
                raw,
                ..Gathered::default()
            },
        };
        runner::run(&self.recorder, self.stop, start, &mut task)
    }

    /// A crontab line knows neither holidays nor sessions: why its start, for the day it is on, comes to nothing.
    fn not_scheduled(&self, source: &Source, date: NaiveDate) -> Option<String> {
        let now = self.recorder.now();
        let today = now.with_timezone(&self.config.timezone).date_naive();
        if self.trigger != Trigger::Cron || date != today {
            return None;
        }
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        schedule
            .leaves_out(now, self.calendar)
            .then(|| format!("{date} is no day, or this no session, of {}", source.name))
    }

    fn cannot_show(&self, source: &Source, date: NaiveDate) -> Option<String> {
        let now = self.recorder.now().with_timezone(&self.config.timezone);
        source.cannot_show(date, now, self.calendar)
    }

    /// A day that the site cannot show is in the run log, with the reason, and nothing is fetched. What was missed stays missed.
    fn refuse(&self, start: &RunStart, reason: &str) -> Result<RunReport, JournalError> {
        let reason = match start.due_at {
            Some(due) => {
                let due = due.with_timezone(&self.config.timezone);
                let due = due.format("%Y-%m-%d %H:%M");
                format!("the run of {due} was missed and cannot be made up for: {reason}")
            }
            None => reason.to_owned(),
        };
        tracing::error!("{}: {reason}", start.task);
        let mut report = runner::skip(&self.recorder, start, &reason)?;
        report.refused = true;
        Ok(report)
    }

    fn next_due(&self, source: &Source, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        if !is_expected(source, self.trigger) {
            return None;
        }
        let schedule = source.schedule_in(self.config.timezone).ok()?;
        schedule.next_after(now, self.calendar)
    }

    /// How many records are usual on such a day: the same weekday, or else other recent days, that are trading days or none as
    /// this one is. Only what is collected on its own day is compared with what was collected on its own day.
    fn usual_count(&self, source: &Source, date: NaiveDate, run: &mut Run) -> Option<u64> {
        let now = self.recorder.now().with_timezone(&self.config.timezone);
        if source.min_of_usual <= 0.0 || now.date_naive() != date {
            return None;
        }
        let is_open = |day: NaiveDate| self.calendar.is_trading_day(day).is_open();
        let alike = |step: usize, count: usize| -> Vec<NaiveDate> {
            (1..=count)
                .filter_map(|n| date.checked_sub_days(Days::new((n * step) as u64)))
                .filter(|day| is_open(*day) == is_open(date))
                .collect()
        };
        let mut usual =
            |days: &[NaiveDate]| run.usual_count(days, now.time(), self.config.timezone);
        usual(&alike(7, 8)).or_else(|| usual(&alike(1, 14)))
    }

    /// What is known of other days.
    fn before(&self, source: &Source, date: NaiveDate, run: &mut Run) -> Before {
        Before {
            usual: self.usual_count(source, date, run),
            content: match self.may_repeat(source, date) {
                true => None,
                false => run.content_before(date),
            },
        }
    }

    /// Whether the day may have the content of the one before: the source says so, the exchanges are closed, or it has only just begun
    /// within a night session.
    fn may_repeat(&self, source: &Source, date: NaiveDate) -> bool {
        let now = self.recorder.now().with_timezone(&self.config.timezone);
        let morning = NaiveTime::from_hms_opt(9, 0, 0).unwrap_or_default();
        let is_night = !source.sessions.is_empty() && now.time() < morning;
        source.may_repeat || is_night || !self.calendar.is_trading_day(date).is_open()
    }

    /// Adds to an outcome what came for a day of a source.
    fn describe(
        &self,
        source: &Source,
        date: NaiveDate,
        gathered: Gathered,
        outcome: &mut Outcome,
    ) {
        let stored = gathered.best.as_ref();
        let stored = stored.is_some_and(|(_, validated)| !validated.rows.is_empty());
        outcome.status = match &outcome.error {
            None => Status::Success,
            Some(_) if stored => Status::Partial,
            Some(e) if e.kind == ErrorKind::Timeout => Status::Timeout,
            Some(_) => Status::Failed,
        };
        outcome.raw = gathered.raw;
        let now = self.recorder.now();
        let today = now.with_timezone(&self.config.timezone).date_naive();
        // A run for another day does not stand for today's.
        if self.trigger != Trigger::Backfill && (outcome.start.due_at.is_some() || date == today) {
            outcome.next_due_at = self.next_due(source, now);
        }
        outcome.alert_after = source.alert_after;
        let mut detail = |name: &str, value| outcome.details.insert(name.to_owned(), value);
        detail("provider", json!(source.provider));
        detail("table", json!(source.store.table));
        detail("day", json!(date));
        detail("source_sha256", json!(source.sha256));
        if let Err(e) = crate::source::keep(self.recorder.state(), source) {
            tracing::warn!("the source file of {} was not kept: {e}", source.name);
        }
        if !gathered.leftovers.is_empty() {
            detail(LEFTOVERS, json!(gathered.leftovers));
        }
        let mut day = DayOutcome {
            day: date,
            content: None,
            may_repeat: self.may_repeat(source, date),
            evidence: None,
            usual: gathered.before.usual,
        };
        let Some((collected, validated)) = gathered.best else {
            outcome.day = Some(day);
            return;
        };
        let storing = format!("storing {} rows", validated.rows.len());
        progress::say(&source.name, storing);
        day.content = fingerprint(source, &collected, &validated);
        day.evidence = evidence(source, &gathered.before, &collected);
        outcome.day = Some(day);
        detail("requests", json!(collected.pages));
        outcome.fetched = collected.records.len() as u64;
        let mut findings = collected.findings;
        findings.extend(validated.findings);
        findings.extend(validated.other_days);
        let stale = outcome
            .error
            .as_ref()
            .filter(|e| e.kind == ErrorKind::Stale);
        findings.extend(stale.map(|e| format!("stale: {}", e.message)));
        let mut shape = validated.shape.or_nothing();
        if let Some(before) = &gathered.earlier_shape {
            findings.extend(shape.differences(before, &collected.records));
            shape = shape.with_kinds_of(before);
        }
        outcome.shape = (outcome.status == Status::Success).then(|| shape.to_json());
        outcome.quality = Some(Quality {
            day: Some(date),
            expected: collected.expected,
            collected: outcome.fetched,
            duplicates: collected.duplicates + validated.duplicates,
            fresh: validated.fresh,
            findings,
        });
        outcome.rejects = validated.rejects;
        outcome.max_rejected = source.max_rejected;
        let batch = store::batch(source, validated.rows, now);
        match latest::batch(source, date, &batch) {
            Ok(latest) => outcome.batches.extend(latest),
            // The rows themselves will not be read either.
            Err(e) => tracing::warn!("{}: [latest]: {e}", source.name),
        }
        outcome.batches.insert(0, batch);
    }
}

/// The rows are stored all the same; what they were made of cannot be read again.
fn not_archived(lost: &Lost, outcome: &mut Outcome, gathered: &mut Gathered) {
    let message = format!(
        "not archived: the raw archive did not take {} answer(s) ({}); free space in state_dir",
        lost.answers, lost.reason
    );
    outcome.details.insert(
        NOT_ARCHIVED.to_owned(),
        json!({ "answers": lost.answers, "reason": lost.reason }),
    );
    if let Some((collected, _)) = &mut gathered.best {
        collected.findings.push(message.clone());
    }
    outcome
        .error
        .get_or_insert_with(|| RunError::new(ErrorKind::Internal, message));
}

fn log(report: &RunReport) {
    tracing::info!(
        "{}: {} after {} attempts, {} records",
        report.task,
        report.status.as_str(),
        report.attempts,
        report.fetched
    );
}

/// What came of the attempts of a run.
#[derive(Default)]
struct Gathered {
    raw: Vec<RawRecord>,
    /// The last complete attempt's, or the fullest incomplete one's.
    best: Option<(Collected, Validated)>,
    /// What an earlier run had left behind and was ended.
    leftovers: Vec<String>,
    earlier_shape: Option<Shape>,
    before: Before,
}

impl Gathered {
    /// Assesses what came, and keeps it if it is the best so far. The error is why it is not a success.
    fn add(
        &mut self,
        source: &Source,
        time: CollectionTime,
        mut collected: Collected,
    ) -> Result<(), NotGood> {
        let validated = match collected.validated.take() {
            Some(validated) => validated,
            None => validate(source, time, &collected.records).map_err(|e| NotGood {
                error: cannot_wait(&e).error,
                not_there: false,
            })?,
        };
        let verdict = assess(source, time.date, &self.before, &collected, &validated);
        let better = self.best.as_ref().is_none_or(|(before, _)| {
            verdict.error.is_none() || collected.records.len() >= before.records.len()
        });
        let stale = validated.fresh == Some(false);
        let not_there = stale || collected.not_there;
        if verdict.storable && better {
            self.best = Some((collected, validated));
        }
        match verdict.error {
            None => Ok(()),
            Some(error) => Err(NotGood {
                not_there: not_there || matches!(error.kind, ErrorKind::Empty | ErrorKind::Stale),
                error,
            }),
        }
    }
}

/// Why what came is no success.
struct NotGood {
    error: RunError,
    /// It is nothing, or of another day.
    not_there: bool,
}

/// A day of a source, collected from its site.
struct Collection<'a> {
    collector: &'a Collector<'a>,
    source: &'a Source,
    date: NaiveDate,
    equipment: Option<Equipment>,
    gathered: Gathered,
}

/// What the attempts of a run share.
struct Equipment {
    client: Client,
    archive: Arc<RunArchive>,
    secrets: Vec<(String, Secret)>,
    programs: Programs,
}

impl Collection<'_> {
    /// What is not there yet is asked for again until the source's own time.
    fn failed(&self, error: RunError, asked: Option<Duration>, not_there: bool) -> Failed {
        let mut failed = Failed::by_kind(error, asked);
        failed.not_yet = self.patience().filter(|_| not_there);
        failed
    }

    fn patience(&self) -> Option<Duration> {
        let rule = self.source.not_yet.as_ref()?;
        let zone = self.collector.config.timezone;
        let now = self.collector.recorder.now().with_timezone(&zone);
        let left = rule.until.0 - now.time();
        let due = now.date_naive() == self.date && left > TimeDelta::zero();
        let left = left.to_std().ok().filter(|_| due)?;
        Some(rule.every.0.min(left.max(Duration::from_secs(1))))
    }

    fn equip(&self, run: &mut Run) -> Result<Equipment, NotReady> {
        let (config, source) = (self.collector.config, self.source);
        let unset = |e: oa_core::app::config::ConfigError| {
            NotReady::misconfigured(ErrorKind::Auth, e.to_string())
        };
        let network = self.collector.network.as_ref();
        let network = network.map_err(|e| NotReady::misconfigured(ErrorKind::Network, e))?;
        let secrets = source.secrets(config).map_err(unset)?;
        let environment = Environment::of_source(config, source).map_err(unset)?;
        let archive = self.collector.archive.of_run(run.start().id);
        let archive = archive.map_err(|e| RunError::new(ErrorKind::Internal, e.to_string()))?;
        let start = run.start();
        let owner = Owner::new(
            &start.task,
            start.id,
            self.collector.recorder.state().path(),
        );
        Ok(Equipment {
            client: Client::new(
                config.crawl.max_body.0,
                self.collector.gate.clone(),
                &source.fetch.base,
                network,
            )
            .allowing(&source.fetch.redirects),
            archive: Arc::new(archive),
            secrets,
            programs: Programs {
                owner: Some(owner),
                environment,
            },
        })
    }
}

impl Task for Collection<'_> {
    fn policy(&self) -> Option<Policy> {
        Some(self.source.retry)
    }

    fn starts_programs(&self) -> bool {
        self.source.fetch.kind != FetchKind::Http || self.source.image.is_some()
    }

    fn prepare(&mut self, run: &mut Run) -> Result<(), NotReady> {
        self.gathered.leftovers = run.leftovers().to_vec();
        self.equipment = Some(self.equip(run)?);
        self.gathered.before = self.collector.before(self.source, self.date, run);
        self.gathered.earlier_shape = run.shape().as_ref().and_then(Shape::from_json);
        Ok(())
    }

    fn attempt(&mut self, number: u32) -> Result<(), Failed> {
        let (collector, source, date) = (self.collector, self.source, self.date);
        // Midnight, or the schedule's next time, may have come since the last attempt.
        if let Some(reason) = collector.cannot_show(source, date) {
            let error = RunError::new(ErrorKind::Internal, reason);
            return Err(Failed::by_kind(error, None));
        }
        let Some(equipment) = &self.equipment else {
            let error = RunError::new(ErrorKind::Internal, "the run was not prepared");
            return Err(Failed::by_kind(error, None));
        };
        let context = Context {
            archive: Some(equipment.archive.clone()),
            secrets: equipment.secrets.clone(),
            programs: equipment.programs.clone(),
            attempt: number,
            ..Context::new(
                source,
                date,
                collector.calendar,
                equipment.client.clone(),
                collector.recorder.state().path(),
                collector.config.crawl.max_body.0,
            )
        };
        let collected = collect_in_time(context, collector.stop).map_err(|e| {
            progress::say(&source.name, format!("attempt {number} failed"));
            self.failed(e.error, e.retry_after, e.not_there)
        })?;
        // A day whose data are received now, by the server's clock.
        let at = collector.recorder.now();
        self.gathered
            .add(source, CollectionTime { date, at }, collected)
            .map_err(|e| self.failed(e.error, None, e.not_there))
    }

    fn complete(&mut self, outcome: &mut Outcome) {
        let mut gathered = std::mem::take(&mut self.gathered);
        if let Some(equipment) = &self.equipment {
            gathered.raw = equipment.archive.entries();
            if let Some(lost) = equipment.archive.lost() {
                not_archived(&lost, outcome, &mut gathered);
            }
        }
        self.collector
            .describe(self.source, self.date, gathered, outcome);
    }
}

/// An earlier run's answers, read again.
struct Replay<'a> {
    collector: &'a Collector<'a>,
    source: &'a Source,
    time: CollectionTime,
    of: Uuid,
    /// What was made of them; taken by the only attempt.
    collected: Option<Collected>,
    gathered: Gathered,
}

impl Task for Replay<'_> {
    fn starts_programs(&self) -> bool {
        false
    }

    fn prepare(&mut self, run: &mut Run) -> Result<(), NotReady> {
        if !self.collector.may_repeat(self.source, self.time.date) {
            self.gathered.before.content = run.content_before(self.time.date);
        }
        Ok(())
    }

    fn attempt(&mut self, _number: u32) -> Result<(), Failed> {
        let Some(collected) = self.collected.take() else {
            let error = RunError::new(ErrorKind::Internal, "a replay is stored once");
            return Err(Failed::by_kind(error, None));
        };
        self.gathered
            .add(self.source, self.time, collected)
            .map_err(|e| Failed::by_kind(e.error, None))
    }

    fn complete(&mut self, outcome: &mut Outcome) {
        let gathered = std::mem::take(&mut self.gathered);
        self.collector
            .describe(self.source, self.time.date, gathered, outcome);
        let of = json!(self.of);
        outcome.details.insert("replayed_from".to_owned(), of);
    }
}

/// Collects on a thread of its own, so that a signal, or a limit that is not kept, ends the attempt however long a site is silent.
fn collect_in_time(context: Context, stop: StopSignal) -> Result<Collected, FetchError> {
    let limit = context.deadline + GRACE;
    let (sender, receiver) = mpsc::channel();
    let collects = threads::spawn("collect", move || {
        let collected = collect(&context);
        // Its browser ends before this process may.
        drop(context);
        // Whoever waited may have given up.
        let _ = sender.send(collected);
    });
    collects.map_err(|e| FetchError::new(ErrorKind::Internal, e.to_string()))?;
    loop {
        let (kind, message) = match receiver.recv_timeout(POLL) {
            Ok(collected) => return collected,
            Err(RecvTimeoutError::Timeout) if stop.requested() => {
                (ErrorKind::Internal, "stopped by a signal while fetching")
            }
            Err(RecvTimeoutError::Timeout) if Instant::now() < limit => continue,
            Err(RecvTimeoutError::Timeout) => {
                (ErrorKind::Timeout, "the attempt did not end by its limit")
            }
            Err(RecvTimeoutError::Disconnected) => (
                ErrorKind::Internal,
                "the fetching thread ended because of a bug in this program; its message is on stderr",
            ),
        };
        return Err(FetchError::new(kind, message));
    }
}
