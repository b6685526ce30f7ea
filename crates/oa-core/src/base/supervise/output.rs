//! What a program prints on a stream: lines as they come, without known secrets, and the end of it all.
//!
//! A secret is found only where it is whole. So whole lines are looked at, and a line that is too long for that is cut where no secret goes
//! through the cut: what comes behind it is held back for a while, to see what it belongs to.

use std::sync::{Arc, Mutex, PoisonError};

use super::Lines;
use super::readable::{hides_nothing, readable};
use crate::base::secrets::{is_free_of_secrets, redact, redact_cut_off};

/// A line longer than this is no record, and is passed on in chunks.
const LONGEST_LINE: usize = 4 << 20;
/// So many bytes are held back at least when a line is cut: more than any secret has.
const HELD_BACK: usize = 64 << 10;
/// So many places are looked at for a cut.
const CUTS: usize = 8;

/// What was seen of an output stream.
#[derive(Debug, Default)]
pub(super) struct Output {
    keep: usize,
    lines: Option<Arc<Mutex<dyn Lines>>>,
    pub(super) tail: Vec<u8>,
    line: Vec<u8>,
    /// A longer line is cut.
    longest: usize,
    /// But not yet one that is shorter than this more.
    patience: usize,
    in_pieces: bool,
    pub(super) json_lines: u64,
    /// Bytes that have come.
    pub(super) received: u64,
    /// Nobody is shown what came.
    pub(super) is_unseen: bool,
}

impl Output {
    /// Of which the last so many bytes are kept, and which goes to `lines` besides.
    pub(super) fn new(keep: usize, lines: Option<Arc<Mutex<dyn Lines>>>) -> Self {
        Self {
            keep,
            lines,
            longest: LONGEST_LINE,
            ..Self::default()
        }
    }

    /// Takes what came, and gives back the lines that are complete now. A progress bar's lines end with a carriage return.
    pub(super) fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.received += bytes.len() as u64;
        let mut complete = Vec::new();
        let text = String::from_utf8_lossy(bytes);
        let is_clean = hides_nothing(&text) && is_free_of_secrets(&text);
        for part in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            let ends = part.ends_with(b"\n") || part.ends_with(b"\r");
            if ends && is_clean && self.line.is_empty() {
                self.count_json(part);
                self.whole_line(part);
                self.show(part, &mut complete);
                self.in_pieces = false;
                continue;
            }
            self.line.extend_from_slice(part);
            if ends {
                let line = self.end_line();
                self.show(&line, &mut complete);
            } else if self.line.len() > self.longest + self.patience {
                let piece = self.cut_line();
                self.show(&piece, &mut complete);
            }
        }
        complete
    }

    fn show(&self, line: &[u8], complete: &mut Vec<u8>) {
        if !self.is_unseen {
            complete.extend_from_slice(line);
        }
    }

    pub(super) fn end_line(&mut self) -> Vec<u8> {
        let line = std::mem::take(&mut self.line);
        self.count_json(&line);
        let ends = line.ends_with(b"\n") || line.ends_with(b"\r");
        let line = without_secrets(&line).unwrap_or(line);
        let line = if ends { line } else { cut_off(line) };
        self.whole_line(&line);
        self.in_pieces = false;
        self.patience = 0;
        line
    }

    /// The beginning of a line that is too long. Nothing of it where a secret, or what looks like one, goes through each cut: then there is
    /// more of the line before the next try.
    fn cut_line(&mut self) -> Vec<u8> {
        let whole = shown(&self.line);
        let mut at = self.line.len();
        for _ in 0..CUTS {
            at = place_before(&self.line, at.saturating_sub(HELD_BACK));
            if at == 0 {
                break;
            }
            let (begin, rest) = self.line.split_at(at);
            let begin = shown(begin);
            if whole
                .strip_prefix(begin.as_str())
                .is_some_and(|r| r == shown(rest))
            {
                let rest = self.line.split_off(at);
                let piece = std::mem::replace(&mut self.line, rest);
                let piece = without_secrets(&piece).unwrap_or(piece);
                self.in_pieces = true;
                self.patience = 0;
                self.whole_line(&piece);
                return piece;
            }
        }
        self.patience = self.line.len();
        Vec::new()
    }

    fn count_json(&mut self, line: &[u8]) {
        if !self.in_pieces
            && self.lines.is_none()
            && line.starts_with(b"{")
            && serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
        {
            self.json_lines += 1;
        }
    }

    /// A line without secrets.
    fn whole_line(&mut self, line: &[u8]) {
        if let Some(lines) = self.lines.as_ref().filter(|_| !line.is_empty()) {
            let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
            lines.line(line);
        }
        self.tail.extend_from_slice(line);
        if self.tail.len() > 2 * self.keep {
            self.tail.drain(..self.tail.len() - self.keep);
        }
    }

    pub(super) fn finish(mut self) -> Self {
        self.end_line();
        let excess = self.tail.len().saturating_sub(self.keep);
        self.tail = self.tail.split_off(excess);
        self
    }
}

