//! CSS selectors of source files.

use scraper::Selector;

#[derive(Debug, thiserror::Error)]
#[error("\"{0}\", which is no selector")]
pub(crate) struct NotASelector(String);

pub(crate) fn selector(css: &str) -> Result<Selector, NotASelector> {
    Selector::parse(css).map_err(|_| NotASelector(css.to_owned()))
}
