//! What a backup is, written into the snapshot itself as JSON: the repository can be understood without the database.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A position in the WAL, in bytes since its beginning. Written as PostgreSQL writes it: `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

impl FromStr for Lsn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(high, low)| {
            let high = u32::from_str_radix(high, 16).ok()?;
            let low = u32::from_str_radix(low, 16).ok()?;
            Some(u64::from(high) << 32 | u64::from(low))
        });
        parts
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is not an LSN such as 16/B374D848"))
    }
}

impl From<Lsn> for String {
    fn from(lsn: Lsn) -> Self {
        lsn.to_string()
    }
}

impl TryFrom<String> for Lsn {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

/// How the data was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// The cluster's files and its WAL.
    Physical,
    /// A dump of the database, and the roles.
    Logical,
    /// Files that are not PostgreSQL's.
    Files,
}

impl Kind {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Physical => "physical",
            Self::Logical => "logical",
            Self::Files => "files",
        }
    }
}

/// Whether it stands alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It does.
    Full,
    /// Physical: the WAL since a full one. Logical: a dump too, of which only what is new takes space.
    Incremental,
}

impl Level {
    /// The name under which it is stored.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Incremental => "incremental",
        }
    }
}

/// WAL segments that follow each other without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRange {
    /// Where the first segment begins.
    pub from: Lsn,
    /// Up to here the last segment was received.
    pub to: Lsn,
    /// Size of a segment in bytes.
    pub segment_bytes: u64,
}

/// What a table held, so that a restore can be compared with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableFingerprint {
    /// All its rows.
    pub rows: u64,
    /// MD5 over a bounded number of rows in the order of the key; absent where there is no key, or no time was left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
}

/// What the database held at one LSN.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContentFingerprint {
    /// A restore up to here has exactly this, if `exact`.
    pub lsn: Lsn,
    /// No transaction was under way when it was taken. Else rows written just then may be on either side.
    pub exact: bool,
    /// By `schema.table`.
    pub tables: BTreeMap<String, TableFingerprint>,
}

/// What the engine counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Files and links.
    pub files: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// What the repository grew by, in bytes.
    pub added_bytes: u64,
}

/// What a backup is. Times are UTC, and of the server's clock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    /// Version of this description.
    pub oa: u32,
    /// The run that made it.
    pub run_id: Uuid,
    /// How.
    pub kind: Kind,
    /// Whether it stands alone.
    pub level: Level,
    /// The full backup whose WAL this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
    /// The machine that made it.
    pub host: String,
    /// The database that was dumped, or the one whose tables were marked.
    pub database: String,
    /// `server_version_num`, for example 150018.
    pub server_version: i32,
    /// The cluster's own number.
    pub system_id: String,
    /// The cluster's timeline.
    pub timeline: u32,
    /// A full physical one: recovery begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_lsn: Option<Lsn>,
    /// A full physical one: recovery must come at least this far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_lsn: Option<Lsn>,
    /// The segments in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wal: Option<WalRange>,
    /// The earliest time that it can restore.
    pub restorable_from: DateTime<Utc>,
    /// The latest one.
    pub restorable_to: DateTime<Utc>,
    /// When the capture began.
    pub started_at: DateTime<Utc>,
    /// When the capture ended, before it was stored.
    pub captured_at: DateTime<Utc>,
    /// When all of it was stored. Backups of earlier versions do not say so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<DateTime<Utc>>,
    /// Settings of the server that recovery needs to be at least as large.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
    /// Tablespaces: their number, and where they were.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tablespaces: BTreeMap<String, String>,
    /// Pages of the server that did not have the checksums that they should: they are damaged in the backup as well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<String>,
    /// What was in the tables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mark: Option<ContentFingerprint>,
    /// How much it is.
    #[serde(default)]
    pub stored: Counts,
}

impl Meta {
    /// Whether it is restored by itself. Any dump is, and any backup of files: their level says only how they were requested.
    #[must_use]
    pub fn stands_alone(&self) -> bool {
        self.kind != Kind::Physical || self.level == Level::Full
    }

    /// The label of its snapshot, which also says that a snapshot is ours before it is a backup.
    #[must_use]
    pub fn label(&self) -> String {
        match self.kind {
            // Compared with the last one whatever its level: the engine looks for one of the same label.
            Kind::Files => "oa files".to_owned(),
            kind => format!("oa {} {}", kind.as_str(), self.level.as_str()),
        }
    }

    pub(crate) fn to_text(&self) -> serde_json::Result<String> {
        serde_json::to_string(self)
    }

    pub(crate) fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsns_are_read_and_written_as_postgresql_does() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().unwrap().to_string(), text);
        }
        assert!("0/1".parse::<Lsn>().unwrap() < "1/0".parse::<Lsn>().unwrap());
        for wrong in ["", "1", "1/2/3", "x/1", "1/123456789"] {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }
}
