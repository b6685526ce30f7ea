//! Root cause first: people hear of what is down, and not one by one of what fails because of it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::time::Duration;

use chrono::Utc;
use common::{DINGTALK, Service};
use oa_core::journal::incidents::{self, Policy};
use oa_core::journal::spool::Record;
use oa_core::model::event::{Alert, Event, Fault, RunFailed, Work, run_fingerprint};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{RunError, Status};
use uuid::Uuid;

fn failed(task: &str, work: Work, kind: ErrorKind, provider: &str) -> Event {
    Event::RunFailed(Box::new(RunFailed {
        run: Uuid::now_v7(),
        task: task.to_owned(),
        title: format!("任务 {task}"),
        work,
        status: Status::Failed,
        error: RunError::new(kind, "said so"),
        attempts: 1,
        started_at: Utc::now(),
        finished_at: Utc::now(),
        failing_since: None,
        failures: 1,
        last_success_at: None,
        tables: String::new(),
        day: None,
        collected: 0,
        expected: None,
        host: "crawler1".to_owned(),
        provider: provider.to_owned(),
        history_unknown: false,
    }))
}

fn unreachable() -> Event {
    Event::Machine {
        fault: Fault::DatabaseUnreachable,
        host: "crawler1".to_owned(),
        task: None,
        reason: "connection refused".to_owned(),
        schema: None,
        at: Utc::now(),
    }
}

fn policy() -> Policy {
    Policy {
        timezone: chrono_tz::Asia::Shanghai,
        keep_revisions: true,
        repeat: Duration::from_secs(4 * 3600),
    }
}

impl Service {
    fn raise(&self, event: Event) {
        assert!(incidents::raise(&mut self.db(), event, &policy()).unwrap());
    }

    fn recover(&self, task: &str) {
        let resolved = incidents::resolve(&mut self.db(), &run_fingerprint(task), |_, at| {
            Event::RunRecovered {
                run: Uuid::now_v7(),
                task: task.to_owned(),
                title: format!("任务 {task}"),
                failing_since: None,
                failures: 1,
                finished_at: at,
                fetched: 1,
            }
        });
        assert!(resolved.unwrap());
    }

    /// What came since the last time.
    fn news(&self, seen: &mut usize) -> Vec<(String, String)> {
        assert_eq!(self.flush(), 0);
        let all = self.sim.messages();
        let news = all[*seen..].iter();
        let news = news.map(|m| (m.title.clone(), m.text.clone())).collect();
        *seen = all.len();
        news
    }

    fn pass(&self, minutes: u32) {
        let back = format!("- interval '{minutes} minutes'");
        self.sql(&format!(
            "UPDATE oa.alerts SET created_at = created_at {back};
             UPDATE oa.incidents SET opened_at = opened_at {back}, notified_at = notified_at {back}, resolved_at = resolved_at {back};"
        ));
    }
}

