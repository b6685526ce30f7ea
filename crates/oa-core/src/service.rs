//! The data service's own tables: in schema `public`, with the names and columns that the existing application knows.
//!
//! The application keeps writing to them: it inserts without an id, so every integer key is an identity, and its times are
//! naive local times in Asia/Shanghai, so they are `timestamp without time zone`. What the application's schema lacks and the
//! crawlers need (a rating, the indicators of two more sources) is added as nullable columns. Each table that a crawler fills
//! has a unique index on its natural key; legacy duplicates may forbid one, see `oa-migrate dedupe`.

use postgres::GenericClient;

use crate::pg::quote_ident;

/// The tables' definitions; every statement may be run again.
const TABLES: &str = include_str!("service/tables.sql");

/// The zone of the naive times in these tables, whatever zone the configuration shows times in: the existing application writes
/// them so.
pub const TIMEZONE: chrono_tz::Tz = chrono_tz::Asia::Shanghai;

/// The natural key of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NaturalKey {
    /// The table, in `public`.
    pub table: &'static str,
    /// Name of the unique index.
    pub index: &'static str,
    /// SQL expressions over the table's columns.
    pub key: &'static [&'static str],
}

/// The natural key of every table that a crawler fills.
pub const NATURAL_KEYS: &[NaturalKey] = &[
    NaturalKey {
        table: "commodities",
        index: "commodities_code_key",
        key: &["code"],
    },
    NaturalKey {
        table: "market_full_view",
        index: "market_full_view_key",
        key: &["comm_code", "record_date"],
    },
    NaturalKey {
        table: "research_reports",
        index: "research_reports_key",
        key: &["report_id"],
    },
    NaturalKey {
        table: "fundamental_reports",
        index: "fundamental_reports_key",
        key: &["source", "report_type", "comm_code", "(publish_time::date)"],
    },
    NaturalKey {
        table: "daily_blueprints",
        index: "daily_blueprints_key",
        key: &["record_date"],
    },
    NaturalKey {
        table: "institutional_positions",
        index: "institutional_positions_key",
        key: &["comm_code", "broker_name", "record_date"],
    },
    NaturalKey {
        table: "option_flows",
        index: "option_flows_key",
        key: &["contract_code", "date_trunc('minute', record_time)"],
    },
    NaturalKey {
        table: "technical_indicators",
        index: "technical_indicators_key",
        key: &["comm_code", "(record_time::date)"],
    },
    NaturalKey {
        table: "futures_quotes",
        index: "futures_quotes_key",
        key: &["exchange", "contract_code", "trade_date"],
    },
    NaturalKey {
        table: "option_quotes",
        index: "option_quotes_key",
        key: &["exchange", "contract_code", "trade_date"],
    },
    NaturalKey {
        table: "exchange_receipts",
        index: "exchange_receipts_key",
        key: &["exchange", "comm_code", "record_date"],
    },
];

/// The natural key of a table, if it has one.
#[must_use]
pub fn natural_key(table: &str) -> Option<&'static NaturalKey> {
    NATURAL_KEYS.iter().find(|k| k.table == table)
}

/// Creates what is absent: tables, the added columns, and the natural keys' indexes where the data allow. Returns the tables
/// whose duplicates forbade one.
///
/// # Errors
/// When PostgreSQL refuses for another reason, for example a missing right.
pub fn create_missing(client: &mut postgres::Client) -> Result<Vec<&'static str>, postgres::Error> {
    client.batch_execute(TABLES)?;
    let mut refused = Vec::new();
    for key in NATURAL_KEYS {
        if !create_key(client, key)? {
            refused.push(key.table);
        }
    }
    Ok(refused)
}

/// Creates the unique index of a natural key; `false` when duplicates forbid it.
///
/// # Errors
/// When PostgreSQL refuses for another reason.
pub fn create_key(
    client: &mut impl GenericClient,
    key: &NaturalKey,
) -> Result<bool, postgres::Error> {
    let sql = format!(
        "CREATE UNIQUE INDEX IF NOT EXISTS {} ON public.{} ({})",
        key.index,
        quote_ident(key.table),
        key.key.join(", ")
    );
    let mut tx = client.transaction()?;
    match tx.batch_execute(&sql) {
        Ok(()) => tx.commit().map(|()| true),
        Err(e) if e.code() == Some(&postgres::error::SqlState::UNIQUE_VIOLATION) => Ok(false),
        Err(e) => Err(e),
    }
}
