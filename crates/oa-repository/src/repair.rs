//! Damage: finding it by the names of the files, which are the hashes of their contents, and mending what can be mended. What is
//! taken out of a repository goes to `damaged/`. Configuration and keys: see [`super::spare`].

use std::collections::HashSet;
use std::sync::Arc;

use oa_core::base::supervise::StopSignal;
use rustic_core::repofile::IndexFile;
use rustic_core::{FileType, Id, RepairIndexOptions, WriteBackend};
use sha2::{Digest, Sha256};

use crate::engine::reason;
use crate::{Damage, Repository, RepositoryError};

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Files that were taken out of the repository.
    pub taken_out: Vec<String>,
}

/// A file that is not what its name says.
struct Differs {
    /// Its path in the repository.
    name: String,
    kind: FileType,
    id: Id,
    /// Why it could not be read, where that is what is wrong. It may be whole: a disk that is unreachable for a moment says the same.
    unreadable: Option<String>,
}

impl Differs {
    fn what(&self) -> String {
        let what = self
            .unreadable
            .as_deref()
            .unwrap_or("its content is not what was written");
        format!("{}: {what}", self.name)
    }
}

impl Repository {
    /// Files of these kinds whose content is not what their name says.
    fn files_that_differ(&self, kinds: &[FileType]) -> Result<Vec<Differs>, RepositoryError> {
        let backend: Arc<dyn WriteBackend> = self.location.raw()?;
        let list = |kind| backend.list(kind).map_err(self.failed("list the files"));
        let mut found = Vec::new();
        for kind in kinds.iter().copied() {
            for id in list(kind)? {
                let unreadable = match backend.read_full(kind, &id) {
                    Ok(content) if hex(&Sha256::digest(&content)) == *id.to_hex() => continue,
                    Ok(_) => None,
                    Err(_) if StopSignal.requested() => return Err(RepositoryError::Stopped),
                    // Removed meanwhile, by a prune or a backup that tidies up.
                    Err(_) if !list(kind)?.contains(&id) => continue,
                    Err(e) => Some(reason(&e)),
                };
                found.push(Differs {
                    name: name(kind, &id),
                    kind,
                    id,
                    unreadable,
                });
            }
        }
        Ok(found)
    }

    /// What is wrong with the repository's own small files: configuration, keys, lists of backups, index.
    pub fn check_files(&self) -> Result<Vec<Damage>, RepositoryError> {
        let mut damages = self.location.check_guarded()?;
        // In a folder keys were looked at together with their spare copies.
        let kinds: &[FileType] = match self.location.folder() {
            Some(_) => &[FileType::Snapshot, FileType::Index],
            None => &[FileType::Key, FileType::Snapshot, FileType::Index],
        };
        damages.extend(self.files_that_differ(kinds)?.iter().map(|file| Damage {
            backup: (file.kind == FileType::Snapshot).then(|| file.id.to_hex().to_string()),
            what: file.what(),
        }));
        Ok(damages)
    }

    /// Takes damaged files out and makes the index anew from what is left. Backups that needed them stay listed, and `check` names
    /// them; the next full backup stores again what the server still has.
    pub fn repair(&self) -> Result<RepairReport, RepositoryError> {
        let Some(folder) = self.location.folder() else {
            return Err(RepositoryError::Place(format!(
                "{} is not a folder; repair works on folders only: copy the repository to one, or begin a new one",
                self.location.shown()
            )));
        };
        let mut repaired = RepairReport::default();
        let kinds = [FileType::Snapshot, FileType::Index, FileType::Pack];
        let differing = self.files_that_differ(&kinds)?;
        // What cannot be read now may be whole; without it the index would be made anew for fewer backups than there are.
        if let Some(file) = differing.iter().find(|f| f.unreadable.is_some()) {
            return Err(RepositoryError::Place(format!(
                "{}; nothing was taken out. When its disk is in order again, repeat this; if the file is lost, move it out of {} first",
                file.what(),
                folder.display()
            )));
        }
        for file in differing {
            self.location.set_aside(&folder.join(&file.name))?;
            repaired.taken_out.push(file.name);
        }
        self.engine
            .repair_index(&RepairIndexOptions::default(), false)
            .map_err(self.failed("make the index anew"))?;
        Ok(repaired)
    }
}

impl Repository {
    /// Whether its index names packs that are not there, or not all that are. What is in the former is not stored again before the index
    /// is made anew, and what is in the latter is back then. A backup that runs or was killed has written packs before their index.
    pub fn needs_new_index(&self) -> Result<bool, RepositoryError> {
        let failed = self.failed("compare the index with what is there");
        let backend = self.location.raw()?;
        let there = backend.list(FileType::Pack).map_err(&failed)?;
        let there: HashSet<Id> = there.into_iter().collect();
        let mut named: HashSet<Id> = HashSet::new();
        for index in self.engine.stream_files::<IndexFile>().map_err(&failed)? {
            let (_, index) = index.map_err(&failed)?;
            if index.packs.iter().any(|pack| !there.contains(&*pack.id)) {
                return Ok(true);
            }
            let packs = index.packs.iter().chain(&index.packs_to_delete);
            named.extend(packs.map(|pack| *pack.id));
        }
        Ok(!there.is_subset(&named))
    }
}

/// A file's path in a repository.
pub(crate) fn name(kind: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match kind {
        FileType::Pack => format!("data/{}/{}", &hex[..2], hex.as_str()),
        FileType::Config => "config".to_owned(),
        _ => format!("{}/{}", kind.dirname(), hex.as_str()),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
