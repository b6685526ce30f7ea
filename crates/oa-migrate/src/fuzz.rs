//! SQLite files, their statements and their values, changed at random: read, quarantined or refused, never a panic.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use oa_testkit::fuzz::{config, corpus, lines, mutated, mutated_text};
use proptest::prelude::*;

use crate::inspect::{Database, ddl, integrity, open};
use crate::values::{decimal::Decimal, json, time};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_statement_is_read_as_far_as_it_goes(sql in mutated_text(corpus(HERE, "ddl"))) {
        let _ = ddl::tokens(&sql);
        let _ = ddl::parse_create_table(&sql);
        let _ = ddl::parse_create_virtual(&sql);
        let _ = ddl::parse_create_index(&sql);
    }

    #[test]
    fn a_damaged_file_is_read_or_refused(bytes in mutated(corpus(HERE, "sqlite"))) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.db");
        std::fs::write(&path, bytes).unwrap();
        if let Ok(connection) = open(&path) {
            let _ = Database::read(&connection, &path);
            let _ = integrity(&connection, &path);
        }
    }

    #[test]
    fn a_value_is_read_or_not_and_what_is_read_is_written_again(text in mutated(lines(HERE, "values"))) {
        if let Some(number) = Decimal::parse(&text) {
            let mut normal = Vec::new();
            number.write_normal(&mut normal);
            let mut again = Vec::new();
            Decimal::parse(&normal).unwrap().write_normal(&mut again);
            prop_assert_eq!(normal, again);
        }
        if let Some(days) = time::parse_date(&text) {
            time::write_date(days, &mut Vec::new());
        }
        if let Some(micros) = time::parse_time(&text) {
            time::write_time(micros, &mut Vec::new());
        }
        let _ = time::parse_timestamp(&text);
        let _ = json::parse(&text);
    }
}
