//! Making a plan: names and meanings first, then, with the values known, types, keys, indexes and constraints.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use chrono_tz::Tz;
use oa_core::pg::quote_ident;
use oa_core::service;

use super::expr;
use super::mapping::Mapping;
use super::names::{Identifiers, Names};
use super::types::{Meaning, OnBadValue, PgType, choose};
use super::{Existing, Plan, PlannedColumn, PlannedForeignKey, PlannedIndex, PlannedTable};
use crate::inspect::ddl::{self, Token};
use crate::inspect::scan::{Questions, TableStats};
use crate::inspect::{Column, Database, Index, Origin, Table};

/// What was asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The target schema.
    pub schema: String,
    /// Letters of names.
    pub identifiers: Identifiers,
    /// Only these tables; empty means all.
    pub include: Vec<String>,
    /// Not these tables.
    pub exclude: Vec<String>,
    /// Values that do not fit.
    pub on_bad_value: OnBadValue,
    /// Zone of timestamps without an offset: they become `timestamptz`.
    pub timestamps_in: Option<Tz>,
    /// A person's corrections.
    pub mapping: Mapping,
}

/// Names and meanings of a plan whose values are not known yet.
#[derive(Debug)]
pub struct Layout {
    options: Options,
    tables: Vec<LayoutTable>,
    warnings: Vec<String>,
    names: Names,
}

#[derive(Debug)]
struct LayoutTable {
    source: Table,
    target: String,
    existing: Option<Existing>,
    columns: Vec<LayoutColumn>,
    warnings: Vec<String>,
}

#[derive(Debug)]
struct LayoutColumn {
    target: String,
    /// The type that a mapping or the table in the target gives.
    given: Option<PgType>,
}

