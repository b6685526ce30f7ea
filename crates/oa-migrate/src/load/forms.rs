//! Values of types that this program has no binary form for (`uuid`, `character(n)`, enums, `inet`, `interval`, arrays …):
//! PostgreSQL reads their texts itself and says how it writes them.
//!
//! What it writes differently, and what it refuses or would cut or round, is kept beside the quarantined rows. The loader sends
//! PostgreSQL's own form, and the proof compares with that form.

use anyhow::{Context, Result, anyhow, ensure};
use oa_core::pg::describe;
use postgres::GenericClient;
use rusqlite::functions::FunctionFlags;
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OptionalExtension, params};

use crate::errors::is_passing;
use crate::inspect::{Table, literal, quote};
use crate::plan::PgType;
use crate::values::float_text;

/// The table of forms in a run's file of quarantined rows.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS forms (type TEXT NOT NULL, text TEXT NOT NULL, form TEXT, reason TEXT,
 PRIMARY KEY (type, text)) WITHOUT ROWID";

/// Texts that are asked about at once.
const BATCH: usize = 1000;

/// The text that is sent for a value; none for NULL, and for a blob that is no UUID.
fn text_of(value: ValueRef<'_>, type_name: &str) -> Option<Vec<u8>> {
    match value {
        ValueRef::Null => None,
        ValueRef::Integer(n) => Some(n.to_string().into_bytes()),
        ValueRef::Real(x) => Some(float_text(x).into_bytes()),
        ValueRef::Text(bytes) => Some(bytes.to_vec()),
        ValueRef::Blob(bytes) if type_name == "uuid" && bytes.len() == 16 => {
            let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
            Some(digits.into_bytes())
        }
        ValueRef::Blob(_) => None,
    }
}

/// Makes `oa_text(value, type)` known to a connection; [`expression`] uses it.
pub(crate) fn register(connection: &Connection) -> rusqlite::Result<()> {
    let flags = FunctionFlags::SQLITE_UTF8 | FunctionFlags::SQLITE_DETERMINISTIC;
    connection.create_scalar_function(c"oa_text", 2, flags, |context| {
        let type_name: String = context.get(1)?;
        let text = text_of(context.get_raw(0), &type_name);
        Ok(text
            .and_then(|t| String::from_utf8(t).ok())
            .map(Value::Text))
    })
}

/// SQL for a column's value in PostgreSQL's form: a text, NULL, or a blob where it does not fit. `forms` is the table of forms.
pub(crate) fn expression(column: &str, pg: PgType, forms: &str) -> String {
    let PgType::Other(name) = pg else {
        return column.to_owned();
    };
    let name = literal(name.as_str());
    let text = format!("oa_text({column}, {name})");
    format!(
        "CASE WHEN {column} IS NULL THEN NULL ELSE coalesce((SELECT coalesce(f.form, x'00') FROM {forms} AS f WHERE f.type = {name} AND f.text = {text}), {text}, x'00') END"
    )
}

/// A column of a temporary table that takes such texts.
pub(crate) fn as_text(column: &str, pg: PgType) -> String {
    if pg.is_other() {
        format!("{column}::text AS {column}")
    } else {
        column.to_owned()
    }
}

/// The value of its own type, of a column of such a table.
pub(crate) fn cast(column: &str, pg: PgType) -> String {
    match pg {
        PgType::Other(name) => format!("{column}::{}", name.as_str()),
        _ => column.to_owned(),
    }
}

/// Why a value that is not NULL does not fit, in PostgreSQL's words; none where it does. `store` has the table of forms.
pub(crate) fn refusal(
    store: &Connection,
    pg: PgType,
    value: ValueRef<'_>,
) -> rusqlite::Result<Option<String>> {
    let PgType::Other(name) = pg else {
        return Ok(None);
    };
    let text = text_of(value, name.as_str()).and_then(|t| String::from_utf8(t).ok());
    let Some(text) = text.filter(|t| !t.contains('\0')) else {
        return Ok(Some(format!("no text that {pg} could be read from")));
    };
    let found = store
        .prepare_cached("SELECT reason FROM forms WHERE type = ?1 AND text = ?2")?
        .query_row(params![name.as_str(), text], |row| {
            row.get::<_, Option<String>>(0)
        })
        .optional()?;
    Ok(found.flatten())
}

