//! Numbered pages, read until their end. Whatever else stops the reading - the limit of pages, a page that repeats, a gap, a site that
//! gives fewer records a page than it is asked for - is not an end, and is reported.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;

use oa_core::model::retry::ErrorKind;
use serde_json::Value;

use super::answer::{Placeholders, ask};
use super::cannot_wait;
use super::collected::Collected;
use super::context::Context;
use super::position::{Next, Position};
use crate::extract::field;
use crate::fetch::FetchError;
use crate::source::{End, Field, Paging, Source, names_within};

/// Reads all pages once. Returns what cut the reading off before its end, if anything did; a total that was reached proves more.
pub(super) fn read(
    context: &Context,
    placeholders: &Placeholders,
    paging: &Paging,
    collected: &mut Collected,
    seen: &mut Seen<'_>,
) -> Result<Option<String>, FetchError> {
    let mut pass = Pass {
        seen,
        here: HashSet::new(),
    };
    let mut cut = None;
    // The page before looked like the end; the next one proves it, or that it was none.
    let mut end_at: Option<End> = None;
    let mut first = 0;
    // The total is reached on a full page: it may count that page only, so the next one is looked at.
    let mut reached = false;
    let mut usual = paging.page_size as usize;
    let mut sizes: Vec<usize> = Vec::new();
    let mut position = Position::first(paging);
    for number in 1..=paging.max_pages {
        let page = match ask(context, placeholders, Some(&position), collected) {
            // Some sites have no answer for what is behind the end.
            Err(_) if reached => return Ok(cut),
            // There is nothing behind the end.
            Err(e) if end_at.is_some() && e.error.kind == ErrorKind::Http4xx => {
                return Ok(cut.or_else(|| capped(paging, &sizes)));
            }
            page => page?,
        };
        // The total grows while paging. A smaller one counts with the next attempt only: an overloaded site answers an empty page
        // with a total of 0, and a day that was cut off there would look complete.
        collected.expected = collected.expected.max(page.total);
        let came = page.records.len();
        let next = position.advance(&page);
        let new = pass
            .take(page.records, collected)
            .map_err(|e| cannot_wait(&e))?;
        match next {
            Next::Unknown => {}
            Next::End => return Ok(cut),
            Next::Page if came == 0 || new > 0 => continue,
            Next::Page => return Ok(Some(repeats(number))),
            Next::Again(link) => {
                let what = format!("page {number} names a next page that was read before ({link})");
                return Ok(Some(what));
            }
        }
        if let Some(total) = collected.expected {
            let here = pass.here.len() as u64;
            let looked = std::mem::replace(&mut reached, here >= total);
            if here > total {
                collected.incomplete = Some(more_than_announced(total));
            }
            if came == 0 || reached && (came < usual || looked && new == 0) {
                return Ok(cut);
            }
            if number == 1 {
                usual = came.min(usual);
            }
        } else {
            if came > 0 {
                sizes.push(came);
            }
            match (end_at.take(), new) {
                (Some(_), 0) => return Ok(cut.or_else(|| capped(paging, &sizes))),
                (Some(End::EmptyPage), _) => {
                    cut = Some(format!(
                        "page {} was empty, but page {number} was not",
                        number - 1
                    ));
                }
                (Some(End::ShortPage), _) => {
                    cut = Some(format!(
                        "the site gives {first} records a page where {} were asked for; correct page_size in [paging]",
                        paging.page_size
                    ));
                }
                (None, _) if came == 0 => {
                    end_at = Some(End::EmptyPage);
                    continue;
                }
                (None, _)
                    if paging.end == Some(End::ShortPage) && came < paging.page_size as usize =>
                {
                    if number > 1 {
                        return Ok(cut);
                    }
                    // A first page can be short because the site gives no longer ones.
                    first = came;
                    end_at = Some(End::ShortPage);
                    continue;
                }
                (None, _) => {}
            }
        }
        if new == 0 {
            // A server that repeats a page for ever.
            return Ok(Some(repeats(number)));
        }
    }
    Ok(Some(format!(
        "stopped after {} pages (max_pages in [paging])",
        paging.max_pages
    )))
}

