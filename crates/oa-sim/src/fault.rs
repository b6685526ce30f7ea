//! Faults on demand. A plan is one line:
//!
//! ```text
//! PATH-PREFIX[?name=value&…]: FAULT [xN], FAULT [xN] … [then ok]
//! /zhihui/api/report/overallView: 500 x2 then ok
//! /zhihui/api/report/viewPoint/listPage?page=7: truncate x1 then ok
//! /dingtalk: hang
//! ```
//! Steps are used up in order, `xN` times each (once by default). The last one stays for ever, unless `then ok` follows or it has
//! an `xN`. The newest plan that matches a request wins.
//!
//! Of the transport: `500` (any status, with `retry-after=SECONDS|date`), `hang`, `drip` (a byte a second; `drip N`), `truncate`,
//! `bad-gzip`, `gzip-cut`, `gbk`, `bom`, `long-length`, `reset`, `soft-block`, `redirect-login`, `redirect-loop`.
//! Of the content: `expired-token`, `empty`, `fewer`, `rename FIELD=NEW`, `stringify FIELD`, `nan FIELD`, `stale`, `duplicates`,
//! `grow`, `shrink`, `cap N`, `repeat-page`. Of the robots: `refuse TEXT` (what contains the text, with the robot's code for improper content; another
//! code: `refuse CODE=TEXT`), `code CODE` (everything). And `ok`.

use std::fmt;
use std::str::FromStr;

use crate::http::Request;

/// A plan could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanError(String);

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PlanError {}

/// One thing that goes wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Nothing goes wrong.
    Ok,
    /// This status with an error page; the second value is `Retry-After`.
    Status(u16, Option<String>),
    /// No answer, connection open.
    Hang,
    /// So many bytes a second.
    Drip(u64),
    /// Half the body, then the connection is closed.
    Truncate,
    /// Says gzip, is not.
    BadGzip,
    /// Gzip that ends in the middle.
    GzipCut,
    /// GBK without a declared character set.
    Gbk,
    /// A byte order mark.
    Bom,
    /// Content-Length is longer than the body.
    LongLength,
    /// The connection is reset while the body is read.
    Reset,
    /// A captcha page with status 200.
    SoftBlock,
    /// To a login page.
    RedirectLogin,
    /// To itself.
    RedirectLoop,
    /// The token is no longer valid.
    ExpiredToken,
    /// No records.
    Empty,
    /// Fewer records than the total says.
    Fewer,
    /// A field has another name.
    Rename(String, String),
    /// A number becomes a string.
    Stringify(String),
    /// A number becomes NaN.
    Nan(String),
    /// The day before is shown.
    Stale,
    /// Records come again on the next page.
    Duplicates,
    /// The total grows with each request, thirty in all.
    Grow,
    /// The total shrinks with each request, to nothing at last, and the records with it.
    Shrink,
    /// The server gives at most so many records a page.
    Cap(u64),
    /// Every page is the first.
    RepeatPage,
    /// A robot does not take what contains this text, and says so with this code, or its own for improper content.
    Refuse(Option<i64>, String),
}

impl FromStr for Fault {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let fail = |why: &str| PlanError(format!("\"{text}\" is not a fault: {why}"));
        let mut words = text.split_whitespace();
        let name = words.next().ok_or_else(|| fail("it is empty"))?;
        let argument = words.next();
        if words.next().is_some() {
            return Err(fail("too many words"));
        }
        let needs = |what: &str| {
            argument
                .map(str::to_owned)
                .ok_or_else(|| fail(&format!("it needs {what}")))
        };
        let fault = match name {
            "ok" => Self::Ok,
            "hang" => Self::Hang,
            "drip" => Self::Drip(argument.map_or(Ok(1), |n| {
                n.trim_end_matches("/s")
                    .parse()
                    .map_err(|_| fail("bytes a second must be a number"))
            })?),
            "truncate" => Self::Truncate,
            "bad-gzip" => Self::BadGzip,
            "gzip-cut" => Self::GzipCut,
            "gbk" => Self::Gbk,
            "bom" => Self::Bom,
            "long-length" => Self::LongLength,
            "reset" => Self::Reset,
            "soft-block" => Self::SoftBlock,
            "redirect-login" => Self::RedirectLogin,
            "redirect-loop" => Self::RedirectLoop,
            "expired-token" => Self::ExpiredToken,
            "empty" => Self::Empty,
            "fewer" => Self::Fewer,
            "stale" => Self::Stale,
            "duplicates" => Self::Duplicates,
            "grow" => Self::Grow,
            "shrink" => Self::Shrink,
            "repeat-page" => Self::RepeatPage,
            "stringify" => Self::Stringify(needs("a field")?),
            "nan" => Self::Nan(needs("a field")?),
            "cap" => Self::Cap(
                needs("a number")?
                    .parse()
                    .map_err(|_| fail("it needs a number"))?,
            ),
            "rename" => {
                let pair = needs("FIELD=NEW")?;
                let (from, to) = pair
                    .split_once('=')
                    .ok_or_else(|| fail("it needs FIELD=NEW"))?;
                Self::Rename(from.to_owned(), to.to_owned())
            }
            "refuse" => {
                let text = needs("a text")?;
                let coded = text
                    .split_once('=')
                    .and_then(|(code, text)| Some((code.parse().ok()?, text.to_owned())));
                match coded {
                    Some((code, text)) => Self::Refuse(Some(code), text),
                    None => Self::Refuse(None, text),
                }
            }
            "code" => {
                let code = needs("a number")?.parse();
                Self::Refuse(
                    Some(code.map_err(|_| fail("it needs a number"))?),
                    String::new(),
                )
            }
            number => {
                let status = number
                    .parse()
                    .ok()
                    .filter(|s| (100..600).contains(s))
                    .ok_or_else(|| fail("unknown name"))?;
                let after = argument.map(|a| {
                    a.strip_prefix("retry-after=")
                        .map(str::to_owned)
                        .ok_or_else(|| fail("after a status only retry-after=… may stand"))
                });
                return Ok(Self::Status(status, after.transpose()?));
            }
        };
        let takes_argument = matches!(
            fault,
            Self::Drip(_)
                | Self::Stringify(_)
                | Self::Nan(_)
                | Self::Cap(_)
                | Self::Rename(..)
                | Self::Refuse(..)
        );
        if argument.is_some() && !takes_argument {
            return Err(fail("it takes no argument"));
        }
        Ok(fault)
    }
}

