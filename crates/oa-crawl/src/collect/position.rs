//! A page's position among the others, and where the next one is.

use std::collections::HashSet;

use oa_core::model::retry::ErrorKind;
use serde_json::Value;
use url::Url;

use crate::extract::Extracted;
use crate::fetch::FetchError;
use crate::source::{Paging, Place};

/// The page that is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Position<'a> {
    paging: &'a Paging,
    number: u32,
    /// Records that were on the pages before.
    records: usize,
    /// The cursor or the address that the page before gave.
    link: Option<String>,
    /// All of those.
    seen: HashSet<String>,
}

/// What a page says of the one after it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing: it is found out by asking.
    Unknown,
    /// There is one.
    Page,
    /// There is none.
    End,
    /// One that was already read: the site goes in a circle.
    Again(String),
}

impl<'a> Position<'a> {
    pub(crate) fn first(paging: &'a Paging) -> Self {
        Self {
            paging,
            number: 1,
            records: 0,
            link: None,
            seen: HashSet::new(),
        }
    }

    /// Goes on to the page after `page`.
    pub(super) fn advance(&mut self, page: &Extracted) -> Next {
        self.number += 1;
        self.records += page.records.len();
        if !self.paging.is_linked() {
            return Next::Unknown;
        }
        let Some(link) = &page.next else {
            return Next::End;
        };
        self.link = Some(link.clone());
        match self.seen.insert(link.clone()) {
            true => Next::Page,
            false => Next::Again(link.clone()),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.paging.place
    }

    /// The address that the page before gave, if pages are found so. It must be the site's own.
    pub(super) fn address(&self, present: &str, base: &str) -> Result<Option<String>, FetchError> {
        let Some(link) = self.link.as_ref().filter(|_| self.paging.cursor.is_none()) else {
            return Ok(None);
        };
        let next = Url::parse(present).and_then(|url| url.join(link));
        let home = Url::parse(base);
        match (next, home) {
            (Ok(next), Ok(home)) if next.origin() == home.origin() => Ok(Some(next.into())),
            (Ok(_), _) => Err(FetchError::new(
                ErrorKind::Blocked,
                format!("refused to read the next page at {link}, which is not at {base}"),
            )),
            (Err(e), _) => Err(FetchError::new(
                ErrorKind::Shape,
                format!("the next page's address is none ({e}): {link}"),
            )),
        }
    }

    /// The parameters.
    pub(super) fn values(&self) -> Vec<(String, Value)> {
        let paging = self.paging;
        let number = u64::from(paging.first) + u64::from(self.number) - 1;
        let page = paging.page.clone().map(|name| (name, Value::from(number)));
        let offset = paging.offset.clone();
        let offset = offset.map(|name| (name, Value::from(self.records)));
        let cursor = paging.cursor.clone().zip(self.link.clone());
        let cursor = cursor.map(|(name, link)| (name, Value::from(link)));
        let size = paging.size.clone();
        let size = size.map(|name| (name, Value::from(paging.page_size)));
        [page, offset, cursor, size].into_iter().flatten().collect()
    }

    /// The same as texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = (String, String)> {
        self.values().into_iter().map(|(name, value)| match value {
            Value::String(text) => (name, text),
            other => (name, other.to_string()),
        })
    }
}
