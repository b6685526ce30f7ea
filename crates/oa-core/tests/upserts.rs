//! Rows into tables of any types, many at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use oa_core::model::run::Batch;
use oa_core::pg::upsert::{UpsertError, check, upsert};
use oa_core::service;
use oa_testkit::Postgres;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::postgresql::{batch, one};

#[test]
fn an_upsert_counts_what_it_did_and_hands_back_what_was_refused() {
    let server = Postgres::start();
    let mut client = server.connect();
    service::create_missing(&mut client).unwrap();
    let mut run = |rows: Vec<Vec<Value>>| {
        let mut tx = client.transaction().unwrap();
        let done = upsert(&mut tx, &batch(rows), None);
        tx.commit().unwrap();
        done
    };
    let many = |n: i64, value: i64| {
        (0..n)
            .map(|i| vec![json!(format!("V{i}")), json!("2025-12-01"), json!(value)])
            .collect::<Vec<_>>()
    };
    assert_eq!(run(many(2500, 1)).unwrap().inserted, 2500);
    let again = run(many(2500, 1)).unwrap();
    assert_eq!(
        (again.inserted, again.updated, again.unchanged),
        (0, 0, 2500)
    );
    assert_eq!(run(many(3, 2)).unwrap().updated, 3);
    let mut bad = many(1200, 3);
    bad[700][0] = json!("far too long for a column of twenty characters");
    bad[1100][2] = json!(99_999_999_999_i64);
    let done = run(bad).unwrap();
    assert_eq!(
        done.refused.iter().map(|r| r.index).collect::<Vec<_>>(),
        [700, 1100]
    );
    assert!(
        done.refused[0].reason.contains("too long")
            && done.refused[1].reason.contains("out of range"),
        "{done:?}"
    );
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT created_at::text FROM market_full_view LIMIT 1"
        ),
        "2025-12-02 00:30:00",
        "naive local time"
    );
    one_after_the_other(&mut client);
    client
        .batch_execute("DROP INDEX market_full_view_key")
        .unwrap();
    for (rows, by) in [(1, Some(Uuid::nil())), (1, None), (2500, None)] {
        let mut tx = client.transaction().unwrap();
        assert!(matches!(
            upsert(&mut tx, &batch(many(rows, 1)), by),
            Err(UpsertError::NoKey { .. })
        ));
    }
}

#[test]
fn a_table_whose_rows_could_not_be_stored_again_takes_none_the_first_time() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute(
            "CREATE TABLE d (k int UNIQUE DEFERRABLE, v int);
             CREATE TABLE p (k int PRIMARY KEY, v int) PARTITION BY LIST (k); CREATE TABLE p_all PARTITION OF p DEFAULT",
        )
        .unwrap();
    let rows: Vec<Vec<Value>> = (0..2500).map(|k| vec![json!(k), json!(1)]).collect();
    for table in ["d", "p"] {
        let many = Batch {
            table: table.into(),
            columns: vec!["k".into(), "v".into()],
            key: vec!["k".into()],
            ..batch(rows.clone())
        };
        let mut tx = client.transaction().unwrap();
        let checked = check(&mut tx, &many);
        assert!(matches!(checked, Err(UpsertError::Unfit { .. })), "{table}");
        let stored = upsert(&mut tx, &many, None);
        assert!(matches!(stored, Err(UpsertError::Unfit { .. })), "{table}");
    }
}

/// Two values that are one key to PostgreSQL: what comes last stays, and each counts, whether few rows come (as JSON) or many (by COPY).
fn one_after_the_other(client: &mut Client) {
    client
        .batch_execute("CREATE TABLE r (k numeric(6, 1) PRIMARY KEY, v int)")
        .unwrap();
    // Nothing is there: the second one changes what the first one was.
    let mut tx = client.transaction().unwrap();
    let rows = (1..3000).chain([1, 2]);
    let rows = rows
        .enumerate()
        .map(|(i, k)| vec![json!(k), json!(i64::from(i == 2999))]);
    let both = Batch {
        table: "r".into(),
        columns: vec!["k".into(), "v".into()],
        key: vec!["k".into()],
        ..batch(rows.collect())
    };
    let done = upsert(&mut tx, &both, None).unwrap();
    assert_eq!((done.inserted, done.updated, done.unchanged), (2999, 1, 1));
    tx.rollback().unwrap();
    for filler in [10_i64, 2500] {
        for (values, expected) in [
            // There is 1: after 2 comes 1 again; 1 again, and then 2; both new.
            ([2, 1], (1, (0, 2, 0))),
            ([1, 2], (2, (0, 1, 1))),
            ([2, 2], (2, (0, 1, 1))),
            ([3, 2], (2, (0, 2, 0))),
        ] {
            let mut tx = client.transaction().unwrap();
            tx.execute(
                "INSERT INTO r SELECT n, 1 FROM generate_series(1, $1::bigint) n",
                &[&filler],
            )
            .unwrap();
            let mut rows: Vec<Vec<Value>> =
                (2..=filler).map(|k| vec![json!(k), json!(1)]).collect();
            rows.insert(3, vec![json!("1.04"), json!(values[0])]);
            rows.push(vec![json!("0.96"), json!(values[1])]);
            let batch = Batch {
                table: "r".into(),
                columns: vec!["k".into(), "v".into()],
                key: vec!["k".into()],
                ..batch(rows)
            };
            let done = upsert(&mut tx, &batch, None).unwrap();
            let last: i32 = tx
                .query_one("SELECT v FROM r WHERE k = 1", &[])
                .unwrap()
                .get(0);
            let (inserted, updated, unchanged) = expected.1;
            assert_eq!(
                (last, done.inserted, done.updated, done.unchanged),
                (
                    expected.0,
                    inserted,
                    updated,
                    unchanged + filler.unsigned_abs() - 1
                ),
                "{values:?} among {filler}"
            );
            tx.rollback().unwrap();
        }
    }
}

