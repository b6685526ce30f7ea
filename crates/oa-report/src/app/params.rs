//! The parameters of a request, checked by the table of paths.

use std::collections::HashMap;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use hyper::StatusCode;
use oa_core::base::mistakes::nearest;
use uuid::Uuid;

use super::answer::Answer;
use super::request::Request;
use super::routes::{Kind, Operation, Parameter, Route};
use crate::queries::logs::{Filter, MOST, statuses};
use crate::when;

/// Why a request's parameters are refused.
#[derive(Debug)]
pub(crate) enum Refused {
    /// One of them is not what it must be.
    Wrong(String),
    /// They contradict each other: each by itself is right.
    Contradiction(String),
}

impl Refused {
    pub(crate) fn answer(self) -> Answer {
        match self {
            Self::Wrong(detail) => Answer::problem(StatusCode::BAD_REQUEST, detail),
            Self::Contradiction(detail) => Answer::problem(StatusCode::CONFLICT, detail),
        }
    }
}

impl From<String> for Refused {
    fn from(detail: String) -> Self {
        Self::Wrong(detail)
    }
}

/// The checked values of a request.
#[derive(Debug, Default)]
pub(crate) struct Params {
    values: HashMap<&'static str, String>,
    since: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    statuses: Vec<&'static str>,
    days: HashMap<&'static str, NaiveDate>,
    limit: Option<u16>,
}

impl Params {
    /// Checks what was given by the route's parameters. An empty value counts as absent.
    pub(crate) fn check(
        route: &'static Route,
        in_path: &[(&str, String)],
        request: &Request,
        zone: Tz,
    ) -> Result<Self, Refused> {
        let mut params = Self::default();
        // Pages come with whatever others hang on their links.
        let strict = !matches!(route.operation, Operation::Page(_) | Operation::Badge);
        for (name, value) in request
            .query
            .iter()
            .filter(|(_, v)| strict || !v.is_empty())
        {
            let Some(parameter) = route
                .parameters
                .iter()
                .find(|p| p.name == name && !in_path.iter().any(|(n, _)| n == name))
            else {
                if strict {
                    return Err(format!(
                        "there is no parameter \"{name}\" here{}",
                        nearest(name, route.parameters.iter().map(|p| p.name))
                    )
                    .into());
                }
                continue;
            };
            if params.values.contains_key(parameter.name) {
                return Err(format!("{name} is given twice").into());
            }
            params.add(parameter, value, zone)?;
        }
        for (name, value) in in_path {
            if let Some(parameter) = route.parameters.iter().find(|p| p.name == *name) {
                params.add(parameter, value, zone)?;
            }
        }
        let text = |name: &str| params.values.get(name).map(String::as_str);
        (params.since, params.until) = when::span(text("since"), text("until"), Utc::now(), zone)
            .map_err(Refused::Contradiction)?;
        if let Some(Kind::Limit(default)) = route
            .parameters
            .iter()
            .find(|p| p.name == "limit")
            .map(|p| p.kind)
        {
            params.limit.get_or_insert(default);
        }
        Ok(params)
    }

    fn add(&mut self, parameter: &Parameter, value: &str, zone: Tz) -> Result<(), String> {
        let name = parameter.name;
        if value.is_empty() && !matches!(parameter.kind, Kind::Limit(_) | Kind::Flag) {
            return Ok(());
        }
        match parameter.kind {
            Kind::Limit(_) => {
                let number = value.parse().ok().filter(|n| {
                    (1..=MOST).contains(n) && value.bytes().all(|b| b.is_ascii_digit())
                });
                let number = number.ok_or_else(|| {
                    format!("{name} is \"{value}\"; it must be a number from 1 to {MOST}")
                })?;
                if name == "limit" {
                    self.limit = Some(number);
                }
            }
            Kind::Status => self.statuses = statuses(value)?,
            Kind::Day => {
                let day = when::day(value, Utc::now(), zone).ok_or_else(|| {
                    format!("{name} is \"{value}\"; it must be a day such as 2025-12-01, today or yesterday")
                })?;
                self.days.insert(name, day);
            }
            Kind::Time => {
                when::parse(value, Utc::now(), zone).map_err(|e| format!("{name}: {e}"))?;
            }
            Kind::Uuid => {
                Uuid::try_parse(value)
                    .ok()
                    .filter(|_| value.len() == 36)
                    .ok_or_else(|| format!("{name} is \"{value}\", which is no id"))?;
            }
            Kind::Name => {
                if value.chars().count() > 200 || value.contains('\0') {
                    return Err(format!(
                        "{name} is longer than 200 characters, or has one that no name has"
                    ));
                }
            }
            Kind::Flag if !matches!(value, "true" | "false") => {
                return Err(format!("{name} is \"{value}\"; it must be true or false"));
            }
            Kind::Flag => {}
        }
        self.values.insert(name, value.to_owned());
        Ok(())
    }

    pub(crate) fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    pub(crate) fn uuid(&self, name: &str) -> Option<Uuid> {
        self.values.get(name).and_then(|v| v.parse().ok())
    }

    /// A text that stands in the path, so that no request comes without it.
    pub(crate) fn required_text(&self, name: &str) -> Result<String, Answer> {
        self.text(name).ok_or_else(|| absent(name))
    }

    /// The same for an id.
    pub(crate) fn required_uuid(&self, name: &str) -> Result<Uuid, Answer> {
        self.uuid(name).ok_or_else(|| absent(name))
    }

    pub(crate) fn day(&self, name: &str) -> Option<NaiveDate> {
        self.days.get(name).copied()
    }

    pub(crate) fn is(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|v| v == "true")
    }

    pub(crate) fn limit(&self) -> u16 {
        self.limit.unwrap_or(50)
    }

    pub(crate) fn filter(&self) -> Filter {
        Filter {
            task: self.text("task"),
            statuses: self.statuses.clone(),
            since: self.since,
            until: self.until,
            before: self.uuid("before"),
            after: None,
            limit: self.limit(),
        }
    }
}

fn absent(name: &str) -> Answer {
    Answer::problem(StatusCode::BAD_REQUEST, format!("{name} is not given"))
}
