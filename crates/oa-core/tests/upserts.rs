//! Rows into tables of any types, many at once.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use oa_core::model::run::Batch;
use oa_core::pg::upsert::{UpsertError, Upserted, check, upsert, upsert_in};
use oa_core::pg::{Meaning, Prepared, Tx, settled};
use oa_core::service;
use oa_testkit::Postgres;
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::{batch, one};

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

/// Stored and committed, as a run does it.
fn stored(client: &mut Client, batch: &Batch) -> Result<Upserted, UpsertError> {
    let mut tx = client.transaction().unwrap();
    let mut prepared = Prepared::default();
    let done = settled(&mut Tx::new(&mut tx, &mut prepared), |tx, deferred| {
        upsert_in(tx, batch, None, deferred).map_err(Error::Upsert)
    });
    let done = done.map_err(|e| match e {
        Error::Upsert(e) => e,
        Error::Database(e) => panic!("{e:?}"),
    })?;
    tx.commit().unwrap();
    Ok(done)
}

enum Error {
    Upsert(UpsertError),
    Database(postgres::Error),
}

impl From<postgres::Error> for Error {
    fn from(error: postgres::Error) -> Self {
        Self::Database(error)
    }
}

fn pairs(table: &str, rows: Vec<Vec<Value>>) -> Batch {
    Batch {
        table: table.into(),
        columns: vec!["k".into(), "v".into()],
        key: vec!["k".into()],
        ..batch(rows)
    }
}

#[test]
fn a_row_that_is_refused_costs_that_row_whoever_refuses_it_and_when() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute(
            "CREATE TABLE d (k int PRIMARY KEY, v int CONSTRAINT parent REFERENCES d DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE x (k int PRIMARY KEY, v int, CONSTRAINT alone EXCLUDE USING btree (v WITH =) DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE c (k int PRIMARY KEY, v int); CREATE TABLE t (k int PRIMARY KEY, v int); CREATE TABLE p (k int PRIMARY KEY, v int);
             CREATE FUNCTION said() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
               IF NEW.v = -1 THEN RAISE 'not that one' USING ERRCODE = TG_ARGV[0]; END IF; RETURN NEW;
             END $$;
             CREATE CONSTRAINT TRIGGER said AFTER INSERT ON c DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION said('P0001');
             CREATE TRIGGER said BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION said('ZZ123');
             ALTER TABLE p ENABLE ROW LEVEL SECURITY; ALTER TABLE p FORCE ROW LEVEL SECURITY;
             CREATE POLICY p ON p USING (true) WITH CHECK (v <> -1)",
        )
        .unwrap();
    // Few come as JSON, many by COPY.
    for (few, filler) in [(true, 10_i64), (false, 2500)] {
        let from = if few { 100_000 } else { 200_000 };
        let mut rows: Vec<Vec<Value>> = (0..filler)
            .map(|k| vec![json!(from + k), Value::Null])
            .collect();
        // Rows that need each other, round about.
        let ring = (0..20).map(|k| {
            vec![
                json!(from + 60_000 + k),
                json!(from + 60_000 + (k + 1) % 20),
            ]
        });
        let done = stored(&mut client, &pairs("d", ring.collect())).unwrap();
        assert_eq!((done.inserted, done.refused.len()), (20, 0));
        // In the wrong order; and one that needs what is not there.
        let chain = (from + 50_000..from + 50_020).map(|k| vec![json!(k), json!(k + 1)]);
        rows.splice(5..5, chain);
        rows.insert(3, vec![json!(from - 1), json!(-1)]);
        rows.push(vec![json!(from + 50_020), Value::Null]);
        let done = stored(&mut client, &pairs("d", rows.clone())).unwrap();
        let refused: Vec<usize> = done.refused.iter().map(|r| r.index).collect();
        assert_eq!(refused, [3], "{few}: {:?}", done.refused.first());
        assert!(
            done.refused[0].reason.contains("\"parent\" (23503)"),
            "{:?}",
            done.refused[0]
        );
        assert_eq!(done.inserted, rows.len() as u64 - 1);
        for (table, says) in [
            ("x", "alone"),
            ("c", "not that one"),
            ("t", "not that one"),
            ("p", "row-level security"),
        ] {
            let mut rows: Vec<Vec<Value>> = (0..filler)
                .map(|k| vec![json!(from + k), json!(from + k)])
                .collect();
            rows[7][1] = if table == "x" {
                json!(from + 2)
            } else {
                json!(-1)
            };
            let done = stored(&mut client, &pairs(table, rows)).unwrap();
            assert_eq!(done.refused.len(), 1, "{table} {few}: {:?}", done.refused);
            let reason = &done.refused[0].reason;
            assert!(reason.contains(says), "{table} {few}: {reason}");
            assert_eq!(done.inserted, filler.unsigned_abs() - 1, "{table} {few}");
        }
    }
    // What refuses each row, or lacks a privilege, is not about one of them.
    let all = |n: i64| (0..n).map(|k| vec![json!(k), json!(-1)]).collect();
    assert_eq!(
        stored(&mut client, &pairs("t", all(3)))
            .unwrap()
            .refused
            .len(),
        3
    );
    let refused = stored(&mut client, &pairs("t", all(2500))).unwrap_err();
    assert!(
        matches!(refused, UpsertError::AllRefused { count: 1000, .. }),
        "{refused}"
    );
    client.batch_execute("REVOKE UPDATE ON p FROM oa").unwrap();
    let denied = stored(&mut client, &pairs("p", all(3))).unwrap_err();
    assert_eq!(denied.meaning(), Meaning::Misconfigured, "{denied}");
}

