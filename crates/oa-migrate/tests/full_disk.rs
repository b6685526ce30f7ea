//! A full disk, on the side of the state directory and on that of the server: an error that says so, and nothing half done.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use crate::support;

use std::fs;
use std::os::unix::fs::MetadataExt;

use oa_testkit::SmallDisk;
use support::Sandbox;

const SQL: &str = "CREATE TABLE t (id INTEGER PRIMARY KEY, x TEXT);
     WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000) INSERT INTO t SELECT i, hex(randomblob(200)) FROM n;";

#[test]
fn a_full_state_directory_is_named_and_the_target_is_untouched() {
    let sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    let before = sandbox.picture();
    let Some(small) = SmallDisk::mount(&sandbox.path("state"), "1m") else {
        return;
    };
    let full = sandbox.migrate(&file, &[]).expect(1);
    assert!(
        full.stderr.contains("could not write the snapshot") && full.stderr.contains("free space"),
        "{}",
        full.stderr
    );
    assert_eq!(sandbox.picture(), before);
    let left: Vec<_> = fs::read_dir(sandbox.path("state/migrations"))
        .unwrap()
        .collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(
        sandbox.texts("SELECT status FROM oa.runs"),
        ["failed"],
        "the run log has it"
    );
    drop(small);
    sandbox.migrate(&file, &[]).expect(0);
}

#[test]
fn a_server_whose_disk_is_full_keeps_its_tables_as_they_were() {
    let mut sandbox = Sandbox::new();
    let file = sandbox.sqlite("a.db", SQL);
    sandbox.run(&["init"]).expect(0);
    let Some(small) = SmallDisk::mount(&sandbox.pg.data_dir().with_extension("small"), "9m") else {
        return;
    };
    let owner = fs::metadata(sandbox.pg.data_dir()).unwrap();
    std::os::unix::fs::chown(small.path(), Some(owner.uid()), Some(owner.gid())).unwrap();
    let mut admin =
        postgres::Client::connect(&sandbox.pg.superuser_url(), postgres::NoTls).unwrap();
    let location = small.path().to_str().unwrap();
    admin
        .batch_execute(&format!("CREATE TABLESPACE small LOCATION '{location}'"))
        .unwrap();
    admin
        .batch_execute("GRANT CREATE ON TABLESPACE small TO PUBLIC")
        .unwrap();
    admin
        .batch_execute("ALTER ROLE ALL SET default_tablespace = 'small'")
        .unwrap();
    let before = sandbox.picture();
    let full = sandbox.migrate(&file, &[]).expect(1);
    assert!(
        full.stderr.contains("No space left on device")
            && full.stderr.contains("probably not enough"),
        "{}",
        full.stderr
    );
    assert_eq!(sandbox.picture(), before);
    // What cannot fit is not begun.
    sandbox.sqlite("a.db", "INSERT INTO t SELECT -id, x FROM t");
    let refused = sandbox.migrate(&file, &["--rehearse"]).expect(77);
    assert!(refused.stderr.contains("Free space"), "{}", refused.stderr);
    assert_eq!(sandbox.picture(), before);
    admin
        .batch_execute("ALTER ROLE ALL RESET default_tablespace")
        .unwrap();
    sandbox.migrate(&file, &[]).expect(0);
    drop(admin);
    // Its directory cannot be removed while something is mounted in it.
    sandbox.pg.kill();
    drop(small);
}
