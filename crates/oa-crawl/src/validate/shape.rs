//! The fields of a source's records and their kinds, compared from run to run: a site that changes its data says so nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::base::text::beginning;
use serde_json::{Map, Value, json};

use super::kind::name_of;

/// More fields than this are not compared: they are data, not a shape.
const MOST_FIELDS: usize = 300;

/// In bytes.
const LONGEST_NAME: usize = 200;

/// What the records of a run look like: kinds of values by field. `null` is no kind, because any field may be empty on a day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Shape(BTreeMap<String, BTreeSet<String>>);

impl Shape {
    /// Takes one more record.
    pub(super) fn add(&mut self, record: &Value) {
        let fields = record.as_object().into_iter().flatten();
        // One more than is compared says that these are too many.
        let note = |kinds: &mut BTreeSet<String>, value: &Value| {
            if !value.is_null() && !kinds.contains(name_of(value)) {
                kinds.insert(name_of(value).to_owned());
            }
        };
        for (field, value) in fields {
            if let Some(kinds) = self.0.get_mut(field) {
                note(kinds, value);
            } else if self.0.len() <= MOST_FIELDS && is_name(field) {
                note(self.0.entry(field.clone()).or_default(), value);
            }
        }
    }

    /// Nothing, where the fields are too many.
    pub(crate) fn or_nothing(self) -> Self {
        match self.0.len() > MOST_FIELDS {
            true => Self::default(),
            false => self,
        }
    }

    /// As it is stored: `{"field": ["a number"]}`.
    pub(crate) fn to_json(&self) -> Value {
        json!(self.0)
    }

    /// As it was stored. What is not understood is nothing to compare with.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let fields: &Map<String, Value> = value.as_object()?;
        let kinds = |value: &Value| -> Option<BTreeSet<String>> {
            let kinds = value.as_array()?.iter();
            kinds.map(|k| k.as_str().map(str::to_owned)).collect()
        };
        fields
            .iter()
            .map(|(field, value)| Some((field.clone(), kinds(value)?)))
            .collect::<Option<_>>()
            .map(Self)
    }

    /// With the kinds that the fields had before: what was once there is nothing new.
    pub(crate) fn with_kinds_of(mut self, before: &Self) -> Self {
        for (field, kinds) in &mut self.0 {
            kinds.extend(before.0.get(field).into_iter().flatten().cloned());
        }
        self
    }

    /// What is different from `before`, in sentences, each with the first example.
    pub(crate) fn differences(&self, before: &Self, records: &Pile<Value>) -> Vec<String> {
        if self.0.is_empty() || before.0.is_empty() {
            return Vec::new();
        }
        let example = |field: &str, kind: Option<&str>| -> String {
            let is_one = |v: &&Value| kind.is_none_or(|k| k == name_of(v));
            let text = |r: &Value| r.get(field).filter(is_one).map(exact::to_text);
            let found = records.iter().find_map(|r| text(&*r.ok()?));
            beginning(&found.unwrap_or_default(), 100)
        };
        let mut found = Vec::new();
        for (field, kinds) in &self.0 {
            let Some(known) = before.0.get(field) else {
                let first = example(field, kinds.first().map(String::as_str));
                found.push(format!(
                    "field {field} is new in the records, for example: {first}"
                ));
                continue;
            };
            for kind in kinds.difference(known).filter(|_| !known.is_empty()) {
                let was: Vec<&str> = known.iter().map(String::as_str).collect();
                found.push(format!(
                    "field {field} is {kind} where it was {}, for example: {}",
                    was.join(" or "),
                    example(field, Some(kind))
                ));
            }
        }
        let gone = before.0.keys().filter(|f| !self.0.contains_key(*f));
        found.extend(gone.map(|f| format!("field {f} is in none of the records any more")));
        found
    }
}

/// Whether a record's key names a field: PostgreSQL stores no U+0000, and nobody names a field with a page of text.
fn is_name(key: &str) -> bool {
    key.len() <= LONGEST_NAME && !key.contains(char::is_control)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(records: &[Value]) -> Shape {
        let mut shape = Shape::default();
        records.iter().for_each(|r| shape.add(r));
        shape
    }

    fn drift(before: &[Value], now: &[Value]) -> Vec<String> {
        of(now).differences(&of(before), &now.to_vec().into())
    }

    #[test]
    fn what_a_site_changes_is_reported_with_the_first_example() {
        let before = [
            json!({"code": "RB", "rate": 1.5, "note": null}),
            json!({"code": "HC", "rate": null, "note": null}),
        ];
        assert!(drift(&before, &before).is_empty());
        assert!(
            drift(
                &before,
                &[json!({"code": "RB", "rate": 2, "note": "first"})]
            )
            .is_empty()
        );
        assert_eq!(
            drift(&before, &[json!({"code": "RB", "rate": "n/a", "rank": 3})]),
            [
                "field rank is new in the records, for example: 3",
                "field rate is a text where it was a number, for example: \"n/a\"",
                "field note is in none of the records any more",
            ]
        );
        assert!(drift(&[], &before).is_empty() && drift(&before, &[]).is_empty());
    }

    #[test]
    fn a_kind_that_comes_and_goes_is_reported_once() {
        let (numbers, texts) = ([json!({"a": 1})], [json!({"a": "1"})]);
        let first = of(&numbers);
        let second = of(&texts).with_kinds_of(&first);
        let (numbers, texts) = (numbers.to_vec().into(), texts.to_vec().into());
        assert_eq!(second.differences(&first, &texts).len(), 1);
        assert!(first.differences(&second, &numbers).is_empty());
        assert_eq!(Shape::from_json(&second.to_json()), Some(second));
        assert_eq!(Shape::from_json(&json!({"a": 1})), None);
    }
}
