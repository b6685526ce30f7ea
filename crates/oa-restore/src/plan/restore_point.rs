//! Where a named restore point is: the stored WAL is read with `pg_waldump`.

use std::collections::HashSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use oa_core::base::secrets::keep_from;
use oa_repository::Segment;
use oa_repository::{Backup, Lsn};

use super::Planner;
use crate::RestoreError;

pub(super) struct RestorePoint {
    /// Right behind its beginning: recovery that stops before what begins there has the point itself.
    pub(super) lsn: Lsn,
    /// The timeline that it was made on.
    pub(super) timeline: u32,
}

/// The newest point of that name.
pub(super) fn find(
    planner: &Planner<'_>,
    system: &str,
    name: &str,
) -> Result<RestorePoint, RestoreError> {
    let mut wal_backups: Vec<&Backup> = planner
        .backups
        .iter()
        .filter(|b| b.meta.system_id == system && b.meta.wal.is_some())
        .collect();
    wal_backups.sort_by_key(|b| std::cmp::Reverse(b.meta.restorable_to));
    let scratch = planner.scratch.join("restore-point");
    let mut seen = HashSet::new();
    for wal_backup in wal_backups {
        let Some(range) = &wal_backup.meta.wal else {
            continue;
        };
        let mut files: Vec<(Segment, String)> = planner
            .names(wal_backup)?
            .iter()
            .filter_map(|f| Some((Segment::parse(f, range.segment_bytes)?, f.clone())))
            .filter(|(s, _)| !seen.contains(&s.name))
            .collect();
        files.sort_by_key(|(s, _)| std::cmp::Reverse((s.timeline, s.start)));
        let wanted: HashSet<&str> = files.iter().map(|(_, f)| f.as_str()).collect();
        planner
            .reader
            .restore_some(wal_backup, Path::new(""), &scratch, false, |path| {
                path.file_name()
                    .is_some_and(|f| wanted.contains(&*f.to_string_lossy()))
            })?;
        let program = planner.programs(wal_backup)?.join("pg_waldump");
        for (segment, file) in &files {
            let path = scratch.join(&segment.name);
            if segment.partial {
                let stored = scratch.join(file);
                fs::rename(&stored, &path)
                    .map_err(RestoreError::disk("could not rename", &stored))?;
            }
            if let Some(lsn) = point_in(&program, &path, name)? {
                let _ = fs::remove_dir_all(&scratch);
                return Ok(RestorePoint {
                    lsn: Lsn(lsn.0 + 1),
                    timeline: segment.timeline,
                });
            }
            seen.insert(segment.name.clone());
        }
        let _ = fs::remove_dir_all(&scratch);
    }
    Err(RestoreError::NoPlan(format!(
        "there is no restore point \"{name}\" in the WAL that is backed up"
    )))
}

/// The last point of that name in a segment. The program ends with an error where the segment does, which is to be expected.
fn point_in(program: &Path, segment: &Path, name: &str) -> Result<Option<Lsn>, RestoreError> {
    let failed = RestoreError::disk("could not run", program);
    let mut command = Command::new(program);
    keep_from(&mut command);
    let mut child = command
        .arg("--rmgr=XLOG")
        .arg(segment)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(&failed)?;
    let mut found = None;
    if let Some(output) = child.stdout.take() {
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(&failed)?;
            found = lsn_of(&String::from_utf8_lossy(&line), name).or(found);
        }
    }
    child.wait().map_err(&failed)?;
    Ok(found)
}

fn lsn_of(line: &str, name: &str) -> Option<Lsn> {
    let (head, point) = line.split_once(" desc: RESTORE_POINT ")?;
    if point != name {
        return None;
    }
    let (_, lsn) = head.split_once("lsn: ")?;
    lsn.split_once(',')?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_found_by_its_whole_name() {
        let line = "rmgr: XLOG        len (rec/tot):     98/    98, tx:          0, lsn: 0/0301A5C8, prev 0/0301A590, desc: RESTORE_POINT before the move";
        assert_eq!(
            lsn_of(line, "before the move"),
            Some("0/301A5C8".parse().unwrap())
        );
        assert_eq!(lsn_of(line, "before"), None);
    }
}
