//! Which file is the source of a run.
//!
//! A path alone does not say: files are moved, restored from a backup, replaced by another one of the same name. So a run notes a
//! sample of the source's rows, spread over each table with its newest ones, and what SQLite itself counts; a later command
//! compares the file that it is given with that. Where the evidence does not suffice, the command refuses and says what it saw.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Database, Table, quote, stand_ins};

/// Rows noted of a table: this many spread over it, and as many of its newest.
const SPREAD: i64 = 32;
/// Tables of which rows are noted.
const TABLES: usize = 300;
/// A table with fewer noted rows than this proves nothing by itself.
const CONCLUSIVE: usize = 8;

/// What the file system and the file's header say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    device: u64,
    inode: u64,
    /// SQLite's count of transactions; none in WAL mode, where it stands still.
    change_counter: Option<u32>,
    #[serde(default)]
    header: Header,
}

/// What the header counts, in WAL mode too, if only now and then.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Header {
    counter: u32,
    /// Counts changes of the schema, and `VACUUM`.
    schema_cookie: u32,
    /// None where it need not be right, or may shrink by itself.
    pages: Option<u32>,
}

impl FileState {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let context = || format!("could not read {}", path.display());
        let mut file = fs::File::open(path).with_context(context)?;
        let metadata = file.metadata().with_context(context)?;
        let mut header = [0u8; 100];
        file.read_exact(&mut header).with_context(context)?;
        let word =
            |i: usize| u32::from_be_bytes([header[i], header[i + 1], header[i + 2], header[i + 3]]);
        // https://www.sqlite.org/fileformat2.html: 18 and 19 are 2 in WAL mode, 24 is the change counter, 28 the size, which
        // counts when 92 is as 24; 40 the schema cookie; 52 is not zero when pages are given back without VACUUM.
        let counter = word(24);
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            change_counter: (header[18] != 2).then_some(counter),
            header: Header {
                counter,
                schema_cookie: word(40),
                pages: (word(92) == counter && word(52) == 0).then(|| word(28)),
            },
        })
    }

    fn same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// A source, as it was when it was last read.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Where it was, without symbolic links.
    pub(crate) path: PathBuf,
    file: FileState,
    application_id: i64,
    user_version: i64,
    /// Highest numbers that `AUTOINCREMENT` has given.
    sequences: BTreeMap<String, i64>,
    tables: BTreeMap<String, Sample>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sample {
    columns: Vec<String>,
    /// Key and hash of each.
    rows: Vec<(String, String)>,
}

/// The path without symbolic links, where there is such a file.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

impl Identity {
    /// Notes what is in a database; `path` is where the original lies, `file` what was seen there before it was copied.
    pub(crate) fn read(connection: &Connection, path: &Path, file: FileState) -> Result<Self> {
        let database = Database::read(connection, path)?;
        let mut tables = BTreeMap::new();
        for table in database.tables.iter().take(TABLES) {
            if table.key_expression(&table.name).is_some() {
                match Sample::take(connection, table) {
                    Ok(sample) => {
                        tables.insert(table.name.clone(), sample);
                    }
                    // It cannot be read at all; a run that needs it says so.
                    Err(e) if stand_ins::is_refusal(&e) => {}
                    Err(e) => return Err(e),
                }
            }
        }
        Ok(Self {
            path: canonical(path),
            file,
            application_id: pragma(connection, "application_id")?,
            user_version: pragma(connection, "user_version")?,
            sequences: sequences(connection)?,
            tables,
        })
    }

    /// The same rows under the path that the source had before; for a file that is only a copy of it.
    pub(crate) fn with_path_of(self, source: &Self) -> Self {
        Self {
            path: source.path.clone(),
            file: source.file.clone(),
            ..self
        }
    }

    /// What speaks against a file being the source; nothing: it is.
    pub(crate) fn assess(&self, connection: &Connection, path: &Path) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        let here = canonical(path);
        let file = FileState::read(path)?;
        let same_path = here == self.path || file.same_file(&self.file) && !self.path.exists();
        let same_file = same_path && file.same_file(&self.file);
        let application_id = pragma(connection, "application_id")?;
        if application_id != self.application_id {
            doubts.push(format!(
                "its application_id is {application_id}, the source's was {}",
                self.application_id
            ));
        }
        doubts.extend(self.older(connection, &file)?);

