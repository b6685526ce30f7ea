//! What the runs of one program use one after the other: connections, and the spool open to be looked at. A thousand runs would
//! otherwise connect a thousand times, and open it thrice as often.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::base::state_dir::StateDir;
use crate::journal::spool::{Spool, SpoolError};
use crate::pg::Session;

/// So long after a program has connected, drained the spool and looked for abandoned runs, its runs do without that.
const FRESH: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct Kept {
    connections: Mutex<Connections>,
    spool: Mutex<Option<Opened>>,
}

#[derive(Default)]
struct Connections {
    idle: Vec<Session>,
    /// When one was made, with all that belongs to it.
    made: Option<Instant>,
}

struct Opened {
    spool: Spool,
    /// The file's number: whoever moves it aside has another one from then on.
    inode: u64,
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").finish_non_exhaustive()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// A connection was made anew.
    pub(super) fn connected(&self) {
        lock(&self.connections).made = Some(Instant::now());
    }

    /// One that is free, unless it is time to connect anew.
    pub(super) fn take(&self) -> Option<Session> {
        let mut all = lock(&self.connections);
        if all.made.is_none_or(|made| made.elapsed() >= FRESH) {
            all.idle.clear();
        }
        while let Some(session) = all.idle.pop() {
            if !session.is_closed() {
                return Some(session);
            }
        }
        None
    }

    /// A connection is free, and nothing is under way on it.
    pub(super) fn give_back(&self, session: Session) {
        lock(&self.connections).idle.push(session);
    }

    /// Looks into the spool. What is put into it is put by a spool that was opened for that.
    pub(super) fn look<T>(
        &self,
        state: &StateDir,
        open: impl FnOnce() -> Result<Spool, SpoolError>,
        look: impl FnOnce(&Spool) -> Result<T, SpoolError>,
    ) -> Result<T, SpoolError> {
        let mut kept = lock(&self.spool);
        let inode = || {
            fs::metadata(state.path().join("spool.db"))
                .map(|m| m.ino())
                .ok()
        };
        let known = kept.take().filter(|k| Some(k.inode) == inode());
        let opened = match known {
            Some(opened) => opened,
            None => {
                let spool = open()?;
                let inode = inode().unwrap_or_default();
                Opened { spool, inode }
            }
        };
        let found = look(&opened.spool)?;
        *kept = Some(opened);
        Ok(found)
    }
}
