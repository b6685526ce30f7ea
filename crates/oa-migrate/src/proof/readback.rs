//! PostgreSQL's side of the proof: binary COPY output, read row by row.

use std::io::BufRead;

use anyhow::{Context, Result, bail, ensure};
use oa_core::pg::quote_ident;
use postgres::GenericClient;

use super::Comparison;
use super::canon::{add_of_target, of_target};
use super::digest::{Digest, RowFingerprint, RowParts};
use crate::load::encode::HEADER;
use crate::load::forms;
use crate::progress;

/// Adds up what PostgreSQL holds.
pub(crate) fn sum(client: &mut impl GenericClient, comparison: &Comparison) -> Result<Digest> {
    let mut digest = Digest::new(comparison);
    let mut row = RowParts::default();
    each(client, comparison, |mut fields| {
        for (i, column) in comparison.columns.iter().enumerate() {
            add_of_target(column, i, fields.next_field()?, &mut row)
                .with_context(|| format!("column {}", column.target))?;
        }
        digest.add_parts(&mut row);
        Ok(())
    })?;
    Ok(digest)
}

/// The same, while `see` gets every row in its normal form.
pub(crate) fn read(
    client: &mut impl GenericClient,
    comparison: &Comparison,
    mut see: impl FnMut(&[u8], RowFingerprint),
) -> Result<Digest> {
    let mut digest = Digest::new(comparison);
    let mut bytes = Vec::with_capacity(1024);
    each(client, comparison, |mut fields| {
        bytes.clear();
        for column in &comparison.columns {
            of_target(column, fields.next_field()?, &mut bytes)
                .with_context(|| format!("column {}", column.target))?;
        }
        let fingerprint = digest.add(&bytes);
        see(&bytes, fingerprint);
        Ok(())
    })?;
    Ok(digest)
}

fn each(
    client: &mut impl GenericClient,
    comparison: &Comparison,
    mut see: impl FnMut(Fields<'_>) -> Result<()>,
) -> Result<()> {
    let columns: Vec<String> = comparison
        .columns
        .iter()
        .map(|c| forms::as_text(&quote_ident(&c.target), c.pg))
        .collect();
    let sql = format!(
        "COPY (SELECT {} FROM ONLY {}.{}) TO STDOUT (FORMAT binary)",
        columns.join(", "),
        quote_ident(&comparison.schema),
        quote_ident(&comparison.target)
    );
    let mut count = 0;
    each_row(client, &sql, |fields| {
        ensure!(
            fields.count == comparison.columns.len(),
            "PostgreSQL sent {} columns instead of {}",
            fields.count,
            comparison.columns.len()
        );
        see(fields)?;
        count += 1;
        progress::rows(count);
        Ok(())
    })
    .with_context(|| format!("could not read {} back from PostgreSQL", comparison.target))
}

#[derive(Debug)]
pub(crate) struct Fields<'a> {
    pub(crate) count: usize,
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next field; `None` is NULL.
    pub(crate) fn next_field(&mut self) -> Result<Option<&'a [u8]>> {
        let (length, rest) = self
            .rest
            .split_first_chunk::<4>()
            .context("PostgreSQL sent an incomplete row")?;
        let length = i32::from_be_bytes(*length);
        self.rest = rest;
        let Ok(length) = usize::try_from(length) else {
            return Ok(None);
        };
        let (value, rest) = self
            .rest
            .split_at_checked(length)
            .context("PostgreSQL sent an incomplete row")?;
        self.rest = rest;
        Ok(Some(value))
    }
}

/// Runs a `COPY … TO STDOUT (FORMAT binary)` and hands over each row.
pub(crate) fn each_row(
    client: &mut impl GenericClient,
    sql: &str,
    mut see: impl FnMut(Fields<'_>) -> Result<()>,
) -> Result<()> {
    let mut reader = client.copy_out(sql)?;
    // PostgreSQL sends one message a row, so a message is usually used where it is; what is left over waits for the next one.
    let mut left: Vec<u8> = Vec::new();
    let mut header_seen = false;
    let mut done = false;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            break;
        }
        let taken = chunk.len();
        let joined;
        let mut bytes = if left.is_empty() {
            chunk
        } else {
            joined = [left.as_slice(), chunk].concat();
            joined.as_slice()
        };
        if !header_seen && bytes.len() >= HEADER.len() {
            ensure!(
                bytes.starts_with(b"PGCOPY\n\xff\r\n\0"),
                "PostgreSQL did not send binary COPY data"
            );
            bytes = &bytes[HEADER.len()..];
            header_seen = true;
        }
        while header_seen && !done {
            match row_length(bytes) {
                Row::Whole(length) => {
                    let count = usize::from(u16::from_be_bytes([bytes[0], bytes[1]]));
                    see(Fields {
                        count,
                        rest: &bytes[2..length],
                    })?;
                    bytes = &bytes[length..];
                }
                Row::End => done = true,
                Row::Part => break,
            }
        }
        let rest = if done { Vec::new() } else { bytes.to_vec() };
        reader.consume(taken);
        left = rest;
    }
    if !done {
        bail!("PostgreSQL's answer was cut short");
    }
    Ok(())
}

enum Row {
    Whole(usize),
    Part,
    End,
}

fn row_length(bytes: &[u8]) -> Row {
    let Some(count) = bytes.first_chunk::<2>() else {
        return Row::Part;
    };
    let Ok(count) = u16::try_from(i16::from_be_bytes(*count)) else {
        return Row::End;
    };
    let mut at = 2;
    for _ in 0..count {
        let Some(length) = bytes.get(at..).and_then(<[u8]>::first_chunk::<4>) else {
            return Row::Part;
        };
        at += 4 + usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
    }
    if at > bytes.len() {
        return Row::Part;
    }
    Row::Whole(at)
}
