//! Killed at any point: the target is as it was or as it should be, and the next run works.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::time::Duration;

use support::Sandbox;

const SQL: &str = "CREATE TABLE p (id INTEGER PRIMARY KEY, x TEXT NOT NULL); CREATE TABLE c (id INTEGER PRIMARY KEY, p INTEGER REFERENCES p (id), y REAL);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 30000) INSERT INTO p SELECT i, hex(randomblob(20)) FROM n;
     INSERT INTO c SELECT id, id, id / 7.0 FROM p; CREATE INDEX by_x ON p (x);";

fn leftovers(sandbox: &Sandbox) -> i64 {
    sandbox.number("SELECT count(*) FROM pg_namespace WHERE starts_with(nspname, 'oa_staging_')")
}

#[test]
fn at_every_named_point_nothing_is_half_done() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    sandbox
        .client()
        .batch_execute("CREATE TABLE public.p (id int PRIMARY KEY, x text NOT NULL)")
        .unwrap();
    let before = sandbox.picture();
    let arguments = ["run", file.to_str().unwrap(), "--format", "json"];
    for point in [
        "migrate.copy",
        "migrate.loaded",
        "migrate.proven",
        "migrate.swap.begin",
        "migrate.swap.commit",
    ] {
        sandbox.killed_at(point, &arguments);
        let visible: Vec<String> = sandbox
            .picture()
            .into_iter()
            .filter(|l| !l.starts_with("oa_staging_"))
            .collect();
        assert_eq!(visible, before, "{point}");
    }
    // Killed after the last transaction: everything is there, and the run can be rolled back.
    sandbox.killed_at("migrate.swap.done", &arguments);
    assert_eq!(sandbox.number("SELECT count(*) FROM c"), 30_000);
    sandbox.run(&["verify", file.to_str().unwrap()]).expect(0);
    sandbox.killed_at("rollback.commit", &["rollback", "--yes"]);
    assert_eq!(sandbox.number("SELECT count(*) FROM public.p"), 30_000);
    sandbox.killed_at("rollback.done", &["rollback", "--yes"]);
    let again = sandbox.run(&["rollback", "--yes"]);
    assert!(
        again.stderr.contains("no finished run"),
        "it was rolled back already: {}",
        again.stderr
    );
    assert_eq!(leftovers(&sandbox), 0);
    assert_eq!(sandbox.number("SELECT count(*) FROM public.p"), 0);
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        sandbox
            .number("SELECT count(*) FROM oa.runs WHERE status = 'abandoned' AND task = 'migrate'"),
        6
    );
}

#[test]
fn killed_at_random_times_the_next_run_succeeds() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    let full = std::time::Instant::now();
    sandbox.migrate(&file, &["--rehearse"]).expect(0);
    let full = full.elapsed();
    let arguments = ["run", file.to_str().unwrap(), "--format", "json"];
    // More of them by hand: OA_MIGRATE_KILLS=300 scripts/test random_times
    let kills: u32 = std::env::var("OA_MIGRATE_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(24);
    let mut finished = 0;
    for n in 0..kills {
        let mut child = sandbox.spawn(&arguments);
        // Spread over the whole length of a run; not a wait for something.
        std::thread::sleep(full * n / kills);
        child.kill().unwrap();
        child.wait().unwrap();
        let tables = sandbox.number("SELECT count(*) FROM pg_tables WHERE schemaname = 'public' AND tablename IN ('p', 'c')");
        assert!(
            tables == 0 || tables == 2,
            "kill {n}: {tables} of two tables"
        );
        if tables == 2 {
            finished += 1;
            assert_eq!(sandbox.number("SELECT count(*) FROM c"), 30_000);
            sandbox.run(&["rollback", "--yes"]).expect(0);
        }
    }
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(leftovers(&sandbox), 0);
    println!("{finished} of {kills} runs had finished before they were killed");
}

#[test]
fn a_server_that_dies_in_the_middle_leaves_the_target_as_it_was() {
    let mut sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    let child = sandbox.spawn(&["run", file.to_str().unwrap(), "--format", "json"]);
    oa_testkit::wait_until("a staging schema", Duration::from_secs(20), || {
        leftovers(&sandbox) > 0
    });
    sandbox.pg.kill();
    let done = support::done(child.wait_with_output().unwrap());
    assert_ne!(done.code, 0, "{}", done.stdout);
    sandbox.pg.start_again();
    let visible: Vec<String> = sandbox
        .picture()
        .into_iter()
        .filter(|l| !l.starts_with("oa_staging_"))
        .collect();
    assert_eq!(visible, before);
    sandbox.migrate(&file, &[]).expect(0);
}
