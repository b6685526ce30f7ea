//! What is noticed of rows while they pass by, so that nobody has to look at all of them again.

use chrono::NaiveDate;
use oa_core::base::pile::Pile;
use serde_json::Value;

use super::content::Content;
use crate::source::{FieldType, Source};

pub(crate) struct Facts<'a> {
    day: String,
    /// The place of the column that says of which day a row is, and whether one was of this day.
    fresh: Option<(usize, bool)>,
    /// The same of dates of the records' own by which they are stored.
    own: Vec<(usize, &'a str, bool)>,
    content: Content,
    any: bool,
}

impl<'a> Facts<'a> {
    pub(super) fn new(source: &'a Source, date: NaiveDate) -> Self {
        let fresh = source.freshness.as_ref();
        let place = fresh.and_then(|f| source.fields.iter().position(|x| x.column == f.column));
        let is_own_date = |f: &crate::source::Field| {
            matches!(f.of_type, FieldType::Date | FieldType::DateTime)
                && f.from.is_some()
                && source.store.unique.contains(&f.column)
        };
        let fields = source.fields.iter().enumerate();
        let own = fields.filter(|(_, f)| is_own_date(f));
        Self {
            day: date.to_string(),
            fresh: place.map(|i| (i, false)),
            own: own.map(|(i, f)| (i, f.column.as_str(), false)).collect(),
            content: Content::of_rows(source),
            any: false,
        }
    }

    pub(super) fn see(&mut self, row: &[Value]) {
        self.any = true;
        let of_day = |i: usize| row[i].as_str().is_some_and(|t| t.starts_with(&self.day));
        if let Some((i, fresh)) = &mut self.fresh {
            *fresh = *fresh || of_day(*i);
        }
        for (i, _, seen) in &mut self.own {
            *seen = *seen || of_day(*i);
        }
        self.content.add_row(row);
    }

    /// Whether any row is of the day that was asked for, by its date or time; `None` when the source has none of its own, or there are
    /// no rows.
    pub(super) fn fresh(&self, rows: &Pile<Vec<Value>>) -> Option<bool> {
        self.fresh
            .filter(|_| !rows.is_empty())
            .map(|(_, fresh)| fresh)
    }

    /// Dates of the records' own by which they are stored, none of which is the day that was asked for.
    pub(super) fn other_days(&self) -> Vec<String> {
        let other = self.own.iter().filter(|(_, _, seen)| self.any && !seen);
        other
            .map(|(_, column, _)| {
                format!(
                    "no record is of {} by its {column}; they are stored under their own dates",
                    self.day
                )
            })
            .collect()
    }

    pub(super) fn content(&self) -> Option<String> {
        self.content.finish()
    }
}
