//! Sums over a table's rows that do not depend on their order.

use sha2::{Digest as _, Sha256};

use super::Comparison;
use super::canon::end_of_value;
use crate::values::LARGE;

/// Partial sums by key, see [`super`]. Enough that a differing row leads to 1/4096 of the table.
pub(crate) const BUCKETS: usize = 4096;

/// A SHA-256 value as a number of 256 bits, lowest part first.
pub(crate) type Sum = [u64; 4];

/// What a column adds up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ColumnSum {
    /// Values that are not NULL.
    pub(crate) values: u64,
    /// Sum of 64-bit hashes of the values' normal forms.
    pub(crate) sum: u64,
}

/// What a table adds up to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    pub(crate) rows: u64,
    /// The sum of all rows' SHA-256.
    pub(crate) sum: Sum,
    /// The same sum per column.
    pub(crate) columns: Vec<ColumnSum>,
    /// Rows and sums (64 bits) per bucket of keys.
    pub(crate) buckets: Vec<(u32, u64)>,
    keys: Vec<usize>,
}

/// A row in its normal form, value after value. What has [`LARGE`] bytes is added up where it is, not copied.
#[derive(Debug, Default)]
pub(crate) struct RowParts {
    /// The normal forms of all other values.
    bytes: Vec<u8>,
    /// Positions of large values, with their hashes.
    large: Vec<(usize, u64)>,
    /// Once there is a large value: the row up to it, and how many of `bytes` are in there.
    hashed: Option<(Sha256, usize)>,
}

/// Room that is kept for the next row.
const USUAL_ROW: usize = 4 * LARGE;

impl RowParts {
    /// Where the next value's normal form is appended.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Adds the large value of a column, of which the normal form is its own bytes.
    pub(crate) fn add_large(&mut self, column: usize, tag: u8, value: &[u8]) {
        let length = (value.len() as u32).to_le_bytes();
        let head = [tag, length[0], length[1], length[2], length[3]];
        let (hash, done) = self.hashed.get_or_insert_default();
        hash.update(&self.bytes[*done..]);
        *done = self.bytes.len();
        hash.update(head);
        hash.update(value);
        self.large.push((column, quick_hash_of_parts(head, value)));
    }

    fn clear(&mut self) {
        if self.bytes.capacity() > USUAL_ROW {
            self.bytes = Vec::new();
        }
        self.bytes.clear();
        self.large.clear();
        self.hashed = None;
    }
}

/// The fingerprint of a row that was added.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowFingerprint {
    /// Its SHA-256.
    pub(crate) hash: Sum,
    /// Its bucket.
    pub(crate) bucket: usize,
}

impl Digest {
    pub(crate) fn new(comparison: &Comparison) -> Self {
        let keys: Vec<usize> = comparison
            .columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.is_key)
            .map(|(i, _)| i)
            .collect();
        Self {
            rows: 0,
            sum: [0; 4],
            columns: vec![ColumnSum::default(); comparison.columns.len()],
            buckets: vec![(0, 0); BUCKETS],
            keys,
        }
    }

    #[inline]
    pub(crate) fn add(&mut self, row: &[u8]) -> RowFingerprint {
        self.add_hashed(number(&Sha256::digest(row)), row, &[])
    }

    /// Adds a row and makes room for the next one.
    #[inline]
    pub(crate) fn add_parts(&mut self, row: &mut RowParts) -> RowFingerprint {
        let hash = match row.hashed.take() {
            None => Sha256::digest(&row.bytes),
            Some((hash, done)) => hash.chain_update(&row.bytes[done..]).finalize(),
        };
        let fingerprint = self.add_hashed(number(&hash), &row.bytes, &row.large);
        row.clear();
        fingerprint
    }

    #[inline]
    fn add_hashed(&mut self, hash: Sum, row: &[u8], large: &[(usize, u64)]) -> RowFingerprint {
        self.rows += 1;
        add(&mut self.sum, hash);
        let mut start = 0;
        let mut key = 0u64;
        let mut next_key = self.keys.iter().copied().peekable();
        for (i, column) in self.columns.iter_mut().enumerate() {
            let (value, end) = match large.iter().find(|(position, _)| *position == i) {
                Some((_, hash)) => {
                    column.values += 1;
                    (*hash, start)
                }
                None => {
                    let end = end_of_value(row, start);
                    column.values += u64::from(row[start] != 0);
                    (quick_hash(&row[start..end]), end)
                }
            };
            column.sum = column.sum.wrapping_add(value);
            if next_key.peek() == Some(&i) {
                next_key.next();
                key = key.rotate_left(17) ^ value;
            }
            start = end;
        }
        // Rows without a key are their own key.
        let spread = if self.keys.is_empty() { hash[1] } else { key };
        let bucket = (spread >> 40) as usize % BUCKETS;
        let (rows, sum) = &mut self.buckets[bucket];
        *rows = rows.wrapping_add(1);
        *sum = sum.wrapping_add(hash[0]);
        RowFingerprint { hash, bucket }
    }

    /// Whether both tables hold the same rows.
    pub(crate) fn same_rows(&self, other: &Self) -> bool {
        self.rows == other.rows && self.sum == other.sum
    }

    pub(crate) fn hex(&self) -> String {
        self.sum.iter().rev().map(|p| format!("{p:016x}")).collect()
    }

    /// Buckets in which two tables differ.
    pub(crate) fn differing_buckets(&self, other: &Self) -> Vec<bool> {
        self.buckets
            .iter()
            .zip(&other.buckets)
            .map(|(a, b)| a != b)
            .collect()
    }
}

