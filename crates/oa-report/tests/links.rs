//! Links of messages: one act, once, by whoever has the link, until its time is over.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use common::{Serving, Site, TOKEN_HASH};
use oa_core::base::links::{Link, LinkAction, LinkKey};
use oa_core::base::secrets::Secret;
use oa_core::journal::incidents::{self, Policy};
use oa_core::model::event::{Event, Finding, RunFailed, Work, run_fingerprint};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{RunError, Status};
use uuid::Uuid;

const KEY: &str = "test-key-of-links-0123";

fn failed(task: &str, work: Work) -> Event {
    Event::RunFailed(Box::new(RunFailed {
        run: Uuid::now_v7(),
        task: task.to_owned(),
        title: "持仓排名".to_owned(),
        work,
        status: Status::Failed,
        error: RunError::new(ErrorKind::Http5xx, "HTTP 502"),
        attempts: 4,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        failing_since: None,
        failures: 1,
        last_success_at: None,
        tables: String::new(),
        day: Some("2025-12-01".to_owned()),
        collected: 0,
        expected: None,
        host: "crawler1".to_owned(),
        provider: String::new(),
        history_unknown: false,
    }))
}

struct Phone {
    site: Site,
    serving: Serving,
}

impl Phone {
    fn raise(&self, event: Event) -> Uuid {
        let policy = Policy {
            timezone: chrono_tz::Asia::Shanghai,
            keep_revisions: true,
            repeat: Duration::from_secs(3600),
        };
        let mut db = self.site.server.connect();
        incidents::raise(&mut db, event, &policy).unwrap();
        let sql = "SELECT id FROM oa.alerts ORDER BY seq DESC LIMIT 1";
        db.query_one(sql, &[]).unwrap().get(0)
    }

    fn link(&self, action: LinkAction, alert: Uuid) -> String {
        signed(action, alert, "ops", TimeDelta::hours(1))
    }

    /// A phone's web view: no token, and the name under which the page is reached.
    fn ask(&self, method: &str, path: &str) -> (u16, String) {
        let host = [("Host", "oa.example.com")];
        let body = if method == "POST" {
            "name=%E7%8E%8B"
        } else {
            ""
        };
        let reply = self.serving.ask(method, path, &host, body);
        (reply.status, reply.text())
    }

    fn one(&self, sql: &str) -> String {
        let mut db = self.site.server.connect();
        db.query_one(sql, &[]).unwrap().get(0)
    }
}

fn signed(action: LinkAction, alert: Uuid, channel: &str, left: TimeDelta) -> String {
    let key = LinkKey::new(Secret::new(KEY.to_owned())).unwrap();
    let link = Link {
        action,
        alert,
        channel: channel.to_owned(),
        expires: Utc::now() + left,
    };
    format!("/act/{}", key.sign(&link).unwrap())
}

