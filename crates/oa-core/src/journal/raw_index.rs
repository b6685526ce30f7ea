//! Which answers a run has received so far, on this machine's disk: files of the raw archive are named by their content only, and
//! a run that is killed has not recorded them in PostgreSQL yet. Whoever marks it as abandoned takes them from here.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

use uuid::Uuid;

use crate::base::state_dir::{StateDir, StateDirError, new_file};
use crate::model::RawRecord;

/// The index of one run, as JSON lines.
#[derive(Debug)]
pub struct RawIndex {
    /// `None` on a disk that takes nothing.
    file: Option<File>,
    entries: Vec<RawRecord>,
}

impl RawIndex {
    /// A new one.
    ///
    /// # Errors
    /// When its file cannot be made.
    pub fn create(state: &StateDir, run: Uuid) -> Result<Self, StateDirError> {
        let path = state
            .folder("raw/index")
            .map(|folder| folder.join(file_name(run)))?;
        let file = new_file()
            .open(&path)
            .map_err(|source| StateDirError { path, source })?;
        Ok(Self {
            file: Some(file),
            entries: Vec::new(),
        })
    }

    /// One that is in memory alone.
    #[must_use]
    pub fn without_file() -> Self {
        Self {
            file: None,
            entries: Vec::new(),
        }
    }

    /// Notes an answer. When it returns, the note is on the disk.
    ///
    /// # Errors
    /// When it cannot be written there. The run has it all the same.
    pub fn push(&mut self, record: RawRecord) -> io::Result<()> {
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.entries.push(record);
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        file.write_all(&line)?;
        file.sync_data()
    }

    /// What was noted.
    #[must_use]
    pub fn entries(&self) -> &[RawRecord] {
        &self.entries
    }
}

/// What a run had noted when it was killed: nothing when it received no answer, ended well, or ran on another machine.
#[must_use]
pub fn read(state: &StateDir, run: Uuid) -> Vec<RawRecord> {
    let path = path(state, run);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) => {
            if e.kind() != std::io::ErrorKind::NotFound {
                tracing::warn!("what {run} received is not known: {}: {e}", path.display());
            }
            return Vec::new();
        }
    };
    // The last line may be cut short.
    text.split(|b| *b == b'\n')
        .filter_map(|line| serde_json::from_slice(line).ok())
        .collect()
}

/// Ends it: the run log, or the spool, knows.
pub fn remove(state: &StateDir, run: Uuid) {
    let _ = fs::remove_file(path(state, run));
}

fn path(state: &StateDir, run: Uuid) -> PathBuf {
    state.path().join("raw/index").join(file_name(run))
}

fn file_name(run: Uuid) -> String {
    format!("{run}.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_noted_is_there_after_a_kill_and_a_torn_line_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let run = Uuid::now_v7();
        let record = RawRecord {
            attempt: 1,
            url: "http://x/?page=1".to_owned(),
            part: None,
            status: 200,
            content_type: None,
            sha256: "ab".to_owned(),
            size_bytes: 2,
            stored_bytes: 1,
            fetched_at: chrono::Utc::now(),
        };
        let mut index = RawIndex::create(&state, run).unwrap();
        index.push(record.clone()).unwrap();
        let file = index.file.as_mut().unwrap();
        file.write_all(b"{\"attempt\":2,").unwrap();
        assert_eq!(read(&state, run), [record]);
        remove(&state, run);
        assert!(read(&state, run).is_empty());
    }
}
