//! The plan: which table goes where, with which types, keys and indexes, and what cannot be moved as it is.
//!
//! Made in two steps, because what to look for in the values depends on what a column means: [`Layout`] decides names and
//! meanings, the value scan follows, and [`Layout::finish`] chooses types and translates the rest.

pub(crate) mod app_notes;
pub(crate) mod args;
pub(crate) mod build;
pub(crate) mod existing;
pub(crate) mod expr;
mod keys;
pub(crate) mod make;
pub(crate) mod mapping;
pub(crate) mod missing;
pub(crate) mod names;
pub(crate) mod preflight;
pub(crate) mod refuse;
pub(crate) mod types;

use chrono_tz::Tz;
use oa_core::pg::quote_ident;

use crate::inspect::Table;
use crate::inspect::scan::TableStats;
use crate::values::conversion::Conversion;

pub(crate) use args::PlanArgs;
pub(crate) use build::Layout;
pub(crate) use existing::Existing;
pub(crate) use mapping::Collation;
pub(crate) use missing::Missing;
pub(crate) use types::{OnBadValue, PgType};

#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) schema: String,
    pub(crate) tables: Vec<PlannedTable>,
    /// What concerns no single table: views, triggers, virtual tables.
    pub(crate) warnings: Vec<String>,
    /// What of the source is in none of the tables and was not skipped on purpose.
    pub(crate) missing: Vec<Missing>,
    /// Tables and virtual tables of the source that were skipped, as requested.
    pub(crate) skipped: Vec<String>,
    /// Nothing is to be kept.
    pub(crate) rehearsal: bool,
}

impl Plan {
    /// What of the source did not come along.
    pub(crate) fn missing(&self) -> Vec<Missing> {
        let of_tables = self.tables.iter().flat_map(|t| &t.missing);
        self.missing.iter().chain(of_tables).cloned().collect()
    }

    /// Whether a foreign key refers to a table that is in the target already and takes rows.
    pub(crate) fn fills(&self, key: &PlannedForeignKey) -> bool {
        key.parent_moves
            && self
                .tables
                .iter()
                .any(|t| t.existing.is_some() && t.target == key.parent)
    }
}

