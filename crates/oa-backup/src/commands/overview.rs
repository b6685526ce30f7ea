//! The list of backups.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::app::config::Config;
use oa_core::app::output::Listing;
use oa_core::base::units::Bytes;
use oa_repository::{Backup, Pin, RepositoryLocation};
use serde_json::{Value, json};

use crate::catalog::Recovered;

/// What is known of the backups of a repository, beside what they say themselves.
#[derive(Debug)]
pub(crate) struct Overview<'a> {
    pub(crate) location: &'a RepositoryLocation,
    pub(crate) zone: Tz,
    /// Why some of them cannot be restored.
    pub(crate) stranded: BTreeMap<String, String>,
    /// What came of recovering some of them.
    pub(crate) recovered: BTreeMap<String, Recovered>,
    /// What verification has found wrong with some of them.
    pub(crate) failed: BTreeMap<String, String>,
    /// Why some of them are kept whatever retention says.
    pub(crate) pins: BTreeMap<String, Pin>,
}

impl<'a> Overview<'a> {
    pub(crate) fn of(location: &'a RepositoryLocation, config: &Config) -> Self {
        Self {
            location,
            zone: config.timezone,
            stranded: BTreeMap::new(),
            recovered: BTreeMap::new(),
            failed: BTreeMap::new(),
            pins: BTreeMap::new(),
        }
    }

    pub(crate) fn listing(&self, backups: &[Backup]) -> Listing {
        let mut columns = vec![
            ("short_id", "id"),
            ("kind", "kind"),
            ("level", "level"),
            ("restorable_to_local", "restorable to"),
        ];
        if !self.recovered.is_empty() {
            columns.push(("recovered", "recovered to"));
        }
        columns.extend([("size", "size"), ("added", "added"), ("seconds", "seconds")]);
        if !self.pins.is_empty() {
            columns.push(("pinned", "pinned"));
        }
        let mut listing = Listing::new(&columns);
        for backup in backups {
            listing.push(self.row(backup));
        }
        listing
    }

    fn row(&self, b: &Backup) -> Value {
        let m = &b.meta;
        let seconds = (b.finished_at() - m.started_at).as_seconds_f64();
        let recovered = self.recovered.get(&b.id);
        let shown = recovered.map(|r| match (&r.error, r.to) {
            (Some(_), _) => "FAILED".to_owned(),
            (None, Some(to)) => self.local(to),
            (None, None) => String::new(),
        });
        json!({
            "id": b.id, "short_id": b.short_id(), "run_id": m.run_id, "repository": self.location.shown(), "kind": m.kind, "level": m.level,
            "full": m.full, "host": m.host, "database": m.database, "server_version": m.server_version, "system_id": m.system_id,
            "timeline": m.timeline, "start_lsn": m.wal.as_ref().map(|w| w.from).or(m.start_lsn),
            "end_lsn": m.wal.as_ref().map(|w| w.to).or(m.end_lsn),
            "restorable_from": time(m.restorable_from), "restorable_to": time(m.restorable_to), "started_at": time(m.started_at),
            "restorable_to_local": self.local(m.restorable_to),
            "finished_at": time(b.finished_at()), "seconds": (seconds * 10.0).round() / 10.0, "files": m.stored.files,
            "size_bytes": m.stored.size_bytes, "added_bytes": m.stored.added_bytes, "size": Bytes(m.stored.size_bytes).to_string(),
            "added": Bytes(m.stored.added_bytes).to_string(), "tables": m.mark.as_ref().map(|k| k.tables.len()),
            "unrestorable": self.stranded.get(&b.id), "check_error": self.failed.get(&b.id),
            "recovered": shown, "recovered_to": recovered.and_then(|r| r.to).map(time),
            "damaged_pages": m.damaged, "pinned": self.pins.get(&b.id).map(|p| &p.reason), "pinned_at": self.pins.get(&b.id).map(|p| time(p.at)),
            "recovery_error": recovered.and_then(|r| r.error.as_deref()),
        })
    }

    /// As `oa-restore --to` takes it.
    fn local(&self, at: DateTime<Utc>) -> String {
        at.with_timezone(&self.zone)
            .format("%Y-%m-%d %H:%M:%S %Z")
            .to_string()
    }
}

fn time(at: DateTime<Utc>) -> String {
    at.format("%Y-%m-%dT%H:%M:%SZ").to_string()
}
