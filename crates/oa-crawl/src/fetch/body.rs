//! From bytes to JSON: character sets, and answers that are no data.

use encoding_rs::{DecoderResult, Encoding, GB18030, UTF_8, WINDOWS_1252};
use oa_core::base::exact;
use oa_core::base::text::beginning;
use oa_core::model::retry::ErrorKind;
use serde::de::IgnoredAny;
use serde_json::Value;

use super::{FetchError, Response};
use crate::extract::{beginning_at, repeated, unwrap_script};
use crate::source::Answer;

/// Reads a body as JSON. The second value: findings.
/// Fails with `blocked` for a page where data were due, `network` for JSON that was cut short, `shape` for anything else.
pub(crate) fn json(
    url: &str,
    response: &Response,
    rules: &Answer,
) -> Result<(Value, Vec<String>), FetchError> {
    let (text, finding) = text(url, response, rules.charset.as_deref())?;
    let mut findings: Vec<String> = finding.into_iter().collect();
    let mut trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(FetchError::new(
            ErrorKind::Empty,
            format!("an empty body: {url}"),
        ));
    }
    if let Some(name) = &rules.script {
        trimmed = match unwrap_script(name, trimmed) {
            Some(json) => json,
            None => {
                refuse_page(url, trimmed)?;
                let what =
                    format!("no object or list that {name} gets (script in [answer]): {url}");
                return Err(FetchError::new(ErrorKind::Shape, what));
            }
        };
    }
    refuse_page(url, trimmed)?;
    let at = match exact::parse_records(trimmed) {
        Ok((value, keys)) => {
            findings.extend(repeated(&keys));
            return Ok((value, findings));
        }
        Err(at) => at,
    };
    let is_cut = serde_json::from_str::<IgnoredAny>(trimmed).is_err_and(|e| e.is_eof());
    if is_cut || at >= trimmed.len() {
        let bytes = response.body.len();
        return Err(FetchError::new(
            ErrorKind::Network,
            format!("JSON that is cut short after {bytes} bytes: {url}"),
        ));
    }
    let there = beginning_at(at, trimmed);
    let what = format!("something that is not JSON (at byte {at}, {there:?}): {url}");
    Err(FetchError::new(ErrorKind::Shape, what))
}

/// A page for people where data were due.
pub(crate) fn refuse_page(url: &str, text: &str) -> Result<(), FetchError> {
    if !text.starts_with('<') {
        return Ok(());
    }
    let title = page_title(text).map_or_else(String::new, |t| format!(" titled \"{t}\""));
    Err(FetchError::new(
        ErrorKind::Blocked,
        format!("a web page{title} where data were due: {url}"),
    ))
}

/// Reads a body as a page. The second value is a finding about the character set, if there is one.
/// Fails with `empty` for nothing, `shape` for data where a page was due and for bytes of no known character set.
pub(crate) fn page(
    url: &str,
    response: &Response,
    charset: Option<&str>,
) -> Result<(String, Option<String>), FetchError> {
    let (text, finding) = text(url, response, charset)?;
    let error = match text.trim_start().chars().next() {
        Some('<') => {
            // Old pages declare their character set in themselves.
            let own = charset.is_none() && !text.contains("charset=");
            let said = own || text.contains(exact::UNREADABLE);
            return Ok((text, finding.filter(|_| said)));
        }
        None => (ErrorKind::Empty, "an empty body"),
        Some(_) => (ErrorKind::Shape, "something that is no web page"),
    };
    Err(FetchError::new(error.0, format!("{}: {url}", error.1)))
}

