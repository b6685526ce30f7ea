//! Some rows back into a table that lives on: by primary key, in one transaction. Absent ones are inserted, changed ones become what
//! they were, and their present versions are kept in a table beside.

use oa_core::pg::{quote_ident, revisions};
use postgres::{Client, Transaction};
use uuid::Uuid;

use super::tables::{Table, quoted};
use crate::RestoreError;

/// What was done to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PutBack {
    /// Rows that were not there.
    pub(crate) inserted: u64,
    /// Rows that were there with other values.
    pub(crate) updated: u64,
    /// Rows that were there just so.
    pub(crate) unchanged: u64,
}

/// Puts the rows of `copy` (a table in the same schema) back into `live`. `kept`: the name for the versions that are replaced.
/// `by`: the run for which the changes go into `oa.revisions`.
pub(crate) fn put_back(
    client: &mut Client,
    live: &Table,
    copy: &str,
    kept: &str,
    by: Option<Uuid>,
) -> Result<PutBack, RestoreError> {
    let failed = RestoreError::query(format!("could not put rows back into {}", live.shown()));
    let mut tx = client.transaction().map_err(&failed)?;
    let (into, from) = (live.quoted(), quoted(&live.schema, copy));
    tx.batch_execute(&format!("LOCK TABLE {into} IN SHARE ROW EXCLUSIVE MODE"))
        .map_err(&failed)?;
    let columns = columns(&mut tx, live, &from)?;
    let list = |prefix: &str| -> String {
        let all: Vec<String> = columns
            .iter()
            .map(|c| format!("{prefix}{}", quote_ident(&c.name)))
            .collect();
        all.join(", ")
    };
    let same_key = columns
        .iter()
        .filter(|c| c.key)
        .map(|c| {
            let name = quote_ident(&c.name);
            format!("l.{name} = c.{name}")
        })
        .collect::<Vec<_>>()
        .join(" AND ");
    // Compared as text: not every type has an equality.
    let differs = format!(
        "ROW({})::text IS DISTINCT FROM ROW({})::text",
        list("l."),
        list("c.")
    );
    let by = match by {
        Some(run) if revisions::are_there(&mut tx).map_err(&failed)? => Some(run),
        _ => None,
    };
    let touched = format!("SELECT l.* FROM {into} l JOIN {from} c ON {same_key}");
    if let Some(run) = by {
        revisions::name_run(&mut tx, run).map_err(&failed)?;
        tx.batch_execute(&format!(
            "CREATE TEMPORARY TABLE oa_before ON COMMIT DROP AS {touched}"
        ))
        .map_err(&failed)?;
    }
    let keep_as = quoted(&live.schema, kept);
    let changed = format!("FROM {into} l JOIN {from} c ON {same_key} WHERE {differs}");
    let updated: i64 = tx
        .query_one(&format!("SELECT count(*) {changed}"), &[])
        .map_err(&failed)?
        .get(0);
    if updated > 0 {
        tx.batch_execute(&format!("CREATE TABLE {keep_as} AS SELECT l.* {changed}"))
            .map_err(&failed)?;
        let sets: Vec<String> = columns
            .iter()
            .filter(|c| !c.key && !c.always)
            .map(|c| {
                let name = quote_ident(&c.name);
                format!("{name} = c.{name}")
            })
            .collect();
        if !sets.is_empty() {
            tx.batch_execute(&format!(
                "UPDATE {into} l SET {} FROM {from} c WHERE {same_key} AND {differs}",
                sets.join(", ")
            ))
            .map_err(&failed)?;
        }
    }
    let inserted = tx
        .execute(
            &format!(
                "INSERT INTO {into} ({}) OVERRIDING SYSTEM VALUE SELECT {} FROM {from} c WHERE NOT EXISTS (SELECT FROM {into} l WHERE {same_key})",
                list(""),
                list("c.")
            ),
            &[],
        )
        .map_err(&failed)?;
    if let Some(run) = by {
        let rows = ("pg_temp.oa_before", format!("({touched})"));
        revisions::rows_changed(&mut tx, &into, (rows.0, &rows.1), run).map_err(&failed)?;
    }
    let row = tx
        .query_one(
            &format!(
                "SELECT count(*), count(*) FILTER (WHERE l.{} IS NULL OR {differs}) FROM {from} c LEFT JOIN {into} l ON {same_key}",
                columns
                    .iter()
                    .find(|c| c.key)
                    .map_or_else(String::new, |c| quote_ident(&c.name))
            ),
            &[],
        )
        .map_err(&failed)?;
    let (all, wrong): (i64, i64) = (row.get(0), row.get(1));
    if wrong > 0 {
        return Err(RestoreError::Differs(format!(
            "{wrong} of {all} rows in {} would not be what they were, because a trigger changes them; nothing was changed. Restore the rows beside with --as",
            live.shown()
        )));
    }
    advance_sequences(&mut tx, live)?;
    tx.batch_execute(&format!("DROP TABLE {from}"))
        .map_err(&failed)?;
    tx.commit().map_err(&failed)?;
    let (all, updated) = (all.unsigned_abs(), updated.unsigned_abs());
    Ok(PutBack {
        inserted,
        updated,
        unchanged: all.saturating_sub(inserted + updated),
    })
}

