//! Many values that wait: a few of them in memory, more of them on the disk, so that a run of millions of records takes no more
//! memory than one of thousands.
//!
//! The file has no name: whatever happens to the program, nothing of it is left. What is in it was never promised to anybody, so it
//! is not synced.

use std::borrow::Cow;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use rustix::fs::{MemfdFlags, memfd_create, statvfs};
use serde::de::DeserializeOwned;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

use super::exact;
use super::state_dir::disk_fault;

/// So many values stay in memory.
const IN_MEMORY: usize = 2000;
/// So many bytes are written, and read, at once.
const BLOCK: usize = 256 << 10;

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Where the files are made, unless that was said before: where there is room for what is collected.
pub(super) fn keep_below(folder: &Path) {
    let _ = FOLDER.set(folder.to_owned());
}

/// With less room than this on the disk what waits goes to memory: a full disk is no reason to lose what PostgreSQL can take.
const ROOM: u64 = 64 << 20;

/// A file without a name, for what may be too much for the memory; on the disk, or in memory while that takes nothing.
///
/// # Errors
/// When there is no room for it anywhere.
pub fn nameless_file() -> io::Result<File> {
    let folder = FOLDER.get().cloned().unwrap_or_else(std::env::temp_dir);
    on_disk(&folder).or_else(|e| {
        tracing::warn!(
            "what comes waits in memory, because {} does not take it: {e}",
            folder.display()
        );
        in_memory()
    })
}

fn in_memory() -> io::Result<File> {
    Ok(memfd_create("oa-waiting", MemfdFlags::CLOEXEC)?.into())
}

/// Parts of a file, each its place and its bytes, one after the other in memory: the disk has become full, or has broken.
fn moved_to_memory(
    file: &File,
    parts: impl Iterator<Item = (u64, u64)>,
    why: &io::Error,
) -> io::Result<File> {
    tracing::warn!("what comes goes on to wait in memory, because the disk takes no more: {why}");
    let mut memory = in_memory()?;
    for (at, bytes) in parts {
        let end = at + bytes;
        io::copy(&mut Part { file, at, end }, &mut memory)?;
    }
    Ok(memory)
}

/// A [nameless file](nameless_file) that is written from its beginning to its end; in memory from then on when the disk takes no more.
#[derive(Debug)]
pub struct Growing {
    file: File,
    bytes: u64,
}

impl Growing {
    /// An empty one.
    ///
    /// # Errors
    /// When there is no room for it anywhere.
    pub fn new() -> io::Result<Self> {
        let file = nameless_file()?;
        Ok(Self { file, bytes: 0 })
    }

    /// What was written, at its end.
    #[must_use]
    pub fn into_file(self) -> File {
        self.file
    }
}

