//! What a run makes of its day: one row a task and day in `oa.days`, written in the transaction of the run's outcome.
//!
//! A day is as good as the best that is known of it: a later run that brings less than is there takes nothing away, one that shows that
//! there is more, or that puts another day's content in its place, does.

use chrono::{DateTime, NaiveDate, Utc};

use crate::model::retry::ErrorKind;
use crate::model::run::{DayOutcome, Evidence, Outcome, RunError, Status, Trigger};
use crate::pg::{Session, Tx};

/// What came for a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Complete,
    Partial,
    Stale,
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Partial => "partial",
            Self::Stale => "stale",
            Self::Failed => "failed",
        }
    }

    /// The others are those of days for which nothing has come.
    fn parse(text: &str) -> Option<Self> {
        let all = [Self::Complete, Self::Partial, Self::Stale, Self::Failed];
        all.into_iter().find(|s| s.as_str() == text)
    }

    /// `refused`: PostgreSQL has refused some of the rows. `stale`: they are those of an earlier day.
    fn of(status: Status, refused: bool, stale: bool) -> Self {
        match status {
            Status::Success | Status::Partial if stale => Self::Stale,
            Status::Success if !refused => Self::Complete,
            Status::Success | Status::Partial => Self::Partial,
            _ => Self::Failed,
        }
    }
}

/// What is compared of a day as it is known and as a run leaves it.
#[derive(Debug, Clone, Copy)]
struct Known {
    state: State,
    records: i64,
    announced: i64,
    collected_at: Option<DateTime<Utc>>,
}

impl Known {
    fn replaces(&self, before: &Self) -> bool {
        if self.collected_at < before.collected_at {
            // What waited in a spool, or ran elsewhere.
            return before.state == State::Failed && self.state != State::Failed;
        }
        match (before.state, self.state) {
            (State::Failed, _) | (_, State::Complete) => true,
            (_, State::Failed) => false,
            // Its rows took the place of those that were there.
            (_, State::Stale) | (State::Stale, State::Partial) => true,
            (State::Partial, State::Partial) => self.records >= before.records,
            (State::Complete, State::Partial) => self.records.max(self.announced) > before.records,
        }
    }
}

const CONTENT_BEFORE: &str = "SELECT day, encode(content, 'hex') FROM oa.days WHERE task = $1 AND day < $2 AND content IS NOT NULL ORDER BY day DESC LIMIT 1";

/// The last day before this one that has content, and its SHA-256 in hexadecimal.
///
/// # Errors
/// When PostgreSQL fails.
pub fn content_before(
    session: &mut Session,
    task: &str,
    day: NaiveDate,
) -> Result<Option<(NaiveDate, String)>, postgres::Error> {
    let row = session.query_opt(CONTENT_BEFORE, &[&task, &day])?;
    Ok(row.map(|r| (r.get(0), r.get(1))))
}

/// The earlier day whose content a run has brought again, where that is not normal.
pub(crate) fn repeated(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
) -> Result<Option<NaiveDate>, postgres::Error> {
    let Some(of) = outcome.day.as_ref().filter(|of| !of.may_repeat) else {
        return Ok(None);
    };
    let before = tx.query_opt(CONTENT_BEFORE, &[&outcome.start.task, &of.day])?;
    Ok(before
        .filter(|row| of.content.as_deref() == Some(row.get(1)))
        .map(|row| row.get(0)))
}

/// The outcome of a run that brought the content of an earlier day.
pub(crate) fn as_stale(outcome: &Outcome, of: &DayOutcome, earlier: NaiveDate) -> Outcome {
    let mut stale = outcome.clone();
    let error = repeats(of.day, earlier);
    stale.status = Status::Partial;
    // Its fields are no example for the next run.
    stale.shape = None;
    if let Some(quality) = &mut stale.quality {
        quality.findings.push(format!("stale: {}", error.message));
    }
    stale.error = Some(error);
    stale
}

/// Why a day that has the content of an earlier one is not complete.
#[must_use]
pub fn repeats(day: NaiveDate, earlier: NaiveDate) -> RunError {
    RunError::new(
        ErrorKind::Stale,
        format!(
            "what came for {day} is what came for {earlier}, record by record: the site has nothing new yet (where that is normal, the source file says may_repeat = true)"
        ),
    )
}

