//! Five-field cron expressions, as crontab(5) means them, on the `cron` crate, which means them a little differently: it wants
//! seconds, counts weekdays from Sunday = 1, takes `?` for `*`, and demands that day of month *and* weekday match where crontab(5)
//! lets either do. So each field is read here, and the crate gets lists of numbers.

use std::str::FromStr;

use chrono::DateTime;
use chrono_tz::Tz;

/// The expression is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("\"{expression}\" is not a cron expression: {reason}")]
pub struct CronError {
    expression: String,
    reason: String,
}

/// A valid expression: the union of one or two of the crate's schedules.
#[derive(Debug, Clone)]
pub(super) struct Cron(Vec<cron::Schedule>);

/// What crontab(5) has words for.
const WORDS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

impl Cron {
    pub(super) fn parse(expression: &str) -> Result<Self, CronError> {
        let fail = |reason: String| CronError {
            expression: expression.to_owned(),
            reason,
        };
        let word = expression.trim();
        let meant = WORDS.iter().find(|(name, _)| *name == word);
        if word.starts_with('@') && meant.is_none() {
            let known: Vec<&str> = WORDS.iter().map(|(name, _)| *name).collect();
            return Err(fail(format!(
                "of such words there are {}",
                known.join(", ")
            )));
        }
        let meant = meant.map_or(expression, |(_, fields)| fields);
        let fields: Vec<&str> = meant.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(fail(format!(
                "it has {} field(s), five are needed: minute hour day month weekday",
                fields.len()
            )));
        };
        let minutes = MINUTE.numbers(minute).map_err(fail)?;
        let hours = HOUR.numbers(hour).map_err(fail)?;
        let days = DAY.numbers(day).map_err(fail)?;
        let months = MONTH.numbers(month).map_err(fail)?;
        let weekdays = WEEKDAY.numbers(weekday).map_err(fail)?;
        // The crate counts from Sunday = 1; crontab's 7 is a Sunday too.
        let mut weekdays: Vec<u32> = weekdays.iter().map(|n| n % 7 + 1).collect();
        weekdays.sort_unstable();
        weekdays.dedup();
        let either = !day.starts_with('*') && !weekday.starts_with('*');
        let longest = |month: &u32| match month {
            2 => 29,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let some = |month| days.iter().any(|day| *day <= longest(month));
        if !either && !months.iter().any(some) {
            return Err(fail(format!(
                "it is never due: no month of field \"{month}\" has a day {day}"
            )));
        }
        let one = |days: &[u32], weekdays: &[u32]| {
            let lists = [&minutes, &hours, days, &months, weekdays].map(list);
            cron::Schedule::from_str(&format!("0 {}", lists.join(" ")))
                .map_err(|e| fail(e.to_string().replace('\n', " ")))
        };
        // crontab(5): when both are restricted (do not start with *), a day matches if either does.
        if !either {
            return Ok(Self(vec![one(&days, &weekdays)?]));
        }
        let all: Vec<u32> = (1..=31).collect();
        let of_day = days
            .iter()
            .any(|day| months.iter().any(|month| *day <= longest(month)));
        let of_day = of_day.then(|| one(&days, &all[..7])).transpose()?;
        let of_weekday = one(&all, &weekdays)?;
        Ok(Self(of_day.into_iter().chain([of_weekday]).collect()))
    }

    pub(super) fn next_after(&self, moment: DateTime<Tz>) -> Option<DateTime<Tz>> {
        self.0.iter().filter_map(|s| s.after(&moment).next()).min()
    }
}

fn list(numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    texts.join(",")
}

/// One of the five fields.
struct Field {
    name: &'static str,
    first: u32,
    last: u32,
    /// Names for the numbers from `first`, in capitals.
    names: &'static [&'static str],
}

const MINUTE: Field = Field {
    name: "minute",
    first: 0,
    last: 59,
    names: &[],
};
const HOUR: Field = Field {
    name: "hour",
    first: 0,
    last: 23,
    names: &[],
};
const DAY: Field = Field {
    name: "day",
    first: 1,
    last: 31,
    names: &[],
};
const MONTH: Field = Field {
    name: "month",
    first: 1,
    last: 12,
    names: &[
        "JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC",
    ],
};
const WEEKDAY: Field = Field {
    name: "weekday",
    first: 0,
    last: 7,
    names: &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
};

impl Field {
    /// Its numbers, each once, in order.
    fn numbers(&self, field: &str) -> Result<Vec<u32>, String> {
        let mut chosen = Vec::new();
        for part in field.split(',') {
            let (range, step) = match part.split_once('/') {
                Some((range, step)) => (range, self.step(step)?),
                None => (part, 1),
            };
            let (first, last) = match range.split_once('-') {
                _ if range == "*" => (self.first, self.last_of_all()),
                Some((first, last)) => (self.number(first)?, self.number(last)?),
                None if part.contains('/') => (self.number(range)?, self.last_of_all()),
                None => (self.number(range)?, self.number(range)?),
            };
            // "FRI-SUN" ends on a Sunday that is counted from the end.
            let ends_on_sunday = self.last == 7 && last == 0 && first > 0;
            let last = if ends_on_sunday { 7 } else { last };
            if last < first {
                return Err(format!("the {} \"{range}\" runs backwards", self.name));
            }
            chosen.extend((first..=last).step_by(step));
        }
        chosen.sort_unstable();
        chosen.dedup();
        Ok(chosen)
    }

    /// Seven weekdays have eight numbers.
    fn last_of_all(&self) -> u32 {
        if self.last == 7 { 6 } else { self.last }
    }

    fn step(&self, text: &str) -> Result<usize, String> {
        let step = text.parse().ok().filter(|step| *step > 0);
        step.ok_or_else(|| format!("\"{text}\" is not a step of the {}", self.name))
    }

    fn number(&self, text: &str) -> Result<u32, String> {
        let upper = text.to_ascii_uppercase();
        let named = (self.first..)
            .zip(self.names)
            .find(|(_, name)| **name == upper);
        if let Some((number, _)) = named {
            return Ok(number);
        }
        // No sign, which `parse` would take.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|_| digits);
        let within = number.filter(|n| (self.first..=self.last).contains(n));
        within.ok_or_else(|| {
            let hint = match text {
                "?" => "; crontab writes * for any",
                _ => "",
            };
            format!(
                "the {} \"{text}\" is not a number from {} to {}{hint}",
                self.name, self.first, self.last
            )
        })
    }
}
