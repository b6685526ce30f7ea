//! The output of a program: its colours, and nothing else that its escape sequences could do.

use maud::{Markup, html};

/// Text of one look.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Piece {
    class: String,
    text: String,
}

/// A program's output as text with colours. Sequences that are no colour disappear.
pub(super) fn render(output: &str) -> Markup {
    html! {
        @for piece in pieces(output) {
            @if piece.class.is_empty() { (piece.text) } @else { span class=(piece.class) { (piece.text) } }
        }
    }
}

/// Without sequences, to copy.
pub(super) fn plain(output: &str) -> String {
    pieces(output).into_iter().map(|p| p.text).collect()
}

/// What overwrites its line, as progress does, begins a new one.
pub(super) fn in_lines(output: &str) -> String {
    output.replace("\r\n", "\n").replace('\r', "\n")
}

fn pieces(output: &str) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut bold, mut colour) = (false, None);
    let output = in_lines(output);
    let mut rest = output.as_str();
    while !rest.is_empty() {
        let (text, sequence) = rest
            .split_once('\u{1b}')
            .map_or((rest, None), |(t, s)| (t, Some(s)));
        let text: String = text
            .chars()
            .filter(|c| !c.is_control() || matches!(c, '\n' | '\t'))
            .collect();
        if !text.is_empty() {
            let class = match (bold, colour) {
                (false, None) => String::new(),
                (true, None) => "b".to_owned(),
                (false, Some(n)) => format!("c{n}"),
                (true, Some(n)) => format!("b c{n}"),
            };
            pieces.push(Piece { class, text });
        }
        let Some(sequence) = sequence else { break };
        rest = after(sequence, &mut bold, &mut colour);
    }
    pieces
}

/// Reads one sequence, and gives what follows it.
fn after<'a>(sequence: &'a str, bold: &mut bool, colour: &mut Option<u8>) -> &'a str {
    match sequence.chars().next() {
        Some('[') => {
            let body = &sequence[1..];
            let end = body.find(|c: char| ('@'..='~').contains(&c));
            let Some(end) = end else { return "" };
            if body[end..].starts_with('m') {
                for code in body[..end].split(';') {
                    match code.parse::<u8>() {
                        Ok(0) | Err(_) => (*bold, *colour) = (false, None),
                        Ok(1) => *bold = true,
                        Ok(22) => *bold = false,
                        Ok(39) => *colour = None,
                        Ok(n @ (30..=37)) => *colour = Some(n - 30),
                        Ok(n @ (90..=97)) => *colour = Some(n - 90),
                        // 256 colours and backgrounds: their numbers mean something else.
                        Ok(38 | 48) => break,
                        Ok(_) => {}
                    }
                }
            }
            &body[end + 1..]
        }
        // A title or a link, up to its end.
        Some(']') => match sequence.find(['\u{7}', '\u{1b}']) {
            Some(end) if sequence[end..].starts_with('\u{7}') => &sequence[end + 1..],
            Some(end) => sequence[end + 1..]
                .strip_prefix('\\')
                .unwrap_or(&sequence[end..]),
            None => "",
        },
        Some(c) => &sequence[c.len_utf8()..],
        None => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_stay_and_nothing_else_does() {
        let output =
            "a \u{1b}[1;31mERROR\u{1b}[0m b\u{1b}]0;title\u{7}\u{1b}[2J\u{1b}[38;5;9mx\r\n\u{1b}[";
        assert_eq!(plain(output), "a ERROR bx\n");
        let html = render(output).into_string();
        assert_eq!(html, "a <span class=\"b c1\">ERROR</span> bx\n");
        assert_eq!(
            render("<b>\u{1b}[31m<i>").into_string(),
            "&lt;b&gt;<span class=\"c1\">&lt;i&gt;</span>"
        );
        assert_eq!(plain("10%\r20%\r\n"), "10%\n20%\n");
        assert_eq!(plain("\u{1b}]8;;http://x\u{1b}\\text\u{1b}(Bz"), "textBz");
    }
}
