//! Configuration and keys: the files without which nothing opens, and their spare copies.
//!
//! Which of two copies is right is never taken for granted. A key's name is the SHA-256 of its content; the configuration decrypts
//! with the master key, or it is not the one that was written. So a copy that is authentic replaces one that is not, and never the
//! other way round; where neither is, nothing is touched. `spare/` is passed over by other programs that know the format.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind as IoErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use oa_core::base::state_dir::write_durably;
use oa_core::base::trust;
use rustic_core::repofile::MasterKey;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, Repository as Engine, RepositoryBackends,
    RepositoryOptions, RusticError, RusticResult, WriteBackend,
};
use rustix::fs::{Access, access};
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::repair::hex;
use crate::{Damage, ProgressReporter, RepositoryError, RepositoryLocation};

pub(crate) const SPARE: &str = "spare";
pub(crate) const ASIDE: &str = "damaged";
const CONFIG: &str = "config";

/// One copy of a guarded file.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Copy {
    /// It is what was written.
    Authentic(Vec<u8>),
    /// It is not.
    Damaged,
    /// The password opens no key that is there, so nobody can say.
    Unproven(Vec<u8>),
    Absent,
    /// This user may not read it, or its disk does not let it be read. It may be whole.
    Unreadable(String),
}

/// A guarded file and its spare copy.
#[derive(Debug)]
struct Guarded {
    file: PathBuf,
    spare: PathBuf,
    is_config: bool,
    here: Copy,
    beside: Copy,
}

/// What was done to configuration and keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpareReport {
    /// Files that were put back from their spare copies.
    pub put_back: Vec<String>,
    /// Spare copies that were made anew.
    pub spares: Vec<String>,
    /// Files of which neither copy is authentic, while the repository opens without them.
    pub lost: Vec<String>,
}

impl RepositoryLocation {
    /// Puts back what is damaged or absent from authentic spare copies, and makes spare copies anew from authentic files.
    pub fn heal(&self) -> Result<SpareReport, RepositoryError> {
        let mut healed = SpareReport::default();
        let Some(folder) = self.folder() else {
            return Ok(healed);
        };
        let all = self.assess()?;
        if all.is_empty() {
            return Ok(healed);
        }
        if let Some(reason) = all.iter().find_map(unreadable) {
            return Err(RepositoryError::Place(format!(
                "{reason}; nothing was changed"
            )));
        }
        let opens = self.opens_now(&all);
        let mut put_back: Vec<&Guarded> = Vec::new();
        for one in &all {
            match (&one.here, &one.beside) {
                (Copy::Authentic(_), _) => {}
                // A key that is absent while another one opens the repository was removed.
                (Copy::Absent, _) if opens && !one.is_config => {}
                (_, Copy::Authentic(_)) => put_back.push(one),
                (Copy::Absent | Copy::Damaged, _) => {
                    healed.lost.push(one.file.display().to_string());
                }
                _ => {}
            }
        }
        let after = |one: &Guarded| match (&one.here, &one.beside) {
            (Copy::Authentic(content), _) => Some(content.clone()),
            (_, Copy::Authentic(content)) if put_back.iter().any(|p| p.file == one.file) => {
                Some(content.clone())
            }
            _ => None,
        };
        if !opens {
            self.must_open(&all, &after)?;
        }
        for one in &put_back {
            let Copy::Authentic(content) = &one.beside else {
                continue;
            };
            if one.here != Copy::Absent {
                set_aside(folder, &one.file)?;
            }
            write(&one.file, content)?;
            healed.put_back.push(one.file.display().to_string());
        }
        for one in &all {
            let Some(content) = after(one) else { continue };
            let known = read(&one.spare).ok();
            if known.as_ref() != Some(&content) {
                write(&one.spare, &content)?;
                healed.spares.push(one.spare.display().to_string());
            }
        }
        Ok(healed)
    }

