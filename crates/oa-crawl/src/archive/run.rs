//! The part of one run.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use oa_core::runs::RawRecord;
use oa_core::runs::raw_index::RawIndex;
use oa_core::state_dir::{StateDirError, make_folder, write_durably};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Archive;
use crate::fetch::{Response, Validators};

/// What one run puts into the archive.
#[derive(Debug)]
pub(crate) struct RunArchive {
    archive: Archive,
    index: Mutex<RawIndex>,
}

impl RunArchive {
    pub(super) fn create(archive: &Archive, run: Uuid) -> Result<Self, StateDirError> {
        Ok(Self {
            archive: archive.clone(),
            index: Mutex::new(RawIndex::create(&archive.state, run)?),
        })
    }

    /// Keeps an answer to `url`, which is of `part`, and gives back the body's SHA-256. When it returns, body and index are on the disk.
    pub(crate) fn keep(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
    ) -> io::Result<String> {
        let stored = self.archive.put(&response.body)?;
        let record = RawRecord {
            attempt,
            url: oa_core::secrets::redact(url),
            part: part.map(str::to_owned),
            status: response.status,
            content_type: response.content_type.clone(),
            sha256: stored.sha256.clone(),
            size_bytes: response.body.len() as u64,
            stored_bytes: stored.stored_bytes,
            fetched_at: Utc::now(),
        };
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.push(record)?;
        Ok(stored.sha256)
    }

    /// Remembers how the site names the state of its answer to `asked`, whose body was kept.
    pub(crate) fn remember(&self, asked: &str, state: &Validators, sha256: &str) -> io::Result<()> {
        let path = self.archive.state_file(asked);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let text = serde_json::to_vec(&Known {
            state: state.clone(),
            sha256: sha256.to_owned(),
        })?;
        write_durably(&path, &text)
    }

    /// The last state of the answer to `asked`, if the archive still has its body, undamaged.
    pub(crate) fn known(&self, asked: &str) -> Option<(Validators, Vec<u8>)> {
        let text = fs::read(self.archive.state_file(asked)).ok()?;
        let known: Known = serde_json::from_slice(&text).ok()?;
        let body = self.archive.get(&known.sha256).ok()?;
        Some((known.state, body))
    }

    /// The answers so far.
    pub(crate) fn entries(&self) -> Vec<RawRecord> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.entries().to_vec()
    }
}

/// See [`RunArchive::remember`].
#[derive(Serialize, Deserialize)]
struct Known {
    state: Validators,
    sha256: String,
}
