//! The report of a migration: JSON for programs, Markdown for a person to keep.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use oa_core::base::state_dir::write_durably;
use serde::{Deserialize, Serialize};

use super::diff::Difference;
use super::tables::ComparisonResult;
use crate::plan::{Missing, PgType};

/// What a run or a later verification found.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) run_id: String,
    pub(crate) database: String,
    pub(crate) schema: String,
    pub(crate) status: Status,
    /// Every row of the source is in the target, and no other.
    pub(crate) matched: bool,
    pub(crate) seconds: f64,
    pub(crate) phases: Phases,
    pub(crate) tables: Vec<TableReport>,
    /// What the source had and what is not there now.
    pub(crate) missing: Vec<Missing>,
    /// What is missing too, and was allowed to be by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) allowed: Vec<Missing>,
    /// What concerns no single table.
    pub(crate) warnings: Vec<String>,
    /// It was a rehearsal: nothing was kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) rehearsal: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    /// Everything is there and was proven, or what is missing was allowed to be.
    Success,
    /// Rows were quarantined or definitions are missing; all other rows are there and were proven.
    Partial,
    /// The sides differ; the target is as it was.
    Failed,
}

impl Status {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Partial => "partial",
            Self::Failed => "failed",
        }
    }

    /// The state of the run in the run log.
    pub(crate) fn of_run(self) -> oa_core::model::run::Status {
        match self {
            Self::Success => oa_core::model::run::Status::Success,
            Self::Partial => oa_core::model::run::Status::Partial,
            Self::Failed => oa_core::model::run::Status::Failed,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Phases {
    /// Copying the source and looking for damage.
    pub(crate) snapshot: f64,
    /// The value scan and the plan.
    pub(crate) scan: f64,
    /// Rows, keys, indexes and constraints.
    pub(crate) load: f64,
    pub(crate) proof: f64,
    pub(crate) swap: f64,
}

/// What became of a table.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct TableReport {
    pub(crate) table: String,
    pub(crate) target: String,
    pub(crate) rows_read: u64,
    pub(crate) rows_loaded: u64,
    /// Rows in `oa.rejects`.
    pub(crate) rows_quarantined: u64,
    /// Sum of the rows' SHA-256 on SQLite's side, without quarantined rows.
    pub(crate) source_hash: String,
    /// The same on PostgreSQL's side.
    pub(crate) target_hash: String,
    /// The sums and the counts agree.
    pub(crate) matched: bool,
    /// Seconds for rows and indexes.
    pub(crate) seconds: f64,
    pub(crate) bytes: u64,
    pub(crate) columns: Vec<ColumnReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) difference: Option<Difference>,
    pub(crate) warnings: Vec<String>,
}

/// What a column adds up to.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ColumnReport {
    pub(crate) column: String,
    #[serde(rename = "type")]
    pub(crate) pg: String,
    /// Values that are not NULL.
    pub(crate) values: u64,
    /// The values' sums agree.
    pub(crate) matched: bool,
}

impl TableReport {
    /// What comparing a table found. `columns` are its columns in PostgreSQL: name and type.
    pub(crate) fn of<'a>(
        table: &str,
        target: &str,
        columns: impl Iterator<Item = (&'a str, PgType)>,
        result: &ComparisonResult,
        rows_quarantined: u64,
        mut warnings: Vec<String>,
    ) -> Self {
        if rows_quarantined > 0 {
            warnings.push(format!(
                "{rows_quarantined} row(s) are in oa.rejects, not in the table"
            ));
        }
        Self {
            table: table.to_owned(),
            target: target.to_owned(),
            rows_read: result.source.rows + rows_quarantined,
            rows_loaded: result.target.rows,
            rows_quarantined,
            source_hash: result.source.hex(),
            target_hash: result.target.hex(),
            matched: result.matched(),
            seconds: result.seconds,
            bytes: 0,
            columns: columns
                .zip(&result.source.columns)
                .zip(&result.target.columns)
                .map(|(((column, pg), a), b)| ColumnReport {
                    column: column.to_owned(),
                    pg: pg.to_string(),
                    values: b.values,
                    matched: a == b,
                })
                .collect(),
            difference: result.difference.clone(),
            warnings,
        }
    }
}

