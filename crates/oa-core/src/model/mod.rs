//! Facts, without input and output.

pub mod event;

pub use event::{Alert, Event, Fault, Finding, Kind, Severity};
