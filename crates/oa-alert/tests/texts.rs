//! What people read, of every rule, in both languages.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use chrono::{TimeDelta, TimeZone, Utc};
use common::{DINGTALK, Service, WECOM};
use oa_core::app::config::Locale;
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::store::TaskState;
use oa_core::model::event::{Event, Fault, Finding};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{Attempt, Outcome, Quality, RunError, RunStart, Status, Trigger};
use oa_sim::Options;
use oa_testkit::Postgres;
use oa_wording::Wording;

const LOCALES: [(&str, Locale); 2] = [("zh", Locale::Zh), ("en", Locale::En)];

fn wording(locale: Locale) -> Wording {
    Wording {
        locale,
        timezone: chrono_tz::Asia::Shanghai,
    }
}

fn policy() -> Policy {
    Policy {
        timezone: chrono_tz::Asia::Shanghai,
        keep_revisions: true,
        repeat: Duration::from_secs(3600),
    }
}

/// An outcome of a run that took three minutes.
fn outcome(status: Status, kind: ErrorKind, message: &str) -> Outcome {
    let started = Utc.with_ymd_and_hms(2025, 12, 1, 6, 0, 0).unwrap();
    let lease = Duration::from_secs(60);
    let mut start = RunStart::now(
        "oa-crawl",
        "0.1.0",
        "zhihui-full-view",
        "智汇期讯-多空全景",
        Trigger::Cron,
        lease,
    );
    start.id = uuid::Uuid::nil();
    start.started_at = started;
    "crawler1".clone_into(&mut start.process.host);
    let mut outcome = Outcome::bare(start, status, started + TimeDelta::seconds(185));
    outcome
        .details
        .insert("table".into(), "market_full_view".into());
    outcome.details.insert("day".into(), "2025-12-01".into());
    outcome.fetched = 75;
    if status == Status::Success {
        return outcome;
    }
    outcome.error = Some(RunError::new(kind, message));
    let attempt = |number| Attempt {
        number,
        started_at: started,
        finished_at: started,
        outcome: status,
        error: outcome.error.clone(),
    };
    outcome.attempts = (1..=4).map(attempt).collect();
    outcome
}

fn state() -> TaskState {
    TaskState {
        consecutive_failures: 2,
        failing_since: Some(Utc.with_ymd_and_hms(2025, 12, 1, 5, 30, 0).unwrap()),
        last_success_at: Some(Utc.with_ymd_and_hms(2025, 12, 1, 5, 0, 10).unwrap()),
        outdated: false,
    }
}

fn page(events: &[Event], wording: &Wording) -> String {
    let mut page = String::new();
    for event in events {
        let _ = writeln!(
            page,
            "## {} ({}, {})\n{}",
            event.rule(),
            event.severity().as_str(),
            event.kind().as_str(),
            wording.text(event).body
        );
    }
    page
}

