//! Pages that were made a moment ago, packed. A page that is open asks for itself again and again: a hundred of them cost PostgreSQL and
//! this program little more than one. Whoever loads a page anew gets one that is made for it.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header;

use super::answer::Answer;
use super::guard::Caller;
use super::request::{Request, SESSION};

/// A page is given out again for so long.
const LASTS: Duration = Duration::from_secs(5);
/// While somebody makes the next one, the others get the last one; but he has only so long, and it must not be older than that.
const MADE_WITHIN: Duration = Duration::from_secs(5);
const OLDEST: Duration = Duration::from_secs(12);
/// Of so many views; they are all of the same few people.
const MOST: usize = 32;

#[derive(Debug, Default)]
pub(crate) struct KeptPages(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    kept: HashMap<String, Kept>,
    /// When somebody did something last: what was known before does not show it.
    changed: Option<Instant>,
}

#[derive(Debug)]
struct Kept {
    answer: Answer,
    made: Instant,
    /// Somebody makes the next one.
    renewed_since: Option<Instant>,
}

/// What a page depends on besides what is known: `None` for whoever takes nothing packed.
pub(crate) fn key(request: &Request, caller: &Caller) -> Option<String> {
    request.takes_gzip().then(|| {
        format!(
            "{} {} {} {} {}",
            request.lang.code(),
            caller.may_act(),
            request.cookie(SESSION).is_some(),
            request.url(&request.local_target()),
            caller.name(),
        )
    })
}

/// Whether an open page asks if there is anything new. A browser that loads it anew asks so, too, but says that somebody goes there
/// (only where it trusts the connection) or wants nothing that is kept.
pub(crate) fn is_asked_again(request: &Request) -> bool {
    let goes_there = request.text("sec-fetch-mode") == Some("navigate");
    let wants_it_new = request
        .header(header::CACHE_CONTROL)
        .is_some_and(|value| value.contains("max-age=0"));
    request.header(header::IF_NONE_MATCH).is_some() && !goes_there && !wants_it_new
}

impl KeptPages {
    pub(crate) fn get(&self, key: &str) -> Option<Answer> {
        let mut pages = self.pages();
        let kept = pages.kept.get_mut(key)?;
        let age = kept.made.elapsed();
        let renewed = |since: Instant| since.elapsed() < MADE_WITHIN;
        if age < LASTS || (age < OLDEST && kept.renewed_since.is_some_and(renewed)) {
            return Some(kept.answer.clone());
        }
        kept.renewed_since = Some(Instant::now());
        None
    }

    /// Keeps a page that shows what was known at that time, unless somebody has done something since.
    pub(crate) fn put(&self, key: String, answer: &mut Answer, known: Instant) {
        if !answer.pack() {
            return;
        }
        let mut pages = self.pages();
        pages.kept.retain(|_, kept| kept.made.elapsed() < OLDEST);
        let is_full = pages.kept.len() >= MOST && !pages.kept.contains_key(&key);
        if is_full || pages.changed.is_some_and(|at| known < at) {
            return;
        }
        let kept = Kept {
            answer: answer.packed_alone(),
            made: Instant::now(),
            renewed_since: None,
        };
        pages.kept.insert(key, kept);
    }

    /// What was kept does not hold any more.
    pub(crate) fn clear(&self) {
        let mut pages = self.pages();
        pages.kept.clear();
        pages.changed = Some(Instant::now());
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_makes_the_next_page_and_the_others_get_the_last_one() {
        let pages = KeptPages::default();
        let text = "<main>".repeat(1000);
        let begun = Instant::now();
        let mut answer = Answer::text("text/html; charset=utf-8", text);
        assert!(pages.get("a").is_none());
        pages.put("a".to_owned(), &mut answer, begun);
        assert!(
            pages.get("a").unwrap().body.is_empty(),
            "only the packed one is kept"
        );
        assert!(pages.get("b").is_none());
        let old = || {
            let made = Instant::now().checked_sub(LASTS).unwrap();
            pages.pages().kept.get_mut("a").unwrap().made = made;
        };
        old();
        assert!(pages.get("a").is_none(), "this one makes it");
        assert!(pages.get("a").is_some(), "this one does not wait");
        pages.put("a".to_owned(), &mut answer, begun);
        assert!(pages.get("a").is_some());
        pages.clear();
        assert!(pages.get("a").is_none());
        pages.put("a".to_owned(), &mut answer, begun);
        assert!(pages.get("a").is_none(), "it may not show what was done");
        pages.put("a".to_owned(), &mut answer, Instant::now());
        assert!(pages.get("a").is_some());
    }
}