#[test]
fn a_link_of_a_message_acts_once_when_its_button_is_pressed_and_not_when_it_is_opened() {
    let site = Site::start(&format!(
        "[report]\nurl = \"https://oa.example.com\"\nlink_key = \"env:OA_LINK_KEY\"\n[report.tokens]\nwang = \"{TOKEN_HASH}\"\n\
         [[alert.channels]]\nname = \"ops\"\nkind = \"webhook\"\nurl = \"https://hooks.example.com/x\"\n"
    ));
    oa_testkit::write_private(
        &site.dir.path().join(".env"),
        format!("OA_LINK_KEY={KEY}\n"),
    );
    let serving = site.serve(None);
    let phone = Phone { site, serving };
    phone.site.sql(
        "INSERT INTO oa.tasks (name, tool, title, schedule, collects) VALUES ('positions', 'oa-crawl', '', '0 9 * * *', true)",
    );
    let alert = phone.raise(failed("positions", Work::Source));

    let ack = phone.link(LinkAction::Acknowledge, alert);
    for _ in 0..2 {
        let (status, page) = phone.ask("GET", &ack);
        assert_eq!(status, 200, "{page}");
        assert!(
            page.contains("持仓排名") && page.contains("<button") && page.contains("HTTP 502"),
            "{page}"
        );
    }
    let taken = "SELECT coalesce(acknowledged_by, '-') FROM oa.incidents";
    assert_eq!(phone.one(taken), "-", "whatever fetches links in advance");
    let other_site = [("Host", "oa.example.com"), ("Sec-Fetch-Site", "cross-site")];
    assert_eq!(
        phone
            .serving
            .ask("POST", &ack, &other_site, "name=x")
            .status,
        403
    );
    let (status, page) = phone.ask("POST", &ack);
    assert_eq!(status, 200, "{page}");
    assert_eq!(phone.one(taken), "王 (ops)");
    phone
        .site
        .sql("UPDATE oa.incidents SET acknowledged_by = 'li'");
    for method in ["GET", "POST"] {
        let (status, page) = phone.ask(method, &ack);
        assert_eq!(status, 410, "{page}");
        assert!(page.contains("用过"), "{page}");
    }
    assert_eq!(phone.one(taken), "li", "it works once");

    // Silence, and run again.
    assert_eq!(
        phone.ask("POST", &phone.link(LinkAction::Silence, alert)).0,
        200
    );
    assert_eq!(
        phone.one("SELECT fingerprint || ' ' || coalesce(task, rule, host, 'alone') || ' ' || (until BETWEEN now() + interval '119 min' AND now() + interval '2 h')::text FROM oa.silences"),
        "run:positions alone true"
    );
    assert_eq!(
        phone.ask("POST", &phone.link(LinkAction::Run, alert)).0,
        200
    );
    assert_eq!(
        phone.one("SELECT kind || ' ' || subject || ' ' || (params->>'day') || ' ' || requested_by FROM oa.requests"),
        "run positions 2025-12-01 王 (ops)"
    );
    let (status, page) = phone.ask("GET", &phone.link(LinkAction::Log, alert));
    assert_eq!(status, 410, "the run is not in the log: {page}");

    // What it was about is over: there is nothing to acknowledge; a program of the operator's own cannot be started from here.
    let ended = incidents::resolve_retired(&mut phone.site.server.connect(), "positions", "");
    assert!(ended.unwrap());
    let late = signed(LinkAction::Run, alert, "ops2", TimeDelta::hours(1));
    assert_eq!(phone.ask("POST", &late).0, 410, "no channel of this name");
    phone.site.sql("DELETE FROM oa.used_links");
    let (status, page) = phone.ask("POST", &phone.link(LinkAction::Run, alert));
    assert_eq!(status, 409, "it has recovered: {page}");
    let again = phone.raise(failed("positions", Work::Source));
    for stale in [
        signed(LinkAction::Acknowledge, alert, "ops2", TimeDelta::hours(1)),
        signed(LinkAction::Silence, alert, "ops", TimeDelta::zero()),
        format!("{}x", phone.link(LinkAction::Silence, alert)),
        "/act/AAAA".to_owned(),
    ] {
        let (status, page) = phone.ask("POST", &stale);
        assert!([404, 410].contains(&status), "{status} {page}");
    }
    phone.site.sql("DELETE FROM oa.used_links");
    let (status, _) = phone.ask("POST", &ack);
    assert_eq!(status, 409, "the incident that this one was about is over");
    assert_eq!(phone.one("SELECT count(*)::text FROM oa.used_links"), "0");
    assert_eq!(
        phone
            .ask("POST", &phone.link(LinkAction::Acknowledge, again))
            .0,
        200
    );
    let program = phone.raise(failed("export", Work::Program));
    assert_eq!(
        phone.ask("POST", &phone.link(LinkAction::Run, program)).0,
        409
    );
    assert_eq!(
        phone.one(&format!(
            "SELECT acknowledged_by FROM oa.incidents WHERE fingerprint = '{}'",
            run_fingerprint("positions")
        )),
        "王 (ops)"
    );

    // An incident of a machine is silenced on that machine only.
    let clock = phone.raise(Event::Found(Finding::ClockOff {
        host: "crawler1".to_owned(),
        seconds: 99,
    }));
    assert_eq!(
        phone.ask("POST", &phone.link(LinkAction::Silence, clock)).0,
        200
    );
    assert_eq!(
        phone.one("SELECT fingerprint FROM oa.silences ORDER BY id DESC LIMIT 1"),
        "clock_off:crawler1"
    );

    let log = std::fs::read_to_string(phone.site.log()).unwrap();
    let secret = ack.trim_start_matches("/act/");
    assert!(log.is_empty() || !log.contains(secret), "{log}");
    assert_eq!(
        phone.ask("GET", "/admin/").0,
        401,
        "a link opens nothing else"
    );

    // What cannot be done is said in a sentence, without what the database says.
    phone
        .site
        .sql("ALTER TABLE oa.used_links RENAME TO elsewhere");
    let (status, page) = phone.ask("POST", &phone.link(LinkAction::Run, again));
    assert_eq!(status, 503, "{page}");
    assert!(
        page.starts_with("<!DOCTYPE html>") && !page.contains("used_links"),
        "{page}"
    );
}
