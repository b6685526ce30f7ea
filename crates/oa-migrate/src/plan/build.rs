//! Making a plan: names and meanings first, then, with the values known, types, keys, indexes and constraints.

use std::collections::HashMap;

use anyhow::{Result, bail, ensure};
use oa_core::pg::quote_ident;

use super::args::PlanArgs;
use super::expr;
use super::names::{Identifiers, Names};
use super::types::{Meaning, OnBadValue, PgType, TypeChoice, choose};
use super::{Collation, Existing, Missing, Plan, PlannedColumn, PlannedTable};
use crate::inspect::scan::{Questions, TableStats};
use crate::inspect::{Column, Database, Table};
use crate::values::conversion::Conversion;

/// Names and meanings of a plan whose values are not known yet.
#[derive(Debug)]
pub(crate) struct Layout {
    args: PlanArgs,
    tables: Vec<LayoutTable>,
    warnings: Vec<String>,
    missing: Vec<Missing>,
    skipped: Vec<String>,
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
    /// The type that a mapping or the table in the target fixes.
    fixed: Option<PgType>,
    conversion: Option<Conversion>,
    collation: Option<Collation>,
}

impl Layout {
    /// Chooses tables and names. `existing` looks a table up in the target, `taken` are the names in use there.
    pub(crate) fn new(
        database: Database,
        args: PlanArgs,
        taken: &[String],
        mut existing: impl FnMut(&str) -> Result<Option<Existing>>,
    ) -> Result<Self> {
        let mut warnings = notices(&database);
        let (mut missing, mut skipped) = (Vec::new(), Vec::new());
        for name in args.include.iter().chain(&args.exclude) {
            let virtual_tables = database.virtual_tables.iter().map(|v| &v.name);
            ensure!(
                database
                    .tables
                    .iter()
                    .map(|t| &t.name)
                    .chain(virtual_tables)
                    .any(|n| n.eq_ignore_ascii_case(name)),
                "there is no table {name} in the source; its tables are: {}",
                database
                    .tables
                    .iter()
                    .map(|t| t.name.as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            );
        }
        if let Some(mapping) = &args.mapping {
            mapping.check(&database)?;
        }
        for table in &database.virtual_tables {
            if !args.selects(&table.name) {
                skipped.push(table.name.clone());
            } else if table.lost {
                missing.push(Missing {
                    table: table.name.clone(),
                    item: "virtual table".to_owned(),
                    had: "contents of its own".to_owned(),
                    has: format!("not moved: it {}", table.why),
                    sql: String::new(),
                });
            }
        }
        let mut names = Names::default();
        let mut tables = Vec::new();
        for source in database.tables {
            let mapped = args.mapped(&source.name);
            if mapped.is_some_and(|m| m.skip) || !args.selects(&source.name) {
                warnings.push(format!("table {} is skipped, as requested", source.name));
                skipped.push(source.name);
                continue;
            }
            if let Some(sql) = &source.virtual_sql {
                warnings.push(format!(
                    "virtual table {} becomes an ordinary table with the same rows; its definition was: {sql}; for searching in PostgreSQL use to_tsvector and a GIN index, for ranges GiST",
                    source.name
                ));
            }
            let target = match mapped.and_then(|m| m.target.as_deref()) {
                Some(name) => names.give(name, Identifiers::Keep),
                None => names.give(&source.name, args.identifiers),
            };
            let mut table = LayoutTable {
                existing: existing(&target)?,
                warnings: Vec::new(),
                columns: Vec::new(),
                source,
                target,
            };
            table.note_name(&args);
            table.lay_out_columns(&args)?;
            tables.push(table);
        }
        ensure!(!tables.is_empty(), "there is no table to move");
        for name in taken {
            names.reserve(name);
        }
        Ok(Self {
            args,
            tables,
            warnings,
            missing,
            skipped,
            names,
        })
    }

    /// The tables with the questions that the value scan has to answer.
    pub(crate) fn questions(&self) -> impl Iterator<Item = (&Table, Vec<Questions>)> {
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
    pub(crate) fn finish(self, stats: Vec<TableStats>) -> Result<Plan> {
        let Self {
            args,
            tables,
            warnings,
            missing,
            skipped,
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
            let mut table = table.types(stats, &args);
            for column in table.columns.iter().filter(|c| c.collation.is_some()) {
                ensure!(
                    matches!(column.pg, PgType::Text | PgType::Varchar(_)),
                    "the mapping names a collation for column {} of table {}, which is {}; only texts have one",
                    column.source,
                    table.source.name,
                    column.pg
                );
            }
            if args.on_bad_value == OnBadValue::Fail {
                refuse_bad(&table)?;
            }
            table.plan_identity();
            table.plan_sequence(&mut names);
            table.plan_checks(args.identifiers)?;
            table.plan_key_name(&mut names);
            table.plan_indexes(&mut names, args.identifiers);
            if args.schema == "public" {
                table.plan_natural_key(&mut names);
            }
            table.plan_foreign_keys(&targets, &renamed, &skipped, args.identifiers);
            planned.push(table);
        }
        Ok(Plan {
            schema: args.schema,
            tables: planned,
            warnings,
            missing,
            skipped,
            rehearsal: false,
        })
    }
}

/// What is not moved, with what to do about it.
fn notices(database: &Database) -> Vec<String> {
    let mut out = Vec::new();
    for name in &database.views {
        out.push(format!(
            "view {name} is not moved: its SQL may mean something else in PostgreSQL; create it there by hand"
        ));
    }
    for (name, table) in &database.triggers {
        out.push(format!(
            "trigger {name} of {table} is not moved: rewrite it as a PL/pgSQL function and trigger"
        ));
    }
    for table in &database.virtual_tables {
        out.push(format!(
            "virtual table {} is not moved: it {}",
            table.name, table.why
        ));
    }
    out
}

fn refuse_bad(table: &PlannedTable) -> Result<()> {
    for (column, stats) in table.columns.iter().zip(&table.stats.columns) {
        let nulls = if column.not_null { stats.nulls } else { 0 };
        if column.bad + nulls > 0 {
            bail!(
                "table {}, column {}: {} value(s) do not fit {}{}; nothing was changed. Correct them, or use --on-bad-value quarantine or widen",
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
    match layout.fixed {
        Some(pg) => Meaning::Fixed(pg),
        None => Meaning::Declared(&column.declared),
    }
}

impl LayoutTable {
    fn note_name(&mut self, args: &PlanArgs) {
        let plain = match args.identifiers {
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

    fn lay_out_columns(&mut self, args: &PlanArgs) -> Result<()> {
        let mut names = Names::default();
        let mapped = args.mapped(&self.source.name);
        for column in &self.source.columns {
            let corrected = mapped.and_then(|m| m.column(&column.name));
            let target = match corrected.and_then(|c| c.target.as_deref()) {
                Some(name) => names.give(name, Identifiers::Keep),
                None => names.give(&column.name, args.identifiers),
            };
            if !target.eq_ignore_ascii_case(&column.name) {
                self.warnings
                    .push(format!("column {} renamed to {target}", column.name));
            }
            let there = self
                .existing
                .as_ref()
                .and_then(|e| e.columns.iter().find(|c| c.name == target));
            let collation = corrected.and_then(|c| c.collated.clone());
            if let (Some(asked), Some(there)) = (&collation, there) {
                ensure!(
                    there.collation.as_ref() == Some(&asked.name),
                    "the mapping asks for the collation {} of column {target} of {}, which has another one in the target's table; a table that exists is not altered: leave it out, or give the table another name in the mapping",
                    asked.name,
                    self.target
                );
            }
            let there = there.map(|c| PgType::of_catalogue(&c.type_name));
            let fixed = match (corrected.and_then(|c| c.pg), there) {
                (Some(asked), Some(there)) if asked != there => bail!(
                    "the mapping asks for {asked} in column {target} of {}, which is {there} in the target's table; a table that exists is not altered: change one of them, or give the table another name in the mapping",
                    self.target
                ),
                (asked, there) => asked.or(there),
            };
            let conversion = corrected.and_then(|c| c.conversion);
            let fixed = conversion.map_or(fixed, |c| {
                let usual = if c.is_of_durations() {
                    PgType::Interval
                } else if c.is_of_numbers() {
                    PgType::Timestamptz(6)
                } else {
                    PgType::Timestamp(6)
                };
                Some(fixed.unwrap_or(usual).of_conversion(conversion))
            });
            if let (Some(c), Some(pg)) = (conversion, fixed) {
                let (fits, needed) = if c.is_of_durations() {
                    (pg == PgType::Interval, "interval")
                } else {
                    let time = matches!(pg, PgType::Timestamp(_) | PgType::Timestamptz(_));
                    (time, "timestamp or timestamptz")
                };
                ensure!(
                    fits,
                    "the mapping converts the values of column {} of table {}, so its type must be {needed}, not {pg}",
                    column.name,
                    self.source.name
                );
            }
            self.columns.push(LayoutColumn {
                target,
                fixed,
                conversion,
                collation,
            });
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

    fn types(self, stats: TableStats, args: &PlanArgs) -> PlannedTable {
        let mut warnings = self.warnings;
        let mut columns = Vec::new();
        for ((column, layout), seen) in self
            .source
            .columns
            .iter()
            .zip(&self.columns)
            .zip(&stats.columns)
        {
            let choice = choose(
                meaning(column, layout),
                seen,
                args.on_bad_value,
                args.timestamps_in.is_some(),
            );
            let choice = match layout.conversion {
                // Each value is tried.
                Some(_) => TypeChoice {
                    bad: 0,
                    doubtful: true,
                    note: None,
                    ..choice
                },
                None => choice,
            };
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
                None => (column.not_null || in_key) && !relaxed(args, seen.nulls),
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
                zone: args
                    .timestamps_in
                    .filter(|_| matches!(choice.pg, PgType::Timestamptz(_))),
                bad: choice.bad,
                doubtful: choice.doubtful,
                conversion: layout.conversion,
                collation: layout.collation.clone(),
                note: choice.note,
            });
        }
        let mut table = PlannedTable {
            existing: self.existing,
            columns,
            identity: None,
            identity_sequence: None,
            primary_key: Vec::new(),
            primary_key_name: None,
            checks: Vec::new(),
            indexes: Vec::new(),
            foreign_keys: Vec::new(),
            warnings,
            qualified: format!(
                "{}.{}",
                quote_ident(&args.schema),
                quote_ident(&self.target)
            ),
            missing: Vec::new(),
            natural_key_refused: false,
            target: self.target,
            source: self.source,
            stats,
        };
        table.plan_expressions();
        table
    }
}

/// What a column's `NOCASE` becomes, for people.
fn kept_collation(source: &Column, column: &PlannedColumn) -> Option<String> {
    let nocase = source.collation.as_ref()?.eq_ignore_ascii_case("NOCASE");
    let becomes = match (&column.collation, column.pg) {
        (Some(c), _) if c.folds => format!("collation {} ({})", c.name, c.about),
        (_, PgType::Other(name)) if name.as_str().ends_with("citext") => name.as_str().to_owned(),
        _ => return None,
    };
    nocase.then(|| {
        format!(
            "column {}: COLLATE NOCASE becomes {becomes}, for which letters beyond ASCII have no case either",
            source.name
        )
    })
}

/// `--on-bad-value widen` also gives way where NULL is not allowed.
fn relaxed(args: &PlanArgs, nulls: u64) -> bool {
    args.on_bad_value == OnBadValue::Widen && nulls > 0
}

impl PlannedTable {
    pub(super) fn expression_columns(&self) -> Vec<(&str, &str, PgType)> {
        self.columns
            .iter()
            .map(|c| (c.source.as_str(), c.target.as_str(), c.pg))
            .collect()
    }

    /// The target's column of a source's column.
    pub(crate) fn target_of(&self, source: &str) -> Option<&PlannedColumn> {
        self.columns
            .iter()
            .find(|c| c.source.eq_ignore_ascii_case(source))
    }

    fn plan_expressions(&mut self) {
        let known = self.expression_columns();
        let mut found = Vec::new();
        let mut warnings = Vec::new();
        let mut lost = Vec::new();
        let mut collations = Vec::new();
        for (i, (source, column)) in self.source.columns.iter().zip(&self.columns).enumerate() {
            let there = self
                .existing
                .as_ref()
                .and_then(|e| e.columns.iter().find(|c| c.name == column.target));
            if let Some(there) = there {
                let ours = self.existing.as_ref().is_some_and(|e| e.ours);
                let has_default = source
                    .default
                    .as_ref()
                    .is_some_and(|d| !d.eq_ignore_ascii_case("NULL"));
                if there.generated {
                    // Computed by the target's own expression; the proof compares the results.
                    found.push((i, None, Some(String::new())));
                } else if ours && source.generated.is_some() {
                    lost.push((i, true, "a plain column".to_owned()));
                } else if ours && has_default && !there.filled {
                    lost.push((i, false, "nothing".to_owned()));
                }
                if ours && there.collation.is_none() {
                    collations.extend(self.collation(source, column));
                }
                continue;
            }
            if let Some(generated) = &source.generated {
                let text = generated
                    .expression
                    .as_deref()
                    .ok_or_else(|| "its expression could not be read".to_owned());
                // PostgreSQL computes one from plain columns only.
                let other = |t: &str| {
                    let all = self.source.columns.iter();
                    let mut generated = all.filter(|c| c.generated.is_some());
                    generated.find(|c| expr::names(t, &c.name))
                };
                let translated = text.and_then(|t| match other(t) {
                    Some(other) => Err(format!("it uses generated column {}", other.name)),
                    None => expr::translate(t, &known),
                });
                match translated {
                    Ok(expression) => found.push((i, None, Some(expression))),
                    Err(why) => {
                        warnings.push(format!(
                            "generated column {}: not translated ({why}); its values are moved as a plain column",
                            source.name
                        ));
                        lost.push((i, true, format!("not translated ({why})")));
                    }
                }
            } else if let Some(default) = &source.default {
                match expr::translate_default(default, column.pg) {
                    Ok(text) => found.push((i, Some(text), None)),
                    Err(why) => {
                        warnings.push(format!(
                            "column {}: DEFAULT {default} not translated ({why})",
                            source.name
                        ));
                        lost.push((i, false, format!("not translated ({why})")));
                    }
                }
            }
            if let Some(kept) = kept_collation(source, column) {
                warnings.push(kept);
            } else if let Some(lost) = self.collation(source, column) {
                warnings.push(format!(
                    "column {}: {} is not moved; {}",
                    source.name,
                    lost.1,
                    if lost.1.ends_with("NOCASE") {
                        "comparisons in PostgreSQL are case-sensitive (indexes of it are made on lower(), and a unique one for a key)"
                    } else if lost.1.ends_with("RTRIM") {
                        "comparisons in PostgreSQL count trailing blanks"
                    } else {
                        "comparisons in PostgreSQL follow the database's order"
                    }
                ));
                collations.push(lost);
            }
        }
        for (i, default, generated) in found {
            self.columns[i].default = default;
            self.columns[i].generated = generated;
        }
        self.warnings.extend(warnings);
        for (i, generated, why) in lost {
            self.lose_expression(i, generated, &why);
        }
        for (item, had, remedy) in collations {
            self.lose(item, had, "the database's collation", remedy);
        }
    }

    /// A collation that matters and is not moved: what, how it was, and what can be done.
    fn collation(
        &self,
        source: &Column,
        column: &PlannedColumn,
    ) -> Option<(String, String, String)> {
        let collation = source.collation.as_ref()?.to_ascii_uppercase();
        if !matches!(column.pg, PgType::Text | PgType::Varchar(_)) {
            return None;
        }
        if collation == "NOCASE" && !column.is_plain_text() {
            return None;
        }
        let remedy = if collation == "NOCASE" {
            format!(
                "CREATE EXTENSION IF NOT EXISTS citext; ALTER TABLE {} ALTER COLUMN {} TYPE citext",
                self.qualified,
                quote_ident(&column.target)
            )
        } else {
            String::new()
        };
        Some((
            format!("collation of column {}", column.target),
            format!("COLLATE {collation}"),
            remedy,
        ))
    }

    /// Keeps PostgreSQL from taking the name of another table for the sequence of this one.
    fn plan_sequence(&mut self, names: &mut Names) {
        let Some((column, _)) = self.identity.as_ref().filter(|_| self.existing.is_none()) else {
            return;
        };
        let usual = format!("{}_{column}_seq", self.target);
        if usual.len() < 64 {
            let name = names.give(&usual, Identifiers::Keep);
            self.identity_sequence = Some(name).filter(|n| *n != usual);
        }
    }

    /// The same for the index of the primary key.
    fn plan_key_name(&mut self, names: &mut Names) {
        let usual = format!("{}_pkey", self.target);
        if self.existing.is_none() && !self.primary_key.is_empty() && usual.len() < 64 {
            let name = names.give(&usual, Identifiers::Keep);
            self.primary_key_name = Some(name).filter(|n| *n != usual);
        }
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
}
