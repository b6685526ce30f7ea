//! Facts, without input and output: runs and their outcomes, events, kinds of error.

pub mod event;
mod finding;
pub mod retry;
pub mod roots;
pub mod run;

pub use event::{Alert, Event, Fault, Finding, Kind, Severity};
pub use run::{
    Attempt, Batch, Outcome, Quality, RawRecord, Reject, RunError, RunStart, Status, Trigger,
};