impl Layout {
    /// Chooses tables and names. `existing` looks a table up in the target, `taken` are the names in use there.
    ///
    /// # Errors
    /// When a named table does not exist, or a table in the target cannot take the rows.
    pub fn new(
        database: Database,
        options: Options,
        taken: &[String],
        mut existing: impl FnMut(&str) -> Result<Option<Existing>>,
    ) -> Result<Self> {
        let mut warnings = notices(&database);
        for name in options.include.iter().chain(&options.exclude) {
            ensure!(
                database
                    .tables
                    .iter()
                    .any(|t| t.name.eq_ignore_ascii_case(name)),
                "there is no table {name} in the source; its tables are: {}",
                database
                    .tables
                    .iter()
                    .map(|t| t.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        options.mapping.check(&database)?;
        let within =
            |list: &[String], name: &str| list.iter().any(|n| n.eq_ignore_ascii_case(name));
        let mut names = Names::default();
        let mut tables = Vec::new();
        for source in database.tables {
            let mapped = options.mapping.table(&source.name);
            let skipped = mapped.is_some_and(|m| m.skip) || within(&options.exclude, &source.name);
            if skipped || !(options.include.is_empty() || within(&options.include, &source.name)) {
                warnings.push(format!("table {} is left out, as asked", source.name));
                continue;
            }
            let target = match mapped.and_then(|m| m.target.as_deref()) {
                Some(name) => names.give(name, Identifiers::Keep),
                None => names.give(&source.name, options.identifiers),
            };
            let mut table = LayoutTable {
                existing: existing(&target)?,
                warnings: Vec::new(),
                columns: Vec::new(),
                source,
                target,
            };
            table.note_name(&options);
            table.lay_out_columns(&options)?;
            tables.push(table);
        }
        ensure!(!tables.is_empty(), "there is no table to move");
        for name in taken {
            names.reserve(name);
        }
        Ok(Self {
            options,
            tables,
            warnings,
            names,
        })
    }

    /// The tables with the questions that the value scan has to answer.
    pub fn questions(&self) -> impl Iterator<Item = (&Table, Vec<Questions>)> {
        self.tables.iter().map(|t| {
            let questions = t
                .source
                .columns
                .iter()
                .zip(&t.columns)
                .map(|(c, l)| meaning(c, l).questions())
                .collect();
            (&t.source, questions)
        })
    }

    /// Chooses types and translates what depends on them. `stats` are in the order of [`Layout::questions`].
    ///
    /// # Errors
    /// When bad values are there and may not be.
    pub fn finish(self, stats: Vec<TableStats>) -> Result<Plan> {
        let Self {
            options,
            tables,
            warnings,
            mut names,
        } = self;
        let targets: HashMap<String, (String, Table)> = tables
            .iter()
            .map(|t| {
                (
                    t.source.name.to_ascii_lowercase(),
                    (t.target.clone(), t.source.clone()),
                )
            })
            .collect();
        let mut planned = Vec::new();
        let renamed: HashMap<String, Vec<(String, String)>> = tables
            .iter()
            .map(|t| {
                let pairs = t
                    .source
                    .columns
                    .iter()
                    .zip(&t.columns)
                    .map(|(c, l)| (c.name.clone(), l.target.clone()))
                    .collect();
                (t.source.name.to_ascii_lowercase(), pairs)
            })
            .collect();
        for (table, stats) in tables.into_iter().zip(stats) {
            let mut table = table.types(stats, &options);
            if options.on_bad_value == OnBadValue::Fail {
                refuse_bad(&table)?;
            }
            table.plan_identity();
            table.plan_checks();
            table.plan_indexes(&mut names, options.identifiers);
            if options.schema == "public" {
                table.plan_natural_key(&mut names);
            }
            table.plan_foreign_keys(&targets, &renamed);
            planned.push(table);
        }
        Ok(Plan {
            schema: options.schema,
            tables: planned,
            warnings,
        })
    }
}

/// What is not moved, with what to do about it.
fn notices(database: &Database) -> Vec<String> {
    let mut out = Vec::new();
    for (name, _) in &database.views {
        out.push(format!(
            "view {name} is not moved: its SQL may mean something else in PostgreSQL; create it there by hand"
        ));
    }
    for (name, table, _) in &database.triggers {
        out.push(format!(
            "trigger {name} of {table} is not moved: write it anew as a PL/pgSQL function and trigger"
        ));
    }
    for name in &database.virtual_tables {
        out.push(format!(
            "virtual table {name} is not moved: it has no rows of its own; if it is a full-text index, use to_tsvector and a GIN index"
        ));
    }
    out
}

fn refuse_bad(table: &PlannedTable) -> Result<()> {
    for (column, stats) in table.columns.iter().zip(&table.stats.columns) {
        let nulls = if column.not_null { stats.nulls } else { 0 };
        if column.bad + nulls > 0 {
            bail!(
                "table {}, column {}: {} value(s) do not fit {}{}; nothing was changed. Correct them, or take --on-bad-value quarantine or widen",
                table.source.name,
                column.source,
                column.bad + nulls,
                column.pg,
                if nulls > 0 { " NOT NULL" } else { "" }
            );
        }
    }
    Ok(())
}

fn meaning<'a>(column: &'a Column, layout: &LayoutColumn) -> Meaning<'a> {
    match layout.given {
        Some(pg) => Meaning::Existing(pg),
        None => Meaning::Declared(&column.declared),
    }
}

impl LayoutTable {
    fn note_name(&mut self, options: &Options) {
        let plain = match options.identifiers {
            Identifiers::Lower => self.source.name.to_ascii_lowercase(),
            Identifiers::Keep => self.source.name.clone(),
        };
        if plain != self.target {
            self.warnings.push(format!(
                "renamed from {} to {}",
                self.source.name, self.target
            ));
        }
    }

    fn lay_out_columns(&mut self, options: &Options) -> Result<()> {
        let mut names = Names::default();
        let mapped = options.mapping.table(&self.source.name);
        for column in &self.source.columns {
            let corrected = mapped.and_then(|m| m.column(&column.name));
            let target = match corrected.and_then(|c| c.target.as_deref()) {
                Some(name) => names.give(name, Identifiers::Keep),
                None => names.give(&column.name, options.identifiers),
            };
            if !target.eq_ignore_ascii_case(&column.name) {
                self.warnings
                    .push(format!("column {} renamed to {target}", column.name));
            }
            let there = self
                .existing
                .as_ref()
                .and_then(|e| e.columns.iter().find(|c| c.name == target));
            let given = match (corrected.and_then(|c| c.pg), there) {
                (Some(pg), _) => Some(pg),
                (None, Some(column)) => Some(PgType::parse(&column.type_name).ok_or_else(|| {
                    anyhow::anyhow!(
                        "column {} of the target's table {} has the type {}, which rows cannot be moved to; change it, or give the table another name with --mapping",
                        column.name, self.target, column.type_name
                    )
                })?),
                (None, None) => None,
            };
            self.columns.push(LayoutColumn { target, given });
        }
        if let Some(existing) = &self.existing {
            for column in &existing.columns {
                let comes = self.columns.iter().any(|c| c.target == column.name);
                ensure!(
                    comes || !column.not_null || column.filled,
                    "the target's table {} has a column {} that may not be NULL and has no default, and the source has no such column; give it a default",
                    self.target,
                    column.name
                );
            }
        }
        Ok(())
    }