/// Behind the last comma or space before a place, if one is near: few secrets go through that. Else where a character begins.
fn place_before(line: &[u8], mut at: usize) -> usize {
    let near = at.saturating_sub(HELD_BACK);
    let separator = |b: &u8| matches!(b, b',' | b' ' | b'}' | b'\t');
    if let Some(found) = line[near..at].iter().rposition(separator) {
        return near + found + 1;
    }
    while at > 0 && line[at] & 0xc0 == 0x80 {
        at -= 1;
    }
    at
}

/// The last line of a program that was ended while it printed.
fn cut_off(line: Vec<u8>) -> Vec<u8> {
    let text = String::from_utf8_lossy(&line);
    let clean = redact_cut_off(&text);
    if clean == text {
        line
    } else {
        clean.into_bytes()
    }
}

/// As it is passed on.
fn shown(bytes: &[u8]) -> String {
    let clean = without_secrets(bytes);
    String::from_utf8_lossy(clean.as_deref().unwrap_or(bytes)).into_owned()
}

/// `None` where there is none. Bytes that are not UTF-8 stay as they are, unless there is a secret among them.
fn without_secrets(bytes: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(bytes);
    let mut clean = redact(&text);
    // A secret may be whole only without the escape sequences in it, as people see it.
    if !hides_nothing(&clean) {
        let plain = readable(clean.as_bytes());
        let redacted = redact(&plain);
        if redacted != plain {
            clean = redacted;
        }
    }
    (clean != text).then(|| clean.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secrets::Secret;

    /// Cut sooner, so that the tests are quick.
    const LONGEST: usize = 3 * HELD_BACK;

    /// What comes of bytes that come in parts of that size, and the pieces.
    fn pass(bytes: &[u8], size: usize) -> (String, usize) {
        let mut output = Output {
            longest: LONGEST,
            ..Output::new(usize::MAX / 4, None)
        };
        let pieces = bytes.chunks(size).map(|part| output.add(part));
        let count = pieces.filter(|p| !p.is_empty()).count();
        (String::from_utf8(output.finish().tail).unwrap(), count)
    }

    #[test]
    fn a_secret_is_whole_wherever_a_line_that_is_too_long_is_cut() {
        let secret = Secret::new("a-secret-at-the-cut-of-a-line".to_owned());
        let fill = |n: usize| "x".repeat(n);
        // Before, across and behind the place where the line is cut first, and where it ends then.
        let end = (LONGEST / 10_000 + 1) * 10_000;
        let cut = end - HELD_BACK;
        for from in [cut - 29, cut - 15, cut, end - 10] {
            let line = format!("{}{}{}\n", fill(from), secret.expose(), fill(LONGEST));
            let (passed, pieces) = pass(line.as_bytes(), 10_000);
            let due = format!("{}[redacted]{}\n", fill(from), fill(LONGEST));
            assert!(passed == due && pieces >= 2, "{from}: {pieces} pieces");
        }
        // One by its form, longer than what is held back, and many of them side by side.
        let long = format!(
            "{{\"a\": \"{}\", \"cookie\": \"{}\"}}\n",
            fill(LONGEST / 2),
            fill(LONGEST)
        );
        assert!(
            pass(long.as_bytes(), 10_000)
                .0
                .ends_with("\"cookie\": \"[redacted]\"}\n")
        );
        let one = format!(
            "{{\"token\": \"abcdefghijkl\", \"more\": \"{}\"}},",
            fill(400)
        );
        let (passed, pieces) = pass(one.repeat(500).as_bytes(), 10_000);
        assert!(!passed.contains("abc") && !passed.contains("jkl") && pieces >= 1);
        assert_eq!(passed.matches("[redacted]").count(), 500);
    }

    #[test]
    fn a_secret_that_escape_sequences_take_apart_is_found() {
        let secret = Secret::new("taken-apart-by-colours".to_owned());
        let (begin, end) = secret.expose().split_at(8);
        let (passed, _) = pass(
            format!("{begin}\x1b[31m{end}\x1b[0m and more\n").as_bytes(),
            10,
        );
        assert_eq!(passed, "[redacted] and more\n");
        // Its program was ended before it had printed all of it.
        assert_eq!(pass(b"with taken-apart-by", 100).0, "with [redacted]");
        assert_eq!(
            pass(b"with taken-apart-by\n", 100).0,
            "with taken-apart-by\n"
        );
        let red = "\x1b[31mred\x1b[0m stays red\n";
        assert_eq!(pass(red.as_bytes(), 100).0, red);
    }
}
