//! Which runs of this machine belong to the database that a connection leads to.

use std::collections::HashSet;

use anyhow::{Result, anyhow};
use oa_core::base::state_dir::StateDir;
use oa_core::pg::describe;
use postgres::Client;
use postgres::error::SqlState;
use uuid::Uuid;

use super::folder;

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
