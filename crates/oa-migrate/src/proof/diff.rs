//! The second pass: the keys of rows that differ.

use std::collections::HashMap;

use anyhow::Result;
use postgres::GenericClient;
use rusqlite::Connection;
use serde::Serialize;

use super::canon::{end_of_value, show};
use super::digest::{Digest, RowFingerprint, Sum};
use super::{Comparison, readback, source};

/// Rows held in memory at most; with more differences than that, counting stops and the examples say enough.
const MAX_ROWS: usize = 400_000;
/// Keys named per kind of difference.
const EXAMPLES: usize = 20;

#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Difference {
    pub(crate) only_source: u64,
    pub(crate) only_target: u64,
    /// Rows with the same key and other values.
    pub(crate) changed: u64,
    /// Counting stopped early: there are at least as many.
    pub(crate) at_least: bool,
    /// Columns whose values add up to something else.
    pub(crate) columns: Vec<String>,
    /// Some of the keys: `missing KEY`, `extra KEY`, `changed KEY`.
    pub(crate) examples: Vec<String>,
}

/// A row's key, or the whole row where there is none.
pub(crate) fn key_of(comparison: &Comparison, row: &[u8]) -> Vec<u8> {
    if !comparison.columns.iter().any(|c| c.is_key) {
        return row.to_vec();
    }
    let mut key = Vec::new();
    let mut start = 0;
    for column in &comparison.columns {
        let end = end_of_value(row, start);
        if column.is_key {
            key.extend_from_slice(&row[start..end]);
        }
        start = end;
    }
    key
}

/// A key for people: its values, joined by `, `.
pub(crate) fn show_key(key: &[u8]) -> String {
    let mut parts = Vec::new();
    let mut start = 0;
    while start < key.len() {
        let end = end_of_value(key, start).min(key.len());
        parts.push(show(&key[start..end]));
        start = end;
    }
    parts.join(", ")
}

/// Names the rows in which the sides differ, knowing what each adds up to.
pub(crate) fn find(
    connection: &Connection,
    client: &mut impl GenericClient,
    comparison: &Comparison,
    of_source: &Digest,
    of_target: &Digest,
) -> Result<Difference> {
    let buckets = of_source.differing_buckets(of_target);
    let mut full = false;
    let mut rows: HashMap<Vec<u8>, Vec<(Sum, i8)>> = HashMap::new();
    let mut see = |row: &[u8], fingerprint: RowFingerprint, side: i8| {
        if !buckets[fingerprint.bucket] {
            return;
        }
        if rows.len() >= MAX_ROWS {
            full = true;
            return;
        }
        rows.entry(key_of(comparison, row))
            .or_default()
            .push((fingerprint.hash, side));
    };
    source::read(connection, comparison, |row, fingerprint| {
        see(row, fingerprint, 1);
    })?;
    readback::read(client, comparison, |row, fingerprint| {
        see(row, fingerprint, -1);
    })?;

    let mut difference = Difference {
        at_least: full,
        columns: of_source
            .columns
            .iter()
            .zip(&of_target.columns)
            .zip(&comparison.columns)
            .filter(|((a, b), _)| a != b)
            .map(|(_, c)| c.source.clone())
            .collect(),
        ..Difference::default()
    };
    let mut examples: [Vec<String>; 3] = Default::default();
    for (key, versions) in rows {
        let mut left: HashMap<Sum, i64> = HashMap::new();
        for (hash, side) in versions {
            *left.entry(hash).or_default() += i64::from(side);
        }
        let missing: i64 = left.values().filter(|n| **n > 0).sum();
        let extra: i64 = -left.values().filter(|n| **n < 0).sum::<i64>();
        let both = missing.min(extra);
        difference.changed += both.unsigned_abs();
        difference.only_source += (missing - both).unsigned_abs();
        difference.only_target += (extra - both).unsigned_abs();
        let kinds = [
            (missing - both, "missing"),
            (extra - both, "extra"),
            (both, "changed"),
        ];
        for ((count, word), list) in kinds.into_iter().zip(&mut examples) {
            if count > 0 && list.len() < EXAMPLES {
                list.push(format!("{word} {}", show_key(&key)));
            }
        }
    }
    for list in &mut examples {
        list.sort();
    }
    difference.examples = examples.concat();
    Ok(difference)
}
