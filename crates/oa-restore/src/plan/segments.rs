//! Which segments of the WAL a recovery needs, and whether they are there without a gap.

use std::collections::BTreeMap;

use oa_repository::Lsn;
use oa_repository::Segment;
use oa_repository::timeline::TimelinePath;

/// Where a segment can be taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocatedSegment {
    /// The segment, under the name it has there.
    pub(crate) segment: Segment,
    /// It is filled up to here.
    pub(crate) to: Lsn,
    /// Which backup holds it; `None`: the full backup itself.
    pub(crate) source: Option<usize>,
}

/// What was found so far, the fullest of each segment.
#[derive(Debug, Default)]
pub(crate) struct SegmentIndex {
    size: u64,
    best: BTreeMap<(Lsn, u32), LocatedSegment>,
}

impl SegmentIndex {
    /// For segments of `size` bytes.
    pub(crate) fn new(size: u64) -> Self {
        Self {
            size,
            best: BTreeMap::new(),
        }
    }

    /// Adds a backup's: `files` are its file names, filled up to `to`.
    pub(crate) fn add<'a>(&mut self, source: usize, to: Lsn, files: impl Iterator<Item = &'a str>) {
        for file in files {
            let Some(segment) = Segment::parse(file, self.size) else {
                continue;
            };
            let end = Lsn(segment.start.0 + self.size);
            let to = if segment.partial { to.min(end) } else { end };
            self.put(LocatedSegment {
                segment,
                to,
                source: Some(source),
            });
        }
    }

    /// Adds those that a full backup brings itself, from `start` to `end`.
    pub(crate) fn add_full(&mut self, timeline: u32, start: Lsn, end: Lsn) {
        let mut at = Lsn(start.0 - start.0 % self.size);
        while at < end {
            let name = self.name(timeline, at);
            if let Some(segment) = Segment::parse(&name, self.size) {
                let to = end.min(Lsn(at.0 + self.size));
                self.put(LocatedSegment {
                    segment,
                    to,
                    source: None,
                });
            }
            at = Lsn(at.0 + self.size);
        }
    }

    /// A backup's own file wins over a full backup's copy of it, which may end earlier than its size says.
    fn put(&mut self, found: LocatedSegment) {
        let key = (found.segment.start, found.segment.timeline);
        let better = self.best.get(&key).is_none_or(|known| {
            (found.to, found.source.is_some()) > (known.to, known.source.is_some())
        });
        if better {
            self.best.insert(key, found);
        }
    }

    /// The segments on the path from `from` to `to`.
    pub(crate) fn along(
        &self,
        path: &TimelinePath,
        from: Lsn,
        to: Lsn,
    ) -> Result<Vec<LocatedSegment>, String> {
        let mut found = Vec::new();
        let mut at = Lsn(from.0 - from.0 % self.size);
        while at < to {
            let end = Lsn(at.0 + self.size);
            let timeline = path.of_segment(end);
            match self.best.get(&(at, timeline)) {
                Some(segment) if segment.to >= end.min(to) => found.push(segment.clone()),
                _ => return Err(self.name(timeline, at)),
            }
            at = end;
        }
        Ok(found)
    }

    /// The file name of a segment (PostgreSQL's source, `access/xlog_internal.h`).
    fn name(&self, timeline: u32, at: Lsn) -> String {
        let per_id = (1_u64 << 32) / self.size;
        let number = at.0 / self.size;
        format!(
            "{timeline:08X}{:08X}{:08X}",
            number / per_id,
            number % per_id
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 16 << 20;

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    fn names(found: &[LocatedSegment]) -> Vec<(String, Option<usize>)> {
        found.iter().map(|f| (f.segment.file(), f.source)).collect()
    }

    #[test]
    fn complete_segments_win_over_partial_ones_and_newer_partial_ones_over_older() {
        let mut segments = SegmentIndex::new(SIZE);
        let (one, two) = ("000000010000000000000001", "000000010000000000000002");
        segments.add(
            0,
            lsn("0/1800000"),
            [format!("{one}.partial")].iter().map(String::as_str),
        );
        segments.add(
            1,
            lsn("0/2800000"),
            [one, &format!("{two}.partial")].into_iter(),
        );
        segments.add(
            2,
            lsn("0/2900000"),
            [format!("{two}.partial")].iter().map(String::as_str),
        );
        let path = TimelinePath::only(1);
        let found = segments
            .along(&path, lsn("0/1000028"), lsn("0/2900000"))
            .unwrap();
        assert_eq!(
            names(&found),
            [
                (one.to_owned(), Some(1)),
                (format!("{two}.partial"), Some(2))
            ]
        );
        assert_eq!(
            segments.along(&path, lsn("0/1000028"), lsn("0/2900001")),
            Err(two.to_owned())
        );
    }

    #[test]
    fn a_missing_segment_is_named_and_what_a_full_backup_brings_itself_counts_as_far_as_it_goes() {
        let mut segments = SegmentIndex::new(SIZE);
        segments.add_full(1, lsn("FF/FE000028"), lsn("FF/FF000100"));
        let path = TimelinePath::only(1);
        let along =
            |segments: &SegmentIndex, to| segments.along(&path, lsn("FF/FE000028"), lsn(to));
        assert_eq!(along(&segments, "FF/FF000100").unwrap().len(), 2);
        // A standby's copy ends within a segment; the WAL that was received goes on there.
        let last = "00000001000000FF000000FF";
        assert_eq!(along(&segments, "FF/FF000200"), Err(last.to_owned()));
        segments.add(
            0,
            lsn("FF/FF000200"),
            std::iter::once(&*format!("{last}.partial")),
        );
        let found = along(&segments, "FF/FF000200").unwrap();
        assert_eq!((found[0].source, found[1].source), (None, Some(0)));
        assert_eq!(along(&segments, "100/1"), Err(last.to_owned()));
        segments.add(1, lsn("100/0"), std::iter::once(last));
        assert_eq!(
            along(&segments, "100/1"),
            Err("000000010000010000000000".to_owned())
        );
    }

    #[test]
    fn after_a_promotion_the_new_timelines_segment_is_needed() {
        let history = "1\t0/2800000\tno recovery target specified\n\n2\t0/4800000\tbefore 2026\n";
        let path = TimelinePath::parse(3, history).unwrap();
        let mut segments = SegmentIndex::new(SIZE);
        let files = [
            "000000010000000000000001",
            "000000010000000000000002.partial",
            "000000020000000000000002",
            "000000020000000000000003",
            "000000030000000000000004.partial",
        ];
        segments.add(0, lsn("0/4900000"), files.into_iter());
        let found = segments
            .along(&path, lsn("0/1000028"), lsn("0/4900000"))
            .unwrap();
        let timelines: Vec<u32> = found.iter().map(|f| f.segment.timeline).collect();
        assert_eq!(timelines, [1, 2, 2, 3]);
    }
}
