//! While neither PostgreSQL nor the disk accepts anything, alerts wait in this machine's memory.

use chrono::TimeDelta;
use postgres::Client;

use super::Recorder;
use crate::journal::error::JournalError;
use crate::journal::incidents;
use crate::journal::spool::{DrainError, Spool, SpoolError};
use crate::model::RunStart;
use crate::model::event::{Event, Fault};
use crate::pg::describe;

impl Recorder {
    /// What people were to be notified of while neither store took anything.
    pub(super) fn drain_memory(&self, client: &mut Client, offset: TimeDelta) {
        if !self.state.has_memory() {
            return;
        }
        let drained = self.memory_spool().map_err(DrainError::from);
        let drained = drained.and_then(|mut s| s.drain(client, offset, &self.policy));
        let host = &self.host;
        let resolved = incidents::resolve_machine(client, Fault::NoStore, host, None);
        if let Err(e) = drained {
            tracing::warn!("alerts in memory stay there: {e}");
        }
        if let Err(e) = resolved {
            tracing::warn!("could not put an alert into the outbox: {}", describe(&e));
        }
    }

    /// Where alerts wait while neither store takes anything.
    ///
    /// # Errors
    /// When this machine's memory takes nothing either.
    pub fn memory_spool(&self) -> Result<Spool, SpoolError> {
        /// Alerts are small; a disk that stays full must not eat the memory.
        const LIMIT: u64 = 1 << 20;
        Spool::open(&self.state.in_memory()?, LIMIT)
    }

    /// Neither store takes this run. People are notified from memory.
    pub(super) fn lost(&self, start: &RunStart, reason: &str, spool: SpoolError) -> JournalError {
        let lost = JournalError::Lost {
            reason: reason.to_owned(),
            spool,
        };
        self.spool_alert(Fault::NoStore, &format!("{}: {lost}", start.task));
        lost
    }

    pub(in crate::journal) fn spool_alert(&self, fault: Fault, reason: &str) {
        self.spool_event(self.machine_event(fault, None, reason));
    }

    pub(super) fn spool_event(&self, event: Event) {
        let repeat = self.policy.repeat;
        let on_disk = match self.state.fault() {
            None => self
                .spool()
                .and_then(|mut s| s.raise(event.clone(), repeat)),
            Some(fault) => Err(fault.into()),
        };
        let raised = on_disk.or_else(|e| {
            tracing::warn!("an alert goes to memory: {e}");
            self.memory_spool().and_then(|mut s| s.raise(event, repeat))
        });
        if let Err(e) = raised {
            tracing::error!("could not spool an alert: {e}");
        }
    }
}