fn number(hash: &[u8]) -> Sum {
    let mut sum = [0; 4];
    for (part, bytes) in sum.iter_mut().zip(hash.chunks_exact(8)) {
        *part = bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    }
    sum
}

fn add(sum: &mut Sum, value: Sum) {
    let mut carry = false;
    for (part, more) in sum.iter_mut().zip(value) {
        let (a, over) = part.overflowing_add(more);
        let (b, over_again) = a.overflowing_add(u64::from(carry));
        *part = b;
        carry = over || over_again;
    }
}

/// A fast hash for sums per column and for buckets, where nothing depends on its strength (folded multiplication, as wyhash
/// does).
#[inline]
fn quick_hash(bytes: &[u8]) -> u64 {
    finish_quick_hash(0x9e37_79b9_7f4a_7c15 ^ bytes.len() as u64, bytes)
}

/// The same of a large value's normal form, of which the first five bytes are apart.
fn quick_hash_of_parts(head: [u8; 5], value: &[u8]) -> u64 {
    let [a, b, c, d, e] = head;
    let first = u64::from_le_bytes([a, b, c, d, e, value[0], value[1], value[2]]);
    let length = (head.len() + value.len()) as u64;
    let hash = mix(
        0x9e37_79b9_7f4a_7c15 ^ length ^ first,
        0xe703_7ed1_a0b4_28db,
    );
    finish_quick_hash(hash, &value[3..])
}

#[inline]
fn finish_quick_hash(mut hash: u64, bytes: &[u8]) -> u64 {
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes([
            chunk[0], chunk[1], chunk[2], chunk[3], chunk[4], chunk[5], chunk[6], chunk[7],
        ]);
        hash = mix(hash ^ word, 0xe703_7ed1_a0b4_28db);
    }
    let mut last = [0; 8];
    let rest = chunks.remainder();
    last[..rest.len()].copy_from_slice(rest);
    mix(hash ^ u64::from_le_bytes(last), 0x8ebc_6af0_9c88_c6e3 | 1)
}

#[inline]
fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::PgType;
    use crate::proof::Column;

    fn comparison() -> Comparison {
        let column = |name: &str, is_key| Column {
            source: name.to_owned(),
            target: name.to_owned(),
            pg: PgType::Text,
            zone: None,
            conversion: None,
            is_key,
        };
        Comparison {
            source: "t".to_owned(),
            source_sql: String::new(),
            schema: "public".to_owned(),
            target: "t".to_owned(),
            columns: vec![column("a", true), column("b", false)],
        }
    }

    fn row(a: &str, b: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for text in [a, b] {
            out.push(3);
            out.extend_from_slice(&(text.len() as u32).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
        out
    }

    fn digest(rows: &[(&str, &str)]) -> Digest {
        let mut digest = Digest::new(&comparison());
        for (a, b) in rows {
            digest.add(&row(a, b));
        }
        digest
    }

    #[test]
    fn order_does_not_matter_but_doubles_do() {
        let one = digest(&[("1", "x"), ("2", "y"), ("3", "z")]);
        let other = digest(&[("3", "z"), ("1", "x"), ("2", "y")]);
        assert_eq!(one, other);
        let doubled = digest(&[("1", "x"), ("1", "x"), ("2", "y")]);
        let others = digest(&[("2", "y"), ("2", "y"), ("1", "x")]);
        assert!(!doubled.same_rows(&others));
    }

    #[test]
    fn a_changed_value_shows_in_its_column_and_its_bucket() {
        let one = digest(&[("1", "x"), ("2", "y")]);
        let other = digest(&[("1", "x"), ("2", "Y")]);
        assert!(!one.same_rows(&other));
        assert_eq!(one.columns[0], other.columns[0]);
        assert_ne!(one.columns[1], other.columns[1]);
        let differing = one.differing_buckets(&other);
        assert_eq!(differing.iter().filter(|d| **d).count(), 1);
    }

    #[test]
    fn values_that_move_between_columns_are_seen() {
        assert!(!digest(&[("ab", "c")]).same_rows(&digest(&[("a", "bc")])));
    }

    #[test]
    fn a_large_value_adds_up_to_the_same_wherever_it_stands() {
        let long: Vec<u8> = (0..LARGE + 3).map(|i| (i % 251) as u8).collect();
        let large = String::from_utf8(vec![b'x'; LARGE]).unwrap_or_default();
        for (a, b) in [("1", large.as_str()), (&large, "1"), (&large, &large)] {
            let mut parts = RowParts::default();
            for (i, text) in [a, b].into_iter().enumerate() {
                if text.len() >= LARGE {
                    parts.add_large(i, 3, text.as_bytes());
                } else {
                    parts
                        .bytes()
                        .extend_from_slice(&row(text, "")[..5 + text.len()]);
                }
            }
            let mut digest = Digest::new(&comparison());
            digest.add_parts(&mut parts);
            let whole = {
                let mut digest = Digest::new(&comparison());
                digest.add(&row(a, b));
                digest
            };
            assert_eq!(digest, whole);
        }
        assert_eq!(
            quick_hash(&[&[8, 1, 2, 3, 4], long.as_slice()].concat()),
            quick_hash_of_parts([8, 1, 2, 3, 4], &long)
        );
    }
}