/// Writes the day of an outcome. The task's row is locked by then, so that no other run of it is here.
pub(crate) fn record(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    refused: bool,
    repeated: bool,
    finished_at: DateTime<Utc>,
) -> Result<(), postgres::Error> {
    let Some(of) = &outcome.day else {
        return Ok(());
    };
    let task = &outcome.start.task;
    let kind = outcome.error.as_ref().map(|e| e.kind);
    let stale = repeated || kind == Some(ErrorKind::Stale);
    let state = State::of(outcome.status, refused, stale);
    let announced = outcome.quality.as_ref().and_then(|q| q.expected);
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    let now = Known {
        state,
        records: signed(outcome.fetched),
        announced: announced.map_or(0, signed),
        collected_at: (state != State::Failed).then_some(finished_at),
    };
    let before = tx.query_opt(
        "SELECT state, coalesce(records, 0), coalesce(announced, 0), collected_at FROM oa.days WHERE task = $1 AND day = $2 FOR UPDATE",
        &[task, &of.day],
    )?;
    // Nothing is owed for a day that was skipped, and somebody's try that brings nothing changes that as little.
    let was_skipped = before
        .as_ref()
        .is_some_and(|r| r.get::<_, &str>(0) == "skipped");
    let by_schedule = matches!(outcome.start.trigger, Trigger::Cron | Trigger::Due);
    if was_skipped && !by_schedule && state == State::Failed {
        return Ok(());
    }
    let before = before.and_then(|r| {
        Some(Known {
            state: State::parse(r.get(0))?,
            records: r.get(1),
            announced: r.get(2),
            collected_at: r.get(3),
        })
    });
    if before.is_some_and(|before| !now.replaces(&before)) {
        return Ok(());
    }
    let has_data = state != State::Failed;
    let evidence = (state == State::Complete)
        .then_some(of.evidence)
        .flatten()
        .map(Evidence::as_str);
    tx.execute(
        "INSERT INTO oa.days AS d (task, day, expected, state, run_id, collected_at, records, announced, usual, evidence, content)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, coalesce($9, (
           SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY records) FROM (
             SELECT records FROM oa.days WHERE task = $1 AND day < $2 AND state = 'complete' AND (extract(isodow FROM day) > 5) = (extract(isodow FROM $2) > 5)
             ORDER BY day DESC LIMIT 14) lately HAVING count(*) >= 3)), $10, decode($11, 'hex'))
         ON CONFLICT (task, day) DO UPDATE SET expected = d.expected OR excluded.expected, state = excluded.state, run_id = excluded.run_id,
           collected_at = excluded.collected_at, records = excluded.records, announced = excluded.announced, usual = excluded.usual,
           evidence = excluded.evidence, content = excluded.content, updated_at = now(),
           filled_at = CASE WHEN excluded.state = 'complete' AND d.reported_at IS NOT NULL THEN coalesce(d.filled_at, now()) END",
        &[
            task,
            &of.day,
            &by_schedule,
            &state.as_str(),
            &outcome.start.id,
            &now.collected_at,
            &has_data.then_some(now.records),
            &announced.map(signed),
            &of.usual.map(signed),
            &evidence,
            &of.content.as_deref().filter(|_| has_data),
        ],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(state: State, records: i64, announced: i64, minute: i64) -> Known {
        Known {
            state,
            records,
            announced,
            collected_at: (state != State::Failed)
                .then(|| DateTime::UNIX_EPOCH + chrono::TimeDelta::minutes(minute)),
        }
    }

    #[test]
    fn a_day_is_as_good_as_the_best_that_is_known_of_it() {
        use State::{Complete, Failed, Partial, Stale};
        for (before, now, replaced) in [
            ((Complete, 50, 50), (Complete, 70, 70), true),
            ((Complete, 50, 50), (Failed, 0, 0), false),
            // A later run that was cut off, and one that shows that there is more.
            ((Complete, 50, 50), (Partial, 20, 50), false),
            ((Complete, 50, 50), (Partial, 20, 0), false),
            ((Complete, 50, 50), (Partial, 40, 100), true),
            ((Complete, 50, 50), (Partial, 60, 0), true),
            ((Complete, 50, 50), (Stale, 50, 50), true),
            ((Partial, 30, 50), (Partial, 20, 50), false),
            ((Partial, 30, 50), (Partial, 40, 50), true),
            ((Partial, 30, 50), (Complete, 50, 50), true),
            ((Partial, 30, 50), (Failed, 0, 0), false),
            ((Stale, 50, 50), (Partial, 1, 50), true),
            ((Stale, 50, 50), (Failed, 0, 0), false),
            ((Failed, 0, 0), (Failed, 0, 0), true),
            ((Failed, 0, 0), (Partial, 1, 50), true),
        ] {
            let then = known(before.0, before.1, before.2, 10);
            let now = known(now.0, now.1, now.2, 20);
            assert_eq!(now.replaces(&then), replaced, "{then:?} {now:?}");
        }
    }

    #[test]
    fn what_comes_late_fills_only_what_is_empty() {
        use State::{Complete, Failed, Partial};
        for (before, late, replaced) in [
            (Complete, Complete, false),
            (Complete, Partial, false),
            (Partial, Complete, false),
            (Failed, Complete, true),
            (Failed, Partial, true),
            (Complete, Failed, false),
        ] {
            let late = known(late, 90, 90, 10);
            let before = known(before, 50, 50, 20);
            assert_eq!(late.replaces(&before), replaced, "{before:?} {late:?}");
        }
    }
}
