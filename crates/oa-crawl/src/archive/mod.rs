//! The raw archive: every answer as it was received, before anything looks at it.
//!
//! Content-addressed (SHA-256), zstd, under `state_dir/raw/ab/abcd….zst`, written durably. The same answer twice takes one file.
//! The index is `oa.raw`, committed with the run; until then it is beside the files, for the case that the run is killed.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use oa_core::base::pile::Growing;
use oa_core::base::state_dir::{
    StateDir, StateDirError, make_folder, write_durably, write_durably_from,
};
use oa_core::model::run::RawRecord;
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub(crate) mod prune;
mod run;

pub(crate) use run::{Lost, RunArchive};

use crate::fetch::Response;

#[derive(Debug, Clone)]
pub(crate) struct Archive {
    state: StateDir,
    folder: PathBuf,
}

#[derive(Debug, Clone)]
pub(crate) struct KeptFile {
    /// Its name: the body's SHA-256 in hexadecimal.
    pub(crate) sha256: String,
    /// Its size on the disk in bytes.
    pub(crate) bytes: u64,
    /// When it was last written, or used again.
    pub(crate) modified: SystemTime,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stored {
    pub(crate) sha256: String,
    pub(crate) stored_bytes: u64,
}

impl Archive {
    pub(crate) fn open(state: &StateDir) -> Result<Self, StateDirError> {
        let folder = match state.folder("raw") {
            Err(e) if e.is_disk() => state.path().join("raw"),
            folder => folder?,
        };
        Ok(Self {
            state: state.clone(),
            folder,
        })
    }

    pub(crate) fn of_run(&self, run: Uuid) -> Result<RunArchive, StateDirError> {
        RunArchive::create(self, run)
    }

    /// Keeps a body; it is on the disk when this returns.
    pub(crate) fn put(&self, body: &[u8]) -> io::Result<Stored> {
        self.place(hex(&Sha256::digest(body)), |path| {
            let packed = zstd::encode_all(body, LEVEL)?;
            write_durably(path, &packed)
        })
    }

    /// The same of one that is packed.
    pub(crate) fn put_packed(&self, packed: &Packed) -> io::Result<Stored> {
        self.place(packed.sha256.clone(), |path| {
            let mut file = &packed.file;
            file.rewind()?;
            write_durably_from(path, &mut file)
        })
    }

    fn place(
        &self,
        sha256: String,
        write: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<Stored> {
        let folder = self.folder.join(&sha256[..2]);
        let path = folder.join(format!("{sha256}.zst"));
        // Young again, so that `prune` leaves it until this run is in the index.
        let _ = File::options()
            .append(true)
            .open(&path)
            .and_then(|f| f.set_modified(SystemTime::now()));
        if let (Ok(there), Ok(())) = (fs::metadata(&path), self.verify(&sha256)) {
            return Ok(Stored {
                sha256,
                stored_bytes: there.len(),
            });
        }
        make_folder(&folder)?;
        write(&path)?;
        oa_core::base::failpoint::hit("archive.stored");
        Ok(Stored {
            sha256,
            stored_bytes: fs::metadata(&path)?.len(),
        })
    }

    pub(crate) fn answer(&self, raw: &RawRecord) -> io::Result<Response> {
        let body = self.get(&raw.sha256).map_err(|e| {
            let what = format!("the answer of {} is not in this machine's archive ({e}); run replay where the run was", raw.url);
            io::Error::other(what)
        })?;
        Ok(Response {
            status: raw.status,
            content_type: raw.content_type.clone(),
            final_url: raw.url.clone(),
            body,
            ..Response::default()
        })
    }

    /// All bodies, in no order.
    pub(crate) fn files(&self) -> io::Result<impl Iterator<Item = io::Result<KeptFile>>> {
        // Folders are named by the first two digits; `index` and `states` beside them hold no bodies.
        let folders = fs::read_dir(&self.folder)?.flatten();
        let folders = folders.filter(|f| f.file_name().len() == 2);
        let entries = folders.filter_map(|f| fs::read_dir(f.path()).ok());
        Ok(entries.flatten().filter_map(|entry| {
            let entry = match entry {
                Ok(entry) => entry,
                Err(e) => return Some(Err(e)),
            };
            let name = entry.file_name();
            let name = name.to_str()?;
            let sha256 = match name.strip_suffix(".removed") {
                // A process was killed in `remove_unless`.
                Some(sha256) => {
                    let back = entry.path().with_extension("zst");
                    fs::rename(entry.path(), back).ok()?;
                    sha256.to_owned()
                }
                None => name.strip_suffix(".zst")?.to_owned(),
            };
            let path = entry.path().with_extension("zst");
            let kept = fs::metadata(path).and_then(|m| {
                Ok(KeptFile {
                    sha256,
                    bytes: m.len(),
                    modified: m.modified()?,
                })
            });
            Some(kept)
        }))
    }

    /// Removes a body, unless `in_use` says of its present state that a run has just used it. Returns whether it is gone.
    ///
    /// It is renamed first: whoever keeps the same body meanwhile either made it young before that, or does not find it and
    /// writes it anew.
    pub(crate) fn remove_unless(
        &self,
        file: &KeptFile,
        in_use: impl Fn(&KeptFile) -> bool,
    ) -> io::Result<bool> {
        let path = self.path_of(&file.sha256);
        let renamed = path.with_extension("removed");
        fs::rename(&path, &renamed)?;
        let there = fs::metadata(&renamed)?;
        let now = KeptFile {
            modified: there.modified()?,
            ..file.clone()
        };
        if in_use(&now) {
            fs::rename(&renamed, &path)?;
            return Ok(false);
        }
        fs::remove_file(&renamed)?;
        Ok(true)
    }

    /// The file of an answer, within `state_dir`.
    pub(crate) fn file_of(sha256: &str) -> String {
        format!("raw/{}/{sha256}.zst", sha256.get(..2).unwrap_or_default())
    }

    fn path_of(&self, sha256: &str) -> PathBuf {
        let folder = self.folder.join(sha256.get(..2).unwrap_or_default());
        folder.join(format!("{sha256}.zst"))
    }

    /// Where the state of the answer to `request_line` is remembered. The address itself may hold a secret.
    fn state_file(&self, request_line: &str) -> PathBuf {
        let name = hex(&Sha256::digest(request_line));
        self.folder.join("states").join(format!("{name}.json"))
    }

    /// Reads a body back and checks it against its name.
    pub(crate) fn get(&self, sha256: &str) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.read(sha256, |block| body.extend_from_slice(block))?;
        Ok(body)
    }

