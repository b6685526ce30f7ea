//! The mapping file: a plan as a person may correct it. Names of tables and columns are those of SQLite.
//!
//! ```toml
//! [tables.Orders]
//! target = "orders"
//! [tables.Orders.columns.Total]
//! target = "total"
//! type = "numeric(12,2)"
//! [tables.Orders.columns.createdAt]
//! type = "timestamptz"
//! from = "epoch_ms"
//! [tables.Orders.columns.Name]
//! collation = "public.nocase"
//! ```

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use oa_core::base::trust::{LARGEST, read_named_text};
use oa_core::pg::describe;
use postgres::Client;
use serde::{Deserialize, Serialize};

use super::{PgType, Plan};
use crate::inspect::Database;
use crate::values::conversion::Conversion;

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
    /// What the values are: `epoch_s`, `epoch_ms`, `epoch_us`, `julian`, `dotnet_ticks`,
    /// `duration_s`, `duration_ms`, `duration_us`, `since_epoch` or `cut_to_microseconds`.
    #[serde(rename = "from", default, skip_serializing_if = "Option::is_none")]
    pub(crate) conversion: Option<Conversion>,
    /// A collation of the target, with its schema.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) collation: Option<String>,
    /// What it is there.
    #[serde(skip)]
    pub(crate) collated: Option<Collation>,
}

/// A collation of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Collation {
    /// With its schema, quoted.
    pub(crate) name: String,
    /// Texts of other bytes are equal for it, as for `NOCASE`.
    pub(crate) folds: bool,
    /// Its provider and locale, for people.
    pub(crate) about: String,
}

impl Collation {
    fn find(client: &mut Client, name: &str) -> Result<Self> {
        let row = client
            .query_opt(
                "SELECT c.oid::regcollation::text, NOT c.collisdeterministic,
                        concat_ws(' ', CASE c.collprovider WHEN 'i' THEN 'ICU' WHEN 'c' THEN 'libc' ELSE 'PostgreSQL''s own' END,
                                  coalesce(to_jsonb(c) ->> 'colllocale', to_jsonb(c) ->> 'colliculocale', c.collcollate))
                 FROM pg_collation c WHERE c.oid = to_regcollation($1)",
                &[&name],
            )
            .map_err(|e| anyhow!("could not look for collation {name}: {}", describe(&e)))?;
        let row = row.with_context(|| {
            format!(
                "there is no collation {name} in the target; create it first, and name it with its schema: CREATE COLLATION public.nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false)"
            )
        })?;
        Ok(Self {
            name: row.get(0),
            folds: row.get(1),
            about: row.get(2),
        })
    }
}

mod type_text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::plan::PgType;

    pub(super) fn serialize<S: Serializer>(pg: &Option<PgType>, s: S) -> Result<S::Ok, S::Error> {
        match pg {
            Some(pg) => s.collect_str(pg),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<PgType>, D::Error> {
        let text = String::deserialize(d)?;
        Ok(Some(PgType::of_catalogue(text.trim())))
    }
}

impl Mapping {
    pub(crate) fn load(path: &Path) -> Result<Self> {
        let text = read_named_text(path, LARGEST)
            .with_context(|| format!("could not read mapping {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("could not read mapping {}", path.display()))
    }

    /// Lets PostgreSQL say what the types are that this program does not know.
    pub(super) fn resolve(&mut self, client: &mut Client) -> Result<()> {
        for (table, mapped) in &mut self.tables {
            for (column, mapped) in &mut mapped.columns {
                if let Some(name) = &mapped.collation {
                    let found = Collation::find(client, name);
                    mapped.collated = Some(found.with_context(|| {
                        format!("the mapping of column {column} of table {table}")
                    })?);
                }
                let Some(pg) = mapped.pg.filter(|pg| pg.is_other()) else {
                    continue;
                };
                let name = catalogue_name(client, &pg.to_string()).map_err(|e| {
                    anyhow!(
                        "the mapping of column {column} of table {table}: \"{pg}\" is no type of the target: {}; a type that was created there is written with its schema, as public.status",
                        describe(&e)
                    )
                })?;
                mapped.pg = Some(PgType::of_catalogue(&name));
            }
        }
        Ok(())
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
                    conversion: column.conversion,
                    collation: column.collation.as_ref().map(|c| c.name.clone()),
                    collated: None,
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

    /// Adds that a table and its columns keep the names that they have in PostgreSQL.
    pub(crate) fn keep_names(
        &mut self,
        source: &str,
        target: &str,
        columns: &[(String, String)],
        conversions: &BTreeMap<String, Conversion>,
    ) {
        let columns = columns.iter().map(|(column, target)| {
            let mapped = ColumnMapping {
                target: Some(target.clone()),
                conversion: conversions.get(column).copied(),
                ..ColumnMapping::default()
            };
            (column.clone(), mapped)
        });
        let mapped = TableMapping {
            target: Some(target.to_owned()),
            skip: false,
            columns: columns.collect(),
        };
        self.tables.insert(source.to_owned(), mapped);
    }

    pub(crate) fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

/// A type as `format_type` writes it.
fn catalogue_name(client: &mut Client, text: &str) -> Result<String, postgres::Error> {
    let mut tx = client.transaction()?;
    // The extended protocol takes a single statement.
    tx.execute(&format!("CREATE TEMPORARY TABLE oa_probe (c {text})"), &[])?;
    let row = tx.query_one(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'pg_temp.oa_probe'::regclass AND attnum = 1",
        &[],
    )?;
    tx.rollback()?;
    Ok(row.get(0))
}

impl TableMapping {
    pub(crate) fn column(&self, name: &str) -> Option<&ColumnMapping> {
        self.columns.get(name)
    }
}
