//! Texts of others (a site, a server, a child process) before they are stored or shown.

use serde_json::Value;

use crate::base::secrets::redact;

/// Bytes of an error text that are kept, what is said about the rest included.
pub const LONGEST_ERROR: usize = 4096;

/// An error text as it may be stored and shown: without secrets and without what would steer a terminal, and of bounded length.
#[must_use]
pub fn error_text(text: &str) -> String {
    let redacted = redact(text);
    let mut shown = printable(&redacted);
    // A secret may be whole only without the escape sequences in it.
    if shown != redacted {
        shown = redact(&shown);
    }
    cut(&shown, LONGEST_ERROR)
}

/// The beginning of somebody else's text, at most so many characters, for an error or a finding. Without secrets before it is cut: of one
/// that the cut went through, the first half would stay.
#[must_use]
pub fn beginning(text: &str, longest: usize) -> String {
    /// What is looked at beyond, so that a page of many megabytes is not: longer than any secret.
    const BEYOND: usize = 64 << 10;
    let end = text.char_indices().nth(longest.saturating_add(BEYOND));
    let text = end.map_or(text, |(end, _)| &text[..end]);
    redact(text).chars().take(longest).collect()
}

/// A text without what would steer a terminal or hide a part of itself: escape sequences go, other control characters and those that
/// change the direction of writing become U+FFFD, and what cannot be seen goes. Line ends and tabs stay.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' | '\u{9b}' | '\u{9d}' | '\u{90}' => skip_sequence(c, &mut rest),
            '\r' => {
                if !rest.as_str().starts_with('\n') {
                    out.push('\n');
                }
            }
            '\n' | '\t' => out.push(c),
            c if turns(c) => out.push('\u{fffd}'),
            c if is_unseen(c) => {}
            c if c.is_control() => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

/// What takes no room and does nothing: between two letters it makes a word another one, and whole sentences can be written in it.
fn is_unseen(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{2060}'..='\u{2064}' | '\u{206a}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

/// What changes the direction of writing, or ends a line that does not look like its end.
fn turns(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A log line or JSON, which have escapes for ASCII's control characters already, with escapes for the others, for what hides a part of a
/// text or turns it round: values stay as they are.
#[must_use]
pub fn with_escapes(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\u{7f}'..='\u{9f}') || turns(c) || is_unseen(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            out.push(c);
        }
    }
    out
}

