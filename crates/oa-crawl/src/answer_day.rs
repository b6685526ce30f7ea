//! The day that an answer says it is of, wherever it says so. Only a day that is said proves that today's page is not stored under
//! another date.

use chrono::NaiveDate;
use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::base::text::beginning;
use serde_json::Value;

use crate::dates;
use crate::extract::field as field_of;
use crate::extract::nesting;
use crate::extract::table::text;
use crate::fetch::Response;
use crate::source::{Answer, DayElsewhere, DayPlace, selector};

/// What a JSON answer says in its place, when that is not `date`.
pub(crate) fn other_in_json(rules: &Answer, answer: &Value, date: NaiveDate) -> Option<String> {
    let Some(DayPlace::Pointer(pointer)) = &rules.day else {
        return None;
    };
    let said = answer.pointer(pointer).and_then(as_text);
    other(said, &format!("at {pointer}"), date)
}

/// The same of a page.
pub(crate) fn other_in_page(rules: &Answer, page: &str, date: NaiveDate) -> Option<String> {
    let Some(DayPlace::Elsewhere(DayElsewhere::Selector(css))) = &rules.day else {
        return None;
    };
    let page = nesting::parse(page).ok()?;
    let found = selector(css).ok();
    let said = found.and_then(|css| page.select(&css).next().map(text));
    other(said, &format!("at \"{css}\""), date)
}

/// The same of the headers that came with an answer.
pub(crate) fn other_in_headers(
    rules: &Answer,
    response: &Response,
    date: NaiveDate,
) -> Option<String> {
    let Some(DayPlace::Elsewhere(DayElsewhere::Header(name))) = &rules.day else {
        return None;
    };
    other(response.header(name), &format!("in {name}"), date)
}

/// The same of records, when not one of them is of `date`.
pub(crate) fn other_in_records(
    rules: &Answer,
    records: &Pile<Value>,
    date: NaiveDate,
) -> Option<String> {
    let field = rules.day_field()?;
    let mut first = None;
    for record in records.iter() {
        // Whoever reads them next says that they cannot be read.
        let other = other_in_record(&*record.ok()?, field, date)?;
        first.get_or_insert(other);
    }
    first
}

/// The same of one record.
pub(crate) fn other_in_record(record: &Value, field: &str, date: NaiveDate) -> Option<String> {
    let said = field_of(record, field).and_then(as_text);
    other(said, &format!("in {field}"), date)
}

fn as_text(value: &Value) -> Option<String> {
    let number = exact::number(value).map(str::to_owned);
    match value {
        Value::Number(number) => Some(number.to_string()),
        other => number.or_else(|| exact::text(other).map(str::to_owned)),
    }
}

fn other(said: Option<String>, place: &str, date: NaiveDate) -> Option<String> {
    match said.filter(|s| !s.trim().is_empty()) {
        None => Some(format!("no day {place}")),
        Some(said) => (dates::find(&said) != Some(date)).then(|| beginning(&said, 80)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(text: &str) -> Answer {
        toml::from_str(text).unwrap()
    }

    fn day() -> NaiveDate {
        NaiveDate::from_ymd_opt(2025, 12, 1).unwrap()
    }

    #[test]
    fn an_answer_of_another_day_is_noticed() {
        let rules = rules("day = \"/date\"\nrecords = \"/d\"");
        for said in [
            json!("2025-12-01 08:45"),
            json!(20251201),
            json!("数据日期：2025年12月1日"),
            json!(1_764_547_200),
            json!(1_764_547_200_000_u64),
        ] {
            assert_eq!(
                other_in_json(&rules, &json!({"date": said}), day()),
                None,
                "{said}"
            );
        }
        assert_eq!(
            other_in_json(&rules, &json!({"date": "2025-11-28"}), day()).as_deref(),
            Some("2025-11-28")
        );
        for none in [
            json!({}),
            json!({"date": null}),
            json!({"date": ""}),
            json!({"date": "今天"}),
        ] {
            assert!(other_in_json(&rules, &none, day()).is_some(), "{none}");
        }
    }

    #[test]
    fn a_page_says_its_day_in_an_element_and_an_answer_in_a_header() {
        let of_page = rules("day = { selector = \"h2 span\" }");
        let page = |text: &str| format!("<h2>行情 <span>{text}</span></h2><table></table>");
        for (text, is_other) in [
            ("更新时间 2025-12-01 15:00", false),
            ("2025/12/1", false),
            ("2025-11-28", true),
            ("2025-11-28 至 2025-12-01", true),
            ("", true),
        ] {
            let other = other_in_page(&of_page, &page(text), day());
            assert_eq!(other.is_some(), is_other, "{text}");
        }
        let of_header = rules("day = { header = \"Last-Modified\" }");
        let mut response = Response::default();
        assert!(other_in_headers(&of_header, &response, day()).is_some());
        // In the service's zone it is the next day already.
        let at = "Sun, 30 Nov 2025 16:30:00 GMT".to_owned();
        response.headers.push(("last-modified".to_owned(), at));
        assert_eq!(other_in_headers(&of_header, &response, day()), None);
    }

    #[test]
    fn records_may_say_their_day_themselves() {
        let rules = rules("day = { field = \"d\" }");
        let records = [json!({"d": "2025-11-28"}), json!({"d": "2025-12-01"})];
        assert_eq!(
            other_in_records(&rules, &records.to_vec().into(), day()),
            None
        );
        let first = records[..1].to_vec().into();
        assert!(other_in_records(&rules, &first, day()).is_some());
        assert_eq!(other_in_records(&rules, &Pile::default(), day()), None);
        assert!(toml::from_str::<Answer>("day = { fields = \"d\" }").is_err());
    }
}
