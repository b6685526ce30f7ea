//! An open repository: what is listed in it, and what takes backups off the list again.

use std::time::Duration;

use rustic_core::{
    Credentials, FileType, OpenStatus, PruneOptions, Repository as Engine, RusticError, jiff,
};

use crate::backup::listed;
use crate::{Backup, Damage, ProgressReporter, Reader, RepositoryError, RepositoryLocation};

/// What is unused is only marked, and removed after this long: a backup that runs meanwhile may still use it.
pub(crate) const KEEP_UNUSED: Duration = Duration::from_secs(23 * 3600);

/// What came of copying backups to another repository.
#[derive(Debug, Default)]
pub struct Copies {
    /// How many were copied.
    pub count: usize,
    /// What is wrong with those that were not, because they lack data here.
    pub lacking: Vec<Damage>,
}

impl Copies {
    /// Takes those that are damaged out of `missing`. Whether there were any.
    fn skip_damaged(&mut self, missing: &mut Vec<Backup>, damages: Vec<Damage>) -> bool {
        let before = missing.len();
        missing.retain(|b| !damages.iter().any(|d| d.backup.as_ref() == Some(&b.id)));
        let own = damages.into_iter().filter(|d| d.backup.is_some());
        self.lacking.extend(own);
        missing.len() < before
    }
}

/// An open repository.
pub struct Repository {
    pub(crate) location: RepositoryLocation,
    pub(crate) reporter: ProgressReporter,
    pub(crate) engine: Engine<OpenStatus>,
}

impl std::fmt::Debug for Repository {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Repository")
            .field("place", &self.location.shown())
            .finish_non_exhaustive()
    }
}

impl Repository {
    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &RepositoryLocation {
        &self.location
    }

    /// The number that it got when it was made, in hexadecimal digits; a copy of its files has the same.
    #[must_use]
    pub fn id(&self) -> String {
        self.engine.config().id.to_hex().to_string()
    }

