//! The part of one run.
//!
//! A disk that takes nothing is no reason to lose a day that PostgreSQL can take: the run goes on, and says what is not archived.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};

use chrono::Utc;
use oa_core::base::state_dir::{StateDirError, make_folder, write_durably};
use oa_core::journal::raw_index::RawIndex;
use oa_core::model::run::RawRecord;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Archive, Packed, Stored};
use crate::fetch::{Response, Validators};

#[derive(Debug)]
pub(crate) struct RunArchive {
    archive: Archive,
    index: Mutex<RawIndex>,
    lost: Mutex<Option<Lost>>,
}

/// What the archive did not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    /// So many answers.
    pub(crate) answers: u64,
    /// Why the first one was not taken.
    pub(crate) reason: String,
}

impl RunArchive {
    pub(super) fn create(archive: &Archive, run: Uuid) -> Result<Self, StateDirError> {
        let index = match RawIndex::create(&archive.state, run) {
            Err(e) if e.is_disk() => RawIndex::without_file(),
            index => index?,
        };
        Ok(Self {
            archive: archive.clone(),
            index: Mutex::new(index),
            lost: Mutex::default(),
        })
    }

    /// Keeps an answer to `url`, of `part`, and returns the body's SHA-256. Body and index are on the disk when this returns; `None`: the
    /// disk did not take the body, see [`RunArchive::lost`].
    pub(crate) fn keep(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
    ) -> Option<String> {
        let bytes = response.body.len() as u64;
        let stored = self.archive.put(&response.body);
        self.note(attempt, url, part, response, stored, bytes)
    }

    /// The same of an answer whose body is packed.
    pub(crate) fn keep_packed(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
        packed: &Packed,
    ) -> Option<String> {
        let stored = self.archive.put_packed(packed);
        self.note(attempt, url, part, response, stored, packed.bytes)
    }

    fn note(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
        stored: io::Result<Stored>,
        size_bytes: u64,
    ) -> Option<String> {
        let stored = match stored {
            Ok(stored) => stored,
            Err(e) => {
                self.note_lost(url, &e);
                return None;
            }
        };
        let record = RawRecord {
            attempt,
            url: oa_core::base::secrets::redact(url),
            part: part.map(str::to_owned),
            status: response.status,
            content_type: response.content_type.clone(),
            sha256: stored.sha256.clone(),
            size_bytes,
            stored_bytes: stored.stored_bytes,
            fetched_at: Utc::now(),
        };
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(e) = index.push(record) {
            tracing::warn!("should this run be killed, its answers are not known: {e}");
        }
        Some(stored.sha256)
    }

    fn note_lost(&self, url: &str, e: &io::Error) {
        let url = oa_core::base::secrets::redact(url);
        tracing::error!("could not keep the answer of {url} in the raw archive: {e}");
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let lost = lost.get_or_insert_with(|| Lost {
            answers: 0,
            reason: e.to_string(),
        });
        lost.answers += 1;
    }

    pub(crate) fn lost(&self) -> Option<Lost> {
        let lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.clone()
    }

    /// Remembers the validators of the answer to `request_line`, whose body was kept.
    pub(crate) fn remember(
        &self,
        request_line: &str,
        state: &Validators,
        sha256: &str,
    ) -> io::Result<()> {
        let path = self.archive.state_file(request_line);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        let text = serde_json::to_vec(&AnswerState {
            state: state.clone(),
            sha256: sha256.to_owned(),
        })?;
        write_durably(&path, &text)
    }

    /// The last answer to `request_line` with its validators, if the archive still has its body, undamaged.
    pub(crate) fn last_answer(&self, request_line: &str) -> Option<(Validators, Vec<u8>)> {
        let text = fs::read(self.archive.state_file(request_line)).ok()?;
        let last: AnswerState = serde_json::from_slice(&text).ok()?;
        let body = self.archive.get(&last.sha256).ok()?;
        Some((last.state, body))
    }

    pub(crate) fn entries(&self) -> Vec<RawRecord> {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        index.entries().to_vec()
    }
}

/// See [`RunArchive::remember`].
#[derive(Serialize, Deserialize)]
struct AnswerState {
    state: Validators,
    sha256: String,
}
