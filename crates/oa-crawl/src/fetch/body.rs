//! From bytes to JSON: character sets, and answers that are no data.

use encoding_rs::{Encoding, GB18030, UTF_8};
use oa_core::base::exact;
use oa_core::model::retry::ErrorKind;
use serde_json::Value;

use super::{FetchError, Response};

/// Reads a body as JSON. The second value is a finding about the character set, if there is one.
/// Fails with `blocked` for a page where data were due, `network` for JSON that was cut short, `shape` for anything else.
pub(crate) fn json(url: &str, response: &Response) -> Result<(Value, Option<String>), FetchError> {
    let (text, finding) = text(url, response)?;
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(FetchError::new(
            ErrorKind::Empty,
            format!("an empty body: {url}"),
        ));
    }
    if trimmed.starts_with('<') {
        let title = page_title(trimmed).map_or_else(String::new, |t| format!(" titled \"{t}\""));
        return Err(FetchError::new(
            ErrorKind::Blocked,
            format!("a web page{title} where data were due: {url}"),
        ));
    }
    if let Some(value) = exact::parse(trimmed) {
        return Ok((value, finding));
    }
    match serde_json::from_str(trimmed) {
        Ok(value) => Ok((value, finding)),
        Err(e) if e.is_eof() => Err(FetchError::new(
            ErrorKind::Network,
            format!(
                "JSON that is cut short after {} bytes: {url}",
                response.body.len()
            ),
        )),
        Err(e) => Err(FetchError::new(
            ErrorKind::Shape,
            format!("something that is not JSON ({e}): {url}"),
        )),
    }
}

/// Reads a body as a page. The second value is a finding about the character set, if there is one.
/// Fails with `empty` for nothing, `shape` for data where a page was due and for bytes of no known character set.
pub(crate) fn page(url: &str, response: &Response) -> Result<(String, Option<String>), FetchError> {
    let (text, finding) = text(url, response)?;
    let error = match text.trim_start().chars().next() {
        Some('<') => {
            // Old pages declare their character set in themselves.
            let declared = finding.filter(|_| !text.contains("charset="));
            return Ok((text, declared));
        }
        None => (ErrorKind::Empty, "an empty body"),
        Some(_) => (ErrorKind::Shape, "something that is no web page"),
    };
    Err(FetchError::new(error.0, format!("{}: {url}", error.1)))
}

fn text(url: &str, response: &Response) -> Result<(String, Option<String>), FetchError> {
    let declared = response.content_type.as_deref().and_then(charset);
    let body = response.body.as_slice();
    if let Some(encoding) = declared.filter(|e| *e != UTF_8) {
        let (text, _, broken) = encoding.decode(body);
        return if broken {
            Err(undecodable(url, encoding.name()))
        } else {
            Ok((text.into_owned(), None))
        };
    }
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    if let Ok(text) = std::str::from_utf8(body) {
        return Ok((text.to_owned(), None));
    }
    // Chinese sites send GBK without saying so.
    let (text, _, broken) = GB18030.decode(body);
    if broken {
        return Err(undecodable(url, "UTF-8 or GBK"));
    }
    Ok((
        text.into_owned(),
        Some("the site sent GBK without declaring it".to_owned()),
    ))
}

/// A body as a person can read it, whatever its character set.
pub(crate) fn readable(response: &Response) -> String {
    text("", response).map_or_else(
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

fn charset(content_type: &str) -> Option<&'static Encoding> {
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
    let title: String = page.get(start..end)?.trim().chars().take(80).collect();
    (!title.is_empty()).then_some(title)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(
        content_type: Option<&str>,
        body: &[u8],
    ) -> Result<(Value, Option<String>), FetchError> {
        json(
            "http://x",
            &Response {
                status: 200,
                content_type: content_type.map(str::to_owned),
                body: body.to_vec(),
                ..Response::default()
            },
        )
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
        assert!(finding.unwrap().contains("GBK"));
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
