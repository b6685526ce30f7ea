//! The plan: which table goes where, with which types, keys and indexes, and what cannot be moved as it is.
//!
//! Made in two steps, because what to look for in the values depends on what a column means: [`Layout`] decides names and
//! meanings, the value scan follows, and [`Layout::finish`] chooses types and translates the rest.

pub mod build;
pub mod existing;
pub mod expr;
mod keys;
pub mod mapping;
pub mod names;
pub mod types;

use chrono_tz::Tz;
use oa_core::pg::quote_ident;

use crate::inspect::Table;
use crate::inspect::scan::TableStats;
use crate::load::encode::Codec;
use crate::proof::missing::Missing;

pub use build::{Layout, Options};
pub use existing::Existing;
pub use types::{OnBadValue, PgType};

/// What is to be done.
#[derive(Debug)]
pub struct Plan {
    /// The target schema.
    pub schema: String,
    /// The tables.
    pub tables: Vec<PlannedTable>,
    /// What concerns no single table: views, triggers, virtual tables.
    pub warnings: Vec<String>,
    /// What of the source is in none of the tables and was not skipped on purpose.
    pub missing: Vec<Missing>,
    /// Tables and virtual tables of the source that were skipped, as requested.
    pub skipped: Vec<String>,
}

impl Plan {
    /// What of the source did not come along.
    #[must_use]
    pub fn missing(&self) -> Vec<Missing> {
        let of_tables = self.tables.iter().flat_map(|t| &t.missing);
        self.missing.iter().chain(of_tables).cloned().collect()
    }
}

/// A table of the plan.
#[derive(Debug)]
pub struct PlannedTable {
    /// Its description in SQLite.
    pub source: Table,
    /// What it holds.
    pub stats: TableStats,
    /// Its name in PostgreSQL.
    pub target: String,
    /// Its columns, in SQLite's order.
    pub columns: Vec<PlannedColumn>,
    /// The table of that name in the target, when there is one.
    pub existing: Option<Existing>,
    /// The integer key that numbers itself: column in PostgreSQL, first number to give.
    pub identity: Option<(String, i64)>,
    /// Primary key, in PostgreSQL's names.
    pub primary_key: Vec<String>,
    /// `CHECK` constraints: name, and the condition, translated.
    pub checks: Vec<(Option<String>, String)>,
    /// Indexes and unique constraints.
    pub indexes: Vec<PlannedIndex>,
    /// Foreign keys.
    pub foreign_keys: Vec<PlannedForeignKey>,
    /// What a person should know about this table.
    pub warnings: Vec<String>,
    /// Its name in PostgreSQL with its schema, quoted.
    pub qualified: String,
    /// What the source's table has and this one will not.
    pub missing: Vec<Missing>,
    /// See [`crate::load::finish::Findings`].
    pub natural_key_refused: bool,
}

/// A column of the plan.
#[derive(Debug, Clone)]
pub struct PlannedColumn {
    /// Its name in SQLite.
    pub source: String,
    /// Its name in PostgreSQL.
    pub target: String,
    /// Its declaration in SQLite.
    pub declared: String,
    /// Its type in PostgreSQL.
    pub pg: PgType,
    /// `NOT NULL`.
    pub not_null: bool,
    /// Translated `DEFAULT`.
    pub default: Option<String>,
    /// Translated expression of a generated column; such a column is computed, not loaded.
    pub generated: Option<String>,
    /// The zone of timestamps without an offset, for `timestamptz`.
    pub zone: Option<Tz>,
    /// Values that the type does not hold.
    pub bad: u64,
    /// Where declaration and data disagree.
    pub note: Option<String>,
}

impl PlannedColumn {
    /// How its values are written.
    #[must_use]
    pub fn codec(&self) -> Codec {
        Codec {
            pg: self.pg,
            not_null: self.not_null,
            zone: self.zone,
        }
    }
}

/// An index of the plan.
#[derive(Debug, Clone)]
pub struct PlannedIndex {
    /// Its name in PostgreSQL.
    pub name: String,
    /// `UNIQUE`.
    pub unique: bool,
    /// A constraint rather than a plain index.
    pub constraint: bool,
    /// What stands after the table's name: `(…) WHERE …` or ` USING …`.
    pub definition: String,
}

/// A foreign key of the plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedForeignKey {
    /// Columns of this table.
    pub columns: Vec<String>,
    /// The other table, in PostgreSQL's name.
    pub parent: String,
    /// The other table is part of this plan; otherwise it is in the target schema already.
    pub parent_moves: bool,
    /// Its columns.
    pub parent_columns: Vec<String>,
    /// `ON UPDATE … ON DELETE …`
    pub actions: String,
    /// Its name, if it was given one.
    pub name: Option<String>,
    /// `DEFERRABLE …`, or empty.
    pub timing: String,
    /// The schema of the other table, when it is not the target schema.
    pub parent_schema: Option<String>,
    /// It is of the table that is in the target already.
    pub of_target: bool,
    /// Rows of the source lead nowhere and are to stay: it can hold for new rows only, as in SQLite.
    pub dangling: bool,
}

impl PlannedForeignKey {
    /// What stands after `ADD`; `schema` is the one in which the other table is when it is the target's.
    #[must_use]
    pub fn definition(&self, schema: &str) -> String {
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

impl PlannedTable {
    /// Notes something that the source's table has and this one will not.
    pub fn lose(&mut self, item: String, had: String, why: &str, sql: String) {
        self.missing.push(Missing {
            table: self.qualified.clone(),
            item,
            had,
            has: why.to_owned(),
            sql,
        });
    }

    /// The same for a column's `DEFAULT`, or for the expression of a generated column.
    pub fn lose_expression(&mut self, i: usize, generated: bool, why: &str) {
        let (Some(source), Some(column)) = (self.source.columns.get(i), self.columns.get(i)) else {
            return;
        };
        let name = quote_ident(&column.target);
        let (item, had, sql) = if generated {
            let text = source
                .generated
                .as_ref()
                .and_then(|g| g.expression.clone())
                .unwrap_or_default();
            (
                format!("generated column {}", column.target),
                format!("AS ({text})"),
                format!(
                    "ALTER TABLE {0} DROP COLUMN {name}, ADD COLUMN {name} {1} GENERATED ALWAYS AS ({text}) STORED -- in PostgreSQL's words",
                    self.qualified, column.pg
                ),
            )
        } else {
            let text = source.default.clone().unwrap_or_default();
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
    pub fn loaded(&self) -> impl Iterator<Item = (usize, &PlannedColumn)> {
        self.columns
            .iter()
            .enumerate()
            .filter(|(_, c)| c.generated.is_none())
    }

    /// Values that some column's type does not hold, or NULL where none may be.
    #[must_use]
    pub fn needs_vetting(&self) -> bool {
        self.columns
            .iter()
            .zip(&self.stats.columns)
            // A local time that its zone has not is found by encoding it only.
            .any(|(c, s)| {
                let nulls = c.not_null && s.nulls > 0;
                c.generated.is_none() && (c.bad > 0 || nulls || c.zone.is_some())
            })
    }
}
