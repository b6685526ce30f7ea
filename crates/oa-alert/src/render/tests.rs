#![allow(clippy::unwrap_used)]
use proptest::prelude::*;

use super::*;

fn message(title: &str) -> Message {
    Message {
        title: title.to_owned(),
        body: format!("**{title}**\n\n- 原因\n"),
        severity: Severity::Warning,
        recovery: false,
        link: None,
        parts: Vec::new(),
    }
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
    let digest = digest(vec![message("甲"), message("乙")], None, Locale::Zh);
    assert_eq!(digest.title, "【汇总】2 条告警");
    let text = form(1000).fit(&digest);
    assert!(
        text.contains("- 甲\n- 乙\n") && text.contains("**乙**"),
        "{text}"
    );
    let mut many: Vec<Message> = (0..1000).map(|n| message(&format!("告警 {n}"))).collect();
    many[990].severity = Severity::Critical;
    let text = form(4096).fit(&super::digest(many, None, Locale::Zh));
    assert!(
        text.starts_with("**【汇总】1000 条告警**\n\n- 告警 0\n- 告警 1\n"),
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
        let shown = form.fit(&digest(parts, None, form.locale));
        prop_assert!(size(&form, &shown) <= form.limit, "{} > {}: {shown}", size(&form, &shown), form.limit);
        prop_assert!(shown.contains(&titles.len().to_string()), "{shown}");
        let named: Vec<bool> = (0..titles.len()).map(|n| shown.contains(&format!("\n- <{n}>{}", titles[n]))).collect();
        let unnamed = named.iter().filter(|n| !**n).count();
        let counted = [format!("另有 {unnamed} 条未列出"), format!("and {unnamed} more")];
        prop_assert_eq!(unnamed > 0, counted.iter().any(|c| shown.contains(c)), "{}", shown);
        // Those that are named stand in their order.
        let places: Vec<usize> = (0..titles.len()).filter(|n| named[*n]).map(|n| shown.find(&format!("- <{n}>")).unwrap()).collect();
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
