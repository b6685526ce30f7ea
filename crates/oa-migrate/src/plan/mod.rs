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

use crate::inspect::Table;
use crate::inspect::scan::TableStats;
use crate::load::encode::Codec;

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
    /// Conditions of `CHECK`, translated.
    pub checks: Vec<String>,
    /// Indexes and unique constraints.
    pub indexes: Vec<PlannedIndex>,
    /// Foreign keys.
    pub foreign_keys: Vec<PlannedForeignKey>,
    /// What a person should know about this table.
    pub warnings: Vec<String>,
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
}

impl PlannedTable {
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
            .any(|(c, s)| c.generated.is_none() && (c.bad > 0 || (c.not_null && s.nulls > 0)))
    }
}
