//! What cards look like, in both languages: open, acknowledged with something done, and over.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::{DateTime, TimeZone, Utc};
use oa_core::app::config::Locale;
use oa_core::model::Severity;
use oa_wording::Wording;

use super::card::{Card, Deed, State};
use super::{dingtalk_app, feishu_app};
use crate::render::Action;

fn at(minute: u32) -> DateTime<Utc> {
    Utc.with_ymd_and_hms(2025, 12, 1, 6, minute, 0).unwrap()
}

fn action(what: &str, word: &str) -> Action {
    Action {
        what: what.to_owned(),
        word: word.to_owned(),
        signed: format!("SIGNED-{what}"),
        url: Some(format!("https://oa.example.com/act/SIGNED-{what}")),
    }
}

fn states() -> [State; 3] {
    let deed = |minute| Deed {
        by: "zhangsan (ops-cards)\nx".to_owned(),
        at: at(minute),
    };
    let acknowledged = State {
        acknowledged_by: Some("zhangsan (ops-cards)".to_owned()),
        done: BTreeMap::from([
            ("acknowledge".to_owned(), deed(1)),
            ("silence".to_owned(), deed(2)),
            ("run".to_owned(), deed(3)),
        ]),
        ..State::default()
    };
    let over = State {
        over: true,
        over_at: Some(at(30)),
        ..State::default()
    };
    [State::default(), acknowledged, over]
}

#[test]
fn a_card_says_what_has_become_of_its_incident() {
    for (name, locale) in [("zh", Locale::Zh), ("en", Locale::En)] {
        let wording = Wording {
            locale,
            timezone: chrono_tz::Asia::Shanghai,
        };
        let words = match locale {
            Locale::Zh => ["认领", "静默 2 小时", "重跑", "看日志"],
            Locale::En => [
                "Acknowledge",
                "Silence for 2 h",
                "Run again",
                "Show the run",
            ],
        };
        let whats = ["acknowledge", "silence", "run", "log"];
        let card = Card {
            title: "【故障】持仓排名 采集失败".to_owned(),
            text: "- 原因：HTTP 502\n- 影响：没有数据".to_owned(),
            severity: Severity::Critical,
            recovery: false,
            actions: whats
                .iter()
                .zip(words)
                .map(|(what, word)| action(what, word))
                .collect(),
        };
        let mut page = String::new();
        for state in states() {
            let lines = state.lines(&wording);
            let feishu = feishu_app::content(&card, &state, &lines, locale);
            let feishu: serde_json::Value = serde_json::from_str(&feishu).unwrap();
            let dingtalk = dingtalk_app::variables(&card, &state, &lines, locale);
            for shown in [feishu, dingtalk] {
                let _ = writeln!(page, "{}\n", serde_json::to_string_pretty(&shown).unwrap());
            }
        }
        insta::assert_snapshot!(format!("cards_{name}"), page);
    }
}
