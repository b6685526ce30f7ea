//! The names of WAL segments.

use crate::Lsn;

/// A segment that is still being filled has this behind its name.
const PARTIAL: &str = ".partial";

/// A segment of the WAL in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Its name, without `.partial`.
    pub name: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where it begins.
    pub start: Lsn,
    /// It is still being filled.
    pub partial: bool,
}

impl Segment {
    /// Reads a file's name; `None` for what is no segment (a timeline's history, for example).
    #[must_use]
    pub fn parse(file: &str, segment_bytes: u64) -> Option<Self> {
        let (name, partial) = match file.strip_suffix(PARTIAL) {
            Some(name) => (name, true),
            None => (file, false),
        };
        if name.len() != 24 || !name.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        let part = |range| u32::from_str_radix(name.get(range)?, 16).ok();
        let (timeline, high, low) = (part(0..8)?, part(8..16)?, part(16..24)?);
        let start = (u64::from(high) << 32) + u64::from(low) * segment_bytes;
        Some(Self {
            name: name.to_owned(),
            timeline,
            start: Lsn(start),
            partial,
        })
    }

    /// The name of its file.
    #[must_use]
    pub fn file(&self) -> String {
        format!("{}{}", self.name, if self.partial { PARTIAL } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_segments_are_lsns() {
        let size = 16 << 20;
        let s = Segment::parse("00000002000000160000000B.partial", size).unwrap();
        assert_eq!((s.timeline, s.partial), (2, true));
        assert_eq!(s.start, "16/B000000".parse().unwrap());
        assert_eq!(s.file(), "00000002000000160000000B.partial");
        for other in [
            "00000002.history",
            "backup_label",
            "00000002000000160000000",
            "x0000002000000160000000B",
        ] {
            assert_eq!(Segment::parse(other, size), None, "{other}");
        }
    }
}
