#![allow(clippy::unwrap_used)]
use oa_wording::Wording;
use proptest::prelude::*;

use super::*;

fn message(title: &str) -> Message {
    Message {
        title: title.to_owned(),
        body: format!("**{title}**\n\n- 原因\n"),
        severity: Severity::Warning,
        recovery: false,
        link: None,
        facts: None,
        digest: None,
        actions: Vec::new(),
    }
}

fn zh() -> Wording {
    Wording {
        locale: Locale::Zh,
        timezone: chrono_tz::Asia::Shanghai,
    }
}

/// An alert of an incident, so many minutes after noon.
fn of(kind: Kind, fingerprint: &str, severity: Severity, minute: u32) -> Message {
    let mark = match (kind, severity) {
        (Kind::Recovery, _) => "【恢复】",
        (_, Severity::Critical) => "【故障】",
        _ => "【警告】",
    };
    Message {
        severity,
        recovery: kind == Kind::Recovery,
        facts: Some(Facts {
            id: Uuid::nil(),
            fingerprint: fingerprint.to_owned(),
            kind,
            severity,
            what: format!("{mark}{fingerprint}"),
            rule: "run_failed".to_owned(),
            task: None,
            run: None,
            host: None,
            at: "2025-12-01T04:00:00Z".parse::<DateTime<Utc>>().unwrap()
                + chrono::TimeDelta::minutes(i64::from(minute)),
            since: None,
            cause: None,
        }),
        ..message(&format!("{mark}{fingerprint}"))
    }
}

#[test]
fn after_an_outage_what_has_healed_is_folded_and_what_is_open_comes_first_and_worst_first() {
    let mut parts: Vec<Message> = (0..60)
        .map(|n| {
            let severity = if n % 10 == 0 {
                Severity::Warning
            } else {
                Severity::Critical
            };
            of(Kind::Problem, &format!("来源{n:02}"), severity, n)
        })
        .collect();
    parts.extend((20..60).map(|n| {
        of(
            Kind::Recovery,
            &format!("来源{n:02}"),
            Severity::Info,
            60 + n,
        )
    }));
    parts.push(of(Kind::Recovery, "早先", Severity::Info, 70));
    let digest = digest(parts, None, &zh());
    assert_eq!(
        digest.title,
        "【汇总】已自行恢复 40 项；已恢复 1 项；仍未恢复 20 项（故障 18，警告 2）：来源01、来源02、来源03 等"
    );
    assert_eq!(
        (digest.severity, digest.recovery),
        (Severity::Critical, false)
    );
    for limit in [4096, 20_000] {
        let text = form(limit).fit(&digest);
        let place = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what}: {text}"));
        assert!(
            place("仍未恢复 20 项**\n\n- 【故障】来源01（12-01 12:01 起）\n")
                < place("- 【警告】来源00"),
            "{text}"
        );
        assert!(
            place("- 【警告】来源10") < place("**已恢复 1 项**\n\n- 【恢复】早先"),
            "{text}"
        );
        assert!(
            place("早先")
                < place("**已自行恢复 40 项**\n\n- 【恢复】来源20（12-01 12:20 至 12-01 13:20）"),
            "{text}"
        );
        assert!(!text.contains("【故障】来源21"), "{text}");
    }
    let mut reminder = of(Kind::Problem, "丙", Severity::Critical, 9);
    reminder.title.push_str("（仍未恢复，第 1 次提醒）");
    let first = of(Kind::Problem, "丙", Severity::Critical, 1);
    let folded = super::digest(vec![first, reminder], None, &zh());
    let text = form(4096).fit(&folded);
    assert_eq!(text.matches("\n- 【故障】丙").count(), 1, "{text}");
    let over: Vec<Message> = vec![
        of(Kind::Recovery, "甲", Severity::Info, 1),
        of(Kind::Recovery, "乙", Severity::Info, 2),
    ];
    let over = super::digest(over, None, &zh());
    assert_eq!(
        (over.title.as_str(), over.recovery),
        ("【汇总】已恢复 2 项：甲、乙", true)
    );
}

