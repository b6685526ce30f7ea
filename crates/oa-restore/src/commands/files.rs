//! `oa-restore files`: what `paths` in `[backup]` names.

use std::path::{Path, PathBuf};

use clap::Args;
use oa_core::cli::{self, Failure};
use oa_core::config::{Bytes, Config};
use oa_core::exit;
use oa_core::failpoint;
use oa_core::output::Listing;
use oa_core::runs::work::{Ended, Job};
use oa_repository::{Backup, ProgressReporter as Bars};
use serde_json::json;

use super::target_dir::{ROOM_ON_THE_WAY, TargetDir};
use crate::options::{Asked, Manner};
use crate::session::{Session, recorded};
use crate::{PROGRAM, RestoreError, choose, recover};

/// What is wanted.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// Only these [default: all]
    pub paths: Vec<PathBuf>,
    /// The moment.
    #[command(flatten)]
    pub asked: Asked,
    /// Where they go: absent or empty
    #[arg(long, value_name = "DIR")]
    pub target_dir: PathBuf,
    /// Move aside what is in the directory
    #[arg(long)]
    pub force: bool,
    /// How.
    #[command(flatten)]
    pub manner: Manner,
}

/// Restores files, with their whole path, below a directory.
///
/// # Errors
/// When there is no such backup or file, the directory is not empty, or a step fails; run again it goes on.
pub fn run(config: &Config, wanted: &Wanted, bars: &Bars) -> Result<u8, Failure> {
    let session = Session::open(config, wanted.asked.from_copy, bars)?;
    let target = session.target(&wanted.asked.to)?;
    let backup = choose::files(&session.backups, &target, |at| session.shown(at))?;
    let parts = parts(&session, &backup, &wanted.paths)?;
    let files: u64 = parts.iter().map(|p| p.files).sum();
    let bytes: u64 = parts.iter().map(|p| p.bytes).sum();
    if wanted.manner.dry_run {
        let text = format!(
            "would restore {files} files, {}, of {} into {}; nothing was done\n",
            Bytes(bytes),
            session.shown(backup.meta.restorable_to),
            wanted.target_dir.display()
        );
        cli::print(&text).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let of = format!("files {} {:?}", backup.id, wanted.paths);
    let dir = TargetDir::look(&wanted.target_dir, &of, wanted.force, wanted.manner.yes)?;
    recover::room(&[dir.need(bytes)])?;
    let job = Job::by_hand(PROGRAM, "restore-files", "文件恢复");
    recorded(config, &job, |_| {
        fill(&session, &backup, &parts, &dir)
            .map_err(|e| e.on_disk_of(dir.path().display(), ROOM_ON_THE_WAY))?;
        let mut ended = Ended::success(());
        ended.fetched = files;
        ended.details.insert("backup".to_owned(), json!(backup.id));
        Ok(ended)
    })?;
    let mut listing = Listing::new(&[
        ("path", "path"),
        ("files", "files"),
        ("size", "size"),
        ("restored_to", "restored to"),
    ]);
    for part in &parts {
        listing.push(json!({
            "path": Path::new("/").join(&part.within), "files": part.files, "size": Bytes(part.bytes).to_string(), "size_bytes": part.bytes,
            "restored_to": dir.path().join(&part.within), "moment": backup.meta.restorable_to, "backup": backup.id,
        }));
    }
    listing
        .print(wanted.manner.format)
        .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn fill(
    session: &Session<'_>,
    backup: &Backup,
    parts: &[Part],
    dir: &TargetDir,
) -> Result<(), RestoreError> {
    dir.begin()?;
    for part in parts {
        recover::stop_if_asked()?;
        let to = dir.path().join(&part.within);
        session
            .reader
            .restore_some(backup, &part.within, &to, true, |_| true)?;
        failpoint::hit("restore.copied");
    }
    dir.done()
}

/// A path within the backup.
#[derive(Debug)]
struct Part {
    within: PathBuf,
    files: u64,
    bytes: u64,
}

fn parts(
    session: &Session<'_>,
    backup: &Backup,
    paths: &[PathBuf],
) -> Result<Vec<Part>, RestoreError> {
    let stored = session.reader.files(backup, Path::new(""))?;
    let wanted: Vec<PathBuf> = if paths.is_empty() {
        vec![PathBuf::new()]
    } else {
        paths
            .iter()
            .map(|path| {
                let path = std::path::absolute(path)
                    .map_err(RestoreError::disk("could not find", path))?;
                Ok(path.strip_prefix("/").map(Path::to_owned).unwrap_or(path))
            })
            .collect::<Result<_, RestoreError>>()?
    };
    wanted
        .into_iter()
        .map(|within| {
            let mine: Vec<_> = stored
                .iter()
                .filter(|f| {
                    f.path
                        .strip_prefix("/")
                        .unwrap_or(&f.path)
                        .starts_with(&within)
                })
                .collect();
            if mine.is_empty() && !within.as_os_str().is_empty() {
                let first = stored.first().map(|f| f.path.display().to_string());
                return Err(RestoreError::NoWay(format!(
                    "backup {} has no /{}; it begins with /{}",
                    backup.short_id(),
                    within.display(),
                    first.unwrap_or_default()
                )));
            }
            Ok(Part {
                files: mine.len() as u64,
                bytes: mine.iter().map(|f| f.size_bytes).sum(),
                within,
            })
        })
        .collect()
}
