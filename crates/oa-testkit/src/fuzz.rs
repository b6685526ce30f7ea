//! Inputs for code that reads other people's texts and files: entries of a small corpus, changed as damaged and hostile ones are.
//!
//! A target is an ordinary property test in the module `fuzz` of its crate, over the corpus in `crates/NAME/fuzz`. In CI it takes some
//! dozens of cases; `scripts/fuzz` lets the same targets run for as long as one likes. A case that fails is printed in its smallest form
//! and becomes a test of its own.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

/// All entries of a folder below `crates/NAME/fuzz`.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn corpus(crate_folder: &str, name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(crate_folder).join("fuzz").join(name);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

/// The same, a line each.
///
/// # Panics
/// When there is none.
#[must_use]
pub fn lines(crate_folder: &str, name: &str) -> Vec<Vec<u8>> {
    let all = corpus(crate_folder, name);
    let lines = all.iter().flat_map(|text| text.split(|b| *b == b'\n'));
    lines
        .filter(|l| !l.is_empty())
        .map(<[u8]>::to_vec)
        .collect()
}

/// Few cases, unless `PROPTEST_CASES` says how many.
#[must_use]
pub fn config() -> ProptestConfig {
    let mut config = ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    if std::env::var_os("PROPTEST_CASES").is_none() {
        config.cases = 64;
    }
    config
}

/// What parsers stumble over.
const PIECES: [&[u8]; 36] = [
    b"",
    b"\0",
    b"\n",
    b"\r\n",
    b"\t",
    b"\"",
    b"'",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"(",
    b")",
    b"<",
    b">",
    b"&lt;",
    b"<![CDATA[",
    b"]]>",
    b"<!--",
    b"/*",
    b"--",
    b"%",
    b"%zz",
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\x1b[2J",
    b"99999999999999999999",
    b"-1",
    b"1e400",
    b"NaN",
    "\u{202e}".as_bytes(),
    "合约".as_bytes(),
    b"0000-00-00",
];

#[derive(Debug, Clone)]
enum Change {
    Flip(u32, u8),
    Set(u32, u8),
    Remove(u32, u16),
    Cut(u32),
    Repeat(u32, u8, u8),
    Insert(u32, usize),
    Nest(u32, usize, u16),
    Copy(u32, u32, u8),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        // Room for what grows: no case is about size alone.
        const LARGEST: usize = 1 << 18;
        let place = |at: u32, bytes: &[u8]| at as usize % (bytes.len() + 1);
        let end = |from: usize, length: usize, bytes: &[u8]| (from + length).min(bytes.len());
        match *self {
            Self::Flip(at, bit) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << (bit % 8);
                }
            }
            Self::Set(at, value) => {
                let at = place(at, bytes);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = value;
                }
            }
            Self::Remove(at, length) => {
                let from = place(at, bytes);
                bytes.drain(from..end(from, length as usize, bytes));
            }
            Self::Cut(at) => bytes.truncate(place(at, bytes)),
            Self::Repeat(at, length, times) => {
                let from = place(at, bytes);
                let part = bytes[from..end(from, length as usize, bytes)].repeat(times as usize);
                bytes.splice(from..from, part);
            }
            Self::Insert(at, piece) => {
                let at = place(at, bytes);
                bytes.splice(at..at, PIECES[piece % PIECES.len()].iter().copied());
            }
            Self::Nest(at, piece, times) => {
                let at = place(at, bytes);
                bytes.splice(at..at, PIECES[piece % PIECES.len()].repeat(times as usize));
            }
            Self::Copy(from, to, length) => {
                let from = place(from, bytes);
                let part = bytes[from..end(from, length as usize, bytes)].to_vec();
                let to = place(to, bytes);
                bytes.splice(to..to, part);
            }
        }
        bytes.truncate(LARGEST);
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        (any::<u32>(), any::<u8>()).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (any::<u32>(), any::<u8>()).prop_map(|(at, value)| Change::Set(at, value)),
        (any::<u32>(), 1..64u16).prop_map(|(at, length)| Change::Remove(at, length)),
        any::<u32>().prop_map(Change::Cut),
        (any::<u32>(), 1..32u8, 1..16u8)
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        (any::<u32>(), any::<usize>()).prop_map(|(at, piece)| Change::Insert(at, piece)),
        (any::<u32>(), any::<usize>(), 1..2000u16)
            .prop_map(|(at, piece, times)| Change::Nest(at, piece, times)),
        (any::<u32>(), any::<u32>(), 1..64u8)
            .prop_map(|(from, to, length)| Change::Copy(from, to, length)),
    ]
}

/// An entry of the corpus with up to eight changes.
pub fn mutated(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    (0..corpus.len(), prop::collection::vec(change(), 0..8)).prop_map(move |(entry, changes)| {
        let mut bytes = corpus[entry].clone();
        for change in &changes {
            change.apply(&mut bytes);
        }
        bytes
    })
}

/// The same as text; what is no UTF-8 becomes U+FFFD.
pub fn mutated_text(corpus: Vec<Vec<u8>>) -> impl Strategy<Value = String> {
    mutated(corpus).prop_map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}
