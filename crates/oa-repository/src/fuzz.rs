//! Names, timelines and a storage's answers, changed at random.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use oa_testkit::fuzz::{config, corpus, lines, mutated, mutated_text};
use proptest::prelude::*;
use rusty_s3::actions::ListObjectsV2;

use crate::timeline::TimelinePath;
use crate::{Lsn, Meta, Segment, s3};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_history_is_read_or_refused(text in mutated_text(corpus(HERE, "history"))) {
        if let Ok(path) = TimelinePath::parse(3, &text) {
            prop_assert_eq!(path.timeline(), 3);
            let _ = (path.holds(2, Lsn(1)), path.of_segment(Lsn(u64::MAX)), path.timelines().count());
        }
    }

    #[test]
    fn a_segment_is_one_or_not(name in mutated_text(lines(HERE, "segments"))) {
        if let Some(segment) = Segment::parse(&name, 16 << 20) {
            prop_assert!(Segment::parse(&segment.file(), 16 << 20).is_some());
        }
    }

    #[test]
    fn an_answer_of_the_storage_is_read_or_refused(body in mutated(corpus(HERE, "s3"))) {
        let _ = ListObjectsV2::parse_response(&String::from_utf8_lossy(&body));
        prop_assert!(s3::said(&body).len() <= 4096);
    }

    #[test]
    fn what_describes_a_backup_is_read_or_not(text in mutated_text(corpus(HERE, "s3"))) {
        let _ = Meta::from_text(&text);
    }
}