/// Asks PostgreSQL about all values of those columns of a table that have no binary form. `table` is its name in statements on
/// `connection`, which gets the function that [`expression`] uses; `store` has the table of forms.
pub(crate) fn ask(
    client: &mut impl GenericClient,
    connection: &Connection,
    table: &str,
    columns: &[(String, PgType)],
    store: &Connection,
) -> Result<()> {
    register(connection)?;
    for (column, pg) in columns {
        let PgType::Other(name) = *pg else { continue };
        store.execute_batch(TABLE)?;
        let question = Question::of(client, name.as_str())
            .with_context(|| format!("column {column} of table {table}"))?;
        let mut insert = store.prepare("INSERT OR REPLACE INTO forms VALUES (?1, ?2, ?3, ?4)")?;
        let mut keep = |answers: Vec<Answer>| -> Result<()> {
            for Answer { text, form, reason } in answers {
                if reason.is_some() || form.as_ref() != Some(&text) {
                    insert.execute(params![name.as_str(), text, form, reason])?;
                }
            }
            Ok(())
        };
        let mut statement = connection.prepare(&format!(
            "SELECT DISTINCT oa_text({0}, {1}) FROM {table} WHERE {0} IS NOT NULL",
            quote(column),
            literal(name.as_str())
        ))?;
        let mut rows = statement.query([])?;
        let mut batch: Vec<String> = Vec::new();
        while let Some(row) = rows.next()? {
            // What is no text is refused without asking.
            let Some(text) = row
                .get::<_, Option<String>>(0)?
                .filter(|t| !t.contains('\0'))
            else {
                continue;
            };
            batch.push(text);
            if batch.len() == BATCH {
                keep(question.answer(client, &batch)?)?;
                batch.clear();
            }
        }
        keep(question.answer(client, &batch)?)?;
    }
    Ok(())
}

/// The columns of a comparison or a plan that [`ask`] is about.
pub(crate) fn others<'a>(
    columns: impl Iterator<Item = (&'a str, PgType)>,
) -> Vec<(String, PgType)> {
    columns
        .filter(|(_, pg)| pg.is_other())
        .map(|(name, pg)| (name.to_owned(), pg))
        .collect()
}

/// `SELECT` of all columns of a table in the forms that are sent.
pub(crate) fn select(table: &Table, types: impl Iterator<Item = PgType>, forms: &str) -> String {
    let columns: Vec<String> = table
        .columns
        .iter()
        .zip(types)
        .map(|(c, pg)| expression(&quote(&c.name), pg, forms))
        .collect();
    format!(
        "SELECT {} FROM {}{}",
        columns.join(", "),
        quote(&table.name),
        in_order(table)
    )
}

/// Keeps SQLite from reading a table in the order of an index: rows are counted in the order in which they are loaded.
pub(crate) fn in_order(table: &Table) -> &'static str {
    if table.virtual_sql.is_none() {
        " NOT INDEXED"
    } else {
        ""
    }
}

/// How PostgreSQL is asked about texts of a type.
struct Question {
    type_name: String,
    sql: String,
}

struct Answer {
    text: String,
    /// As PostgreSQL writes it.
    form: Option<String>,
    reason: Option<String>,
}