    pub(crate) fn failed(
        &self,
        doing: &'static str,
    ) -> impl Fn(Box<RusticError>) -> RepositoryError + '_ {
        move |e| self.location.failed(doing, &e)
    }

    /// The engine gives itself up when it reads the index; it is opened once more, by the key that was found before.
    pub(crate) fn again(&self) -> Result<Engine<OpenStatus>, RepositoryError> {
        self.again_with(self.reporter.clone())
    }

    pub(crate) fn again_with(
        &self,
        reporter: ProgressReporter,
    ) -> Result<Engine<OpenStatus>, RepositoryError> {
        let key = Credentials::Masterkey(self.engine.key());
        let engine = self.location.engine(reporter)?;
        engine
            .open(&key)
            .map_err(self.failed("open the repository"))
    }

    /// All backups, oldest first.
    ///
    /// When the list cannot be read. A snapshot that cannot be read is an error too: see [`Repository::readable_backups`].
    pub fn backups(&self) -> Result<Vec<Backup>, RepositoryError> {
        let snapshots = self
            .engine
            .get_all_snapshots()
            .map_err(self.failed("list the backups (oa-backup verify names a damaged one, oa-backup repair takes it out)"))?;
        Ok(listed(snapshots))
    }

    /// The backups whose snapshots can be read, and what is wrong with the others.
    pub fn readable_backups(&self) -> Result<(Vec<Backup>, Vec<Damage>), RepositoryError> {
        if let Ok(snapshots) = self.engine.get_all_snapshots() {
            return Ok((listed(snapshots), Vec::new()));
        }
        let ids = self
            .engine
            .list::<rustic_core::repofile::SnapshotId>()
            .map_err(self.failed("list the backups"))?;
        let (mut snapshots, mut damages) = (Vec::new(), Vec::new());
        for id in ids {
            let name = id.to_hex().to_string();
            match self.engine.get_snapshots(&[name.as_str()]) {
                Ok(found) => snapshots.extend(found),
                Err(_) => damages.push(Damage {
                    backup: Some(name),
                    what: self.wrong_with(FileType::Snapshot, &id)?,
                }),
            }
        }
        Ok((listed(snapshots), damages))
    }

    /// The backup whose id begins so.
    pub fn find(&self, id: &str) -> Result<Backup, RepositoryError> {
        let mut found = self.backups()?.into_iter().filter(|b| b.id.starts_with(id));
        match (found.next(), found.next()) {
            (Some(backup), None) => Ok(backup),
            (Some(_), Some(_)) => Err(RepositoryError::NoBackup(format!(
                "{id} (it begins more than one id)"
            ))),
            _ => Err(RepositoryError::NoBackup(id.to_owned())),
        }
    }

    /// Takes backups off the list. Their bytes stay until [`Repository::prune`].
    pub fn forget(&self, backups: &[Backup]) -> Result<(), RepositoryError> {
        let ids: Vec<_> = backups.iter().map(|b| b.snapshot.id).collect();
        self.engine
            .delete_snapshots(&ids)
            .map_err(self.failed("remove backups"))
    }

    /// Removes what no backup uses: marks it first, and removes what was marked a day ago. Returns the bytes that are removed now
    /// and those that are marked.
    pub fn prune(&self, dry_run: bool) -> Result<(u64, u64), RepositoryError> {
        let mut options = PruneOptions::default();
        options.keep_delete = jiff::Span::new().seconds(KEEP_UNUSED.as_secs().cast_signed());
        let plan = match self.engine.prune_plan(&options) {
            Ok(plan) => plan,
            Err(e) => {
                let failed = self.failed("plan what to remove")(e);
                let (backups, _) = self.readable_backups()?;
                let damages = self.check(&backups, false);
                return Err(match damages.is_ok_and(|found| !found.is_empty()) {
                    true => RepositoryError::Lacking(self.location.shown()),
                    false => failed,
                });
            }
        };
        let stats = &plan.stats;
        let now = stats.size_to_delete.remove;
        let marked = stats.size_sum().remove + stats.size_sum().repackrm;
        if !dry_run {
            self.engine
                .prune(&options, plan)
                .map_err(self.failed("remove what is unused"))?;
        }
        Ok((now, marked))
    }

    /// The bytes of all its files.
    pub fn size_bytes(&self) -> Result<u64, RepositoryError> {
        let infos = self
            .engine
            .infos_files()
            .map_err(self.failed("measure the repository"))?;
        Ok(infos.repo.iter().map(|i| i.size).sum())
    }

    /// Copies those of these backups that the other repository does not have, and checks that all of them is there. One that lacks data
    /// here is not copied, and keeps no other one from being copied.
    pub fn copy_to(&self, other: &Self, mine: &[&Backup]) -> Result<Copies, RepositoryError> {
        let theirs = other.backups()?;
        let mut missing: Vec<Backup> = mine
            .iter()
            .filter(|b| {
                !theirs
                    .iter()
                    .any(|t| t.snapshot.original == Some(b.snapshot.id) || t.meta == b.meta)
            })
            .map(|b| (*b).clone())
            .collect();
        let mut copies = Copies::default();
        if missing.is_empty() {
            return Ok(copies);
        }
        // The engine passes over what its index does not know.
        let damages = self.check(&missing, false)?;
        copies.skip_damaged(&mut missing, damages);
        if let Err(e) = self.copy_data(other, &missing) {
            // Where the other one does not answer, that is the reason.
            if !e.may_be_of_reading() || other.backups().is_err() {
                return Err(e);
            }
            // What is damaged and not missing is seen only by reading it.
            let Ok(damages) = self.check(&missing, true) else {
                return Err(e);
            };
            if !copies.skip_damaged(&mut missing, damages) {
                return Err(e);
            }
            self.copy_data(other, &missing)?;
        }
        if !missing.is_empty() {
            other.check_new(&theirs)?;
        }
        copies.count = missing.len();
        Ok(copies)
    }

    fn copy_data(&self, other: &Self, missing: &[Backup]) -> Result<(), RepositoryError> {
        if missing.is_empty() {
            return Ok(());
        }
        let source = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        let target = other
            .again()?
            .to_indexed_ids()
            .map_err(other.failed("read the index"))?;
        other.location.guarded("copy backups", || {
            source.copy(&target, missing.iter().map(|b| &b.snapshot))
        })
    }

    /// Checks what came to those that were there, and takes it off the list again where it is not whole.
    fn check_new(&self, known: &[Backup]) -> Result<(), RepositoryError> {
        let new: Vec<Backup> = self
            .backups()?
            .into_iter()
            .filter(|b| !known.iter().any(|k| k.id == b.id))
            .collect();
        let damages = self.check(&new, false)?;
        let damaged = |b: &Backup| damages.iter().find(|d| d.backup.as_ref() == Some(&b.id));
        if let Some(damage) = new.iter().find_map(damaged) {
            let broken: Vec<Backup> = new
                .iter()
                .filter(|b| damaged(b).is_some())
                .cloned()
                .collect();
            self.forget(&broken)?;
            return Err(RepositoryError::Damaged(damage.what.clone()));
        }
        Ok(())
    }

    /// Reads the index, for reading what is in backups.
    pub fn reader(&self) -> Result<Reader, RepositoryError> {
        let engine = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        Ok(Reader {
            location: self.location.clone(),
            reporter: self.reporter.clone(),
            engine,
        })
    }
}