#[test]
fn the_texts_of_runs() {
    let kinds = [
        (ErrorKind::Network, "connection reset by peer"),
        (ErrorKind::Dns, "no such host: hzzhqx.com"),
        (ErrorKind::Tls, "invalid peer certificate: Expired"),
        (ErrorKind::Timeout, "no answer within 300 s"),
        (
            ErrorKind::Http5xx,
            "GET https://hzzhqx.com/api?token=abcdef HTTP 502",
        ),
        (ErrorKind::Http429, "HTTP 429"),
        (ErrorKind::Http4xx, "HTTP 404"),
        (ErrorKind::Auth, "token expired"),
        (ErrorKind::Blocked, "a page came instead of data"),
        (
            ErrorKind::Shape,
            "none of 75 records has the field(s) volume",
        ),
        (
            ErrorKind::Empty,
            "the site returned no records for 2025-12-01",
        ),
        (ErrorKind::Invalid, "30 of 75 records were rejected"),
        (ErrorKind::Db, "disk full"),
        (ErrorKind::Internal, "out of memory"),
    ];
    let server = Postgres::start();
    oa_core::pg::schema::upgrade(&mut server.connect()).unwrap();
    let mut client = server.connect();
    let mut events: Vec<Event> = kinds
        .iter()
        .map(|(kind, message)| {
            let status = if *kind == ErrorKind::Timeout {
                Status::Timeout
            } else {
                Status::Failed
            };
            incidents::problem(&outcome(status, *kind, message), &state()).unwrap()
        })
        .collect();
    let abandoned = outcome(
        Status::Abandoned,
        ErrorKind::Internal,
        "the process is gone without having recorded how it ended",
    );
    events.extend(incidents::problem(&abandoned, &TaskState::default()));
    let mut partial = outcome(
        Status::Partial,
        ErrorKind::Partial,
        "2300 of 2434 records came",
    );
    partial.quality = Some(Quality {
        day: None,
        expected: Some(2434),
        collected: 2300,
        duplicates: 0,
        fresh: None,
        findings: vec![],
    });
    events.extend(incidents::problem(&partial, &state()));
    let mut tx = client.transaction().unwrap();
    let success = outcome(Status::Success, ErrorKind::Internal, "");
    for outcome in [&partial, &success] {
        incidents::after_run(&mut tx, outcome, &state(), &policy()).unwrap();
    }
    let row = tx
        .query_one(
            "SELECT event, title, body FROM oa.alerts WHERE kind = 'recovery'",
            &[],
        )
        .unwrap();
    let recovery = incidents::event_of(&row, 0, "run_failed", "run:zhihui-full-view");
    for (name, locale) in LOCALES {
        let wording = wording(locale);
        let recovery = wording.text(&recovery).body;
        let text = format!("{}## recovery\n{recovery}", page(&events, &wording));
        insta::assert_snapshot!(format!("runs_{name}"), text);
    }
}

#[test]
fn the_texts_of_machines() {
    let now = Utc.with_ymd_and_hms(2025, 12, 1, 6, 0, 0).unwrap();
    let faults = [
        (
            Fault::DatabaseUnreachable,
            "could not reach PostgreSQL at db:5432: connection refused; check that it runs and that the address is right",
        ),
        (
            Fault::SchemaUnfit,
            "the schema oa is version 7 and this program needs 8; run oa-migrate init",
        ),
        (
            Fault::SpoolFull,
            "the spool is full: 1073741824 of 1073741824 bytes are used",
        ),
        (
            Fault::SpoolBroken,
            "could not use the spool /var/lib/oa/spool.db: database disk image is malformed",
        ),
        (
            Fault::NoStore,
            "zhihui-reports: could not reach PostgreSQL at db:5432: connection refused; and the spool took nothing: No space left on device",
        ),
        (
            Fault::CheckFailed,
            "canceling statement due to statement timeout (57014)",
        ),
        (
            Fault::SpoolStuck,
            "relation \"variety_report\" does not exist",
        ),
    ];
    let events: Vec<Event> = faults
        .iter()
        .flat_map(|(fault, reason)| {
            let task = (*fault == Fault::SpoolStuck).then(|| "zhihui-reports".to_owned());
            let found = Event::Machine {
                fault: *fault,
                host: "crawler1".to_owned(),
                task: task.clone(),
                reason: (*reason).to_owned(),
                schema: None,
                at: now,
            };
            let recovered = Event::MachineRecovered {
                fault: *fault,
                host: "crawler1".to_owned(),
                task,
                opened_at: now,
                at: now + TimeDelta::minutes(75),
            };
            [found, recovered]
        })
        .collect();
    for (name, locale) in LOCALES {
        insta::assert_snapshot!(format!("machines_{name}"), page(&events, &wording(locale)));
    }
}

