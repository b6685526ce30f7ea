//! Tables, columns, keys and indexes as SQLite itself describes them, and what only the text of `CREATE` says.

use std::path::Path;

use rusqlite::Connection;

use super::ddl;
use super::open::{SourceError, classify};
use super::quote;
use super::virtual_table::{self, VirtualTable};

/// A database's description.
#[derive(Debug, Clone, Default)]
pub(crate) struct Database {
    /// Ordinary tables, by name.
    pub(crate) tables: Vec<Table>,
    pub(crate) views: Vec<String>,
    /// Triggers: name and table.
    pub(crate) triggers: Vec<(String, String)>,
    /// Virtual tables that are not among [`Database::tables`], because their rows are elsewhere or cannot be read.
    pub(crate) virtual_tables: Vec<VirtualTable>,
}

/// A table with rows of its own: an ordinary one, or a virtual one whose module keeps them.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) name: String,
    /// Its columns in order, generated ones included.
    pub(crate) columns: Vec<Column>,
    pub(crate) without_rowid: bool,
    /// The column that is another name for the rowid.
    pub(crate) rowid_alias: Option<String>,
    /// The name under which the rowid can be read; `None` when columns hide all three or there is no rowid.
    pub(crate) rowid_name: Option<&'static str>,
    /// `AUTOINCREMENT`, with the highest number ever given.
    pub(crate) autoincrement: Option<i64>,
    /// Columns of the primary key, in its order.
    pub(crate) primary_key: Vec<String>,
    /// All indexes but the primary key's.
    pub(crate) indexes: Vec<Index>,
    pub(crate) foreign_keys: Vec<ForeignKey>,
    pub(crate) checks: Vec<ddl::Check>,
    /// The `CREATE VIRTUAL TABLE` of a virtual table.
    pub(crate) virtual_sql: Option<String>,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Column {
    pub(crate) name: String,
    /// The declared type, as written.
    pub(crate) declared: String,
    pub(crate) not_null: bool,
    pub(crate) default: Option<String>,
    pub(crate) generated: Option<Generated>,
    /// A collation other than `BINARY`.
    pub(crate) collation: Option<String>,
}

/// How a generated column is computed.
#[derive(Debug, Clone)]
pub(crate) struct Generated {
    /// SQL of the expression, when it could be found in the table's text.
    pub(crate) expression: Option<String>,
}

/// Where an index comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `CREATE INDEX`.
    Create,
    /// A `UNIQUE` constraint.
    Unique,
}

#[derive(Debug, Clone)]
pub(crate) struct Index {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) unique: bool,
    /// Its columns and expressions.
    pub(crate) parts: Vec<IndexPart>,
    pub(crate) condition: Option<String>,
}

/// One column or expression of an index.
#[derive(Debug, Clone)]
pub(crate) struct IndexPart {
    /// The column, or `None` for an expression.
    pub(crate) column: Option<String>,
    /// The text of an expression.
    pub(crate) expression: Option<String>,
    pub(crate) descending: bool,
    /// A collation other than `BINARY`.
    pub(crate) collation: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) columns: Vec<String>,
    pub(crate) parent: String,
    /// Its columns; empty means its primary key.
    pub(crate) parent_columns: Vec<String>,
    pub(crate) on_update: String,
    pub(crate) on_delete: String,
    /// Its name, if it was given one.
    pub(crate) name: Option<String>,
    /// `DEFERRABLE …`, or empty.
    pub(crate) deferrable: &'static str,
}

