//! The mapping file: a plan as a person may correct it. Names of tables and columns are those of SQLite.
//!
//! ```toml
//! [tables.Orders]
//! target = "orders"
//! [tables.Orders.columns.Total]
//! target = "total"
//! type = "numeric(12,2)"
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{PgType, Plan};
use crate::inspect::Database;

/// Corrections to a plan.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapping {
    #[serde(default)]
    tables: BTreeMap<String, TableMapping>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TableMapping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    /// Skip the table.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) skip: bool,
    #[serde(default)]
    columns: BTreeMap<String, ColumnMapping>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ColumnMapping {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
    #[serde(
        rename = "type",
        default,
        skip_serializing_if = "Option::is_none",
        with = "type_text"
    )]
    pub(crate) pg: Option<PgType>,
}

mod type_text {
    use serde::{Deserialize, Deserializer, Serializer, de};

    use crate::plan::PgType;

    pub(super) fn serialize<S: Serializer>(pg: &Option<PgType>, s: S) -> Result<S::Ok, S::Error> {
        match pg {
            Some(pg) => s.collect_str(pg),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PgType>, D::Error> {
        let text = String::deserialize(d)?;
        PgType::parse(&text).map(Some).ok_or_else(|| {
            de::Error::custom(format!(
                "\"{text}\" is not a type that values can be moved to; use boolean, smallint, integer, bigint, double precision, numeric, numeric(p,s), text, varchar(n), bytea, date, time, timestamp, timestamptz, json or jsonb"
            ))
        })
    }
}

impl Mapping {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("could not read mapping {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("could not read mapping {}", path.display()))
    }

    pub(crate) fn table(&self, name: &str) -> Option<&TableMapping> {
        self.tables.get(name)
    }

    /// Checks that all names are names of the source.
    pub(super) fn check(&self, database: &Database) -> Result<()> {
        for (name, mapped) in &self.tables {
            let table = database.tables.iter().find(|t| t.name == *name);
            ensure!(
                table.is_some(),
                "the mapping names a table {name}, which the source does not have"
            );
            for column in mapped.columns.keys() {
                ensure!(
                    table.is_some_and(|t| t.columns.iter().any(|c| c.name == *column)),
                    "the mapping names a column {column} of table {name}, which the source does not have"
                );
            }
        }
        Ok(())
    }

    /// The mapping that says what a plan does anyway, to be edited.
    pub(crate) fn of_plan(plan: &Plan) -> Self {
        let tables = plan.tables.iter().map(|table| {
            let columns = table.columns.iter().map(|column| {
                let mapped = ColumnMapping {
                    target: (column.target != column.source).then(|| column.target.clone()),
                    pg: Some(column.pg),
                };
                (column.source.clone(), mapped)
            });
            let mapped = TableMapping {
                target: Some(table.target.clone()),
                skip: false,
                columns: columns.collect(),
            };
            (table.source.name.clone(), mapped)
        });
        Self {
            tables: tables.collect(),
        }
    }

    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

impl TableMapping {
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnMapping> {
        self.columns.get(name)
    }
}
