#![allow(clippy::unwrap_used)]

use chrono::{TimeZone, Utc};
use oa_core::model::event::{Expected, Finding, Missed, RunFailed, Work};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::{RunError, Status};
use uuid::Uuid;

use super::*;

fn wording(locale: Locale) -> Wording {
    Wording {
        locale,
        timezone: chrono_tz::Asia::Shanghai,
    }
}

fn failed() -> RunFailed {
    let at = |h, m, s| Utc.with_ymd_and_hms(2025, 12, 1, h, m, s).unwrap();
    RunFailed {
        run: Uuid::nil(),
        task: "zhihui-full-view".to_owned(),
        title: "智汇期讯-多空全景".to_owned(),
        work: Work::Source,
        status: Status::Failed,
        error: RunError::new(
            ErrorKind::Http5xx,
            "GET https://hzzhqx.com/api?token=abcdef: HTTP 502",
        ),
        attempts: 4,
        started_at: at(6, 0, 0),
        finished_at: at(6, 3, 5),
        failing_since: Some(at(5, 30, 0)),
        failures: 2,
        last_success_at: Some(at(5, 0, 10)),
        tables: "market_full_view".to_owned(),
        day: None,
        collected: 0,
        expected: None,
        host: "crawler1".to_owned(),
        provider: String::new(),
        history_unknown: false,
    }
}

#[test]
fn a_failure_says_cause_history_effect_and_remedy_in_chinese() {
    let text = wording(Locale::Zh).text(&Event::RunFailed(Box::new(failed())));
    assert_eq!(text.title, "【故障】智汇期讯-多空全景 采集失败");
    assert_eq!(
        text.body,
        "**【故障】智汇期讯-多空全景 采集失败**\n\n\
         - 原因：对方网站自身故障（GET https://hzzhqx.com/api?token=[redacted] HTTP 502）\n\
         - 已尝试：4 次，历时 3 分钟 5 秒\n\
         - 开始于：2025-12-01 13:30:00（连续第 2 次）\n\
         - 上次成功：2025-12-01 13:00:10（1 小时 2 分钟前）\n\
         - 影响：market_full_view 没有新数据\n\
         - 处理：等待对方恢复，下次会自动再采；立即重采：oa-crawl run zhihui-full-view\n\
         - 主机：crawler1\n\
         - 运行编号：00000000-0000-0000-0000-000000000000\n"
    );
}

#[test]
fn the_same_event_is_worded_in_either_language() {
    let event = Event::RunFailed(Box::new(RunFailed {
        status: Status::Partial,
        collected: 2300,
        expected: Some(2434),
        ..failed()
    }));
    let english = wording(Locale::En).text(&event);
    assert_eq!(english.title, "[WARNING] 智汇期讯-多空全景 data incomplete");
    assert!(
        english.body.contains("got 2300 of 2434 records"),
        "{}",
        english.body
    );
    let chinese = wording(Locale::Zh).text(&event);
    assert_eq!(chinese.title, "【警告】智汇期讯-多空全景 数据不完整");
    assert!(chinese.body.contains("只收到 2300 条，应有 2434 条"));
}

#[test]
fn a_recovery_says_how_long_it_lasted() {
    let at = |h, m| Utc.with_ymd_and_hms(2025, 12, 1, h, m, 5).unwrap();
    let text = wording(Locale::Zh).text(&Event::RunRecovered {
        run: Uuid::nil(),
        task: "t".to_owned(),
        title: String::new(),
        failing_since: Some(at(4, 0)),
        failures: 3,
        finished_at: at(6, 3),
        fetched: 75,
    });
    assert_eq!(text.title, "【恢复】t 恢复正常");
    assert!(
        text.body.contains("持续 2 小时 3 分钟，其间失败 3 次") && text.body.contains("收到 75 条"),
        "{}",
        text.body
    );
}

#[test]
fn an_incident_of_an_older_version_is_resolved_by_its_title() {
    let at = Utc.with_ymd_and_hms(2025, 12, 1, 4, 0, 0).unwrap();
    let text = wording(Locale::Zh).text(&Event::FoundNoMore {
        fingerprint: "disk_filling:db1".to_owned(),
        rule: "disk_filling".to_owned(),
        task: None,
        of: Box::new(Event::Message {
            title: "【警告】db1 磁盘空间不足".to_owned(),
            body: String::new(),
        }),
        opened_at: at,
        at,
        ended: Vec::new(),
    });
    assert_eq!(text.title, "【解除】db1 磁盘空间不足");
}

#[test]
fn an_endless_error_text_is_cut_between_characters() {
    let long = "错误\n".repeat(1000);
    let cut = excerpt(&long, 300);
    assert_eq!(cut.chars().count(), 301);
    assert!(cut.ends_with('…'));
}

#[test]
fn nothing_that_others_wrote_is_a_mention_or_a_link() {
    let quoted = |text| excerpt(text, 300);
    assert_eq!(
        quoted("<at id=all></at> <@all>"),
        "＜at id=all>＜/at> ＜@all>"
    );
    assert_eq!(quoted("[log in](http://x)"), "[log in］(http://x)");
    assert_eq!(quoted("[a]\n(http://x)"), "[a] (http://x)");
    assert_eq!(
        quoted("raise max_size in [spool]"),
        "raise max_size in [spool]"
    );
}

#[test]
fn a_long_outage_says_how_many_days_are_not_in_its_list() {
    let last = Utc.with_ymd_and_hms(2025, 12, 1, 7, 30, 0).unwrap();
    let day = |n: u64| last.date_naive() - chrono::Days::new(n);
    let found = Event::Found(Finding::RunMissed {
        task: "tick".to_owned(),
        title: String::new(),
        due_at: last,
        late: 3600,
        last_started_at: None,
        last_success_at: None,
        never: false,
        missed: Missed {
            times: 52,
            last_due_at: Some(last),
            days: (0..40).rev().map(day).collect(),
            earlier_days: 12,
            ..Missed::default()
        },
        expected: Expected::Source,
    });
    let zh = wording(Locale::Zh).text(&found).body;
    assert!(zh.contains("2025-12-01 (40)，此前还有 12 天"), "{zh}");
    let en = wording(Locale::En).text(&found).body;
    assert!(en.contains("(40), and 12 day(s) before these"), "{en}");
}

#[test]
fn a_backup_is_named_as_lists_show_it() {
    let at = Utc.with_ymd_and_hms(2025, 12, 1, 7, 30, 0).unwrap();
    let (repository, id) = ("/r".to_owned(), "3f2a9c81".repeat(8));
    let (error, pages) = ("pack 4711".to_owned(), "page 7".to_owned());
    let found = [
        Finding::BackupDamaged {
            repository: repository.clone(),
            id: id.clone(),
            error: error.clone(),
        },
        Finding::ServerDamaged {
            repository: repository.clone(),
            id: id.clone(),
            at,
            pages,
        },
        Finding::BackupUnrecoverable {
            repository: repository.clone(),
            at,
            id: id.clone(),
            error: error.clone(),
        },
        Finding::DrillFailed {
            repository,
            at,
            backup: id,
            error,
        },
    ];
    for finding in found {
        for locale in [Locale::Zh, Locale::En] {
            let body = wording(locale).text(&Event::Found(finding.clone())).body;
            assert!(body.contains("3f2a9c81"), "{body}");
            assert!(!body.contains("3f2a9c813"), "{body}");
        }
    }
}
