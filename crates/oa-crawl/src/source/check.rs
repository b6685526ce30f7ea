//! Checks of a source file that its types cannot express.

use oa_core::base::mistakes::nearest;
use oa_core::service;

use super::folder::{self, FOLDER};
use super::selector::selector;
use super::{
    DayElsewhere, DayPlace, FetchKind, FieldType, Source, Step, access, forms, placeholders,
};

pub(super) fn check(source: &Source) -> Result<(), String> {
    if !folder::is_name(&source.name) || source.name == FOLDER {
        return Err(format!(
            "name \"{}\" must consist of a-z, 0-9 and -, and be none of the program's own",
            source.name
        ));
    }
    source.retry.check()?;
    if source.alert_after == 0 {
        return Err("alert_after is 0; 1 reports every first failure".to_owned());
    }
    source
        .schedule_in(service::TIMEZONE)
        .map_err(|e| e.to_string())?;
    check_fetch(source)?;
    access::check(source)?;
    placeholders::check(source)?;
    source.check_shows()?;
    source.check_again()?;
    for (name, share) in [
        ("max_rejected", source.max_rejected),
        ("min_of_usual", source.min_of_usual),
    ] {
        if !(0.0..=1.0).contains(&share) {
            return Err(format!(
                "{name} is {share}, which is no share between 0 and 1"
            ));
        }
    }
    check_answer(source)?;
    check_fields(source)?;
    check_latest(source)?;
    check_columns(source)
}

fn check_latest(source: &Source) -> Result<(), String> {
    let Some(latest) = &source.latest else {
        return Ok(());
    };
    if latest.columns.is_empty() {
        return Err("[latest] names no columns".to_owned());
    }
    let of_rows = latest.columns.values().flat_map(forms::Names::all);
    for column in [&latest.key, &latest.largest].into_iter().chain(of_rows) {
        if !source.fields.iter().any(|f| f.column == *column) {
            return Err(format!(
                "[latest] names the column \"{column}\", which no field fills"
            ));
        }
    }
    Ok(())
}

/// Each field by itself.
fn check_fields(source: &Source) -> Result<(), String> {
    let columns: Vec<&str> = source.fields.iter().map(|f| f.column.as_str()).collect();
    for (i, field) in source.fields.iter().enumerate() {
        if columns[..i].contains(&field.column.as_str()) {
            return Err(format!(
                "column \"{}\" stands twice in [[fields]]",
                field.column
            ));
        }
        let ways = [&field.from, &field.value, &field.compose];
        if ways.iter().filter(|w| w.is_some()).count() != 1 {
            return Err(format!(
                "field \"{}\" needs either from, compose or value",
                field.column
            ));
        }
        if field
            .compose
            .as_deref()
            .is_some_and(|c| placeholders::names(c).is_empty())
        {
            return Err(format!(
                "compose of field \"{}\" names no field of the record between braces",
                field.column
            ));
        }
        if let Some(Err(e)) = field.pattern.as_deref().map(regex::Regex::new) {
            return Err(format!("pattern of field \"{}\": {e}", field.column));
        }
        if let Some(Err(e)) = field.extract.as_deref().map(regex::Regex::new) {
            return Err(format!("extract of field \"{}\": {e}", field.column));
        }
        if field.epoch.is_some() && !matches!(field.of_type, FieldType::Date | FieldType::DateTime)
        {
            return Err(format!(
                "field \"{}\" has epoch, but its type is neither date nor datetime",
                field.column
            ));
        }
        if field.otherwise.is_some() && field.map.is_empty() {
            return Err(format!(
                "field \"{}\" has otherwise but no map",
                field.column
            ));
        }
    }
    Ok(())
}

/// What names a column names one that a field fills.
fn check_columns(source: &Source) -> Result<(), String> {
    let columns: Vec<&str> = source.fields.iter().map(|f| f.column.as_str()).collect();
    let known = |column: &str, key: &str| {
        if columns.contains(&column) {
            Ok(())
        } else {
            Err(format!(
                "{key} names column \"{column}\", which no [[fields]] fills{}",
                nearest(column, columns.iter().copied())
            ))
        }
    };
    for column in &source.store.unique {
        known(column, "unique in [store]")?;
        let field = source.fields.iter().find(|f| f.column == *column);
        if field.is_some_and(|f| !f.required && f.value.is_none()) {
            return Err(format!(
                "column \"{column}\" is part of unique in [store], so its field must be required"
            ));
        }
    }
    for sum in &source.sums {
        for column in sum.parts.iter().chain([&sum.total]) {
            known(column, "[[sums]]")?;
        }
    }
    if let Some(freshness) = &source.freshness {
        known(&freshness.column, "[freshness]")?;
        let field = source.fields.iter().find(|f| f.column == freshness.column);
        if field.is_some_and(|f| f.from.is_none()) {
            return Err(format!(
                "column \"{}\" in [freshness] is filled by the source file itself, which proves nothing; name one that comes from the records",
                freshness.column
            ));
        }
    }
    if source.store.unique.is_empty() {
        return Err(
            "unique in [store] is empty; without a natural key records would be stored twice"
                .to_owned(),
        );
    }
    if source.store.key.is_empty() && service::natural_key(&source.store.table).is_none() {
        return Err(format!(
            "table \"{}\" is not one of the service's; give its unique index as key in [store]",
            source.store.table
        ));
    }
    Ok(())
}

