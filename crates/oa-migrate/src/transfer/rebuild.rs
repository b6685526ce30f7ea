//! Rebuilding the SQLite database from its export, and proving that it is the same: exported once more, every file has the same
//! hash.
//!
//! Rows must come back as they are, not as the declarations would have them today: tables whose declaration was changed behind
//! SQLite's back hold NULLs in `NOT NULL` columns and numbers in `TEXT` columns. So each table is made by its own statement, then
//! described to SQLite without types, constraints and indexes while it is filled, and then as before again ([`loosen`]).

use std::io::{self, BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use oa_core::base::trust::open_regular;
use rusqlite::{Connection, params_from_iter};

use super::export::write_table;
use super::{Manifest, SchemaItem, TableFile, read_line};
use crate::inspect::virtual_table::MODULES;
use crate::inspect::{Database, Table, ddl, literal, quote};

/// Makes the database at `to`, where nothing is yet.
pub(crate) fn rebuild(
    folder: &Path,
    manifest: &Manifest,
    to: &Path,
    mut progress: impl FnMut(&str),
) -> Result<()> {
    let db = open(to)?;
    db.pragma_update(None, "encoding", &manifest.encoding)?;
    db.pragma_update(None, "user_version", manifest.user_version)?;
    db.pragma_update(None, "application_id", manifest.application_id)?;
    make(&db, manifest, &["table"])?;
    let made = Database::read(&db, to)?;
    let declared = loosen(&db, &made)?;
    drop(db);

    // Opened again, because a connection reads the schema once.
    let db = open(to)?;
    db.execute_batch("BEGIN")?;
    for file in &manifest.tables {
        progress(&file.table);
        fill(&db, folder, file, find(&made, file)?)?;
    }
    db.execute_batch("COMMIT")?;
    tighten(&db, &declared)?;
    drop(db);

    let db = open(to)?;
    db.execute_batch("REINDEX")
        .context("could not create the indexes of the export's tables")?;
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
    make(&db, manifest, &["index"])?;
    make(&db, manifest, &["view"])?;
    make(&db, manifest, &["trigger"])?;
    prove(&db, manifest, &Database::read(&db, to)?)
}

/// A file that nobody else sees before it is proven, so it needs no journal.
fn open(path: &Path) -> Result<Connection> {
    let db =
        Connection::open(path).with_context(|| format!("could not create {}", path.display()))?;
    db.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA ignore_check_constraints = ON",
    )?;
    Ok(db)
}

/// Runs the export's own statements of a kind.
fn make(db: &Connection, manifest: &Manifest, kinds: &[&str]) -> Result<()> {
    for item in &manifest.schema {
        if kinds.contains(&item.kind.as_str()) {
            let context = || format!("could not create {} {} of the export", item.kind, item.name);
            ensure!(
                only_creates(item),
                "{}: its SQL is not a CREATE {}",
                context(),
                item.kind.to_uppercase()
            );
            // Unlike execute_batch this refuses a second statement.
            db.execute(&item.sql, []).with_context(context)?;
        }
    }
    Ok(())
}

/// A manifest may come from anywhere, and SQL can do more than make tables: ATTACH writes files.
fn only_creates(item: &SchemaItem) -> bool {
    let words: Vec<String> = item
        .sql
        .split_ascii_whitespace()
        .take(3)
        .map(str::to_ascii_uppercase)
        .collect();
    match words.as_slice() {
        [create, unique, index] if create == "CREATE" && unique == "UNIQUE" => {
            index == "INDEX" && item.kind == "index"
        }
        [create, kind, table] if create == "CREATE" && kind == "VIRTUAL" => {
            // Modules can do anything; these only keep rows.
            let module = ddl::parse_create_virtual(&item.sql).module;
            table == "TABLE" && item.kind == "table" && MODULES.contains(&module.as_str())
        }
        [create, kind, _] if create == "CREATE" && kind == "TABLE" => {
            item.kind == "table" && lists_columns(&item.sql)
        }
        [create, kind, _] => create == "CREATE" && kind.eq_ignore_ascii_case(&item.kind),
        _ => false,
    }
}

/// `CREATE TABLE … AS SELECT` fills the disk with what is in no export, for ever where it is recursive.
fn lists_columns(sql: &str) -> bool {
    let tokens = ddl::tokens(sql);
    let is_as = |t: &ddl::Token| t.is_word("AS");
    let begins = tokens.iter().position(|t| t.is_symbol("(") || is_as(t));
    begins.is_some_and(|at| !is_as(&tokens[at]))
}

fn find<'a>(database: &'a Database, file: &TableFile) -> Result<&'a Table> {
    database
        .tables
        .iter()
        .find(|t| t.name == file.table)
        .with_context(|| format!("the export's schema does not make table {}", file.table))
}

/// What [`tighten`] runs to make the schema what it was.
type Declared = Vec<String>;

