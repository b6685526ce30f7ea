//! A backup that is listed is one that recovered: tried after each full one, recorded, listed, and an incident where it fails.
#![allow(clippy::unwrap_used)]

use crate::support;

use std::fs;

use oa_repository::Kind;
use serde_json::Value;

use support::{Done, Service};

fn verify_recovery(service: &Service) {
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("verify_recovery = false\n", "");
    fs::write(service.config(), text).unwrap();
}

fn alert(service: &Service) -> Done {
    support::done(&mut service.command("oa-alert", &["check"]))
}

fn listed(service: &Service) -> Vec<Value> {
    service.backup(&["list", "--format", "json"]).ok().json()
}

#[test]
fn what_is_listed_was_recovered_and_what_does_not_recover_is_an_incident() {
    let service = Service::start_with("kind = \"physical\"\n", &[]);
    verify_recovery(&service);
    service.init();
    service.sql("CREATE TABLE t AS SELECT n AS id FROM generate_series(1, 2000) n");
    let full = service.backup(&["full", "--format", "json"]).ok().json();
    assert_eq!(service.left(), Vec::<String>::new());
    let all = listed(&service);
    assert_eq!(all.len(), 2, "the full one and its WAL: {all:?}");
    for backup in &all {
        assert_eq!(backup["recovered_to"], all[1]["restorable_to"], "{backup}");
    }
    let table = service.backup(&["list"]).ok().stdout;
    assert!(
        table.contains("RECOVERED TO") && table.contains("CST"),
        "{table}"
    );
    let status = service.backup(&["status"]).ok().stdout;
    let short = full[0]["short_id"].as_str().unwrap();
    assert!(
        status.contains(&format!("Full backup {short} was recovered to ")),
        "{status}"
    );
    assert_eq!(
        service.count("oa.runs WHERE task = 'backup-recovery' AND status = 'success'"),
        1
    );
    // It compares nothing, so it is no drill.
    assert_eq!(service.count("oa.drills"), 0);

    // WAL that is there as it was stored, and is not what the server wrote: every byte reads back, and PostgreSQL does not take it.
    service.sql("CREATE TABLE u AS SELECT n AS id FROM generate_series(1, 2000) n");
    service.backup(&["incremental"]).ok();
    service.forge(Kind::Physical, |folder, _| {
        let files = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
        let segment = files.filter(|f| f.extension().is_none()).max();
        let newest = fs::read_dir(folder).unwrap().map(|f| f.unwrap().path());
        for file in newest.filter(|f| segment.as_ref() == Some(f) || f.extension().is_some()) {
            let mut bytes = fs::read(&file).unwrap();
            bytes.fill(0);
            fs::write(&file, bytes).unwrap();
        }
    });
    let verified = service.backup(&["verify", "--read-data"]);
    verified.failed(1, "does not recover");
    assert_eq!(alert(&service).code, 2);
    assert_eq!(
        service.count("oa.incidents WHERE rule = 'backup_unrecoverable' AND resolved_at IS NULL AND severity = 'critical'"),
        1
    );
    let status = service.backup(&["status"]);
    assert!(
        status.code == 1 && status.stdout.contains("does not recover"),
        "{status:?}"
    );
    let failed = listed(&service);
    assert!(failed[0]["recovery_error"].is_string(), "{failed:?}");
    assert!(service.backup(&["list"]).ok().stdout.contains("FAILED"));

    // The command that the incident names.
    service.backup(&["full"]).ok();
    alert(&service);
    assert_eq!(
        service.count("oa.incidents WHERE rule = 'backup_unrecoverable' AND resolved_at IS NULL"),
        0
    );

    // Nothing of this machine is taken for the backup's fault.
    let failed = || service.count("oa.backups WHERE recovery_error IS NOT NULL");
    let before = failed();
    let text = fs::read_to_string(service.config()).unwrap();
    fs::write(
        service.config(),
        format!("{text}\nbin_dir = \"/nowhere\"\n"),
    )
    .unwrap();
    service
        .restore(&["drill", "--quick", "--yes"])
        .failed(78, "not found");
    assert_eq!(failed(), before);
}
