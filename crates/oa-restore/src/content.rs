//! Whether two databases hold the same.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use oa_core::pg::quote_ident;
use oa_repository::fingerprint::{self, SAME_TEXT};
use oa_repository::{ContentFingerprint, TableFingerprint};
use postgres::{Client, GenericClient};

use crate::RestoreError;

/// Comparing a database takes no longer than this.
const LIMIT: Duration = Duration::from_secs(2 * 3600);

/// All rows of a table: how many, and a sum of their hashes, whatever their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableContent {
    pub(crate) rows: i64,
    pub(crate) hash: String,
}

pub(crate) fn of_table(
    client: &mut impl GenericClient,
    schema: &str,
    table: &str,
) -> Result<TableContent, RestoreError> {
    let failed = RestoreError::query(format!("could not read {schema}.{table} to compare it"));
    let mut tx = client.transaction().map_err(&failed)?;
    tx.batch_execute(SAME_TEXT).map_err(&failed)?;
    // Half of an MD5 as a number; numeric, because their sum fits nowhere else.
    let sql = format!(
        "SELECT count(*), coalesce(sum(('x' || left(md5(t::text), 15))::bit(60)::int8::numeric), 0)::text FROM ONLY {}.{} t",
        quote_ident(schema),
        quote_ident(table)
    );
    let row = tx.query_one(&sql, &[]).map_err(&failed)?;
    tx.commit().map_err(&failed)?;
    Ok(TableContent {
        rows: row.get(0),
        hash: row.get(1),
    })
}

/// Rows of all tables of a database, and hashes of both ends of each.
pub(crate) fn of_database(
    client: &mut Client,
) -> Result<BTreeMap<String, TableFingerprint>, RestoreError> {
    let mut tx = client
        .transaction()
        .map_err(RestoreError::query("could not count the tables"))?;
    Ok(fingerprint::tables(&mut tx, Instant::now() + LIMIT)?)
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Tables that were compared.
    pub(crate) tables: usize,
    /// What must not be.
    pub(crate) wrong: Vec<String>,
    /// What may be, because the tables were counted while others wrote.
    pub(crate) unsure: Vec<String>,
}

/// Compares what was recorded when a backup was made with what is there now.
pub(crate) fn compare(
    recorded: &ContentFingerprint,
    now: &BTreeMap<String, TableFingerprint>,
) -> Comparison {
    let mut compared = Comparison::default();
    for (name, then) in &recorded.tables {
        let Some(found) = now.get(name) else {
            compared
                .wrong
                .push(format!("table {name} is missing, or could not be read"));
            continue;
        };
        compared.tables += 1;
        let differs = if found.rows != then.rows {
            format!(
                "table {name} has {} rows instead of {}",
                found.rows, then.rows
            )
        } else if found.hash.is_some() && then.hash.is_some() && found.hash != then.hash {
            format!("table {name} has other rows than were recorded")
        } else {
            continue;
        };
        if recorded.exact || (found.rows == 0 && then.rows > 0) {
            compared.wrong.push(differs);
        } else {
            compared.unsure.push(differs);
        }
    }
    compared
}

#[cfg(test)]
mod tests {
    use super::*;
    use oa_repository::Lsn;

    fn tables(rows: &[(&str, u64, &str)]) -> BTreeMap<String, TableFingerprint> {
        rows.iter()
            .map(|(name, rows, hash)| {
                let mark = TableFingerprint {
                    rows: *rows,
                    hash: Some((*hash).to_owned()),
                };
                ((*name).to_owned(), mark)
            })
            .collect()
    }

    #[test]
    fn a_count_taken_while_others_wrote_is_no_proof_but_a_missing_or_empty_table_is() {
        let mut mark = ContentFingerprint {
            lsn: Lsn(1),
            exact: true,
            tables: tables(&[("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z"), ("d", 4, "u")]),
        };
        let now = tables(&[("a", 1, "x"), ("b", 2, "other"), ("c", 0, "z")]);
        let exact = compare(&mark, &now);
        assert_eq!((exact.tables, exact.wrong.len()), (3, 3), "{exact:?}");
        mark.exact = false;
        let loose = compare(&mark, &now);
        assert_eq!((loose.wrong.len(), loose.unsure.len()), (2, 1), "{loose:?}");
    }
}
