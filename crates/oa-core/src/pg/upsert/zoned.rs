//! Local times that come for columns of points in time: they are those of the batch's zone, whatever the server's own is.

use chrono::{NaiveDate, NaiveDateTime};
use serde_json::Value;

use crate::model::run::Batch;

/// Whether a column of this type holds points in time.
pub(super) fn holds_points_in_time(of_type: &str) -> bool {
    of_type.starts_with("timestamp") && of_type.ends_with("with time zone")
}

/// The columns that hold points in time, and the zone of the local times that come for them.
pub(in crate::pg) struct Zoned<'a> {
    columns: Vec<usize>,
    zone: &'a str,
}

impl<'a> Zoned<'a> {
    pub(in crate::pg) fn of(batch: &'a Batch, types: &[String]) -> Self {
        let columns = types.iter().enumerate();
        let columns = columns.filter(|(_, of_type)| holds_points_in_time(of_type));
        Self {
            columns: columns.map(|(i, _)| i).collect(),
            zone: &batch.timezone,
        }
    }

    /// A local time without a zone gets one.
    pub(in crate::pg) fn put(&self, row: &mut [Value]) {
        for i in &self.columns {
            if let Some(Value::String(text)) = row.get_mut(*i)
                && is_local_time(text)
            {
                text.push(' ');
                text.push_str(self.zone);
            }
        }
    }

    /// Whether it has a local time without a zone.
    pub(in crate::pg) fn changes(&self, row: &[Value]) -> bool {
        let mut values = self.columns.iter().filter_map(|i| row.get(*i)?.as_str());
        values.any(is_local_time)
    }
}

fn is_local_time(text: &str) -> bool {
    ["%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M:%S%.f"]
        .iter()
        .any(|format| NaiveDateTime::parse_from_str(text, format).is_ok())
        || NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok()
}
