//! The repository: restic's format, read and written by `rustic_core`, so that a stock `restic` can restore from it should this
//! project vanish. This library adds what backups need besides: what is stored is complete, it is durable before it is called
//! done, and every snapshot says in itself what it is ([`Meta`]). `oa-backup` writes it, `oa-restore` reads it.
//!
//! ```text
//! location, key ─ where it is and what opens it   spare, permissions ─ its configuration and keys
//! repository ─ open: list, forget, prune, copy    store, ahead, follow ─ a backup, whole or not at all
//! check, damage, repair ─ what is wrong, whose    reader ─ what is in backups, and bringing it back
//! pin ─ backups that retention does not remove
//! engine, stop, durable, s3 ─ the engine, and the storage below it
//! timeline, segment, parameters ─ which WAL goes on from which backup, and what it needs
//! fingerprint, programs, staging ─ what taking and restoring have in common
//! ```
//! Two programs may write at once; what `prune` finds unused it only marks, and removes a day later.

mod ahead;
mod backup;
mod check;
mod damage;
mod durable;
mod engine;
mod error;
pub mod fingerprint;
mod follow;
#[cfg(test)]
mod fuzz;
mod key;
pub mod layout;
mod location;
mod meta;
pub mod parameters;
mod permissions;
mod pin;
mod programs;
pub mod progress;
mod reader;
mod repair;
mod repository;
mod s3;
mod segment;
mod spare;
pub mod staging;
mod stop;
mod store;
pub mod timeline;

use chrono::TimeDelta;

pub use self::ahead::{Checksums, CopyInProgress, StoredAhead};
pub use self::backup::Backup;
pub use self::check::Damage;
pub use self::error::{PostgresError, RepositoryError};
pub use self::location::RepositoryLocation;
pub use self::meta::{
    ContentFingerprint, Counts, Kind, Level, Lsn, Meta, TableFingerprint, WalRange,
};
pub use self::pin::Pin;
pub use self::programs::Programs;
pub use self::progress::ProgressReporter;
pub use self::reader::{Reader, StoredFile};
pub use self::repair::RepairReport;
pub use self::repository::{Copies, Repository};
pub use self::segment::Segment;
pub use self::spare::SpareReport;
pub use self::store::UnpublishedBackup;

/// The clocks of server and repository may differ by this much.
pub const MAX_CLOCK_SKEW: TimeDelta = TimeDelta::minutes(10);