    fn types(self, stats: TableStats, options: &Options) -> PlannedTable {
        let mut warnings = self.warnings;
        let mut columns = Vec::new();
        for ((column, layout), seen) in self
            .source
            .columns
            .iter()
            .zip(&self.columns)
            .zip(&stats.columns)
        {
            let is_key = self.source.rowid_alias.as_deref() == Some(&column.name);
            let choice = choose(
                meaning(column, layout),
                seen,
                options.on_bad_value,
                options.timestamps_in.is_some(),
                is_key,
            );
            if let Some(note) = &choice.note {
                warnings.push(format!("column {}: {note}", column.name));
            }
            let there = self
                .existing
                .as_ref()
                .and_then(|e| e.columns.iter().find(|c| c.name == layout.target));
            let in_key = self.source.primary_key.contains(&column.name);
            let not_null = match there {
                Some(there) => there.not_null,
                None => (column.not_null || in_key) && !relaxed(options, seen.nulls),
            };
            if (column.not_null || in_key) && !not_null && there.is_none() {
                warnings.push(format!(
                    "column {}: NOT NULL, but {} rows hold NULL; allowed in the target",
                    column.name, seen.nulls
                ));
            }
            if seen.nulls > 0 && not_null && column.generated.is_none() {
                warnings.push(format!(
                    "column {}: NOT NULL, but {} rows hold NULL",
                    column.name, seen.nulls
                ));
            }
            columns.push(PlannedColumn {
                source: column.name.clone(),
                target: layout.target.clone(),
                declared: column.declared.clone(),
                pg: choice.pg,
                not_null,
                default: None,
                generated: None,
                zone: options
                    .timestamps_in
                    .filter(|_| choice.pg == PgType::Timestamptz),
                bad: choice.bad,
                note: choice.note,
            });
        }
        let mut table = PlannedTable {
            target: self.target,
            existing: self.existing,
            columns,
            identity: None,
            primary_key: Vec::new(),
            checks: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            warnings,
            source: self.source,
            stats,
        };
        table.plan_expressions();
        table
    }
}

/// `--on-bad-value widen` also gives way where NULL is not allowed.
fn relaxed(options: &Options, nulls: u64) -> bool {
    options.on_bad_value == OnBadValue::Widen && nulls > 0
}

impl PlannedTable {
    fn expression_columns(&self) -> Vec<(&str, &str, PgType)> {
        self.columns
            .iter()
            .map(|c| (c.source.as_str(), c.target.as_str(), c.pg))
            .collect()
    }

    /// The target's column of a source's column.
    #[must_use]
    pub fn target_of(&self, source: &str) -> Option<&PlannedColumn> {
        self.columns
            .iter()
            .find(|c| c.source.eq_ignore_ascii_case(source))
    }

    fn plan_expressions(&mut self) {
        let known = self.expression_columns();
        let mut found = Vec::new();
        let mut warnings = Vec::new();
        for (i, (source, column)) in self.source.columns.iter().zip(&self.columns).enumerate() {
            let there = self
                .existing
                .as_ref()
                .and_then(|e| e.columns.iter().find(|c| c.name == column.target));
            if let Some(there) = there {
                if there.generated {
                    // Computed by the target's own expression; the proof compares the results.
                    found.push((i, None, Some(String::new())));
                }
                continue;
            }
            if let Some(generated) = &source.generated {
                let text = generated
                    .expression
                    .as_deref()
                    .ok_or_else(|| "its expression could not be read".to_owned());
                match text.and_then(|t| expr::translate(t, &known)) {
                    Ok(expression) => found.push((i, None, Some(expression))),
                    Err(why) => warnings.push(format!(
                        "generated column {}: not translated ({why}); its values are moved as a plain column",
                        source.name
                    )),
                }
            } else if let Some(default) = &source.default {
                match expr::translate_default(default, column.pg) {
                    Ok(text) => found.push((i, Some(text), None)),
                    Err(why) => warnings.push(format!(
                        "column {}: DEFAULT {default} not translated ({why})",
                        source.name
                    )),
                }
            }
            if let Some(collation) = &source.collation {
                warnings.push(format!(
                    "column {}: COLLATE {collation} is not moved; comparisons in PostgreSQL tell upper and lower case apart (indexes of it are made on lower())",
                    source.name
                ));
            }
        }
        for (i, default, generated) in found {
            self.columns[i].default = default;
            self.columns[i].generated = generated;
        }
        self.warnings.extend(warnings);
    }