#[test]
fn what_follows_is_named_by_its_cause_and_told_only_when_it_stays() {
    let service = Service::start(DINGTALK);
    let mut seen = 0;
    service.raise(failed("export", Work::Program, ErrorKind::Internal, ""));
    service.raise(failed("login", Work::Program, ErrorKind::Auth, ""));
    service.raise(unreachable());
    let news = service.news(&mut seen);
    let titles: Vec<&str> = news.iter().map(|n| n.0.as_str()).collect();
    assert_eq!(titles.len(), 2, "{titles:?}");
    assert!(titles[0].contains("任务 login"), "a person must log in");
    assert!(titles[1].contains("数据库"), "{titles:?}");
    assert!(
        news[1].1.contains("由此引起（1 项）：任务 export"),
        "{news:?}"
    );

    // What follows later is named ten minutes later, once; nothing that is held back counts as undelivered.
    service.raise(failed("dump", Work::Backup, ErrorKind::Network, ""));
    assert_eq!(service.news(&mut seen), []);
    service.pass(11);
    let news = service.news(&mut seen);
    assert_eq!(news.len(), 1, "{news:?}");
    assert!(
        news[0]
            .1
            .contains("由此引起（2 项）：任务 dump、任务 export"),
        "{news:?}"
    );
    assert_eq!(service.news(&mut seen), []);

    // It is over: what recovers with it is nobody's news, and what does not is.
    assert!(
        incidents::resolve_machine(
            &mut service.db(),
            Fault::DatabaseUnreachable,
            "crawler1",
            None
        )
        .unwrap()
    );
    service.recover("dump");
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].0.starts_with("【恢复】crawler1 已连上数据库"),
        "{news:?}"
    );
    service.pass(11);
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].0.contains("任务 export"),
        "{news:?}"
    );
    assert!(
        news[0]
            .1
            .contains("此前归因于「【故障】crawler1 连不上数据库」"),
        "{news:?}"
    );
    service.recover("export");
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].0.contains("任务 export"),
        "who heard of it hears its end: {news:?}"
    );
    service.recover("login");
    assert_eq!(service.news(&mut seen).len(), 1);
    assert_eq!(
        service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL"),
        "0"
    );

    // Sites of three providers at once are the network; two are not.
    for (task, provider) in [("a1", "zhihui"), ("a2", "zhihui"), ("b", "fangqi")] {
        service.raise(failed(task, Work::Source, ErrorKind::Dns, provider));
    }
    assert_eq!(service.news(&mut seen).len(), 3, "two sites may be ill");
    service.raise(failed("c", Work::Source, ErrorKind::Network, "openvlab"));
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].0 == "【故障】crawler1 的网络中断，4 个任务无法采集",
        "{news:?}"
    );
    let (_, found) = service.check();
    assert!(common::rules(&found).contains(&"network_down"), "{found:?}");
    for task in ["a1", "a2", "b", "c"] {
        service.recover(task);
    }
    service.check();
    let titles = service.titles();
    let last = titles[titles.len() - 4..].join("\n");
    assert!(
        last.contains("网络中断") && !last.contains("任务 c"),
        "{titles:?}"
    );
}

#[test]
fn nothing_is_held_for_ever_or_from_whom_does_not_hear_of_its_cause() {
    let own = DINGTALK.replace("\"ops\"", "\"own\"");
    let own = own.replace("kind", "tasks = [\"own\"]\nrules = [\"run_partial\"]\nkind");
    let service = Service::start(&format!("{DINGTALK}{own}"));
    let mut seen = 0;
    let heard = |news: &[(String, String)], task: &str| {
        let of = news.iter().filter(|n| n.0.contains(task));
        of.count()
    };
    service.raise(unreachable());
    assert_eq!(service.news(&mut seen).len(), 1);

    // One channel gets the task and not its cause: it is held back from the other one only, and so is its end.
    let Event::RunFailed(mut run) = failed("own", Work::Program, ErrorKind::Db, "") else {
        unreachable!()
    };
    run.status = Status::Partial;
    service.raise(Event::RunFailed(run));
    let news = service.news(&mut seen);
    assert_eq!(heard(&news, "任务 own"), 1, "{news:?}");
    assert!(news[0].1.contains("尚未恢复"), "{news:?}");
    service.recover("own");
    let news = service.news(&mut seen);
    assert_eq!(heard(&news, "任务 own"), 1, "{news:?}");

    // It fails again and again, and each time is an alert.
    service.raise(failed("export", Work::Program, ErrorKind::Internal, ""));
    for hours in [0, 4, 8] {
        let news = service.news(&mut seen);
        assert_eq!(heard(&news, "任务 export"), 0, "{hours}: {news:?}");
        service.pass(241);
        service.raise(failed("export", Work::Program, ErrorKind::Internal, ""));
    }
    let news = service.news(&mut seen);
    assert_eq!(heard(&news, "任务 export"), 1, "{news:?}");
    let lines = news.iter().flat_map(|n| n.1.lines());
    let of_it: Vec<&str> = lines
        .filter(|l| l.contains("任务 export") && !l.contains("汇总"))
        .collect();
    assert!(
        !of_it.join("").contains("次提醒"),
        "nobody heard of it before: {of_it:?}"
    );

    // Nobody hears of the cause: it is silenced.
    service.sql(
        "INSERT INTO oa.silences (rule, by, until) VALUES ('schema_unfit', 'me', now() + interval '1 hour')",
    );
    let host = "crawler1";
    incidents::resolve_machine(&mut service.db(), Fault::DatabaseUnreachable, host, None).unwrap();
    service.pass(11);
    service.news(&mut seen);
    service.raise(Event::Machine {
        fault: Fault::SchemaUnfit,
        host: host.to_owned(),
        task: None,
        reason: String::new(),
        schema: None,
        at: Utc::now(),
    });
    service.raise(failed("dump", Work::Backup, ErrorKind::Network, ""));
    let news = service.news(&mut seen);
    assert_eq!((news.len(), heard(&news, "任务 dump")), (1, 1), "{news:?}");

    // A digest says that something follows from one of its lines.
    service.sql("UPDATE oa.silences SET until = now()");
    for task in ["l1", "l2", "l3", "l4", "l5", "l6"] {
        service.raise(failed(task, Work::Program, ErrorKind::Auth, ""));
    }
    service.raise(unreachable());
    service.raise(failed("late", Work::Program, ErrorKind::Db, ""));
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].1.contains("（由此引起"),
        "{news:?}"
    );
}