    /// Keeps copies of configuration and keys of a repository that opens: new ones are added, damaged ones are made anew.
    pub fn keep_spares(&self) -> Result<(), RepositoryError> {
        let Some(folder) = self.folder() else {
            return Ok(());
        };
        for name in guarded(folder) {
            let (file, spare) = (folder.join(&name), folder.join(SPARE).join(&name));
            // One that this user may not read is somebody else's key.
            let Ok(content) = read(&file) else {
                continue;
            };
            let authentic = name == Path::new(CONFIG) || is_named_so(&file, &content);
            if authentic && read(&spare).ok().as_ref() != Some(&content) {
                write(&spare, &content)?;
            }
        }
        Ok(())
    }

    /// Removes spare copies of keys that were removed, for they still open the repository. Only for one that opens.
    pub fn drop_former_spares(&self) -> Result<(), RepositoryError> {
        let Some(folder) = self.folder() else {
            return Ok(());
        };
        for name in guarded(&folder.join(SPARE)) {
            let spare = folder.join(SPARE).join(&name);
            if name != Path::new(CONFIG) && !folder.join(&name).exists() {
                fs::remove_file(&spare).map_err(|e| failed("remove", &spare, &e))?;
            }
        }
        Ok(())
    }

    /// What is wrong with configuration and keys of a repository that opens.
    pub(crate) fn check_guarded(&self) -> Result<Vec<Damage>, RepositoryError> {
        let all = self.assess()?;
        let what = |one: &Guarded| {
            let (file, spare) = (one.file.display(), one.spare.display());
            Some(match (&one.here, &one.beside) {
                (Copy::Unreadable(_), _) | (_, Copy::Unreadable(_)) => unreadable(one)?,
                (Copy::Damaged, Copy::Authentic(_)) => damaged(one),
                (Copy::Damaged, _) => {
                    format!("{file} is damaged, and there is no good spare copy of it")
                }
                (Copy::Authentic(a), Copy::Authentic(b)) if a == b => return None,
                (Copy::Authentic(_), beside) => format!(
                    "{spare}, a spare copy, {}; make it anew: oa-backup repair, or cp {file} {spare}",
                    match beside {
                        Copy::Absent => "is missing",
                        Copy::Authentic(_) => "is out of date",
                        _ => "is damaged",
                    }
                ),
                _ => return None,
            })
        };
        let found = all.iter().filter_map(what);
        Ok(found.map(|what| Damage { backup: None, what }).collect())
    }

    /// Whether [`RepositoryLocation::heal`] would put something back.
    #[must_use]
    pub fn is_mendable(&self) -> bool {
        let put_back = |one: &Guarded| {
            matches!(
                (&one.here, &one.beside),
                (Copy::Damaged | Copy::Absent, Copy::Authentic(_))
            )
        };
        self.assess().is_ok_and(|all| all.iter().any(put_back))
    }

    /// Why a repository does not open, if its configuration or keys are the reason.
    pub(crate) fn why_it_does_not_open(&self) -> Option<RepositoryError> {
        let all = self.assess().ok()?;
        let reason = all
            .iter()
            .find(|one| {
                matches!(
                    (&one.here, &one.beside),
                    (Copy::Damaged | Copy::Absent, Copy::Authentic(_))
                )
            })
            .map(damaged)
            .or_else(|| all.iter().find_map(unreadable));
        if let Some(reason) = reason {
            return Some(RepositoryError::Place(reason));
        }
        self.lost(&all).map(RepositoryError::Lost)
    }

    /// The master key, where keys that are damaged or not to be read keep the engine from trying the one that opens.
    pub(crate) fn key_beside_damaged_ones(&self) -> Option<MasterKey> {
        let folder = self.folder()?;
        let config = read(&folder.join(CONFIG)).ok()?;
        let readable = |name: &PathBuf| {
            let file = folder.join(name);
            let content = read(&file).ok()?;
            is_named_so(&file, &content).then_some((id_of(&file)?, content))
        };
        let all = guarded(folder);
        let keys: Vec<(Id, Vec<u8>)> = all.iter().filter_map(readable).collect();
        if keys.is_empty() || keys.len() + 1 >= all.len() {
            return None;
        }
        self.open_with(&config, keys)
            .ok()
            .map(|engine| engine.key())
    }

