//! What a day consists of, as one number: two days with the same one are the same page under two dates.

use std::path::Path;

use oa_core::base::exact;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::archive::hex;
use crate::collect::Collected;
use crate::source::Source;
use crate::validate::Validated;

/// SHA-256, in hexadecimal, of what the site gave for a day: the values of its rows, in whatever order they came, without what the
/// source file puts in by itself. Of pictures, what they show, wherever they are from. `None` when nothing came.
pub(crate) fn fingerprint(
    source: &Source,
    collected: &Collected,
    validated: &Validated,
) -> Option<String> {
    let mut parts: Vec<String> = match &source.image {
        Some(_) => collected.records.iter().filter_map(picture).collect(),
        None => {
            let mut own: Vec<(usize, &str)> = source
                .fields
                .iter()
                .enumerate()
                .filter(|(_, field)| field.from.is_some())
                .map(|(i, field)| (i, field.column.as_str()))
                .collect();
            own.sort_unstable_by_key(|(_, column)| *column);
            let line = |row: &Vec<Value>| {
                let values = own.iter().map(|(i, _)| exact::to_text(&row[*i]));
                values.collect::<Vec<_>>().join("\n")
            };
            validated.rows.iter().map(line).collect()
        }
    };
    if parts.is_empty() {
        return None;
    }
    parts.sort_unstable();
    let mut hash = Sha256::new();
    for part in &parts {
        // In JSON no text has a line break.
        hash.update(part);
        hash.update("\n\n");
    }
    Some(hex(&hash.finalize()))
}

/// Its file is named by its content.
fn picture(record: &Value) -> Option<String> {
    let path = record.get("local_path").and_then(exact::text)?;
    let name = Path::new(path).file_name()?;
    Some(name.to_string_lossy().into_owned())
}
