//! Large objects that a table's rows refer to. They are none of the table's own data, so `pg_dump` of a table skips them, and
//! the rows would point to nothing.

use oa_core::pg::{describe, quote_ident};
use postgres::{Client, GenericClient, Transaction};

use super::LiveServer;
use super::tables::Table;
use crate::RestoreError;
use crate::error::stop_if_asked;

/// So many bytes are carried at a time.
const CHUNK: i32 = 1 << 20;

/// What became of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct LargeObjects {
    /// They were missing in the live database, and are there now under the same numbers.
    pub(crate) brought: Vec<u32>,
    /// They are in the live database, and were left as they are.
    pub(crate) kept: usize,
}

impl LargeObjects {
    /// For people; nothing where there are none.
    pub(crate) fn shown(&self) -> String {
        let mut text = String::new();
        if !self.brought.is_empty() {
            text.push_str(&format!(", {} large objects with it", self.brought.len()));
        }
        if self.kept > 0 {
            text.push_str(&format!(
                ", {} large objects that are there were left as they are now",
                self.kept
            ));
        }
        text
    }

    /// After an error, which is reported; this one adds nothing to it.
    pub(crate) fn remove(&self, live: &mut LiveServer) {
        for oid in &self.brought {
            if let Err(e) = live.client.execute("SELECT lo_unlink($1)", &[oid]) {
                tracing::warn!("could not remove large object {oid}: {}", describe(&e));
            }
        }
    }
}

/// Brings those that a table refers to and the live database lacks, in one transaction: all of them, or none.
pub(crate) fn transfer(
    past: &mut Client,
    live: &mut LiveServer,
    table: &Table,
) -> Result<LargeObjects, RestoreError> {
    let wanted = referenced(past, table).map_err(RestoreError::in_private)?;
    let mut objects = LargeObjects::default();
    if wanted.is_empty() {
        return Ok(objects);
    }
    let failed = RestoreError::query(format!(
        "could not bring the large objects that {} refers to",
        table.shown()
    ));
    let superuser = live.superuser;
    let mut tx = live.client.transaction().map_err(&failed)?;
    for oid in wanted {
        stop_if_asked()?;
        let there = tx
            .query_opt(
                "SELECT FROM pg_largeobject_metadata WHERE oid = $1",
                &[&oid],
            )
            .map_err(&failed)?;
        if there.is_some() {
            objects.kept += 1;
            continue;
        }
        tx.execute("SELECT lo_create($1)", &[&oid])
            .map_err(&failed)?;
        copy_bytes(past, &mut tx, oid)?;
        if superuser {
            copy_rights(past, &mut tx, oid)?;
        }
        objects.brought.push(oid);
    }
    tx.commit().map_err(&failed)?;
    Ok(objects)
}

/// The large objects whose numbers are in columns of type `oid`, of a domain over it (`lo`), or of an array of them.
fn referenced(past: &mut Client, table: &Table) -> Result<Vec<u32>, RestoreError> {
    let failed = RestoreError::query("could not look for large objects");
    let columns = past
        .query(
            "WITH RECURSIVE of (name, type, is_array) AS (
               SELECT a.attname::text, a.atttypid, t.typcategory = 'A' FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
               WHERE a.attrelid = to_regclass($1::text) AND a.attnum > 0 AND NOT a.attisdropped
               UNION
               SELECT o.name, CASE WHEN t.typbasetype <> 0 THEN t.typbasetype ELSE t.typelem END, o.is_array FROM of o JOIN pg_type t ON t.oid = o.type
               WHERE t.typbasetype <> 0 OR t.typelem <> 0 AND o.is_array)
             SELECT name, is_array FROM of WHERE type = 'oid'::regtype",
            &[&table.quoted()],
        )
        .map_err(&failed)?;
    let parts: Vec<String> = columns
        .iter()
        .map(|row| {
            let name = quote_ident(row.get(0));
            let value = if row.get(1) {
                format!("unnest(t.{name})")
            } else {
                format!("t.{name}")
            };
            format!("SELECT {value}::oid AS oid FROM ONLY {} t", table.quoted())
        })
        .collect();
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let rows = past
        .query(
            &format!(
                "SELECT m.oid FROM pg_largeobject_metadata m WHERE m.oid IN ({}) ORDER BY 1",
                parts.join(" UNION ")
            ),
            &[],
        )
        .map_err(&failed)?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

fn copy_bytes(past: &mut Client, tx: &mut Transaction<'_>, oid: u32) -> Result<(), RestoreError> {
    let mut at: i64 = 0;
    loop {
        stop_if_asked()?;
        let bytes: Vec<u8> = past
            .query_one("SELECT lo_get($1, $2, $3)", &[&oid, &at, &CHUNK])
            .map_err(RestoreError::query(format!(
                "could not read large object {oid}"
            )))
            .map_err(RestoreError::in_private)?
            .get(0);
        if bytes.is_empty() {
            return Ok(());
        }
        tx.execute("SELECT lo_put($1, $2, $3)", &[&oid, &at, &bytes])
            .map_err(RestoreError::query(format!(
                "could not write large object {oid}"
            )))?;
        at += i64::try_from(bytes.len()).unwrap_or(i64::from(CHUNK));
    }
}

/// Owner and rights as they were, as far as there are such roles.
fn copy_rights(
    past: &mut Client,
    tx: &mut impl GenericClient,
    oid: u32,
) -> Result<(), RestoreError> {
    let statements = past
        .query(
            "SELECT pg_get_userbyid(lomowner)::text, false, format('ALTER LARGE OBJECT %s OWNER TO %I', oid, pg_get_userbyid(lomowner))
             FROM pg_largeobject_metadata WHERE oid = $1
             UNION ALL
             SELECT pg_get_userbyid(a.grantee)::text, a.grantee = 0, format('GRANT %s ON LARGE OBJECT %s TO %s%s', a.privilege_type, m.oid,
                      CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                      CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
             FROM pg_largeobject_metadata m, aclexplode(m.lomacl) a WHERE m.oid = $1 AND a.grantee <> m.lomowner",
            &[&oid],
        )
        .map_err(RestoreError::query(format!("could not read the rights of large object {oid}")))
        .map_err(RestoreError::in_private)?;
    let failed = RestoreError::query(format!("could not give large object {oid} its rights"));
    for row in &statements {
        let (role, everybody, statement): (String, bool, String) =
            (row.get(0), row.get(1), row.get(2));
        let known = tx
            .query_opt("SELECT FROM pg_roles WHERE rolname = $1", &[&role])
            .map_err(&failed)?;
        if everybody || known.is_some() {
            tx.batch_execute(&statement).map_err(&failed)?;
        }
    }
    Ok(())
}
