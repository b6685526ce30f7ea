//! `oa-backup stream`: receives WAL continuously and stores it each minute, until it is stopped.
//!
//! ```text
//! store (what is missing, or a full backup) ─▶ pg_receivewal ─┬─ each minute: store ─┐
//!        ▲                                                    └──────────────────────┘
//!        └── the server restarts, fails over, drops the slot ◀──┘ it ends
//! ```
//! Killed anywhere: what was received is on this disk, and the next backup of whatever kind takes it over. The server died: what was
//! received of it is stored at once.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use oa_core::app::cli::{Busy, Failure};
use oa_core::app::config::{Config, Locale};
use oa_core::app::exit;
use oa_core::app::flush_now;
use oa_core::app::output::human_duration;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::supervise::StopSignal;
use oa_core::base::units::{Bytes, Span};
use oa_core::journal::Recorder;
use oa_core::model::run::Trigger;
use oa_repository::{
    Kind, Level, Lsn, PostgresError, Programs, ProgressReporter, RepositoryLocation, staging,
};

use super::backup;
use crate::PROGRAM;
use crate::capture::live::{APPLICATION, Stream};
use crate::capture::server::{self, Connected, Server};
use crate::capture::slot_name;
use crate::capture::wal::WalFolder;
use crate::error::BackupError;
use crate::session;

/// How often the server is asked how far it is.
const TICK: Duration = Duration::from_secs(1);
/// Between tries to reach a server, or to begin again.
const AGAIN: Duration = Duration::from_secs(2);
/// After anything else, or when the receiver ends again and again.
const FAILED: Duration = Duration::from_secs(30);
/// What is measured takes no longer than this.
const MEASURE: Duration = Duration::from_secs(10);
/// A receiver that has worked for so long has worked.
const WORKS: Duration = Duration::from_secs(60);
/// So often it may end before that until nobody tries at once.
const AT_ONCE: u32 = 3;
/// A receiver that gets no further in so many ticks, although the server has more, hangs.
const HANGS: u32 = 60;
/// So many marks are enough for a day of lag.
const MARKS: usize = 86_400;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How often to store what was received
    #[arg(long, value_name = "TIME", default_value = "1m")]
    every: Span,
}

/// Why it does not receive now.
enum Broken {
    /// The server does not answer, or has ended the connection.
    Down(String),
    /// The receiver has ended: the server restarts, or the disk here is full.
    Ended(String),
    /// As it is set up there are only dumps.
    Refused(BackupError),
    /// No backup could be made, which is in the run log already.
    NotStored(String),
    /// Anything else; it is tried again later.
    Failed(String),
}

impl From<BackupError> for Broken {
    fn from(error: BackupError) -> Self {
        match &error {
            BackupError::Postgres(PostgresError::Connect(e)) if e.is_passing() => {
                Self::Down(error.to_string())
            }
            BackupError::Postgres(PostgresError::Query { source, .. })
                if source.is_closed() || oa_core::pg::is_connection_error(source) =>
            {
                Self::Down(error.to_string())
            }
            _ => Self::Failed(error.to_string()),
        }
    }
}

/// Receives until it is stopped.
pub(crate) fn run(
    config: &Config,
    args: &Args,
    reporter: &ProgressReporter,
) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    // What no time mends is said at once, and not again and again.
    RepositoryLocation::primary(config)?;
    server::settings(config)?;
    Recorder::open(config, PROGRAM)?;
    let folder = staging::open(config, settings).map_err(BackupError::from)?;
    let Some(_alone) = folder.try_lock("stream").map_err(BackupError::from)? else {
        return Err(Busy("oa-backup stream runs already on this machine".to_owned()).into());
    };
    let mut streaming = Streaming {
        config,
        reporter,
        every: args.every.0.max(TICK),
        known: None,
        seen: None,
        was_down: false,
        ended: 0,
        stores: false,
        noted: None,
    };
    while !StopSignal.requested() {
        match streaming.receive() {
            Ok(()) => {}
            Err(Broken::Down(why)) => {
                streaming.server_is_down(&why);
                let _ = StopSignal.wait(AGAIN);
            }
            Err(Broken::Ended(why)) => {
                tracing::error!("{why}");
                streaming.ended += 1;
                let many = streaming.ended > AT_ONCE;
                let _ = StopSignal.wait(if many { FAILED } else { AGAIN });
            }
            Err(Broken::Refused(error)) => return Err(streaming.record(error.into())),
            Err(Broken::NotStored(why)) => {
                tracing::error!("{why}");
                let _ = StopSignal.wait(FAILED);
            }
            Err(Broken::Failed(why)) => {
                tracing::error!("{why}");
                streaming.note(why);
                let _ = StopSignal.wait(FAILED);
            }
        }
    }
    tracing::info!("stopped; what was received and is not stored yet is stored by the next backup");
    Ok(exit::OK)
}

