//! What a run looks for before it loads anything, and what it says about the application.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use support::Sandbox;

#[test]
fn what_would_fail_at_the_end_is_refused_at_the_beginning() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    let refused = |name: &str, make: &str, sql: &str, named: &str| {
        sandbox.client().batch_execute(make).unwrap();
        sandbox.sqlite(name, sql);
        for more in [&["run", name, "--rehearse"][..], &["run", name]] {
            let done = sandbox.run(more).expect(77);
            assert!(done.stderr.contains(named), "{}", done.stderr);
        }
    };
    refused(
        "type.db",
        "CREATE TYPE public.mood AS ENUM ('happy')",
        "CREATE TABLE mood (a)",
        "has a type mood",
    );
    let columns: Vec<String> = (0..1601).map(|n| format!("c{n}")).collect();
    refused(
        "wide.db",
        "",
        &format!("CREATE TABLE wide ({})", columns.join(", ")),
        "1601 columns",
    );

    // A name that an index of somebody else has is given another one.
    sandbox
        .client()
        .batch_execute("CREATE TABLE public.other (id int CONSTRAINT k_pkey PRIMARY KEY)")
        .unwrap();
    let file = sandbox.sqlite(
        "k.db",
        "CREATE TABLE k (id INTEGER PRIMARY KEY); INSERT INTO k VALUES (1)",
    );
    sandbox.migrate(&file, &[]).expect(0);
    assert_eq!(
        sandbox
            .texts("SELECT conname::text FROM pg_constraint WHERE conrelid = 'public.k'::regclass"),
        ["k_pkey_2"]
    );

    // Who holds a table that is to take rows is named before the run has to wait for it.
    let mut client = sandbox.client();
    let mut other = client.transaction().unwrap();
    other.batch_execute("SELECT * FROM public.k").unwrap();
    let held = sandbox.spawn(&["run", "k.db", "--replace", "--format", "json"]);
    oa_testkit::wait_until("the run waits", std::time::Duration::from_secs(60), || {
        sandbox.number(
            "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'public.k'::regclass",
        ) > 0
    });
    other.rollback().unwrap();
    let output = held.wait_with_output().unwrap();
    let done = support::done(output).expect(0);
    assert!(
        done.report()["warnings"].to_string().contains("holds k")
            || done.report()["warnings"]
                .to_string()
                .contains("holds public.k"),
        "{}",
        done.stdout
    );
}

#[test]
fn what_is_missing_can_be_allowed_by_name() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite(
        "a.db",
        "CREATE TABLE t (a TEXT DEFAULT (hex(randomblob(8))), b TEXT CHECK (b GLOB 'x*')); CREATE TABLE u (a TEXT DEFAULT (hex(randomblob(8))));",
    );
    let allow = |items: &[&str]| {
        let mut arguments = vec!["--rehearse"];
        for item in items {
            arguments.extend(["--allow", item]);
        }
        sandbox.migrate(&file, &arguments)
    };
    let report = allow(&["t: default of column a", "nothing of the kind"])
        .expect(1)
        .report();
    assert_eq!(report["missing"].as_array().unwrap().len(), 2, "{report}");
    assert_eq!(report["allowed"].as_array().unwrap().len(), 1, "{report}");
    assert!(
        report["warnings"]
            .to_string()
            .contains("nothing of the kind")
    );
    allow(&["public.t: default of column a", "CHECK constraint"]).expect(1);
    let report = allow(&["default of column a", "CHECK constraint"])
        .expect(0)
        .report();
    assert_eq!(report["status"], "success");
}

#[test]
fn the_plan_says_what_the_application_will_notice() {
    let sandbox = Sandbox::new();
    sandbox.run(&["init"]).expect(0);
    sandbox.sqlite(
        "a.db",
        "CREATE TABLE T (id INTEGER PRIMARY KEY, Name TEXT COLLATE NOCASE, on_sale BOOLEAN, at DATETIME, p INTEGER REFERENCES T (id));
         INSERT INTO T VALUES (1, 'a', 1, '2024-01-02 03:04:05', NULL);",
    );
    let shown = sandbox
        .run(&["plan", "a.db", "--app", "--format", "json"])
        .expect(0)
        .stdout;
    for (topic, column) in [
        ("LIKE and case", "t.name"),
        ("texts without case", "t.name"),
        ("order of NULL", "t.p"),
        ("booleans", "t.on_sale"),
        ("times", "t.at"),
        ("strictness", "t.id"),
        ("foreign keys", "t.p"),
        ("names", "t.name"),
        ("order of ties", ""),
    ] {
        assert!(
            shown
                .lines()
                .any(|line| line.contains(&format!("\"{topic}\"")) && line.contains(column)),
            "{topic}: {shown}"
        );
    }
    // C.UTF-8 is by bytes as SQLite is, whatever its name.
    let by_rules = sandbox.texts("SELECT ('a'::text < 'Z'::text)::text") == ["true"];
    assert_eq!(shown.contains("\"order of texts\""), by_rules, "{shown}");
}
