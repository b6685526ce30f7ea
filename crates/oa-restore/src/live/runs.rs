//! Runs that were under way when what is restored was as it is restored: in it they never end, and would be reported as interrupted.

use std::collections::BTreeMap;

use oa_repository::Backup;
use postgres::Client;
use serde_json::Value;
use uuid::Uuid;

use crate::RestoreError;

/// Programs whose work is not in the database: how they ended is true of a restored one as well. What others have stored since is not in it.
const ELSEWHERE: [&str; 4] = ["oa-backup", "oa-restore", "oa-alert", "oa-report"];
const CUT_OFF: &str = "the database was restored to a time before this run had ended";

/// What is known of what came after the restored point in time.
pub(crate) struct Since<'a> {
    /// The database that is live now, where it answers.
    pub(crate) live: Option<&'a mut Client>,
    pub(crate) backups: &'a [Backup],
    /// There was more, which was not restored: a run of which nobody knows anything has gone on in that.
    pub(crate) cut_off: bool,
}

/// Ends in a restored database the runs that have ended since. One that is still under way ends by itself.
pub(crate) fn close(restored: &mut Client, since: &mut Since<'_>) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not end the runs that were under way");
    let open = match restored.query_one("SELECT to_regclass('oa.runs') IS NOT NULL", &[]) {
        Ok(row) if row.get(0) => restored
            .query(
                "SELECT id, tool FROM oa.runs WHERE finished_at IS NULL",
                &[],
            )
            .map_err(&failed)?,
        Ok(_) => return Ok(()),
        Err(e) => return Err(failed(e)),
    };
    let ids: Vec<Uuid> = open.iter().map(|row| row.get(0)).collect();
    if ids.is_empty() {
        return Ok(());
    }
    let now = match &mut since.live {
        Some(live) => known(live, &ids).map_err(&failed)?,
        None => BTreeMap::new(),
    };
    let mut tx = restored
        .build_transaction()
        .read_only(false)
        .start()
        .map_err(&failed)?;
    for row in &open {
        let (id, tool): (Uuid, String) = (row.get(0), row.get(1));
        let elsewhere = ELSEWHERE.contains(&tool.as_str());
        let made = || since.backups.iter().find(|b| b.meta.run_id == id);
        let ended = match (now.get(&id), made()) {
            (Some(None), _) => continue,
            (None, None) if !since.cut_off => continue,
            (Some(Some(run)), _) if elsewhere => tx.execute(
                "UPDATE oa.runs r SET status = x.status, finished_at = x.finished_at, attempts = x.attempts, fetched = x.fetched, inserted = x.inserted,
                        updated = x.updated, unchanged = x.unchanged, rejected = x.rejected, error_kind = x.error_kind, error_message = x.error_message,
                        details = x.details, lease_until = NULL
                 FROM jsonb_populate_record(NULL::oa.runs, $2) x WHERE r.id = $1",
                &[&id, run],
            ),
            (Some(Some(_)), _) | (None, None) => tx.execute(
                "UPDATE oa.runs SET status = 'abandoned', finished_at = now(), lease_until = NULL, error_kind = 'internal', error_message = $2 WHERE id = $1",
                &[&id, &CUT_OFF],
            ),
            // The backup is there, so it was made.
            (None, Some(backup)) => tx.execute(
                "UPDATE oa.runs SET status = 'success', finished_at = greatest(started_at, $2), lease_until = NULL WHERE id = $1",
                &[&id, &backup.finished_at()],
            ),
        };
        ended.map_err(&failed)?;
    }
    tx.commit().map_err(failed)
}

/// What the live database knows of runs: how they ended, or that they have not.
fn known(
    live: &mut Client,
    ids: &[Uuid],
) -> Result<BTreeMap<Uuid, Option<Value>>, postgres::Error> {
    let there: bool = live
        .query_one("SELECT to_regclass('oa.runs') IS NOT NULL", &[])?
        .get(0);
    if !there {
        return Ok(BTreeMap::new());
    }
    let rows = live.query(
        "SELECT id, CASE WHEN finished_at IS NOT NULL THEN to_jsonb(r) END FROM oa.runs r WHERE id = ANY($1)",
        &[&ids],
    )?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}
