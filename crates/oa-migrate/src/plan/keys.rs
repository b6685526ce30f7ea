//! Keys, checks, indexes and foreign keys of a planned table, in PostgreSQL's words.

use std::collections::HashMap;

use anyhow::{Context, Result};
use oa_core::pg::quote_ident;
use oa_core::service;

use super::names::{Identifiers, Names};
use super::{PgType, PlannedForeignKey, PlannedIndex, PlannedTable, expr};
use crate::inspect::ddl::{self, Token};
use crate::inspect::{Index, Origin, Table};

impl PlannedTable {
    pub(super) fn plan_checks(&mut self, identifiers: Identifiers) -> Result<()> {
        self.primary_key = match &self.existing {
            Some(existing) => existing.primary_key.clone(),
            None => {
                let names: Option<Vec<String>> = self
                    .source
                    .primary_key
                    .iter()
                    .map(|c| self.target_of(c).map(|c| c.target.clone()))
                    .collect();
                names.with_context(|| {
                    format!(
                        "table {} has a primary key of columns that it does not have; please report this",
                        self.source.name
                    )
                })?
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
        if let Some(existing) = &self.existing {
            if existing.ours {
                self.checks_of_earlier_run();
            }
            return Ok(());
        }
        let known = self.expression_columns();
        let (mut checks, mut lost) = (Vec::new(), Vec::new());
        let mut names = Names::default();
        for check in &self.source.checks {
            match expr::translate(&check.condition, &known) {
                Ok(text) => {
                    let name = check.name.as_ref().map(|n| names.give(n, identifiers));
                    checks.push((name, text));
                }
                Err(why) => lost.push((check.condition.clone(), why)),
            }
        }
        self.checks = checks;
        for (condition, why) in lost {
            self.warnings
                .push(format!("CHECK ({condition}) not translated ({why})"));
            self.lose(
                "CHECK constraint".to_owned(),
                format!("CHECK ({condition})"),
                &format!("not translated ({why})"),
                format!(
                    "ALTER TABLE {} ADD CHECK ({condition}) -- in PostgreSQL's words",
                    self.qualified
                ),
            );
        }
        Ok(())
    }

    /// What an earlier run could not create of the source's key and conditions, and nobody has made since.
    fn checks_of_earlier_run(&mut self) {
        let Some(existing) = &self.existing else {
            return;
        };
        let key: Vec<String> = self
            .source
            .primary_key
            .iter()
            .filter_map(|c| self.target_of(c).map(|c| quote_ident(&c.target)))
            .collect();
        let no_key = existing.primary_key.is_empty() && !key.is_empty();
        let lost: Vec<String> = self
            .source
            .checks
            .iter()
            .filter(|check| {
                let tokens = ddl::tokens(&check.condition);
                let named = tokens.iter().filter_map(|t| match t {
                    Token::Word(name) | Token::Quoted(name) => self.target_of(name),
                    _ => None,
                });
                let named: Vec<&String> = named.map(|c| &c.target).collect();
                !existing
                    .check_columns
                    .iter()
                    .any(|columns| named.iter().any(|n| columns.contains(n)))
            })
            .map(|check| check.condition.clone())
            .collect();
        let table = self.qualified.clone();
        if no_key {
            let key = format!("PRIMARY KEY ({})", key.join(", "));
            let sql = format!("ALTER TABLE {table} ADD {key}");
            self.lose("primary key".to_owned(), key, "nothing", sql);
        }
        for condition in lost {
            let check = format!("CHECK ({condition})");
            let sql = format!("ALTER TABLE {table} ADD {check} -- in PostgreSQL's words");
            self.lose("CHECK constraint".to_owned(), check, "nothing", sql);
        }
    }

    pub(super) fn plan_indexes(&mut self, names: &mut Names, identifiers: Identifiers) {
        let mut planned = Vec::new();
        let mut warnings = Vec::new();
        let mut lost = Vec::new();
        planned.extend(self.nocase_key(names));
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
                Err(why) => {
                    warnings.push(format!("index {} not translated ({why})", index.name));
                    lost.push((index.clone(), format!("not translated ({why})")));
                }
                Ok((definition, plain)) => {
                    let constraint = index.origin == Origin::Unique && plain;
                    let preferred = if index.origin == Origin::Unique {
                        let columns: Vec<&str> = index
                            .parts
                            .iter()
                            .filter_map(|p| p.column.as_deref())
                            .collect();
                        format!("{}_{}_key", self.target, columns.join("_"))
                    } else {
                        index.name.clone()
                    };
                    let name = names.give(&preferred, identifiers);
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
        for (index, why) in lost {
            let parts: Vec<String> = index
                .parts
                .iter()
                .map(|p| match (&p.column, &p.expression) {
                    (Some(column), _) => {
                        quote_ident(self.target_of(column).map_or(column, |c| &c.target))
                    }
                    (None, text) => format!("({})", text.as_deref().unwrap_or("…")),
                })
                .collect();
            let unique = if index.unique { "UNIQUE " } else { "" };
            let condition = index
                .condition
                .as_ref()
                .map_or_else(String::new, |c| format!(" WHERE {c}"));
            let had = format!("({}){condition}", parts.join(", "));
            self.lose(
                format!("index {}", index.name),
                format!("{unique}{had}"),
                &why,
                format!(
                    "CREATE {unique}INDEX ON {} {had} -- in PostgreSQL's words",
                    self.qualified
                ),
            );
        }
    }

    /// A key of a column without case forbids two keys that differ in their letters' case only.
    fn nocase_key(&self, names: &mut Names) -> Option<PlannedIndex> {
        let nocase = |target: &String| {
            self.columns
                .iter()
                .zip(&self.source.columns)
                .find(|(c, _)| c.target == *target)
                .is_some_and(|(c, s)| {
                    c.is_plain_text()
                        && s.collation
                            .as_ref()
                            .is_some_and(|c| c.eq_ignore_ascii_case("NOCASE"))
                })
        };
        if self.existing.is_some() || !self.primary_key.iter().any(nocase) {
            return None;
        }
        let parts: Vec<String> = self
            .primary_key
            .iter()
            .map(|c| {
                let name = quote_ident(c);
                if nocase(c) {
                    format!("lower({name} COLLATE \"C\")")
                } else {
                    name
                }
            })
            .collect();
        Some(PlannedIndex {
            name: names.give(&format!("{}_nocase_key", self.target), Identifiers::Keep),
            unique: true,
            constraint: false,
            definition: format!("({})", parts.join(", ")),
        })
    }

    /// The unique index that the crawlers need, where the table is one of the service's and the source has all of its columns.
    pub(super) fn plan_natural_key(&mut self, names: &mut Names) {
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
                    let is_text = column.is_plain_text();
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

    /// The target's own foreign keys stay as they are; those of the source come to the columns that have none.
    pub(super) fn plan_foreign_keys(
        &mut self,
        targets: &HashMap<String, (String, Table)>,
        renamed: &HashMap<String, Vec<(String, String)>>,
        skipped: &[String],
        identifiers: Identifiers,
    ) {
        let mut planned: Vec<PlannedForeignKey> = Vec::new();
        let mut names = Names::default();
        for key in self.existing.iter().flat_map(|e| &e.foreign_keys) {
            let parent_moves =
                key.parent_schema.is_none() && targets.values().any(|(t, _)| *t == key.parent);
            if let Some(name) = &key.name {
                names.reserve(name);
            }
            planned.push(PlannedForeignKey {
                parent_moves,
                ..key.clone()
            });
        }
        for name in self.checks.iter().filter_map(|(name, _)| name.as_ref()) {
            names.reserve(name);
        }
        for key in self.source.foreign_keys.clone() {
            let parent = key.parent.to_ascii_lowercase();
            let had = format!(
                "FOREIGN KEY ({}) REFERENCES {} ({})",
                key.columns.join(", "),
                key.parent,
                key.parent_columns.join(", ")
            );
            let (Some((target, table)), Some(pairs)) = (targets.get(&parent), renamed.get(&parent))
            else {
                let why = format!("not moved: its table {} is not", key.parent);
                self.warnings
                    .push(format!("foreign key ({}) {why}", key.columns.join(", ")));
                if !skipped.iter().any(|s| s.eq_ignore_ascii_case(&parent)) {
                    self.lose("foreign key".to_owned(), had, &why, String::new());
                }
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
                self.warnings.push(format!(
                    "foreign key ({}) to {} not moved: its columns do not match",
                    key.columns.join(", "),
                    key.parent
                ));
                self.lose(
                    "foreign key".to_owned(),
                    had,
                    "not moved: its columns do not match",
                    String::new(),
                );
                continue;
            }
            if planned.iter().any(|p| p.of_target && p.columns == columns) {
                continue;
            }
            planned.push(PlannedForeignKey {
                columns,
                parent: target.clone(),
                parent_moves: true,
                parent_columns,
                actions: format!("ON UPDATE {} ON DELETE {}", key.on_update, key.on_delete),
                name: key.name.as_ref().map(|n| names.give(n, identifiers)),
                timing: key.deferrable.to_owned(),
                parent_schema: None,
                of_target: false,
                dangling: false,
            });
        }
        self.foreign_keys = planned;
    }
}