#[test]
fn many_failures_of_one_cause_are_one_line_that_names_them_as_far_as_there_is_room() {
    let parts: Vec<Message> = (0..600)
        .map(|n| {
            let mut part = of(
                Kind::Problem,
                &format!("task-{n:03}"),
                Severity::Critical,
                0,
            );
            part.facts.as_mut().unwrap().cause = Some((format!("task-{n:03}"), "程序以错误结束"));
            part
        })
        .collect();
    let digest = digest(parts, None, &zh());
    assert_eq!(
        digest.title,
        "【汇总】600 条告警（故障 600）：task-000、task-001、task-002 等"
    );
    let text = form(17_000).fit(&digest);
    assert!(
        text.contains("- 【故障】程序以错误结束（600 项）：task-000、task-001、"),
        "{text}"
    );
    assert!(text.contains("、task-599\n"), "{text}");
    assert_eq!(text.matches("- 原因").count(), 1, "one text stands for all");
    let text = form(2048).fit(&digest);
    assert!(text.len() <= 2048, "{}", text.len());
    let named = text.matches("task-").count() - 3;
    assert!(
        text.contains(&format!("\n- 另有 {} 条未列出", 600 - named)),
        "{text}"
    );
}

fn form(limit: usize) -> Form {
    Form {
        limit,
        json: false,
        markdown: true,
        locale: Locale::Zh,
    }
}

#[test]
fn a_text_is_cut_at_a_line_and_says_so() {
    let mut long = message("标题");
    long.body = "第一行\n".repeat(100);
    let short = form(200).fit(&long);
    assert!(
        short.len() <= 200
            && short.contains("第一行\n…（内容过长，此处截断，全文见 oa-alert list --all）"),
        "{short}"
    );
    long.link = Some("https://oa.example.com/admin/runs/1".to_owned());
    let short = form(200).fit(&long);
    assert!(
        short.len() <= 200
            && short.ends_with("全文见网页）\n[查看详情](https://oa.example.com/admin/runs/1)"),
        "{short}"
    );
    long.body = "短".to_owned();
    let plain = Form {
        markdown: false,
        ..form(200)
    };
    assert_eq!(
        plain.fit(&long),
        "短\n详情：https://oa.example.com/admin/runs/1"
    );
}

#[test]
fn a_digest_names_every_message_and_counts_what_does_not_fit() {
    let digest = digest(vec![message("甲"), message("乙")], None, &zh());
    assert_eq!(digest.title, "【汇总】2 条告警：甲、乙");
    let text = form(1000).fit(&digest);
    assert!(
        text.contains("- 甲\n- 乙\n") && text.contains("**乙**"),
        "{text}"
    );
    let mut many: Vec<Message> = (0..1000).map(|n| message(&format!("告警 {n}"))).collect();
    many[990].severity = Severity::Critical;
    let text = form(4096).fit(&super::digest(many, None, &zh()));
    assert!(
        text.starts_with("**【汇总】1000 条告警：告警 990、告警 0、告警 1 等**\n\n- 告警 990\n- 告警 0\n- 告警 1\n"),
        "{text}"
    );
    assert!(
        text.contains("- 告警 990\n"),
        "the worst are named first: {text}"
    );
    let named = text.matches("\n- 告警").count();
    assert!(
        text.contains(&format!("\n- 另有 {} 条未列出", 1000 - named)),
        "{text}"
    );
}

#[test]
fn a_title_is_one_line_of_bounded_length() {
    let title = |t: &str| form(0).title(&message(t));
    assert_eq!(title("a\nSubject: b"), "a Subject: b");
    assert_eq!(title("\n"), "oa");
    let long = title(&"长".repeat(1000));
    assert!(long.len() <= 300 && long.ends_with("长…"), "{long}");
}

/// What error messages hold: letters, quotes, control characters, line ends, everything beyond ASCII.
fn text() -> impl Strategy<Value = String> {
    "(\\PC|[\"\\\\\n\t\u{1}\u{7f}中😀]|\\*\\*){0,400}"
}

