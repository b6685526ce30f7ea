//! The run log: every start of any program's task leaves a row, before the work begins, and a final state in the same
//! transaction as the data.
//!
//! [`RunStart`], [`Outcome`] and [`Alert`](crate::model::Alert) are plain serialisable facts. [`store`] writes them to
//! PostgreSQL, each of them idempotent by its id; the [`spool`](crate::spool) keeps the same facts while PostgreSQL is away.
//! [`Recorder`] is what a program uses: it decides between the two.

pub mod attempts;
pub mod due;
pub mod history;
pub mod model;
pub mod raw_index;
mod recorder;
mod stopwatch;
pub mod store;
pub mod watch;
pub mod work;

pub use model::{
    Attempt, Outcome, Quality, RawRecord, Reject, RunError, RunStart, Status, Trigger,
};
pub use recorder::{Away, Begun, Recorded, Recorder, Run, record_unstarted};
pub use stopwatch::Stopwatch;
pub use store::{Applied, StoreError};
