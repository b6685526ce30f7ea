//! Pages that are made to take a reader's time. What it costs to read a page, and to look for elements in it, grows with how deep its
//! elements stand within each other, and with the attributes of one element: both are counted before anything reads it.

use oa_core::model::retry::ErrorKind;
use scraper::Html;

use super::ReadError;

/// Browsers stop nesting at this depth.
const DEEPEST: usize = 512;
/// Attributes of one element.
const MOST_ATTRIBUTES: usize = 1000;
/// Elements that have no end, or need not say it: they stand in no others of their kind without one that is counted.
const WITHOUT_END: [&[u8]; 34] = [
    b"area",
    b"base",
    b"body",
    b"br",
    b"caption",
    b"col",
    b"colgroup",
    b"dd",
    b"dt",
    b"embed",
    b"head",
    b"hr",
    b"html",
    b"img",
    b"input",
    b"li",
    b"link",
    b"meta",
    b"optgroup",
    b"option",
    b"p",
    b"param",
    b"rp",
    b"rt",
    b"source",
    b"tbody",
    b"td",
    b"tfoot",
    b"th",
    b"thead",
    b"tr",
    b"track",
    b"wbr",
    b"title",
];

/// Reads a page, unless it is made to take long.
pub(crate) fn parse(page: &str) -> Result<Html, ReadError> {
    check(page)?;
    Ok(Html::parse_document(page))
}

/// Refuses a page that is made to take long.
pub(crate) fn check(page: &str) -> Result<(), ReadError> {
    let page = page.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while let Some(next) = position(&page[at..], b'<') {
        at += next + 1;
        let rest = &page[at..];
        if rest.starts_with(b"!--") {
            at += find(rest, b"-->").unwrap_or(rest.len());
            continue;
        }
        let is_end = rest.first() == Some(&b'/');
        let name = &rest[usize::from(is_end)..];
        let length = name
            .iter()
            .take_while(|b| b.is_ascii_alphanumeric())
            .count();
        let name = &name[..length];
        if !name.first().is_some_and(u8::is_ascii_alphabetic) {
            continue;
        }
        let (length, attributes) = tag(rest);
        at += length;
        if attributes > MOST_ATTRIBUTES {
            let what = format!(
                "an element with more than {MOST_ATTRIBUTES} attributes; such a page is not read"
            );
            return Err((ErrorKind::Shape, what));
        }
        let name = name.to_ascii_lowercase();
        if WITHOUT_END.contains(&name.as_slice()) {
            continue;
        }
        if is_end {
            depth = depth.saturating_sub(1);
            continue;
        }
        if matches!(name.as_slice(), b"script" | b"style" | b"textarea") {
            let rest = &page[at..];
            let end = [b"</".as_slice(), &name].concat();
            at += find(rest, &end).unwrap_or(rest.len());
        }
        depth += 1;
        if depth > DEEPEST {
            let what = format!(
                "elements that stand {DEEPEST} deep within each other; such a page is not read"
            );
            return Err((ErrorKind::Shape, what));
        }
    }
    Ok(())
}

/// The length of a tag, and how many attributes it seems to have.
fn tag(rest: &[u8]) -> (usize, usize) {
    let mut quote = None;
    let mut attributes = 0;
    let mut blank = false;
    for (i, byte) in rest.iter().enumerate() {
        match (quote, byte) {
            (Some(open), byte) if open == *byte => quote = None,
            (Some(_), _) => {}
            (None, b'>') => return (i, attributes),
            // A quotation mark anywhere else is a part of a name.
            (None, b'"' | b'\'') if i > 0 && rest[i - 1] == b'=' => quote = Some(*byte),
            (None, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c' | b'/') => blank = true,
            (None, _) => {
                attributes += usize::from(blank);
                blank = false;
            }
        }
    }
    (rest.len(), attributes)
}

fn position(bytes: &[u8], of: u8) -> Option<usize> {
    bytes.iter().position(|b| *b == of)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes
        .windows(what.len())
        .position(|some| some.eq_ignore_ascii_case(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_as_sites_have_it_is_read_however_long_it_is() {
        let row = "<tr><td class=a title='1 > 0'>rb2601<td><b>5</b><br><img src=x></tr>";
        let script = "<script>for (i = 0; i < 3; i++) document.write('<div><div><div>');</script><!-- <div> -->";
        let page = format!(
            "<html><body>{}<table>{}</table>",
            script.repeat(1000),
            row.repeat(10_000)
        );
        assert!(parse(&page).is_ok());
    }

    #[test]
    fn a_page_that_would_take_hours_is_refused_at_once() {
        let attributes: String = (0..200_000).map(|n| format!(" a{n}")).collect();
        for page in [
            "<tr><td><table>".repeat(300_000),
            "<div>".repeat(1_000_000),
            "<b><p>".repeat(500_000),
            format!("<table{attributes}>"),
        ] {
            assert_eq!(parse(&page).map(|_| ()).unwrap_err().0, ErrorKind::Shape);
        }
    }
}
