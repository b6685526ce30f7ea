//! Timelines: which WAL goes on from which backup.
//!
//! LSNs alone do not say so. A server that was put back to an older backup and promoted writes a new timeline from a lower LSN on;
//! what the timeline before it wrote beyond that LSN is on a branch of its own. Retention, the catalogue and `oa-restore` all ask
//! here, so that none of them removes, counts or promises what another one sees differently.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::layout::DATA;
use crate::{Backup, Kind, Level, Lsn, Meta, Reader, Repository, RepositoryError, Segment};

/// The timelines that lead to one, oldest first, each with the LSN at which it begins.
///
/// A timeline ends where the next one begins; what its server wrote after that is on a branch that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePath(Vec<(u32, Lsn)>);

impl TimelinePath {
    /// A timeline whose history is not needed.
    #[must_use]
    pub fn only(timeline: u32) -> Self {
        Self(vec![(timeline, Lsn(0))])
    }

    /// Reads a timeline's history file: its ancestors, a line each, with the LSN at which they end.
    pub fn parse(timeline: u32, history: &str) -> Result<Self, String> {
        let mut path = Vec::new();
        let mut begins = Lsn(0);
        for line in history.lines() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let mut words = line.split_whitespace();
            let parsed: Option<(u32, Lsn)> = (|| {
                let parent = words.next()?.parse().ok()?;
                let ends = words.next()?.parse().ok()?;
                Some((parent, ends))
            })();
            let (parent, ends) =
                parsed.ok_or_else(|| format!("\"{line}\" is no line of a timeline's history"))?;
            path.push((parent, begins));
            begins = ends;
        }
        path.push((timeline, begins));
        Ok(Self(path))
    }

    /// The timeline that it leads to.
    #[must_use]
    pub fn timeline(&self) -> u32 {
        self.0.last().map_or(1, |(timeline, _)| *timeline)
    }

    /// Whether what `timeline` held up to `lsn` lies on it.
    #[must_use]
    pub fn holds(&self, timeline: u32, lsn: Lsn) -> bool {
        self.0.iter().enumerate().any(|(i, (t, _))| {
            *t == timeline && self.0.get(i + 1).is_none_or(|(_, ends)| lsn <= *ends)
        })
    }

    /// The timeline whose file holds the segment that ends at `end`: the newest that had begun by then.
    #[must_use]
    pub fn of_segment(&self, end: Lsn) -> u32 {
        let found = self.0.iter().rev().find(|(_, begins)| *begins < end);
        found.map_or(1, |(timeline, _)| *timeline)
    }

    /// All but the first have a history file.
    pub fn timelines(&self) -> impl Iterator<Item = u32> + '_ {
        self.0.iter().map(|(timeline, _)| *timeline)
    }

    /// Up to here both are the same; `None` where they have nothing in common.
    fn shared_with(&self, other: &Self) -> Option<Lsn> {
        let same = self.0.iter().zip(&other.0).take_while(|(a, b)| a == b);
        let same = same.count();
        let ends = |path: &Self| {
            path.0
                .get(same)
                .map_or(Lsn(u64::MAX), |(_, begins)| *begins)
        };
        (same > 0).then(|| ends(self).min(ends(other)))
    }

    /// Whether a backup on `other` that ends at `lsn` lies on this one.
    fn goes_through(&self, other: &Self, lsn: Lsn) -> bool {
        self.0.starts_with(&other.0) && self.holds(other.timeline(), lsn)
    }
}

/// The name of a timeline's history file.
#[must_use]
pub fn history_name(timeline: u32) -> String {
    format!("{timeline:08X}.history")
}

/// The timeline that a backup of WAL ends on. What the server said of itself right after a promotion may be too old: the segments
/// know.
#[must_use]
pub fn timeline_of(meta: &Meta, files: &[String], segment_bytes: u64) -> u32 {
    files
        .iter()
        .filter_map(|f| Segment::parse(f, segment_bytes))
        .max_by_key(|s| (s.start, s.timeline))
        .map_or(meta.timeline, |s| s.timeline)
}