    fn plan_identity(&mut self) {
        let alias = self.source.rowid_alias.clone();
        let there = self.existing.as_ref().and_then(|e| {
            e.columns
                .iter()
                .find(|c| c.identity || c.serial)
                .map(|c| c.name.clone())
        });
        let column = match (&there, alias) {
            (Some(name), _) => self.columns.iter().find(|c| c.target == *name),
            (None, Some(alias)) if self.existing.is_none() => self.target_of(&alias),
            _ => None,
        };
        let Some(column) = column.filter(|c| c.pg.is_integer()) else {
            return;
        };
        let stats = self
            .columns
            .iter()
            .zip(&self.stats.columns)
            .find(|(c, _)| c.target == column.target)
            .map(|(_, s)| s);
        let highest = stats.filter(|s| s.integers > 0).map_or(0, |s| s.max);
        let highest = highest.max(self.source.autoincrement.unwrap_or(0)).max(0);
        self.identity = Some((column.target.clone(), highest.saturating_add(1)));
        if let Some(existing) = &self.existing {
            self.primary_key.clone_from(&existing.primary_key);
        }
    }

    fn plan_checks(&mut self) {
        self.primary_key = match &self.existing {
            Some(existing) => existing.primary_key.clone(),
            None => {
                let names: Option<Vec<String>> = self
                    .source
                    .primary_key
                    .iter()
                    .map(|c| self.target_of(c).map(|c| c.target.clone()))
                    .collect();
                names.unwrap_or_default()
            }
        };
        if !self.primary_key.is_empty()
            && self.existing.is_none()
            && self
                .columns
                .iter()
                .any(|c| !c.not_null && self.primary_key.contains(&c.target))
        {
            // SQLite allows NULL in a primary key that is not the rowid.
            self.warnings
                .push("the primary key holds NULL, which PostgreSQL does not allow: a unique constraint instead".to_owned());
        }
        if self.existing.is_some() {
            return;
        }
        let known = self.expression_columns();
        let (mut checks, mut warnings) = (Vec::new(), Vec::new());
        for check in &self.source.checks {
            match expr::translate(check, &known) {
                Ok(text) => checks.push(text),
                Err(why) => warnings.push(format!("CHECK ({check}) not translated ({why})")),
            }
        }
        self.checks = checks;
        self.warnings.extend(warnings);
    }

    fn plan_indexes(&mut self, names: &mut Names, identifiers: Identifiers) {
        let mut planned = Vec::new();
        let mut warnings = Vec::new();
        if let Some(existing) = &self.existing {
            planned.extend(existing.indexes.iter().cloned());
        }
        for index in &self.source.indexes {
            let folded = match identifiers {
                Identifiers::Lower => index.name.to_ascii_lowercase(),
                Identifiers::Keep => index.name.clone(),
            };
            if self.has_already(index, &folded) {
                continue;
            }
            match self.index_definition(index) {
                Err(why) => warnings.push(format!("index {} not translated ({why})", index.name)),
                Ok((definition, plain)) => {
                    let constraint = index.origin == Origin::Unique && plain;
                    let wanted = if index.origin == Origin::Unique {
                        let columns: Vec<&str> = index
                            .parts
                            .iter()
                            .filter_map(|p| p.column.as_deref())
                            .collect();
                        format!("{}_{}_key", self.target, columns.join("_"))
                    } else {
                        index.name.clone()
                    };
                    let name = names.give(&wanted, identifiers);
                    if index.origin == Origin::Create && name != folded {
                        warnings.push(format!("index {} renamed to {name}", index.name));
                    }
                    planned.push(PlannedIndex {
                        name,
                        unique: index.unique,
                        constraint,
                        definition: if constraint {
                            format!("UNIQUE {definition}")
                        } else {
                            definition
                        },
                    });
                }
            }
        }
        self.indexes = planned;
        self.warnings.extend(warnings);
    }

    /// The unique index that the crawlers need, where the table is one of the service's and the source has all of its columns.
    fn plan_natural_key(&mut self, names: &mut Names) {
        let Some(key) = service::natural_key(&self.target) else {
            return;
        };
        let known = |word: &str| self.columns.iter().any(|c| c.target == word);
        let first_words_known = key.key.iter().all(|part| {
            ddl::tokens(part)
                .iter()
                .any(|t| matches!(t, Token::Word(word) if known(word)))
        });
        let there = self.indexes.iter().any(|i| i.name == key.index);
        if self.existing.is_none() && first_words_known && !there {
            names.reserve(key.index);
            self.indexes.push(PlannedIndex {
                name: key.index.to_owned(),
                unique: true,
                constraint: false,
                definition: format!("({})", key.key.join(", ")),
            });
        }
    }