#[derive(Debug)]
pub(crate) struct PlannedTable {
    pub(crate) source: Table,
    pub(crate) stats: TableStats,
    pub(crate) target: String,
    /// Its columns, in SQLite's order.
    pub(crate) columns: Vec<PlannedColumn>,
    /// The table of that name in the target, when there is one.
    pub(crate) existing: Option<Existing>,
    /// The integer key that numbers itself: column in PostgreSQL, first number to give.
    pub(crate) identity: Option<(String, i64)>,
    /// The name of its sequence, where another table has the usual one.
    pub(crate) identity_sequence: Option<String>,
    pub(crate) primary_key: Vec<String>,
    /// The name of its index, where something else has the usual one.
    pub(crate) primary_key_name: Option<String>,
    /// `CHECK` constraints: name, and the condition, translated.
    pub(crate) checks: Vec<(Option<String>, String)>,
    pub(crate) indexes: Vec<PlannedIndex>,
    pub(crate) foreign_keys: Vec<PlannedForeignKey>,
    pub(crate) warnings: Vec<String>,
    /// Its name in PostgreSQL with its schema, quoted.
    pub(crate) qualified: String,
    /// What the source's table has and this one will not.
    pub(crate) missing: Vec<Missing>,
    /// Duplicates prevent the natural key of one of the service's tables; `oa-migrate dedupe` creates it.
    pub(crate) natural_key_refused: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedColumn {
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) declared: String,
    pub(crate) pg: PgType,
    pub(crate) not_null: bool,
    /// Translated `DEFAULT`.
    pub(crate) default: Option<String>,
    /// Translated expression of a generated column; such a column is computed, not loaded.
    pub(crate) generated: Option<String>,
    /// The zone of timestamps without an offset, for `timestamptz`.
    pub(crate) zone: Option<Tz>,
    /// What the values are, as the mapping says.
    pub(crate) conversion: Option<Conversion>,
    /// How they are compared, as the mapping says.
    pub(crate) collation: Option<Collation>,
    /// Values that the type does not hold.
    pub(crate) bad: u64,
    /// Some values may not fit: each is tried.
    pub(crate) doubtful: bool,
    /// Where declaration and data disagree.
    pub(crate) note: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct PlannedIndex {
    pub(crate) name: String,
    pub(crate) unique: bool,
    /// A constraint rather than a plain index.
    pub(crate) constraint: bool,
    /// What stands after the table's name: `(…) WHERE …` or ` USING …`.
    pub(crate) definition: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedForeignKey {
    pub(crate) columns: Vec<String>,
    pub(crate) parent: String,
    /// The other table is part of this plan; otherwise it is in the target schema already.
    pub(crate) parent_moves: bool,
    pub(crate) parent_columns: Vec<String>,
    /// `ON UPDATE … ON DELETE …`
    pub(crate) actions: String,
    /// Its name, if it was given one.
    pub(crate) name: Option<String>,
    /// `DEFERRABLE …`, or empty.
    pub(crate) timing: String,
    /// The schema of the other table, when it is not the target schema.
    pub(crate) parent_schema: Option<String>,
    /// It is of the table that is in the target already.
    pub(crate) of_target: bool,
    /// Rows of the source refer to missing rows and are to stay: it can hold for new rows only, as in SQLite.
    pub(crate) dangling: bool,
}

impl PlannedForeignKey {
    /// What stands after `ADD`; `schema` is the one in which the other table is when it is the target's.
    pub(crate) fn definition(&self, schema: &str) -> String {
        let list = |names: &[String]| {
            let quoted: Vec<String> = names.iter().map(|c| quote_ident(c)).collect();
            quoted.join(", ")
        };
        format!(
            "FOREIGN KEY ({}) REFERENCES {}.{} ({}) {}{}",
            list(&self.columns),
            quote_ident(self.parent_schema.as_deref().unwrap_or(schema)),
            quote_ident(&self.parent),
            list(&self.parent_columns),
            self.actions,
            self.timing
        )
    }
}

impl PlannedColumn {
    /// It is a text for whose comparisons every letter counts.
    pub(crate) fn is_plain_text(&self) -> bool {
        matches!(self.pg, PgType::Text | PgType::Varchar(_))
            && !self.collation.as_ref().is_some_and(|c| c.folds)
    }
}

impl PlannedTable {
    /// Notes something that the source's table has and this one will not.
    pub(crate) fn lose(&mut self, item: String, had: String, why: &str, sql: String) {
        self.missing.push(Missing {
            table: self.qualified.clone(),
            item,
            had,
            has: why.to_owned(),
            sql,
        });
    }

    /// The same for a column's `DEFAULT`, or for the expression of a generated column.
    pub(crate) fn lose_expression(&mut self, i: usize, generated: bool, why: &str) {
        let (Some(source), Some(column)) = (self.source.columns.get(i), self.columns.get(i)) else {
            return;
        };
        let name = quote_ident(&column.target);
        let (item, had, sql) = if generated {
            let expression = source
                .generated
                .as_ref()
                .and_then(|g| g.expression.as_ref());
            (
                format!("generated column {}", column.target),
                expression.map_or_else(|| "an expression".to_owned(), |e| format!("AS ({e})")),
                expression.map_or_else(String::new, |e| {
                    format!(
                        "ALTER TABLE {0} DROP COLUMN {name}, ADD COLUMN {name} {1} GENERATED ALWAYS AS ({e}) STORED -- in PostgreSQL's words",
                        self.qualified, column.pg
                    )
                }),
            )
        } else {
            // Without a DEFAULT, a column's default is NULL.
            let text = source.default.as_deref().unwrap_or("NULL");
            (
                format!("default of column {}", column.target),
                format!("DEFAULT {text}"),
                format!(
                    "ALTER TABLE {} ALTER COLUMN {name} SET DEFAULT {text} -- in PostgreSQL's words",
                    self.qualified
                ),
            )
        };
        self.lose(item, had, why, sql);
    }

    /// Columns whose values are loaded, with their positions in SQLite's order.
    pub(crate) fn loaded(&self) -> impl Iterator<Item = (usize, &PlannedColumn)> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.generated.is_none())
    }

    /// Values that some column's type does not hold, or NULL where none may be.
    pub(crate) fn needs_vetting(&self) -> bool {
        self.columns
            .iter()
            .zip(&self.stats.columns)
            // A local time that does not exist in its zone is found only by encoding it.
            .any(|(c, s)| {
                let nulls = c.not_null && s.nulls > 0;
                c.generated.is_none() && (c.bad > 0 || c.doubtful || nulls || c.zone.is_some())
            })
    }
}
