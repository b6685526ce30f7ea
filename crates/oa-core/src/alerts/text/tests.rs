#![allow(clippy::unwrap_used)]
use chrono::TimeZone;

use super::*;
use crate::runs::{Attempt, Quality, RunStart, Trigger};

fn policy(locale: Locale) -> Policy {
    Policy {
        locale,
        timezone: chrono_tz::Asia::Shanghai,
        repeat: Duration::from_secs(3600),
    }
}

fn outcome(status: Status, kind: ErrorKind, message: &str) -> Outcome {
    let started = Utc.with_ymd_and_hms(2025, 12, 1, 6, 0, 0).unwrap();
    let mut start = RunStart::now(
        "oa-crawl",
        "0.1.0",
        "zhihui-full-view",
        "智汇期讯-多空全景",
        Trigger::Cron,
        Duration::from_secs(60),
    );
    start.id = Uuid::nil();
    start.started_at = started;
    let mut outcome = Outcome::bare(start, status, started + chrono::TimeDelta::seconds(185));
    outcome.error = Some(RunError::new(kind, message));
    outcome
        .details
        .insert("table".into(), "market_full_view".into());
    outcome.attempts = (1..=4)
        .map(|number| Attempt {
            number,
            started_at: started,
            finished_at: started,
            outcome: status,
            error: outcome.error.clone(),
        })
        .collect();
    outcome
}

#[test]
fn a_failure_tells_cause_history_effect_and_remedy_in_chinese() {
    let state = TaskState {
        consecutive_failures: 2,
        failing_since: Some(Utc.with_ymd_and_hms(2025, 12, 1, 5, 30, 0).unwrap()),
        last_success_at: Some(Utc.with_ymd_and_hms(2025, 12, 1, 5, 0, 10).unwrap()),
        outdated: false,
    };
    let alert = failed(
        &outcome(
            Status::Failed,
            ErrorKind::Http5xx,
            "GET https://hzzhqx.com/api?token=abcdef: HTTP 502",
        ),
        &state,
        &policy(Locale::Zh),
        Severity::Critical,
    );
    assert_eq!(alert.title, "【故障】智汇期讯-多空全景 采集失败");
    assert_eq!(
        alert.body,
        "**【故障】智汇期讯-多空全景 采集失败**\n\n\
         - 原因：对方网站自身故障（GET https://hzzhqx.com/api?token=[redacted] HTTP 502）\n\
         - 已尝试：4 次，历时 3 分钟 5 秒\n\
         - 开始于：2025-12-01 13:30:00（连续第 2 次）\n\
         - 上次成功：2025-12-01 13:00:10（1 小时 2 分钟前）\n\
         - 影响：market_full_view 没有新数据\n\
         - 处理：等待对方恢复，下次会自动再采\n\
         - 运行编号：00000000-0000-0000-0000-000000000000\n"
    );
}

#[test]
fn a_partial_run_is_a_warning_with_the_numbers() {
    let mut outcome = outcome(Status::Partial, ErrorKind::Partial, "2300 of 2434");
    outcome.quality = Some(Quality {
        day: None,
        expected: Some(2434),
        collected: 2300,
        duplicates: 0,
        fresh: None,
        findings: vec![],
    });
    let alert = failed(
        &outcome,
        &TaskState::default(),
        &policy(Locale::En),
        Severity::Warning,
    );
    assert_eq!(alert.title, "[WARNING] 智汇期讯-多空全景 data incomplete");
    assert!(
        alert.body.contains("got 2300 of 2434 records"),
        "{}",
        alert.body
    );
}

#[test]
fn a_recovery_says_how_long_it_lasted() {
    let state = TaskState {
        consecutive_failures: 3,
        failing_since: Some(Utc.with_ymd_and_hms(2025, 12, 1, 4, 0, 0).unwrap()),
        ..TaskState::default()
    };
    let mut outcome = outcome(Status::Success, ErrorKind::Internal, "");
    outcome.fetched = 75;
    let alert = recovered(&outcome, &state, &policy(Locale::Zh));
    assert_eq!(alert.title, "【恢复】智汇期讯-多空全景 恢复正常");
    assert!(
        alert.body.contains("持续 2 小时 3 分钟，其间失败 3 次")
            && alert.body.contains("收到 75 条"),
        "{}",
        alert.body
    );
}

#[test]
fn durations_are_said_in_two_units() {
    let zh = |s| human_duration(Duration::from_secs(s), Locale::Zh);
    assert_eq!(zh(0), "不到 1 秒");
    assert_eq!(zh(59), "59 秒");
    assert_eq!(zh(3600), "1 小时");
    assert_eq!(zh(90_061), "1 天 1 小时");
    assert_eq!(zh(86_405), "1 天");
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