impl Write for Growing {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let written = match self.file.write(buffer) {
            Err(e) if disk_fault(&e).is_some() => {
                let all = std::iter::once((0, self.bytes));
                self.file = moved_to_memory(&self.file, all, &e)?;
                self.file.write(buffer)?
            }
            written => written?,
        };
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn on_disk(folder: &Path) -> io::Result<File> {
    let there = statvfs(folder)?;
    if there.f_bavail.saturating_mul(there.f_frsize) < ROOM {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let path = folder.join(format!(".waiting-{}", uuid::Uuid::now_v7()));
    let mut options = OpenOptions::new();
    options.create_new(true).read(true).write(true).mode(0o600);
    let file = options.open(&path)?;
    fs::remove_file(&path)?;
    file.write_all_at(&[0; 4096], 0)?;
    file.set_len(0)?;
    Ok(file)
}

/// A value of a [`Pile`].
pub trait Item: Serialize + DeserializeOwned + Clone + PartialEq {
    /// Reads a line that somebody else has written. The error says what is wrong with it.
    ///
    /// # Errors
    /// When it is no such value.
    fn of_line(line: &[u8]) -> Result<Self, String> {
        serde_json::from_slice(line).map_err(|e| e.to_string())
    }
}

impl Item for Vec<Value> {}

impl Item for Value {
    fn of_line(line: &[u8]) -> Result<Self, String> {
        let exact = std::str::from_utf8(line).ok().and_then(exact::parse);
        exact.map_or_else(
            || serde_json::from_slice(line).map_err(|e| e.to_string()),
            Ok,
        )
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy)]
struct Extent {
    from: u64,
    bytes: u64,
    /// Its lines are as somebody else has written them.
    foreign: bool,
}

/// A file that several piles may write to, each at places of its own.
#[derive(Debug)]
struct Shared {
    file: File,
    end: AtomicU64,
}

impl Shared {
    /// Gives where it is.
    fn add(&self, bytes: &[u8]) -> io::Result<u64> {
        let from = self.end.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.file.write_all_at(bytes, from)?;
        Ok(from)
    }
}

/// Values in their order.
#[derive(Debug, Clone)]
pub struct Pile<T> {
    /// All of them, as long as they are few.
    memory: Vec<T>,
    shared: Option<Arc<Shared>>,
    extents: Vec<Extent>,
    /// Lines that are not written yet.
    tail: Vec<u8>,
    len: usize,
}

impl<T> Default for Pile<T> {
    fn default() -> Self {
        Self {
            memory: Vec::new(),
            shared: None,
            extents: Vec::new(),
            tail: Vec::new(),
            len: 0,
        }
    }
}

impl<T> From<Vec<T>> for Pile<T> {
    fn from(memory: Vec<T>) -> Self {
        Self {
            len: memory.len(),
            memory,
            ..Self::default()
        }
    }
}

impl<T> FromIterator<T> for Pile<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: Item> Pile<T> {
    /// The lines of a file: so many bytes from its beginning, so many lines, each a value as [`Item::of_line`] reads it.
    #[must_use]
    pub fn of_lines(file: File, bytes: u64, lines: usize) -> Self {
        Self {
            shared: Some(Arc::new(Shared {
                file,
                end: AtomicU64::new(bytes),
            })),
            extents: vec![Extent {
                from: 0,
                bytes,
                foreign: true,
            }],
            len: lines,
            ..Self::default()
        }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value.
    ///
    /// # Errors
    /// When the disk does not take it.
    pub fn push(&mut self, value: T) -> io::Result<()> {
        self.len += 1;
        if self.shared.is_none() && self.memory.len() < IN_MEMORY {
            self.memory.push(value);
            return Ok(());
        }
        if self.shared.is_none() {
            self.shared = Some(Arc::new(Shared {
                file: nameless_file()?,
                end: AtomicU64::new(0),
            }));
            for value in std::mem::take(&mut self.memory) {
                self.write(&value)?;
            }
        }
        self.write(&value)
    }

    /// Adds those of another one.
    ///
    /// # Errors
    /// As [`Pile::push`], and when the others cannot be read.
    pub fn append(&mut self, other: Self) -> io::Result<()> {
        if self.is_empty() {
            *self = other;
            return Ok(());
        }
        for value in other.iter() {
            self.push(value?.into_owned())?;
        }
        Ok(())
    }

    fn write(&mut self, value: &T) -> io::Result<()> {
        serde_json::to_writer(&mut self.tail, value)?;
        self.tail.push(b'\n');
        if self.tail.len() < BLOCK {
            return Ok(());
        }
        let Some(shared) = self.shared.clone() else {
            return Ok(());
        };
        let bytes = self.tail.len() as u64;
        let from = match shared.add(&self.tail) {
            Err(e) if disk_fault(&e).is_some() => {
                let memory = self.move_to_memory(&shared.file, &e)?;
                memory.add(&self.tail)?
            }
            from => from?,
        };
        self.tail.clear();
        match self.extents.last_mut() {
            Some(last) if last.from + last.bytes == from && !last.foreign => last.bytes += bytes,
            _ => self.extents.push(Extent {
                from,
                bytes,
                foreign: false,
            }),
        }
        Ok(())
    }

    fn move_to_memory(&mut self, file: &File, why: &io::Error) -> io::Result<Arc<Shared>> {
        let parts = self.extents.iter().map(|e| (e.from, e.bytes));
        let file = moved_to_memory(file, parts, why)?;
        let mut end = 0;
        for extent in &mut self.extents {
            extent.from = end;
            end += extent.bytes;
        }
        let end = AtomicU64::new(end);
        let memory = Arc::new(Shared { file, end });
        self.shared = Some(Arc::clone(&memory));
        Ok(memory)
    }

    /// The first one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn first(&self) -> io::Result<Option<T>> {
        self.iter()
            .next()
            .transpose()
            .map(|v| v.map(Cow::into_owned))
    }

    /// All of them in their order.
    pub fn iter(&self) -> impl Iterator<Item = io::Result<Cow<'_, T>>> {
        let in_memory = self.memory.iter().map(|v| Ok(Cow::Borrowed(v)));
        let lines = self.lines().enumerate();
        let read = lines.map(|(i, line)| line?.read().map(Cow::Owned).map_err(|e| at(i, e)));
        in_memory.chain(read)
    }

    /// All of them in their order, with memory for all of them.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn to_vec(&self) -> io::Result<Vec<T>> {
        self.iter().map(|v| v.map(Cow::into_owned)).collect()
    }