struct Streaming<'a> {
    config: &'a Config,
    reporter: &'a ProgressReporter,
    every: Duration,
    /// The server that it received from last.
    known: Option<(Server, Programs)>,
    /// Up to where and when everything that the server had on its disk was received.
    seen: Option<(Lsn, DateTime<Utc>)>,
    was_down: bool,
    /// How often in a row the receiver has ended soon.
    ended: u32,
    /// The last try has come as far as to make a backup.
    stores: bool,
    /// What was recorded of what keeps it from that: once is enough.
    noted: Option<String>,
}

impl Streaming<'_> {
    /// Returns when it is stopped.
    fn receive(&mut self) -> Result<(), Broken> {
        let settings = self.config.backup_settings().map_err(BackupError::from)?;
        self.stores = false;
        let mut connected = Connected::open(self.config)?;
        let (kind, obstacle) =
            connected
                .server
                .kind(settings.kind, &connected.programs, &mut connected.client)?;
        if kind != Kind::Physical {
            let why = obstacle.unwrap_or_else(|| "kind = \"logical\" in [backup]".to_owned());
            return Err(Broken::Refused(BackupError::NotAllowed(format!(
                "WAL cannot be received: {why}"
            ))));
        }
        let folder = staging::open(self.config, settings).map_err(BackupError::from)?;
        let slot = slot_name::known(settings, &folder, &connected.server);
        if self.known.is_some()
            && let Some(lost) = connected.source(&slot).lost()?
        {
            tracing::error!("{lost}; it is made anew, and a full backup is made if WAL is missing");
        }
        if self.was_down {
            tracing::warn!("the server answers again");
        }
        self.was_down = false;
        // What is missing until now, or a full backup, by a receiver that ends.
        if !self.store() {
            return Err(Broken::NotStored(format!(
                "nothing is received before a backup was made; tried again in {}",
                human_duration(FAILED, Locale::En)
            )));
        }
        // A backup that was made has resolved it, and the next one would again: what comes now is only logged.
        (self.noted, self.stores) = (None, true);
        let wal = WalFolder::open(&folder, &connected.server)?;
        let (_receiving, mut stream, slot) = {
            let _lock = session::lock_wal(&folder)?;
            // The backup may have chosen it, or another one since; nobody does under this lock.
            let slot = slot_name::known(settings, &folder, &connected.server);
            let Some(receiving) = wal.live().try_lock()? else {
                return Err(Broken::Failed(
                    "another process receives the WAL".to_owned(),
                ));
            };
            let source = &mut connected.source(&slot);
            source.ensure_slot()?;
            (
                receiving,
                wal.live().receive(wal.path(), source.programs, &slot)?,
                slot,
            )
        };
        tracing::warn!("WAL is received through slot {slot}");
        self.known = Some((connected.server.clone(), connected.programs.clone()));
        self.follow(&mut connected, &mut stream, &slot)
    }

    fn follow(
        &mut self,
        connected: &mut Connected,
        stream: &mut Stream,
        slot: &str,
    ) -> Result<(), Broken> {
        let mut marks: VecDeque<(Lsn, DateTime<Utc>)> = VecDeque::new();
        let (began, mut stored) = (Instant::now(), Instant::now());
        // Ticks, because storing takes its time too.
        let (mut before, mut unmoved) = (None, 0);
        loop {
            if let Some(why) = stream.ended() {
                return Err(Broken::Ended(format!(
                    "WAL is not received now: pg_receivewal has ended ({why})"
                )));
            }
            if began.elapsed() > WORKS {
                self.ended = 0;
            }
            let standby = connected.server.standby;
            marks.push_back(server::flushed(&mut connected.client, standby)?);
            let received = connected.source(slot).progress()?.received;
            while let Some(mark) = marks.front().filter(|(lsn, _)| Some(*lsn) <= received) {
                self.seen = Some(*mark);
                marks.pop_front();
            }
            if marks.len() > MARKS {
                marks.pop_front();
            }
            unmoved = if marks.is_empty() || received != before {
                0
            } else {
                unmoved + 1
            };
            before = received;
            if unmoved > HANGS {
                return Err(Broken::Ended(
                    "WAL is not received now: pg_receivewal hangs, and is started again".to_owned(),
                ));
            }
            // What hangs would only keep a backup waiting.
            if unmoved == 0 && stored.elapsed() >= self.every {
                stored = Instant::now();
                self.store();
            }
            if !StopSignal.wait(TICK) {
                return Ok(());
            }
        }
    }

    /// Whether there is a backup of everything until now. What keeps it from being made is in the run log, and an alert.
    fn store(&self) -> bool {
        let made = self.recorder().and_then(|recorder| {
            backup::make(
                self.config,
                &recorder,
                &job(),
                &backup::Args::of_stream(),
                Level::Incremental,
                self.reporter,
            )
        });
        match made {
            Ok((_, problems)) => {
                for problem in problems {
                    tracing::error!("{problem}");
                }
                true
            }
            Err(failure) => {
                tracing::error!("{failure}");
                false
            }
        }
    }

    /// By the address as it is now: a password may be changed while this runs.
    fn recorder(&self) -> Result<Recorder, Failure> {
        Ok(Recorder::open(self.config, PROGRAM)?)
    }

    fn note(&mut self, why: String) {
        if !self.stores && self.noted.as_ref() != Some(&why) {
            let _ = self.record(anyhow::anyhow!(why.clone()).into());
            self.noted = Some(why);
        }
    }

    /// Why no backup is even tried is in the run log, and an alert, as the failure of one is.
    fn record(&self, failure: Failure) -> Failure {
        let mut failure = Some(failure);
        let unknown = || Failure::from(anyhow::anyhow!("WAL is not received"));
        let result = self.recorder().and_then(|recorder| {
            work::recorded(&recorder, &job(), |_| {
                Err::<JobOutcome<()>, Failure>(failure.take().unwrap_or_else(unknown))
            })
        });
        flush_now(self.config);
        result.err().unwrap_or_else(unknown)
    }

    /// What was received of a server that is gone goes into the repository at once: it may not come back.
    fn server_is_down(&mut self, why: &str) {
        if self.was_down {
            return;
        }
        self.was_down = true;
        tracing::error!("{why}; tried again until it answers");
        let (Some((server, programs)), Some(seen)) = (&self.known, self.seen.take()) else {
            return;
        };
        let result = self.recorder().and_then(|recorder| {
            work::recorded(&recorder, &job(), |run| {
                let left = session::store_left_behind(
                    self.config,
                    run,
                    server,
                    programs,
                    seen,
                    self.reporter,
                );
                let location = RepositoryLocation::primary(self.config)?;
                let left = left?.unwrap_or_default();
                Ok(backup::outcome_of(&recorder, &location, left))
            })
        });
        flush_now(self.config);
        match result {
            Ok(made) if made.backups.is_empty() => {}
            Ok(_) => {
                let to = seen.1.with_timezone(&self.config.timezone);
                let to = to.format("%Y-%m-%d %H:%M:%S %Z");
                tracing::warn!("what was received before is stored: it restores to {to}");
            }
            Err(failure) => tracing::error!("{failure}"),
        }
    }
}