    fn must_open(
        &self,
        all: &[Guarded],
        after: &impl Fn(&Guarded) -> Option<Vec<u8>>,
    ) -> Result<(), RepositoryError> {
        let mut config = None;
        let mut keys = Vec::new();
        for one in all {
            match after(one) {
                Some(content) if one.is_config => config = Some(content),
                Some(content) => keys.extend(id_of(&one.file).map(|id| (id, content))),
                None => {}
            }
        }
        let lost = self.lost(all);
        let opens = config.map(|config| self.open_with(&config, keys));
        match (opens, lost) {
            (Some(Ok(_)), _) => Ok(()),
            (_, Some(lost)) => Err(RepositoryError::Lost(lost)),
            (Some(Err(e)), None) if !e.is_incorrect_password() => {
                Err(self.failed("open the repository", &e))
            }
            (_, None) => Err(RepositoryError::Password(self.shown())),
        }
    }

    /// What keeps a repository closed for good, if it is not the password.
    fn lost(&self, all: &[Guarded]) -> Option<String> {
        let nothing = |what| {
            format!(
                "{} has {what}, nor a spare copy of it: nothing was changed. Put it back from a copy of this folder, or use the secondary repository ([backup.copy]); to start over, move its contents elsewhere, then: oa-backup init --anew",
                self.shown()
            )
        };
        if !all.iter().any(|one| one.is_config) {
            Some(nothing("no configuration"))
        } else if all.iter().all(|one| one.is_config) {
            Some(nothing("no key"))
        } else {
            all.iter().find(is_lost).map(lost_text)
        }
    }

    /// Whether it opens as it is.
    fn opens_now(&self, all: &[Guarded]) -> bool {
        let config = all.iter().find(|one| one.is_config);
        matches!(config.map(|c| &c.here), Some(Copy::Authentic(_)))
            && self.open(&ProgressReporter::hidden()).is_ok()
    }

    /// Configuration and keys, with their spare copies.
    fn assess(&self) -> Result<Vec<Guarded>, RepositoryError> {
        let Some(folder) = self.folder() else {
            return Ok(Vec::new());
        };
        let beside = folder.join(SPARE);
        let mut names: BTreeSet<PathBuf> = guarded(folder).into_iter().collect();
        names.extend(guarded(&beside));
        let mut all: Vec<Guarded> = names
            .into_iter()
            .map(|name| {
                let (file, spare) = (folder.join(&name), beside.join(&name));
                Guarded {
                    is_config: name == Path::new(CONFIG),
                    here: copy_of(&file),
                    beside: copy_of(&spare),
                    file,
                    spare,
                }
            })
            .collect();
        let mut keys: BTreeMap<String, (Id, Vec<u8>)> = BTreeMap::new();
        for one in all.iter_mut().filter(|one| !one.is_config) {
            let file = one.file.clone();
            for copy in [&mut one.here, &mut one.beside] {
                let Copy::Unproven(content) = copy else {
                    continue;
                };
                *copy = if is_named_so(&file, content) {
                    keys.extend(
                        id_of(&file).map(|id| (id.to_hex().to_string(), (id, content.clone()))),
                    );
                    Copy::Authentic(content.clone())
                } else {
                    Copy::Damaged
                };
            }
        }
        let keys: Vec<(Id, Vec<u8>)> = keys.into_values().collect();
        let mut proven: Option<Vec<u8>> = None;
        for one in all.iter_mut().filter(|one| one.is_config) {
            for copy in [&mut one.here, &mut one.beside] {
                let Copy::Unproven(content) = copy else {
                    continue;
                };
                if content.is_empty() {
                    *copy = Copy::Damaged;
                    continue;
                }
                let known = proven.as_ref() == Some(content);
                match if known {
                    Ok(())
                } else {
                    self.open_with(content, keys.clone()).map(drop)
                } {
                    Ok(()) => {
                        proven = Some(content.clone());
                        *copy = Copy::Authentic(content.clone());
                    }
                    Err(e) if e.is_incorrect_password() => {}
                    Err(_) => *copy = Copy::Damaged,
                }
            }
        }
        Ok(all)
    }