/// A text in one line, in which whatever cannot be seen, or would steer a terminal, is written out: `\n`, `\u{1b}`.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{200c}' | '\u{200d}' => out.extend(c.escape_unicode()),
            c if c.is_control() || turns(c) || is_unseen(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A value whose texts are [`printable`]; keys stay.
#[must_use]
pub fn printable_json(value: &Value) -> Value {
    match value {
        Value::String(text) => Value::String(printable(text)),
        Value::Array(all) => all.iter().map(printable_json).collect(),
        Value::Object(all) => all
            .iter()
            .map(|(key, value)| (key.clone(), printable_json(value)))
            .collect(),
        other => other.clone(),
    }
}

/// Goes to the end of an escape sequence (ECMA-48) that begins with `first`. A string that nobody ends is text.
fn skip_sequence(first: char, rest: &mut std::str::Chars<'_>) {
    let mut ahead = rest.clone();
    let kind = if first == '\u{1b}' {
        ahead.next()
    } else {
        Some(first)
    };
    match kind {
        // Parameters and a final character.
        Some('[' | '\u{9b}') => {
            while let Some(c) = ahead.clone().next() {
                if !matches!(c, '\u{20}'..='\u{7e}') {
                    break;
                }
                ahead.next();
                if matches!(c, '\u{40}'..='\u{7e}') {
                    break;
                }
            }
            *rest = ahead;
        }
        // A string up to BEL or ST: a title, a link, a device's commands.
        Some(']' | 'P' | 'X' | '^' | '_' | '\u{9d}' | '\u{90}') => {
            let text = ahead.as_str();
            let ends = [("\u{7}", 1), ("\u{1b}\\", 2), ("\u{9c}", 2)];
            let end = ends
                .iter()
                .filter_map(|(end, length)| text.find(end).map(|at| at + length))
                .min();
            *rest = end.map_or(text, |end| &text[end..]).chars();
        }
        // Intermediate characters and a final one.
        Some('\u{20}'..='\u{2f}') => {
            let text = ahead.as_str();
            let end = text.find(|c| !matches!(c, '\u{20}'..='\u{2f}'));
            let mut after = text[end.unwrap_or(text.len())..].chars();
            after.next();
            *rest = after;
        }
        Some('\u{30}'..='\u{7e}') => *rest = ahead,
        _ => {}
    }
}

/// At most so many bytes, cut between two characters, with a word about how much is missing.
#[must_use]
pub fn cut(text: &str, longest: usize) -> String {
    /// What "… (18446744073709551615 more bytes)" takes.
    const NOTE: usize = 40;
    if text.len() <= longest {
        return text.to_owned();
    }
    let kept = text.floor_char_boundary(longest.saturating_sub(NOTE));
    format!("{}… ({} more bytes)", &text[..kept], text.len() - kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_a_terminal() {
        for (from, to) in [
            ("plain 中文\tand\nlines", "plain 中文\tand\nlines"),
            ("\u{1b}[31mred\u{1b}[0m", "red"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}Pq#0\u{1b}\\x", "x"),
            ("\u{9b}2Jx", "x"),
            ("\u{1b}(Bx\u{1b}cy\u{1b}", "xy"),
            ("\u{1b}]never ended", "never ended"),
            ("a\r\nb\rc", "a\nb\nc"),
            ("bell\u{7}\u{0}", "bell\u{fffd}\u{fffd}"),
            ("gpj\u{202e}exe", "gpj\u{fffd}exe"),
            ("a\u{61c}b", "a\u{fffd}b"),
            (
                "pass\u{200b}\u{feff}\u{2060}word\u{e0041}\u{e007f}",
                "password",
            ),
            ("\u{1f468}\u{200d}\u{1f469}", "\u{1f468}\u{200d}\u{1f469}"),
            ("\u{1b}[3中", "中"),
        ] {
            assert_eq!(printable(from), to, "{from:?}");
        }
    }

    #[test]
    fn what_cannot_be_seen_has_escapes_that_json_knows() {
        let value = "a\u{9b}2J\u{202e}b\u{200b}\u{e0041}\u{7f}中\u{1f468}\u{200d}\u{1f469}";
        let json = serde_json::to_string(value).unwrap();
        let shown = with_escapes(&json);
        assert_eq!(shown, r#""a\u009b2J\u202eb\u200b\udb40\udc41\u007f中👨‍👩""#);
        assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), value);
    }

    #[test]
    fn what_is_cut_holds_no_half_of_a_secret() {
        let secret = crate::base::secrets::Secret::new("half-of-this-is-too-much".to_owned());
        for at in [0, 5, 10, 79] {
            let text = format!("{}{}, and more", "中".repeat(at), secret.expose());
            let begin = beginning(&text, 80);
            assert!(
                begin.starts_with(&"中".repeat(at)) && !begin.contains("ha"),
                "{begin}"
            );
            assert!(begin.chars().count() <= 80, "{begin}");
        }
        assert_eq!(beginning("a short one", 80), "a short one");
        let hidden = format!("{}\u{1b}[1m{}", "half-of-this", "-is-too-much");
        assert_eq!(error_text(&hidden), "[redacted]");
        let hidden = "half-of-\u{200b}this-is\u{feff}-too-much";
        assert_eq!(error_text(hidden), "[redacted]");
    }

    #[test]
    fn a_long_error_is_cut_between_characters_and_says_so() {
        assert_eq!(error_text("short"), "short");
        for text in ["x".repeat(20 << 20), "中".repeat(5000)] {
            let kept = error_text(&text);
            assert!(kept.len() <= LONGEST_ERROR, "{}", kept.len());
            let (head, tail) = kept.split_once('…').unwrap();
            assert!(text.starts_with(head));
            assert_eq!(tail, format!(" ({} more bytes)", text.len() - head.len()));
        }
    }
}