/// Why pages that were read to their end, of these sizes, may not be all: a site that gives fewer records a page than it is asked for
/// may go on by what it was asked for, and what lies between is lost. Pages of different sizes are those of a site that filters them.
pub(super) fn capped(paging: &Paging, sizes: &[usize]) -> Option<String> {
    let asked = paging.page_size as usize;
    let (last, before) = sizes.split_last()?;
    let first = *before.first()?;
    let alike = before.iter().all(|size| *size == first) && *last <= first;
    let is_capped = match paging.end {
        Some(End::EmptyPage) => before.len() > 1 && alike && first < asked,
        Some(End::ShortPage) => false,
        None => before.iter().any(|size| *size < asked),
    };
    is_capped.then(|| {
        format!(
            "the site gives {first} records a page where {asked} were asked for; correct page_size in [paging]"
        )
    })
}

fn repeats(number: u32) -> String {
    format!("page {number} held nothing that was not on an earlier page; stopped there")
}

/// Why records may not be all, although no fewer came than were announced.
pub(crate) fn more_than_announced(total: u64) -> String {
    format!(
        "the site announced {total} records, but gave more: that number says nothing about whether these are all"
    )
}

/// What a record is among the others.
pub(super) enum Met {
    /// No record with its id came before.
    New,
    /// It came before.
    Again,
    /// Another row with the same id came before: the record has changed meanwhile, or the id does not tell records apart.
    Other,
}

/// The records that came, by their ids and by what their rows' keys come from.
pub(super) struct Seen<'a> {
    id: &'a str,
    /// The fields that a row's key comes from.
    keys: Vec<&'a str>,
    /// A hash of the key of the first with each id.
    first: HashMap<String, u64>,
    /// The ids and keys of other rows.
    others: HashSet<(String, u64)>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(source: &'a Source, paging: &'a Paging) -> Self {
        let is_key = |f: &&Field| source.store.unique.contains(&f.column);
        let fields = source.fields.iter().filter(is_key);
        let names = fields.flat_map(|f| {
            let composed = f.compose.as_deref().map(names_within).unwrap_or_default();
            f.from.as_deref().into_iter().chain(composed)
        });
        Self {
            id: &paging.id,
            keys: names.collect(),
            first: HashMap::new(),
            others: HashSet::new(),
        }
    }

    /// How many ids came.
    pub(super) fn ids(&self) -> usize {
        self.first.len()
    }

    /// The record's id; records without one are not one and the same.
    pub(super) fn id_of(&self, record: &Value) -> String {
        let id = field(record, self.id).filter(|id| !id.is_null());
        id.map_or_else(|| record.to_string(), Value::to_string)
    }

    pub(super) fn key_of(&self, record: &Value) -> u64 {
        let mut hasher = DefaultHasher::new();
        for key in &self.keys {
            field(record, key).map(Value::to_string).hash(&mut hasher);
        }
        hasher.finish()
    }

    pub(super) fn meet(&mut self, id: &str, key: u64) -> Met {
        match self.first.get(id) {
            None => {
                self.first.insert(id.to_owned(), key);
                Met::New
            }
            Some(first) if *first == key => Met::Again,
            Some(_) => match self.others.insert((id.to_owned(), key)) {
                true => Met::Other,
                false => Met::Again,
            },
        }
    }

    /// Why records may not be all, when those of one answer have an id in common.
    pub(super) fn ambiguous(&self) -> String {
        format!(
            "different records of one answer have the same {}: how many there are cannot be counted by it; correct id in [paging]",
            self.id
        )
    }
}

struct Pass<'a, 'b> {
    /// The records of all passes.
    seen: &'a mut Seen<'b>,
    /// The ids of this one.
    here: HashSet<String>,
}

impl Pass<'_, '_> {
    /// Keeps the records that no page had before, and gives how many ids were on no earlier page of this pass.
    fn take(&mut self, records: Vec<Value>, collected: &mut Collected) -> io::Result<usize> {
        let mut new = 0;
        let mut on_page = HashMap::new();
        for record in records {
            let (id, key) = (self.seen.id_of(&record), self.seen.key_of(&record));
            if *on_page.entry(id.clone()).or_insert(key) != key {
                collected.incomplete = Some(self.seen.ambiguous());
            }
            let met = self.seen.meet(&id, key);
            if self.here.insert(id) {
                new += 1;
            } else if matches!(met, Met::Again) {
                collected.duplicates += 1;
            }
            collected.meet(&met, record)?;
        }
        Ok(new)
    }
}
