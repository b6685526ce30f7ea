//! From records to rows: every field converted without loss or the record rejected with the reason. Nothing is defaulted.

pub(crate) mod content;
mod convert;
mod facts;
mod kind;
pub(crate) mod shape;
mod time;
mod unique;
mod variety;

use std::collections::BTreeMap;
use std::io;

use chrono::{DateTime, NaiveDate, Utc};
use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::model::run::Reject;
use oa_core::service;
use serde_json::Value;

use crate::answer_day;
use crate::extract::field as value_of;
use crate::source::{DayNames, Field, FieldType, OnBad, Source, fill};
use convert::{Compiled, convert};
use facts::Facts;
use shape::Shape;
use unique::Unique;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Validated {
    /// Rows, their values in the order of the source's fields.
    pub(crate) rows: Pile<Vec<Value>>,
    pub(crate) rejects: Vec<Reject>,
    /// Records that came again unchanged.
    pub(crate) duplicates: u64,
    /// What was noticed, in sentences.
    pub(crate) findings: Vec<String>,
    /// A field that the source promises is in none of the records: the answer has another shape.
    pub(crate) missing_everywhere: Vec<String>,
    /// The first record that broke a rule which is not merely about that record ([`OnBad`]), in words: the worst rule counts.
    pub(crate) worst: Option<(OnBad, String)>,
    /// Whether any row is of the day that was asked for, by its date or time; `None` when the source has none of its own, or there are no
    /// rows.
    pub(crate) fresh: Option<bool>,
    /// Dates of the records' own by which they are stored, none of which is the day that was asked for, in sentences.
    pub(crate) other_days: Vec<String>,
    /// What the rows consist of, see [`crate::content`].
    pub(crate) content: Option<String>,
    /// What the records look like.
    pub(crate) shape: Shape,
}

impl Validated {
    fn reject_by_rule(&mut self, on_bad: OnBad, reject: Reject) {
        let known = self
            .worst
            .as_ref()
            .map_or(OnBad::Reject, |(worst, _)| *worst);
        if on_bad > known {
            let field = reject.field.as_deref().unwrap_or_default();
            let text = format!("{field} {}", reject.reason).trim().to_owned();
            self.worst = Some((on_bad, text));
        }
        self.rejects.push(reject);
    }
}

/// What the data are of: a day, and the time (UTC) at which they were received.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CollectionTime {
    pub(crate) date: NaiveDate,
    pub(crate) at: DateTime<Utc>,
}

impl CollectionTime {
    pub(crate) fn now(date: NaiveDate) -> Self {
        Self {
            date,
            at: Utc::now(),
        }
    }

    /// Puts in what `{date}` and `{minute}` (both in the service's zone) stand for.
    fn fill(&self, text: &str) -> String {
        let minute = self
            .at
            .with_timezone(&service::TIMEZONE)
            .format("%Y-%m-%d %H:%M:00");
        let days = DayNames {
            date: self.date,
            previous_trading_day: None,
        };
        fill(text, |name, form| match (name, form) {
            ("minute", None) => Some(minute.to_string()),
            _ => days.text(name, form),
        })
    }
}

/// The error is that the records cannot be read back, or the rows not kept.
pub(crate) fn validate(
    source: &Source,
    time: CollectionTime,
    records: &Pile<Value>,
) -> io::Result<Validated> {
    let mut validator = Validator::new(source, time);
    for record in records.iter() {
        validator.add(&*record?)?;
    }
    validator.finish()
}

/// Makes rows of records, one after the other.
pub(crate) struct Validator<'a> {
    source: &'a Source,
    time: CollectionTime,
    patterns: Vec<Compiled>,
    unique: Unique<'a>,
    /// How often a number came as text, by field.
    converted: BTreeMap<&'a str, u64>,
    /// Fields that no record has had yet.
    missing: Vec<&'a str>,
    any: bool,
    done: Validated,
}

impl<'a> Validator<'a> {
    pub(crate) fn new(source: &'a Source, time: CollectionTime) -> Self {
        let fields = source.fields.iter().flat_map(Field::record_fields);
        Self {
            source,
            time,
            patterns: source.fields.iter().map(Compiled::of).collect(),
            unique: Unique::new(source, Facts::new(source, time.date)),
            converted: BTreeMap::new(),
            missing: fields.collect(),
            any: false,
            done: Validated::default(),
        }
    }

    /// The error is that its row cannot be kept.
    pub(crate) fn add(&mut self, record: &Value) -> io::Result<()> {
        let source = self.source;
        self.any = true;
        self.missing.retain(|from| value_of(record, from).is_none());
        self.done.shape.add(record);
        if let Some(field) = source.answer.day_field()
            && let Some(said) = answer_day::other_in_record(record, field, self.time.date)
        {
            let reason = format!("is of another day ({said}) than {}", self.time.date);
            let reject = reject(source, record, Some(field.to_owned()), reason);
            self.done.rejects.push(reject);
            return Ok(());
        }
        let row = match row(
            source,
            &self.patterns,
            self.time,
            record,
            &mut self.converted,
        ) {
            Ok(row) => row,
            Err((field, on_bad, reason)) => {
                let reject = reject(source, record, Some(field), reason);
                self.done.reject_by_rule(on_bad, reject);
                return Ok(());
            }
        };
        if let Err((on_bad, reason)) = check_sums(source, &row) {
            let reject = reject(source, record, None, reason);
            self.done.reject_by_rule(on_bad, reject);
            return Ok(());
        }
        self.unique.add(record, row)
    }