#[test]
fn a_network_that_is_down_for_a_day_has_not_recovered() {
    let service = Service::start(DINGTALK);
    let mut seen = 0;
    for (task, provider) in [("a", "zhihui"), ("b", "fangqi"), ("c", "openvlab")] {
        service.raise(failed(task, Work::Source, ErrorKind::Dns, provider));
    }
    let news = service.news(&mut seen);
    assert!(
        news.len() == 1 && news[0].0.contains("网络中断"),
        "{news:?}"
    );
    service.pass(13 * 60);
    let (_, found) = service.check();
    assert!(common::rules(&found).contains(&"network_down"), "{found:?}");
    assert_eq!(
        service.one(
            "SELECT (resolved_at IS NULL)::text FROM oa.incidents WHERE rule = 'network_down'"
        ),
        "true"
    );
}

#[test]
fn while_postgresql_is_down_one_message_names_what_fails_because_of_that() {
    let mut service = Service::start(DINGTALK);
    service.server.stop();
    let put = |event: Event| {
        service
            .spool()
            .put(&[Record::Alert(Alert::new(event))])
            .unwrap();
    };
    put(failed("export", Work::Program, ErrorKind::Internal, ""));
    put(unreachable());
    put(failed("site", Work::Source, ErrorKind::Http5xx, "zhihui"));
    assert_eq!(service.flush(), 75);
    let messages = service.sim.messages();
    assert_eq!(messages.len(), 2, "{messages:?}");
    assert!(
        messages[0].text.contains("由此引起（1 项）：任务 export"),
        "{messages:?}"
    );
    assert!(messages[1].title.contains("任务 site"), "{messages:?}");
    put(failed("dump", Work::Backup, ErrorKind::Network, ""));
    assert_eq!(service.flush(), 75);
    assert_eq!(service.sim.messages().len(), 2, "it is held back");

    // Back: both may still go with their cause. Killed or not, nothing is sent twice.
    service.server.start_again();
    assert_eq!(service.flush(), 0);
    assert_eq!(
        service.one("SELECT string_agg(task, ',' ORDER BY task) FROM oa.alerts WHERE follows = 'database_unreachable:crawler1'"),
        "dump,export"
    );
    let titles = service.titles();
    assert!(
        !titles[2..].iter().any(|t| t.contains("任务")),
        "{titles:?}"
    );
    service.recover("export");
    incidents::resolve_machine(
        &mut service.db(),
        Fault::DatabaseUnreachable,
        "crawler1",
        None,
    )
    .unwrap();
    service.pass(11);
    assert_eq!(service.flush(), 0);
    let titles = service.titles();
    let titles = titles.join("\n");
    assert!(titles.contains("任务 dump"), "{titles}");
    assert!(!titles.contains("任务 export"), "{titles}");
}