#[test]
fn thousands_of_rows_that_are_refused_cost_themselves_alone() {
    let server = Postgres::start_with(&[
        ("max_locks_per_transaction", "10"),
        ("max_connections", "10"),
    ]);
    let mut client = server.connect();
    client
        .batch_execute("CREATE TABLE o (k int PRIMARY KEY, v int CHECK (v % 3 <> 0))")
        .unwrap();
    // Halving makes more savepoints of them than the server's table of locks has room for.
    let count = 3000_i64;
    let rows = (0..count).map(|k| vec![json!(k), json!(k)]).collect();
    let done = stored(&mut client, &pairs("o", rows)).unwrap();
    assert_eq!(done.refused.len() as i64, count / 3);
    assert_eq!(done.inserted as i64, count - count / 3);
}

#[test]
fn rows_that_need_each_other_are_stored_beside_one_that_is_refused() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute(
            "CREATE TABLE other (k int PRIMARY KEY); INSERT INTO other VALUES (1);
             CREATE TABLE d (k int PRIMARY KEY, v int CONSTRAINT parent REFERENCES d DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE e (k int PRIMARY KEY, v int REFERENCES e DEFERRABLE INITIALLY DEFERRED, o int REFERENCES other DEFERRABLE INITIALLY DEFERRED);
             CREATE TABLE u (k int PRIMARY KEY, v int UNIQUE DEFERRABLE INITIALLY DEFERRED);
             INSERT INTO u SELECT k, k FROM generate_series(1, 8) k",
        )
        .unwrap();
    let refused =
        |done: &Upserted| -> Vec<usize> { done.refused.iter().map(|r| r.index).collect() };
    // Circles of two, of five and of all, and what needs them; each beside rows that need what is not there, and what needs those. Few come as
    // JSON, many by COPY.
    for (few, filler) in [(true, 6_i64), (false, 2500)] {
        let from = if few { 0 } else { 100_000 };
        let row = |k: i64, v: i64| vec![json!(from + k), json!(from + v)];
        let ring = |first: i64, count: i64| {
            (0..count).map(move |i| row(first + i, first + (i + 1) % count))
        };
        let mut rows = vec![row(50_001, 50_002), row(50_002, 99_999)];
        rows.extend(ring(10, 2));
        rows.extend(ring(20, 5));
        rows.extend([row(30, 20), row(50_003, 50_001)]);
        rows.extend(ring(1000, 40));
        rows.extend((0..filler).map(|k| vec![json!(from + 2000 + k), Value::Null]));
        let bad = [0, 1, 10];
        let done = stored(&mut client, &pairs("d", rows.clone())).unwrap();
        assert_eq!(refused(&done), bad, "{few}");
        assert_eq!(done.inserted, rows.len() as u64 - 3);
        let there: i64 = client
            .query_one(
                "SELECT count(*) FROM d WHERE k BETWEEN $1::int AND $1 + 90000",
                &[&i32::try_from(from).unwrap()],
            )
            .unwrap()
            .get(0);
        assert_eq!(there, rows.len() as i64 - 3);
    }
    // A circle of which one lacks something else is none.
    let triple = |k: i64, v: i64, o: i64| vec![json!(k), json!(v), json!(o)];
    let batch = Batch {
        columns: vec!["k".into(), "v".into(), "o".into()],
        ..pairs(
            "e",
            vec![
                triple(1, 2, 1),
                triple(2, 1, 9),
                triple(3, 4, 1),
                triple(4, 3, 1),
            ],
        )
    };
    assert_eq!(refused(&stored(&mut client, &batch).unwrap()), [0, 1]);
    // Rows that exchange their values, beside one that wants what another keeps.
    let swap = |k: i64, v: i64| vec![json!(k), json!(v)];
    let rows = vec![swap(1, 2), swap(9, 5), swap(2, 3), swap(3, 1)];
    let done = stored(&mut client, &pairs("u", rows)).unwrap();
    assert_eq!(refused(&done), [1]);
    assert_eq!((done.inserted, done.updated), (0, 3));
}

#[test]
fn a_value_that_no_index_takes_costs_its_row() {
    let server = Postgres::start();
    let mut client = server.connect();
    client
        .batch_execute("CREATE TABLE i (k text PRIMARY KEY, v int)")
        .unwrap();
    // Digits that no compression makes small.
    let mut state = 1_u64;
    let long: String = (0..8000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'!' + u8::try_from(state >> 58).unwrap())
        })
        .collect();
    let rows = vec![vec![json!("a"), json!(1)], vec![json!(long), json!(2)]];
    let done = stored(&mut client, &pairs("i", rows)).unwrap();
    assert_eq!((done.inserted, done.refused.len()), (1, 1));
    assert!(
        done.refused[0].reason.contains("(54000)"),
        "{:?}",
        done.refused[0].reason
    );
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