fn any_form() -> impl Strategy<Value = Form> {
    (0_usize..900, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(limit, json, markdown, zh)| Form {
            limit,
            json,
            markdown,
            locale: if zh { Locale::Zh } else { Locale::En },
        },
    )
}

fn size(form: &Form, text: &str) -> usize {
    if form.json {
        // Without the quotes around it.
        serde_json::to_string(text).unwrap().len() - 2
    } else {
        text.len()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_text_never_exceeds_the_limit_keeps_its_beginning_and_points_to_the_rest(
        body in text(), form in any_form(), link in any::<bool>()
    ) {
        let mut message = message("t");
        message.body = body;
        message.link = link.then(|| "https://oa.example.com/admin/".to_owned());
        let shown = form.fit(&message);
        prop_assert!(size(&form, &shown) <= form.limit, "{} > {}: {shown}", size(&form, &shown), form.limit);
        let whole = if form.markdown { message.body.clone() } else { message.body.replace("**", "") };
        if shown.starts_with(&whole) {
            prop_assert!(!link || shown.contains("https://oa.example.com/admin/") || size(&form, &whole) + 50 > form.limit);
            return Ok(());
        }
        // Beginning, then the note and the link, where there is room for them at all.
        let note = shown.rfind("\n… (").or_else(|| shown.rfind("\n…（"));
        let begin = &shown[..note.unwrap_or(shown.len())];
        prop_assert!(whole.starts_with(begin), "{begin:?} of {whole:?}");
        if form.limit > 200 {
            prop_assert!(note.is_some());
            prop_assert!(!link || shown.contains("https://oa.example.com/admin/"));
            prop_assert!(size(&form, begin) * 2 + 200 >= form.limit.min(size(&form, &whole)), "too little is left: {shown}");
        }
    }

    #[test]
    fn in_a_digest_every_message_is_named_or_counted(
        titles in prop::collection::vec("[a-z中😀\"]{1,40}", 2..60), severities in prop::collection::vec(0_u8..3, 60),
        form in any_form()
    ) {
        let form = Form { limit: form.limit + 250, ..form };
        let parts: Vec<Message> = titles.iter().enumerate().map(|(n, title)| Message {
            severity: [Severity::Info, Severity::Warning, Severity::Critical][severities[n] as usize],
            ..message(&format!("<{n}>{title}"))
        }).collect();
        let severity: Vec<Severity> = parts.iter().map(|p| p.severity).collect();
        let shown = form.fit(&digest(parts, None, &Wording { locale: form.locale, ..zh() }));
        prop_assert!(size(&form, &shown) <= form.limit, "{} > {}: {shown}", size(&form, &shown), form.limit);
        prop_assert!(shown.contains(&titles.len().to_string()), "{shown}");
        let named: Vec<bool> = (0..titles.len()).map(|n| shown.contains(&format!("\n- <{n}>{}", titles[n]))).collect();
        let unnamed = named.iter().filter(|n| !**n).count();
        let counted = [format!("另有 {unnamed} 条未列出"), format!("and {unnamed} more")];
        prop_assert_eq!(unnamed > 0, counted.iter().any(|c| shown.contains(c)), "{}", shown);
        // Those that are named stand in their order, the worst first.
        let mut order: Vec<usize> = (0..titles.len()).filter(|n| named[*n]).collect();
        order.sort_by_key(|n| std::cmp::Reverse(severity[*n]));
        let places: Vec<usize> = order.into_iter().map(|n| shown.find(&format!("- <{n}>")).unwrap()).collect();
        prop_assert!(places.is_sorted());
        // Short titles: none is left out for one that is less bad.
        let longest = (0..titles.len()).map(|n| size(&form, &titles[n])).max().unwrap_or_default();
        if longest == (0..titles.len()).map(|n| size(&form, &titles[n])).min().unwrap_or_default() {
            let best_unnamed = (0..titles.len()).filter(|n| !named[*n]).map(|n| severity[n]).max();
            let worst_named = (0..titles.len()).filter(|n| named[*n]).map(|n| severity[n]).min();
            prop_assert!(best_unnamed <= worst_named.or(best_unnamed) || titles.len() > 10);
        }
    }
}