fn check_fetch(source: &Source) -> Result<(), String> {
    let fetch = &source.fetch;
    if fetch.kind == FetchKind::Command {
        if fetch.command.is_empty() {
            return Err(
                "[fetch] with kind = \"command\" needs command = [\"program\", …]".to_owned(),
            );
        }
        let of_http = [fetch.base.as_str(), &fetch.path];
        if of_http.iter().any(|t| !t.is_empty())
            || !fetch.form.is_empty()
            || fetch.json.is_some()
            || source.paging.is_some()
        {
            return Err(
                "base, path, form, json and [paging] are for sites, not for kind = \"command\""
                    .to_owned(),
            );
        }
        return Ok(());
    }
    if !fetch.command.is_empty() {
        return Err("command in [fetch] needs kind = \"command\"".to_owned());
    }
    if let Some(wrong) = fetch.redirects.iter().find(|o| !is_origin(o)) {
        return Err(format!(
            "\"{wrong}\" of redirects in [fetch] is no origin; write scheme and host alone, such as https://files.example.com"
        ));
    }
    if !fetch.base.starts_with("http://") && !fetch.base.starts_with("https://") {
        return Err(format!(
            "base \"{}\" in [fetch] must begin with http:// or https://",
            fetch.base
        ));
    }
    if fetch.json.is_some() && !fetch.form.is_empty() {
        return Err("[fetch] has both form and json; a request has one body".to_owned());
    }
    check_browser(source)?;
    if let Some(image) = &source.image
        && let Some(fallback) = &image.fallback
    {
        selector(&fallback.img).map_err(|e| format!("fallback in [image] has {e}"))?;
    }
    if source
        .each
        .as_ref()
        .is_some_and(|each| each.values.is_empty())
    {
        return Err("values in [each] is empty".to_owned());
    }
    Ok(())
}

fn check_browser(source: &Source) -> Result<(), String> {
    let is_browser = source.fetch.kind == FetchKind::Browser;
    let rules = match (&source.browser, is_browser) {
        (None, false) => return Ok(()),
        (Some(_), false) => return Err("[browser] needs kind = \"browser\" in [fetch]".to_owned()),
        (None, true) => return Err("kind = \"browser\" needs [browser] with its steps".to_owned()),
        (Some(rules), true) => rules,
    };
    if source.paging.is_some()
        || !source.fetch.form.is_empty()
        || source.fetch.json.is_some()
        || !source.fetch.secret_headers.is_empty()
        || !source.fetch.secret_query.is_empty()
        || !source.fetch.headers.is_empty()
    {
        return Err(
            "[paging], form, json, headers, secret_headers and secret_query are not for kind = \"browser\""
                .to_owned(),
        );
    }
    let login = rules.login.iter().flat_map(|l| &l.steps);
    for (number, step) in rules.steps.iter().chain(login).enumerate() {
        check_step(step).map_err(|e| format!("step {} of [browser]{e}", number + 1))?;
    }
    let taking = rules.steps.iter().filter(|s| s.takes()).count();
    if taking != 1 || !rules.steps.last().is_some_and(Step::takes) {
        return Err("the last step of [browser], and no other, must take something: take_html or take_response".to_owned());
    }
    Ok(())
}

fn check_step(step: &Step) -> Result<(), String> {
    if step.actions() != 1 {
        return Err(format!(
            " must name one action, it names {}",
            step.actions()
        ));
    }
    if step.or_html_after.is_some() && step.take_response.is_none() {
        return Err(": or_html_after belongs to take_response".to_owned());
    }
    let texts = [step.value.is_some(), step.secret.is_some()];
    let texts = texts.iter().filter(|t| **t).count();
    if texts != usize::from(step.fill.is_some()) {
        return Err(": fill needs value or secret, and nothing else does".to_owned());
    }
    for css in [&step.wait_for, &step.fill, &step.click]
        .into_iter()
        .flatten()
    {
        selector(css).map_err(|e| format!(" has {e}"))?;
    }
    Ok(())
}

