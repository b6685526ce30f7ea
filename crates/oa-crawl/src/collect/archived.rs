//! An earlier run's answers, read with the present source file, without asking the site again.

use std::collections::{BTreeMap, HashMap};
use std::io;

use anyhow::{Result, anyhow};
use chrono::NaiveDate;
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::RawRecord;
use serde_json::Value;

use super::answer::extract;
use super::collected::{Collected, limit_reached};
use super::image::is_image;
use super::pages::{Met, Seen, capped, more_than_announced};
use crate::archive::Archive;
use crate::extract::Extracted;
use crate::fetch::{Response, check_status};
use crate::source::{End, Paging, Source};

/// All records of the answers, without images.
pub(crate) fn read_archived(
    source: &Source,
    date: NaiveDate,
    archive: &Archive,
    raw: &[RawRecord],
) -> Result<Collected> {
    let mut reader = Reader {
        source,
        date,
        collected: Collected::default(),
        seen: source
            .paging
            .as_ref()
            .map(|paging| Seen::new(source, paging)),
        parts: BTreeMap::new(),
    };
    for (number, one) in raw.iter().enumerate().filter(|(_, one)| !is_image(one)) {
        let rest = &raw[number + 1..];
        let again = rest.iter().any(|l| l.url == one.url && l.part == one.part);
        reader.read(one, &archive.answer(one)?, again)?;
    }
    Ok(reader.finish()?)
}

/// The records of each answer by themselves, in their order there; none of one that cannot be read.
pub(crate) fn by_answer<'a>(
    source: &Source,
    date: NaiveDate,
    archive: &Archive,
    raw: &'a [RawRecord],
) -> Result<Vec<(&'a RawRecord, Vec<Value>)>> {
    let mut all = Vec::new();
    for one in raw.iter().filter(|one| !is_image(one)) {
        let response = archive.answer(one)?;
        let read = check_status(&one.url, &response)
            .and_then(|()| extract(source, date, &one.url, &response));
        let mut records = read.map_or_else(|_| Vec::new(), |extracted| extracted.records);
        if let Some(each) = &source.each {
            for record in records.iter_mut().filter_map(Value::as_object_mut) {
                record.insert(each.name.clone(), part_of(source, one)?);
            }
        }
        all.push((one, records));
    }
    Ok(all)
}

struct Reader<'a> {
    source: &'a Source,
    date: NaiveDate,
    collected: Collected,
    /// By what records of several pages are known as one.
    seen: Option<Seen<'a>>,
    parts: BTreeMap<Option<String>, PartProgress>,
}

impl Reader<'_> {
    /// `again`: the same was asked for once more after it.
    fn read(&mut self, raw: &RawRecord, response: &Response, again: bool) -> Result<()> {
        let source = self.source;
        let part = self.parts.entry(raw.part.clone()).or_default();
        let read = check_status(&raw.url, response)
            .and_then(|()| extract(source, self.date, &raw.url, response));
        match read {
            Ok(extracted) => self.add(raw, extracted),
            Err(e)
                if source.paging.is_some()
                    && part.pages > 0
                    && (e.error.kind == ErrorKind::Http4xx || part.has_all()) =>
            {
                // Behind the last page.
                part.ended = true;
                Ok(())
            }
            // It logged in anew and asked again. The archive does not say that an answer came from the login page.
            Err(e) if source.login.is_some() && (again || e.error.kind == ErrorKind::Auth) => {
                Ok(())
            }
            Err(e) if source.each.is_some() => {
                part.failed = Some(e.error.message);
                Ok(())
            }
            Err(e) => Err(anyhow!(e.error.message)),
        }
    }

    fn add(&mut self, raw: &RawRecord, extracted: Extracted) -> Result<()> {
        let (source, collected) = (self.source, &mut self.collected);
        let part = self.parts.entry(raw.part.clone()).or_default();
        collected.pages += 1;
        collected.note(&extracted.findings);
        if !extracted.miscounted.is_empty() {
            collected.incomplete = Some(extracted.miscounted.join("; "));
        }
        collected.expected = collected.expected.max(extracted.total);
        let came = extracted.records.len();
        let before = part.distinct;
        let mut on_page = HashMap::new();
        for mut record in extracted.records {
            if let (Some(each), Value::Object(fields)) = (&source.each, &mut record) {
                fields.insert(each.name.clone(), part_of(source, raw)?);
            }
            let Some(seen) = &mut self.seen else {
                part.distinct += 1;
                collected.records.push(record)?;
                continue;
            };
            let (id, key) = (seen.id_of(&record), seen.key_of(&record));
            if *on_page.entry(id.clone()).or_insert(key) != key {
                collected.incomplete = Some(seen.ambiguous());
            }
            let met = seen.meet(&format!("{:?} {id}", raw.part), key);
            match met {
                Met::New => part.distinct += 1,
                Met::Again => collected.duplicates += 1,
                Met::Other => {}
            }
            collected.meet(&met, record)?;
        }
        let new = part.distinct > before;
        let last = extracted.next.is_none();
        part.note_page(source.paging.as_ref(), extracted.total, came, new, last);
        Ok(())
    }

    fn finish(self) -> io::Result<Collected> {
        let mut collected = self.collected;
        let missing = missing(self.source, &self.parts);
        if !missing.is_empty() {
            collected.incomplete = Some(missing.join("; "));
        }
        if self.source.each.is_some() {
            // Each part announced its own total.
            collected.expected = None;
        }
        collected.keep(self.source)?;
        Ok(collected)
    }
}

