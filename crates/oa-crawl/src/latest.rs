//! What a table of the newest values gets of a day's rows: of each key the row that counts most, such as the contract with the largest
//! open interest for its variety.

use std::collections::BTreeMap;
use std::io;

use chrono::NaiveDate;
use oa_core::base::pile::Pile;
use oa_core::model::run::Batch;
use oa_core::pg::quote_ident;
use serde_json::Value;

use crate::source::{Latest, Source};

/// The exchanges' day ends by then.
const TIME: &str = "15:00:00";

/// Rows for that table like those of `main`, which are stored besides.
pub(crate) fn batch(source: &Source, date: NaiveDate, main: &Batch) -> io::Result<Option<Batch>> {
    let Some(rules) = &source.latest else {
        return Ok(None);
    };
    let rows = newest(source, rules, date, &main.rows)?;
    let columns = [&rules.key, &rules.at]
        .into_iter()
        .chain(rules.columns.keys());
    Ok((!rows.is_empty()).then(|| Batch {
        table: rules.table.clone(),
        columns: columns.cloned().collect(),
        key: vec![quote_ident(&rules.key)],
        rows: rows.into(),
        newest_by: Some(rules.at.clone()),
        ..main.clone()
    }))
}

fn newest(
    source: &Source,
    rules: &Latest,
    date: NaiveDate,
    rows: &Pile<Vec<Value>>,
) -> io::Result<Vec<Vec<Value>>> {
    let place = |column: &String| source.fields.iter().position(|f| f.column == *column);
    let (Some(key), Some(largest)) = (place(&rules.key), place(&rules.largest)) else {
        return Ok(Vec::new());
    };
    let places = |names: &crate::source::Names| names.all().iter().filter_map(place).collect();
    let values: Vec<Vec<usize>> = rules.columns.values().map(places).collect();
    let mut best: BTreeMap<String, (f64, Value, Vec<Value>)> = BTreeMap::new();
    for row in rows.iter() {
        let row = row?;
        let first = |places: &Vec<usize>| {
            let mut known = places.iter().map(|i| &row[*i]).filter(|v| !v.is_null());
            known.next().cloned().unwrap_or_default()
        };
        let taken: Vec<Value> = values.iter().map(first).collect();
        let size = match &row[largest] {
            Value::String(digits) => digits.parse().unwrap_or(-1.0),
            other => other.as_f64().unwrap_or(-1.0),
        };
        let of = &row[key];
        if of.is_null() || taken.iter().all(Value::is_null) {
            continue;
        }
        let name = of.to_string();
        if best.get(&name).is_none_or(|(before, ..)| size > *before) {
            best.insert(name, (size, of.clone(), taken));
        }
    }
    let at = format!("{date} {TIME}");
    let row = |(_, of, taken): (f64, Value, Vec<Value>)| {
        [of, Value::from(at.as_str())]
            .into_iter()
            .chain(taken)
            .collect()
    };
    Ok(best.into_values().map(row).collect())
}
