//! `oa-restore files`: what `paths` in `[backup]` names.

use std::path::{Path, PathBuf};

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Listing;
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::base::units::Bytes;
use oa_repository::Backup;
use serde_json::json;

use super::options::{RunArgs, TargetArgs};
use super::session::{Session, recorded};
use super::target_dir::{REMEDY_ON_THE_WAY, TargetDir, keep_off};
use crate::disk::check_room;
use crate::error::stop_if_asked;
use crate::{PROGRAM, RestoreError, plan};

/// Restore files that were backed up along with the database
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each file is written below the directory, with its whole path. PostgreSQL need not run.\n\nExamples:\n  oa-restore files --to latest --target-dir /srv/restored-files\n  oa-restore files /etc/oa --to \"2026-11-23 14:05\" --target-dir /srv/restored-files"
)]
pub(crate) struct Args {
    /// Restore only these [default: all]
    paths: Vec<PathBuf>,
    #[command(flatten)]
    target: TargetArgs,
    /// Where they go: absent or empty
    #[arg(long, value_name = "DIR")]
    target_dir: PathBuf,
    /// Move aside what is in the directory
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: RunArgs,
}

pub(crate) fn run(args: &Args, config: &Config, quiet: bool) -> Result<u8, Failure> {
    let bars = args.run.bars(quiet);
    let session = Session::open(config, args.target.from_copy, &bars)?;
    let target = session.target(&args.target.to)?;
    let of_this = session.files(&args.target, &target)?;
    let backup = plan::files(&of_this, &target, |at| session.shown(at))?;
    let parts = parts(&session, &backup, &args.paths)?;
    let files: u64 = parts.iter().map(|p| p.files).sum();
    let bytes: u64 = parts.iter().map(|p| p.bytes).sum();
    if args.run.dry_run {
        let text = format!(
            "would restore {files} files, {}, of {} into {}; nothing was done\n",
            Bytes(bytes),
            session.shown(backup.meta.restorable_to),
            args.target_dir.display()
        );
        cli::print(&text).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let of = format!("files {} {:?}", backup.id, args.paths);
    keep_off(&args.target_dir, session.place.folder(), &session.staging)?;
    let dir = TargetDir::look(&args.target_dir, &of, args.force, args.run.yes)?;
    check_room(&[dir.need(bytes)])?;
    let job = Job::by_hand(PROGRAM, "restore-files", "文件恢复");
    recorded(config, &job, |_| {
        fill(&session, &backup, &parts, &dir)
            .map_err(|e| e.on_disk_of(dir.path().display(), REMEDY_ON_THE_WAY))?;
        let mut ended = JobOutcome::success(());
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
            "restored_to": dir.path().join(&part.within), "as_of": backup.meta.restorable_to, "backup": backup.id,
        }));
    }
    listing
        .print(args.run.format)
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
        stop_if_asked()?;
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
                let begins = stored.first().map_or_else(
                    || "it is empty".to_owned(),
                    |f| format!("it begins with /{}", f.path.display()),
                );
                return Err(RestoreError::NoPlan(format!(
                    "backup {} has no /{}; {begins}",
                    backup.short_id(),
                    within.display()
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
