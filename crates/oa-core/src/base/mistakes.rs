//! Finds what people may have meant when they mistype a name.

/// Turns the parser's error into a sentence with key, section, line and the nearest valid key. Never quotes the text of the
/// line, which may hold a secret.
#[must_use]
pub fn explain(text: &str, error: &toml::de::Error) -> String {
    let place = error.span().map(|span| {
        let before = &text[..span.start.min(text.len())];
        let line = before.matches('\n').count() + 1;
        let section = text
            .lines()
            .take(line)
            .filter(|l| l.trim_start().starts_with('['))
            .last()
            .map(|l| {
                let end = l.find('#').unwrap_or(l.len());
                l[..end].trim().to_owned()
            });
        (line, section)
    });
    let (line, section) = place.map_or((None, None), |(l, s)| (Some(l), s));
    let within = section.map_or_else(String::new, |s| format!(" in {s}"));
    let at = line.map_or_else(String::new, |l| format!(", line {l}"));
    let message = error.message();
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let (key, expected) = rest.split_once('`').unwrap_or((rest, ""));
        let valid: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        return format!(
            "unknown key \"{key}\"{within}{at}{}",
            nearest(key, valid.iter().copied())
        );
    }
    let message = without_the_value(message).trim().replace('\n', ", ");
    format!("{message}{within}{at}")
}

/// The parser quotes a value that has the wrong type, which may be a secret without its quotes.
fn without_the_value(message: &str) -> String {
    if let Some(rest) = message.strip_prefix("unknown variant `") {
        let (value, expected) = rest.split_once('`').unwrap_or((rest, ""));
        let valid: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
        let valid = valid.iter().copied();
        let hint = nearest(value, valid.clone());
        // Close to a valid one, it is no secret.
        return match closest(value, valid) {
            Some(_) => format!("unknown value \"{value}\"{hint}"),
            None => format!("unknown value{hint}"),
        };
    }
    let (Some((given, rest)), Some((_, expected))) = (
        message
            .strip_prefix("invalid type: ")
            .or_else(|| message.strip_prefix("invalid value: "))
            .and_then(|m| m.split_once([' ', ','])),
        message.rsplit_once("expected "),
    ) else {
        return message.to_owned();
    };
    let article = if given.starts_with('i') { "an" } else { "a" };
    let given = if given == "floating" && rest.starts_with("point") {
        "number with a point"
    } else {
        given
    };
    format!("expected {expected}, not {article} {given}")
}

/// `; did you mean "x"?` for the closest candidate, else a list of all of them.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = closest(wrong, candidates.clone()) {
        return format!("; did you mean \"{candidate}\"?");
    }
    let all: Vec<&str> = candidates.collect();
    if all.is_empty() {
        return String::new();
    }
    format!("; valid are {}", all.join(", "))
}

/// The candidate that was probably meant.
fn closest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|c| (strsim::damerau_levenshtein(wrong, c), c))
        .min()
        .filter(|(distance, _)| *distance <= (wrong.chars().count() / 2).clamp(1, 4))
        .map(|(_, candidate)| candidate)
}