impl Table {
    /// The column of that name, letters compared as SQLite does.
    pub(crate) fn column(&self, name: &str) -> Option<&Column> {
        self.columns
            .iter()
            .find(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// SQL that gives a text by which one row can be found again: the rowid, or the primary key's values as literals. `of` is the
    /// name of the table in the statement: inside a subquery a bare `rowid` would be somebody else's.
    pub(crate) fn key_expression(&self, of: &str) -> Option<String> {
        let of = quote(of);
        if let Some(rowid) = self.rowid_name {
            return Some(format!("CAST({of}.{rowid} AS TEXT)"));
        }
        (!self.primary_key.is_empty()).then(|| {
            let parts: Vec<String> = self
                .primary_key
                .iter()
                .map(|c| format!("quote({of}.{})", quote(c)))
                .collect();
            parts.join(" || ',' || ")
        })
    }

    /// SQL that reads all columns, in the order of the table's own b-tree.
    pub(crate) fn select(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|c| quote(&c.name)).collect();
        format!("SELECT {} FROM {}", columns.join(", "), quote(&self.name))
    }
}

impl Database {
    /// Reads the description of an open database; `path` is named in errors.
    pub(crate) fn read(connection: &Connection, path: &Path) -> Result<Self, SourceError> {
        read(connection).map_err(|e| classify(path, e))
    }
}

fn read(connection: &Connection) -> rusqlite::Result<Database> {
    let mut database = Database::default();
    let mut virtuals = Vec::new();
    let mut statement = connection.prepare(
        "SELECT l.name, l.type, l.wr, coalesce(m.sql, '') FROM pragma_table_list AS l
         JOIN sqlite_master AS m ON m.name = l.name AND m.type = 'table'
         WHERE l.schema = 'main' AND l.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY l.name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (name, kind): (String, String) = (row.get(0)?, row.get(1)?);
        match kind.as_str() {
            "table" => database.tables.push(read_table(
                connection,
                &name,
                row.get(2)?,
                &row.get::<_, String>(3)?,
            )?),
            "virtual" => virtuals.push((name, row.get::<_, String>(3)?)),
            // A virtual table's own storage.
            _ => {}
        }
    }
    for (name, sql) in virtuals {
        match virtual_table::read(connection, &name, &sql)? {
            Ok(table) => database.tables.push(table),
            Err(other) => database.virtual_tables.push(other),
        }
    }
    database.tables.sort_by(|a, b| a.name.cmp(&b.name));
    let mut statement = connection.prepare(
        "SELECT type, name, tbl_name FROM sqlite_master WHERE type IN ('view', 'trigger') ORDER BY name",
    )?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let kind: String = row.get(0)?;
        if kind == "view" {
            database.views.push(row.get(1)?);
        } else {
            database.triggers.push((row.get(1)?, row.get(2)?));
        }
    }
    Ok(database)
}

fn read_table(
    connection: &Connection,
    name: &str,
    without_rowid: bool,
    sql: &str,
) -> rusqlite::Result<Table> {
    let parsed = ddl::parse_create_table(sql);
    let mut columns = Vec::new();
    let mut key: Vec<(i64, String, String)> = Vec::new();
    let mut statement = connection.prepare(
        "SELECT name, type, \"notnull\", dflt_value, pk, hidden FROM pragma_table_xinfo(?1) ORDER BY cid",
    )?;
    let mut rows = statement.query([name])?;
    while let Some(row) = rows.next()? {
        let (column, declared): (String, String) = (row.get(0)?, row.get(1)?);
        let (position, hidden): (i64, i64) = (row.get(4)?, row.get(5)?);
        let text = parsed.columns.iter().find(|c| c.name == column);
        if position > 0 {
            key.push((position, column.clone(), declared.clone()));
        }
        columns.push(Column {
            // SQLite leaves the words in the type of a generated column.
            declared: declared
                .trim_end_matches("GENERATED ALWAYS")
                .trim_end()
                .to_owned(),
            not_null: row.get(2)?,
            default: row.get(3)?,
            generated: (hidden == 2 || hidden == 3).then(|| Generated {
                expression: text.and_then(|t| t.generated.clone()),
            }),
            collation: text
                .and_then(|t| t.collation.clone())
                .filter(|c| !c.eq_ignore_ascii_case("BINARY")),
            name: column,
        });
    }
    key.sort_by_key(|(position, _, _)| *position);
    // https://www.sqlite.org/lang_createtable.html#rowid: exactly the word INTEGER, one column, and not "PRIMARY KEY DESC".
    let rowid_alias = match key.as_slice() {
        [(_, column, declared)]
            if !without_rowid
                && declared.eq_ignore_ascii_case("INTEGER")
                && !has_primary_key_index(connection, name)? =>
        {
            Some(column.clone())
        }
        _ => None,
    };
    let rowid_name = if without_rowid {
        None
    } else {
        ["rowid", "_rowid_", "oid"]
            .into_iter()
            .find(|n| !columns.iter().any(|c| c.name.eq_ignore_ascii_case(n)))
    };
    let autoincrement = if parsed.autoincrement {
        let mut sequence = connection.prepare("SELECT seq FROM sqlite_sequence WHERE name = ?1")?;
        let mut rows = sequence.query([name])?;
        // Anybody may write to it: what is no number is none.
        Some(match rows.next()? {
            Some(row) => row.get_ref(0)?.as_i64().unwrap_or(0),
            None => 0,
        })
    } else {
        None
    };
    Ok(Table {
        name: name.to_owned(),
        columns,
        without_rowid,
        rowid_alias,
        rowid_name,
        autoincrement,
        primary_key: key.into_iter().map(|(_, column, _)| column).collect(),
        indexes: read_indexes(connection, name)?,
        foreign_keys: read_foreign_keys(connection, name, parsed.foreign_keys)?,
        checks: parsed.checks,
        virtual_sql: None,
    })
}