    /// What is not in memory.
    fn lines(&self) -> impl Iterator<Item = io::Result<Line>> {
        let extents = self.extents.iter().flat_map(move |extent| {
            let shared = self.shared.as_ref();
            let part = shared.map(|shared| Part {
                file: &shared.file,
                at: extent.from,
                end: extent.from + extent.bytes,
            });
            let mut reader = part.map(|part| BufReader::with_capacity(BLOCK, part));
            std::iter::from_fn(move || next_line(reader.as_mut()?, extent.foreign).transpose())
        });
        let mut tail = self.tail.as_slice();
        extents.chain(std::iter::from_fn(move || {
            next_line(&mut tail, false).transpose()
        }))
    }
}

/// What is wrong with the value of a number, which counts from 0.
fn at(number: usize, error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::InvalidData => {
            io::Error::new(error.kind(), format!("record {} ({error})", number + 1))
        }
        _ => error,
    }
}

struct Line {
    text: Vec<u8>,
    foreign: bool,
}

impl Line {
    /// Somebody else's line that is none has the kind `InvalidData`.
    fn read<T: Item>(&self) -> io::Result<T> {
        if self.foreign {
            let invalid = |e| io::Error::new(io::ErrorKind::InvalidData, e);
            return T::of_line(&self.text).map_err(invalid);
        }
        Ok(serde_json::from_slice(&self.text)?)
    }
}

fn next_line(reader: &mut impl BufRead, foreign: bool) -> io::Result<Option<Line>> {
    let mut text = Vec::new();
    reader.read_until(b'\n', &mut text)?;
    if text.is_empty() {
        return Ok(None);
    }
    if text.ends_with(b"\n") {
        text.pop();
    }
    Ok(Some(Line { text, foreign }))
}

/// Reads a part of a file, wherever others read it.
struct Part<'a> {
    file: &'a File,
    at: u64,
    end: u64,
}

impl Read for Part<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buffer.len());
        let read = self.file.read_at(&mut buffer[..wanted], self.at)?;
        if read == 0 && wanted > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += read as u64;
        Ok(read)
    }
}

impl<T: Item> PartialEq for Pile<T> {
    fn eq(&self, other: &Self) -> bool {
        let same = |(a, b): (io::Result<Cow<'_, T>>, io::Result<Cow<'_, T>>)| matches!((a, b), (Ok(a), Ok(b)) if a == b);
        self.len == other.len && self.iter().zip(other.iter()).all(same)
    }
}

