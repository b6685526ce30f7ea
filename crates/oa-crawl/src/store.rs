//! Storing rows, and what storing them would change.

use std::collections::BTreeMap;
use std::io;

use anyhow::{Context as _, Result};
use chrono::{DateTime, Utc};
use oa_core::base::exact;
use oa_core::base::pile::Pile;
use oa_core::model::run::Batch;
use oa_core::pg::upsert::{Upserted, upsert_in};
use oa_core::pg::{Prepared, Tx, quote_ident, settled};
use oa_core::service;
use postgres::{Client, Transaction};
use serde_json::{Map, Value, json};

use crate::source::Source;
use crate::validate::columns;

pub(crate) fn batch(source: &Source, rows: Pile<Vec<Value>>, collected_at: DateTime<Utc>) -> Batch {
    let key = if source.store.key.is_empty() {
        service::natural_key(&source.store.table).map_or_else(Vec::new, |k| {
            k.key.iter().map(|s| (*s).to_owned()).collect()
        })
    } else {
        source.store.key.clone()
    };
    Batch {
        schema: source.store.schema.clone(),
        table: source.store.table.clone(),
        columns: columns(source),
        key,
        rows,
        collected_at,
        timezone: service::TIMEZONE.name().to_owned(),
        newest_by: None,
    }
}

/// So many changed rows are shown.
const SHOWN: usize = 50;

/// Stores in a transaction that is rolled back. The second value is what would change, row by row.
pub(crate) fn preview(
    client: &mut Client,
    source: &Source,
    batch: &Batch,
) -> Result<(Upserted, Vec<Value>)> {
    let mut tx = client.transaction()?;
    let before = rows_of(&mut tx, source, batch)?;
    let mut prepared = Prepared::default();
    let would = settled(&mut Tx::new(&mut tx, &mut prepared), |tx, deferred| {
        upsert_in(tx, batch, None, deferred).map_err(anyhow::Error::from)
    })?;
    let after = rows_of(&mut tx, source, batch)?;
    tx.rollback()?;
    let mut changes = Vec::new();
    for (key, row) in &after {
        let differs =
            |column: &&String| before.get(key).map(|b| &b[*column]) != Some(&row[*column]);
        let columns: Map<String, Value> = match before.get(key) {
            Some(old) => {
                let changed = batch.columns.iter().filter(differs);
                let pair = |c: &String| json!({"from": shown(&old[c]), "to": shown(&row[c])});
                changed.map(|c| (c.clone(), pair(c))).collect()
            }
            None => batch
                .columns
                .iter()
                .map(|c| (c.clone(), json!({"to": shown(&row[c])})))
                .collect(),
        };
        if !columns.is_empty() {
            let what = if before.contains_key(key) {
                "update"
            } else {
                "insert"
            };
            changes.push(json!({"change": what, "key": key, "columns": columns}));
        }
        if changes.len() == SHOWN {
            break;
        }
    }
    Ok((would, changes))
}

/// The rows of the table that the batch is about, by the texts of their natural key.
fn rows_of(
    tx: &mut Transaction<'_>,
    source: &Source,
    batch: &Batch,
) -> Result<BTreeMap<String, Value>> {
    let unique = &source.store.unique;
    let positions = unique
        .iter()
        .map(|u| batch.columns.iter().position(|c| c == u));
    let positions: Vec<usize> = positions.flatten().collect();
    let text = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.to_string(), str::to_owned)
    };
    let keys: Vec<Vec<String>> = batch
        .rows
        .iter()
        .map(|row| Ok(row?).map(|row| positions.iter().map(|i| text(&row[*i])).collect()))
        .collect::<io::Result<_>>()?;
    let same = unique
        .iter()
        .enumerate()
        .map(|(i, column)| format!("oa_row.{}::text = oa_key.key ->> {i}", quote_ident(column)));
    let sql = format!(
        "SELECT oa_key.key::text, to_jsonb(oa_row.*)::text FROM {}.{} oa_row JOIN jsonb_array_elements($1) oa_key (key) ON {}",
        quote_ident(&batch.schema),
        quote_ident(&batch.table),
        same.collect::<Vec<_>>().join(" AND ")
    );
    let rows = tx.query(&sql, &[&json!(keys)])?;
    let row = |text: String| {
        exact::parse(&text).with_context(|| format!("a row that is not JSON: {text}"))
    };
    rows.iter()
        .map(|r| Ok((r.get(0), row(r.get(1))?)))
        .collect()
}

/// A number with more digits than JSON's own hold is shown as text.
fn shown(value: &Value) -> Value {
    exact::number(value).map_or_else(|| value.clone(), Value::from)
}
