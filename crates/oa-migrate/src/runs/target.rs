//! Which runs of this machine belong to the database that a connection leads to.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use oa_core::base::state_dir::StateDir;
use oa_core::pg::describe;
use postgres::error::SqlState;
use postgres::{Client, GenericClient};
use uuid::Uuid;

use super::folder;
use crate::errors::Refused;

/// A name for the connected database that no other one has; none where the role may not read the server's identifier.
pub(crate) fn id(client: &mut Client) -> Result<Option<String>> {
    let answer = client.query_one(
        "SELECT c.system_identifier::text || ' ' || d.oid::text || ' ' || d.datname
         FROM pg_control_system() AS c, pg_database AS d WHERE d.datname = current_database()",
        &[],
    );
    match answer {
        Ok(row) => Ok(Some(row.get(0))),
        Err(e) if e.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) => Ok(None),
        Err(e) => Err(anyhow!("could not identify the database: {}", describe(&e))),
    }
}

/// The runs whose target is the connected database: it has their rows in its run log, or, should they be gone from there, is the
/// one that they noted.
pub(crate) fn runs_here(client: &mut Client, state: &StateDir) -> Result<HashSet<Uuid>> {
    let all = folder::runs(state)?;
    let ids: Vec<Uuid> = all.iter().map(|(_, r)| r.run_id).collect();
    if ids.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = client
        .query("SELECT id FROM oa.runs WHERE id = ANY ($1)", &[&ids])
        .map_err(|e| anyhow!("could not read the run log: {}", describe(&e)))?;
    let mut here: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    if let Some(own) = id(client)? {
        here.extend(
            all.iter()
                .filter(|(_, r)| r.target.as_ref() == Some(&own))
                .map(|(_, r)| r.run_id),
        );
    }
    Ok(here)
}

/// Refuses to read tables of which policies hide rows from the role: what is hidden can be neither compared nor missed.
pub(crate) fn refuse_hidden_rows(
    client: &mut impl GenericClient,
    schema: &str,
    targets: &[&str],
) -> Result<()> {
    let hidden = client
        .query_opt(
            "SELECT c.oid::regclass::text, quote_ident(current_user), pg_has_role(c.relowner, 'USAGE') FROM pg_class c
             WHERE c.relnamespace = to_regnamespace(quote_ident($1)) AND c.relname = ANY ($2) AND row_security_active(c.oid) ORDER BY 1 LIMIT 1",
            &[&schema, &targets],
        )
        .map_err(|e| anyhow!("could not look at the policies of {schema}: {}", describe(&e)))?;
    let Some(row) = hidden else { return Ok(()) };
    let (table, role): (String, String) = (row.get(0), row.get(1));
    let remedy = if row.get(2) {
        format!(
            "ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY for as long as this takes, or, as a superuser, ALTER ROLE {role} BYPASSRLS"
        )
    } else {
        format!("use the table's owner, or, as a superuser, ALTER ROLE {role} BYPASSRLS")
    };
    Err(Refused(format!(
        "row level security hides rows of {table} from role {role}, so the two sides cannot be compared; nothing was changed. {remedy}"
    ))
    .into())
}
