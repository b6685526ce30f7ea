//! How results are shown: reports of `run` and `verify`, changes of `sync` and `to-sqlite`. Warnings go to stderr, unless the
//! result is JSON, which has them.

use std::path::Path;

use anyhow::{Context, Result};
use oa_core::app::output::{Format, Listing};
use oa_core::app::{cli, exit};
use serde_json::{Map, Value, json};

use crate::proof::report::{Report, Status};
use crate::sync::{AllChanges, TableChanges};

/// 0 only when everything is there and was proven.
pub(crate) fn exit_code(status: Status) -> u8 {
    match status {
        Status::Success => exit::OK,
        Status::Partial | Status::Failed => exit::FAILED,
    }
}

/// Why a report is not one of success; none when it is.
pub(crate) fn shortcomings(report: &Report) -> Option<String> {
    if report.status == Status::Success {
        return None;
    }
    let quarantined: u64 = report.tables.iter().map(|t| t.rows_quarantined).sum();
    if !report.missing.is_empty() {
        let items: Vec<String> = report
            .missing
            .iter()
            .take(5)
            .map(|m| format!("{} of {}", m.item, m.table))
            .collect();
        return Some(format!(
            "{} item(s) are missing in the target ({}{}){}",
            report.missing.len(),
            items.join(", "),
            if report.missing.len() > 5 {
                ", …"
            } else {
                ""
            },
            if quarantined > 0 {
                format!("; {quarantined} row(s) are in oa.rejects")
            } else {
                String::new()
            }
        ));
    }
    if report.matched {
        return Some(format!(
            "{quarantined} row(s) are in oa.rejects, all others are the same"
        ));
    }
    let different: Vec<&str> = report
        .tables
        .iter()
        .filter(|t| !t.matched)
        .map(|t| t.table.as_str())
        .collect();
    Some(format!(
        "the two sides are not the same in {}",
        different.join(", ")
    ))
}

pub(crate) fn print_report(report: &Report, written: &Path, format: Format) -> Result<()> {
    if format == Format::Json {
        let mut listing = Listing::new(&[]);
        listing.push(serde_json::to_value(report)?);
        listing.print(format)?;
        return Ok(());
    }
    for table in &report.tables {
        let Some(d) = &table.difference else { continue };
        tracing::error!(
            "{}: {} row(s) only in the source, {} only in the target, {} changed: {} (columns: {})",
            table.table,
            d.only_source,
            d.only_target,
            d.changed,
            d.examples.join("; "),
            d.columns.join(", ")
        );
    }
    for (table, warning) in report
        .tables
        .iter()
        .flat_map(|t| t.warnings.iter().map(move |w| (t.table.as_str(), w)))
        .chain(report.warnings.iter().map(|w| ("also", w)))
    {
        tracing::warn!("{table}: {warning}");
    }
    for missing in &report.missing {
        if report.status == Status::Success {
            tracing::warn!("{}", missing.sentence());
        } else {
            tracing::error!("{}", missing.sentence());
        }
    }
    for allowed in &report.allowed {
        tracing::warn!("as allowed: {}", allowed.sentence());
    }
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("target", "TARGET"),
        ("rows_read", "READ"),
        ("rows_loaded", "LOADED"),
        ("rows_quarantined", "QUARANTINED"),
        ("matched", "SAME"),
        ("seconds", "SECONDS"),
        ("source_hash", "SHA-256 SUM"),
    ]);
    for table in &report.tables {
        let mut row = serde_json::to_value(table)?;
        row["seconds"] = json!((table.seconds * 1000.0).round() / 1000.0);
        row["matched"] = yes_or_no(table.matched);
        row["source_hash"] = json!(format!("{}…", &table.source_hash[..16]));
        listing.push(row);
    }
    listing
        .print(format)
        .context("could not print the report")?;
    let verdict = shortcomings(report).unwrap_or_else(|| {
        let rows: u64 = report.tables.iter().map(|t| t.rows_loaded).sum();
        format!("{rows} row(s) are the same on both sides")
    });
    let rehearsal = if report.rehearsal {
        " (a rehearsal: nothing was kept)"
    } else {
        ""
    };
    let line = format!(
        "{}{rehearsal}: {verdict}; {:.1} s; report: {}\n",
        report.status.word(),
        report.seconds,
        written.display()
    );
    cli::print(&line).context("could not print the verdict")
}

/// Prints changes: one JSON object that begins with `head`, or a table.
pub(crate) fn print_changes<const N: usize>(
    changes: &AllChanges,
    head: [(&str, Value); N],
    format: Format,
) -> Result<()> {
    if format == Format::Json {
        let mut object: Map<String, Value> = head
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect();
        let rows: Vec<Value> = changes.tables.iter().map(TableChanges::json).collect();
        object.insert("matched".to_owned(), json!(changes.matched()));
        object.insert("seconds".to_owned(), json!(changes.seconds));
        object.insert("tables".to_owned(), json!(rows));
        object.insert("warnings".to_owned(), json!(changes.warnings));
        object.insert("incomplete".to_owned(), json!(changes.incomplete));
        let mut listing = Listing::new(&[]);
        listing.push(Value::Object(object));
        return Ok(listing.print(format)?);
    }
    for table in &changes.tables {
        if let Some(d) = &table.compared.difference {
            tracing::error!(
                "{}: {} row(s) only in SQLite, {} only in PostgreSQL, {} different: {}",
                table.table,
                d.only_source,
                d.only_target,
                d.changed,
                d.examples.join("; ")
            );
        }
    }
    for warning in &changes.warnings {
        tracing::warn!("{warning}");
    }
    for sentence in &changes.incomplete {
        tracing::error!("{sentence}");
    }
    let mut listing = Listing::new(&[
        ("table", "TABLE"),
        ("target", "TARGET"),
        ("inserted", "INSERTED"),
        ("updated", "UPDATED"),
        ("deleted", "DELETED"),
        ("rows_quarantined", "QUARANTINED"),
        ("rows", "ROWS"),
        ("matched", "SAME"),
    ]);
    for table in &changes.tables {
        let mut row = table.json();
        row["matched"] = yes_or_no(table.compared.matched());
        listing.push(row);
    }
    Ok(listing.print(format)?)
}

fn yes_or_no(yes: bool) -> Value {
    json!(if yes { "yes" } else { "NO" })
}
