//! Declarations and values for generated tables.

use proptest::prelude::*;
use rusqlite::types::Value;

/// Types as they are declared, known and unknown ones.
pub const DECLARED: [&str; 18] = [
    "INTEGER",
    "BIGINT",
    "SMALLINT",
    "TEXT",
    "VARCHAR(5)",
    "FLOAT",
    "REAL",
    "NUMERIC",
    "DECIMAL(8,3)",
    "BLOB",
    "BOOLEAN",
    "DATE",
    "DATETIME",
    "TIME",
    "JSON",
    "",
    "STRING",
    "WHATEVER",
];

/// Values that are easily lost or changed.
pub fn value() -> impl Strategy<Value = Value> {
    let hostile = prop::sample::select(vec![
        "",
        " ",
        "0000-00-00",
        "2025-13-45",
        "2025-11-26",
        "2025-11-26 19:30:00.123456",
        "2025-11-26T19:30:00Z",
        "9999-12-31 23:59:59",
        "23:59:59",
        "true",
        "f",
        "1",
        "-0",
        "1e5",
        "0.10",
        "12345678901234567890.123456789",
        "NaN",
        "Infinity",
        "null",
        "{\"b\":1,\"a\":[1.50,\"x\"]}",
        "{\"a\":1,\"a\":2}",
        "\"\\u0000\"",
        "多空",
        "a\tb\\N\n",
        "\u{1f4c8}",
        "'; DROP TABLE t; --",
        "\u{feff}x",
    ]);
    prop_oneof![
        2 => Just(Value::Null),
        3 => any::<i64>().prop_map(Value::Integer),
        3 => (-5i64..300).prop_map(Value::Integer),
        2 => prop::sample::select(vec![i64::MAX, i64::MIN, 1 << 53, (1 << 53) + 1, 2_147_483_648, -32_769]).prop_map(Value::Integer),
        3 => any::<u64>().prop_map(f64::from_bits).prop_filter("NaN is NULL in SQLite", |x| !x.is_nan()).prop_map(Value::Real),
        2 => prop::sample::select(vec![0.1, -0.0, 5e-324, 1.7976931348623157e308, f64::INFINITY, 9.223_372_036_854_776e18, 1e15 + 0.3]).prop_map(Value::Real),
        6 => hostile.prop_map(|t| Value::Text(t.to_owned())),
        2 => "\\PC{0,12}".prop_map(Value::Text),
        2 => prop::collection::vec(any::<u8>(), 0..12).prop_map(Value::Blob),
    ]
}
