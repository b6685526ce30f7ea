//! Source files that cannot be used: each leaves a failed run of its task with file, line and key, which raises an incident.
//! The sources beside them run as always.

use std::fs;
use std::path::{Path, PathBuf};

use oa_core::base::supervise::StopSignal;
use oa_core::journal::Recorder;
use oa_core::journal::attempts::Failed;
use oa_core::journal::due::forget;
use oa_core::model::retry::{ErrorKind, Policy};
use oa_core::model::run::{Outcome, RunError, RunStart, Trigger};

use crate::PROGRAM;
use crate::source::{BUILT_IN, Broken, FOLDER, Sources, parse};
use oa_core::journal::JournalError;
use oa_core::journal::runner::{self, RunReport, Task};

/// Extension of the note that a broken file was reported.
const NOTE: &str = "broken";

/// Records what cannot be used now, once for each reason, so that a crontab line every minute does not fill the run log, and resolves
/// the incidents of what is gone.
pub(super) fn report(
    recorder: &Recorder,
    sources: &Sources,
    trigger: Trigger,
) -> Vec<Result<RunReport, JournalError>> {
    let mut reports = Vec::new();
    for one in sources.broken() {
        tracing::error!("{}", one.reason);
        let note = note(recorder, &one.task);
        let noted = note.as_deref().and_then(|n| fs::read_to_string(n).ok());
        if trigger == Trigger::Due && noted.as_deref() == Some(&one.reason) {
            continue;
        }
        let recorded = record(recorder, one, trigger);
        if let (Some(path), Ok(_)) = (note, &recorded)
            && let Err(e) = fs::write(path, &one.reason)
        {
            tracing::warn!("could not note that {} was reported: {e}", one.task);
        }
        reports.push(recorded);
    }
    resolve_fixed(recorder, sources);
    reports
}

/// A run that fails with what is wrong with the file.
struct BrokenSource<'a>(&'a Broken);

impl Task for BrokenSource<'_> {
    fn attempt(&mut self, _number: u32) -> Result<(), Failed> {
        let error = RunError::new(ErrorKind::Internal, &self.0.reason);
        Err(Failed::by_kind(error, None))
    }

    fn complete(&mut self, _outcome: &mut Outcome) {}
}

/// A failed run, without any attempt.
pub(super) fn record(
    recorder: &Recorder,
    broken: &Broken,
    trigger: Trigger,
) -> Result<RunReport, JournalError> {
    let mut built_in = BUILT_IN
        .iter()
        .filter_map(|(file, text)| parse(file, text).ok());
    let title = match built_in.find(|s| s.name == broken.task) {
        Some(source) => source.title,
        None if broken.task == FOLDER => "源文件目录".to_owned(),
        None => broken.task.clone(),
    };
    let start = RunStart::now(
        PROGRAM,
        env!("CARGO_PKG_VERSION"),
        &broken.task,
        &title,
        trigger,
        Policy::DEFAULT.lease(),
    );
    let mut report = runner::run(recorder, StopSignal, start, &mut BrokenSource(broken))?;
    report.misconfigured = true;
    Ok(report)
}

/// A source's next success resolves its incident; nothing else would resolve that of a name that no longer exists.
fn resolve_fixed(recorder: &Recorder, sources: &Sources) {
    let Some(folder) = recorder.state().folder("due").ok() else {
        return;
    };
    let notes = fs::read_dir(folder).into_iter().flatten().flatten();
    for path in notes.map(|e| e.path()) {
        let Some(task) = task_of(&path).filter(|task| sources.broken_one(task).is_none()) else {
            continue;
        };
        let ended = sources.get(&task).is_ok()
            || recorder
                .connect()
                .is_ok_and(|(mut client, _)| forget(&mut client, &task).is_ok());
        if ended {
            let _ = fs::remove_file(&path);
        }
    }
}

fn task_of(path: &Path) -> Option<String> {
    let is_note = path.extension().is_some_and(|e| e == NOTE);
    let stem = path.file_stem().filter(|_| is_note)?;
    Some(stem.to_string_lossy().into_owned())
}

fn note(recorder: &Recorder, task: &str) -> Option<PathBuf> {
    let folder = recorder.state().folder("due").ok()?;
    Some(folder.join(format!("{task}.{NOTE}")))
}
