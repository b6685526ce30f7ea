//! Whether the data are what was due: one verdict for runs, replays, dry runs and `oa-crawl try`.

use chrono::NaiveDate;
use oa_core::base::exact;
use oa_core::base::text::beginning;
use oa_core::journal::days;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{Evidence, RunError};

use crate::answer_day::other_in_records;
use crate::collect::Collected;
use crate::content::fingerprint;
use crate::source::{FetchKind, OnBad, Source};
use crate::validate::Validated;

#[derive(Debug)]
pub(crate) struct Verdict {
    /// Why what came is not a success.
    pub(crate) error: Option<RunError>,
    /// Whether any of it may be stored.
    pub(crate) storable: bool,
}

/// What is known of other days.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    /// How many records such days usually have by this time.
    pub(crate) usual: Option<u64>,
    /// The content of the last day before, where it must be another one.
    pub(crate) content: Option<(NaiveDate, String)>,
}

pub(crate) fn assess(
    source: &Source,
    date: NaiveDate,
    before: &Before,
    collected: &Collected,
    validated: &Validated,
) -> Verdict {
    if let Some(error) = unusable(source, date, collected, validated) {
        return Verdict {
            error: Some(error),
            storable: false,
        };
    }
    let error = collected
        .shortfall()
        .or_else(|| below_usual(source, before.usual, collected))
        .or_else(|| shortcoming(source, date, collected, validated))
        .or_else(|| {
            let (earlier, content) = before.content.as_ref()?;
            let same = fingerprint(source, collected, validated).as_ref() == Some(content);
            same.then(|| days::repeats(date, *earlier))
        });
    Verdict {
        error,
        storable: true,
    }
}

/// Why nothing of it can be stored.
fn unusable(
    source: &Source,
    date: NaiveDate,
    collected: &Collected,
    validated: &Validated,
) -> Option<RunError> {
    if collected.records.is_empty() {
        if collected.expected.unwrap_or(0) > 0 {
            return collected.shortfall();
        }
        if !source.allow_empty {
            return Some(RunError::new(
                ErrorKind::Empty,
                format!("the site returned no records for {date}"),
            ));
        }
    }
    if !validated.missing_everywhere.is_empty() {
        let fields = validated.missing_everywhere.join(", ");
        let first = collected.records.first().ok().flatten();
        let example = beginning(&first.as_ref().map(exact::to_text).unwrap_or_default(), 200);
        return Some(RunError::new(
            ErrorKind::Shape,
            format!(
                "none of {} records has the field(s) {fields}; the site has changed its data, for example: {example}",
                collected.records.len()
            ),
        ));
    }
    if let Some(said) = other_in_records(&source.answer, &collected.records, date) {
        let message = format!("nothing of {date} is there yet, no record is of that day ({said})");
        return Some(RunError::new(ErrorKind::Empty, message));
    }
    if validated.fresh == Some(false) && puts_in_the_day(source) {
        let came = collected.records.len();
        let message =
            format!("nothing of {date} is there yet, none of {came} records is of that day");
        return Some(RunError::new(ErrorKind::Empty, message));
    }
    if let Some((OnBad::Fail, first)) = &validated.worst {
        let message = format!("a record breaks a rule that fails the run (on_bad): {first}");
        return Some(RunError::new(ErrorKind::Invalid, message));
    }
    None
}

/// Whether rows are stored under the day that is collected, whatever they say.
fn puts_in_the_day(source: &Source) -> bool {
    let texts = source.fields.iter().filter_map(|f| f.value.as_deref());
    let mut texts = texts.filter(|text| text.contains("{date}") || text.contains("{minute}"));
    texts.next().is_some()
}

/// Far fewer records than usual: a Saturday with 5 is normal, a Tuesday with 5 is not.
fn below_usual(source: &Source, usual: Option<u64>, collected: &Collected) -> Option<RunError> {
    let (usual, came) = (usual?, collected.records.len() as u64);
    ((came as f64) < source.min_of_usual * usual as f64).then(|| {
        let message = format!(
            "only {came} records came, such days usually have {usual} by this time (min_of_usual)"
        );
        RunError::new(ErrorKind::Partial, message)
    })
}

/// A complete answer can still not be what was due.
fn shortcoming(
    source: &Source,
    date: NaiveDate,
    collected: &Collected,
    validated: &Validated,
) -> Option<RunError> {
    let came = collected.records.len();
    let rejected = validated.rejects.len();
    if came > 0 && validated.rows.is_empty() {
        let first = validated.rejects.first().map(reason).unwrap_or_default();
        return Some(RunError::new(
            ErrorKind::Invalid,
            format!("all {came} records were rejected; the first one: {first}"),
        ));
    }
    if rejected as f64 > source.max_rejected * came as f64 {
        let first = validated.rejects.first().map(reason).unwrap_or_default();
        return Some(RunError::new(
            ErrorKind::Invalid,
            format!("{rejected} of {came} records were rejected; the first one: {first}"),
        ));
    }
    if let Some((_, first)) = &validated.worst {
        let message =
            format!("a record breaks a rule that makes the run partial (on_bad): {first}");
        return Some(RunError::new(ErrorKind::Invalid, message));
    }
    if validated.fresh == Some(false) {
        return Some(RunError::new(
            ErrorKind::Stale,
            format!("none of {came} records is of {date}; the site still shows another day"),
        ));
    }
    None
}

fn reason(reject: &oa_core::model::run::Reject) -> String {
    match &reject.field {
        Some(field) => format!("{field} {}", reject.reason),
        None => reject.reason.clone(),
    }
}

/// By what it is known that what came is all, when nothing is missing.
pub(crate) fn evidence(
    source: &Source,
    before: &Before,
    collected: &Collected,
) -> Option<Evidence> {
    // A total that more came than it says proves nothing.
    let came = collected.records.len() as u64;
    if collected.expected.is_some_and(|total| came <= total) {
        return Some(Evidence::Total);
    }
    let ends = source.paging.is_some() || source.answer.end.is_some();
    if ends || source.fetch.kind == FetchKind::Command {
        return Some(Evidence::End);
    }
    before.usual.map(|_| Evidence::History)
}

#[cfg(test)]
mod tests {
    use crate::source::parse;
    use crate::validate::{CollectionTime, validate};
    use serde_json::json;

    #[test]
    fn a_day_is_proven_by_a_date_or_a_time() {
        for (of_type, value) in [("date", "2025-12-01"), ("datetime", "2025-12-01 15:00:00")] {
            let text = format!(
                r#"
name = "quotes"
title = "quotes"
provider = "own"
schedule = "30 15 * * *"
fetch = {{ kind = "http", base = "http://x.example", path = "/{{date}}" }}
answer = {{ records = "/list" }}
store = {{ table = "t", unique = ["code"], key = ["code"] }}
freshness = {{ column = "at" }}
fields = [
  {{ column = "code", from = "code", type = "text", required = true }},
  {{ column = "at", from = "at", type = "{of_type}" }},
]
"#
            );
            let source = parse("x", &text).unwrap();
            let records = vec![json!({"code": "RB", "at": value})].into();
            let fresh = |day: &str| {
                let time = CollectionTime::now(day.parse().unwrap());
                validate(&source, time, &records).unwrap().fresh
            };
            assert_eq!(fresh("2025-12-01"), Some(true), "{of_type}");
            assert_eq!(fresh("2025-12-02"), Some(false), "{of_type}");
        }
    }
}