/// Decodes a body: by the given character set, else by the declared one unless the bytes say otherwise, else by what fits. Few bytes that are
/// none of it become [`exact::UNREADABLE`], for which their record is rejected. The second value is a finding.
pub(crate) fn text(
    url: &str,
    response: &Response,
    charset: Option<&str>,
) -> Result<(String, Option<String>), FetchError> {
    let body = response.body.as_slice();
    let known = |encoding: &'static Encoding| {
        let (text, used, broken) = encoding.decode(body);
        match broken {
            // Most of UTF-8 is GBK as well, and nothing that anybody has written.
            true if used != UTF_8 && Decoded::of(UTF_8, body).is_likely() => {
                Err(undecodable(url, used.name()))
            }
            true => Decoded::of(used, body).usable(url),
            false => Ok((text.into_owned(), None)),
        }
    };
    if let Some(encoding) = charset.and_then(|label| Encoding::for_label(label.as_bytes())) {
        return known(encoding);
    }
    // It says so itself; of UTF-8 that is no more than was likely.
    if let Some((encoding, _)) = Encoding::for_bom(body)
        && encoding != UTF_8
    {
        return known(encoding);
    }
    let declared = response
        .content_type
        .as_deref()
        .and_then(declared_in_header);
    let declared = declared.or_else(|| declared_within(body));
    let utf8 = std::str::from_utf8(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body)).ok();
    if let Some(encoding) = declared.filter(|e| *e != UTF_8) {
        let name = encoding.name();
        // Western European is what servers say of everything.
        let western = encoding == WINDOWS_1252;
        let is_utf8 = |text: &&str| {
            text.chars()
                .any(|c| c >= '\u{800}' || (western && !c.is_ascii()))
        };
        if let Some(text) = utf8.filter(is_utf8) {
            let finding = format!("the site declared {name} and sent UTF-8");
            return Ok((text.to_owned(), Some(finding)));
        }
        if western
            && !body.is_ascii()
            && let Some(text) = gbk(body)
        {
            let finding = format!("the site declared {name} and sent GBK");
            return Ok((text, Some(finding)));
        }
        return known(encoding);
    }
    if let Some(text) = utf8 {
        return Ok((text.to_owned(), None));
    }
    let as_utf8 = Decoded::of(UTF_8, body);
    if as_utf8.is_likely() {
        return as_utf8.usable(url);
    }
    // Chinese sites send GBK without saying so.
    if let Some(text) = gbk(body) {
        let finding = "the site sent GBK without declaring it".to_owned();
        return Ok((text, Some(finding)));
    }
    let as_gbk = Decoded::of(GB18030, body).usable(url);
    as_gbk.map_err(|_| undecodable(url, "UTF-8 or GBK"))
}

/// A body in which some bytes are no characters.
struct Decoded {
    encoding: &'static Encoding,
    text: String,
    broken: usize,
}

impl Decoded {
    fn of(encoding: &'static Encoding, body: &[u8]) -> Self {
        let mut decoder = encoding.new_decoder_with_bom_removal();
        let (mut text, mut broken, mut rest) = (String::with_capacity(body.len()), 0, body);
        loop {
            text.reserve(rest.len() + 16);
            let (result, read) =
                decoder.decode_to_string_without_replacement(rest, &mut text, true);
            rest = &rest[read..];
            match result {
                DecoderResult::InputEmpty => break,
                DecoderResult::OutputFull => {}
                DecoderResult::Malformed(..) => {
                    broken += 1;
                    text.push(exact::UNREADABLE);
                }
            }
        }
        Self {
            encoding,
            text,
            broken,
        }
    }

    /// Whether what is not ASCII has the form of UTF-8, as letters of other character sets have by chance only.
    fn is_likely(&self) -> bool {
        let others = self.text.chars().filter(|c| !c.is_ascii()).count();
        self.broken * 10 <= others - self.broken
    }

    /// Unless so much is broken that it is another character set, or no text.
    fn usable(self, url: &str) -> Result<(String, Option<String>), FetchError> {
        let (name, broken) = (self.encoding.name(), self.broken);
        if broken > 1 + self.text.chars().count() / 100 {
            return Err(undecodable(url, name));
        }
        let finding = format!("bytes that are not {name} in {broken} place(s)");
        Ok((self.text, Some(finding)))
    }
}

fn gbk(body: &[u8]) -> Option<String> {
    let (text, _, broken) = GB18030.decode(body);
    (!broken).then(|| text.into_owned())
}