impl Report {
    /// Writes `report.json` and `report.md` into a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        let context = || format!("could not write the report into {}", folder.display());
        write_durably(&folder.join("report.json"), &json).with_context(context)?;
        write_durably(&folder.join("report.md"), self.markdown().as_bytes()).with_context(context)
    }

    fn markdown(&self) -> String {
        let mut out = self.head();
        out.push_str("| table | rows read | loaded | quarantined | same | SHA-256 sum (source) | SHA-256 sum (target) |\n");
        out.push_str("|---|---:|---:|---:|---|---|---|\n");
        for t in &self.tables {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | `{}` | `{}` |",
                cell(&t.table),
                t.rows_read,
                t.rows_loaded,
                t.rows_quarantined,
                if t.matched { "yes" } else { "**NO**" },
                &t.source_hash,
                &t.target_hash
            );
        }
        for table in &self.tables {
            table.notes(&mut out);
        }
        missing("Missing", &self.missing, &mut out);
        missing("Missing, as allowed", &self.allowed, &mut out);
        out.push_str("\n## Columns\n\n| table | columns |\n|---|---|\n");
        for t in &self.tables {
            let columns: Vec<String> = t
                .columns
                .iter()
                .map(|c| format!("{} {}", c.column, c.pg))
                .collect();
            let _ = writeln!(
                out,
                "| {} | {} |",
                cell(&t.target),
                cell(&columns.join(", "))
            );
        }
        if !self.warnings.is_empty() {
            out.push_str("\n## Also\n\n");
            for warning in &self.warnings {
                let _ = writeln!(out, "- {warning}");
            }
        }
        out
    }

    fn head(&self) -> String {
        let mut out = format!(
            "# Migration {}\n\n- source: `{}`\n- target schema: `{}`\n",
            self.run_id, self.database, self.schema
        );
        let _ = writeln!(
            out,
            "- result: **{}**, {}",
            match self.status {
                Status::Success => "success",
                Status::Partial if self.tables.iter().all(|t| t.rows_quarantined == 0) =>
                    "partial: something is missing in the target, see \"Missing\"",
                Status::Partial => "partial: rows were quarantined, see oa.rejects",
                Status::Failed => "failed: the target is as it was",
            },
            if self.matched {
                "every row was read back from both sides and is the same"
            } else {
                "the two sides are not the same"
            }
        );
        if self.rehearsal {
            let _ = writeln!(out, "- rehearsal: nothing was kept");
        }
        let p = &self.phases;
        let _ = writeln!(
            out,
            "- {:.2} s: snapshot {:.2}, scan {:.2}, load {:.2}, proof {:.2}, swap {:.2}\n",
            self.seconds, p.snapshot, p.scan, p.load, p.proof, p.swap
        );
        out
    }
}

impl TableReport {
    /// A section of its own, where there is something to say.
    fn notes(&self, out: &mut String) {
        if self.difference.is_none() && self.warnings.is_empty() {
            return;
        }
        let _ = writeln!(out, "\n## {}\n", self.table);
        for warning in &self.warnings {
            let _ = writeln!(out, "- {warning}");
        }
        let Some(d) = &self.difference else { return };
        let _ = writeln!(
            out,
            "- differs{}: {} row(s) only in the source, {} only in the target, {} changed; columns: {}",
            if d.at_least { " at least" } else { "" },
            d.only_source,
            d.only_target,
            d.changed,
            d.columns.join(", ")
        );
        for example in &d.examples {
            let _ = writeln!(out, "  - {example}");
        }
    }
}

fn missing(title: &str, items: &[Missing], out: &mut String) {
    if items.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n## {title}");
    out.push_str("\n| table | item | had | has now |\n|---|---|---|---|\n");
    for m in items {
        let _ = writeln!(
            out,
            "| {} | {} | {} | {} |",
            cell(&m.table),
            cell(&m.item),
            cell(&m.had),
            cell(&m.has)
        );
    }
    let statements: Vec<&str> = items
        .iter()
        .map(|m| m.sql.as_str())
        .filter(|s| !s.is_empty())
        .collect();
    if !statements.is_empty() {
        let _ = writeln!(
            out,
            "\nTo create it:\n\n```sql\n{};\n```",
            statements.join(";\n")
        );
    }
}

/// A text that fits a cell of a Markdown table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
