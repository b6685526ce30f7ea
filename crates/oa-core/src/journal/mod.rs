//! What happened, in PostgreSQL, or in the spool while that is down: runs, incidents and the outbox, and the verdict on backups.
//!
//! Every start of any program's task leaves a row before the work begins, and a final state in the same transaction as the data.
//! [`RunStart`](crate::model::RunStart), [`Outcome`](crate::model::Outcome) and [`Alert`](crate::model::Alert) are plain serialisable
//! facts. [`store`] writes them to PostgreSQL, each of them idempotent by its id; the [`spool`] keeps the same facts while PostgreSQL
//! is down. [`Recorder`] is what a program uses: it decides between the two. Nothing here knows a sentence for people or an exit code.

pub mod abandoned;
pub mod answers;
pub mod attempts;
pub mod catalog;
pub mod days;
pub mod due;
mod error;
pub mod history;
pub mod incidents;
mod kept;
pub mod live_output;
pub mod raw_index;
pub(crate) mod recorder;
pub mod requests;
mod rows;
mod run;
pub mod runner;
pub mod slots;
pub mod spool;
mod stopwatch;
pub mod store;
pub mod tasks;
pub mod watch;

pub use error::{DbUnavailable, JournalError};
pub use recorder::{NOT_ARCHIVED, Persisted, Recorder, StartOutcome};
pub use run::Run;
pub use stopwatch::Stopwatch;
pub use store::{StoreError, WriteCounts};
