//! Connecting for commands that change tables.

use anyhow::Result;
use oa_core::base::state_dir::StateDir;
use oa_core::pg::schema::{self, SchemaError};
use postgres::Client;

use super::{folder, target};
use crate::load::staging::{self, Target};
use crate::load::swap;

/// Connects: schema `oa` is there, the lock is held, nothing is left of runs that died. Refused
/// when another run holds the lock.
pub(crate) fn connect_exclusive(target: &Target, state: &StateDir) -> Result<Client> {
    let mut client = target.connect()?;
    match schema::check(&mut client) {
        Ok(()) => {}
        Err(SchemaError::Absent) => {
            schema::check_encoding(&mut client)?;
            schema::upgrade(&mut client)?;
        }
        Err(other) => return Err(other.into()),
    }
    staging::lock(&mut client)?;
    let stale = staging::stale(&mut client)?;
    let rolled_back = staging::schemas(&mut client, swap::AFTER)?;
    let here = target::runs_here(&mut client, state)?;
    folder::settle(
        state,
        |run| here.contains(&run),
        |run| stale.contains(&staging::schema_of(run)),
        |run| rolled_back.contains(&swap::after_schema(run)),
    )?;
    for name in stale {
        staging::drop_schema(&mut client, &name)?;
        tracing::warn!("removed {name}, left over from a run that died");
    }
    Ok(client)
}
