//! Logins that a person made in a browser and imported: nobody but a person can renew them.

use std::fs;
use std::path::Path;

use chrono::{DateTime, TimeDelta, Utc};
use oa_core::alerts::Policy;
use oa_core::config::Config;
use oa_core::state_dir::StateDir;
use serde::Deserialize;

use super::{Finding, expiring};

pub(super) const RULE: &str = "cookie_expiring";

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

/// Of each provider with imported cookies (`browser/PROVIDER.imported` beside its cookies). A file that cannot be read is told by
/// the run that needs it.
pub(super) fn find(state: &StateDir, host: &str, config: &Config, policy: &Policy) -> Vec<Finding> {
    let Ok(folder) = fs::read_dir(state.path().join("browser")) else {
        return Vec::new();
    };
    let mut found: Vec<Finding> = folder
        .filter_map(|entry| {
            let mark = entry.ok()?.path();
            (mark.extension()? == "imported").then_some(())?;
            let provider = mark.file_stem()?.to_str()?.to_owned();
            let end = end_of_login(&mark.with_extension("json"))?;
            told(&provider, end, host, config, policy)
        })
        .collect();
    found.sort_by(|a, b| a.subject.cmp(&b.subject));
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

fn told(
    provider: &str,
    end: DateTime<Utc>,
    host: &str,
    config: &Config,
    policy: &Policy,
) -> Option<Finding> {
    let subject = format!("{host}/{provider}");
    expiring(
        (RULE, &subject),
        end,
        config,
        policy,
        |at, left| {
            let (what, when) = match left {
                Some(left) => (
                    "即将过期",
                    format!("将于 {at} 过期，还有 {left}（{host} 上导入的）"),
                ),
                None => ("已过期", format!("已于 {at} 过期（{host} 上导入的）")),
            };
            (
                format!("{provider} 的登录 Cookie {what}"),
                vec![
                    when,
                    format!("影响：过期后 {provider} 的数据源采不到数据"),
                    format!(
                        "处理：用自己的浏览器登录该网站，导出 Cookie，然后执行 oa-crawl cookies import {provider} 文件"
                    ),
                ],
            )
        },
        |at, left| {
            let (what, when) = match left {
                Some(left) => (
                    "expire soon",
                    format!("They expire at {at}, in {left} (imported on {host})"),
                ),
                None => (
                    "have expired",
                    format!("They expired at {at} (imported on {host})"),
                ),
            };
            (
                format!("the login cookies of {provider} {what}"),
                vec![
                    when,
                    format!("Effect: without them nothing is collected from {provider}"),
                    format!(
                        "What to do: log in with your own browser, export the cookies, and run oa-crawl cookies import {provider} FILE"
                    ),
                ],
            )
        },
    )
}
