//! Writing an export.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{SecondsFormat, Utc};
use oa_core::state_dir::write_durably;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::{FORMAT, MANIFEST, Manifest, SchemaItem, Sequence, TableFile, VERSION, write_value};
use crate::PROGRAM;
use crate::inspect::{Database, Table, quote};

/// Writes a database to a folder that is there and empty, file by file, each of them durable. The manifest comes last.
/// `source` is read in one transaction, so that all tables are of one moment.
///
/// # Errors
/// When the database cannot be read or the folder cannot be written.
pub fn export(
    source: &Connection,
    path: &Path,
    folder: &Path,
    mut progress: impl FnMut(&str),
) -> Result<Manifest> {
    source.execute_batch("BEGIN")?;
    let database = Database::read(source, path)?;
    let mut tables = Vec::new();
    for (number, table) in database.tables.iter().enumerate() {
        progress(&table.name);
        let file = file_name(number + 1, &table.name);
        let target = folder.join(&file);
        let context = || {
            format!(
                "could not export table {} to {}",
                table.name,
                target.display()
            )
        };
        let mut writer =
            BufWriter::with_capacity(1 << 18, File::create_new(&target).with_context(context)?);
        let written = write_table(source, table, &mut writer).with_context(context)?;
        let handle = writer
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)
            .with_context(context)?;
        handle.sync_all().with_context(context)?;
        tables.push(TableFile {
            table: table.name.clone(),
            file,
            ..written
        });
    }
    let pragma = |name: &str| source.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0));
    let manifest = Manifest {
        format: FORMAT.to_owned(),
        version: VERSION,
        writer: format!("{PROGRAM} {}", env!("CARGO_PKG_VERSION")),
        created_at: Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true),
        database: path
            .file_name()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        user_version: pragma("user_version")?,
        application_id: pragma("application_id")?,
        schema: schema(source, &database)?,
        sequences: database
            .tables
            .iter()
            .filter_map(|t| {
                t.autoincrement.map(|last| Sequence {
                    table: t.name.clone(),
                    last,
                })
            })
            .collect(),
        tables,
        left_out: database.virtual_tables.clone(),
    };
    source.execute_batch("COMMIT")?;
    let path = folder.join(MANIFEST);
    write_durably(&path, &serde_json::to_vec_pretty(&manifest)?)
        .with_context(|| format!("could not write {}", path.display()))?;
    Ok(manifest)
}

/// Letters and digits of the table's name, for people; the number makes it unique.
fn file_name(number: usize, table: &str) -> String {
    let plain: String = table
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
                c
            } else {
                '_'
            }
        })
        .take(60)
        .collect();
    format!("{number:03}-{plain}.jsonl")
}

/// What can be run again, in the order in which it was made.
fn schema(source: &Connection, database: &Database) -> Result<Vec<SchemaItem>> {
    let mut statement = source.prepare(
        "SELECT type, name, sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY CASE type WHEN 'table' THEN 0 WHEN 'index' THEN 1 WHEN 'view' THEN 2 ELSE 3 END, rowid",
    )?;
    let items = statement.query_map([], |row| {
        Ok(SchemaItem {
            kind: row.get(0)?,
            name: row.get(1)?,
            sql: row.get(2)?,
        })
    })?;
    let mut kept = Vec::new();
    for item in items {
        let item = item?;
        let known = item.kind != "table" || database.tables.iter().any(|t| t.name == item.name);
        if known {
            kept.push(item);
        }
    }
    Ok(kept)
}

/// Writes all rows of a table; gives back columns, rows, bytes and hash.
///
/// # Errors
/// When the table cannot be read or the writer fails.
pub fn write_table(
    source: &Connection,
    table: &Table,
    writer: &mut impl Write,
) -> Result<TableFile> {
    let columns: Vec<String> = table
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .map(|c| c.name.clone())
        .collect();
    let list: Vec<String> = columns.iter().map(|c| quote(c)).collect();
    let mut heads = Vec::new();
    for column in &columns {
        heads.push(serde_json::to_vec(column)?);
    }
    // NOT INDEXED: in the order of the table itself, whatever indexes there are.
    let mut statement = source.prepare(&format!(
        "SELECT {} FROM {} NOT INDEXED",
        list.join(", "),
        quote(&table.name)
    ))?;
    let mut rows = statement.query([])?;
    let mut hash = Sha256::new();
    let mut line = Vec::with_capacity(1024);
    let (mut count, mut bytes) = (0, 0);
    while let Some(row) = rows.next()? {
        line.clear();
        for (i, head) in heads.iter().enumerate() {
            line.push(if i == 0 { b'{' } else { b',' });
            line.extend_from_slice(head);
            line.push(b':');
            write_value(row.get_ref(i)?, &mut line)?;
        }
        line.extend_from_slice(b"}\n");
        hash.update(&line);
        writer.write_all(&line)?;
        count += 1;
        bytes += line.len() as u64;
    }
    Ok(TableFile {
        table: table.name.clone(),
        file: String::new(),
        columns,
        rows: count,
        bytes,
        sha256: hex(&hash.finalize()),
    })
}

/// Makes a folder's entries durable.
///
/// # Errors
/// When the file system refuses.
pub fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder)
        .and_then(|f| f.sync_all())
        .with_context(|| format!("could not make {} durable", folder.display()))
}

/// Removes what a failed export wrote.
pub fn remove(folder: &Path) {
    if let Err(e) = fs::remove_dir_all(folder) {
        tracing::warn!("could not remove {}: {e}", folder.display());
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
