//! Digits that a column does not hold: PostgreSQL rounds without a word, so it is said here.

use serde_json::Value;

use crate::base::exact;
use crate::model::run::Batch;

/// What PostgreSQL rounds to what a column can hold, without a word.
pub(in crate::pg) struct Rounded {
    columns: Vec<Lossy>,
}

/// A column that can lose digits: its place, what it is, how it loses them, how many values did, and the first of them.
type Lossy = (usize, String, Box<Loses>, u64, Option<String>);

impl Rounded {
    pub(super) fn of(batch: &Batch, types: &[String]) -> Self {
        let columns = batch.columns.iter().zip(types).enumerate();
        let columns = columns.filter_map(|(i, (column, of_type))| {
            let loses = loses_digits(of_type)?;
            Some((i, format!("column {column} is {of_type}"), loses, 0, None))
        });
        Self {
            columns: columns.collect(),
        }
    }

    pub(in crate::pg) fn look_at(&mut self, row: &[Value]) {
        for (i, _, loses, count, first) in &mut self.columns {
            if let Some(value) = row.get(*i).filter(|v| loses(v)) {
                *count += 1;
                *first = first.take().or_else(|| digits(value));
            }
        }
    }

    /// What was seen until now, for [`Rounded::restore`].
    pub(super) fn counts(&self) -> Vec<(u64, Option<String>)> {
        let columns = self.columns.iter();
        columns.map(|c| (c.3, c.4.clone())).collect()
    }

    pub(super) fn restore(&mut self, before: Vec<(u64, Option<String>)>) {
        for (column, (count, first)) in self.columns.iter_mut().zip(before) {
            (column.3, column.4) = (count, first);
        }
    }

    pub(super) fn findings(self) -> Vec<String> {
        let lost = self.columns.into_iter().filter_map(|(_, what, _, count, first)| {
            let first = first?;
            Some(format!(
                "{what}, which does not hold all digits of {count} value(s), for example {first}"
            ))
        });
        lost.collect()
    }
}

/// The digits of a number, which is a text where JSON's own numbers would lose some.
fn digits(value: &Value) -> Option<String> {
    match value {
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) => Some(text.clone()),
        _ => None,
    }
}

/// Whether a value loses digits.
type Loses = dyn Fn(&Value) -> bool;

/// How a type loses digits, if it can.
fn loses_digits(of_type: &str) -> Option<Box<Loses>> {
    if of_type == "double precision" {
        return Some(Box::new(|value| match value {
            Value::Number(n) if n.is_f64() => false,
            Value::Number(n) if n.as_i64().is_some_and(|n| n.unsigned_abs() < 1 << 53) => false,
            other => digits(other).is_some_and(|d| !exact::fits_double(&d)),
        }));
    }
    if of_type == "real" {
        let single = |value: &Value| digits(value).is_some_and(|d| !exact::fits_single(&d));
        return Some(Box::new(single));
    }
    let scale = of_type.strip_prefix("numeric(")?.strip_suffix(')')?;
    let scale: u64 = scale.split_once(',').map_or("0", |(_, s)| s).parse().ok()?;
    let many = move |value: &Value| digits(value).is_some_and(|d| exact::decimals(&d) > scale);
    Some(Box::new(many))
}