/// A body as a person can read it, whatever its character set.
pub(crate) fn readable(response: &Response, charset: Option<&str>) -> String {
    text("", response, charset).map_or_else(
        |_| String::from_utf8_lossy(&response.body).into_owned(),
        |(text, _)| text,
    )
}

fn undecodable(url: &str, charset: &str) -> FetchError {
    FetchError::new(
        ErrorKind::Shape,
        format!("bytes that are not {charset}: {url}"),
    )
}

/// What a page or an XML document says of itself. Few characters of GBK can be valid UTF-8 by chance, so that its word counts.
fn declared_within(body: &[u8]) -> Option<&'static Encoding> {
    const HEAD: usize = 2048;
    if !body.trim_ascii_start().starts_with(b"<") {
        return None;
    }
    let head = String::from_utf8_lossy(&body[..body.len().min(HEAD)]).to_ascii_lowercase();
    let at = ["charset=", "encoding="]
        .iter()
        .find_map(|key| Some(head.find(key)? + key.len()))?;
    let label = head[at..].trim_start_matches(['"', '\'', ' ']);
    let end = label.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_')));
    let encoding = Encoding::for_label(&label.as_bytes()[..end.unwrap_or(label.len())])?;
    (encoding != UTF_8).then_some(encoding)
}

fn declared_in_header(content_type: &str) -> Option<&'static Encoding> {
    let parameter = content_type.split(';').skip(1).find_map(|p| {
        let (name, value) = p.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"'))
    })?;
    Encoding::for_label(parameter.as_bytes())
}