/// A plan and how far it has got.
#[derive(Debug, Clone)]
pub struct Plan {
    text: String,
    prefix: String,
    query: Vec<(String, String)>,
    /// Fault and how often; `None` means for ever.
    steps: Vec<(Fault, Option<u64>)>,
    used: u64,
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (target, list) = text
            .split_once(':')
            .ok_or_else(|| PlanError(format!("\"{text}\" is not PATH: FAULT …")))?;
        let (prefix, query) = target.trim().split_once('?').unwrap_or((target.trim(), ""));
        if !prefix.starts_with('/') {
            return Err(PlanError(format!("path \"{prefix}\" must begin with /")));
        }
        let query = crate::http::parse_form(query).into_iter().collect();
        let (list, then_ok) = match list.trim().strip_suffix("then ok") {
            Some(rest) => (rest.trim().trim_end_matches(','), true),
            None => (list.trim(), false),
        };
        let parts: Vec<&str> = list.split(',').map(str::trim).collect();
        let mut steps = Vec::new();
        for (i, part) in parts.iter().enumerate() {
            let (fault, times) = match part.rsplit_once(" x") {
                Some((fault, n)) if n.parse::<u64>().is_ok() => (fault, n.parse().ok()),
                _ => (*part, None),
            };
            let last = i + 1 == parts.len();
            steps.push((
                fault.parse()?,
                if last && !then_ok {
                    times
                } else {
                    times.or(Some(1))
                },
            ));
        }
        Ok(Self {
            text: text.trim().to_owned(),
            prefix: prefix.to_owned(),
            query,
            steps,
            used: 0,
        })
    }
}

impl Plan {
    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn matches(&self, request: &Request) -> bool {
        request.path.starts_with(&self.prefix)
            && self
                .query
                .iter()
                .all(|(name, value)| request.query.get(name) == Some(value))
    }

    /// The fault of the next matching request, and how often that step was applied before; `None` when the plan is used up.
    pub(crate) fn next(&mut self) -> Option<(Fault, u64)> {
        let mut before = 0;
        for (fault, times) in &self.steps {
            let within = self.used - before;
            if times.is_none_or(|t| within < t) {
                self.used += 1;
                return Some((fault.clone(), within));
            }
            before += times.unwrap_or_default();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(plan: &str, requests: usize) -> Vec<Option<Fault>> {
        let mut plan: Plan = plan.parse().unwrap();
        (0..requests).map(|_| plan.next().map(|(f, _)| f)).collect()
    }

    #[test]
    fn steps_are_used_up_in_order() {
        let e500 = || Some(Fault::Status(500, None));
        assert_eq!(run("/a: 500 x2 then ok", 3), [e500(), e500(), None]);
        assert_eq!(
            run("/a: 500, hang", 3),
            [e500(), Some(Fault::Hang), Some(Fault::Hang)]
        );
        assert_eq!(
            run("/a: ok x1, empty", 2),
            [Some(Fault::Ok), Some(Fault::Empty)]
        );
        assert_eq!(
            run("/a: 429 retry-after=2 x1 then ok", 2),
            [Some(Fault::Status(429, Some("2".into()))), None]
        );
    }

    #[test]
    fn a_wrong_plan_names_the_word() {
        for (plan, word) in [
            ("/a: explode", "explode"),
            ("/a: rename x", "FIELD=NEW"),
            ("a: 500", "must begin with /"),
            ("/a 500", "PATH"),
            ("/a: 500 soon", "retry-after"),
        ] {
            assert!(
                plan.parse::<Plan>().unwrap_err().to_string().contains(word),
                "{plan}"
            );
        }
    }
}
