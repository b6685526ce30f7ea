//! A gap in the WAL is noticed whatever the server says of it, in whatever language, and answered by a full backup.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use common::{Done, Service};
use oa_testkit::Postgres;

const PHYSICAL: &str = "kind = \"physical\"";

/// Segments are filled, and the server has removed what it need not keep.
fn write_wal(service: &Service) {
    for _ in 0..3 {
        service
            .superuser_db()
            .batch_execute("INSERT INTO quotes SELECT (SELECT max(id) FROM quotes) + i, 1, repeat(md5(i::text), 8) FROM generate_series(1, 4000) i; SELECT pg_switch_wal(); CHECKPOINT")
            .unwrap();
    }
}

fn sql(service: &Service, sql: &str) {
    service.superuser_db().batch_execute(sql).unwrap();
}

/// An incremental backup that became a full one, and said what is lost.
fn full_instead(service: &Service, why: &str) -> Done {
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(1);
    assert_eq!(output.json()[0]["level"], "full", "{}", output.stderr);
    for words in ["a full backup is made instead", why, "is lost: no time"] {
        assert!(output.stderr.contains(words), "{words}: {}", output.stderr);
    }
    assert_eq!(
        service.take("incremental")[0]["level"],
        "incremental",
        "it goes on from there"
    );
    output
}

/// Whoever makes backups is no superuser, as docs/backup.md has it.
fn ordinary(server: Postgres) -> Service {
    let mut service = Service::with(server, PHYSICAL);
    sql(
        &service,
        "ALTER ROLE oa REPLICATION; GRANT pg_read_all_data, pg_read_all_stats TO oa; ALTER TABLE quotes OWNER TO oa",
    );
    service.superuser = false;
    service.create_repositories();
    service
}

fn speaks(language: &str) -> Option<Service> {
    let mut server = Postgres::start();
    if !server.speak(language) {
        return None;
    }
    let service = ordinary(server);
    service.take("full");
    // The slot is gone, and what it kept.
    sql(&service, "SELECT pg_drop_replication_slot('oa_backup')");
    write_wal(&service);
    full_instead(&service, "the server has removed WAL");
    Some(service)
}

