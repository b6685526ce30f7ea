//! The progress of this process's runs, for the line that a terminal shows.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use oa_core::app::output::Format;
use oa_core::app::progress::Progress;

use crate::PROGRAM;

/// So many of those under way are named.
const NAMED: usize = 2;

#[derive(Debug, Default)]
struct State {
    total: usize,
    done: usize,
    under_way: BTreeMap<String, (Instant, String)>,
}

static STATE: Mutex<State> = Mutex::new(State {
    total: 0,
    done: 0,
    under_way: BTreeMap::new(),
});

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Shows the line until it is dropped; not where the output is for programs. A person who redirects stderr gets a line every ten seconds;
/// cron, which would mail it, none.
pub(crate) fn show(format: Format, by_cron: bool) -> Option<Progress> {
    let for_people = matches!(format, Format::Table);
    for_people.then(|| Progress::show(PROGRAM, !by_cron, line))
}

/// So many runs more are to be made.
pub(crate) fn expect(runs: usize) {
    state().total += runs;
}

/// Something is under way until it is dropped.
#[derive(Debug)]
pub(crate) struct UnderWay {
    name: String,
    counts: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let mut state = state();
        state.under_way.remove(&self.name);
        state.done += usize::from(self.counts);
    }
}

/// One of the runs that are [expected](expect).
pub(crate) fn run(task: &str) -> UnderWay {
    begin(task, true)
}

/// Work that is counted nowhere.
pub(crate) fn work(name: &str) -> UnderWay {
    begin(name, false)
}

fn begin(name: &str, counts: bool) -> UnderWay {
    let since = (Instant::now(), String::new());
    state().under_way.insert(name.to_owned(), since);
    UnderWay {
        name: name.to_owned(),
        counts,
    }
}

/// What it is at now. Nothing is said of what is not under way.
pub(crate) fn say(name: &str, what: impl Into<String>) {
    if let Some((_, said)) = state().under_way.get_mut(name) {
        *said = what.into();
    }
}

/// `12 of 1000 done; zhihui-reports: page 3, 300 records, 4 s; rdqh-indicators: asking the site, 1 s; and 2 more`.
fn line() -> String {
    let state = state();
    let mut parts = Vec::new();
    if state.total > 1 {
        parts.push(format!("{} of {} done", state.done, state.total));
    }
    for (name, (since, what)) in state.under_way.iter().take(NAMED) {
        let seconds = since.elapsed().as_secs();
        let what = match what.is_empty() {
            true => String::new(),
            false => format!("{what}, "),
        };
        parts.push(format!("{name}: {what}{seconds} s"));
    }
    let more = state.under_way.len().saturating_sub(NAMED);
    if more > 0 {
        parts.push(format!("and {more} more"));
    }
    parts.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_what_is_done_and_what_is_under_way() {
        assert_eq!(line(), "");
        expect(3);
        drop(run("first"));
        let _second = run("second");
        say("second", "page 3, 300 records");
        say("unknown", "nothing");
        assert_eq!(line(), "1 of 3 done; second: page 3, 300 records, 0 s");
        let _more = [work("third"), work("z")];
        assert_eq!(
            line(),
            "1 of 3 done; second: page 3, 300 records, 0 s; third: 0 s; and 1 more"
        );
    }
}
