//! What a run has left in this machine's state directory: answers, screenshots and pages of failures, and the source file that it worked
//! by, and what its program has printed so far. A run of another machine has left them there.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Utc};
use encoding_rs::Encoding;
use oa_core::base::secrets::{redact, redact_cut_off};
use oa_core::journal::live_output;
use serde_json::Value;

use super::run::RunDetail;

/// Bytes of an answer that are shown.
pub(crate) const SHOWN: u64 = 1 << 20;
/// Largest file that is given out.
const LARGEST: u64 = 8 << 20;

/// An answer of a site as text, without what is secret in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Body {
    Text {
        text: String,
        /// There is more of it.
        is_cut: bool,
    },
    /// Nothing that could be read.
    Bytes(Vec<u8>),
}

fn archived(state_dir: &Path, sha256: &str) -> Option<PathBuf> {
    let plain = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| {
        let folder = state_dir.join("raw").join(&sha256[..2]);
        folder.join(format!("{sha256}.zst"))
    })
}

/// Whether the answer is in this machine's archive.
pub(crate) fn has_answer(state_dir: &Path, sha256: &str) -> bool {
    archived(state_dir, sha256).is_some_and(|path| path.is_file())
}

/// An answer out of the archive.
pub(crate) fn answer(
    state_dir: &Path,
    sha256: &str,
    content_type: Option<&str>,
) -> io::Result<Body> {
    let path = archived(state_dir, sha256).ok_or(io::ErrorKind::NotFound)?;
    let mut bytes = Vec::new();
    let mut unpacked = zstd::Decoder::new(File::open(path)?)?.take(SHOWN + 1);
    unpacked.read_to_end(&mut bytes)?;
    let is_cut = bytes.len() as u64 > SHOWN;
    bytes.truncate(SHOWN as usize);
    let text = read_as_text(&bytes, content_type).filter(|text| !text.contains('\0'));
    Ok(match text {
        Some(text) => Body::Text {
            text: if is_cut {
                redact_cut_off(&text)
            } else {
                redact(&text)
            },
            is_cut,
        },
        None => Body::Bytes(bytes),
    })
}

/// In the character set that it says, else UTF-8, else GBK.
fn read_as_text(bytes: &[u8], content_type: Option<&str>) -> Option<String> {
    let said = content_type
        .and_then(|t| {
            t.to_ascii_lowercase()
                .split_once("charset=")
                .map(|(_, c)| c.to_owned())
        })
        .and_then(|c| Encoding::for_label(c.trim_matches(['"', '\'', ' ', ';']).as_bytes()));
    // The last character may be cut in two.
    let end = bytes.len() - bytes.len().min(4);
    let utf8 = match std::str::from_utf8(bytes) {
        Err(e) if e.valid_up_to() >= end => std::str::from_utf8(&bytes[..e.valid_up_to()]),
        other => other,
    };
    let by = |encoding: &'static Encoding| {
        let (text, _, wrong) = encoding.decode(bytes);
        (!wrong || text.chars().filter(|c| *c == '\u{fffd}').count() == 1)
            .then(|| text.into_owned())
    };
    match (utf8, said) {
        (Ok(text), _) => Some(text.to_owned()),
        (Err(_), Some(said)) => by(said),
        (Err(_), None) => by(encoding_rs::GBK),
    }
}

/// What the program of a run that is under way has printed so far goes where all of it will stand.
pub(crate) fn add_live_output(state_dir: &Path, run: &mut RunDetail) {
    let entry = &run.run;
    let (Some(details), None) = (run.details.as_object_mut(), entry.end_time) else {
        return;
    };
    if let Some(printed) = live_output::read(state_dir, &entry.task_name, entry.id) {
        let text = redact(&printed.text);
        details.insert("output".to_owned(), Value::String(text));
    }
}