/// What is known of one value of `[each]`.
#[derive(Default)]
struct PartProgress {
    pages: u32,
    records: usize,
    distinct: u64,
    /// What the site announced.
    total: Option<u64>,
    /// Its last page was the end.
    ended: bool,
    short_before: bool,
    /// How many records its pages held.
    sizes: Vec<usize>,
    failed: Option<String>,
}

/// What the run did not receive, as far as its answers show.
fn missing(source: &Source, parts: &BTreeMap<Option<String>, PartProgress>) -> Vec<String> {
    let mut missing = Vec::new();
    for value in source.each.iter().flat_map(|e| &e.values) {
        match parts.get(&Some(value.clone())) {
            Some(PartProgress {
                failed: Some(why), ..
            }) => missing.push(format!("{value}: {why}")),
            Some(part) if part.records > 0 || source.allow_empty => {}
            _ => missing.push(format!("nothing came for {value}")),
        }
    }
    if parts
        .values()
        .any(|p| p.total.is_none() && !p.ended && p.failed.is_none())
    {
        let header = source.paging.as_ref().is_some_and(|p| p.next_in_header);
        missing.push(match header {
            true => "whether these are all pages was in a header (next_in_header), which the raw archive does not have".to_owned(),
            false => "the run did not reach the end of the pages".to_owned(),
        });
    }
    if let Some(paging) = &source.paging {
        let ended = parts.values().filter(|p| p.total.is_none() && p.ended);
        missing.extend(ended.filter_map(|p| capped(paging, &p.sizes)).take(1));
    }
    let limits = parts.values().filter(|p| p.total.is_none());
    missing.extend(
        limits
            .filter_map(|p| limit_reached(source, p.records))
            .take(1),
    );
    let more = |p: &PartProgress| p.total.filter(|total| p.distinct > *total);
    if let Some(total) = parts
        .values()
        .find_map(more)
        .filter(|_| source.paging.is_some())
    {
        missing.push(more_than_announced(total));
    }
    missing
}

impl PartProgress {
    fn has_all(&self) -> bool {
        self.total.is_some_and(|total| self.distinct >= total)
    }

    fn note_page(
        &mut self,
        paging: Option<&Paging>,
        total: Option<u64>,
        came: usize,
        new: bool,
        last: bool,
    ) {
        self.pages += 1;
        self.total = self.total.max(total);
        self.records += came;
        if came > 0 {
            self.sizes.push(came);
        }
        let short = paging.is_some_and(|paging| {
            paging.end == Some(End::ShortPage) && came < paging.page_size as usize
        });
        self.ended = paging.is_none()
            || came == 0
            || (short && self.pages > 1)
            || (self.short_before && !new);
        // A first page can be short because the site gives no longer ones; the next one proves it.
        self.short_before = short && self.pages == 1;
        if let Some(paging) = paging.filter(|p| p.is_linked()) {
            // Headers are not in the archive.
            self.ended = last && !paging.next_in_header;
        }
    }
}

fn part_of(source: &Source, raw: &RawRecord) -> Result<Value> {
    raw.part.clone().map(Value::String).ok_or_else(|| {
        anyhow!(
            "the run was recorded before answers said which value of [each] they are of; collect {} again for the day",
            source.name
        )
    })
}
