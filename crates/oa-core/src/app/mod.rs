//! Everything that makes six programs feel like one: configuration, command line, exit codes, output.

pub mod cli;
pub mod config;
pub mod exit;
mod flush;
pub mod logging;
pub mod man;
pub mod output;
pub mod progress;
mod settings;
pub mod sibling;
pub mod words;
pub mod work;

pub use flush::flush_now;
pub use settings::record_unstarted;
