//! Times as people write them, for what is asked about the past.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::base::when;

pub(crate) use oa_core::base::when::local_time;

/// The time that a text means, seen from `now`: a day is its beginning. Days and times without a zone are those of `zone`.
pub(crate) fn parse(text: &str, now: DateTime<Utc>, zone: Tz) -> Result<DateTime<Utc>, String> {
    when::parse(text, now, zone)
        // Ids of runs begin with 1970.
        .map(|at| at.begins().max(DateTime::UNIX_EPOCH))
        .ok_or_else(|| {
            format!(
                "\"{text}\" is no moment; write {}, \"today\" or \"2025-12-01\"",
                when::FORMS
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_older_than_any_run_is_where_runs_begin() {
        let now: DateTime<Utc> = "2025-12-01T17:00:00Z".parse().unwrap();
        let zone = chrono_tz::Asia::Shanghai;
        let read = |text| parse(text, now, zone);
        assert_eq!(read("99999d"), Ok(DateTime::UNIX_EPOCH));
        assert_eq!(
            read("yesterday"),
            Ok("2025-11-30T16:00:00Z".parse().unwrap())
        );
        assert!(read("soon").unwrap_err().contains("is no moment"));
    }
}