/// Describes the empty tables to SQLite as columns without types, constraints and indexes. Their places in the file stay theirs.
fn loosen(db: &Connection, made: &Database) -> Result<Declared> {
    let mut declared = Vec::new();
    db.execute_batch("PRAGMA writable_schema = ON; BEGIN")?;
    for table in &made.tables {
        let Some(loose) = loose_form(db, table)? else {
            continue;
        };
        let name = literal(&table.name);
        declared.push(db.query_row(
            "SELECT format('UPDATE sqlite_master SET sql = %Q WHERE type = ''table'' AND name = %Q', sql, name)
             FROM sqlite_master WHERE type = 'table' AND name = ?1",
            [&table.name],
            |row| row.get(0),
        )?);
        // Only those of PRIMARY KEY and UNIQUE are there yet; their (empty) trees wait for REINDEX.
        let mut indexes = db.prepare(
            "SELECT format('INSERT INTO sqlite_master (type, name, tbl_name, rootpage, sql) VALUES (''index'', %Q, %Q, %d, NULL)', name, tbl_name, rootpage)
             FROM sqlite_master WHERE type = 'index' AND tbl_name = ?1 ORDER BY rowid",
        )?;
        for index in indexes.query_map([&table.name], |row| row.get(0))? {
            declared.push(index?);
        }
        db.execute_batch(&format!(
            "DELETE FROM sqlite_master WHERE type = 'index' AND tbl_name = {name};
             UPDATE sqlite_master SET sql = {} WHERE type = 'table' AND name = {name}",
            literal(&loose)
        ))?;
    }
    db.execute_batch("COMMIT")?;
    Ok(declared)
}

fn tighten(db: &Connection, declared: &Declared) -> Result<()> {
    db.execute_batch("PRAGMA writable_schema = ON; BEGIN")?;
    for statement in declared {
        db.execute(statement, [])?;
    }
    db.execute_batch("COMMIT")?;
    Ok(())
}

/// A statement for a table of the same layout on disk. None for virtual tables and for those with stored generated columns: an
/// export does not hold their values, so SQLite must compute them, and for that it must know the table as it is.
fn loose_form(db: &Connection, table: &Table) -> Result<Option<String>> {
    let stored: bool = db.query_row(
        "SELECT count(*) > 0 FROM pragma_table_xinfo(?1) WHERE hidden = 3",
        [&table.name],
        |row| row.get(0),
    )?;
    if stored || table.virtual_sql.is_some() {
        return Ok(None);
    }
    let mut parts: Vec<String> = table
        .columns
        .iter()
        .filter(|c| c.generated.is_none())
        .map(|c| {
            if table.rowid_alias.as_ref() == Some(&c.name) {
                format!("{} INTEGER PRIMARY KEY", quote(&c.name))
            } else {
                quote(&c.name)
            }
        })
        .collect();
    if table.without_rowid {
        parts.push(format!("PRIMARY KEY ({})", tree_order(db, &table.name)?));
    }
    Ok(Some(format!(
        "CREATE TABLE {} ({}){}",
        quote(&table.name),
        parts.join(", "),
        if table.without_rowid {
            " WITHOUT ROWID"
        } else {
            ""
        }
    )))
}

/// The key by which a `WITHOUT ROWID` table is kept.
fn tree_order(db: &Connection, table: &str) -> Result<String> {
    let mut statement = db.prepare(
        "SELECT x.name, x.coll, x.\"desc\" FROM pragma_index_list(?1) AS l, pragma_index_xinfo(l.name) AS x
         WHERE l.origin = 'pk' AND x.key = 1 ORDER BY x.seqno",
    )?;
    let parts = statement.query_map([table], |row| {
        let (column, collation): (String, String) = (row.get(0)?, row.get(1)?);
        let direction = if row.get(2)? { " DESC" } else { "" };
        Ok(format!(
            "{} COLLATE {}{direction}",
            quote(&column),
            quote(&collation)
        ))
    })?;
    Ok(parts.collect::<rusqlite::Result<Vec<_>>>()?.join(", "))
}

fn fill(db: &Connection, folder: &Path, file: &TableFile, table: &Table) -> Result<()> {
    let path = folder.join(&file.file);
    let context = || format!("could not read {}", path.display());
    let mut names: Vec<String> = file.columns.iter().map(|c| quote(&c.name)).collect();
    if file.rowid.is_some() {
        let rowid = table.rowid_name.with_context(|| {
            format!(
                "the export's schema makes table {} without a rowid",
                file.table
            )
        })?;
        names.insert(0, rowid.to_owned());
    }
    let places: Vec<String> = (1..=names.len()).map(|i| format!("?{i}")).collect();
    let mut insert = db
        .prepare(&format!(
            "INSERT INTO {} ({}) VALUES ({})",
            quote(&file.table),
            names.join(", "),
            places.join(", ")
        ))
        .with_context(|| format!("the export's schema makes another table {}", file.table))?;
    let members = file.members();
    let mut reader = BufReader::with_capacity(1 << 18, open_regular(&path).with_context(context)?);
    let mut line = Vec::new();
    let mut number = 0u64;
    loop {
        line.clear();
        if reader.read_until(b'\n', &mut line).with_context(context)? == 0 {
            return Ok(());
        }
        number += 1;
        let place = || format!("{} line {number}", path.display());
        let values = read_line(&line, &members).with_context(place)?;
        insert
            .execute(params_from_iter(&values))
            .with_context(place)?;
    }
}

fn prove(db: &Connection, manifest: &Manifest, again: &Database) -> Result<()> {
    for file in &manifest.tables {
        let written = write_table(db, find(again, file)?, &mut io::sink())?;
        ensure!(
            written.sha256 == file.sha256
                && written.rows == file.rows
                && written.columns == file.columns,
            "table {} does not come out as it was exported; please report this",
            file.table
        );
    }
    Ok(())
}
