//! Pages of a copied cluster whose checksums are wrong. PostgreSQL makes no copy of a cluster that has one; this program makes it all the
//! same, and says where they are.
//!
//! The checksum is that of PostgreSQL's `storage/checksum_impl.h`: 32 sums of FNV-1a side by side, with an extra shift, over the page with
//! its own field as zero, mixed with the block's number.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use oa_repository::Lsn;
use oa_repository::layout::{DATA, TABLESPACES};
use postgres::Client;

use crate::error::BackupError;

const PAGE: usize = 8192;
/// A relation's file has so many pages, then the next one begins.
const PAGES_OF_A_FILE: u32 = 131_072;
const PRIME: u32 = 16_777_619;
const OFFSETS: [u32; 32] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// Numbers of pages, by the file of the data directory that they are in.
pub(super) type DamagedPages = BTreeMap<String, Vec<u32>>;

/// The pages of a copy whose checksums are wrong, and which recovery does not write anew: those that were changed after `start` it does.
pub(super) fn damaged(copy: &Path, start: Lsn) -> io::Result<DamagedPages> {
    let mut found = DamagedPages::new();
    let mut left = vec![
        (copy.join(DATA).join("base"), "base".to_owned()),
        (copy.join(DATA).join("global"), "global".to_owned()),
        (copy.join(TABLESPACES), "pg_tblspc".to_owned()),
    ];
    while let Some((path, name)) = left.pop() {
        let entries = match fs::read_dir(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let file_name = entry.file_name().to_string_lossy().into_owned();
            let name = format!("{name}/{file_name}");
            if entry.file_type()?.is_dir() {
                left.push((entry.path(), name));
            } else if let Some(segment) = segment_of(&file_name) {
                let pages = damaged_in(&entry.path(), segment, start)?;
                if !pages.is_empty() {
                    found.insert(name, pages);
                }
            }
        }
    }
    Ok(found)
}

/// Which part of a relation a file is, if it is one: `16384`, `16384.1`, `16384_fsm`.
fn segment_of(name: &str) -> Option<u32> {
    let (stem, segment) = match name.split_once('.') {
        Some((stem, number)) => (stem, number.parse().ok()?),
        None => (name, 0),
    };
    let number = match stem.split_once('_') {
        Some((number, "fsm" | "vm" | "init")) => number,
        Some(_) => return None,
        None => stem,
    };
    let is_number = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    is_number.then_some(segment)
}

fn damaged_in(path: &Path, segment: u32, start: Lsn) -> io::Result<Vec<u32>> {
    let mut file = io::BufReader::with_capacity(64 * PAGE, File::open(path)?);
    let mut page = [0; PAGE];
    let mut found = Vec::new();
    for number in 0.. {
        match file.read_exact(&mut page) {
            Ok(()) => {}
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e),
        }
        let number = segment * PAGES_OF_A_FILE + number;
        if !is_whole(&page, number, start) {
            found.push(number);
        }
    }
    Ok(found)
}

fn is_whole(page: &[u8; PAGE], number: u32, start: Lsn) -> bool {
    let half = |at: usize| u16::from_ne_bytes([page[at], page[at + 1]]);
    let word = |at: usize| u32::from_ne_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]);
    // Without an upper end there is nothing in it yet.
    let is_new = half(14) == 0;
    let lsn = Lsn(u64::from(word(0)) << 32 | u64::from(word(4)));
    is_new || lsn >= start || half(8) == checksum(page, number)
}

fn checksum(page: &[u8; PAGE], number: u32) -> u16 {
    let mut sums = OFFSETS;
    let mix = |sum: &mut u32, value: u32| {
        let mixed = *sum ^ value;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    };
    for (row, words) in page.chunks_exact(4 * sums.len()).enumerate() {
        for (column, bytes) in words.chunks_exact(4).enumerate() {
            let mut value = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            // The checksum itself, with the flags behind it.
            if (row, column) == (0, 2) {
                let flags = [0, 0, bytes[2], bytes[3]];
                value = u32::from_ne_bytes(flags);
            }
            mix(&mut sums[column], value);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            mix(sum, 0);
        }
    }
    let sum = sums.iter().fold(0, |all, sum| all ^ sum);
    u16::try_from(((sum ^ number) % 65_535) + 1).unwrap_or(u16::MAX)
}

/// The same in words: of this database by the names of its tables and indexes, of others by file.
pub(super) fn named(client: &mut Client, pages: &DamagedPages) -> Result<Vec<String>, BackupError> {
    let mut found = Vec::new();
    for (file, numbers) in pages {
        let shown: Vec<String> = numbers.iter().take(5).map(u32::to_string).collect();
        let more = if numbers.len() > shown.len() {
            ", …"
        } else {
            ""
        };
        let whose = owner(client, file)?.map_or_else(String::new, |owner| format!("{owner}, "));
        found.push(format!(
            "{whose}file {file}, page {}{more}",
            shown.join(", ")
        ));
    }
    Ok(found)
}

/// Whose file it is, where it is one of the database that is connected to.
fn owner(client: &mut Client, file: &str) -> Result<Option<String>, BackupError> {
    let parts: Vec<&str> = file.split('/').collect();
    let (space, database, name) = match parts.as_slice() {
        ["base", database, name] => ("0", *database, *name),
        ["global", name] => ("1664", "0", *name),
        ["pg_tblspc", space, _, database, name] => (*space, *database, *name),
        _ => return Ok(None),
    };
    let number = name.split(['_', '.']).next().unwrap_or_default();
    let row = client
        .query_opt(
            "SELECT c.relkind = 'i', c.oid::regclass::text, coalesce(i.indrelid, t.oid)::regclass::text, d.datname::text, d.oid IS NULL OR d.datname = current_database()
             FROM (SELECT $1::text::oid AS space, $2::text::oid AS database, $3::text::oid AS number) f
             LEFT JOIN pg_database d ON d.oid = f.database
             LEFT JOIN pg_class c ON c.oid = pg_filenode_relation(f.space, f.number)
             LEFT JOIN pg_index i ON i.indexrelid = c.oid LEFT JOIN pg_class t ON t.reltoastrelid = c.oid",
            &[&space, &database, &number],
        )
        .map_err(BackupError::query("could not ask whose file is damaged"))?;
    let Some(row) = row else { return Ok(None) };
    let text = |column: usize| row.get::<_, Option<String>>(column);
    if !row.get::<_, bool>(4) {
        return Ok(text(3).map(|database| format!("database {database}")));
    }
    Ok(match (row.get::<_, Option<bool>>(0), text(1), text(2)) {
        (Some(true), Some(index), Some(table)) => Some(format!(
            "index {index} of table {table} (REINDEX INDEX {index})"
        )),
        (_, Some(_), Some(table)) => Some(format!("table {table}, its long values")),
        (_, Some(table), None) => Some(format!("table {table}")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_relations_have_pages() {
        for (name, segment) in [
            ("16384", Some(0)),
            ("16384.12", Some(12)),
            ("16384_fsm", Some(0)),
            ("16384_vm.1", Some(1)),
            ("pg_filenode.map", None),
            ("pg_internal.init", None),
            ("PG_VERSION", None),
            ("pg_control", None),
            ("t3_16384", None),
        ] {
            assert_eq!(segment_of(name), segment, "{name}");
        }
    }
}
