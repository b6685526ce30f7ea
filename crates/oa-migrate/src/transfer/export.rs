//! Writing an export.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result};
use chrono::{SecondsFormat, Utc};
use oa_core::base::state_dir::write_durably;
use rusqlite::Connection;
use sha2::{Digest as _, Sha256};

use super::{
    Column, FORMAT, MANIFEST, Manifest, NotExported, SUMS, SchemaItem, Sequence, TableFile,
    VERSION, hex, sums, write_value,
};
use crate::PROGRAM;
use crate::inspect::{self, Database, Table, quote};

/// Writes a database to a folder that is there and empty, file by file, each of them durable. The manifest and the list of
/// hashes come last.
/// `source` is read in one transaction, so that all tables are as of one point in time.
pub(crate) fn export(
    source: &Connection,
    path: &Path,
    folder: &Path,
    mut progress: impl FnMut(&str),
) -> Result<Manifest> {
    source.execute_batch("BEGIN")?;
    // A scan does not notice all damage: an export of a damaged file would look whole.
    inspect::integrity(source, path)?;
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
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned(),
        encoding: source.query_row("PRAGMA encoding", [], |row| row.get(0))?,
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
        skipped: database
            .virtual_tables
            .iter()
            .map(|v| v.name.clone())
            .collect(),
        skipped_why: database
            .virtual_tables
            .iter()
            .map(|v| NotExported {
                table: v.name.clone(),
                why: v.why.clone(),
                lost: v.lost,
            })
            .collect(),
    };
    source.execute_batch("COMMIT")?;
    let text = serde_json::to_vec_pretty(&manifest)?;
    let list = sums(&text, &manifest).into_bytes();
    for (name, content) in [(MANIFEST, text), (SUMS, list)] {
        let path = folder.join(name);
        write_durably(&path, &content)
            .with_context(|| format!("could not write {}", path.display()))?;
    }
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
pub(crate) fn write_table(
    source: &Connection,
    table: &Table,
    writer: &mut impl Write,
) -> Result<TableFile> {
    let columns: Vec<Column> = table
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .map(|c| Column {
            name: c.name.clone(),
            declared: c.declared.clone(),
        })
        .collect();
    let mut file = TableFile {
        table: table.name.clone(),
        file: String::new(),
        rowid: rowid_member(table),
        columns,
        rows: 0,
        bytes: 0,
        sha256: String::new(),
    };
    let mut list: Vec<String> = file.columns.iter().map(|c| quote(&c.name)).collect();
    if file.rowid.is_some() {
        list.splice(..0, table.rowid_name.map(str::to_owned));
    }
    let mut heads = Vec::new();
    for member in file.members() {
        heads.push(serde_json::to_vec(&member)?);
    }
    // NOT INDEXED: in the order of the table itself, whatever indexes there are. A virtual table has no order of its own.
    let order = match (&table.virtual_sql, &table.rowid_alias) {
        (Some(_), Some(rowid)) => format!("ORDER BY {}", quote(rowid)),
        (Some(_), None) => String::new(),
        (None, _) => "NOT INDEXED".to_owned(),
    };
    let mut statement = source.prepare(&format!(
        "SELECT {} FROM {} {order}",
        list.join(", "),
        quote(&table.name)
    ))?;
    let mut rows = statement.query([])?;
    let summed = Summed {
        writer,
        hash: Sha256::new(),
        bytes: 0,
    };
    let mut out = BufWriter::with_capacity(64 << 10, summed);
    while let Some(row) = rows.next()? {
        for (i, head) in heads.iter().enumerate() {
            out.write_all(if i == 0 { b"{" } else { b"," })?;
            out.write_all(head)?;
            out.write_all(b":")?;
            write_value(row.get_ref(i)?, &mut out)?;
        }
        out.write_all(b"}\n")?;
        file.rows += 1;
    }
    out.flush()?;
    let summed = out.get_mut();
    file.bytes = summed.bytes;
    file.sha256 = hex(&summed.hash.finalize_reset());
    Ok(file)
}

/// Counts and hashes what is written.
struct Summed<'a, W> {
    writer: &'a mut W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Summed<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.writer.write_all(buf)?;
        self.hash.update(buf);
        self.bytes += buf.len() as u64;
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The name of the rowid's member: one that no column has.
fn rowid_member(table: &Table) -> Option<String> {
    if table.rowid_alias.is_some() || table.rowid_name.is_none() {
        return None;
    }
    let mut name = "$rowid".to_owned();
    while table.column(&name).is_some() {
        name.insert(0, '$');
    }
    Some(name)
}
