//! Reading a file to its end while another program appends to it.
//!
//! Its size is known before, from the server. Where it comes out otherwise, what was read does not count, and the file is read again.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use oa_core::base::supervise::StopSignal;
use rustic_core::repofile::Metadata;

/// How long whoever reads waits for more.
const PAUSE: Duration = Duration::from_millis(5);
/// And how long at most: a table may have become smaller, and then nothing comes any more while the rest of the cluster is copied.
const PATIENCE: Duration = Duration::from_secs(60);

/// The files that are read while they grow, by their paths in the backup.
#[derive(Debug, Clone, Default)]
pub(crate) struct Following {
    sizes: HashMap<PathBuf, u64>,
    ended: Arc<AtomicBool>,
    stored: Arc<Mutex<HashMap<PathBuf, Stored>>>,
}

/// What a file was stored with, and, once all of it was read, when it was changed last.
pub(crate) type Stored = (Metadata, Option<SystemTime>);

impl Following {
    pub(crate) fn new(sizes: HashMap<PathBuf, u64>, ended: &Arc<AtomicBool>) -> Self {
        Self {
            sizes,
            ended: Arc::clone(ended),
            stored: Arc::default(),
        }
    }

    /// How to read a file, where it is one of these. Its metadata become those that it is stored with: what it will have.
    pub(crate) fn begin(&self, path: &Path, metadata: &mut Metadata) -> Option<Follow> {
        let size = *self.sizes.get(path)?;
        metadata.size = size;
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.insert(path.to_owned(), (metadata.clone(), None));
        Some(Follow {
            path: path.to_owned(),
            size,
            ended: Arc::clone(&self.ended),
            stored: Arc::clone(&self.stored),
        })
    }

    /// What is known of them.
    pub(crate) fn stored(&self) -> HashMap<PathBuf, Stored> {
        let stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        stored.clone()
    }
}

/// How a file that grows is read.
#[derive(Debug, Clone)]
pub(crate) struct Follow {
    path: PathBuf,
    size: u64,
    ended: Arc<AtomicBool>,
    stored: Arc<Mutex<HashMap<PathBuf, Stored>>>,
}

impl Follow {
    /// Reads on at `at`; waits where there is nothing yet. Nothing comes any more when all of it was read, when whoever writes has ended,
    /// when the file was removed, and when nothing has come for long.
    pub(crate) fn read(
        &self,
        file: &mut File,
        at: u64,
        buffer: &mut [u8],
    ) -> std::io::Result<usize> {
        let left = usize::try_from(self.size.saturating_sub(at)).unwrap_or(usize::MAX);
        let room = buffer.len().min(left);
        let Some(buffer) = buffer.get_mut(..room).filter(|room| !room.is_empty()) else {
            return Ok(0);
        };
        let began = Instant::now();
        loop {
            // Asked first: what was written before the end is still read.
            let ended = self.ended.load(Ordering::Acquire) || StopSignal.requested();
            let read = file.read(buffer)?;
            let gone = || file.metadata().map(|meta| meta.nlink() == 0);
            if read > 0 || ended || began.elapsed() > PATIENCE || gone()? {
                return Ok(read);
            }
            thread::sleep(PAUSE);
        }
    }

    /// Notes of a file that is complete when it was changed last. One that has its name, and even its number, later is another one.
    pub(crate) fn completed(&self, file: &File) {
        let changed = file.metadata().and_then(|now| now.modified()).ok();
        let mut stored = self.stored.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, known)) = stored.get_mut(&self.path) {
            *known = changed;
        }
    }

    /// Whether a file of which so much was read is complete.
    pub(crate) fn is_complete(&self, read: u64) -> bool {
        read == self.size
    }
}