impl Question {
    fn of(client: &mut impl GenericClient, type_name: &str) -> Result<Self> {
        // The type below a domain, without limits of length or precision, and what it is made of.
        let row = client
            .query_one(
                "WITH RECURSIVE t AS (SELECT p.* FROM pg_type p WHERE p.oid = $1::text::regtype
                                      UNION ALL SELECT p.* FROM pg_type p JOIN t ON t.typtype = 'd' AND p.oid = t.typbasetype)
                 SELECT format('%I.%I', b.typnamespace::regnamespace, b.typname), b.typname::text, b.typcategory::text,
                        coalesce(e.typcategory, '')::text || coalesce((SELECT s.typcategory::text FROM pg_range r JOIN pg_type s ON s.oid = r.rngsubtype
                          WHERE b.oid IN (r.rngtypid, r.rngmultitypid)), ''),
                        EXISTS (SELECT FROM pg_operator o WHERE o.oprname = '=' AND o.oprleft = b.oid AND o.oprright = b.oid)
                 FROM t AS b LEFT JOIN pg_type e ON e.oid = b.typelem AND b.typcategory = 'A' WHERE b.typtype <> 'd'",
                &[&type_name],
            )
            .map_err(|e| anyhow!("could not look at the type {type_name}: {}", describe(&e)))?;
        let (base, name, category, parts): (String, String, String, String) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        ensure!(
            name != "timetz",
            "the type {type_name} depends on a time zone that the values do not name; use another type"
        );
        let wide = if name == "float4" {
            "pg_catalog.float8"
        } else {
            &base
        };
        let equal = if name == "float4" || row.get(4) {
            "OR w = (c::text)::WIDE"
        } else {
            ""
        };
        // Input functions that drop what does not fit without saying so.
        let whole = if matches!(name.as_str(), "name" | "char") {
            "v = c::text"
        } else if name == "money" {
            "v::numeric = c::money::numeric"
        } else if name == "time" {
            "v !~ '\\.\\d{6}\\d*[1-9]' AND v !~ '^\\s*\\d*\\.?\\d*\\s*$' AND v !~ '[zZ]\\s*$|[-+]\\d'"
        } else if category == "C" || category == "D" || parts.contains('D') {
            "regexp_replace(v, '\\D', '', 'g') = regexp_replace(c::text, '\\D', '', 'g') AND v !~ '[zZ]\\s*$'"
        } else if category == "T" || parts.contains('T') {
            // A bare number would be taken for seconds, or hours and minutes.
            "v !~ '\\.\\d{6}\\d*[1-9]' AND v !~ '^\\s*[-+]?\\d*\\.?\\d*\\s*$'"
        } else {
            "true"
        };
        let sql = format!(
            "SELECT v, c::text, (w::text = c::text {equal}) AND {whole}
             FROM (SELECT v, w, w::{type_name} AS c FROM (SELECT v, v::WIDE AS w FROM unnest($1::text[]) AS v) AS u) AS t"
        )
        .replace("WIDE", wide);
        Ok(Self {
            type_name: type_name.to_owned(),
            sql,
        })
    }

    /// Where a text is refused, halves are asked about until it is found.
    fn answer(&self, client: &mut impl GenericClient, texts: &[String]) -> Result<Vec<Answer>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let explain = |e: &postgres::Error| {
            anyhow!(
                "could not ask PostgreSQL about values of {}: {}",
                self.type_name,
                describe(e)
            )
        };
        let mut attempt = client.transaction().map_err(|e| explain(&e))?;
        match attempt.query(&self.sql, &[&texts]) {
            Ok(rows) => {
                attempt.commit().map_err(|e| explain(&e))?;
                Ok(rows
                    .iter()
                    .map(|row| {
                        let fits = row.get::<_, Option<bool>>(2) == Some(true);
                        let form: Option<String> = row.get(1);
                        Answer {
                            text: row.get(0),
                            reason: (!fits).then(|| {
                                format!(
                                    "{} would hold {} instead",
                                    self.type_name,
                                    form.as_deref().unwrap_or("NULL")
                                )
                            }),
                            form: form.filter(|_| fits),
                        }
                    })
                    .collect())
            }
            Err(e) if is_passing(&e) || e.as_db_error().is_none() => Err(explain(&e)),
            Err(e) => {
                attempt.rollback().map_err(|e| explain(&e))?;
                if let [text] = texts {
                    return Ok(vec![Answer {
                        text: text.clone(),
                        form: None,
                        reason: Some(describe(&e).to_string()),
                    }]);
                }
                let (first, second) = texts.split_at(texts.len() / 2);
                let mut answers = self.answer(client, first)?;
                answers.extend(self.answer(client, second)?);
                Ok(answers)
            }
        }
    }
}