    /// Whether a body is there and undamaged.
    fn verify(&self, sha256: &str) -> io::Result<()> {
        self.read(sha256, |_| ())
    }

    fn read(&self, sha256: &str, mut take: impl FnMut(&[u8])) -> io::Result<()> {
        let path = self.path_of(sha256);
        let mut decoder = zstd::Decoder::new(fs::File::open(&path)?)?;
        let mut hash = Sha256::new();
        let mut block = vec![0; BLOCK];
        loop {
            let read = decoder.read(&mut block)?;
            if read == 0 {
                break;
            }
            hash.update(&block[..read]);
            take(&block[..read]);
        }
        let found = hex(&hash.finalize());
        if found == sha256 {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "{} is damaged: its content is {found}",
            path.display()
        )))
    }
}

/// zstd's level.
const LEVEL: i32 = 3;
/// So many bytes are read at once.
const BLOCK: usize = 128 << 10;

/// A body on its way to the archive, packed while it comes.
pub(crate) struct Packer {
    encoder: zstd::Encoder<'static, Growing>,
    hash: Sha256,
    bytes: u64,
}

/// A body in a file without a name.
#[derive(Debug)]
pub(crate) struct Packed {
    pub(crate) file: File,
    sha256: String,
    bytes: u64,
}

impl std::fmt::Debug for Packer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Packer")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Packer {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self {
            encoder: zstd::Encoder::new(Growing::new()?, LEVEL)?,
            hash: Sha256::new(),
            bytes: 0,
        })
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.encoder.write_all(bytes)
    }

    pub(crate) fn finish(self) -> io::Result<Packed> {
        Ok(Packed {
            file: self.encoder.finish()?.into_file(),
            sha256: hex(&self.hash.finalize()),
            bytes: self.bytes,
        })
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_comes_back_as_it_was_and_is_stored_once() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        let body = "多空全景".repeat(1000).into_bytes();
        let first = archive.put(&body).unwrap();
        assert_eq!(archive.put(&body).unwrap(), first);
        assert!(first.stored_bytes < body.len() as u64 / 10);
        assert_eq!(archive.get(&first.sha256).unwrap(), body);
    }

    #[test]
    fn a_damaged_file_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let archive = Archive::open(&StateDir::open(dir.path()).unwrap()).unwrap();
        let stored = archive.put(b"right").unwrap();
        let path = dir
            .path()
            .join("raw")
            .join(&stored.sha256[..2])
            .join(format!("{}.zst", stored.sha256));
        fs::write(path, zstd::encode_all(&b"wrong"[..], 3).unwrap()).unwrap();
        assert!(
            archive
                .get(&stored.sha256)
                .unwrap_err()
                .to_string()
                .contains("is damaged")
        );
    }
}
