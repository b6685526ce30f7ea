//! `[paging]` of a source file: how the pages of an answer are asked for, and by what the last one is known.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::definition::Fetch;

/// `[paging]`: pages by number (`page`), by how many records come before (`offset`), by a cursor (`cursor` and `next`), or by the next
/// page's address (`next`, or `next_in_header`).
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paging {
    /// Parameter with the page's number.
    pub(crate) page: Option<String>,
    /// The number of the first page: 1, or 0.
    #[serde(default = "default_first")]
    pub(crate) first: u32,
    /// Parameter with the number of records before the page.
    pub(crate) offset: Option<String>,
    /// Parameter with the cursor, from the second page on.
    pub(crate) cursor: Option<String>,
    /// JSON pointer of the next page's cursor, or without `cursor` of its address. Absent, null or empty there: the last page.
    pub(crate) next: Option<String>,
    /// The next page's address is in the header `Link`, with `rel="next"`.
    #[serde(default)]
    pub(crate) next_in_header: bool,
    /// Parameter with the page's size.
    pub(crate) size: Option<String>,
    /// Records to ask for per page.
    #[serde(default)]
    pub(crate) page_size: u32,
    /// Where the parameters go: "query", or "body" for `form` or the top of `json`.
    #[serde(default)]
    pub(crate) place: Place,
    /// Field that identifies a record, so that one that moved to the next page while paging counts once.
    pub(crate) id: String,
    /// How the last page is known where `total` in `[answer]` does not say how many records there are: "empty page", or "short page"
    /// for one with fewer records than `page_size`. Without either, an empty page is the end.
    pub(crate) end: Option<End>,
    /// At most this many pages; a run that needs more is partial.
    #[serde(default = "default_max_pages")]
    pub(crate) max_pages: u32,
}

/// See [`Paging::place`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Place {
    /// Into the address.
    #[default]
    Query,
    /// Into the form or the JSON body.
    Body,
}

impl Paging {
    /// Whether each page says whether there is another one.
    pub(crate) fn is_linked(&self) -> bool {
        self.next.is_some() || self.next_in_header
    }

    /// What is wrong with it, if anything is.
    pub(super) fn check(&self, fetch: &Fetch) -> Result<(), String> {
        let ways = [self.page.is_some(), self.offset.is_some(), self.is_linked()];
        if ways.iter().filter(|w| **w).count() != 1 {
            return Err("[paging] needs one of page, offset, next and next_in_header".to_owned());
        }
        if self.next.is_some() && self.next_in_header {
            return Err(
                "[paging] has both next and next_in_header; one of them is the next page's address"
                    .to_owned(),
            );
        }
        if self.cursor.is_some() && self.next.is_none() {
            return Err(
                "cursor in [paging] needs next, the JSON pointer of the next page's cursor"
                    .to_owned(),
            );
        }
        if self.max_pages == 0 {
            return Err("max_pages in [paging] must be at least 1".to_owned());
        }
        if !self.is_linked() && self.page_size == 0 {
            return Err(
                "[paging] needs page_size, the number of records of a whole page".to_owned(),
            );
        }
        if self.size.is_none() && !self.is_linked() && self.page.is_none() {
            return Err(
                "offset in [paging] needs size, the parameter with the page's size".to_owned(),
            );
        }
        if self.size.is_some() && self.page_size == 0 {
            return Err("size in [paging] needs page_size".to_owned());
        }
        if let Some(pointer) = self.next.as_ref().filter(|p| !p.starts_with('/')) {
            return Err(format!(
                "next \"{pointer}\" in [paging] must begin with /, as JSON pointers do"
            ));
        }
        let body = !fetch.form.is_empty() || matches!(fetch.json, Some(Value::Object(_)));
        if self.place == Place::Body && !body {
            return Err(
                "place = \"body\" in [paging] needs form or a table json in [fetch]".to_owned(),
            );
        }
        Ok(())
    }
}

fn default_first() -> u32 {
    1
}

/// How the end of the pages is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
pub(crate) enum End {
    /// By a page without records.
    #[serde(rename = "empty page")]
    EmptyPage,
    /// By a page with fewer records than were asked for.
    #[serde(rename = "short page")]
    ShortPage,
}

fn default_max_pages() -> u32 {
    500
}