        let (mut noted, mut found, mut same) = (0, 0, 0);
        let database = Database::read(connection, path)?;
        if doubts.is_empty() && file.change_counter.is_none() {
            doubts.extend(self.older_by_rows(connection, &database, &file)?);
        }
        for (name, sample) in &self.tables {
            let table = database.tables.iter().find(|t| t.name == *name);
            let (f, s) = match table {
                Some(table) => sample.compare(connection, table)?,
                None => (0, 0),
            };
            noted += sample.rows.len();
            found += f;
            same += s;
            if !same_file && sample.rows.len() >= CONCLUSIVE && s * 2 < sample.rows.len() {
                doubts.push(format!(
                    "of {} noted rows of table {name} it has {f}, {s} of them unchanged",
                    sample.rows.len()
                ));
            }
        }
        if found * 2 < noted || same * 4 < noted || (!same_path && found < noted) {
            doubts.push(format!(
                "of {noted} noted rows of the source it has {found}, {same} of them unchanged"
            ));
        }
        if !same_path {
            doubts.extend(self.moved(&file, noted, same));
        }
        Ok(doubts)
    }

    /// What counts only upwards and is lower than it was: an older copy, or another database.
    fn older(&self, connection: &Connection, file: &FileState) -> Result<Vec<String>> {
        let mut doubts = Vec::new();
        let user_version = pragma(connection, "user_version")?;
        if user_version < self.user_version {
            doubts.push(format!(
                "its user_version is {user_version}, the source's already was {}",
                self.user_version
            ));
        }
        let (now, then) = (&file.header, &self.file.header);
        if now.counter < then.counter {
            doubts.push(format!(
                "it has seen {} transactions, the source {}: an older copy, or another file",
                now.counter, then.counter
            ));
        } else if now.schema_cookie < then.schema_cookie {
            doubts.push(format!(
                "its schema has been changed {} times, the source's {}: an older copy, or another file",
                now.schema_cookie, then.schema_cookie
            ));
        } else if now.schema_cookie == then.schema_cookie
            && let (Some(now), Some(then)) = (now.pages, then.pages)
            && now < then
        {
            doubts.push(format!(
                "it has {now} pages and has not been vacuumed, the source already had {then}: an older copy, or another file"
            ));
        }
        let now = sequences(connection)?;
        for (table, then) in &self.sequences {
            let now = now.get(table).copied().unwrap_or(0);
            if now < *then {
                doubts.push(format!(
                    "the last number assigned in table {table} is {now}, in the source it already was {then}"
                ));
            }
        }
        Ok(doubts)
    }

    /// In WAL mode nothing counts every transaction. An older copy lacks newest rows of the source and has nothing that is newer.
    fn older_by_rows(
        &self,
        connection: &Connection,
        database: &Database,
        file: &FileState,
    ) -> Result<Option<String>> {
        let numbers = sequences(connection)?;
        let (now, then) = (&file.header, &self.file.header);
        let mut newer = (now.counter, now.schema_cookie) != (then.counter, then.schema_cookie)
            || numbers != self.sequences;
        let mut lacking = None;
        for (name, sample) in &self.tables {
            let Some(table) = database.tables.iter().find(|t| t.name == *name) else {
                continue;
            };
            let Some(rowid) = table.rowid_name.filter(|_| table.virtual_sql.is_none()) else {
                continue;
            };
            let highest = |keys: &mut dyn Iterator<Item = &String>| {
                keys.filter_map(|k| k.parse::<i64>().ok()).max()
            };
            let then = highest(&mut sample.rows.iter().map(|(k, _)| k));
            let now: Option<i64> = connection.query_row(
                &format!("SELECT max({rowid}) FROM {}", quote(name)),
                [],
                |row| row.get(0),
            )?;
            newer |= now > then;
            // With AUTOINCREMENT the counters say that the numbers were assigned, so the rows were deleted. For an empty table,
            // sync asks.
            let Some(now) = now.filter(|now| Some(*now) < then && !numbers.contains_key(name))
            else {
                continue;
            };
            lacking.get_or_insert_with(|| {
                format!(
                    "the highest number in table {name} is {now}, in the source it already was {}, and nothing in it is newer: an older copy, unless just these rows were deleted",
                    then.unwrap_or(now)
                )
            });
        }
        Ok(lacking.filter(|_| !newer))
    }

    /// For a file at another path: the source must be gone from its own, or both are unchanged.
    fn moved(&self, file: &FileState, noted: usize, same: usize) -> Option<String> {
        if noted < CONCLUSIVE && !file.same_file(&self.file) {
            return Some(format!(
                "its path differs, and {noted} noted row(s) are too few to recognise it"
            ));
        }
        if !self.path.is_file() {
            return None;
        }
        let counter = self.file.change_counter;
        let copied = counter.is_some()
            && file.change_counter == counter
            && same == noted
            && FileState::read(&self.path).is_ok_and(|now| now == self.file);
        (!copied).then(|| format!("{} is still there and is another file", self.path.display()))
    }
}

fn pragma(connection: &Connection, name: &str) -> Result<i64> {
    Ok(connection.query_row(&format!("PRAGMA {name}"), [], |row| row.get(0))?)
}

