//! A folder as a repository. The engine's own writes each file beside its place, syncs and renames it; here the folder is synced
//! as well, so that a name survives a power cut, before the engine goes on to write what refers to it.

use std::fs::File;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rustic_backend::LocalBackend;
use rustic_core::{
    BytesList, ErrorKind, FileType, Id, ReadBackend, RusticError, RusticResult, WriteBackend,
};

use crate::stop::go_on;

/// See the module.
#[derive(Debug)]
pub(crate) struct Durable {
    folder: PathBuf,
    inner: LocalBackend,
}

impl Durable {
    pub(crate) fn new(folder: &str) -> RusticResult<Self> {
        Ok(Self {
            folder: PathBuf::from(folder),
            inner: LocalBackend::new(folder, [])?,
        })
    }

    fn folder_of(&self, kind: FileType, id: &Id) -> PathBuf {
        match kind {
            FileType::Config => self.folder.clone(),
            FileType::Pack => self.folder.join("data").join(&id.to_hex()[..2]),
            _ => self.folder.join(kind.dirname()),
        }
    }
}

fn sync(folder: &Path) -> RusticResult<()> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| {
        RusticError::with_source(
            ErrorKind::InputOutput,
            "Failed to sync the folder `{path}`.",
            e,
        )
        .attach_context("path", folder.display().to_string())
    })
}

impl ReadBackend for Durable {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn list_with_size(&self, kind: FileType) -> RusticResult<Vec<(Id, u32)>> {
        self.inner.list_with_size(kind)
    }

    fn list(&self, kind: FileType) -> RusticResult<Vec<Id>> {
        self.inner.list(kind)
    }

    fn read_full(&self, kind: FileType, id: &Id) -> RusticResult<Bytes> {
        go_on(kind)?;
        self.inner.read_full(kind, id)
    }

    fn read_partial(
        &self,
        kind: FileType,
        id: &Id,
        cacheable: bool,
        offset: u32,
        length: u32,
    ) -> RusticResult<Bytes> {
        go_on(kind)?;
        self.inner.read_partial(kind, id, cacheable, offset, length)
    }

    fn warmup_path(&self, kind: FileType, id: &Id) -> String {
        self.inner.warmup_path(kind, id)
    }
}

impl WriteBackend for Durable {
    fn create(&self) -> RusticResult<()> {
        self.inner.create()?;
        sync(&self.folder)
    }

    fn write_bytes(
        &self,
        kind: FileType,
        id: &Id,
        cacheable: bool,
        content: BytesList,
    ) -> RusticResult<()> {
        go_on(kind)?;
        self.inner.write_bytes(kind, id, cacheable, content)?;
        sync(&self.folder_of(kind, id))
    }

    fn remove(&self, kind: FileType, id: &Id, cacheable: bool) -> RusticResult<()> {
        self.inner.remove(kind, id, cacheable)
    }
}