fn page_title(page: &str) -> Option<String> {
    let lower = page.to_ascii_lowercase();
    let start = lower.find("<title>")? + 7;
    let end = start + lower[start..].find("</title>")?;
    let title = beginning(page.get(start..end)?.trim(), 80);
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content_type: Option<&str>, body: &[u8]) -> Result<(Value, Vec<String>), FetchError> {
        read_by(&Answer::default(), content_type, body)
    }

    fn read_by(
        rules: &Answer,
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(Value, Vec<String>), FetchError> {
        let response = Response {
            status: 200,
            content_type: content_type.map(str::to_owned),
            body: body.to_vec(),
            ..Response::default()
        };
        json("http://x", &response, rules)
    }

    #[test]
    fn what_says_itself_that_it_is_utf_16_is_no_gbk() {
        let text = "{\"品种\":\"螺纹钢\"}";
        let marked = |bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            let letters = std::iter::once(0xfeff).chain(text.encode_utf16());
            letters.flat_map(bytes).collect()
        };
        for body in [marked(u16::to_le_bytes), marked(u16::to_be_bytes)] {
            for header in [None, Some("application/json; charset=utf-8")] {
                let (value, findings) = read(header, &body).unwrap();
                assert_eq!(value["品种"], "螺纹钢");
                assert_eq!(findings, [""; 0]);
            }
        }
    }

    #[test]
    fn a_wrong_declaration_is_found_out_and_the_source_file_knows_best() {
        let text = "{\"品种\":\"螺纹钢\"}";
        let (gbk, _, _) = GB18030.encode(text);
        for (header, body, says) in [
            (
                "text/plain; charset=iso-8859-1",
                text.as_bytes(),
                "declared windows-1252 and sent UTF-8",
            ),
            (
                "text/plain; charset=gb2312",
                text.as_bytes(),
                "declared GBK and sent UTF-8",
            ),
            (
                "text/plain; charset=iso-8859-1",
                &*gbk,
                "declared windows-1252 and sent GBK",
            ),
        ] {
            let (value, findings) = read(Some(header), body).unwrap();
            assert_eq!(value["品种"], "螺纹钢", "{header}");
            assert!(findings.concat().contains(says), "{findings:?}");
        }
        // Valid UTF-8 by chance.
        let (value, findings) = read(Some("x; charset=gbk"), b"{\"a\":\"\xc2\xa9\"}").unwrap();
        assert_eq!((&value["a"], findings.len()), (&Value::from("漏"), 0));
        let rules = |charset: &str| Answer {
            charset: Some(charset.to_owned()),
            ..Answer::default()
        };
        let (value, _) = read_by(&rules("gbk"), Some("x; charset=utf-8"), &gbk).unwrap();
        assert_eq!(value["品种"], "螺纹钢");
        let wrong = read_by(&rules("utf-8"), None, &gbk).unwrap_err();
        assert!(
            wrong.error.message.contains("bytes that are not UTF-8"),
            "{wrong:?}"
        );
        let korean = b"<meta charset=euc-kr>\xb1\xdd";
        let response = Response {
            body: korean.to_vec(),
            ..Response::default()
        };
        assert!(super::text("x", &response, None).unwrap().0.contains('금'));
        // Valid UTF-8 by chance as well.
        let copper = Response {
            body: b"<?xml version=\"1.0\" encoding=\"gb2312\"?><a>\xcd\xad</a>".to_vec(),
            ..Response::default()
        };
        let (text, finding) = super::text("x", &copper, None).unwrap();
        assert!(text.contains('铜') && finding.is_none(), "{text}");
    }

    #[test]
    fn a_key_that_stands_twice_is_noticed() {
        let (value, findings) =
            read(None, b"{\"a\": 1, \"b\": {\"c\": 1, \"c\": 2}, \"a\": 3}").unwrap();
        assert_eq!(
            (&value["a"], &value["b"]["c"]),
            (&Value::from(3), &Value::from(2))
        );
        assert!(findings[0].contains("(\"c\", \"a\")"), "{findings:?}");
    }

    #[test]
    fn bytes_that_are_no_characters_cost_their_record_and_not_the_day() {
        let text = "{\"品种\":\"螺纹钢与热轧卷板和铁矿石\",\"b\":\"?\"}";
        let (gbk, _, _) = GB18030.encode(text);
        for (header, bytes) in [
            (None, text.as_bytes()),
            (Some("x; charset=utf-8"), text.as_bytes()),
            (None, &*gbk),
            (Some("x; charset=gbk"), &*gbk),
        ] {
            let at = bytes.iter().rposition(|b| *b == b'?').unwrap();
            let mut body = bytes.to_vec();
            body[at] = 0xff;
            let (value, findings) = read(header, &body).unwrap();
            assert_eq!(value["品种"], "螺纹钢与热轧卷板和铁矿石", "{header:?}");
            let found = exact::malformed_within(&value).unwrap();
            assert_eq!(found.0, "b");
            assert!(exact::to_text(&value).contains("\"b\":\"\u{fffd}\""));
            assert!(
                findings.concat().contains("bytes that are not"),
                "{findings:?}"
            );
        }
    }

    fn kind(body: &[u8]) -> ErrorKind {
        read(None, body).unwrap_err().error.kind
    }

    #[test]
    fn declared_undeclared_and_marked_character_sets_are_read() {
        let (gbk, _, _) = GB18030.encode("{\"品种\":\"螺纹钢\"}");
        assert_eq!(
            read(Some("application/json; charset=GBK"), &gbk).unwrap().0["品种"],
            "螺纹钢"
        );
        let (value, finding) = read(Some("application/json"), &gbk).unwrap();
        assert_eq!(value["品种"], "螺纹钢");
        assert!(finding[0].contains("GBK"));
        assert_eq!(read(None, b"\xef\xbb\xbf{\"a\":1}").unwrap().0["a"], 1);
    }

    #[test]
    fn what_is_no_data_is_distinguished() {
        assert_eq!(
            kind(b"  <!doctype html><title>\xe9\xaa\x8c\xe8\xaf\x81</title>"),
            ErrorKind::Blocked
        );
        assert_eq!(
            kind(b"{\"success\": true, \"result\": ["),
            ErrorKind::Network
        );
        assert_eq!(kind(b"{\"a\": nan}"), ErrorKind::Shape);
        assert_eq!(kind(b" \n"), ErrorKind::Empty);
        assert_eq!(kind(b"\xff\xff\xff\xff"), ErrorKind::Shape);
    }
}