    /// The records that were rejected until now.
    pub(crate) fn rejects(&self) -> &[Reject] {
        &self.done.rejects
    }

    /// The error is that the rows cannot be read back.
    pub(crate) fn finish(self) -> io::Result<Validated> {
        let (mut done, mut missing, mut converted) = (self.done, self.missing, self.converted);
        self.unique.finish(&mut done)?;
        missing.retain(|_| self.any);
        missing.dedup();
        done.missing_everywhere = missing.into_iter().map(str::to_owned).collect();
        converted.retain(|_, _| !self.source.answer.is_text());
        done.findings.extend(converted.iter().map(|(field, n)| {
            format!(
                "field {field} came as text where a number was due, {n} time(s); converted without loss"
            )
        }));
        Ok(done)
    }
}

/// Whether a value can be of a type.
pub(crate) fn reads_as(of_type: FieldType, value: &Value) -> bool {
    let field = Field::plain(of_type);
    convert(&field, &Compiled::default(), value).is_ok()
}

/// The columns, in the order of the rows' values.
pub(crate) fn columns(source: &Source) -> Vec<String> {
    source.fields.iter().map(|f| f.column.clone()).collect()
}

fn row<'a>(
    source: &'a Source,
    patterns: &[Compiled],
    time: CollectionTime,
    record: &Value,
    converted: &mut BTreeMap<&'a str, u64>,
) -> Result<Vec<Value>, (String, OnBad, String)> {
    if !record.is_object() {
        let reason = match record.as_array() {
            Some(values) => format!(
                "the record is a list of {} values, which does not fit the columns",
                values.len()
            ),
            None if exact::malformed(record).is_some() => "the record is not JSON".to_owned(),
            None => "the record is not an object".to_owned(),
        };
        return Err((String::new(), OnBad::Reject, reason));
    }
    if let Some((field, raw)) = exact::malformed_within(record) {
        let reason = match raw.contains(exact::UNREADABLE) {
            true => {
                let shown = exact::shown(raw);
                format!("is \"{shown}\", with bytes that are not of its character set")
            }
            // A formula that failed.
            false if source.answer.sheet.is_some() => format!("is {raw}, which is no value"),
            false => format!("is {raw}, which is not JSON"),
        };
        return Err((field, OnBad::Reject, reason));
    }
    let mut row = Vec::with_capacity(source.fields.len());
    for (field, pattern) in source.fields.iter().zip(patterns) {
        let fixed = field.value.as_ref().map(|v| Value::String(time.fill(v)));
        let composed = field.compose.as_ref().map(|text| compose(text, record));
        let fixed = fixed.or(composed);
        let name = field.from.as_deref().unwrap_or(&field.column);
        let raw = match (&fixed, &field.from) {
            (Some(value), _) => value,
            (None, Some(from)) => value_of(record, from).unwrap_or(&Value::Null),
            (None, None) => &Value::Null,
        };
        let done = convert(field, pattern, raw)
            .map_err(|reason| (name.to_owned(), field.on_bad, reason))?;
        if done.from_text {
            *converted.entry(name).or_default() += 1;
        }
        row.push(done.value);
    }
    Ok(row)
}

/// A text of several fields; null when one of them is absent.
fn compose(text: &str, record: &Value) -> Value {
    let part = |name: &str| {
        let value = value_of(record, name)?;
        let text = match exact::number(value).or_else(|| exact::text(value)) {
            Some(text) => text.trim().to_owned(),
            None => value.as_number()?.to_string(),
        };
        (!text.is_empty()).then_some(text)
    };
    let names = crate::source::names_within(text);
    if names.iter().any(|name| part(name).is_none()) {
        return Value::Null;
    }
    Value::String(fill(text, |name, _| part(name)))
}

fn check_sums(source: &Source, row: &[Value]) -> Result<(), (OnBad, String)> {
    let number = |column: &String| {
        source
            .fields
            .iter()
            .position(|f: &Field| f.column == *column)
            .and_then(|i| match &row[i] {
                Value::String(digits) => digits.parse().ok(),
                other => other.as_f64(),
            })
    };
    for sum in &source.sums {
        let parts: Option<Vec<f64>> = sum.parts.iter().map(number).collect();
        if let (Some(parts), Some(total)) = (parts, number(&sum.total)) {
            let added: f64 = parts.iter().sum();
            if (added - total).abs() > 1e-6 {
                let parts = sum.parts.join(" + ");
                let reason = format!("{parts} add up to {added}, but {} is {total}", sum.total);
                return Err((sum.on_bad, reason));
            }
        }
    }
    Ok(())
}

fn reject(source: &Source, record: &Value, field: Option<String>, reason: String) -> Reject {
    let key = source
        .store
        .unique
        .iter()
        .filter_map(|c| source.fields.iter().find(|f| f.column == *c)?.from.as_ref())
        .filter_map(|from| value_of(record, from));
    let key: Vec<String> = key
        .map(|v| exact::text(v).map_or_else(|| exact::to_text(v), |t| exact::shown(t).into_owned()))
        .collect();
    Reject {
        target: Some(source.store.table.clone()),
        source_key: (!key.is_empty()).then(|| key.join(", ")),
        field: field.filter(|f| !f.is_empty()),
        reason,
        record: record.clone(),
    }
}

#[cfg(test)]
mod tests;
