//! Source files and the answers of sites, changed at random: what is not understood is an error, never a panic or a hang.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use oa_testkit::fuzz::{config, corpus, lines, mutated, mutated_text};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::collect::extract;
use crate::dates;
use crate::extract::{propose, table};
use crate::fetch::Response;
use crate::source::{Source, parse};
use crate::validate::{CollectionTime, validate};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The built-in files, and the examples of the documentation.
fn source_files() -> Vec<Vec<u8>> {
    let folder = Path::new(HERE).join("sources");
    let files = std::fs::read_dir(folder).unwrap();
    let mut all: Vec<Vec<u8>> = files
        .map(|f| std::fs::read(f.unwrap().path()).unwrap())
        .collect();
    let docs = std::fs::read_to_string(Path::new(HERE).join("../../docs/new-source.md")).unwrap();
    let rest = "name = \"form\"\ntitle = \"x\"\nprovider = \"own\"\nschedule = \"0 9 * * *\"\n";
    let fetch = "[fetch]\nkind = \"http\"\nbase = \"https://a.example.com\"\npath = \"/\"\n";
    let store = "\n[store]\ntable = \"t\"\nunique = [\"code\"]\nkey = [\"code\"]\n";
    let field = "[[fields]]\ncolumn = \"code\"\nfrom = \"code\"\ntype = \"text\"\n";
    for example in docs
        .split("```toml\n")
        .skip(1)
        .filter_map(|part| part.split("```").next())
    {
        let fetch = if example.contains("[fetch") {
            ""
        } else {
            fetch
        };
        let field = if example.contains("[[fields]]") {
            ""
        } else {
            field
        };
        all.push(format!("{rest}{fetch}{example}{store}{field}").into_bytes());
    }
    all
}

fn sources() -> Vec<Source> {
    let texts = source_files();
    let all: Vec<Source> = texts
        .iter()
        .filter_map(|text| parse("x", &String::from_utf8_lossy(text)).ok())
        .collect();
    assert!(all.len() > 26, "the examples are read as well");
    all
}

fn day() -> chrono::NaiveDate {
    "2025-12-01".parse().unwrap()
}

fn content_type() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("application/json".to_owned())),
        Just(Some("text/html; charset=gbk".to_owned())),
        Just(Some("text/plain; charset=utf-16".to_owned())),
    ]
}

/// Found by the target below: each call was read to the end of the text, as often as there were calls.
#[test]
fn a_proposal_for_a_page_of_calls_is_made_in_one_pass() {
    let text = "callback({".repeat(20_000);
    assert!(propose::answer(text.as_bytes(), Some(&text)).is_err());
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_source_file_is_read_or_refused(text in mutated_text(source_files())) {
        if let Err(e) = parse("x", &text) {
            prop_assert!(!e.to_string().is_empty());
        }
    }

    #[test]
    fn an_answer_is_read_in_each_form_or_refused(
        body in mutated(corpus(HERE, "answers")), content_type in content_type(), source in prop::sample::select(sources())
    ) {
        let response = Response { status: 200, content_type, body, ..Response::default() };
        if let Ok(extracted) = extract(&source, day(), "GET http://x/", &response) {
            let rows = validate(&source, CollectionTime::now(day()), &extracted.records.iter().cloned().collect()).unwrap();
            prop_assert!(rows.rows.len() + rows.rejects.len() <= extracted.records.len() + 1);
        }
    }

    #[test]
    fn a_proposal_is_made_or_not(body in mutated(corpus(HERE, "answers"))) {
        let text = String::from_utf8_lossy(&body).into_owned();
        let _ = propose::answer(&body, Some(&text));
        let _ = table::visible(&text);
    }

    #[test]
    fn a_value_is_converted_or_rejected(
        number in mutated_text(lines(HERE, "values")), source in prop::sample::select(sources())
    ) {
        let mut record = serde_json::Map::new();
        for field in &source.fields {
            if let Some(from) = &field.from {
                record.insert(from.clone(), json!(number));
            }
        }
        let done = validate(&source, CollectionTime::now(day()), &vec![Value::Object(record)].into()).unwrap();
        prop_assert!(done.rows.len() <= 1);
    }

    #[test]
    fn a_date_is_found_or_not(text in mutated_text(lines(HERE, "values"))) {
        let _ = (dates::day(&text), dates::day_of(&text), dates::find(&text));
    }
}
