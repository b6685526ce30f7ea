//! What the application will notice after the move: where the same statement means something else in PostgreSQL, and which columns
//! of this database that concerns.

use super::{PgType, Plan, PlannedColumn, PlannedTable};

/// One difference.
#[derive(Debug)]
pub(crate) struct AppNote {
    pub(crate) topic: &'static str,
    /// The columns that it concerns; none where it concerns all statements.
    pub(crate) columns: Vec<String>,
    pub(crate) sqlite: &'static str,
    pub(crate) postgresql: String,
    pub(crate) remedy: &'static str,
}

fn columns(
    plan: &Plan,
    concerns: impl Fn(&PlannedTable, usize, &PlannedColumn) -> bool,
) -> Vec<String> {
    let mut found = Vec::new();
    for table in &plan.tables {
        for (i, column) in table.columns.iter().enumerate() {
            if concerns(table, i, column) {
                found.push(format!("{}.{}", table.target, column.target));
            }
        }
    }
    found
}

fn is_text(column: &PlannedColumn) -> bool {
    matches!(column.pg, PgType::Text | PgType::Varchar(_))
}

/// Notes a difference that concerns some columns.
fn about(
    notes: &mut Vec<AppNote>,
    topic: &'static str,
    columns: Vec<String>,
    (sqlite, postgresql): (&'static str, String),
    remedy: &'static str,
) {
    if !columns.is_empty() {
        notes.push(AppNote {
            topic,
            columns,
            sqlite,
            postgresql,
            remedy,
        });
    }
}

/// `order` is how the database compares texts, where that is not by bytes.
pub(crate) fn of(plan: &Plan, order: Option<&str>) -> Vec<AppNote> {
    let mut notes = Vec::new();
    of_texts(plan, order, &mut notes);
    of_values(plan, &mut notes);
    notes.extend(of_statements());
    notes
}

fn of_texts(plan: &Plan, order: Option<&str>, notes: &mut Vec<AppNote>) {
    let texts = columns(plan, |_, _, c| is_text(c));
    about(
        notes,
        "LIKE and case",
        texts.clone(),
        (
            "LIKE ignores the case of ASCII letters",
            "LIKE heeds case".to_owned(),
        ),
        "ILIKE, with an index on lower() or pg_trgm",
    );
    about(
        notes,
        "texts without case",
        columns(plan, |t, i, c| {
            let collation = t.source.columns.get(i).and_then(|s| s.collation.as_ref());
            is_text(c) && collation.is_some_and(|c| c.eq_ignore_ascii_case("NOCASE"))
        }),
        (
            "=, ORDER BY, DISTINCT and unique keys ignore case (COLLATE NOCASE)",
            "they heed case, except for unique keys, whose index is on lower()".to_owned(),
        ),
        "compare lower(column) with lower(value), or let the mapping say type = \"public.citext\"",
    );
    if let Some(order) = order {
        about(
            notes,
            "order of texts",
            texts,
            (
                "by bytes: 'Z' comes before 'a'",
                format!("by the rules of {order}: 'a' comes before 'Z'"),
            ),
            "ORDER BY column COLLATE \"C\" where it matters",
        );
    }
}

fn of_values(plan: &Plan, notes: &mut Vec<AppNote>) {
    about(
        notes,
        "order of NULL",
        columns(plan, |t, i, c| {
            !c.not_null && t.stats.columns.get(i).is_some_and(|s| s.nulls > 0)
        }),
        ("NULL comes first", "NULL comes last".to_owned()),
        "ORDER BY column NULLS FIRST",
    );
    about(
        notes,
        "booleans",
        columns(plan, |_, _, c| c.pg == PgType::Bool),
        (
            "0 and 1, which can be compared with numbers and added up",
            "true and false; active = 1 and sum(active) are errors".to_owned(),
        ),
        "WHERE active, count(*) FILTER (WHERE active); drivers give True and False",
    );
    about(
        notes,
        "times",
        columns(plan, |_, _, c| {
            matches!(
                c.pg,
                PgType::Timestamp(_) | PgType::Timestamptz(_) | PgType::Date | PgType::Time
            )
        }),
        (
            "texts or numbers, with strftime() and datetime()",
            "values of their own; drivers give objects, strftime() does not exist".to_owned(),
        ),
        "to_char(), extract(), date_trunc(), now()",
    );
    about(
        notes,
        "JSON",
        columns(plan, |_, _, c| matches!(c.pg, PgType::Json | PgType::Jsonb)),
        (
            "texts, with json_extract()",
            "values of their own; drivers give objects".to_owned(),
        ),
        "column ->> 'key', column #>> '{a,b}'",
    );
    about(
        notes,
        "strictness",
        columns(plan, |_, _, c| {
            !is_text(c) && c.pg != PgType::Bytea || matches!(c.pg, PgType::Varchar(_))
        }),
        ("any value goes into any column", "a value of another type, or a text longer than varchar(n), is an error; number = 'text' too".to_owned(),),
        "give values of the column's type; CAST where two kinds are compared",
    );
    about(
        notes,
        "foreign keys",
        plan.tables
            .iter()
            .flat_map(|t| {
                t.foreign_keys
                    .iter()
                    .map(|k| format!("{}.{}", t.target, k.columns.join("+")))
            })
            .collect(),
        (
            "kept only with PRAGMA foreign_keys = ON",
            "always kept".to_owned(),
        ),
        "insert parents first, or declare the key DEFERRABLE",
    );
    about(
        notes,
        "names",
        columns(plan, |_, _, c| c.source != c.target),
        (
            "found whatever their case",
            "lower case here; \"Quoted\" names with capitals are not found".to_owned(),
        ),
        "do not quote names, or move with --identifiers keep",
    );
}

/// Those that concern all statements.
fn of_statements() -> [AppNote; 3] {
    [
        AppNote {
            topic: "order of ties",
            columns: Vec::new(),
            sqlite: "rows that compare equal, and all without ORDER BY, come in the order of rowid as a rule",
            postgresql: "they come in any order, which may change from one statement to the next"
                .to_owned(),
            remedy: "ORDER BY … , id, always with LIMIT",
        },
        AppNote {
            topic: "grouping",
            columns: Vec::new(),
            sqlite: "columns beside GROUP BY take a value of any row",
            postgresql: "they are an error".to_owned(),
            remedy: "name them in GROUP BY, or DISTINCT ON",
        },
        AppNote {
            topic: "statements",
            columns: Vec::new(),
            sqlite: "INSERT OR REPLACE, last_insert_rowid(), ifnull(), group_concat(), \"text\", ?",
            postgresql: "other words".to_owned(),
            remedy: "INSERT … ON CONFLICT, RETURNING id, coalesce(), string_agg(), 'text', $1",
        },
    ]
}