    /// Opens it as if these were its configuration and keys.
    fn open_with(
        &self,
        config: &[u8],
        keys: Vec<(Id, Vec<u8>)>,
    ) -> RusticResult<Engine<rustic_core::OpenStatus>> {
        let candidate = Candidate {
            config: Bytes::copy_from_slice(config),
            keys: keys
                .into_iter()
                .map(|(id, c)| (id, Bytes::from(c)))
                .collect(),
        };
        let mut options = RepositoryOptions::default();
        options.no_cache = true;
        let backends = RepositoryBackends::new(Arc::new(candidate), None);
        Engine::new(&options, &backends)?.open(&self.credentials())
    }

    pub(crate) fn set_aside(&self, file: &Path) -> Result<(), RepositoryError> {
        set_aside(self.folder().unwrap_or(Path::new(".")), file)
    }
}

fn set_aside(folder: &Path, file: &Path) -> Result<(), RepositoryError> {
    let aside = folder.join(ASIDE);
    make_folder(&aside).map_err(|e| failed("create", &aside, &e))?;
    let name = file.file_name().unwrap_or_default();
    fs::rename(file, aside.join(name)).map_err(|e| failed("set aside", file, &e))
}

fn write(file: &Path, content: &[u8]) -> Result<(), RepositoryError> {
    let folder = file.parent().unwrap_or(file);
    make_folder(folder)
        .and_then(|()| write_durably(file, content))
        .map_err(|e| failed("write", file, &e))
}

fn make_folder(folder: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
}

fn failed(doing: &str, file: &Path, error: &std::io::Error) -> RepositoryError {
    RepositoryError::Place(format!("could not {doing} {}: {error}", file.display()))
}

/// A configuration or a key: small, and no pipe or device in its place is waited for.
fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    trust::read_regular(file, 1 << 20)
}

/// Read, and not yet looked at.
fn copy_of(file: &Path) -> Copy {
    match read(file) {
        Ok(content) => Copy::Unproven(content),
        Err(e) if e.kind() == IoErrorKind::NotFound => Copy::Absent,
        Err(e) => Copy::Unreadable(no_access(file, &e)),
    }
}

/// What to do about a file or folder that this user may not read.
pub(crate) fn no_access(file: &Path, error: &std::io::Error) -> String {
    let said = format!("could not read {}: {error}", file.display());
    if error.kind() != IoErrorKind::PermissionDenied {
        return said;
    }
    // Below a folder that is closed to this user nobody can say whose it is.
    let above: Vec<&Path> = file.ancestors().skip(1).collect();
    let closed = |folder: &&&Path| access(**folder, Access::EXEC_OK) == Err(Errno::ACCESS);
    let user = rustix::process::geteuid().as_raw();
    if let Some(folder) = above.iter().rev().find(closed) {
        let own = folder.metadata().is_ok_and(|m| m.uid() == user);
        let who = if own { "u" } else { "a" };
        let folder = folder.display();
        return format!(
            "{said}; {folder} is closed to this user. As its owner or root: chmod {who}+x {folder}"
        );
    }
    let all = if file.is_dir() { "-R " } else { "" };
    let file = file.display();
    format!(
        "{said}; it belongs to another user. As root: chown {all}{user} {file} && chmod {all}u+rwX {file}"
    )
}

fn unreadable(one: &Guarded) -> Option<String> {
    [&one.here, &one.beside]
        .into_iter()
        .find_map(|copy| match copy {
            Copy::Unreadable(reason) => Some(reason.clone()),
            _ => None,
        })
}