/// The names of the files of a backup of WAL.
pub fn names(reader: &Reader, backup: &Backup) -> Result<Vec<String>, RepositoryError> {
    let files = reader.files(backup, Path::new(""))?;
    Ok(files
        .iter()
        .filter_map(|f| f.path.file_name())
        .map(|n| n.to_string_lossy().into_owned())
        .collect())
}

/// Which timelines lead to each backup; `None` for what is not physical, and where the history cannot be read.
pub type TimelinePaths = Vec<Option<TimelinePath>>;

/// Finds the path of each backup. The repository is read only where a cluster has had more than one timeline.
pub fn paths(
    repository: &Repository,
    backups: &[Backup],
) -> Result<TimelinePaths, RepositoryError> {
    let mut timelines: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for meta in backups.iter().map(|b| &b.meta) {
        if meta.kind == Kind::Physical {
            let known = timelines.entry(&meta.system_id).or_default();
            known.insert(meta.timeline);
        }
    }
    let one = |meta: &Meta| {
        timelines
            .get(meta.system_id.as_str())
            .is_none_or(|t| t.len() == 1)
    };
    let physical = |b: &&Backup| b.meta.kind == Kind::Physical;
    let reader = match backups.iter().filter(physical).all(|b| one(&b.meta)) {
        true => None,
        false => Some(repository.reader()?),
    };
    let path = |backup: &Backup| match &reader {
        _ if backup.meta.kind != Kind::Physical => None,
        Some(reader) if !one(&backup.meta) => path_of(reader, backup),
        _ => Some(TimelinePath::only(backup.meta.timeline)),
    };
    let mut paths: TimelinePaths = backups.iter().map(path).collect();
    // A copy that did not bring its history is on the timeline that others say it is.
    for (i, backup) in backups.iter().enumerate() {
        if paths[i].is_none() && backup.meta.kind == Kind::Physical && backup.meta.wal.is_none() {
            let same = (0..backups.len()).find_map(|j| {
                let path = paths[j].as_ref()?;
                let meta = &backups[j].meta;
                (meta.system_id == backup.meta.system_id && path.timeline() == backup.meta.timeline)
                    .then(|| path.clone())
            });
            paths[i] = same;
        }
    }
    Ok(paths)
}

fn path_of(reader: &Reader, backup: &Backup) -> Option<TimelinePath> {
    let meta = &backup.meta;
    let (timeline, folder) = match &meta.wal {
        Some(wal) => {
            let names = names(reader, backup).ok()?;
            (
                timeline_of(meta, &names, wal.segment_bytes),
                Path::new("").to_owned(),
            )
        }
        None => (meta.timeline, Path::new(DATA).join("pg_wal")),
    };
    if timeline == 1 {
        return Some(TimelinePath::only(1));
    }
    let text = reader
        .read(backup, &folder.join(history_name(timeline)))
        .ok()?;
    TimelinePath::parse(timeline, &String::from_utf8_lossy(&text)).ok()
}

/// A full backup and what can be reached from it: the full backups and the WAL that follow it on one path without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoveryChain {
    /// Full backups, by LSN. Everything that one of them reaches, the ones before it reach as well.
    pub fulls: Vec<usize>,
    /// Backups of WAL that lie on the path, and up to where they do.
    pub wal: Vec<(usize, Lsn)>,
    /// Up to here recovery comes.
    pub reaches: Lsn,
}

/// Backups of WAL that no full backup leads to, and why: they are there, and restore nothing. Where the history of a timeline cannot
/// be read nobody knows.
pub fn stranded(
    repository: &Repository,
    backups: &[Backup],
) -> Result<BTreeMap<String, String>, RepositoryError> {
    let mut clusters: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, meta) in backups.iter().map(|b| &b.meta).enumerate() {
        if meta.kind == Kind::Physical {
            clusters.entry(&meta.system_id).or_default().push(i);
        }
    }
    let mut found = BTreeMap::new();
    if clusters.is_empty() {
        return Ok(found);
    }
    let paths = paths(repository, backups)?;
    for group in clusters.values() {
        let chains = chains(backups, &paths, group);
        let reached: BTreeSet<usize> = chains
            .iter()
            .flat_map(|r| &r.wal)
            .map(|(i, _)| *i)
            .collect();
        for i in group
            .iter()
            .filter(|i| backups[**i].meta.wal.is_some() && paths[**i].is_some())
        {
            if !reached.contains(i) {
                let gone = |full: &&str| !backups.iter().any(|b| b.id == **full);
                let reason = match backups[*i].meta.full.as_deref().filter(gone) {
                    Some(full) => {
                        format!("its full backup {} is gone", full.get(..8).unwrap_or(full))
                    }
                    None => "no full backup leads to its WAL without a gap".to_owned(),
                };
                found.insert(
                    backups[*i].id.clone(),
                    format!("it cannot be restored: {reason}"),
                );
            }
        }
    }
    Ok(found)
}

