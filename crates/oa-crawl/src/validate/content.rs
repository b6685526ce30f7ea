//! The sum of what comes.

use oa_core::base::exact;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::source::Source;

/// The sum of the SHA-256 of all parts, which needs no order and no memory.
#[derive(Debug, Default)]
pub(crate) struct Content {
    /// Places of the values that count, in the order of their columns' names.
    own: Vec<usize>,
    sum: [u64; 4],
    parts: u64,
    part: String,
}

impl Content {
    pub(crate) fn of_rows(source: &Source) -> Self {
        let fields = source.fields.iter().enumerate();
        let own = fields.filter(|(_, field)| field.value.is_none());
        let mut own: Vec<(usize, &str)> = own.map(|(i, f)| (i, f.column.as_str())).collect();
        own.sort_unstable_by_key(|(_, column)| *column);
        Self {
            own: own.into_iter().map(|(i, _)| i).collect(),
            ..Self::default()
        }
    }

    pub(crate) fn add_row(&mut self, row: &[Value]) {
        let mut part = std::mem::take(&mut self.part);
        part.clear();
        for i in &self.own {
            exact::write(&row[*i], &mut part);
            // In JSON no text has a line break.
            part.push('\n');
        }
        self.add(&part);
        self.part = part;
    }

    /// Takes one more part.
    pub(crate) fn add(&mut self, part: &str) {
        self.parts += 1;
        let digest = Sha256::digest(part);
        let mut carry = false;
        for (sum, bytes) in self.sum.iter_mut().zip(digest.chunks_exact(8)) {
            let number = bytes.iter().fold(0, |n, b| n << 8 | u64::from(*b));
            let (added, over) = sum.overflowing_add(number);
            let (added, again) = added.overflowing_add(u64::from(carry));
            *sum = added;
            carry = over || again;
        }
    }

    pub(crate) fn finish(&self) -> Option<String> {
        let number = |n: &u64| format!("{n:016x}");
        let sum: String = self.sum.iter().map(number).collect();
        let text = format!("{} {sum}", self.parts);
        (self.parts > 0).then(|| {
            Sha256::digest(text)
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect()
        })
    }
}
