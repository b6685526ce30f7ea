//! One file per command: its arguments, and what it does with them.

mod accounts;
mod args;
pub(crate) mod backfill;
mod broken;
pub(crate) mod check;
pub(crate) mod cookies;
pub(crate) mod crontab;
mod document;
pub(crate) mod drain;
mod due;
pub(crate) mod enable;
pub(crate) mod exec;
pub(crate) mod export;
pub(crate) mod forget;
mod idle;
pub(crate) mod list;
pub(crate) mod new;
mod place;
pub(crate) mod prune;
pub(crate) mod replay;
mod report;
mod requested;
pub(crate) mod run;
pub(crate) mod settings;
pub(crate) mod try_source;

use oa_core::app::cli::Failure;
use oa_core::app::exit;

use crate::source::SourceError;

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        let code = match error {
            SourceError::Unknown { .. } => exit::USAGE,
            _ => exit::CONFIG,
        };
        Self::new(code, error)
    }
}
