//! `catch_up` in `[crawl]`.

use serde::Deserialize;

use crate::base::units::Span;
use crate::schedule::CatchUp;

/// `"latest"`, `"all"`, or a duration, which is how versions before wrote the latest of that age.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "toml::Value")]
pub struct CatchUpRule {
    /// Which.
    pub which: CatchUp,
    /// The age that was written in its place.
    pub age: Option<Span>,
}

impl TryFrom<toml::Value> for CatchUpRule {
    type Error = String;

    fn try_from(value: toml::Value) -> Result<Self, String> {
        let which = match value.as_str() {
            Some("latest") => CatchUp::Latest,
            Some("all") => CatchUp::All,
            _ => {
                let age = value.clone().try_into::<Span>().map_err(|_| {
                    format!(
                        "{value} is neither \"latest\" nor \"all\", nor a duration such as \"24h\""
                    )
                })?;
                return Ok(Self {
                    which: CatchUp::Latest,
                    age: Some(age),
                });
            }
        };
        Ok(Self { which, age: None })
    }
}
