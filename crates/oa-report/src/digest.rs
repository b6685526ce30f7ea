//! Short hashes: for `ETag`s, file names and ids of elements, where nobody gains from a collision.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hasher};

use sha2::{Digest, Sha256};

/// Whether a text has changed: an answer of many megabytes is not worth a SHA-256 for that.
pub(crate) fn change_tag(bytes: &[u8]) -> String {
    let mut tag = ChangeTag::default();
    tag.add(bytes);
    tag.end()
}

/// The same of a text that comes in pieces.
#[derive(Default)]
pub(crate) struct ChangeTag {
    hasher: DefaultHasher,
    length: usize,
}

impl ChangeTag {
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.hasher.write(bytes);
        self.length += bytes.len();
    }

    pub(crate) fn end(&self) -> String {
        format!("{:x}-{:016x}", self.length, self.hasher.finish())
    }
}

/// The first 96 bits of the SHA-256, in hexadecimal digits.
pub(crate) fn short_hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .take(12)
        .fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}
