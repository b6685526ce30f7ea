//! What each minute costs when nothing is due. To read a thousand source files takes longer than all else of it, so `run --due` notes what
//! it has looked at: the files, by name, inode, size and times, and the tasks as they are registered. While both are the same, no slot is
//! due and enough are written ahead, there is nothing to do.
//!
//! Killed anywhere, or with its note lost or of another version, the next start looks at everything. What is wrong with a file is looked at
//! each time.

use std::fmt::Write as _;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use oa_core::app::config::Config;
use oa_core::base::trust;
use oa_core::journal::Recorder;
use oa_core::journal::due::{Registered, registered};
use oa_core::journal::watch;
use oa_core::pg::describe;
use sha2::{Digest, Sha256};

/// No task's name has a dot.
const NOTE: &str = "sources.seen";

/// A file that was written so lately may be written once more without another time.
const SETTLED: Duration = Duration::from_secs(2);

/// The files on which it depends what is due.
pub(super) struct Seen {
    files: String,
    newest: SystemTime,
}

impl Seen {
    /// `None`: something cannot be read, as whoever reads the sources will say.
    pub(super) fn look(config: &Config, folder: Option<&Path>) -> Option<Self> {
        let mut seen = Self {
            files: String::new(),
            newest: SystemTime::UNIX_EPOCH,
        };
        seen.add(&std::env::current_exe().ok()?)?;
        seen.add(&config.path)?;
        if let Some(calendar) = &config.calendar {
            seen.add(calendar)?;
        }
        if let Some(folder) = folder.or(config.crawl.sources.as_deref()) {
            trust::check_folder(folder).ok()?;
            let mut files = Vec::new();
            for entry in fs::read_dir(folder).ok()? {
                files.push(entry.ok()?.path());
            }
            files.sort();
            seen.add(folder)?;
            for file in files {
                seen.add(&file)?;
            }
        }
        Some(seen)
    }

    fn add(&mut self, path: &Path) -> Option<()> {
        let there: Metadata = fs::metadata(path).ok()?;
        let changed = there.ctime().max(there.mtime()).try_into().ok()?;
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(changed);
        self.newest = self.newest.max(changed + Duration::from_secs(1));
        writeln!(
            self.files,
            "{}\0{} {} {} {} {} {} {}.{} {}.{}",
            path.display(),
            there.dev(),
            there.ino(),
            there.mode(),
            there.uid(),
            there.gid(),
            there.size(),
            there.mtime(),
            there.mtime_nsec(),
            there.ctime(),
            there.ctime_nsec(),
        )
        .ok()
    }

    fn line(&self, registered: &Registered) -> String {
        let digest = Sha256::digest(&self.files);
        let digest: String = digest.iter().map(|b| format!("{b:02x}")).collect();
        format!("{digest} {}", registered.digest)
    }

    /// All of this was read and is well, and its tasks are registered.
    pub(super) fn note(&self, recorder: &Recorder, registered: &Registered) {
        let is_settled = SystemTime::now() > self.newest + SETTLED;
        if let Ok(folder) = recorder.state().folder("due").as_ref()
            && is_settled
            && let Err(e) = fs::write(folder.join(NOTE), self.line(registered))
        {
            tracing::warn!("could not note which source files were read: {e}");
        }
    }

    /// Whether there is nothing to do; then this start is counted.
    pub(super) fn nothing_is_due(&self, config: &Config, recorder: &Recorder) -> bool {
        let folder = recorder.state().folder("due").ok();
        let Some(noted) = folder.and_then(|f| fs::read_to_string(f.join(NOTE)).ok()) else {
            return false;
        };
        let idle = recorder.connected(|client| {
            let registered = registered(client)?;
            Ok(registered.is_idle && noted == self.line(&registered))
        });
        let is_idle = idle.map(|idle| idle.inspect_err(|e| tracing::debug!("{}", describe(e))));
        if !matches!(is_idle, Ok(Ok(true))) {
            return false;
        }
        let counted =
            recorder.once(|tx| watch::begun(tx, watch::DUE, recorder.host(), config.timezone));
        counted.is_ok_and(|counted| {
            counted
                .inspect_err(|e| tracing::debug!("{}", describe(e)))
                .is_ok()
        })
    }
}
