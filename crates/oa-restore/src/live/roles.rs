//! Roles that something restored names, and that the live server may lack: one that was made anew has none of them.

use oa_core::pg::quote_ident;
use postgres::Client;

use super::LiveServer;
use super::tables::Table;
use crate::RestoreError;
use crate::recover::PRIVATE_SUPERUSER;

/// Owners, those who have rights, and those of policies and settings, of the whole database.
const OF_DATABASE: &str = "
    WITH db AS (SELECT oid, datdba FROM pg_database WHERE datname = current_database()),
    named AS (
        SELECT datdba AS role FROM db
        UNION SELECT refobjid FROM pg_shdepend, db WHERE refclassid = 'pg_authid'::regclass AND classid = 'pg_database'::regclass AND objid = db.oid
        UNION SELECT setrole FROM pg_db_role_setting, db WHERE setdatabase = db.oid
        UNION SELECT nspowner FROM pg_namespace WHERE oid >= 16384
        UNION SELECT relowner FROM pg_class WHERE oid >= 16384
        UNION SELECT proowner FROM pg_proc WHERE oid >= 16384
        UNION SELECT typowner FROM pg_type WHERE oid >= 16384
        UNION SELECT refobjid FROM pg_shdepend, db WHERE refclassid = 'pg_authid'::regclass AND dbid = db.oid)
    SELECT rolname::text FROM pg_roles JOIN named ON role = oid WHERE rolname !~ '^pg_' ORDER BY 1";
/// The same of one table with its sequences and policies.
const OF_TABLE: &str = "
    WITH mine AS (
        SELECT 'pg_class'::regclass AS class, $1::oid AS id
        UNION SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_class'::regclass AND refobjid = $1),
    named AS (
        SELECT relowner AS role FROM pg_class WHERE oid = $1
        UNION SELECT refobjid FROM pg_shdepend, mine WHERE refclassid = 'pg_authid'::regclass AND classid = class AND objid = id
            AND dbid = (SELECT oid FROM pg_database WHERE datname = current_database()))
    SELECT rolname::text FROM pg_roles JOIN named ON role = oid WHERE rolname !~ '^pg_' ORDER BY 1";

/// Makes the roles that a restored database, or one of its tables, names and the live server lacks; nobody can log in as one of them.
/// Whoever is no superuser restores no owners and rights.
pub(crate) fn make_missing(
    past: &mut Client,
    table: Option<&Table>,
    live: &mut LiveServer,
) -> Result<(), RestoreError> {
    if !live.superuser {
        return Ok(());
    }
    let rows = match table {
        None => past.query(OF_DATABASE, &[]),
        Some(table) => past.query(OF_TABLE, &[&table.oid]),
    };
    let rows = rows.map_err(|e| {
        RestoreError::query("could not look for the roles that it names")(e).in_private()
    })?;
    let names: Vec<String> = rows
        .iter()
        .map(|r| r.get(0))
        .filter(|n| n != PRIVATE_SUPERUSER)
        .collect();
    let missing = live
        .client
        .query(
            "SELECT name FROM unnest($1::text[]) name WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)",
            &[&names],
        )
        .map_err(RestoreError::query("could not look for roles"))?;
    for row in &missing {
        let name: String = row.get(0);
        live.client
            .batch_execute(&format!("CREATE ROLE {} NOLOGIN", quote_ident(&name)))
            .map_err(RestoreError::query(format!("could not make role {name}")))?;
        tracing::warn!(
            "role {name} was not there and was made, as one that cannot log in: ALTER ROLE {} LOGIN PASSWORD '…'",
            quote_ident(&name)
        );
    }
    Ok(())
}