/// Neither of its copies is what was written.
fn is_lost(one: &&Guarded) -> bool {
    let gone = |copy: &Copy| matches!(copy, Copy::Damaged | Copy::Absent);
    gone(&one.here) && gone(&one.beside)
}

fn damaged(one: &Guarded) -> String {
    let (file, spare) = (one.file.display(), one.spare.display());
    let state = if one.here == Copy::Absent {
        "missing"
    } else {
        "damaged"
    };
    format!("{file} is {state}; put its spare copy back: oa-backup repair, or cp {spare} {file}")
}

fn lost_text(one: &Guarded) -> String {
    let state = |copy: &Copy| match copy {
        Copy::Absent => "missing",
        _ => "damaged",
    };
    let (here, beside) = (state(&one.here), state(&one.beside));
    format!(
        "{} is {here}, and its spare copy {} is {beside}: nothing was changed. Restore one of them from a copy of this folder, or use the secondary repository ([backup.copy]); to start over, move its contents elsewhere, then: oa-backup init --anew",
        one.file.display(),
        one.spare.display()
    )
}

/// The name of a key is the hash of its content.
fn is_named_so(file: &Path, content: &[u8]) -> bool {
    file.file_name()
        .is_some_and(|name| name.to_string_lossy() == hex(&Sha256::digest(content)))
}

fn id_of(file: &Path) -> Option<Id> {
    Id::parse_some(&file.file_name()?.to_string_lossy(), FileType::Key)
}

/// Configuration and keys below a folder, relative to it.
fn guarded(folder: &Path) -> Vec<PathBuf> {
    let keys = fs::read_dir(folder.join("keys"))
        .into_iter()
        .flatten()
        .flatten();
    // As the engine, which passes over all but files.
    let keys = keys.filter(|e| e.file_type().is_ok_and(|t| t.is_file()));
    let names = keys.map(|e| e.file_name()).filter(|n| n.len() == 64);
    let mut files: Vec<PathBuf> = names.map(|n| Path::new("keys").join(n)).collect();
    if folder.join(CONFIG).is_file() {
        files.push(PathBuf::from(CONFIG));
    }
    files
}

/// A repository that has nothing but a configuration and keys, to see whether they open.
#[derive(Debug)]
struct Candidate {
    config: Bytes,
    keys: Vec<(Id, Bytes)>,
}

fn not_there() -> Box<RusticError> {
    RusticError::new(ErrorKind::Backend, "there is no such file")
}

impl ReadBackend for Candidate {
    fn location(&self) -> String {
        "candidate".to_owned()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        let size = |content: &Bytes| u32::try_from(content.len()).unwrap_or(u32::MAX);
        Ok(match kind {
            FileType::Config => vec![(Id::default(), size(&self.config))],
            FileType::Key => self.keys.iter().map(|(id, c)| (*id, size(c))).collect(),
            _ => Vec::new(),
        })
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        match kind {
            FileType::Config => Ok(self.config.clone()),
            FileType::Key => {
                let found = self.keys.iter().find(|(known, _)| known == id);
                found.map(|(_, c)| c.clone()).ok_or_else(not_there)
            }
            _ => Err(not_there()),
        }
    }

    fn read_partial(
        &self,
        _kind: FileType,
        _id: &Id,
        _cacheable: bool,
        _offset: u32,
        _length: u32,
    ) -> RusticResult<Bytes> {
        Err(not_there())
    }

    fn warmup_path(&self, _kind: FileType, id: &Id) -> String {
        id.to_hex().to_string()
    }
}

impl WriteBackend for Candidate {
    fn write_bytes(&self, _: FileType, _: &Id, _: bool, _: BytesList) -> RusticResult<()> {
        Err(not_there())
    }

    fn remove(&self, _: FileType, _: &Id, _: bool) -> RusticResult<()> {
        Err(not_there())
    }
}