/// What can be restored from physical backups of one cluster: each path's chains. `group` are indices of `backups`.
#[must_use]
pub fn chains(backups: &[Backup], paths: &TimelinePaths, group: &[usize]) -> Vec<RecoveryChain> {
    let mut distinct: Vec<&TimelinePath> = Vec::new();
    for path in group.iter().filter_map(|i| paths[*i].as_ref()) {
        if !distinct.contains(&path) {
            distinct.push(path);
        }
    }
    distinct
        .into_iter()
        .flat_map(|path| chains_on(backups, paths, group, path))
        .collect()
}

fn chains_on(
    backups: &[Backup],
    paths: &TimelinePaths,
    group: &[usize],
    on: &TimelinePath,
) -> Vec<RecoveryChain> {
    let mut fulls: Vec<(Lsn, usize)> = Vec::new();
    let mut wal: Vec<(Lsn, Lsn, usize)> = Vec::new();
    for i in group.iter().copied() {
        let (meta, Some(path)) = (&backups[i].meta, &paths[i]) else {
            continue;
        };
        match (&meta.wal, meta.end_lsn) {
            (Some(range), _) => {
                let to = on.shared_with(path).map(|shared| shared.min(range.to));
                if let Some(to) = to.filter(|to| *to > range.from) {
                    wal.push((range.from, to, i));
                }
            }
            (None, Some(end)) if meta.level == Level::Full && on.goes_through(path, end) => {
                fulls.push((end, i));
            }
            _ => {}
        }
    }
    fulls.sort_unstable();
    wal.sort_unstable();
    let mut chains: Vec<RecoveryChain> = Vec::new();
    for (end, full) in fulls {
        if let Some(run) = chains.last_mut().filter(|run| run.reaches >= end) {
            run.fulls.push(full);
            continue;
        }
        let mut reaches = end;
        for (from, to, _) in &wal {
            if *from > reaches {
                break;
            }
            reaches = reaches.max(*to);
        }
        let begins = backups[full].meta.start_lsn.unwrap_or(end);
        let mine = wal
            .iter()
            .filter(|(from, to, _)| *from <= reaches && *to > begins);
        chains.push(RecoveryChain {
            fulls: vec![full],
            wal: mine.map(|(_, to, i)| (*i, *to)).collect(),
            reaches,
        });
    }
    chains
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    #[test]
    fn a_path_holds_its_ancestors_up_to_where_they_ended() {
        let history = "1\t0/2800000\tno recovery target specified\n\n2\t0/4800000\tbefore 2026\n";
        let path = TimelinePath::parse(3, history).unwrap();
        assert_eq!(path.timelines().collect::<Vec<_>>(), [1, 2, 3]);
        assert!(path.holds(1, lsn("0/2800000")) && !path.holds(1, lsn("0/2800001")));
        assert!(path.holds(3, lsn("9/0")) && !path.holds(4, lsn("0/1")));
        assert!(TimelinePath::parse(2, "x").is_err());
        // Another server has taken the number of timeline 2 once more, from elsewhere on.
        let other = TimelinePath::parse(2, "1\t0/3000000\tlater\n").unwrap();
        let two = TimelinePath::parse(2, "1\t0/2800000\tfirst\n").unwrap();
        assert!(path.goes_through(&two, lsn("0/3000000")));
        assert!(!path.goes_through(&other, lsn("0/3000000")));
        assert_eq!(path.shared_with(&other), Some(lsn("0/2800000")));
        assert_eq!(path.shared_with(&two), Some(lsn("0/4800000")));
        assert_eq!(
            path.shared_with(&TimelinePath::only(1)),
            Some(lsn("0/2800000"))
        );
    }
}
