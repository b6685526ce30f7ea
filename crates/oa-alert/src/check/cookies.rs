//! Logins that a person made in a browser and imported: only a person can renew them.

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::app::config::Config;
use oa_core::base::state_dir::StateDir;
use oa_core::model::event::Finding;
use serde::Deserialize;

use super::ends_soon;

/// A shorter life is that of a visit, not of a login: the site renews such a cookie by itself.
const OF_A_LOGIN: TimeDelta = TimeDelta::days(1);

/// What `oa-crawl` keeps of a cookie, without its value.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Cookie {
    expiration_date: Option<f64>,
    #[serde(default)]
    http_only: bool,
}

/// Of each provider with imported cookies (`browser/PROVIDER.imported` beside its cookies). A file that cannot be read is reported by
/// the run that needs it.
pub(super) fn find(
    state: &StateDir,
    host: &str,
    config: &Config,
    now: DateTime<Utc>,
) -> Vec<Finding> {
    let Ok(folder) = fs::read_dir(state.path().join("browser")) else {
        return Vec::new();
    };
    let mut found: Vec<Finding> = folder
        .filter_map(|entry| {
            let mark = entry.ok()?.path();
            (mark.extension()? == "imported").then_some(())?;
            let provider = mark.file_stem()?.to_str()?.to_owned();
            let ends_at = end_of_login(&mark.with_extension("json"))?;
            Some(Finding::CookieExpiring {
                host: host.to_owned(),
                provider,
                left: ends_soon(ends_at, config, now)?,
                ends_at,
            })
        })
        .collect();
    found.sort_by_key(Finding::subject);
    found
}

/// When the login ends: with the first of its lasting cookies that scripts cannot read, which is how sites keep logins, or else
/// with the first of all lasting ones.
fn end_of_login(file: &Path) -> Option<DateTime<Utc>> {
    let cookies: Vec<Cookie> = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let written: DateTime<Utc> = fs::metadata(file).ok()?.modified().ok()?.into();
    let first = |only_hidden: bool| {
        cookies
            .iter()
            .filter(|c| c.http_only || !only_hidden)
            .filter_map(|c| DateTime::from_timestamp(c.expiration_date? as i64, 0))
            .filter(|end| *end - written >= OF_A_LOGIN)
            .min()
    };
    first(true).or_else(|| first(false))
}
