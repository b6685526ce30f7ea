//! Each record once by its key, however many there are: what is in memory of each is one number. Those whose number came before are
//! looked at once more, beside the rows that they may repeat.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::io;

use oa_core::base::exact;
use oa_core::base::pile::Pile;
use serde_json::Value;

use super::facts::Facts;
use super::{Validated, reject};
use crate::source::Source;

/// So many that may be repeated are in memory at once.
const AT_ONCE: usize = 10_000;

/// The numbers are well mixed already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

pub(super) struct Unique<'a> {
    source: &'a Source,
    key_columns: Vec<usize>,
    hasher: RandomState,
    seen: HashSet<u64, BuildHasherDefault<AsItIs>>,
    rows: Pile<Vec<Value>>,
    facts: Facts<'a>,
    /// Records and rows that may have come before.
    again: (Pile<Value>, Pile<Vec<Value>>),
}

impl<'a> Unique<'a> {
    pub(super) fn new(source: &'a Source, facts: Facts<'a>) -> Self {
        let columns = source.store.unique.iter();
        let place = |c: &String| source.fields.iter().position(|f| f.column == *c);
        Self {
            source,
            key_columns: columns.filter_map(place).collect(),
            hasher: RandomState::new(),
            seen: HashSet::default(),
            rows: Pile::default(),
            facts,
            again: Default::default(),
        }
    }

    /// In JSON no text has a line break.
    fn key(&self, row: &[Value]) -> String {
        let mut key = String::new();
        for i in &self.key_columns {
            exact::write(&row[*i], &mut key);
            key.push('\n');
        }
        key
    }

    pub(super) fn add(&mut self, record: &Value, row: Vec<Value>) -> io::Result<()> {
        let number = self.hasher.hash_one(self.key(&row));
        if self.seen.insert(number) {
            self.facts.see(&row);
            return self.rows.push(row);
        }
        self.again.0.push(record.clone())?;
        self.again.1.push(row)
    }

    /// Tells what came again as it was from what came again with other values.
    pub(super) fn finish(mut self, done: &mut Validated) -> io::Result<()> {
        let (records, rows) = std::mem::take(&mut self.again);
        let mut again = records.iter().zip(rows.iter());
        loop {
            let mut some = Vec::new();
            for (record, row) in again.by_ref().take(AT_ONCE) {
                let row = row?.into_owned();
                some.push((record?.into_owned(), self.key(&row), row));
            }
            if some.is_empty() {
                break;
            }
            let mut first: HashMap<String, Option<Vec<Value>>> =
                some.iter().map(|(_, key, _)| (key.clone(), None)).collect();
            for row in self.rows.iter() {
                let row = row?;
                if let Some(first) = first.get_mut(&self.key(&row)) {
                    first.get_or_insert_with(|| row.into_owned());
                }
            }
            for (record, key, row) in some {
                match first.get(&key).and_then(Option::as_ref) {
                    Some(before) if *before == row => done.duplicates += 1,
                    Some(_) => {
                        let reason = format!(
                            "a different record with the same {} came before it",
                            self.source.store.unique.join(" and ")
                        );
                        done.rejects
                            .push(reject(self.source, &record, None, reason));
                    }
                    // Another key with the same number.
                    None => {
                        first.insert(key, Some(row.clone()));
                        self.facts.see(&row);
                        self.rows.push(row)?;
                    }
                }
            }
        }
        done.fresh = self.facts.fresh(&self.rows);
        done.other_days = self.facts.other_days();
        done.content = self.facts.content();
        done.rows = self.rows;
        Ok(())
    }
}
