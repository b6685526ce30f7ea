//! The exchanges' daily quotes and warehouse receipts: every record that was published is stored with its values, totals are not.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::{DAY, Service};
use oa_sim::sites::exchanges::{Quote, quotes, receipts};
use serde_json::{Value, json};

const EXCHANGES: [&str; 6] = ["shfe", "ine", "dce", "czce", "cffex", "gfex"];

/// As the exchange writes it, in upper case.
fn code(exchange: &str, quote: &Quote) -> String {
    let month = if exchange == "czce" {
        &quote.month[1..]
    } else {
        &quote.month
    };
    let between = if matches!(exchange, "shfe" | "czce") {
        ""
    } else {
        "-"
    };
    let option = quote.option;
    let option = option.map_or_else(String::new, |(kind, strike)| {
        format!("{between}{kind}{between}{strike}")
    });
    format!("{}{month}{option}", quote.variety)
}

fn has(exchange: &str, kind: &str) -> bool {
    match kind {
        "options" => exchange != "ine",
        "receipts" => !matches!(exchange, "ine" | "cffex"),
        _ => true,
    }
}

#[test]
fn quotes_and_receipts_of_all_exchanges_are_stored_as_published() {
    let service = Service::start();
    let day = DAY.parse().unwrap();
    let tasks: Vec<String> = EXCHANGES
        .iter()
        .flat_map(|e| {
            ["futures", "options", "receipts"]
                .iter()
                .filter(|k| has(e, k))
                .map(move |k| format!("{e}-{k}"))
        })
        .collect();
    assert_eq!(tasks.len(), 15);
    let run = || {
        let mut arguments = vec!["run"];
        arguments.extend(tasks.iter().map(String::as_str));
        arguments.extend(["--date", DAY, "--format", "json"]);
        service.crawl(&arguments)
    };
    let done = run();
    assert_eq!(done.code, 0, "{done:?}");
    for row in done.rows() {
        assert_eq!(
            (&row["status"], &row["rejected"]),
            (&json!("success"), &json!(0)),
            "{row}"
        );
    }
    let mut db = service.db();
    let mut stored = |table: &str, exchange: &str, key: &str, value: &str| -> Value {
        let sql = format!("SELECT to_jsonb(t) FROM {table} t WHERE exchange = $1 AND {key} = $2");
        let exchange = exchange.to_uppercase();
        let row = db.query_opt(&sql, &[&exchange, &value]).unwrap();
        row.unwrap_or_else(|| panic!("{table} lacks {value} of {exchange}"))
            .get(0)
    };
    let mut counts = [0; 3];
    for exchange in EXCHANGES {
        for options in [false, true]
            .into_iter()
            .filter(|o| !o || has(exchange, "options"))
        {
            let table = if options {
                "option_quotes"
            } else {
                "futures_quotes"
            };
            for quote in quotes(1, exchange, options, day) {
                counts[usize::from(options)] += 1;
                let row = stored(table, exchange, "contract_code", &code(exchange, &quote));
                let price =
                    |place: usize| quote.traded.map_or(Value::Null, |p| json!(p[place] as f64));
                let number = |column: &str| row[column].as_f64().map_or(Value::Null, |n| json!(n));
                assert_eq!(row["comm_code"], quote.variety, "{row}");
                assert_eq!(row["trade_date"], DAY);
                for (column, due) in [
                    ("open_price", price(0)),
                    ("high_price", price(1)),
                    ("low_price", price(2)),
                    ("close_price", json!(quote.close[0] as f64)),
                    ("settle_price", json!(quote.close[1] as f64)),
                    ("pre_settle_price", json!(quote.close[2] as f64)),
                    ("open_interest", json!(quote.open_interest as f64)),
                ] {
                    assert_eq!(number(column), due, "{column} of {row}: {quote:?}");
                }
                let none = exchange == "shfe" || exchange == "ine";
                let due = if quote.volume == 0 && none {
                    Value::Null
                } else {
                    json!(quote.volume as f64)
                };
                assert_eq!(number("volume"), due, "{row}");
                if let Some((kind, strike)) = quote.option {
                    assert_eq!(
                        (&row["option_type"], number("strike_price")),
                        (&json!(kind.to_string()), json!(strike as f64)),
                        "{row}"
                    );
                    assert!(row["delta"].is_number(), "{row}");
                }
            }
        }
        for (variety, quantity, change) in receipts(1, exchange, day)
            .into_iter()
            .filter(|_| has(exchange, "receipts"))
        {
            counts[2] += 1;
            let row = stored("exchange_receipts", exchange, "comm_code", variety);
            assert_eq!(
                (
                    row["receipt_quantity"].as_u64(),
                    row["receipt_change"].as_i64()
                ),
                (Some(quantity), Some(change)),
                "{row}"
            );
        }
    }
    for (table, count) in ["futures_quotes", "option_quotes", "exchange_receipts"]
        .iter()
        .zip(counts)
    {
        assert_eq!(service.count(table), count, "{table} has totals in it");
    }
    let again = run();
    for row in again.rows() {
        assert_eq!(
            (&row["inserted"], &row["updated"]),
            (&json!(0), &json!(0)),
            "{row}"
        );
    }
    // 合约信息 has the price of the contract with the largest open interest.
    let mut largest = std::collections::BTreeMap::new();
    for quote in EXCHANGES.iter().flat_map(|e| quotes(1, e, false, day)) {
        let (size, price) = (quote.open_interest as f64, quote.close[0] as f64);
        let best = largest
            .entry(quote.variety.to_owned())
            .or_insert((size, price));
        if size > best.0 {
            *best = (size, price);
        }
    }
    let infos = |db: &mut postgres::Client| -> Vec<(String, f64)> {
        let sql = "SELECT comm_code, latest_price FROM contract_infos WHERE price_update_time = $1::text::timestamp ORDER BY comm_code COLLATE \"C\"";
        let rows = db.query(sql, &[&format!("{DAY} 15:00:00")]).unwrap();
        rows.iter().map(|r| (r.get(0), r.get(1))).collect()
    };
    let due: Vec<(String, f64)> = largest
        .iter()
        .map(|(v, (_, p))| (v.to_string(), *p))
        .collect();
    let mut db = service.db();
    assert_eq!(infos(&mut db), due);
    // A later day stays, and a table that is not fit for it is a finding.
    db.batch_execute("UPDATE contract_infos SET latest_price = 1, price_update_time = '2030-01-01' WHERE comm_code = 'CU'")
        .unwrap();
    assert_eq!(
        service.crawl(&["run", "shfe-futures", "--date", DAY]).code,
        0
    );
    assert_eq!(infos(&mut db).len(), due.len() - 1);
    db.batch_execute("ALTER TABLE contract_infos RENAME COLUMN latest_price TO price")
        .unwrap();
    assert_eq!(
        service.crawl(&["run", "shfe-futures", "--date", DAY]).code,
        0
    );
    let sql = "SELECT findings::text FROM oa.quality ORDER BY run_id DESC LIMIT 1";
    let findings: String = db.query_one(sql, &[]).unwrap().get(0);
    assert!(
        findings.contains("contract_infos was not filled"),
        "{findings}"
    );
}

#[test]
fn a_file_of_another_day_is_not_stored_under_this_one() {
    let service = Service::start();
    service.sim.fault("/shfe/: stale").unwrap();
    service.sim.fault("/czce/: stale").unwrap();
    service.configure_crawl("retries = 0\n");
    let tasks = [
        ("shfe-futures", "20251130"),
        ("shfe-options", "20251130"),
        ("czce-futures", "2025-11-30"),
        ("czce-options", "2025-11-30"),
        ("czce-receipts", "2025-11-30"),
    ];
    for (task, said) in tasks {
        let row = service
            .crawl(&["run", task, "--date", DAY, "--format", "json"])
            .row();
        assert!(
            row["error"]
                .as_str()
                .unwrap()
                .contains(&format!("the answer is of another day ({said})")),
            "{row}"
        );
    }
    assert_eq!(service.count("futures_quotes"), 0);
    assert_eq!(service.count("exchange_receipts"), 0);
    // No trading day has no file.
    let row = service
        .crawl(&[
            "run",
            "gfex-futures",
            "--date",
            "2025-11-29",
            "--format",
            "json",
        ])
        .row();
    assert_eq!(
        (&row["status"], &row["attempts"]),
        (&json!("failed"), &json!(1)),
        "{row}"
    );
}
