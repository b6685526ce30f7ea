//! What a person asks of a plan, as flags.

use chrono_tz::Tz;
use clap::builder::{PathBufValueParser, TypedValueParser as _};

use super::mapping::{Mapping, TableMapping};
use super::names::Identifiers;
use super::types::OnBadValue;

// No documentation comment: clap would print it as the command's own.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PlanArgs {
    /// Schema in PostgreSQL
    #[arg(long, default_value = "public", value_name = "SCHEMA")]
    pub(crate) schema: String,
    /// Upper and lower case in names
    #[arg(long, value_enum, default_value_t)]
    pub(crate) identifiers: Identifiers,
    /// Only this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    pub(crate) include: Vec<String>,
    /// Not this table; may be given several times
    #[arg(long, value_name = "TABLE")]
    pub(crate) exclude: Vec<String>,
    /// What to do with values that do not fit their column's declaration
    #[arg(long, value_enum, default_value_t)]
    pub(crate) on_bad_value: OnBadValue,
    /// Read timestamps without an offset as local times of this zone and make them timestamptz
    #[arg(long, value_name = "ZONE")]
    pub(crate) timestamps_in: Option<Tz>,
    /// Corrected names and types, see `plan --write-mapping`
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(|path| Mapping::load(&path).map_err(|e| format!("{e:#}"))))]
    pub(crate) mapping: Option<Mapping>,
}

impl PlanArgs {
    /// Neither excluded nor missing from a list of included tables.
    pub(crate) fn selects(&self, table: &str) -> bool {
        let within = |list: &[String]| list.iter().any(|n| n.eq_ignore_ascii_case(table));
        !within(&self.exclude) && (self.include.is_empty() || within(&self.include))
    }

    /// The mapping's corrections to a table.
    pub(crate) fn mapped(&self, table: &str) -> Option<&TableMapping> {
        self.mapping.as_ref()?.table(table)
    }
}
