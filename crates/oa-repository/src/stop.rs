//! The engine goes on until a read or a write fails. So that a long backup, check or restore ends soon after SIGTERM, the next pack
//! fails. Files other than packs are still written and read: what is being undone must not be kept from it.

use oa_core::base::supervise::StopSignal;
use rustic_core::{ErrorKind, FileType, RusticError, RusticResult};

pub(crate) fn go_on(kind: FileType) -> RusticResult<()> {
    if kind != FileType::Pack {
        return Ok(());
    }
    oa_core::base::failpoint::hit("repository.pack");
    if StopSignal.requested() {
        return Err(RusticError::new(
            ErrorKind::Other,
            "This process was asked to stop.",
        ));
    }
    Ok(())
}
