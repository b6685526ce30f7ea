//! Damage: finding it by the names of the files, which are the hashes of their contents, and mending what can be mended.
//!
//! A repository in a folder has spare copies of the two files without which nothing opens: its configuration and its key. They are
//! in `spare/`, which other programs that know the format pass over. What is taken out of a repository goes to `damaged/`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oa_core::state_dir::write_durably;
use oa_core::supervise::StopSignal;
use rustic_core::{FileType, Id, RepairIndexOptions, WriteBackend};
use sha2::{Digest, Sha256};

use super::engine::reason;
use super::{Bars, Damage, Place, Repository, RepositoryError};

const SPARE: &str = "spare";
const ASIDE: &str = "damaged";

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Files that were put back from their spare copies.
    pub put_back: Vec<String>,
    /// Files that were taken out of the repository.
    pub taken_out: Vec<String>,
}

impl Place {
    /// Keeps copies of configuration and keys, for a repository in a folder that opens: new ones are added, and those of keys that
    /// were taken away go, for they still open it. Killed in between: the next `init` does it.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn keep_spares(&self) -> Result<(), RepositoryError> {
        let Some(folder) = self.folder() else {
            return Ok(());
        };
        let failed = |e: std::io::Error| {
            RepositoryError::Place(format!(
                "could not keep spare copies of configuration and key in {}: {e}",
                folder.display()
            ))
        };
        fs::create_dir_all(folder.join(SPARE).join("keys")).map_err(failed)?;
        let files = guarded(folder);
        for file in &files {
            let spare = folder.join(SPARE).join(file);
            if !spare.exists() {
                let content = fs::read(folder.join(file)).map_err(failed)?;
                write_durably(&spare, &content).map_err(failed)?;
            }
        }
        for spare in guarded(&folder.join(SPARE)) {
            if !files.contains(&spare) {
                fs::remove_file(folder.join(SPARE).join(spare)).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Guarded files that are absent or differ from their spare copies.
    fn differing(&self) -> Vec<(PathBuf, PathBuf)> {
        let Some(folder) = self.folder() else {
            return Vec::new();
        };
        guarded(&folder.join(SPARE))
            .into_iter()
            .map(|file| (folder.join(&file), folder.join(SPARE).join(&file)))
            .filter(|(file, spare)| fs::read(spare).is_ok_and(|s| fs::read(file).ok() != Some(s)))
            .collect()
    }

    /// A sentence about damage to what opens the repository, if there is any.
    pub(super) fn why_it_does_not_open(&self) -> Option<String> {
        let (file, spare) = self.differing().into_iter().next()?;
        Some(damaged_key(&file, &spare))
    }

    /// Puts spare copies back where files differ from them. Returns the files.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn put_back_spares(&self) -> Result<Vec<String>, RepositoryError> {
        let mut names = Vec::new();
        let opens = self.open(&Bars::hidden()).is_ok();
        for (file, spare) in self.differing() {
            // A key that is absent while another one opens the repository was taken away.
            if opens && !file.exists() {
                continue;
            }
            let failed = |e: std::io::Error| {
                RepositoryError::Place(format!("could not put {} back: {e}", file.display()))
            };
            if file.exists() {
                self.set_aside(&file)?;
            }
            let content = fs::read(&spare).map_err(failed)?;
            write_durably(&file, &content).map_err(failed)?;
            names.push(file.display().to_string());
        }
        Ok(names)
    }

    fn set_aside(&self, file: &Path) -> Result<(), RepositoryError> {
        let failed = |e: std::io::Error| {
            RepositoryError::Place(format!("could not set {} aside: {e}", file.display()))
        };
        let folder = self.folder().unwrap_or(Path::new(".")).join(ASIDE);
        fs::create_dir_all(&folder).map_err(failed)?;
        let name = file.file_name().unwrap_or_default();
        fs::rename(file, folder.join(name)).map_err(failed)
    }
}

fn damaged_key(file: &Path, spare: &Path) -> String {
    format!(
        "{} is damaged; put its spare copy back: oa-backup repair, or cp {} {}",
        file.display(),
        spare.display(),
        file.display()
    )
}

/// Configuration and keys below a folder, relative to it.
fn guarded(folder: &Path) -> Vec<PathBuf> {
    let keys = fs::read_dir(folder.join("keys"))
        .into_iter()
        .flatten()
        .flatten();
    let names = keys.map(|e| e.file_name()).filter(|n| n.len() == 64);
    let mut files: Vec<PathBuf> = names.map(|n| Path::new("keys").join(n)).collect();
    if folder.join("config").is_file() {
        files.push(PathBuf::from("config"));
    }
    files
}

/// A file that is not what its name says.
struct Differs {
    /// Its path in the repository.
    name: String,
    kind: FileType,
    id: Id,
    /// Why it could not be read, where that is what is wrong. It may be whole: a disk that is away for a moment says the same.
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
        let backend: Arc<dyn WriteBackend> = self.place.raw()?;
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
    ///
    /// # Errors
    /// When the files cannot be listed.
    pub fn check_files(&self) -> Result<Vec<Damage>, RepositoryError> {
        let damaged = self.place.differing().into_iter();
        let mut damages: Vec<Damage> = damaged
            .filter(|(file, _)| file.exists())
            .map(|(file, spare)| Damage {
                backup: None,
                what: damaged_key(&file, &spare),
            })
            .collect();
        let kinds = [FileType::Key, FileType::Snapshot, FileType::Index];
        damages.extend(self.files_that_differ(&kinds)?.iter().map(|file| Damage {
            backup: (file.kind == FileType::Snapshot).then(|| file.id.to_hex().to_string()),
            what: file.what(),
        }));
        Ok(damages)
    }

    /// Takes damaged files out and makes the index anew from what is left. Backups that needed them stay listed, and `check` names
    /// them; the next full backup stores again what the server still has.
    ///
    /// # Errors
    /// When the repository is not in a folder, or files cannot be read or moved.
    pub fn repair(&self) -> Result<Repaired, RepositoryError> {
        let Some(folder) = self.place.folder() else {
            return Err(RepositoryError::Place(format!(
                "{} is not a folder; repair works on folders only: copy the repository to one, or begin a new one",
                self.place.shown()
            )));
        };
        let mut repaired = Repaired::default();
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
            self.place.set_aside(&folder.join(&file.name))?;
            repaired.taken_out.push(file.name);
        }
        self.engine
            .repair_index(&RepairIndexOptions::default(), false)
            .map_err(self.failed("make the index anew"))?;
        Ok(repaired)
    }
}

/// A file's path in a repository.
fn name(kind: FileType, id: &Id) -> String {
    let hex = id.to_hex();
    match kind {
        FileType::Pack => format!("data/{}/{}", &hex[..2], hex.as_str()),
        FileType::Config => "config".to_owned(),
        _ => format!("{}/{}", kind.dirname(), hex.as_str()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
