//! The secondary repository, when a backup of the first one lacks data: every other one gets there, and the way out is said.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use std::fs;
use std::path::PathBuf;

use crate::common;

use common::{Done, Service};

const COPIED: &str = "kind = \"logical\"\n[backup.copy]\nrepository = \"elsewhere\"\npassword = \"env:OA_BACKUP_PASSWORD\"";

/// Two backups; the second one alone needs the pack.
fn one_of_two(service: &Service) -> (PathBuf, String) {
    let sql = |sql: &str| service.db().batch_execute(sql).unwrap();
    service.take("full");
    let known = service.files("repo/data");
    sql("CREATE TABLE big AS SELECT i, md5(random()::text) AS t FROM generate_series(1, 20000) i");
    let id = service.take("incremental")[0]["short_id"].clone();
    let size = |f: &PathBuf| fs::metadata(f).unwrap().len();
    let new = service.files("repo/data").into_iter();
    let pack = new.filter(|f| !known.contains(f)).max_by_key(size).unwrap();
    sql("DROP TABLE big");
    (pack, id.as_str().unwrap().to_owned())
}

fn copied(service: &Service) -> usize {
    let list = service.backup(&["list", "--copy", "--format", "json"]);
    list.expect(0).json().len()
}

/// All but the one that is damaged get there, and it is named each time, until it is given up.
fn copies_the_others(service: &Service, id: &str) {
    for _ in 0..2 {
        let done = service.backup(&["copy"]).expect(1);
        for said in [id, "prune --damaged"] {
            assert!(done.stderr.contains(said), "{done:?}");
        }
        assert_eq!(copied(service), 1);
    }
    let in_both = "SELECT count(*) FROM oa.backups WHERE repository LIKE '%elsewhere'";
    assert_eq!(service.number(in_both), 1);
    service
        .backup(&["verify", "--copy", "--read-data"])
        .expect(0);
    // The way out, as it is said.
    service.backup(&["repair", "--yes"]).expect(1);
    service.take("full");
    service.backup(&["prune", "--damaged", "--yes"]).expect(0);
    let last: Done = service.backup(&["copy"]).expect(0);
    assert!(last.stdout.starts_with("1 backup"), "{last:?}");
    service.backup(&["verify", "--copy"]).expect(0);
}

#[test]
fn a_backup_whose_pack_is_missing_keeps_no_other_one_from_being_copied() {
    let service = Service::ready(COPIED);
    let (pack, id) = one_of_two(&service);
    fs::remove_file(pack).unwrap();
    copies_the_others(&service, &id);
}

#[test]
fn a_backup_with_a_flipped_bit_keeps_no_other_one_from_being_copied() {
    let service = Service::ready(COPIED);
    let (pack, id) = one_of_two(&service);
    let mut bytes = fs::read(&pack).unwrap();
    bytes[100] ^= 1;
    fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    fs::write(&pack, bytes).unwrap();
    copies_the_others(&service, &id);
}
