//! Placeholders of a source file: `{NAME}`, and for days `{NAME:FORM}`. An unknown one would go to the site as written, so the file is
//! refused.

use std::fmt::Write as _;

use chrono::{Datelike, NaiveDate, NaiveTime};
use oa_core::service;
use serde_json::Value;

use super::{FetchKind, Source};

/// Names of days.
const DAYS: [&str; 3] = ["date", "month_start", "previous_trading_day"];

/// What the names of days stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DayNames {
    /// The day that is collected.
    pub(crate) date: NaiveDate,
    /// The last trading day before it.
    pub(crate) previous_trading_day: Option<NaiveDate>,
}

impl DayNames {
    /// The text that `{name:form}` stands for, if it is a day.
    pub(crate) fn text(&self, name: &str, form: Option<&str>) -> Option<String> {
        let day = match name {
            "date" => self.date,
            "month_start" => self.date.with_day(1)?,
            "previous_trading_day" => self.previous_trading_day?,
            _ => return None,
        };
        written(day, form)
    }
}

/// A day in a form: `%Y%m%d` and the like, `epoch` or `epoch_ms` (its begin in the service's zone). `None` for what is no form.
fn written(day: NaiveDate, form: Option<&str>) -> Option<String> {
    let begin = || {
        let local = day.and_time(NaiveTime::MIN);
        local.and_local_timezone(service::TIMEZONE).earliest()
    };
    match form {
        None => Some(day.to_string()),
        Some("epoch") => Some(begin()?.timestamp().to_string()),
        Some("epoch_ms") => Some(begin()?.timestamp_millis().to_string()),
        Some(form) if form.contains('%') => {
            let mut text = String::new();
            write!(text, "{}", day.format(form)).ok()?;
            Some(text)
        }
        Some(_) => None,
    }
}

/// Whether texts name a day between them, and not only its month, its weekday, or a day of every month or year.
pub(super) fn name_a_day<'a>(texts: impl Iterator<Item = &'a str>) -> bool {
    let of_days = texts.flat_map(found).map(parts);
    let of_days: Vec<(&str, Option<&str>)> = of_days
        .filter(|(name, _)| matches!(*name, "date" | "previous_trading_day"))
        .collect();
    let sample = |year, month, day| -> Vec<Option<String>> {
        let date = NaiveDate::from_ymd_opt(year, month, day).unwrap_or_default();
        let texts = of_days.iter().map(|(_, form)| written(date, *form));
        texts.collect()
    };
    let first = sample(2025, 12, 1);
    let others = [
        sample(2025, 12, 2),
        sample(2025, 12, 8),
        sample(2026, 1, 1),
        sample(2026, 12, 1),
    ];
    !others.contains(&first)
}