fn sequences(connection: &Connection) -> Result<BTreeMap<String, i64>> {
    let there: bool = connection.query_row(
        "SELECT count(*) > 0 FROM sqlite_master WHERE name = 'sqlite_sequence'",
        [],
        |row| row.get(0),
    )?;
    if !there {
        return Ok(BTreeMap::new());
    }
    let mut statement = connection.prepare(
        "SELECT CAST(name AS TEXT), max(CAST(seq AS INTEGER)) FROM sqlite_sequence WHERE name IS NOT NULL AND seq IS NOT NULL GROUP BY 1",
    )?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Sample {
    fn take(connection: &Connection, table: &Table) -> Result<Self> {
        let mut sample = Self {
            columns: table.columns.iter().map(|c| c.name.clone()).collect(),
            rows: Vec::new(),
        };
        let newest = match table.rowid_name.filter(|_| table.virtual_sql.is_none()) {
            Some(rowid) => {
                let edge = |of: &str| -> Result<Option<i64>> {
                    Ok(connection.query_row(
                        &format!("SELECT {of}({rowid}) FROM {}", quote(&table.name)),
                        [],
                        |row| row.get(0),
                    )?)
                };
                if let (Some(first), Some(last)) = (edge("min")?, edge("max")?) {
                    let step = (last.saturating_sub(first) / SPREAD).max(1);
                    for i in 0..SPREAD {
                        let from = first.saturating_add(step.saturating_mul(i));
                        sample.add(
                            connection,
                            table,
                            &format!("WHERE {rowid} >= {from} ORDER BY {rowid} LIMIT 1"),
                        )?;
                    }
                }
                format!("ORDER BY {rowid} DESC LIMIT {SPREAD}")
            }
            None => format!("LIMIT {}", 2 * SPREAD),
        };
        sample.add(connection, table, &newest)?;
        Ok(sample)
    }

    fn add(&mut self, connection: &Connection, table: &Table, rest: &str) -> Result<()> {
        let known: HashSet<&String> = self.rows.iter().map(|(key, _)| key).collect();
        let more: Vec<(String, String)> = rows(connection, table, &self.columns, rest)?
            .into_iter()
            .filter(|(key, _)| !known.contains(key))
            .collect();
        self.rows.extend(more);
        Ok(())
    }

    /// How many of the rows are there by their keys, and how many of those are unchanged.
    fn compare(&self, connection: &Connection, table: &Table) -> Result<(usize, usize)> {
        let Some(key) = table.key_expression(&table.name) else {
            return Ok((0, 0));
        };
        let complete = self.columns.iter().all(|c| table.column(c).is_some());
        let columns: &[String] = if complete { &self.columns } else { &[] };
        let keys = serde_json::to_string(&self.rows.iter().map(|(k, _)| k).collect::<Vec<_>>())?;
        let keys = keys.replace('\'', "''");
        let condition = match table.rowid_name {
            Some(rowid) => {
                format!("WHERE {rowid} IN (SELECT CAST(value AS INTEGER) FROM json_each('{keys}'))")
            }
            None => format!("WHERE {key} IN (SELECT value FROM json_each('{keys}'))"),
        };
        let now: HashMap<String, String> = rows(connection, table, columns, &condition)?
            .into_iter()
            .collect();
        let found = self
            .rows
            .iter()
            .filter(|(k, _)| now.contains_key(k))
            .count();
        let same = self
            .rows
            .iter()
            .filter(|(k, h)| now.get(k) == Some(h))
            .count();
        Ok((found, same))
    }
}

fn rows(
    connection: &Connection,
    table: &Table,
    columns: &[String],
    rest: &str,
) -> Result<Vec<(String, String)>> {
    let key = table
        .key_expression(&table.name)
        .unwrap_or_else(|| "''".to_owned());
    let list: Vec<String> = std::iter::once(key)
        .chain(columns.iter().map(|c| quote(c)))
        .collect();
    let mut statement = connection.prepare(&format!(
        "SELECT {} FROM {} {rest}",
        list.join(", "),
        quote(&table.name)
    ))?;
    let mut found = Vec::new();
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut hash = Sha256::new();
        for i in 1..list.len() {
            match row.get_ref(i)? {
                ValueRef::Null => hash.update([0]),
                ValueRef::Integer(n) => {
                    hash.update([1]);
                    hash.update(n.to_le_bytes());
                }
                ValueRef::Real(x) => {
                    hash.update([2]);
                    hash.update(x.to_bits().to_le_bytes());
                }
                ValueRef::Text(bytes) => {
                    hash.update([3]);
                    hash.update((bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
                ValueRef::Blob(bytes) => {
                    hash.update([4]);
                    hash.update((bytes.len() as u64).to_le_bytes());
                    hash.update(bytes);
                }
            }
        }
        let hash: String = hash.finalize()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        found.push((row.get(0)?, hash));
    }
    Ok(found)
}
