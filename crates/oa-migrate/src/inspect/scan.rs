//! The value scan: SQLite's types are suggestions, so one streaming pass over every row finds what a column really holds.

use rusqlite::Connection;
use rusqlite::types::ValueRef;

use super::schema::Table;
use crate::progress;
use crate::values::decimal::Decimal;
use crate::values::{decimal_text, json, time};

/// What a column holds. All counts are of rows.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct ColumnStats {
    pub(crate) nulls: u64,
    pub(crate) integers: u64,
    pub(crate) min: i64,
    pub(crate) max: i64,
    /// Integers beyond 2^53, which a double cannot hold exactly.
    pub(crate) beyond_double: u64,
    /// Integers other than 0 and 1.
    pub(crate) not_bool_integers: u64,
    pub(crate) reals: u64,
    /// Infinite ones of them.
    pub(crate) infinite: u64,
    pub(crate) texts: u64,
    /// Texts that are not valid UTF-8, or hold U+0000, which PostgreSQL's text cannot.
    pub(crate) unstorable_texts: u64,
    /// Most characters of a text, where the declaration has a limit; else most bytes.
    pub(crate) longest: u64,
    /// Texts `YYYY-MM-DD`.
    pub(crate) dates: u64,
    /// Texts that are a date and a time without an offset; bare dates included.
    pub(crate) timestamps: u64,
    /// Texts that are a date and a time with an offset.
    pub(crate) zoned: u64,
    /// Texts `HH:MM[:SS[.f]]`.
    pub(crate) times: u64,
    /// Texts true/false/t/f/yes/no/on/off/0/1.
    pub(crate) bools: u64,
    /// Texts that are JSON.
    pub(crate) jsons: u64,
    /// JSON of which `jsonb` would lose the order of keys or a doubled key.
    pub(crate) jsons_reordered: u64,
    /// JSON that `jsonb` refuses.
    pub(crate) jsons_unfit: u64,
    /// Texts that are decimal numbers.
    pub(crate) decimals: u64,
    /// Most digits before the point, of texts, reals and integers.
    pub(crate) whole_digits: u64,
    /// Most digits after the point.
    pub(crate) scale: u64,
    pub(crate) blobs: u64,
    /// Bytes of all values, as SQLite counts them.
    pub(crate) bytes: u64,
}

impl ColumnStats {
    /// Values that are not NULL.
    pub(crate) fn values(&self) -> u64 {
        self.integers + self.reals + self.texts + self.blobs
    }
}

/// What a table holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct TableStats {
    pub(crate) rows: u64,
    pub(crate) columns: Vec<ColumnStats>,
}

/// Which questions about texts matter for a column; answering all of them for every text would take most of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Questions {
    /// Count characters, not bytes.
    pub(crate) characters: bool,
    pub(crate) times: bool,
    pub(crate) bools: bool,
    pub(crate) json: bool,
    pub(crate) decimals: bool,
}

/// Reads every value of a table once.
pub(crate) fn scan(
    connection: &Connection,
    table: &Table,
    questions: &[Questions],
) -> rusqlite::Result<TableStats> {
    let mut stats = TableStats {
        rows: 0,
        columns: vec![ColumnStats::default(); table.columns.len()],
    };
    let mut statement = connection.prepare(&table.select())?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        stats.rows += 1;
        progress::rows(stats.rows);
        for (i, (column, ask)) in stats.columns.iter_mut().zip(questions).enumerate() {
            see(column, row.get_ref(i)?, *ask);
        }
    }
    Ok(stats)
}

fn see(stats: &mut ColumnStats, value: ValueRef<'_>, ask: Questions) {
    match value {
        ValueRef::Null => stats.nulls += 1,
        ValueRef::Integer(n) => {
            if stats.integers == 0 {
                (stats.min, stats.max) = (n, n);
            }
            stats.integers += 1;
            stats.min = stats.min.min(n);
            stats.max = stats.max.max(n);
            stats.beyond_double += u64::from(n.unsigned_abs() > 1 << 53);
            stats.not_bool_integers += u64::from(!(0..=1).contains(&n));
            stats.bytes += 8;
            if ask.decimals {
                let digits = n.unsigned_abs().checked_ilog10().map_or(0, |d| d + 1);
                stats.whole_digits = stats.whole_digits.max(u64::from(digits));
            }
        }
        ValueRef::Real(x) => {
            stats.reals += 1;
            stats.bytes += 8;
            if x.is_infinite() {
                stats.infinite += 1;
            } else if ask.decimals
                && let Some(decimal) = Decimal::parse(decimal_text(x).as_bytes())
            {
                see_decimal(stats, &decimal);
            }
        }
        ValueRef::Text(text) => {
            stats.texts += 1;
            stats.bytes += text.len() as u64;
            see_text(stats, text, ask);
        }
        ValueRef::Blob(blob) => {
            stats.blobs += 1;
            stats.bytes += blob.len() as u64;
        }
    }
}

fn see_decimal(stats: &mut ColumnStats, decimal: &Decimal) {
    stats.whole_digits = stats.whole_digits.max(decimal.whole_digits() as u64);
    stats.scale = stats.scale.max(decimal.scale() as u64);
}

fn see_text(stats: &mut ColumnStats, text: &[u8], ask: Questions) {
    let valid = std::str::from_utf8(text).ok();
    let Some(valid) = valid.filter(|_| !text.contains(&0)) else {
        stats.unstorable_texts += 1;
        return;
    };
    let length = if ask.characters && text.len() as u64 > stats.longest {
        valid.chars().count()
    } else {
        text.len()
    };
    if !ask.characters || text.len() as u64 > stats.longest {
        stats.longest = stats.longest.max(length as u64);
    }
    if ask.times {
        if let Some(stamp) = time::parse_timestamp(text) {
            stats.dates += u64::from(stamp.date_only);
            if stamp.offset_seconds.is_some() {
                stats.zoned += 1;
            } else {
                stats.timestamps += 1;
            }
        } else if time::parse_time(text).is_some() {
            stats.times += 1;
        }
    }
    if ask.bools {
        stats.bools += u64::from(parse_bool(text).is_some());
    }
    if ask.decimals
        && let Some(decimal) = Decimal::parse(text)
    {
        stats.decimals += 1;
        see_decimal(stats, &decimal);
    }
    if ask.json
        && let Some(json) = json::parse(text)
    {
        stats.jsons += 1;
        stats.jsons_reordered += u64::from(!json.order_kept);
        stats.jsons_unfit += u64::from(!json.fits_jsonb);
    }
}

/// The boolean that a text means.
pub(crate) fn parse_bool(text: &[u8]) -> Option<bool> {
    let lower = text.to_ascii_lowercase();
    match lower.as_slice() {
        b"true" | b"t" | b"yes" | b"on" | b"1" => Some(true),
        b"false" | b"f" | b"no" | b"off" | b"0" => Some(false),
        _ => None,
    }
}
