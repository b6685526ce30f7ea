//! Who watches: the last `oa-alert check` and `oa-crawl run --due` of each machine.

use chrono::{DateTime, Utc};
use postgres::GenericClient;

use super::{Result, text};

/// What has not watched for longer watches no more. Both are started each minute.
const SILENT: f64 = 600.0;

/// The last check or start of due runs of one machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Watch {
    /// `check` or `due`.
    pub(crate) what: String,
    pub(crate) host: String,
    pub(crate) at: DateTime<Utc>,
    /// It worked, and what was found reaches people.
    pub(crate) ok: bool,
    pub(crate) detail: String,
    /// How long ago, by PostgreSQL's clock, in seconds.
    pub(crate) age: f64,
}

impl Watch {
    /// It should have come again long ago.
    pub(crate) fn is_silent(&self) -> bool {
        self.age > SILENT
    }
}

/// All of them, by what they do, the newest first.
pub(crate) fn all(client: &mut impl GenericClient) -> Result<Vec<Watch>> {
    let rows = client.query(
        "SELECT what, host, at, ok, left(detail, 8000), extract(epoch FROM now() - at)::float8 FROM oa.watches
         WHERE at > now() - interval '90 days' ORDER BY what, at DESC",
        &[],
    )?;
    let watch = |row: &postgres::Row| Watch {
        what: row.get(0),
        host: row.get(1),
        at: row.get(2),
        ok: row.get(3),
        detail: text(row, 4),
        age: row.get(5),
    };
    Ok(rows.iter().map(watch).collect())
}

/// The newest of those that do this, on whatever machine.
pub(crate) fn newest<'a>(all: &'a [Watch], what: &str) -> Option<&'a Watch> {
    all.iter().find(|w| w.what == what)
}