/// Where the records are must be said once, and so that it can be followed.
fn check_answer(source: &Source) -> Result<(), String> {
    let rules = &source.answer;
    let kinds = [
        rules.records.is_some(),
        !rules.lists.is_empty(),
        rules.table.is_some(),
        rules.is_other_form(),
    ];
    forms::check(source)?;
    let steps = source.browser.iter().flat_map(|b| &b.steps);
    let or_html = steps.filter(|s| s.or_html_after.is_some()).count() > 0;
    let said = kinds.iter().filter(|w| **w).count();
    if or_html {
        return match kinds {
            [true, false, true, false] => Ok(()),
            _ => Err("or_html_after in [browser] needs records in [answer] for the answer, and [answer.table] for the page".to_owned()),
        };
    }
    if source.fetch.kind == FetchKind::Command {
        let of_sites = [
            rules.ok.is_some(),
            rules.error.is_some(),
            rules.total.is_some(),
            rules.end.is_some(),
            rules.day.is_some() && rules.day_field().is_none(),
        ];
        return match said {
            0 if of_sites.contains(&true) => Err(
                "of [answer], a command knows only day = { field = \"…\" }: it prints its records, one JSON object a line"
                    .to_owned(),
            ),
            0 => Ok(()),
            _ => Err(
                "[answer] is for sites; a command prints its records, one JSON object a line"
                    .to_owned(),
            ),
        };
    }
    let forms = [
        rules.delimited.is_some(),
        rules.sheet.is_some(),
        rules.xml.is_some(),
        rules.text.is_some(),
    ];
    if said != 1 || forms.iter().filter(|f| **f).count() > 1 {
        return Err(
            "[answer] needs one of records, [[answer.lists]], [answer.table], [answer.delimited], [answer.sheet], [answer.xml] and [answer.text]".to_owned(),
        );
    }
    if let Some(table) = &rules.table {
        for css in [Some(&table.rows), table.cells.as_ref()]
            .into_iter()
            .flatten()
        {
            selector(css).map_err(|e| format!("[answer.table] has {e}"))?;
        }
        if rules.ok.is_some() || rules.error.is_some() {
            return Err("ok and error in [answer] are for JSON, not for [answer.table]".to_owned());
        }
    }
    if rules.total.is_some() && rules.records.is_none() {
        return Err(
            "total in [answer] belongs to records; give each of [[answer.lists]] its own"
                .to_owned(),
        );
    }
    if source.paging.is_some() && rules.records.is_none() {
        return Err("[paging] needs records in [answer]".to_owned());
    }
    if let Some(paging) = &source.paging {
        paging.check(&source.fetch)?;
    }
    if rules.equals.is_some() && rules.ok.is_none() {
        return Err("equals in [answer] belongs to ok, which is not there".to_owned());
    }
    check_day_place(source)?;
    if rules.end.is_some() && source.paging.is_some() {
        return Err(
            "end in [answer] is for a source without [paging]; there, end in [paging] says how the last page is known"
                .to_owned(),
        );
    }
    check_pointers(source)
}

fn check_pointers(source: &Source) -> Result<(), String> {
    let rules = &source.answer;
    let day = match &rules.day {
        Some(DayPlace::Pointer(pointer)) => Some(pointer),
        _ => None,
    };
    let pointers = [
        rules.ok.as_ref(),
        rules.error.as_ref(),
        day,
        rules.records.as_ref(),
        rules.total.as_ref(),
    ]
    .into_iter()
    .flatten()
    .chain(
        rules
            .lists
            .iter()
            .flat_map(|l| [Some(&l.records), l.total.as_ref()])
            .flatten(),
    );
    for pointer in pointers {
        if !pointer.is_empty() && !pointer.starts_with('/') {
            return Err(format!(
                "\"{pointer}\" in [answer] must begin with /, as JSON pointers do"
            ));
        }
    }
    Ok(())
}

/// Where an answer says its day must be in such an answer.
fn check_day_place(source: &Source) -> Result<(), String> {
    let rules = &source.answer;
    let is_json = rules.records.is_some() || !rules.lists.is_empty();
    match &rules.day {
        Some(DayPlace::Pointer(_)) if !is_json => Err(
            "day in [answer] is a JSON pointer, but the answer is no JSON; of a page, say day = { selector = \"…\" }, of a text day_pattern".to_owned(),
        ),
        Some(DayPlace::Elsewhere(DayElsewhere::Selector(css))) => {
            if rules.table.is_none() {
                return Err("day in [answer] has a selector, which is for [answer.table]; of JSON it is a JSON pointer".to_owned());
            }
            selector(css).map(|_| ()).map_err(|e| format!("day in [answer] has {e}"))
        }
        Some(DayPlace::Elsewhere(DayElsewhere::Header(_)))
            if source.fetch.kind != FetchKind::Http =>
        {
            Err("day in [answer] names a header, which only kind = \"http\" sees".to_owned())
        }
        _ => Ok(()),
    }
}

/// Scheme, host and port, and nothing else.
fn is_origin(text: &str) -> bool {
    url::Url::parse(text).is_ok_and(|url| {
        let (origin, text) = (url.origin(), text.trim_end_matches('/'));
        matches!(url.scheme(), "http" | "https")
            && (origin.ascii_serialization() == text || origin.unicode_serialization() == text)
    })
}

#[cfg(test)]
mod tests {
    use super::is_origin;

    #[test]
    fn an_origin_has_scheme_host_and_port_alone() {
        assert!(is_origin("https://b.example") && is_origin("http://b.example:81/"));
        assert!(is_origin("https://行情.example") && is_origin("https://xn--feuu39f.example"));
        for no in [
            "b.example",
            "https://b.example/x",
            "ftp://b",
            "https://u@b.example",
        ] {
            assert!(!is_origin(no), "{no}");
        }
    }
}
