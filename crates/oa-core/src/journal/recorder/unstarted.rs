//! Runs that could not begin.

use super::watch_clocks;
use crate::base::clock;
use crate::journal::incidents::Policy;
use crate::journal::store;
use crate::model::retry::ErrorKind;
use crate::model::{Outcome, RunError, RunStart, Status};
use crate::pg::{self, schema};

/// Records the failure of a run that could not even begin, because this machine has no place to note it; as far as PostgreSQL
/// can be reached.
pub(crate) fn store_unstarted(
    settings: &pg::Settings,
    policy: &Policy,
    start: RunStart,
    reason: &str,
) {
    let mut outcome = Outcome::bare(start, Status::Failed, clock::now());
    outcome.error = Some(RunError::new(ErrorKind::Internal, reason));
    let connected = pg::connect(settings).map_err(|e| e.to_string());
    let recorded = connected.and_then(|mut client| {
        schema::check(&mut client).map_err(|e| e.to_string())?;
        outcome.on_server_clock(watch_clocks(&mut client).map_err(|e| e.to_string())?);
        store::apply(&mut client, &outcome, policy).map_err(|e| e.to_string())
    });
    if let Err(e) = recorded {
        tracing::error!(
            "{}: not even the failure is recorded: {e}",
            outcome.start.task
        );
    }
}
