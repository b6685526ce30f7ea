//! What a program has printed, as text that can be stored and shown anywhere.

use std::iter::Peekable;
use std::str::Chars;

/// Bytes as text: without the escape sequences of terminals and without other control characters. A line that was drawn anew
/// (carriage return) becomes lines.
#[must_use]
pub fn readable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\n' | '\t' => out.push(c),
            '\r' => out.push('\n'),
            '\u{1b}' => pass_over_escape(&mut rest),
            // Those of the direction of text too: what is shown would not be what is there.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Whether nothing is in a text that [`readable`] takes out: line ends and tabs stay.
pub(super) fn hides_nothing(text: &str) -> bool {
    let stays = |c: char| {
        !matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            && (!c.is_control() || matches!(c, '\n' | '\t' | '\r'))
    };
    match text.is_ascii() {
        true => text.bytes().all(|b| stays(char::from(b))),
        false => text.chars().all(stays),
    }
}

/// The rest of an escape sequence (ECMA-48). One that is broken off ends with its line.
fn pass_over_escape(rest: &mut Peekable<Chars<'_>>) {
    match rest.peek() {
        // Parameters, then the letter that says what is done with them.
        Some('[') => {
            rest.next();
            while rest.next_if(|c| matches!(c, ' '..='?')).is_some() {}
            rest.next_if(|c| matches!(c, '@'..='~'));
        }
        // A title or a link: a string that ends with BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let goes_on = |c: &char| !matches!(c, '\u{7}' | '\u{1b}' | '\n' | '\u{9c}');
            while rest.next_if(goes_on).is_some() {}
            if rest.next_if_eq(&'\u{1b}').is_some() {
                rest.next_if_eq(&'\\');
            }
        }
        Some(' '..='~') => {
            while rest.next_if(|c| matches!(c, ' '..='/')).is_some() {}
            rest.next_if(|c| matches!(c, '0'..='~'));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_titles_bars_and_bells_are_gone_and_the_text_stays() {
        for (from, to) in [
            ("\u{1b}[31mred\u{1b}[0m text", "red text"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("10 %\r20 %\r\ndone\n", "10 %\n20 %\ndone\n"),
            ("a\u{7}b\u{8}c\u{0}d\u{9b}e\tf", "abcde\tf"),
            ("\u{1b}(Bplain\u{1b}7\u{1b}", "plain"),
            ("cut \u{1b}[38;5\nnext", "cut \nnext"),
            ("价格\u{202e}跌", "价格跌"),
        ] {
            assert_eq!(readable(from.as_bytes()), to, "{from:?}");
        }
        assert_eq!(readable(b"\xff"), "\u{fffd}");
    }
}
