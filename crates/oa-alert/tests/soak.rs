//! Many events, a robot that fails half of the time, senders that are killed: nothing is lost, and nothing comes twice without
//! saying so.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::collections::HashMap;

use common::{DINGTALK, Dice, Service};
use oa_core::journal::incidents;
use oa_sim::Options;

/// `OA_ALERT_EVENTS` makes it longer.
fn events() -> u64 {
    let given = std::env::var("OA_ALERT_EVENTS").ok();
    given.map_or(150, |n| n.parse().expect("OA_ALERT_EVENTS is a number"))
}

#[test]
fn nothing_is_lost_and_nothing_comes_twice_without_saying_so() {
    let service = Service::start_with(
        &format!("{DINGTALK}per_minute = 1000000\n"),
        Options {
            dingtalk_secret: Some("SECx-secret".into()),
            rate_limit_per_minute: 1_000_000,
            ..Options::default()
        },
    );
    let mut dice = Dice(7);
    let (events, mut next, mut killed) = (events(), 0, 0);
    while next < events {
        let mut db = service.db();
        for _ in 0..=dice.below((events / 150).clamp(7, 60)) {
            let alert = common::new_alert(&format!("f{}", next % 5), &format!("<e{next}>"));
            incidents::put(&mut db, &alert).unwrap();
            next += 1;
        }
        service.sim.clear_faults();
        // Half of the time it takes nothing, or takes it and does not say so.
        if dice.below(2) == 0 {
            let fault = ["502", "reset", "truncate"][dice.below(3) as usize];
            service
                .sim
                .fault(&format!("/dingtalk: {fault} x1 then ok"))
                .unwrap();
        }
        match dice.below(5) {
            // Dies with the message sent and nothing recorded.
            0 => {
                let mut command = service.command(&["flush"]);
                killed += u64::from(
                    command
                        .env("OA_FAILPOINT", "alert.sent")
                        .output()
                        .unwrap()
                        .status
                        .code()
                        .is_none(),
                );
            }
            1 => {
                let two: Vec<_> = (0..2)
                    .map(|_| {
                        service
                            .command(&["flush"])
                            .stdout(std::process::Stdio::null())
                            .spawn()
                            .unwrap()
                    })
                    .collect();
                for mut one in two {
                    one.wait().unwrap();
                }
            }
            _ => {
                service.flush();
            }
        }
        service.hurry();
    }
    service.sim.clear_faults();
    while service.one("SELECT count(*)::text FROM oa.alerts WHERE settled_at IS NULL") != "0" {
        assert_eq!(service.flush(), 0);
        service.hurry();
    }
    assert!(killed > 0, "some senders were killed");
    let messages = service.sim.messages();
    // An alert begins with its title; a digest has a line for each.
    let mut came: HashMap<u64, Vec<(usize, bool)>> = HashMap::new();
    for (order, message) in messages.iter().enumerate() {
        assert!(!message.text.contains("未列出"), "{}", message.text);
        let begin = if message.title.starts_with("【汇总】") {
            "- <e"
        } else {
            "**<e"
        };
        let lines = message.text.lines().enumerate();
        for (at, line) in lines.filter_map(|(at, l)| Some((at, l.strip_prefix(begin)?))) {
            let number: u64 = line[..line.find('>').unwrap()].parse().unwrap();
            let place = order * 1_000_000 + at;
            let marked = line.contains("可能重复");
            came.entry(number).or_default().push((place, marked));
        }
    }
    for number in 0..next {
        let times = &came[&number];
        assert!(
            times[1..].iter().all(|(_, marked)| *marked),
            "{number} came again without saying so: {times:?}"
        );
    }
    for fingerprint in 0..5 {
        let firsts: Vec<usize> = (0..next)
            .filter(|n| n % 5 == fingerprint)
            .map(|n| came[&n][0].0)
            .collect();
        assert!(firsts.is_sorted(), "out of order: {firsts:?}");
    }
}