    fn has_already(&self, index: &Index, folded: &str) -> bool {
        let Some(existing) = &self.existing else {
            return false;
        };
        if existing.indexes.iter().any(|i| i.name == folded) {
            return true;
        }
        let mut columns: Vec<&str> = index
            .parts
            .iter()
            .filter_map(|p| self.target_of(p.column.as_deref()?))
            .map(|c| c.target.as_str())
            .collect();
        columns.sort_unstable();
        index.unique
            && columns.len() == index.parts.len()
            && index.condition.is_none()
            && (existing.unique_columns.iter().any(|u| *u == columns)
                || (existing.primary_key.len() == columns.len()
                    && columns
                        .iter()
                        .all(|c| existing.primary_key.iter().any(|k| k == c))))
    }

    /// What stands after the table's name, and whether it names only columns.
    fn index_definition(&self, index: &Index) -> Result<(String, bool), String> {
        let known = self.expression_columns();
        let mut parts = Vec::new();
        let mut plain = index.condition.is_none();
        for part in &index.parts {
            let (mut text, is_text) = match (&part.column, &part.expression) {
                (Some(name), _) => {
                    let column = self
                        .target_of(name)
                        .ok_or_else(|| format!("column {name}"))?;
                    let is_text = matches!(column.pg, PgType::Text | PgType::Varchar(_));
                    if column.pg == PgType::Json {
                        return Err(format!("column {name} is json, which has no order"));
                    }
                    (quote_ident(&column.target), is_text)
                }
                (None, Some(expression)) => {
                    plain = false;
                    (format!("({})", expr::translate(expression, &known)?), true)
                }
                (None, None) => return Err("an expression that could not be read".to_owned()),
            };
            match part.collation.as_deref() {
                // SQLite's NOCASE folds ASCII letters only, as lower() does under "C".
                Some(c) if c.eq_ignore_ascii_case("NOCASE") && is_text => {
                    plain = false;
                    text = format!("lower({text} COLLATE \"C\")");
                }
                Some(c) if c.eq_ignore_ascii_case("NOCASE") => {}
                Some(other) if is_text => return Err(format!("collation {other}")),
                _ => {}
            }
            if part.descending {
                text.push_str(" DESC");
                plain = false;
            }
            parts.push(text);
        }
        let mut definition = format!("({})", parts.join(", "));
        if let Some(condition) = &index.condition {
            definition.push_str(&format!(" WHERE {}", expr::translate(condition, &known)?));
        }
        Ok((definition, plain))
    }

    fn plan_foreign_keys(
        &mut self,
        targets: &HashMap<String, (String, Table)>,
        renamed: &HashMap<String, Vec<(String, String)>>,
    ) {
        let mut planned: Vec<PlannedForeignKey> = Vec::new();
        let mut warnings = Vec::new();
        for key in &self.source.foreign_keys {
            let parent = key.parent.to_ascii_lowercase();
            let (Some((target, table)), Some(pairs)) = (targets.get(&parent), renamed.get(&parent))
            else {
                warnings.push(format!(
                    "foreign key ({}) not moved: its table {} is not",
                    key.columns.join(", "),
                    key.parent
                ));
                continue;
            };
            let of_parent = if key.parent_columns.is_empty() {
                &table.primary_key
            } else {
                &key.parent_columns
            };
            let parent_columns: Vec<String> = of_parent
                .iter()
                .filter_map(|c| pairs.iter().find(|(s, _)| s.eq_ignore_ascii_case(c)))
                .map(|(_, t)| t.clone())
                .collect();
            let columns: Vec<String> = key
                .columns
                .iter()
                .filter_map(|c| self.target_of(c).map(|c| c.target.clone()))
                .collect();
            if parent_columns.len() != columns.len() || columns.is_empty() {
                warnings.push(format!(
                    "foreign key ({}) to {} not moved: its columns do not match",
                    key.columns.join(", "),
                    key.parent
                ));
                continue;
            }
            let key = PlannedForeignKey {
                columns,
                parent: target.clone(),
                parent_moves: true,
                parent_columns,
                actions: format!("ON UPDATE {} ON DELETE {}", key.on_update, key.on_delete),
            };
            planned.push(key);
        }
        for key in self.existing.iter().flat_map(|e| &e.foreign_keys) {
            if !planned.iter().any(|p| p.columns == key.columns) {
                let parent_moves = targets.values().any(|(t, _)| *t == key.parent);
                planned.push(PlannedForeignKey {
                    parent_moves,
                    ..key.clone()
                });
            }
        }
        self.foreign_keys = planned;
        self.warnings.extend(warnings);
    }
}
