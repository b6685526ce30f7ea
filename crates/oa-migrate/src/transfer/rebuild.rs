//! Making the SQLite database again from its export, and proving that it is the same: exported anew, every file has the same hash.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rusqlite::{Connection, params_from_iter};

use super::export::write_table;
use super::{Manifest, Read, read_line};
use crate::inspect::{Database, quote};

/// Makes the database at `to`, where nothing is yet.
///
/// # Errors
/// When a file cannot be read, or what comes out is not what was exported.
pub fn rebuild(
    folder: &Path,
    manifest: &Manifest,
    to: &Path,
    mut progress: impl FnMut(&str),
) -> Result<()> {
    let db = Connection::open(to).with_context(|| format!("could not make {}", to.display()))?;
    db.execute_batch("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON")?;
    db.pragma_update(None, "user_version", manifest.user_version)?;
    db.pragma_update(None, "application_id", manifest.application_id)?;
    let run = |kinds: &[&str]| -> Result<()> {
        for item in manifest
            .schema
            .iter()
            .filter(|i| kinds.contains(&i.kind.as_str()))
        {
            db.execute_batch(&item.sql).with_context(|| {
                format!("could not make {} {} of the export", item.kind, item.name)
            })?;
        }
        Ok(())
    };
    db.execute_batch("BEGIN")?;
    run(&["table"])?;
    for table in &manifest.tables {
        progress(&table.table);
        fill(&db, folder, table)?;
    }
    for sequence in &manifest.sequences {
        db.execute(
            "DELETE FROM sqlite_sequence WHERE name = ?1",
            [&sequence.table],
        )?;
        db.execute(
            "INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)",
            (&sequence.table, sequence.last),
        )?;
    }
    run(&["index", "view", "trigger"])?;
    db.execute_batch("COMMIT")?;

    let again = Database::read(&db, to)?;
    for table in &manifest.tables {
        let described = again
            .tables
            .iter()
            .find(|t| t.name == table.table)
            .with_context(|| format!("the export's schema does not make table {}", table.table))?;
        let written = write_table(&db, described, &mut io::sink())?;
        ensure!(
            written.sha256 == table.sha256 && written.rows == table.rows,
            "table {} does not come out as it was exported; please report this",
            table.table
        );
    }
    Ok(())
}

fn fill(db: &Connection, folder: &Path, table: &super::TableFile) -> Result<()> {
    let path = folder.join(&table.file);
    let context = || format!("could not read {}", path.display());
    let names: Vec<String> = table.columns.iter().map(|c| quote(c)).collect();
    let places = |raw: &[bool]| -> String {
        let list: Vec<String> = raw
            .iter()
            .enumerate()
            // A text that is not UTF-8 can only be bound as a blob.
            .map(|(i, raw)| {
                if *raw {
                    format!("CAST(?{} AS TEXT)", i + 1)
                } else {
                    format!("?{}", i + 1)
                }
            })
            .collect();
        list.join(", ")
    };
    let sql = |raw: &[bool]| {
        format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quote(&table.table),
            names.join(", "),
            places(raw)
        )
    };
    let mut reader = BufReader::with_capacity(1 << 18, File::open(&path).with_context(context)?);
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(context)? == 0 {
            return Ok(());
        }
        number += 1;
        let place = || format!("{} line {number}", path.display());
        let values = read_line(&line, &table.columns).with_context(place)?;
        let raw: Vec<bool> = values
            .iter()
            .map(|v| matches!(v, Read::RawText(_)))
            .collect();
        let mut insert = db.prepare_cached(&sql(&raw))?;
        let bound = values.into_iter().map(|v| match v {
            Read::Plain(value) => value,
            Read::RawText(bytes) => rusqlite::types::Value::Blob(bytes),
        });
        insert
            .execute(params_from_iter(bound))
            .with_context(place)?;
    }
}