/// Puts in what `value` gives for a name and its form; everything else between braces stays.
pub(crate) fn fill(text: &str, value: impl Fn(&str, Option<&str>) -> Option<String>) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let put = rest.find('}').and_then(|end| {
            let (name, form) = parts(&rest[1..end]);
            Some((end, value(name, form)?))
        });
        match put {
            Some((end, text)) => {
                out.push_str(&text);
                rest = &rest[end + 1..];
            }
            None => {
                out.push('{');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

/// The names between braces.
pub(crate) fn names(text: &str) -> Vec<&str> {
    found(text).into_iter().map(|part| parts(part).0).collect()
}

/// Name and form.
fn parts(placeholder: &str) -> (&str, Option<&str>) {
    match placeholder.split_once(':') {
        Some((name, form)) => (name, Some(form)),
        None => (placeholder, None),
    }
}

/// All texts in a JSON value.
pub(super) fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::Object(fields) => fields.values().flat_map(texts).collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with the placeholders of a file, if anything is.
pub(super) fn check(source: &Source) -> Result<(), String> {
    check_each(source)?;
    let each = source.each.as_ref().map(|e| e.name.as_str());
    let of_request: Vec<&str> = DAYS.into_iter().chain(each).collect();
    let fetch = &source.fetch;
    if fetch.kind == FetchKind::Command {
        // Programs have braces of their own.
        for argument in fetch.command.iter().skip(1) {
            let strange = found(argument)
                .into_iter()
                .find(|p| p.starts_with("date") && !is_known(p, &of_request));
            if let Some(strange) = strange {
                return Err(unknown(strange, "command in [fetch]", &of_request));
            }
        }
    } else {
        let pairs = [
            ("query in [fetch]", &fetch.query),
            ("form in [fetch]", &fetch.form),
            ("headers in [fetch]", &fetch.headers),
        ];
        let steps = source.browser.iter().flat_map(|b| &b.steps);
        let of_steps = steps.flat_map(|s| {
            [
                &s.goto,
                &s.value,
                &s.click,
                &s.wait_for_url,
                &s.take_response,
            ]
        });
        let texts = pairs
            .iter()
            .flat_map(|(key, all)| all.values().map(|text| (*key, text.as_str())))
            .chain([("path in [fetch]", fetch.path.as_str())])
            .chain(
                fetch
                    .json
                    .iter()
                    .flat_map(texts)
                    .map(|text| ("json in [fetch]", text)),
            )
            .chain(
                of_steps
                    .flatten()
                    .map(|text| ("a step of [browser]", text.as_str())),
            );
        known(texts, &of_request)?;
    }
    let member = source.answer.member.as_deref();
    known(
        member.map(|text| ("member in [answer]", text)).into_iter(),
        &["date", "month_start"],
    )?;
    let fallback = source.image.iter().filter_map(|i| i.fallback.as_ref());
    let values = source.each.iter().flat_map(|e| &e.values);
    let login = source.browser.iter().filter_map(|b| b.login.as_ref());
    let plain = values
        .map(|text| ("values in [each]", text.as_str()))
        .chain([("base in [fetch]", fetch.base.as_str())])
        .chain(fallback.map(|f| ("fallback in [image]", f.path.as_str())))
        .chain(login.map(|l| ("path in [browser.login]", l.path.as_str())));
    known(plain, &[])?;
    let fixed = source.fields.iter().filter_map(|f| f.value.as_deref());
    known(
        fixed.map(|text| ("value in [[fields]]", text)),
        &["date", "minute"],
    )
}

/// Each value must be asked for, or all of them get the same answer; and it must not stand in for a day.
fn check_each(source: &Source) -> Result<(), String> {
    let Some(each) = &source.each else {
        return Ok(());
    };
    let name = each.name.as_str();
    if DAYS.contains(&name) {
        return Err(format!(
            "name in [each] is \"{name}\", which stands for a day; take another"
        ));
    }
    let fetch = &source.fetch;
    let pairs = [&fetch.query, &fetch.form, &fetch.headers];
    let steps = source.browser.iter().flat_map(|b| &b.steps);
    let of_steps = steps.flat_map(|s| {
        [
            &s.goto,
            &s.value,
            &s.click,
            &s.wait_for,
            &s.wait_for_url,
            &s.take_response,
        ]
    });
    let mut all = std::iter::once(&fetch.path)
        .chain(&fetch.command)
        .chain(pairs.into_iter().flat_map(|p| p.values()))
        .chain(of_steps.flatten())
        .map(String::as_str)
        .chain(fetch.json.iter().flat_map(texts));
    let placeholder = format!("{{{name}}}");
    match all.any(|text| text.contains(&placeholder)) {
        true => Ok(()),
        false => Err(format!(
            "[each] has the values of {name}, but {placeholder} is nowhere in the request: all would get the same answer"
        )),
    }
}

/// Whether it has a known name, and a form only where it is a day.
fn is_known(placeholder: &str, known: &[&str]) -> bool {
    let (name, form) = parts(placeholder);
    let is_form = || DAYS.contains(&name) && written(NaiveDate::default(), form).is_some();
    known.contains(&name) && (form.is_none() || is_form())
}

fn known<'a>(
    mut texts: impl Iterator<Item = (&'a str, &'a str)>,
    known: &[&str],
) -> Result<(), String> {
    let strange =
        texts.find_map(
            |(key, text)| match found(text).into_iter().find(|p| !is_known(p, known)) {
                Some(strange) => Some(unknown(strange, key, known)),
                None => misspelt(text, key, known),
            },
        );
    strange.map_or(Ok(()), Err)
}

/// What begins as a placeholder does, but would go to the site as it is: `{ date }`, `{date%Y}`, `{date:%Y` without its end. Braces
/// around more than that are the site's own.
fn misspelt(text: &str, key: &str, known: &[&str]) -> Option<String> {
    text.split('{').skip(1).find_map(|part| {
        let end = part.find('}');
        let inside = &part[..end.unwrap_or(part.len())];
        let mut names = known.iter().chain(&DAYS);
        let rest = names.find_map(|name| inside.trim_start().strip_prefix(*name))?;
        let has_form = rest.contains('%') && !rest.starts_with(char::is_alphanumeric);
        match end {
            None if rest.is_empty() || rest.starts_with(':') || has_form => Some(format!(
                "{key} has the placeholder {{{inside} without its closing brace"
            )),
            // It is as it should be.
            Some(_) if inside.trim() == inside && (rest.is_empty() || rest.starts_with(':')) => {
                None
            }
            Some(_) if rest.trim().is_empty() || has_form => Some(format!(
                "{key} has the placeholder {{{inside}}}, which must be written as {{NAME}} or {{NAME:FORM}}, such as {{date:%Y%m%d}}"
            )),
            _ => None,
        }
    })
}

fn unknown(placeholder: &str, key: &str, known: &[&str]) -> String {
    let known: Vec<String> = known.iter().map(|k| format!("{{{k}}}")).collect();
    let known = match known.len() {
        0 => "none is filled in there".to_owned(),
        _ => format!(
            "known there: {}; {{date}} is written as 2025-12-01, {{date:%Y%m%d}} as 20251201",
            known.join(", ")
        ),
    };
    format!("{key} has the unknown placeholder {{{placeholder}}}; {known}")
}

/// What looks like a placeholder between braces: a name, and perhaps a format after a colon.
fn found(text: &str) -> Vec<&str> {
    let parts = text
        .split('{')
        .skip(1)
        .filter_map(|part| Some(part.split_once('}')?.0));
    let is_one = |part: &&str| {
        let name = part.split(':').next().unwrap_or_default();
        name.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && name
                .chars()
                .all(|c| c.is_alphanumeric() || c == '_' || c == '-')
    };
    parts.filter(is_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;

    fn error(from: &str, to: &str) -> String {
        let text = include_str!("../../sources/fangqi-morning.toml");
        assert!(text.contains(from), "{from}");
        let result = parse("x", &text.replace(from, to));
        result.err().map_or_else(String::new, |e| e.to_string())
    }

    #[test]
    fn a_placeholder_that_would_be_sent_as_it_is_refuses_the_file() {
        for wrong in [
            "{date:%Q}",
            "{date:%H}",
            "{date:}",
            "{datum}",
            "{Date}",
            "{day}",
            "kx{date:yyyymmdd}.dat",
        ] {
            let said = error("date = \"{date}\"", &format!("date = \"{wrong}\""));
            assert!(
                said.contains("query in [fetch] has the unknown placeholder"),
                "{wrong}: {said}"
            );
        }
        for wrong in [
            "{ date }",
            "{date }",
            "{date%Y%m%d}",
            "{date %Y}",
            "{date-%Y%m%d}",
            "{date:%Y%m%d",
            "{date",
        ] {
            let said = error("date = \"{date}\"", &format!("date = \"{wrong}\""));
            assert!(
                said.contains("query in [fetch] has the placeholder {"),
                "{wrong}: {said}"
            );
        }
        let said = error(
            "[fetch]",
            "[each]\nname = \"code\"\nvalues = [\"a\"]\n[fetch]",
        );
        assert!(said.contains("{code} is nowhere in the request"), "{said}");
        let said = error(
            "[fetch]",
            "[each]\nname = \"date\"\nvalues = [\"a\"]\n[fetch]",
        );
        assert!(said.contains("which stands for a day"), "{said}");
        for own in ["{bars { date close } }", "{date, close {x}}", "{dates}{a}"] {
            assert_eq!(misspelt(own, "x", &["date"]), None, "{own}");
        }
        let said = error("ratingprediction/list\"", "ratingprediction/{datum}\"");
        assert!(said.contains("path in [fetch]"), "{said}");
        let said = error("{date} 08:50:00", "{today} 08:50:00");
        assert!(said.contains("known there: {date}, {minute}"), "{said}");
        assert_eq!(
            error(
                "ratingprediction/list\"",
                "ratingprediction/{date}/{}/{1}\""
            ),
            ""
        );
    }
    #[test]
    fn days_are_written_in_the_form_that_the_site_wants() {
        let days = DayNames {
            date: NaiveDate::from_ymd_opt(2025, 12, 31).unwrap(),
            previous_trading_day: NaiveDate::from_ymd_opt(2025, 12, 30),
        };
        let filled = |text: &str| fill(text, |name, form| days.text(name, form));
        for (text, due) in [
            ("{date}", "2025-12-31"),
            ("/kx{date:%Y%m%d}.dat", "/kx20251231.dat"),
            ("{date:%Y}/{date:%m}/{date:%-d}", "2025/12/31"),
            ("{month_start:%Y%m%d}", "20251201"),
            ("{previous_trading_day:%d.%m.%Y}", "30.12.2025"),
            ("{date:epoch} {date:epoch_ms}", "1767110400 1767110400000"),
            ("{x} {date:%H} {{date}} }{", "{x} {date:%H} {2025-12-31} }{"),
        ] {
            assert_eq!(filled(text), due, "{text}");
        }
        for (text, names) in [
            ("{date:%Y%m%d}", true),
            ("{previous_trading_day}", true),
            ("{date:epoch}", true),
            ("{date:%Y%m}", false),
            ("{month_start}", false),
            ("{code}", false),
            ("", false),
            // Last week's, last month's or last year's answer would be under it as well.
            ("{date:%u}", false),
            ("{date:%d}", false),
            ("{date:%m%d}", false),
            ("{date:%Y%m}/{date:%d}", true),
            ("{date:%y}{date:%j}", true),
        ] {
            assert_eq!(name_a_day([text].into_iter()), names, "{text}");
        }
        assert!(name_a_day(["{date:%Y%m}", "{date:%d}"].into_iter()));
    }
}