/// A table that was emptied may have begun to count anew: its sequences must not give what rows have that are back.
fn advance_sequences(tx: &mut Transaction<'_>, live: &Table) -> Result<(), RestoreError> {
    let failed = RestoreError::query(format!(
        "could not put the sequences of {} right",
        live.shown()
    ));
    let rows = tx
        .query(
            "SELECT s.seqrelid::regclass::text, quote_ident(a.attname), s.seqincrement > 0
             FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype IN ('a', 'i')",
            &[&live.oid],
        )
        .map_err(&failed)?;
    for row in &rows {
        let (sequence, column, up): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let (farthest, beyond) = if up { ("max", ">") } else { ("min", "<") };
        tx.batch_execute(&format!(
            "SELECT setval('{}', at) FROM (SELECT {farthest}({column})::int8 AS at FROM {}) t, {sequence} s
             WHERE at {beyond} last_value OR (at = last_value AND NOT is_called)",
            sequence.replace('\'', "''"),
            live.quoted()
        ))
        .map_err(&failed)?;
    }
    Ok(())
}

struct Column {
    name: String,
    key: bool,
    /// An identity column that takes no value in an update.
    always: bool,
}

/// The columns that rows are put back with: all of the copy's, but those that the table computes itself.
fn columns(
    tx: &mut Transaction<'_>,
    live: &Table,
    copy: &str,
) -> Result<Vec<Column>, RestoreError> {
    let failed = RestoreError::query("could not compare the columns");
    let rows = tx
        .query(
            "SELECT c.attname::text, l.attname IS NOT NULL, coalesce(l.attgenerated <> '', false), coalesce(l.attidentity = 'a', false),
                    coalesce(l.attnum = ANY(i.indkey), false)
             FROM pg_attribute c LEFT JOIN pg_attribute l ON l.attrelid = $1 AND l.attname = c.attname AND NOT l.attisdropped AND l.attnum > 0
             LEFT JOIN pg_index i ON i.indrelid = $1 AND i.indisprimary
             WHERE c.attrelid = $2::text::regclass AND c.attnum > 0 AND NOT c.attisdropped ORDER BY c.attnum",
            &[&live.oid, &copy],
        )
        .map_err(&failed)?;
    let gone: Vec<String> = rows
        .iter()
        .filter(|r| !r.get::<_, bool>(1))
        .map(|r| r.get(0))
        .collect();
    if !gone.is_empty() {
        return Err(RestoreError::Refused(format!(
            "{} has no column {} any more; restore the rows beside with --as",
            live.shown(),
            gone.join(", ")
        )));
    }
    let columns: Vec<Column> = rows
        .iter()
        .filter(|r| !r.get::<_, bool>(2))
        .map(|r| Column {
            name: r.get(0),
            always: r.get(3),
            key: r.get(4),
        })
        .collect();
    let key: i64 = tx
        .query_one(
            "SELECT coalesce(max(indnkeyatts), 0)::int8 FROM pg_index WHERE indrelid = $1 AND indisprimary",
            &[&live.oid],
        )
        .map_err(&failed)?
        .get(0);
    if key == 0 || usize::try_from(key) != Ok(columns.iter().filter(|c| c.key).count()) {
        return Err(RestoreError::Refused(format!(
            "{} has no primary key that the rows had then, so nobody can say which rows are the same; restore them beside with --as",
            live.shown()
        )));
    }
    Ok(columns)
}
