//! A SQLite database as a folder of JSON lines that any program can read, and back again, without losing a bit.
//!
//! ```text
//! manifest.json     what is in the folder: per table its file, columns, rows, bytes and SHA-256; the schema's own SQL
//! 001-NAME.jsonl    one object a row, columns in the table's order, rows in the order of the table's b-tree
//! SHA256SUMS        of all of these, the manifest included, for `sha256sum --check`
//! ```
//! The format is described in `docs/export-format.md`. Values keep their storage class: integers are numbers without a point,
//! reals have a point or an exponent, and what JSON has no form for is an object of one member: `{"$blob": base64}`,
//! `{"$text": base64}` (a text that is not UTF-8), `{"$real": "Infinity"}`.

pub(crate) mod check;
pub(crate) mod export;
pub(crate) mod partial;
pub(crate) mod rebuild;

use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rusqlite::types::{ToSql, ToSqlOutput, Value, ValueRef};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::inspect::VirtualTable;
use oa_core::base::trust::read_regular;

pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const SUMS: &str = "SHA256SUMS";
/// A manifest, and a list of hashes, of a million tables is smaller.
const LARGEST_MANIFEST: u64 = 1 << 30;
const FORMAT: &str = "oa-export";
const VERSION: u32 = 1;

/// What is in an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) format: String,
    pub(crate) version: u32,
    pub(crate) writer: String,
    pub(crate) created_at: String,
    /// Name of the SQLite file, without its folders.
    pub(crate) database: String,
    /// `PRAGMA encoding`: the order of texts depends on it.
    pub(crate) encoding: String,
    pub(crate) user_version: i64,
    pub(crate) application_id: i64,
    /// `CREATE` statements in the order in which they can be run.
    pub(crate) schema: Vec<SchemaItem>,
    /// Highest numbers that `AUTOINCREMENT` has given.
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) tables: Vec<TableFile>,
    /// Virtual tables that are not exported. The keys are those of the format's version 1.
    #[serde(rename = "left_out")]
    pub(crate) skipped: Vec<String>,
    /// Why not, of each.
    #[serde(rename = "left_out_why", default)]
    pub(crate) skipped_why: Vec<NotExported>,
}

/// A virtual table that is not in the export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NotExported {
    pub(crate) table: String,
    /// Why: the end of a sentence that begins with its name.
    pub(crate) why: String,
    /// Something that was only there is not in the export.
    pub(crate) lost: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SchemaItem {
    /// `table`, `index`, `view` or `trigger`.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) sql: String,
}

/// A number of `AUTOINCREMENT`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sequence {
    pub(crate) table: String,
    pub(crate) last: i64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TableFile {
    pub(crate) table: String,
    pub(crate) file: String,
    /// The member of each line, before the columns, that holds the rowid; for tables in which no column is the rowid.
    pub(crate) rowid: Option<String>,
    /// Columns of each line, in order. Generated columns are not among them.
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: u64,
    pub(crate) bytes: u64,
    /// SHA-256 of the file, in hexadecimal.
    pub(crate) sha256: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// Its declared type, as written; often empty, and never more than a suggestion.
    pub(crate) declared: String,
}

impl TableFile {
    /// The names of a line's members, in order.
    pub(crate) fn members(&self) -> Vec<String> {
        let columns = self.columns.iter().map(|c| c.name.clone());
        self.rowid.iter().cloned().chain(columns).collect()
    }
}

impl Manifest {
    /// The virtual tables that are not in the export. Older exports say only their names.
    pub(crate) fn not_exported(&self) -> Vec<VirtualTable> {
        let known = |name: &String| self.skipped_why.iter().find(|l| l.table == *name);
        self.skipped
            .iter()
            .map(|name| VirtualTable {
                name: name.clone(),
                why: known(name).map_or_else(
                    || "was not exported, and the export does not say why; export again with this version".to_owned(),
                    |l| l.why.clone(),
                ),
                lost: known(name).is_none_or(|l| l.lost),
            })
            .collect()
    }
}