/// Names of the screenshots and pages that were kept while a run of this task failed.
pub(crate) fn failures(
    state_dir: &Path,
    task: &str,
    from: DateTime<Utc>,
    until: Option<DateTime<Utc>>,
) -> Vec<String> {
    let until = until.unwrap_or_else(Utc::now) + TimeDelta::seconds(5);
    let is_of = |name: &str| {
        let (at, of) = name.split_once("Z-")?;
        let (of, ending) = of.rsplit_once('.')?;
        let at = NaiveDateTime::parse_from_str(at, "%Y%m%dT%H%M%S%.f").ok()?;
        Some(
            of == task
                && matches!(ending, "png" | "html")
                && (from..=until).contains(&at.and_utc()),
        )
    };
    let mut names: Vec<String> = fs::read_dir(state_dir.join("failures"))
        .map(|all| {
            all.flatten()
                .filter_map(|f| f.file_name().into_string().ok())
                .collect()
        })
        .unwrap_or_default();
    names.retain(|name| is_of(name) == Some(true));
    names.sort_unstable();
    names
}

/// One of [`failures`]; a page without what is secret in it.
pub(crate) fn failure(state_dir: &Path, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(state_dir.join("failures").join(name))?;
    file.take(LARGEST).read_to_end(&mut bytes)?;
    if name.ends_with(".html") {
        return Ok(redact(&String::from_utf8_lossy(&bytes)).into_bytes());
    }
    Ok(bytes)
}

/// The source file with this SHA-256.
pub(crate) fn source(state_dir: &Path, sha256: &str) -> Option<String> {
    let plain = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
    let path = state_dir.join("sources").join(format!("{sha256}.toml"));
    let text = plain.then(|| fs::read_to_string(path).ok()).flatten()?;
    Some(redact(&text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_in_its_character_set_or_not_at_all() {
        let gbk = encoding_rs::GBK.encode("螺纹钢 持仓").0.into_owned();
        for (bytes, content_type) in [
            ("螺纹钢 持仓".as_bytes(), None),
            (gbk.as_slice(), None),
            (gbk.as_slice(), Some("text/html; charset=gb2312")),
        ] {
            assert_eq!(
                read_as_text(bytes, content_type).as_deref(),
                Some("螺纹钢 持仓")
            );
        }
        let cut = &"螺纹钢".as_bytes()[..8];
        assert_eq!(read_as_text(cut, None).as_deref(), Some("螺纹"));
        assert_eq!(
            read_as_text(&[0x89, b'P', 0xff, 0xfe, 0xff, 0xff, 0x80, 0xff], None),
            None
        );
    }

    #[test]
    fn only_files_of_this_run_are_its_failures() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("failures")).unwrap();
        for name in [
            "20251201T080000.000Z-a-b.png",
            "20251201T080000.000Z-a-b.html",
            "20251201T080000.000Z-b.png",
            "20251201T090000.000Z-a-b.png",
            "notes.txt",
        ] {
            fs::write(dir.path().join("failures").join(name), "x").unwrap();
        }
        let at = |text: &str| text.parse::<DateTime<Utc>>().unwrap();
        let from = at("2025-12-01T07:59:00Z");
        assert_eq!(
            failures(dir.path(), "a-b", from, Some(at("2025-12-01T08:01:00Z"))),
            [
                "20251201T080000.000Z-a-b.html",
                "20251201T080000.000Z-a-b.png"
            ]
        );
        let page = dir.path().join("failures/20251201T080000.000Z-a-b.html");
        fs::write(page, "<p>螺纹钢 token=abcdef123456</p>").unwrap();
        let shown = failure(dir.path(), "20251201T080000.000Z-a-b.html").unwrap();
        assert_eq!(
            String::from_utf8(shown).unwrap(),
            "<p>螺纹钢 token=[redacted]</p>"
        );
        assert!(source(dir.path(), "../../etc/passwd").is_none());
        assert!(!has_answer(dir.path(), "../x"));
    }
}