impl<T: Item> Serialize for Pile<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(Some(self.len))?;
        for value in self.iter() {
            all.serialize_element(&value.map_err(S::Error::custom)?)?;
        }
        all.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pile<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn many(from: usize, to: usize) -> Pile<Value> {
        let mut pile = Pile::default();
        for n in from..to {
            pile.push(json!({ "n": n, "text": "螺纹钢\n" })).unwrap();
        }
        pile
    }

    #[test]
    fn many_values_come_back_as_they_were_and_in_their_order() {
        let marked = exact::parse(r#"{"a": 1.10, "b": NaN}"#).unwrap();
        let mut all = many(0, 30_000);
        all.push(marked.clone()).unwrap();
        all.append(many(30_000, 60_000)).unwrap();
        assert_eq!(all.len(), 60_001);
        let back = all.to_vec().unwrap();
        assert_eq!(
            (&back[0]["n"], &back[60_000]["n"]),
            (&json!(0), &json!(59_999))
        );
        assert_eq!(
            (&back[30_000], all.first().unwrap()),
            (&marked, Some(back[0].clone()))
        );
        assert!(all.memory.is_empty() && all.tail.len() < BLOCK);
        let text = serde_json::to_string(&all).unwrap();
        assert!(serde_json::from_str::<Pile<Value>>(&text).unwrap() == all);
        // Two that began as one.
        let (mut one, mut other) = (all.clone(), all.clone());
        for n in 0..20_000 {
            one.push(json!(["one", n])).unwrap();
            other.push(json!(["other", n])).unwrap();
        }
        let last = |pile: &Pile<Value>| pile.iter().last().unwrap().unwrap().into_owned();
        assert_eq!(last(&one), json!(["one", 19_999]));
        assert_eq!(last(&other), json!(["other", 19_999]));
        assert!(one.iter().zip(&back).all(|(a, b)| *a.unwrap() == *b) && one != other);
    }

    #[test]
    fn a_disk_that_becomes_full_loses_nothing() {
        let full = || {
            let mut options = OpenOptions::new();
            options.read(true).write(true).open("/dev/full").unwrap()
        };
        let mut pile: Pile<Value> = Pile {
            shared: Some(Arc::new(Shared {
                file: full(),
                end: AtomicU64::new(0),
            })),
            ..Pile::default()
        };
        for n in 0..30_000 {
            pile.push(json!({ "n": n, "text": "螺纹钢\n" })).unwrap();
        }
        assert_eq!(pile.to_vec().unwrap(), many(0, 30_000).to_vec().unwrap());
        let mut file = Growing {
            file: full(),
            bytes: 0,
        };
        file.write_all(b"one, ").unwrap();
        file.write_all(b"two").unwrap();
        let mut text = [0; 8];
        file.into_file().read_exact_at(&mut text, 0).unwrap();
        assert_eq!(&text, b"one, two");
        // And so when much was on the disk already.
        let mut moved = many(0, 30_000);
        let disk = moved.shared.clone().unwrap();
        let because = io::Error::other("it is full");
        moved.move_to_memory(&disk.file, &because).unwrap();
        for n in 30_000..40_000 {
            moved.push(json!({ "n": n, "text": "螺纹钢\n" })).unwrap();
        }
        assert!(moved == many(0, 40_000));
    }

    #[test]
    fn lines_of_others_keep_their_digits_and_a_bad_one_is_named() {
        let file = nameless_file().unwrap();
        let text = b"{\"a\": 1.10}\n{\"a\": 2\n";
        file.write_all_at(text, 0).unwrap();
        let pile: Pile<Value> = Pile::of_lines(file, text.len() as u64, 2);
        assert_eq!(
            exact::to_text(&pile.first().unwrap().unwrap()),
            "{\"a\":1.10}"
        );
        let error = pile.to_vec().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert!(error.to_string().starts_with("record 2 ("), "{error}");
    }
}