/// The text of [`SUMS`].
fn sums(manifest_text: &[u8], manifest: &Manifest) -> String {
    let own = (hex(&Sha256::digest(manifest_text)), MANIFEST.to_owned());
    let tables = manifest
        .tables
        .iter()
        .map(|t| (t.sha256.clone(), t.file.clone()));
    std::iter::once(own)
        .chain(tables)
        .map(|(hash, file)| format!("{hash}  {file}\n"))
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Manifest {
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(MANIFEST);
        let text = read_regular(&path, LARGEST_MANIFEST).with_context(|| {
            format!(
                "could not read {}; is {} the folder of an export?",
                path.display(),
                folder.display()
            )
        })?;
        let manifest: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is damaged", path.display()))?;
        ensure!(
            manifest.format == FORMAT,
            "{} is not a manifest of oa-migrate export",
            path.display()
        );
        ensure!(
            manifest.version == VERSION,
            "{} has format version {}, this program reads version {VERSION}",
            path.display(),
            manifest.version
        );
        for table in &manifest.tables {
            let plain = Path::new(&table.file).components().count() == 1
                && !table.file.starts_with('.')
                && !table.file.contains('/');
            ensure!(
                plain,
                "{} names the file {:?}, which is not a plain name",
                path.display(),
                table.file
            );
        }
        Ok(manifest)
    }
}

/// Writes a value as JSON, a large one in pieces.
fn write_value(value: ValueRef<'_>, out: &mut impl Write) -> Result<()> {
    match value {
        ValueRef::Null => out.write_all(b"null")?,
        ValueRef::Integer(n) => write!(out, "{n}")?,
        ValueRef::Real(x) if x.is_finite() => write!(out, "{x:?}")?,
        ValueRef::Real(x) => {
            let text = if x > 0.0 { "Infinity" } else { "-Infinity" };
            write!(out, "{{\"$real\":\"{text}\"}}")?;
        }
        ValueRef::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => serde_json::to_writer(out, text)?,
            Err(_) => write_base64("text", bytes, out)?,
        },
        ValueRef::Blob(bytes) => write_base64("blob", bytes, out)?,
    }
    Ok(())
}

fn write_base64(name: &str, bytes: &[u8], out: &mut impl Write) -> Result<()> {
    // Groups of three bytes become four letters.
    const PIECE: usize = 3 << 14;
    write!(out, "{{\"${name}\":\"")?;
    for piece in bytes.chunks(PIECE) {
        out.write_all(STANDARD.encode(piece).as_bytes())?;
    }
    out.write_all(b"\"}")?;
    Ok(())
}

/// A value as [`write_value`] writes it. A text that is not UTF-8 is [`StoredValue::RawText`], because no Rust string holds it.
#[derive(Debug, PartialEq)]
enum StoredValue {
    Plain(Value),
    RawText(Vec<u8>),
}

impl ToSql for StoredValue {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        match self {
            Self::Plain(value) => value.to_sql(),
            Self::RawText(bytes) => Ok(ToSqlOutput::Borrowed(ValueRef::Text(bytes))),
        }
    }
}

fn read_value(value: serde_json::Value) -> Result<StoredValue> {
    use serde_json::Value as Json;
    Ok(StoredValue::Plain(match value {
        Json::Null => Value::Null,
        Json::Number(n) => match n.as_i64() {
            Some(n) => Value::Integer(n),
            None if n.is_f64() => Value::Real(n.as_f64().context("not a number")?),
            None => bail!("{n} is beyond 64 bits"),
        },
        Json::String(text) => Value::Text(text),
        Json::Object(object) => {
            let mut members = object.iter();
            let (Some((name, Json::String(text))), None) = (members.next(), members.next()) else {
                bail!("an object that stands for no value");
            };
            match (name.as_str(), text.as_str()) {
                ("$blob", text) => Value::Blob(STANDARD.decode(text)?),
                ("$text", text) => return Ok(StoredValue::RawText(STANDARD.decode(text)?)),
                ("$real", "Infinity") => Value::Real(f64::INFINITY),
                ("$real", "-Infinity") => Value::Real(f64::NEG_INFINITY),
                _ => bail!("the object {{\"{name}\": …}} stands for no value"),
            }
        }
        Json::Bool(_) | Json::Array(_) => {
            bail!("neither a number, a text, null nor a tagged value")
        }
    }))
}

/// Reads a line of a table's file.
fn read_line(line: &[u8], members: &[String]) -> Result<Vec<StoredValue>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line)?;
    ensure!(
        object.keys().eq(members),
        "its members are {}, not {}",
        object
            .keys()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(", "),
        members.join(", ")
    );
    object
        .into_iter()
        .map(|(name, value)| read_value(value).with_context(|| format!("member {name}")))
        .collect()
}

#[cfg(test)]
mod tests;
