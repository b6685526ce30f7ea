//! The part of one run.

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
}

impl RunArchive {
    pub(super) fn create(archive: &Archive, run: Uuid) -> Result<Self, StateDirError> {
        Ok(Self {
            archive: archive.clone(),
            index: Mutex::new(RawIndex::create(&archive.state, run)?),
        })
    }

    /// Keeps an answer to `url`, of `part`, and returns the body's SHA-256. Body and index are on the disk when this returns.
    pub(crate) fn keep(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
    ) -> io::Result<String> {
        let stored = self.archive.put(&response.body)?;
        let bytes = response.body.len() as u64;
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
    ) -> io::Result<String> {
        let stored = self.archive.put_packed(packed)?;
        self.note(attempt, url, part, response, stored, packed.bytes)
    }

    fn note(
        &self,
        attempt: u32,
        url: &str,
        part: Option<&str>,
        response: &Response,
        stored: Stored,
        size_bytes: u64,
    ) -> io::Result<String> {
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
        index.push(record)?;
        Ok(stored.sha256)
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
