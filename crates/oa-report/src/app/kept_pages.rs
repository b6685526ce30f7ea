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
pub(crate) struct KeptPages(Mutex<HashMap<String, Kept>>);

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

/// Whether it is asked if there is anything new.
pub(crate) fn is_asked_again(request: &Request) -> bool {
    request.header(header::IF_NONE_MATCH).is_some()
}

impl KeptPages {
    pub(crate) fn get(&self, key: &str) -> Option<Answer> {
        let mut pages = self.pages();
        let kept = pages.get_mut(key)?;
        let age = kept.made.elapsed();
        let renewed = |since: Instant| since.elapsed() < MADE_WITHIN;
        if age < LASTS || (age < OLDEST && kept.renewed_since.is_some_and(renewed)) {
            return Some(kept.answer.clone());
        }
        kept.renewed_since = Some(Instant::now());
        None
    }

    pub(crate) fn put(&self, key: String, answer: &mut Answer) {
        if !answer.pack() {
            return;
        }
        let mut pages = self.pages();
        pages.retain(|_, kept| kept.made.elapsed() < OLDEST);
        if pages.len() >= MOST && !pages.contains_key(&key) {
            return;
        }
        let kept = Kept {
            answer: answer.packed_alone(),
            made: Instant::now(),
            renewed_since: None,
        };
        pages.insert(key, kept);
    }

    /// What was kept does not hold any more.
    pub(crate) fn clear(&self) {
        self.pages().clear();
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
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
        let mut answer = Answer::text("text/html; charset=utf-8", text);
        assert!(pages.get("a").is_none());
        pages.put("a".to_owned(), &mut answer);
        assert!(
            pages.get("a").unwrap().body.is_empty(),
            "only the packed one is kept"
        );
        assert!(pages.get("b").is_none());
        let old = || {
            let made = Instant::now().checked_sub(LASTS).unwrap();
            pages.pages().get_mut("a").unwrap().made = made;
        };
        old();
        assert!(pages.get("a").is_none(), "this one makes it");
        assert!(pages.get("a").is_some(), "this one does not wait");
        pages.put("a".to_owned(), &mut answer);
        assert!(pages.get("a").is_some());
        pages.clear();
        assert!(pages.get("a").is_none());
    }
}