fn job() -> Job {
    Job {
        trigger: Trigger::Cron,
        must_be_done: true,
        ..Job::by_hand(PROGRAM, "backup-stream", "连续备份")
    }
}

/// How far a stream is behind its server.
#[derive(Debug, serde::Serialize)]
pub(super) struct Lag {
    /// How long it took until what the server had on its disk was here as well; `None`: longer than was waited for.
    pub(super) seconds: Option<f64>,
    /// What was missing then.
    pub(super) bytes: u64,
}

impl Lag {
    pub(super) fn sentence(&self) -> String {
        match self.seconds {
            Some(seconds) => format!(
                "WAL is streamed: what the server had written was received within {:.1} s, and is stored with the next backup.\n",
                seconds.max(0.1)
            ),
            None => format!(
                "WAL is streamed, and {} behind the server: what the server has written since would be lost.\n",
                Bytes(self.bytes)
            ),
        }
    }
}

/// Measures it; `None` where nobody streams now.
pub(super) fn measure(config: &Config) -> Result<Option<Lag>, BackupError> {
    let settings = config.backup_settings()?;
    let mut connected = Connected::open(config)?;
    let slot = &slot_name::known(
        settings,
        &staging::open(config, settings)?,
        &connected.server,
    );
    let source = &mut connected.source(slot);
    let streams = |progress: &crate::capture::slot::Progress| {
        let user = progress.user.as_ref();
        user.is_some_and(|user| user.is(APPLICATION))
    };
    if !streams(&source.progress()?) {
        return Ok(None);
    }
    let (began, to) = (Instant::now(), source.end()?);
    loop {
        let progress = source.progress()?;
        let took = began.elapsed();
        let bytes = to.0.saturating_sub(progress.received.unwrap_or(to).0);
        let seconds = (bytes == 0).then_some(took.as_secs_f64());
        if seconds.is_some() || took > MEASURE || !streams(&progress) {
            return Ok(Some(Lag { seconds, bytes }));
        }
        let _ = StopSignal.wait(Duration::from_millis(20));
    }
}