#[test]
fn a_local_time_is_the_same_point_in_time_whatever_the_servers_zone_is() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute(
            "SET timezone = 'America/New_York';
             CREATE TABLE z (k text PRIMARY KEY, at timestamptz, day timestamptz, created_at timestamptz, updated_at timestamp)",
        )
        .unwrap();
    // Few come as JSON, many by COPY.
    for n in [4_i64, 2500] {
        let at = |i: i64| match i % 2 {
            0 => "2025-12-01 10:00:00",
            _ => "2025-12-01T02:00:00+00:00",
        };
        let rows = (0..n)
            .map(|i| vec![json!(format!("{n}-{i}")), json!(at(i)), json!("2025-12-01")])
            .collect();
        let batch = Batch {
            table: "z".into(),
            columns: ["k", "at", "day"].map(str::to_owned).to_vec(),
            key: vec!["k".into()],
            ..batch(rows)
        };
        let mut tx = client.transaction().unwrap();
        assert_eq!(
            upsert(&mut tx, &batch, None).unwrap().inserted,
            n.unsigned_abs()
        );
        assert_eq!(
            upsert(&mut tx, &batch, None).unwrap().unchanged,
            n.unsigned_abs()
        );
        tx.commit().unwrap();
    }
    assert_eq!(
        one::<String>(
            &mut client,
            "SELECT string_agg(DISTINCT concat_ws(', ', at AT TIME ZONE 'UTC', day AT TIME ZONE 'UTC', created_at AT TIME ZONE 'UTC', updated_at), '; ') FROM z"
        ),
        "2025-12-01 02:00:00, 2025-11-30 16:00:00, 2025-12-01 16:30:00, 2025-12-02 00:30:00"
    );
}

#[test]
fn what_takes_too_long_at_once_comes_in_smaller_parts() {
    let server = Postgres::start();
    let mut client = server.connect();
    // As when statement_timeout is over.
    client
        .batch_execute(
            "CREATE TABLE w (k bigint PRIMARY KEY);
             CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF to_regclass('pg_temp.oa_batch') IS NOT NULL THEN RAISE query_canceled; END IF;
               RETURN NULL;
             END $$;
             CREATE TRIGGER slow BEFORE INSERT ON w FOR EACH STATEMENT EXECUTE FUNCTION slow()",
        )
        .unwrap();
    let batch = Batch {
        table: "w".into(),
        columns: vec!["k".into()],
        key: vec!["k".into()],
        ..batch((0..2500).map(|k| vec![json!(k)]).collect())
    };
    let mut tx = client.transaction().unwrap();
    assert_eq!(upsert(&mut tx, &batch, None).unwrap().inserted, 2500);
    tx.commit().unwrap();
}

#[test]
fn floats_survive_the_way_through_json_to_the_last_bit() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute("CREATE TABLE f (k int PRIMARY KEY, v double precision)")
        .unwrap();
    let values = [
        0.1,
        1.0 / 3.0,
        f64::MIN_POSITIVE,
        5e-324,
        f64::MAX,
        -0.0,
        9_007_199_254_740_993.0,
        74.47,
    ];
    let rows = (0..)
        .zip(values)
        .map(|(k, v): (i64, f64)| vec![json!(k), json!(v)])
        .collect();
    let batch = Batch {
        table: "f".into(),
        columns: vec!["k".into(), "v".into()],
        key: vec!["k".into()],
        ..batch(rows)
    };
    let mut tx = client.transaction().unwrap();
    upsert(&mut tx, &batch, None).unwrap();
    tx.commit().unwrap();
    let stored: Vec<u64> = client
        .query("SELECT v FROM f ORDER BY k", &[])
        .unwrap()
        .iter()
        .map(|r| r.get::<_, f64>(0).to_bits())
        .collect();
    assert_eq!(stored, values.map(f64::to_bits));
}
