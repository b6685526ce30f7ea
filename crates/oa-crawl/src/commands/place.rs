//! Where in a run's answers a stored row comes from: each answer is read once more, and PostgreSQL compares the keys of its records.

use oa_core::app::cli::Failure;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::pile::Pile;
use oa_core::model::run::RawRecord;
use oa_core::pg::{describe, revisions};
use postgres::Client;
use serde_json::json;

use crate::archive::Archive;
use crate::collect::by_answer;
use crate::source::Source;
use crate::store;
use crate::validate::{CollectionTime, validate};

/// Prints each record that has that key: its answer, and its number in it, from 1.
pub(super) fn print(
    client: &mut Client,
    source: &Source,
    time: CollectionTime,
    archive: &Archive,
    raw: &[RawRecord],
    key: &str,
    format: Format,
) -> Result<u8, Failure> {
    let mut listing = Listing::new(&[
        ("record", "RECORD"),
        ("records", "OF"),
        ("file", "ANSWER"),
        ("url", "URL"),
    ]);
    for (answer, records) in by_answer(source, time.date, archive, raw)? {
        let mut numbers = Vec::new();
        let mut rows = Vec::new();
        for (i, record) in records.iter().enumerate() {
            let record = record.clone();
            let valid =
                validate(source, time, &vec![record].into()).map_err(anyhow::Error::from)?;
            if let Some(row) = valid.rows.first().map_err(anyhow::Error::from)? {
                numbers.push(i + 1);
                rows.push(row);
            }
        }
        let batch = store::batch(source, Pile::default(), time.at);
        let found = revisions::rows_with_key(client, &batch, &rows, key)
            .map_err(|e| anyhow::anyhow!("could not compare keys: {}", describe(&e)))?;
        for number in found.into_iter().filter_map(|i| numbers.get(i)) {
            let sha256 = &answer.sha256;
            listing.push(json!({
                "record": number, "records": records.len(), "sha256": sha256, "file": Archive::file_of(sha256),
                "part": answer.part, "url": answer.url,
            }));
        }
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
