//! Placeholders of a source file. An unknown one would go to the site as written, so the file is refused.

use super::{FetchKind, Source};

/// What is wrong with the placeholders of a file, if anything is.
pub(super) fn check(source: &Source) -> Result<(), String> {
    let each = source.each.as_ref().map(|e| e.name.as_str());
    let of_request: Vec<&str> = ["date"].into_iter().chain(each).collect();
    let fetch = &source.fetch;
    if fetch.kind == FetchKind::Command {
        // Programs have braces of their own.
        for argument in fetch.command.iter().skip(1) {
            let strange = found(argument)
                .into_iter()
                .find(|p| p.starts_with("date") && *p != "date");
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
                of_steps
                    .flatten()
                    .map(|text| ("a step of [browser]", text.as_str())),
            );
        known(texts, &of_request)?;
    }
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

fn known<'a>(
    mut texts: impl Iterator<Item = (&'a str, &'a str)>,
    known: &[&str],
) -> Result<(), String> {
    let strange = texts.find_map(|(key, text)| {
        let strange = found(text).into_iter().find(|p| !known.contains(p))?;
        Some(unknown(strange, key, known))
    });
    strange.map_or(Ok(()), Err)
}

fn unknown(placeholder: &str, key: &str, known: &[&str]) -> String {
    let known: Vec<String> = known.iter().map(|k| format!("{{{k}}}")).collect();
    let known = match known.len() {
        0 => "none is filled in there".to_owned(),
        _ => format!(
            "known there: {}; {{date}} is written as 2025-12-01",
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
            "{date:%Y%m%d}",
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
}