fn has_primary_key_index(connection: &Connection, table: &str) -> rusqlite::Result<bool> {
    connection.query_row(
        "SELECT count(*) > 0 FROM pragma_index_list(?1) WHERE origin = 'pk'",
        [table],
        |row| row.get(0),
    )
}

fn read_indexes(connection: &Connection, table: &str) -> rusqlite::Result<Vec<Index>> {
    let mut indexes = Vec::new();
    let mut statement = connection.prepare(
        "SELECT l.name, l.\"unique\", l.origin, coalesce(m.sql, '') FROM pragma_index_list(?1) AS l
         LEFT JOIN sqlite_master AS m ON m.type = 'index' AND m.name = l.name
         WHERE l.origin <> 'pk' ORDER BY l.name",
    )?;
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let name: String = row.get(0)?;
        let text = ddl::parse_create_index(&row.get::<_, String>(3)?);
        let mut parts = Vec::new();
        let mut columns = connection.prepare(
            "SELECT cid, name, \"desc\", coll FROM pragma_index_xinfo(?1) WHERE key = 1 ORDER BY seqno",
        )?;
        let mut column_rows = columns.query([&name])?;
        while let Some(column) = column_rows.next()? {
            let is_expression = column.get::<_, i64>(0)? == -2;
            let collation: Option<String> = column.get(3)?;
            parts.push(IndexPart {
                column: column.get(1)?,
                expression: is_expression
                    .then(|| text.parts.get(parts.len()).cloned())
                    .flatten(),
                descending: column.get(2)?,
                collation: collation.filter(|c| !c.eq_ignore_ascii_case("BINARY")),
            });
        }
        indexes.push(Index {
            origin: if row.get::<_, String>(2)? == "u" {
                Origin::Unique
            } else {
                Origin::Create
            },
            unique: row.get(1)?,
            name,
            parts,
            condition: text.condition,
        });
    }
    Ok(indexes)
}

fn read_foreign_keys(
    connection: &Connection,
    table: &str,
    mut texts: Vec<ddl::ForeignKeyText>,
) -> rusqlite::Result<Vec<ForeignKey>> {
    let mut keys: Vec<(i64, ForeignKey)> = Vec::new();
    let mut statement = connection.prepare(
        "SELECT id, \"table\", \"from\", \"to\", on_update, on_delete FROM pragma_foreign_key_list(?1) ORDER BY id, seq",
    )?;
    let mut rows = statement.query([table])?;
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        let (column, parent_column): (String, Option<String>) = (row.get(2)?, row.get(3)?);
        if keys.last().is_none_or(|(last, _)| *last != id) {
            keys.push((
                id,
                ForeignKey {
                    columns: Vec::new(),
                    parent: row.get(1)?,
                    parent_columns: Vec::new(),
                    on_update: row.get(4)?,
                    on_delete: row.get(5)?,
                    name: None,
                    deferrable: "",
                },
            ));
        }
        if let Some((_, key)) = keys.last_mut() {
            key.columns.push(column);
            key.parent_columns.extend(parent_column);
        }
    }
    for (_, key) in &mut keys {
        let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
        let text = texts.iter().position(|t| {
            same(&t.parent, &key.parent)
                && t.columns.len() == key.columns.len()
                && t.columns.iter().zip(&key.columns).all(|(a, b)| same(a, b))
        });
        if let Some(at) = text {
            let text = texts.remove(at);
            key.name = text.name;
            key.deferrable = text.deferrable;
        }
    }
    Ok(keys.into_iter().map(|(_, key)| key).collect())
}
