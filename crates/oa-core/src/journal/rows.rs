//! The rows of an outcome: what of them PostgreSQL has taken, and whether that is enough.

use serde_json::Value;

use super::store::StoreError;
use crate::base::exact;
use crate::journal::incidents::Policy;
use crate::model::retry::ErrorKind;
use crate::model::run::Batch;
use crate::model::{Outcome, Reject, RunError, Status};
use crate::pg::upsert::{Refused, UpsertError, upsert_in};
use crate::pg::{Deferred, Meaning, Tx, revisions, settled};

/// Before its reason, in a reject.
const REFUSED: &str = "PostgreSQL refused the row: ";

/// What became of them.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) inserted: u64,
    pub(super) updated: u64,
    pub(super) unchanged: u64,
    /// Those that PostgreSQL refused.
    pub(super) refused: Vec<Reject>,
    /// What was noticed, in sentences.
    pub(super) findings: Vec<String>,
}

/// Stores them; what is checked only at the commit is checked by then.
pub(super) fn store(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    policy: &Policy,
) -> Result<Stored, StoreError> {
    if outcome.batches.is_empty() {
        return Ok(Stored::default());
    }
    tx.execute(revisions::NAME_RUN, &[&outcome.start.id.to_string()])?;
    settled(tx, |tx, deferred| store_all(tx, outcome, policy, deferred))
}

fn store_all(
    tx: &mut Tx<'_, '_>,
    outcome: &Outcome,
    policy: &Policy,
    deferred: Deferred,
) -> Result<Stored, StoreError> {
    let by = policy.keep_revisions.then_some(outcome.start.id);
    let mut stored = Stored::default();
    let (newest, own): (Vec<&Batch>, Vec<&Batch>) =
        outcome.batches.iter().partition(|b| b.newest_by.is_some());
    let fill = |tx: &mut Tx<'_, '_>, findings: &mut Vec<String>| -> Result<(), StoreError> {
        for batch in &newest {
            let (mut savepoint, prepared) = tx.savepoint()?;
            match upsert_in(&mut Tx::new(&mut savepoint, prepared), batch, by, deferred) {
                Ok(done) => {
                    savepoint.commit()?;
                    let (table, refused) = (&batch.table, done.refused.len());
                    findings.extend(done.refused.first().map(|first| {
                        let reason = &first.reason;
                        format!("{table} was not filled by {refused} row(s): {reason}")
                    }));
                }
                Err(e) if is_unfit(&e) => {
                    findings.push(format!("{} was not filled: {e}", batch.table));
                }
                Err(e) => return Err(e.into()),
            }
        }
        Ok(())
    };
    // Rows may refer to those, and then are checked at once.
    if deferred == Deferred::AtOnce {
        fill(tx, &mut stored.findings)?;
    }
    for batch in &own {
        let done = upsert_in(tx, batch, by, deferred)?;
        stored.findings.extend(done.rounded);
        stored.inserted += done.inserted;
        stored.updated += done.updated;
        stored.unchanged += done.unchanged;
        let refused = done.refused.into_iter().map(|r| refused_row(batch, r));
        stored.refused.extend(refused);
    }
    if deferred == Deferred::AtTheEnd {
        fill(tx, &mut stored.findings)?;
    }
    Ok(stored)
}

/// Whether a table cannot be filled as a table of newest values, see [`Batch::newest_by`].
fn is_unfit(error: &UpsertError) -> bool {
    error.meaning() == Meaning::Misconfigured || matches!(error, UpsertError::AllRefused { .. })
}

fn refused_row(batch: &Batch, refused: Refused) -> Reject {
    let values = batch.columns.iter().zip(&refused.row);
    let key = values.filter(|(column, _)| batch.key.contains(column));
    let text =
        |value: &Value| exact::text(value).map_or_else(|| exact::to_text(value), str::to_owned);
    let key: Vec<String> = key.map(|(_, value)| text(value)).collect();
    Reject {
        target: Some(batch.table.clone()),
        source_key: (!key.is_empty()).then(|| key.join(", ")),
        field: None,
        reason: format!("{REFUSED}{}", refused.reason),
        record: Value::Object(batch.columns.iter().cloned().zip(refused.row).collect()),
    }
}

impl Stored {
    /// How a run ends that would be a success, had PostgreSQL not refused so many of its rows, and why: as for records that the source's
    /// own rules reject. One that is partial for another reason has failed, where nothing at all is stored.
    pub(super) fn too_many_refused(&self, outcome: &Outcome) -> Option<(Status, RunError)> {
        let first = self.refused.first()?;
        let is_success = outcome.status == Status::Success;
        if !is_success && outcome.status != Status::Partial {
            return None;
        }
        let (refused, before) = (self.refused.len(), outcome.rejects.len());
        let taken = self.inserted + self.updated + self.unchanged;
        let came = outcome.fetched.max(taken + (refused + before) as u64);
        let (status, what) = if taken == 0 {
            (
                Status::Failed,
                format!("PostgreSQL refused all {refused} rows"),
            )
        } else if is_success && (refused + before) as f64 > outcome.max_rejected * came as f64 {
            let what = format!(
                "{} of {came} records are not stored, {refused} of them because PostgreSQL refused their rows",
                refused + before
            );
            (Status::Partial, what)
        } else {
            return None;
        };
        let reason = first.reason.strip_prefix(REFUSED).unwrap_or(&first.reason);
        let mut what = format!("{what}; the first: {reason}");
        if let Some(besides) = &outcome.error {
            what.push_str("; besides: ");
            what.push_str(&besides.message);
        }
        Some((status, RunError::new(ErrorKind::Invalid, what)))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use chrono::Utc;

    use super::*;
    use crate::model::RunStart;
    use crate::model::run::Trigger;

    #[test]
    fn a_run_of_which_nothing_is_stored_has_failed() {
        let start = || RunStart::now("t", "0", "t", "t", Trigger::Manual, Duration::from_secs(60));
        let outcome = |status| Outcome::bare(start(), status, Utc::now());
        let refused = |inserted, count| Stored {
            inserted,
            refused: (0..count).map(|_| one()).collect(),
            ..Stored::default()
        };
        let ends = |status, stored: Stored| stored.too_many_refused(&outcome(status)).map(|e| e.0);
        let (success, partial, failed) = (Status::Success, Status::Partial, Status::Failed);
        assert_eq!(ends(success, refused(9, 1)), None);
        assert_eq!(ends(success, refused(8, 2)), Some(partial));
        assert_eq!(ends(success, refused(0, 2)), Some(failed));
        assert_eq!(ends(success, refused(0, 0)), None);
        assert_eq!(ends(partial, refused(1, 9)), None);
        assert_eq!(ends(failed, refused(0, 9)), None);
        let mut short = outcome(partial);
        short.error = Some(RunError::new(ErrorKind::Partial, "one of two"));
        let (status, error) = refused(0, 1).too_many_refused(&short).unwrap();
        assert_eq!(status, failed);
        assert!(
            error.message.ends_with("no; besides: one of two"),
            "{error:?}"
        );
    }

    fn one() -> Reject {
        Reject {
            target: None,
            source_key: None,
            field: None,
            reason: "no".to_owned(),
            record: Value::Null,
        }
    }
}
