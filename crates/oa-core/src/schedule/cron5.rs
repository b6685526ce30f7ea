//! Five-field cron expressions, as crontab(5) means them, on the `cron` crate, which means them a little differently: it wants
//! seconds, counts weekdays from Sunday = 1, and demands that day of month *and* weekday match where crontab(5) lets either do.

use std::str::FromStr;

use chrono::DateTime;
use chrono_tz::Tz;

/// The expression is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "\"{expression}\" is not a cron expression: {reason}; five fields are needed: minute hour day month weekday"
)]
pub struct CronError {
    expression: String,
    reason: String,
}

/// A valid expression: the union of one or two of the crate's schedules.
#[derive(Debug, Clone)]
pub(super) struct Cron(Vec<cron::Schedule>);

impl Cron {
    pub(super) fn parse(expression: &str) -> Result<Self, CronError> {
        let fail = |reason: String| CronError {
            expression: expression.to_owned(),
            reason,
        };
        let fields: Vec<&str> = expression.split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(fail(format!("it has {} field(s)", fields.len())));
        };
        let weekday = weekdays(weekday).map_err(fail)?;
        let one = |day: &str, weekday: &str| {
            cron::Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekday}"))
                .map_err(|e| fail(e.to_string().replace('\n', " ")))
        };
        // crontab(5): when both are restricted (do not start with *), a day matches if either does.
        if day.starts_with('*') || weekday.starts_with('*') {
            return Ok(Self(vec![one(day, &weekday)?]));
        }
        Ok(Self(vec![one(day, "*")?, one("*", &weekday)?]))
    }

    pub(super) fn next_after(&self, moment: DateTime<Tz>) -> Option<DateTime<Tz>> {
        self.0.iter().filter_map(|s| s.after(&moment).next()).min()
    }
}

const NAMES: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// Rewrites crontab's weekday field as a list of names, or `*`.
fn weekdays(field: &str) -> Result<String, String> {
    if field == "*" {
        return Ok(field.to_owned());
    }
    let number = |text: &str| -> Result<usize, String> {
        let named = NAMES.iter().position(|n| text.to_ascii_uppercase() == **n);
        named
            .or_else(|| text.parse().ok().filter(|n| *n <= 7))
            .ok_or_else(|| format!("\"{text}\" is not a weekday"))
    };
    let mut chosen = [false; 7];
    for part in field.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (
                range,
                step.parse()
                    .ok()
                    .filter(|s| *s > 0)
                    .ok_or_else(|| format!("\"{step}\" is not a step"))?,
            ),
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (0, 6),
            Some((first, last)) => (number(first)?, number(last)?),
            None if part.contains('/') => (number(range)?, 6),
            None => (number(range)?, number(range)?),
        };
        // "FRI-SUN" and "5-7" both end on a Sunday that is counted from the end.
        let last = if last < first && last == 0 { 7 } else { last };
        if last < first {
            return Err(format!("\"{range}\" runs backwards"));
        }
        for day in (first..=last).step_by(step) {
            chosen[day % 7] = true;
        }
    }
    Ok(NAMES
        .iter()
        .zip(chosen)
        .filter(|(_, c)| *c)
        .map(|(n, _)| *n)
        .collect::<Vec<_>>()
        .join(","))
}
