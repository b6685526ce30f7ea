//! When a source is due, and for which day each time: its schedule's times, each for its own day, and the one of `again`, for a day that
//! is over.

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::schedule::{Again, Calendar, DueTime};

use super::{Shows, Source};

impl Source {
    /// Its due times after `from`, oldest first. A source file that was read has a valid schedule.
    pub(crate) fn due_times<'c>(
        &self,
        from: DateTime<Utc>,
        zone: Tz,
        calendar: &'c Calendar,
    ) -> impl Iterator<Item = DueTime> + use<'c> {
        let schedule = self.schedule_in(zone).ok();
        let mut own = schedule.clone().into_iter().flat_map(move |schedule| {
            let next = move |at: &DateTime<Utc>| schedule.next_after(*at, calendar);
            std::iter::successors(next(&from), next).map(move |at| DueTime {
                at,
                day: at.with_timezone(&zone).date_naive(),
                again: false,
            })
        });
        let again = self.again.zip(schedule).into_iter();
        let mut again =
            again.flat_map(move |(again, schedule)| again.after(from, schedule, calendar));
        let (mut first, mut second) = (own.next(), again.next());
        std::iter::from_fn(move || match (first, second) {
            (Some(a), Some(b)) if b < a => std::mem::replace(&mut second, again.next()),
            (None, Some(_)) => std::mem::replace(&mut second, again.next()),
            _ => std::mem::replace(&mut first, own.next()),
        })
    }

    /// The last due time of `again` up to `until`, but after `from`.
    pub(crate) fn last_again(
        &self,
        from: DateTime<Utc>,
        until: DateTime<Utc>,
        zone: Tz,
        calendar: &Calendar,
    ) -> Option<DueTime> {
        let schedule = self.schedule_in(zone).ok()?;
        let all = self.again?.after(from, schedule, calendar);
        all.take_while(|due| due.at <= until).last()
    }

    /// What `again` says must be what the site can do.
    pub(super) fn check_again(&self) -> Result<(), String> {
        match self.again {
            Some(Again::NextDay(_)) if self.shows() == Shows::Today => Err(
                "again collects a day when it is over, but the site only shows its present one (shows); leave again out"
                    .to_owned(),
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;
    use chrono_tz::Asia::Shanghai;

    fn source(schedule: &str, again: &str) -> Source {
        let text = include_str!("../../sources/zhihui-full-view.toml");
        let lines = text.lines().filter(|l| !l.starts_with("again"));
        let text: String = lines.map(|l| format!("{l}\n")).collect();
        let head = format!("again = \"{again}\"\n{schedule}");
        let text = text.replace("schedule = \"*/30 * * * *\"", &head);
        parse("x", &text).unwrap()
    }

    fn times(source: &Source, from: &str, until: &str) -> Vec<String> {
        let utc = |text: &str| {
            let local = chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M").unwrap();
            local.and_local_timezone(Shanghai).unwrap().to_utc()
        };
        let calendar = Calendar::load(None).unwrap();
        let all = source.due_times(utc(from), Shanghai, &calendar);
        let all: Vec<DueTime> = all.take_while(|due| due.at <= utc(until)).collect();
        let again = all.iter().filter(|due| due.again);
        let shown = again.map(|due| {
            let at = due.at.with_timezone(&Shanghai).format("%m-%d %H:%M:%S");
            format!("{at} {}", due.day.format("%m-%d"))
        });
        let last = source.last_again(utc(from), utc(until), Shanghai, &calendar);
        assert_eq!(last, all.iter().rfind(|due| due.again).copied());
        assert!(all.windows(2).all(|two| two[0].at < two[1].at), "{all:?}");
        shown.collect()
    }

    #[test]
    fn a_day_is_collected_once_more_when_it_is_over() {
        let every = source("schedule = \"*/30 * * * *\"", "next day 00:30");
        let two = times(&every, "2026-11-27 12:00", "2026-11-29 00:31");
        assert_eq!(two, ["11-28 00:30:01 11-27", "11-29 00:30:01 11-28"]);
        assert!(times(&every, "2026-11-27 00:31", "2026-11-28 00:30").is_empty());
        // Between the schedule's times it is the time itself.
        let other = source("schedule = \"*/30 * * * *\"", "next day 00:40");
        let one = times(&other, "2026-11-27 12:00", "2026-11-28 12:00");
        assert_eq!(one, ["11-28 00:40:00 11-27"]);
    }

    #[test]
    fn only_days_that_are_collected_are_collected_again() {
        // 2026-11-28 is a Saturday.
        let daily = "schedule = \"30 15 * * *\"\ndays = \"trading\"";
        let next = source(daily, "next day 08:00");
        let all = times(&next, "2026-11-27 00:00", "2026-12-01 00:00");
        assert_eq!(all, ["11-27 08:00:00 11-26", "11-28 08:00:00 11-27"]);
        let later = source(daily, "+2h");
        let all = times(&later, "2026-11-27 00:00", "2026-12-01 00:00");
        assert_eq!(all, ["11-27 17:30:00 11-27", "11-30 17:30:00 11-30"]);
        let over = source("schedule = \"0 22 * * *\"", "+3h");
        let all = times(&over, "2026-11-27 12:00", "2026-11-28 12:00");
        assert_eq!(all, ["11-28 01:00:00 11-27"]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let text = include_str!("../../sources/rdqh-indicators.toml");
        let refused = |again: &str| {
            let text = text.replace("days =", &format!("again = \"{again}\"\ndays ="));
            parse("x", &text).unwrap_err().to_string()
        };
        assert!(refused("next day 00:30").contains("only shows its present one"));
        for wrong in [
            "00:30",
            "next day",
            "next day 24:30",
            "+",
            "+0s",
            "+25h",
            "",
        ] {
            refused(wrong);
        }
    }
}
