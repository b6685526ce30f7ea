//! Collations and functions that only the application knows: with something of that name SQLite opens the tables that use them,
//! and all others.
//!
//! A collation orders by bytes here, which matters for nothing that is read row by row. A function is never computed: stored
//! results of generated columns are read as they are, and where SQLite would have to compute one, it says whose function it is.

use std::collections::HashSet;

use rusqlite::functions::FunctionFlags;
use rusqlite::{Connection, ErrorCode};

use super::schema::Table;

#[derive(Debug, thiserror::Error)]
#[error(
    "{0}() is a function of the application's own; store its results in an ordinary column, or leave the table out with --exclude"
)]
struct OwnFunction(String);

/// Makes stand-ins known to a connection. `schema` is the one whose tables are read.
pub(crate) fn register(connection: &Connection, schema: &str) -> rusqlite::Result<()> {
    connection.collation_needed(|connection, name| {
        connection.create_collation(name, |a: &str, b: &str| a.as_bytes().cmp(b.as_bytes()))
    })?;
    let mut known: HashSet<String> = connection
        .prepare("SELECT DISTINCT lower(name) FROM pragma_function_list")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut statement = connection.prepare(&format!(
        "SELECT sql FROM {schema}.sqlite_master WHERE sql IS NOT NULL AND type IN ('table', 'index') AND rootpage > 0"
    ))?;
    let mut rows = statement.query([])?;
    let mut own = Vec::new();
    while let Some(row) = rows.next()? {
        for word in called(row.get_ref(0)?.as_str().unwrap_or_default()) {
            let word = word.to_ascii_lowercase();
            if known.insert(word.clone()) {
                own.push(word);
            }
        }
    }
    drop(rows);
    for name in own {
        let flags = FunctionFlags::SQLITE_UTF8
            | FunctionFlags::SQLITE_DETERMINISTIC
            | FunctionFlags::SQLITE_INNOCUOUS;
        let words = name.clone();
        connection.create_scalar_function(name.as_str(), -1, flags, move |_| {
            let error = OwnFunction(words.clone());
            Err::<Option<i64>, _>(rusqlite::Error::UserFunctionError(Box::new(error)))
        })?;
    }
    Ok(())
}

/// Whether a table cannot be read because one of its columns is computed by such a function.
pub(crate) fn is_refusal(error: &anyhow::Error) -> bool {
    let sqlite = error.downcast_ref::<rusqlite::Error>();
    sqlite.is_some_and(|e| e.sqlite_error_code() == Some(ErrorCode::Unknown))
}

/// What stands before a column that is searched for, so that SQLite uses no index in an order that only the application knows.
pub(crate) fn without_index(table: &Table, column: &str) -> &'static str {
    let collation = table.column(column).and_then(|c| c.collation.as_deref());
    let known = |name: &str| {
        ["BINARY", "NOCASE", "RTRIM"]
            .iter()
            .any(|k| k.eq_ignore_ascii_case(name))
    };
    if collation.is_none_or(known) { "" } else { "+" }
}

/// The words before an opening parenthesis; also types and names of tables, which do no harm as functions.
fn called(sql: &str) -> impl Iterator<Item = &str> {
    sql.match_indices('(').filter_map(|(at, _)| {
        let before = sql[..at].trim_end();
        let word = before
            .rfind(|c: char| !(c.is_alphanumeric() || c == '_'))
            .map_or(before, |i| {
                let rest = &before[i..];
                let skip = rest.chars().next().map_or(0, char::len_utf8);
                &rest[skip..]
            });
        (!word.is_empty()).then_some(word)
    })
}
