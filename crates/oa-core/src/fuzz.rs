//! Texts of others that the core reads, changed at random: no panic, no hang, no secret, nothing that steers a terminal.
#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::path::Path;

use chrono::{DateTime, Utc};
use oa_testkit::fuzz::{config, corpus, lines, mutated, mutated_text};
use proptest::prelude::*;

use crate::app::config::Config;
use crate::base::secrets::{Secret, redact};
use crate::base::text::{LONGEST_ERROR, error_text, escaped, printable};
use crate::base::{exact, when};
use crate::journal::spool::{Record, decode, encode};
use crate::model::{RunStart, Trigger};
use crate::pg::check_address;
use crate::schedule::{Calendar, Schedule};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

fn noon() -> DateTime<Utc> {
    "2025-12-01T04:00:00Z".parse().unwrap()
}

fn spooled() -> Vec<Vec<u8>> {
    let start = RunStart::now(
        "oa-crawl",
        "0",
        "t",
        "\u{9898}",
        Trigger::Cron,
        std::time::Duration::from_secs(9),
    );
    let packed = encode(&Record::Started(start)).unwrap();
    let plain = zstd::decode_all(packed.as_slice()).unwrap();
    vec![packed, plain]
}

fn steers(c: char) -> bool {
    c.is_control() && c != '\n' && c != '\t'
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_configuration_is_read_or_refused(text in mutated_text(corpus(HERE, "config"))) {
        if let Err(e) = Config::parse(Path::new("/nowhere/oa.toml"), &text) {
            prop_assert!(!e.to_string().is_empty());
        }
    }

    #[test]
    fn a_schedule_is_read_or_refused_and_ends(text in mutated_text(lines(HERE, "cron"))) {
        if let Ok(schedule) = Schedule::parse(&text, chrono_tz::Asia::Shanghai) {
            let next = schedule.next_after(noon(), &Calendar::shipped());
            prop_assert!(next.is_none_or(|at| at > noon()));
        }
    }

    #[test]
    fn texts_for_people_are_printable_short_and_without_the_known_secret(
        text in mutated_text(lines(HERE, "text")), at in any::<prop::sample::Index>()
    ) {
        let secret = Secret::new("k7Q-fuzz-secret".to_owned());
        let mut text = text;
        let at = text.floor_char_boundary(at.index(text.len() + 1));
        text.insert_str(at, secret.expose());
        let shown = error_text(&text);
        prop_assert!(!shown.contains(secret.expose()), "{shown}");
        prop_assert!(!shown.contains(steers), "{shown:?}");
        prop_assert!(shown.len() <= LONGEST_ERROR);
        prop_assert!(!printable(&text).contains(steers));
        prop_assert!(!escaped(&text).contains(char::is_control));
        let once = redact(&text);
        prop_assert!(!redact(&once).contains(secret.expose()));
    }

    #[test]
    fn a_database_address_is_taken_or_refused_without_its_password(text in mutated_text(lines(HERE, "text"))) {
        let _ = check_address(&Secret::new(text));
    }

    #[test]
    fn a_time_is_read_or_not(text in mutated_text(lines(HERE, "text"))) {
        let _ = when::parse(&text, noon(), chrono_tz::Asia::Shanghai);
    }

    #[test]
    fn numbers_keep_their_digits(text in mutated_text(lines(HERE, "text"))) {
        if let Some(value) = exact::parse(&text) {
            let written = exact::to_text(&value);
            prop_assert_eq!(exact::parse(&written), Some(value));
        }
    }

    #[test]
    fn an_entry_of_the_spool_is_read_or_damaged(bytes in mutated(spooled())) {
        let _ = decode(1, &bytes);
        if let Ok(packed) = zstd::encode_all(bytes.as_slice(), 1) {
            let _ = decode(1, &packed);
        }
    }
}
