//! Numbered pages, read until their end. Whatever else stops the reading - the limit of pages, a page that repeats, a gap, a site that
//! gives fewer records a page than it is asked for - is not an end, and is reported.

use std::collections::HashSet;
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
    seen: &mut HashSet<String>,
) -> Result<Option<String>, FetchError> {
    let mut pass = Pass {
        identity: Identity::new(&context.source, paging),
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

/// By what a record on two pages is known as one.
pub(super) struct Identity<'a> {
    id: &'a str,
    /// The fields that its row's key comes from.
    keys: Vec<&'a str>,
}

impl<'a> Identity<'a> {
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
        }
    }

    /// Records with one id, but of several rows, are not one and the same: the id does not tell them apart. Neither are those without one.
    pub(super) fn of(&self, record: &Value) -> String {
        let id = field(record, self.id).filter(|id| !id.is_null());
        let Some(id) = id else {
            return record.to_string();
        };
        let mut identity = id.to_string();
        for key in &self.keys {
            identity.push('\n');
            let value = field(record, key).map(Value::to_string);
            identity.push_str(&value.unwrap_or_default());
        }
        identity
    }
}

struct Pass<'a> {
    identity: Identity<'a>,
    /// What identifies records, of all passes.
    seen: &'a mut HashSet<String>,
    /// The same of this one.
    here: HashSet<String>,
}

impl Pass<'_> {
    /// Keeps the records that no page had before, and gives how many were on no earlier page of this pass.
    fn take(&mut self, records: Vec<Value>, collected: &mut Collected) -> io::Result<usize> {
        let mut new = 0;
        for record in records {
            let identity = self.identity.of(&record);
            if self.here.insert(identity.clone()) {
                new += 1;
            } else {
                collected.duplicates += 1;
            }
            if self.seen.insert(identity) {
                collected.records.push(record)?;
            }
        }
        Ok(new)
    }
}