#[test]
fn a_gap_is_noticed_when_the_server_speaks_chinese() {
    let Some(service) = speaks("zh_CN") else {
        return;
    };
    // Somebody has made it anew; the nightly full backup finds it so.
    for immediately in [true, false] {
        sql(&service, "SELECT pg_drop_replication_slot('oa_backup')");
        write_wal(&service);
        sql(
            &service,
            &format!("SELECT pg_create_physical_replication_slot('oa_backup', {immediately})"),
        );
        let full = service.backup(&["full", "--format", "json"]).expect(1);
        assert!(full.stderr.contains("is lost: no time"), "{full:?}");
        assert_eq!(full.json().len(), 2, "{full:?}");
        assert_eq!(service.take("incremental")[0]["level"], "incremental");
    }
    // Another name: a slot of its own, which begins now.
    service.configure("kind = \"physical\"\nslot = \"another\"");
    sql(&service, "SELECT pg_drop_replication_slot('oa_backup')");
    write_wal(&service);
    full_instead(&service, "the server has removed WAL");
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn services_that_back_up_one_server_do_not_move_each_others_slot() {
    let service = Service::ready(PHYSICAL);
    let text = std::fs::read_to_string(service.path("oa.toml")).unwrap();
    let text = text.replace("\"state\"", "\"state2\"");
    std::fs::write(
        service.path("second.toml"),
        text.replace("\"repo\"", "\"repo2\""),
    )
    .unwrap();
    service.create_repositories_of("second.toml");
    let second = |level: &str| -> Done {
        let command = service
            .command_with("second.toml", &[level, "--format", "json"])
            .output();
        common::done(command.unwrap()).expect(0)
    };
    let goes_on = |done: &Done| assert_eq!(done.json()[0]["level"], "incremental", "{done:?}");
    let both_go_on = || {
        write_wal(&service);
        assert_eq!(service.take("incremental")[0]["level"], "incremental");
        write_wal(&service);
        goes_on(&second("incremental"));
    };
    service.take("full");
    second("full");
    both_go_on();
    // Earlier versions had one slot for both, and noted nothing: whoever finds that it has moved on gets another one.
    let names = "SELECT slot_name::text FROM pg_replication_slots WHERE slot_name <> 'oa_backup'";
    let other = service.texts(names);
    sql(
        &service,
        &format!("SELECT pg_drop_replication_slot('{}')", other[0]),
    );
    for folder in ["state", "state2"] {
        for file in service.files(&format!("{folder}/backup")) {
            if file
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("slot-")
            {
                std::fs::remove_file(file).unwrap();
            }
        }
    }
    write_wal(&service);
    goes_on(&second("incremental"));
    let first = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    goes_on(&first);
    assert!(first.stderr.contains("used by somebody else"), "{first:?}");
    assert_eq!(service.texts(names).len(), 1);
    both_go_on();
    service.backup(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_name_under_which_no_slot_could_be_made_is_not_noted() {
    let service = Service::ready(PHYSICAL);
    let text = std::fs::read_to_string(service.path("oa.toml")).unwrap();
    let text = text.replace("\"state\"", "\"state2\"");
    std::fs::write(
        service.path("second.toml"),
        text.replace("\"repo\"", "\"repo2\""),
    )
    .unwrap();
    service.create_repositories_of("second.toml");
    let second = |arguments: &[&str]| {
        let command = service.command_with("second.toml", arguments).output();
        common::done(command.unwrap())
    };
    let most = service.number("SELECT current_setting('max_replication_slots')::int8");
    let make = "SELECT count(pg_create_physical_replication_slot('other_' || i)) FROM generate_series(1, $1::int8) i";
    service.superuser_db().query_one(make, &[&most]).unwrap();
    let refused = second(&["full"]);
    assert!(refused.stderr.contains("all slots are used"), "{refused:?}");
    sql(
        &service,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
    );
    // Meanwhile the first service has made it.
    service.take("full");
    second(&["full"]).expect(0);
    let slots = service.texts("SELECT slot_name::text FROM pg_replication_slots ORDER BY 1");
    assert_eq!(slots.len(), 2, "{slots:?}");
    for _ in 0..2 {
        write_wal(&service);
        assert_eq!(service.take("incremental")[0]["level"], "incremental");
        let done = second(&["incremental", "--format", "json"]).expect(0);
        assert_eq!(done.json()[0]["level"], "incremental", "{done:?}");
    }
}

#[test]
fn a_slot_that_was_made_anew_is_this_services_though_there_are_copies() {
    let service = Service::ready(PHYSICAL);
    service.take("full");
    // An earlier version has noted nothing, and has a secondary repository.
    for file in service.files("state/backup") {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with("slot-") {
            std::fs::remove_file(file).unwrap();
        }
    }
    sql(
        &service,
        "INSERT INTO oa.backups SELECT c.* FROM oa.backups b, jsonb_populate_record(b, jsonb_build_object('id', 'c' || b.id, 'repository', '/elsewhere')) c",
    );
    // Whoever manages the cluster makes it on a server that has taken over.
    sql(&service, "SELECT pg_drop_replication_slot('oa_backup')");
    write_wal(&service);
    sql(
        &service,
        "SELECT pg_create_physical_replication_slot('oa_backup', true)",
    );
    full_instead(&service, "the server has removed WAL");
    let slots = service.texts("SELECT slot_name::text FROM pg_replication_slots");
    assert_eq!(slots, ["oa_backup"]);
}

#[test]
fn a_gap_is_noticed_when_the_server_speaks_german() {
    speaks("de_DE");
}

#[test]
fn a_gap_is_noticed_when_the_server_speaks_japanese() {
    speaks("ja_JP");
}

#[test]
fn a_server_that_was_put_back_is_noticed_in_chinese() {
    let mut server = Postgres::start();
    if !server.speak("zh_CN") {
        return;
    }
    let mut service = ordinary(server);
    service.take("full");
    for _ in 0..3 {
        write_wal(&service);
    }
    service.take("incremental");
    // The same cluster as it was before all that: a snapshot that somebody went back to.
    service.server = Postgres::start();
    if !service.server.speak("zh_CN") {
        return;
    }
    oa_core::pg::schema::upgrade(&mut service.db()).unwrap();
    sql(
        &service,
        "ALTER ROLE oa REPLICATION; GRANT pg_read_all_data, pg_read_all_stats TO oa;
         CREATE TABLE quotes AS SELECT 1 AS id, 1.0::float8 AS price, ''::text AS note; ALTER TABLE quotes OWNER TO oa",
    );
    let output = service
        .backup(&["incremental", "--format", "json"])
        .expect(0);
    assert_eq!(output.json()[0]["level"], "full", "{}", output.stderr);
    write_wal(&service);
    assert_eq!(service.take("incremental")[0]["level"], "incremental");
}

#[test]
fn what_a_role_may_not_read_is_named_in_whatever_language_the_server_speaks() {
    let mut server = Postgres::start();
    if !server.speak("zh_CN") {
        return;
    }
    let mut service = Service::with(server, "kind = \"logical\"");
    service.superuser = false;
    service.create_repositories();
    sql(
        &service,
        "CREATE SCHEMA closed; CREATE TABLE closed.secret (id int); REVOKE ALL ON quotes FROM public; ALTER TABLE quotes OWNER TO postgres",
    );
    let refused = service.backup(&["full"]).expect(77);
    for words in ["closed.secret", "GRANT pg_read_all_data TO \"oa\""] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    sql(
        &service,
        "GRANT pg_read_all_data TO oa; ALTER TABLE quotes ENABLE ROW LEVEL SECURITY",
    );
    let refused = service.backup(&["full"]).expect(77);
    for words in ["row security", "quotes", "ALTER ROLE \"oa\" BYPASSRLS"] {
        assert!(refused.stderr.contains(words), "{words}: {refused:?}");
    }
    sql(
        &service,
        "ALTER ROLE oa BYPASSRLS; SELECT lo_from_bytea(0, 'x')",
    );
    let refused = service.backup(&["full"]).expect(77);
    assert!(refused.stderr.contains("large object"), "{refused:?}");
    sql(
        &service,
        "SELECT lo_unlink(oid) FROM pg_largeobject_metadata",
    );
    service.take("full");
}

#[test]
fn wal_of_a_time_at_wal_level_minimal_is_a_gap() {
    let service = Service::ready(PHYSICAL);
    service.take("full");
    let mut service = after_minimal(service);
    full_instead(&service, "wal_level = minimal");
    // Between two incremental ones, and found by the nightly full one.
    write_wal(&service);
    service.take("incremental");
    service = after_minimal(service);
    let full = service.backup(&["full", "--format", "json"]).expect(1);
    assert!(full.stderr.contains("is lost: no time"), "{full:?}");
    assert_eq!(full.json().len(), 2, "{full:?}");
    service.take("full");
    service.take("incremental");
    assert_eq!(
        service
            .number("SELECT count(*) FROM oa.backups WHERE kind = 'physical' AND level = 'full'"),
        4,
        "no more of them than were needed"
    );
}

/// For a while the server has run so, to load faster.
fn after_minimal(mut service: Service) -> Service {
    sql(
        &service,
        "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots",
    );
    service.server.set("wal_level", "minimal");
    service.server.set("max_wal_senders", "0");
    service.server.restart();
    sql(
        &service,
        "CREATE TABLE IF NOT EXISTS loaded (id int); BEGIN; TRUNCATE loaded; INSERT INTO loaded SELECT generate_series(1, 5000); COMMIT",
    );
    service.server.set("wal_level", "replica");
    service.server.set("max_wal_senders", "10");
    service.server.restart();
    service
}
