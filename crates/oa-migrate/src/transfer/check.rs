//! Reading an export back: sizes, hashes, and every line.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use oa_core::base::trust::{open_regular, read_regular};
use sha2::{Digest as _, Sha256};

use super::{LARGEST_MANIFEST, MANIFEST, Manifest, SUMS, TableFile, hex, read_line, sums};

/// A line longer than this is not held in memory: SQLite's own limit for a row is 1 GB, in base64 a third more.
const MAX_LINE_BYTES: u64 = 3 << 30;
/// Findings that are reported of one file.
const MAX_FINDINGS: usize = 5;

/// What reading an export back found.
#[derive(Debug)]
pub(crate) struct ExportCheck {
    pub(crate) manifest: Manifest,
    pub(crate) files: Vec<FileCheck>,
    /// What is wrong beside the tables' files: the list of hashes, files that are not in the manifest.
    others: Vec<String>,
}

/// What reading a table's file back found.
#[derive(Debug)]
pub(crate) struct FileCheck {
    pub(crate) table: TableFile,
    /// What is wrong, with the file and, where possible, the line; empty when nothing is.
    pub(crate) findings: Vec<String>,
}

impl ExportCheck {
    /// All that is wrong; nothing: the export is whole.
    pub(crate) fn findings(&self) -> impl Iterator<Item = &String> {
        let of_files = self.files.iter().flat_map(|f| &f.findings);
        of_files.chain(&self.others)
    }
}

/// Checks all files of a folder. Fails when there is no readable manifest.
pub(crate) fn check(folder: &Path, mut progress: impl FnMut(&str)) -> Result<ExportCheck> {
    let manifest = Manifest::read(folder)?;
    let mut files = Vec::new();
    for table in &manifest.tables {
        progress(&table.table);
        let findings = match check_file(folder, table) {
            Ok(findings) => findings,
            Err(e) => vec![format!("{}: {e:#}", table.file)],
        };
        files.push(FileCheck {
            table: table.clone(),
            findings,
        });
    }
    let known: HashSet<&str> = manifest.tables.iter().map(|t| t.file.as_str()).collect();
    let mut others = check_sums(folder, &manifest);
    let mut strays = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("could not read {}", folder.display()))?
    {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if name != MANIFEST && name != SUMS && !known.contains(name.as_ref()) {
            strays.push(format!("{name} is not in the manifest"));
        }
    }
    strays.sort();
    others.extend(strays);
    Ok(ExportCheck {
        manifest,
        files,
        others,
    })
}

/// Compares the list of hashes with what it must be. Only its line of the manifest shows whether that was changed.
fn check_sums(folder: &Path, manifest: &Manifest) -> Vec<String> {
    let read = read_regular(&folder.join(MANIFEST), LARGEST_MANIFEST)
        .with_context(|| MANIFEST)
        .and_then(|text| {
            Ok((
                text,
                read_regular(&folder.join(SUMS), LARGEST_MANIFEST).context(SUMS)?,
            ))
        });
    let (text, found) = match read {
        Ok(read) => read,
        Err(e) => return vec![format!("{e:#}")],
    };
    let expected = sums(&text, manifest).into_bytes();
    if found == expected {
        return Vec::new();
    }
    let lines = |text: &[u8]| -> Vec<Vec<u8>> {
        text.split_inclusive(|b| *b == b'\n')
            .map(<[u8]>::to_vec)
            .collect()
    };
    let (found, expected) = (lines(&found), lines(&expected));
    let same = found.iter().zip(&expected).take_while(|(a, b)| a == b);
    let at = same.count();
    vec![if at == 0 {
        format!(
            "{MANIFEST} and line 1 of {SUMS} do not agree; one of them was changed after the export"
        )
    } else {
        format!(
            "{SUMS} line {} does not agree with {MANIFEST}; it was changed after the export",
            at + 1
        )
    }]
}

fn check_file(folder: &Path, table: &TableFile) -> Result<Vec<String>> {
    let path = folder.join(&table.file);
    let mut reader =
        BufReader::with_capacity(1 << 18, open_regular(&path).context("could not open it")?);
    let mut findings = Vec::new();
    let mut hash = Sha256::new();
    let members = table.members();
    let mut line = Vec::new();
    let (mut rows, mut bytes) = (0u64, 0u64);
    loop {
        line.clear();
        let read = std::io::Read::take(&mut reader, MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        rows += 1;
        bytes += read as u64;
        hash.update(&line);
        let finding = if line.last() == Some(&b'\n') {
            read_line(&line, &members).err().map(|e| format!("{e:#}"))
        } else {
            Some("it does not end; the file was cut".to_owned())
        };
        if let Some(finding) = finding.filter(|_| findings.len() < MAX_FINDINGS) {
            findings.push(format!("{} line {rows}: {finding}", table.file));
        }
    }
    if rows != table.rows {
        findings.push(format!(
            "{} has {rows} line(s), the manifest says {}",
            table.file, table.rows
        ));
    }
    if bytes != table.bytes {
        findings.push(format!(
            "{} has {bytes} byte(s), the manifest says {}",
            table.file, table.bytes
        ));
    }
    if hex(&hash.finalize()) != table.sha256 {
        findings.push(format!(
            "{} has another SHA-256 than the manifest says; it was changed after the export",
            table.file
        ));
    }
    Ok(findings)
}
