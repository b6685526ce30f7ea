//! What browsers and programs send, changed at random: an answer, never a panic.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use oa_testkit::fuzz::{config, lines, mutated_text};
use proptest::prelude::*;

use crate::app::request::pairs;
use crate::when;

const HERE: &str = env!("CARGO_MANIFEST_DIR");

proptest! {
    #![proptest_config(config())]

    #[test]
    fn parameters_are_read(query in mutated_text(lines(HERE, "queries"))) {
        let now = "2025-12-01T04:00:00Z".parse().unwrap();
        for (name, value) in pairs(&query) {
            for text in [&name, &value] {
                let _ = when::parse(text, now, chrono_tz::Asia::Shanghai);
                let _ = when::day(text, now, chrono_tz::Asia::Shanghai);
            }
        }
    }
}