/// Something wrong for each rule of the check.
fn break_everything(service: &Service) {
    let mut superuser =
        postgres::Client::connect(&service.server.superuser_url(), postgres::NoTls).unwrap();
    superuser
        .batch_execute("SELECT pg_create_physical_replication_slot('forgotten', true); SELECT pg_switch_wal(); CREATE TABLE public.x AS SELECT generate_series(1, 10000)")
        .unwrap();
    service.sql(
        "INSERT INTO oa.tasks (name, tool, title, schedule, next_due_at, last_started_at, last_success_at, last_run_id, last_status)
         VALUES ('late', 'oa-crawl', '晚点', '* * * * *', now() - interval '20 minutes', now() - interval '1 hour', now() - interval '1 hour', gen_random_uuid(), 'success'),
                ('never', 'oa-crawl', '新来源', '* * * * *', now() - interval '20 minutes', NULL, NULL, NULL, NULL),
                ('half', 'oa-crawl', '研报', '* * * * *', now() + interval '20 minutes', now(), now() - interval '1 day', gen_random_uuid(), 'partial'),
                ('slow', 'oa-crawl', '持仓', '* * * * *', now() + interval '20 minutes', now(), NULL, gen_random_uuid(), 'running'),
                ('stale', 'oa-crawl', '多空全景', '0 12 * * *', now() + interval '20 minutes', now(), now(), gen_random_uuid(), 'success'),
                ('falling', 'oa-crawl', '品种观点', '0 12 * * *', now() + interval '20 minutes', now(), now(), gen_random_uuid(), 'success');
         INSERT INTO oa.slots (task, due_at, day) SELECT name, next_due_at, '2025-12-01' FROM oa.tasks WHERE name IN ('late', 'never');
         INSERT INTO oa.tasks (name, tool, title, schedule, last_run_id, backfills) SELECT 'off' || n, 'oa-crawl', '停机' || n, '* * * * *', gen_random_uuid(), n = 1 FROM generate_series(1, 3) n;
         INSERT INTO oa.slots (task, due_at, day, state, closed_at, reason)
         SELECT 'off' || n, now() - interval '12 minutes', date '2025-12-01', 'open', NULL::timestamptz, NULL FROM generate_series(1, 3) n
         UNION ALL SELECT 'off' || n, now() - interval '13 minutes', '2025-12-02', 'missed', now(), 'x' FROM generate_series(1, 2) n;
         UPDATE oa.tasks SET collects = true WHERE name IN ('late', 'never') OR name LIKE 'off%';
         INSERT INTO oa.starts (what, host, day, first_at, last_at) VALUES ('due', 'vm', '2025-12-01', now() - interval '1 hour', now() - interval '15 minutes');
         CREATE FUNCTION pg_temp.ran(task text, moment timestamptz, status text, inserted bigint) RETURNS uuid LANGUAGE sql AS $$
           INSERT INTO oa.runs (id, tool, task, trigger, host, machine_id, boot_id, pid, pid_started, version, started_at, finished_at, status, inserted, error_message, lease_until)
           VALUES ((left(oa.uuid_floor(moment)::text, 24) || right(md5(task), 12))::uuid, 'oa-crawl', task, 'cron', 'crawler1', 'm', 'b', 1, 1, '0', moment,
                   CASE WHEN status <> 'running' THEN moment END, status, inserted, CASE WHEN status = 'partial' THEN 'only 100 of 2434 records came' END, now() + interval '1 hour')
           RETURNING id $$;
         SELECT pg_temp.ran('half', now() - make_interval(mins => n), 'partial', 0) FROM generate_series(1, 3) n;
         SELECT pg_temp.ran('slow', now() - interval '2 hours', 'running', 0);
         SELECT pg_temp.ran('stale', ((now() AT TIME ZONE 'Asia/Shanghai')::date - n + interval '12 hours') AT TIME ZONE 'Asia/Shanghai', 'success', CASE WHEN n > 14 THEN 1 ELSE 0 END)
           FROM generate_series(1, 34) n;
         INSERT INTO oa.quality (run_id, task, day, collected, duplicates, score)
         SELECT pg_temp.ran('falling', (day + interval '12 hours') AT TIME ZONE 'Asia/Shanghai', 'success', 1), 'falling', day, CASE WHEN n > 16 THEN 120 ELSE 30 END, 0, 100
         FROM (SELECT n, (now() AT TIME ZONE 'Asia/Shanghai')::date - n AS day FROM generate_series(1, 34) n) d;
         INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
           restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked)
         SELECT '3f2a9c1e', gen_random_uuid(), '/var/backups/oa', 'physical', 'full', 'h', 'oa', 150000, 's', 1, t, t, t, t, 1, 8000000, 5000000, 'none'
         FROM (SELECT now() - interval '40 days' AS t) x;
         INSERT INTO oa.backups (id, run_id, repository, kind, level, host, database, server_version, system_id, timeline,
           restorable_from, restorable_to, started_at, finished_at, files, size_bytes, added_bytes, checked, missing_since)
         SELECT '77aa0b1c', gen_random_uuid(), '/var/backups/oa', 'physical', 'full', 'h', 'oa', 150000, 's', 1, t, t, t, t, 1, 8000000, 5000000, 'none', now()
         FROM (SELECT now() - interval '41 days' AS t) x;
         INSERT INTO oa.drills (run_id, backup_id, repository, host, target, started_at, finished_at, ok, rto_seconds, error)
         SELECT gen_random_uuid(), '3f2a9c1e', '/var/backups/oa', 'h', t, t, t, false, NULL, 'table market_full_view has 3 rows less than when it was backed up'
         FROM (SELECT now() - interval '1 day' AS t) x;
         UPDATE oa.backups SET recovery_at = now(), recovery_error = 'recovery ended at 0/5000060, before 0/6000000',
           damaged_pages = 'table market_full_view, file base/16384/16402, page 7' WHERE id = '3f2a9c1e';
         INSERT INTO oa.repositories VALUES ('/var/backups/oa', now() - interval '10 days', 10000000, 1, 60000000), ('/var/backups/oa', now(), 20000000, 1, 4000000)",
    );
    let folder = service.state().join("browser");
    fs::create_dir_all(&folder).unwrap();
    let end = Utc::now().timestamp() + 3 * 86_400 + 3500;
    fs::write(folder.join("rongda.json"), format!(r#"[{{"name": "s", "value": "v", "domain": "x", "httpOnly": true, "expirationDate": {end}}}]"#)).unwrap();
    fs::write(folder.join("rongda.imported"), "").unwrap();
    service.put_in_spool("x", "t");
    let db = rusqlite::Connection::open(service.state().join("spool.db")).unwrap();
    db.execute_batch("UPDATE entries SET created_at = created_at - 7200000")
        .unwrap();
}

const ALL: &str = "[report]\nurl = \"https://oa.example.com\"\n[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:X\"\n\
    [alert]\nconnections_share = 0\nwal_limit = 1\nclock_limit = 0\ndisk_warning = 1.0\nexpiry_notice = \"50000d\"\n";

#[test]
fn the_texts_of_the_check() {
    for (name, locale) in LOCALES {
        let top = format!("locale = \"{name}\"\n");
        let (server, _) = Postgres::start_with_tls();
        let robots = Options {
            dingtalk_secret: Some("SECx-secret".into()),
            ..Options::default()
        };
        let service = Service::start_on(server, "", robots);
        service.configure(&top, &format!("{ALL}{DINGTALK}{WECOM}"));
        break_everything(&service);
        // Someone else drains, and so what is in the spool waits.
        let state = oa_core::base::state_dir::StateDir::open(&service.state()).unwrap();
        let lock = state.try_lock("spool-drain").unwrap().unwrap();
        assert_eq!(service.check().0, 2);
        drop(lock);
        // A channel that takes nothing for a day.
        service.sim.fault("/dingtalk: 502").unwrap();
        service.put("run:x", "【故障】标题");
        service.check();
        service.sql("UPDATE oa.deliveries SET first_try_at = now() - interval '25 hours' WHERE state <> 'sent'");
        service.hurry();
        service.check();
        service.sim.clear_faults();
        // The slow drill, the unverified backup and the late one are of other states.
        service.sql(
            "UPDATE oa.drills SET ok = true, rto_seconds = 5400, error = NULL; UPDATE oa.backups SET check_error = 'pack 4711 is damaged', checked = 'data'",
        );
        service.check();
        service.sql("TRUNCATE oa.backups, oa.drills, oa.repositories; TRUNCATE oa.tasks; DELETE FROM oa.runs; DELETE FROM oa.quality");
        fs::remove_file(service.state().join("browser/rongda.imported")).unwrap();
        service.configure(&top, &format!("[report]\nurl = \"https://oa.example.com\"\n[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:X\"\n[alert]\nexpiry_notice = \"1h\"\ndisk_warning = 0.0\ndisk_critical = 0.0\n{DINGTALK}{WECOM}"));
        service.put("run:y", "t");
        service.hurry();
        service.check();
        let since = service.state().join("backup-since.json");
        fs::write(since, r#"{"/var/backups/oa": "2025-11-01T00:00:00Z"}"#).unwrap();
        service.check();
        // Other tests bring these about.
        for finding in [
            Finding::NetworkDown {
                host: "crawler1".to_owned(),
                since: Utc::now(),
                tasks: vec![
                    "多空全景".to_owned(),
                    "研报淘金".to_owned(),
                    "持仓".to_owned(),
                ],
            },
            Finding::ListenerDown {
                channel: "ops-cards".to_owned(),
                last_at: Some(Utc::now()),
                error: "Feishu refused with code 514".to_owned(),
            },
            Finding::OpeningAtRisk {
                task: "rongda-positions".to_owned(),
                title: "融达-持仓".to_owned(),
                session: "night".to_owned(),
                opens_at: Utc::now(),
                failing_since: Utc::now(),
            },
        ] {
            incidents::raise(&mut service.db(), Event::Found(finding), &policy()).unwrap();
        }
        let rows = service.db().query(
            "SELECT rule, severity, kind, fingerprint, event, title, body FROM oa.alerts WHERE rule <> 'run_failed' ORDER BY rule, id",
            &[],
        );
        let mut page = String::new();
        for row in rows.unwrap() {
            let (rule, severity, kind): (String, String, String) =
                (row.get(0), row.get(1), row.get(2));
            let event = incidents::event_of(&row, 4, &rule, row.get(3));
            let body = wording(locale).text(&event).body;
            let _ = writeln!(page, "## {rule} ({severity}, {kind})\n{body}");
        }
        let host = oa_core::base::supervise::ProcessId::current().host;
        let page = page.replace(&host, "[host]");
        let mut settings = insta::Settings::clone_current();
        for (pattern, shown) in [
            (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "[time]"),
            (r"\d{4}-\d\d-\d\d", "[day]"),
            (r"\d\d-\d\d (30|120)", "[day] $1"),
            (r"(127\.0\.0\.1|localhost):\d+", "[server]"),
            (r"/\S*/state", "[state_dir]"),
            (r"[\d.]+ [GMT]iB", "[size]"),
            (r"\d+ bytes", "[size]"),
            (r"\d+ ?%", "[share]"),
            (r"\d+ (of|/) \d+ are", "[n] of [n] are"),
            (r"已用 \d+ 个，上限 \d+ 个", "已用 [n] 个，上限 [n] 个"),
            (
                r"(持续|lasted) (不到 1 秒|less than 1 s|\d+ (秒|s|分钟|min)( \d+ (秒|s))?)",
                "$1 [span]",
            ),
            (r"(还有|in) \d{3,} (天|d)( \d+ (小时|h))?", "$1 [long]"),
            (r"(距首次放弃告警) .+", "$1 [span]"),
            (r"- .+ after (it was|alerts were)", "- [span] after $1"),
            (
                r"(之后的|the) \d+ (个交易日|trading days since)",
                "$1 [n] $2",
            ),
            (r"(，已晚|, ) ?20 (分钟|min)( \d+ (秒|s))?", "$1 20 $2"),
        ] {
            settings.add_filter(pattern, shown);
        }
        settings.bind(|| insta::assert_snapshot!(format!("check_{name}"), page));
        // Every rule of the check is there.
        for rule in Finding::RULES {
            assert!(
                page.contains(&format!("## {rule} (")),
                "{rule} is missing in {page}"
            );
        }
    }
}
