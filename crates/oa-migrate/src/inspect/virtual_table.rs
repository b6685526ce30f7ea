//! Virtual tables: which of them own rows, and what is to be said of the others.
//!
//! Full-text tables with contents of their own and R-trees are read like ordinary tables, with their rowid, by which other tables
//! point to them, as a column. An index over another table owns nothing. What cannot be read is named, never taken for empty.

use rusqlite::{Connection, Error, ErrorCode};

use super::ddl::{self, CreateVirtual};
use super::quote;
use super::schema::{Column, Table};

/// Modules whose tables own rows, all of them built into this program.
pub(crate) const MODULES: [&str; 5] = ["fts3", "fts4", "fts5", "rtree", "rtree_i32"];

/// A virtual table of which no rows are moved.
#[derive(Debug, Clone)]
pub(crate) struct VirtualTable {
    pub(crate) name: String,
    /// Why no rows are moved: the end of a sentence that begins with its name.
    pub(crate) why: String,
    /// Something that is only here stays behind.
    pub(crate) lost: bool,
}

/// Describes a virtual table: as a table when it owns rows.
pub(crate) fn read(
    connection: &Connection,
    name: &str,
    sql: &str,
) -> rusqlite::Result<Result<Table, VirtualTable>> {
    let create = ddl::parse_create_virtual(sql);
    let without = |lost: bool, why: String| {
        Ok(Err(VirtualTable {
            name: name.to_owned(),
            why,
            lost,
        }))
    };
    match create.module.as_str() {
        "fts3" | "fts4" | "fts5" if !has_relation(connection, &format!("{name}_content"))? => {
            match create.option("content").filter(|c| !c.is_empty()) {
                Some(other) if has_relation(connection, &other)? => without(
                    false,
                    format!("is an index over {other}, which has the rows; use to_tsvector and a GIN index there"),
                ),
                Some(other) => without(
                    true,
                    format!("is an index over {other}, which does not exist"),
                ),
                None if has_entries(connection, name)? => without(
                    true,
                    "is a full-text index without its texts (content=''), so there are no rows that could be moved; rebuild it from the texts, where the application has them".to_owned(),
                ),
                None => without(false, "is a full-text index without its texts (content='') and empty".to_owned()),
            }
        }
        module if MODULES.contains(&module) => match table(connection, name, sql, &create) {
            Ok(table) => Ok(Ok(table)),
            Err(e) if refused(&e) => without(true, format!("cannot be opened by module {module}: {e}")),
            Err(e) => Err(e),
        },
        "fts5vocab" | "fts4aux" | "fts3tokenize" | "dbstat" | "sqlite_dbpage" => without(
            false,
            format!("(module {}) only shows what other tables hold", create.module),
        ),
        module => without(
            true,
            format!("belongs to the module {module}, which this program does not have, so its rows cannot be read"),
        ),
    }
}

/// The module says no (an unknown tokenizer, bad arguments), not the file.
fn refused(error: &Error) -> bool {
    matches!(
        error.sqlite_error_code(),
        Some(ErrorCode::Unknown | ErrorCode::TypeMismatch | ErrorCode::ApiMisuse)
    )
}

fn has_relation(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT count(*) > 0 FROM sqlite_master WHERE type IN ('table', 'view') AND name = ?1 COLLATE NOCASE",
        [name],
        |row| row.get(0),
    )
}

/// Whether a full-text index holds anything; its own tables show.
fn has_entries(connection: &Connection, name: &str) -> rusqlite::Result<bool> {
    for part in ["idx", "docsize", "segdir"] {
        let own = format!("{name}_{part}");
        if has_relation(connection, &own)?
            && connection.query_row(
                &format!("SELECT EXISTS (SELECT 1 FROM {})", quote(&own)),
                [],
                |row| row.get(0),
            )?
        {
            return Ok(true);
        }
    }
    Ok(false)
}

fn table(
    connection: &Connection,
    name: &str,
    sql: &str,
    create: &CreateVirtual,
) -> rusqlite::Result<Table> {
    // Opens it, which is where an unknown tokenizer is noticed.
    connection
        .prepare(&format!("SELECT * FROM {} LIMIT 1", quote(name)))?
        .query([])?
        .next()?;
    let language = create.option("languageid");
    let mut statement =
        connection.prepare("SELECT name, type, hidden FROM pragma_table_xinfo(?1) ORDER BY cid")?;
    let mut rows = statement.query([name])?;
    let mut columns = Vec::new();
    while let Some(row) = rows.next()? {
        let column: String = row.get(0)?;
        let of_language = language
            .as_ref()
            .is_some_and(|l| l.eq_ignore_ascii_case(&column));
        if row.get::<_, i64>(2)? == 0 || of_language {
            columns.push(Column {
                name: column,
                declared: row.get(1)?,
                ..Column::default()
            });
        }
    }
    let hidden = |n: &str| columns.iter().any(|c| c.name.eq_ignore_ascii_case(n));
    let rowid_name = ["rowid", "_rowid_", "oid"].into_iter().find(|n| !hidden(n));
    let mut key = None;
    if create.module.starts_with("rtree") {
        // Its first column is the rowid.
        if let Some(first) = columns.first_mut() {
            "INTEGER".clone_into(&mut first.declared);
            key = Some(first.name.clone());
        }
    } else if let Some(rowid) = rowid_name {
        columns.insert(
            0,
            Column {
                name: rowid.to_owned(),
                declared: "INTEGER".to_owned(),
                ..Column::default()
            },
        );
        key = Some(rowid.to_owned());
    }
    Ok(Table {
        name: name.to_owned(),
        columns,
        without_rowid: false,
        rowid_name,
        autoincrement: None,
        primary_key: key.iter().cloned().collect(),
        rowid_alias: key,
        indexes: Vec::new(),
        foreign_keys: Vec::new(),
        checks: Vec::new(),
        virtual_sql: Some(sql.to_owned()),
    })
}
