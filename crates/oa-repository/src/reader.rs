//! Reading and restoring what is in backups.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use oa_core::base::threads;
use rustic_core::repofile::Node;
use rustic_core::{
    IndexedFullStatus, LocalDestination, LsOptions, ProgressBars, ProgressType,
    Repository as Engine, RestoreOptions, RusticError, TreeId,
};

use crate::{Backup, ProgressReporter, RepositoryError, RepositoryLocation};

/// A file in a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredFile {
    /// Its path within what was asked for.
    pub path: PathBuf,
    /// Its size in bytes.
    pub size_bytes: u64,
}

/// A repository whose index is in memory.
pub struct Reader {
    pub(crate) location: RepositoryLocation,
    pub(crate) reporter: ProgressReporter,
    pub(crate) engine: Engine<IndexedFullStatus>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader")
            .field("place", &self.location.shown())
            .finish_non_exhaustive()
    }
}

impl Reader {
    /// The files of a backup below `within` (empty: all).
    pub fn files(
        &self,
        backup: &Backup,
        within: &Path,
    ) -> Result<Vec<StoredFile>, RepositoryError> {
        let mut files = Vec::new();
        self.each(backup.snapshot.tree, within, |path, node| {
            if node.is_file() {
                files.push(StoredFile {
                    path,
                    size_bytes: node.meta.size,
                });
            }
        })?;
        Ok(files)
    }

    /// The paths of everything in a tree that is no folder.
    pub(crate) fn paths(&self, tree: TreeId) -> Result<Vec<PathBuf>, RepositoryError> {
        let mut paths = Vec::new();
        self.each(tree, Path::new(""), |path, node| {
            if !node.is_dir() {
                paths.push(path);
            }
        })?;
        Ok(paths)
    }

    fn each(
        &self,
        tree: TreeId,
        within: &Path,
        mut visit: impl FnMut(PathBuf, Node),
    ) -> Result<(), RepositoryError> {
        let failed = |e: Box<RusticError>| self.location.failed("list the files of a backup", &e);
        let root = self.engine.node_from_path(tree, within).map_err(failed)?;
        let nodes = self
            .engine
            .ls(&root, &LsOptions::default())
            .map_err(failed)?;
        for item in nodes {
            let (path, node) = item.map_err(failed)?;
            visit(path, node);
        }
        Ok(())
    }

    /// Writes what a backup holds below `within` into a folder, which is made. Files that are there already and are the same in
    /// size and content are kept, so that an interrupted restore goes on where it was. Returns the bytes of all files.
    pub fn restore(
        &self,
        backup: &Backup,
        within: &Path,
        to: &Path,
    ) -> Result<u64, RepositoryError> {
        self.restore_some(backup, within, to, false, |_| true)
    }

    /// The same for those files of which `include` says so; it is given the path below `within`. Folders are made all. With `owners`
    /// files get the users and groups that they had, as far as this process may.
    pub fn restore_some(
        &self,
        backup: &Backup,
        within: &Path,
        to: &Path,
        owners: bool,
        include: impl Fn(&Path) -> bool,
    ) -> Result<u64, RepositoryError> {
        let failed = |e: Box<RusticError>| self.location.failed("restore a backup", &e);
        let node = self
            .engine
            .node_from_path(backup.snapshot.tree, within)
            .map_err(failed)?;
        let mut options = RestoreOptions::default();
        options.no_ownership = !owners;
        options.verify_existing = true;
        let folder = to.to_owned();
        let to =
            LocalDestination::new(&to.to_string_lossy(), true, !node.is_dir()).map_err(failed)?;
        let nodes: Vec<(PathBuf, Node)> = self
            .engine
            .ls(&node, &LsOptions::default())
            .map_err(failed)?
            .filter(|item| match item {
                Ok((path, node)) => node.is_dir() || include(path),
                Err(_) => true,
            })
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        if node.is_dir() && self.location.folder().is_some() {
            self.write_files(&nodes, &folder)?;
            // What has the right size and time now is as it should be; the engine adds links, rights and folders' times.
            options.verify_existing = false;
        }
        let nodes = || nodes.iter().cloned().map(Ok);
        self.location.guarded("restore a backup", || {
            let plan = self.engine.prepare_restore(&options, nodes(), &to, false)?;
            let bytes = plan.restore_size + plan.matched_size;
            self.engine.restore(plan, &options, nodes(), &to)?;
            Ok(bytes)
        })
    }

    /// Writes files one blob after the other. The engine itself reads up to twenty packs at once into memory, as it should from
    /// far away; from a folder that gains nothing.
    fn write_files(&self, nodes: &[(PathBuf, Node)], to: &Path) -> Result<(), RepositoryError> {
        let mut files = Vec::new();
        let mut size = 0;
        for (path, node) in nodes {
            if node.is_dir() {
                let folder = to.join(path);
                std::fs::create_dir_all(&folder).map_err(|e| self.unwritable(&folder, &e))?;
            } else if node.is_file() && node.meta.links <= 1 {
                files.push((path, node));
                size += node.meta.size;
            }
        }
        files.sort_by_key(|(_, node)| std::cmp::Reverse(node.meta.size));
        let progress = self
            .reporter
            .progress(ProgressType::Bytes, "restoring files");
        progress.set_length(size);
        let next = AtomicUsize::new(0);
        let failed = Mutex::new(None);
        let count = thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 4));
        threads::several("write files", count, || {
            while let Some((path, node)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(e) = self.write_file(node, &to.join(path)) {
                    *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                    next.store(files.len(), Ordering::Relaxed);
                }
                progress.inc(node.meta.size);
            }
        });
        progress.finish();
        let failed = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        failed.map_or(Ok(()), Err)
    }

    fn write_file(&self, node: &Node, path: &Path) -> Result<(), RepositoryError> {
        let unwritable = |e| self.unwritable(path, &e);
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(path)
            .map_err(unwritable)?;
        self.engine
            .dump(node, &mut file)
            .map_err(|e| self.location.failed("restore a backup", &e))?;
        if let Some(at) = node.meta.mtime {
            file.set_modified(at.into()).map_err(unwritable)?;
        }
        Ok(())
    }

    fn unwritable(&self, path: &Path, error: &std::io::Error) -> RepositoryError {
        RepositoryError::Engine {
            doing: "restore a backup",
            place: self.location.shown(),
            reason: format!("{}: {error}", path.display()),
            system: Some(error.kind()),
        }
    }

    /// The content of one small file of a backup.
    pub fn read(&self, backup: &Backup, path: &Path) -> Result<Vec<u8>, RepositoryError> {
        let failed = |e: Box<RusticError>| self.location.failed("read a file of a backup", &e);
        let node = self
            .engine
            .node_from_path(backup.snapshot.tree, path)
            .map_err(failed)?;
        let mut content = Vec::new();
        self.engine.dump(&node, &mut content).map_err(failed)?;
        Ok(content)
    }
}
