//! Short hashes: for `ETag`s, file names and ids of elements, where nobody gains from a collision.

use std::fmt::Write;

use sha2::{Digest, Sha256};

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
