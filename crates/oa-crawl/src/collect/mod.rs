//! One attempt of a source: all its pages, archived, and the proof that none is missing.
//!
//! A source with pages announces a total. Records are counted by their id, because a record that moves to the next page while
//! paging comes twice. When fewer came than announced, the pages are read again, because the total grows during the day and
//! pushes records across page borders; what is still missing then makes the attempt partial.
//!
//! Without a total, only the end that the source declares proves that nothing is missing ([`pages`]).

mod access;
mod answer;
mod archived;
mod collected;
mod context;
pub(crate) mod image;
mod output;
mod pages;
mod position;
mod reading;

use std::io;

use crate::fetch::FetchError;
use crate::source::{Each, FetchKind};
use answer::ask;
pub(crate) use answer::{Placeholders, extract, fetch};
pub(crate) use archived::{by_answer, read_archived};
pub(crate) use collected::Collected;
pub(crate) use context::{ArchivedAnswers, Context, Folders};
use oa_core::base::limits;
use oa_core::base::supervise::StopSignal;
use oa_core::base::threads::NoThread;
use oa_core::model::retry::ErrorKind;
pub(crate) use position::Position;

/// Records that cannot wait for what comes next.
pub(crate) fn cannot_wait(error: &io::Error) -> FetchError {
    let no_thread = matches!(error.get_ref(), Some(e) if e.is::<NoThread>());
    let what = match limits::remedy(error) {
        Some(remedy) => format!("{error}; {remedy}"),
        // It says itself what to raise.
        None if no_thread => error.to_string(),
        None => format!("{error}; free space there, or see what is wrong with that disk"),
    };
    FetchError::new(ErrorKind::Internal, what)
}

/// How often the pages are read again when records are missing.
const PASSES: u32 = 3;

/// Collects. Answers are archived as they come, also those of an attempt that fails.
/// Fewer records than announced are no error here, see [`Collected::shortfall`].
pub(crate) fn collect(context: &Context) -> Result<Collected, FetchError> {
    let mut collected = match &context.source.each {
        None => collect_one(context, &Placeholders::new(context))?,
        Some(each) => collect_each(context, each)?,
    };
    collected
        .keep(&context.source)
        .map_err(|e| cannot_wait(&e))?;
    if let Some(image) = &context.source.image {
        image::attach(context, image, &mut collected)?;
    }
    collected.require_minimum(&context.source);
    Ok(collected)
}

/// The same request for each value. One that fails costs its own records, and the run is partial; when the login fails, or all of
/// them, the attempt fails.
fn collect_each(context: &Context, each: &Each) -> Result<Collected, FetchError> {
    let mut all = Collected::default();
    let mut missing: Vec<String> = Vec::new();
    let mut failed: Option<FetchError> = None;
    for (number, value) in each.values.iter().enumerate() {
        if number > 0
            && let Some(pause) = each.pause
            && !StopSignal.wait(pause.0)
        {
            return Err(FetchError::new(
                ErrorKind::Internal,
                "stopped by a signal between two requests",
            ));
        }
        context.share_time(number + 1 == each.values.len());
        let placeholders = Placeholders::new(context).with(&each.name, value);
        let mut part = match collect_one(context, &placeholders) {
            Ok(part) => part,
            // The next value would only be another attempt to log in.
            Err(e) if matches!(e.error.kind, ErrorKind::Auth | ErrorKind::Internal) => {
                return Err(e);
            }
            Err(e) => {
                missing.push(format!("{} {value}: {}", each.name, e.error.message));
                all.not_there |= e.not_there;
                failed.get_or_insert(e);
                continue;
            }
        };
        part.set(&each.name, value).map_err(|e| cannot_wait(&e))?;
        if let Some(short) = part.shortfall() {
            missing.push(format!("{} {value}: {}", each.name, short.message));
        } else if part.records.is_empty() && !context.source.allow_empty {
            missing.push(format!("nothing came for {} {value}", each.name));
            all.not_there = true;
        }
        part.incomplete = None;
        all.add(part).map_err(|e| cannot_wait(&e))?;
    }
    context.share_time(true);
    if let (Some(failed), true) = (failed, all.records.is_empty()) {
        return Err(failed);
    }
    if !missing.is_empty() {
        all.incomplete = Some(missing.join("; "));
    }
    Ok(all)
}

fn collect_one(context: &Context, placeholders: &Placeholders) -> Result<Collected, FetchError> {
    let mut collected = Collected::default();
    if context.source.fetch.kind == FetchKind::Command {
        answer::run(context, placeholders, &mut collected)?;
        collected.suspect_limit(&context.source);
        return Ok(collected);
    }
    let Some(paging) = &context.source.paging else {
        let page = ask(context, placeholders, None, &mut collected)?;
        collected.take(page);
        collected.suspect_limit(&context.source);
        return Ok(collected);
    };
    let mut seen = pages::Seen::new(&context.source, paging);
    let mut cut = None;
    for _ in 0..PASSES {
        let before = seen.ids();
        cut = pages::read(context, placeholders, paging, &mut collected, &mut seen)?;
        let came = collected.came();
        match collected.expected {
            Some(total) if came < total && seen.ids() > before => {}
            _ => break,
        }
    }
    // A total that was reached is proof, whatever ended the reading.
    let came = collected.came();
    if let Some(cut) = cut.filter(|_| collected.expected.is_none_or(|total| came < total)) {
        collected.findings.push(cut.clone());
        if collected.expected.is_none() {
            collected.incomplete = Some(cut);
        }
    }
    Ok(collected)
}
