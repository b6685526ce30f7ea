//! The report of a migration: JSON for programs, Markdown for a person to keep.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use oa_core::base::state_dir::write_durably;
use serde::{Deserialize, Serialize};

use super::diff::Difference;
use super::missing::Missing;

/// What a run or a later verification found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Id of the run.
    pub run_id: String,
    /// The SQLite file.
    pub database: String,
    /// The target schema.
    pub schema: String,
    /// What came of it.
    pub status: Status,
    /// Every row of the source is in the target, and no other.
    pub matched: bool,
    /// Seconds from start to end.
    pub seconds: f64,
    /// Seconds per phase.
    pub phases: Phases,
    /// One entry a table.
    pub tables: Vec<TableReport>,
    /// What the source or the target's own tables had and what is not there now.
    pub missing: Vec<Missing>,
    /// What concerns no single table.
    pub warnings: Vec<String>,
    /// It was a rehearsal: nothing was kept.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub rehearsal: bool,
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Everything is there and was proven, or what is missing was allowed to be.
    Success,
    /// Rows were quarantined or definitions are missing; all other rows are there and were proven.
    Partial,
    /// The sides differ, or the target's own tables would have lost something; the target is as it was.
    Failed,
}

impl Status {
    /// The state of the run's row.
    #[must_use]
    pub fn of_run(self) -> oa_core::model::run::Status {
        match self {
            Self::Success => oa_core::model::run::Status::Success,
            Self::Partial => oa_core::model::run::Status::Partial,
            Self::Failed => oa_core::model::run::Status::Failed,
        }
    }

    /// 0 only when everything is there and was proven.
    #[must_use]
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Success => oa_core::app::exit::OK,
            Self::Partial | Self::Failed => oa_core::app::exit::FAILED,
        }
    }
}

/// Seconds per phase.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Phases {
    /// Copying the source and looking for damage.
    pub snapshot: f64,
    /// The value scan and the plan.
    pub scan: f64,
    /// Rows, keys, indexes and constraints.
    pub load: f64,
    /// Reading both sides back.
    pub proof: f64,
    /// Putting the tables in place.
    pub swap: f64,
}

/// What became of a table.
#[derive(Debug, Clone, Serialize)]
pub struct TableReport {
    /// Its name in SQLite.
    pub table: String,
    /// Its name in PostgreSQL.
    pub target: String,
    /// Rows in SQLite.
    pub rows_read: u64,
    /// Rows in PostgreSQL.
    pub rows_loaded: u64,
    /// Rows in `oa.rejects`.
    pub rows_quarantined: u64,
    /// Sum of the rows' SHA-256 on SQLite's side, without quarantined rows.
    pub source_hash: String,
    /// The same on PostgreSQL's side.
    pub target_hash: String,
    /// The sums and the counts agree.
    pub matched: bool,
    /// Seconds for rows and indexes.
    pub seconds: f64,
    /// Bytes sent to PostgreSQL.
    pub bytes: u64,
    /// Sums per column.
    pub columns: Vec<ColumnReport>,
    /// How the sides differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub difference: Option<Difference>,
    /// What a person should know.
    pub warnings: Vec<String>,
}

/// What a column adds up to.
#[derive(Debug, Clone, Serialize)]
pub struct ColumnReport {
    /// Its name in PostgreSQL.
    pub column: String,
    /// Its type in PostgreSQL.
    #[serde(rename = "type")]
    pub pg: String,
    /// Values that are not NULL.
    pub values: u64,
    /// The values' sums agree.
    pub matched: bool,
}

impl Report {
    /// Writes `report.json` and `report.md` into a folder.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let json = serde_json::to_vec_pretty(self)?;
        let context = || format!("could not write the report into {}", folder.display());
        write_durably(&folder.join("report.json"), &json).with_context(context)?;
        write_durably(&folder.join("report.md"), self.markdown().as_bytes()).with_context(context)
    }

    /// The report as Markdown.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(out, "# Migration {}\n", self.run_id);
        let _ = writeln!(
            out,
            "- source: `{}`\n- target schema: `{}`",
            self.database, self.schema
        );
        let _ = writeln!(
            out,
            "- result: **{}**, {}",
            match self.status {
                Status::Success => "success",
                Status::Partial if self.tables.iter().all(|t| t.rows_quarantined == 0) =>
                    "partial: not everything came along, see \"Missing\"",
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
        out.push_str("| table | rows read | loaded | quarantined | same | SHA-256 sum (source) | SHA-256 sum (target) |\n");
        out.push_str("|---|---:|---:|---:|---|---|---|\n");
        for t in &self.tables {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | `{}` | `{}` |",
                t.table.replace('|', "\\|"),
                t.rows_read,
                t.rows_loaded,
                t.rows_quarantined,
                if t.matched { "yes" } else { "**NO**" },
                &t.source_hash,
                &t.target_hash
            );
        }
        for t in self
            .tables
            .iter()
            .filter(|t| t.difference.is_some() || !t.warnings.is_empty())
        {
            let _ = writeln!(out, "\n## {}\n", t.table);
            for warning in &t.warnings {
                let _ = writeln!(out, "- {warning}");
            }
            if let Some(d) = &t.difference {
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
        if !self.missing.is_empty() {
            out.push_str("\n## Missing\n\n| table | item | had | has now |\n|---|---|---|---|\n");
            let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
            for m in &self.missing {
                let _ = writeln!(
                    out,
                    "| {} | {} | {} | {} |",
                    cell(&m.table),
                    cell(&m.item),
                    cell(&m.had),
                    cell(&m.has)
                );
            }
            let made: Vec<&str> = self
                .missing
                .iter()
                .map(|m| m.sql.as_str())
                .filter(|s| !s.is_empty())
                .collect();
            if !made.is_empty() {
                let _ = writeln!(out, "\nTo make it:\n\n```sql\n{};\n```", made.join(";\n"));
            }
        }
        if !self.warnings.is_empty() {
            out.push_str("\n## Also\n\n");
            for warning in &self.warnings {
                let _ = writeln!(out, "- {warning}");
            }
        }
        out
    }
}
