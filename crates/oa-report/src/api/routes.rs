//! The table of paths, and what may be given to each.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::base::mistakes::nearest;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::queries::logs::{Filter, MOST, STATUSES};
use crate::server::request::Asked;
use crate::web::Page;
use crate::when;

/// What is done at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// How all tasks are.
    Health,
    /// The run log.
    Logs,
    /// Whether the backups can be relied on.
    BackupStatus,
    /// One run.
    Run,
    /// One task.
    Task,
    /// Troubles and alerts.
    Alerts,
    /// Taking on a trouble.
    Acknowledge,
    /// How good what was collected is.
    Quality,
    /// Backups.
    Backups,
    /// Rehearsed restores.
    Drills,
    /// This document.
    OpenApi,
    /// Whether the process runs.
    Alive,
    /// Whether PostgreSQL answers.
    Ready,
    /// For Prometheus.
    Metrics,
    /// A file of the pages.
    Asset,
    /// A page.
    Page(Page),
}

impl Operation {
    /// Whether it is for everybody: tells nothing about the data.
    #[must_use]
    pub fn is_open(self) -> bool {
        matches!(self, Self::Alive | Self::Ready | Self::Asset)
    }
}

/// What a value must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A number of entries, with its default.
    Limit(u16),
    /// A status of a run.
    Status,
    /// A moment, see [`when::parse`].
    Moment,
    /// An id.
    Uuid,
    /// A name.
    Name,
    /// true or false.
    Flag,
}

/// A parameter.
#[derive(Debug, Clone, Copy)]
pub struct Parameter {
    /// Its name; one that stands in the path too is required.
    pub name: &'static str,
    /// What it must be.
    pub kind: Kind,
    /// What it means.
    pub about: &'static str,
}

/// A path.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: &'static str,
    /// The paths; parts in braces are parameters.
    pub paths: &'static [&'static str],
    /// What is done there.
    pub operation: Operation,
    /// What it is, in one line.
    pub summary: &'static str,
    /// What may be given.
    pub parameters: &'static [Parameter],
}

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

const LIMIT: Parameter = parameter("limit", Kind::Limit(50), "at most so many entries");
const BEFORE: Parameter = parameter(
    "before",
    Kind::Uuid,
    "the next page: `next` of the last one",
);
const LANGUAGE: Parameter = parameter("lang", Kind::Name, "zh or en");

macro_rules! page {
    ($path:literal, $page:expr, $parameters:expr $(,)?) => {
        Route {
            method: "GET",
            paths: &[$path],
            operation: Operation::Page($page),
            summary: "",
            parameters: $parameters,
        }
    };
}

/// All paths.
pub const ROUTES: &[Route] = &[
    Route {
        method: "GET",
        paths: &["/admin/crawler/health", "/api/v1/crawler/health"],
        operation: Operation::Health,
        summary: "How each task is, over the last 24 hours",
        parameters: &[parameter("task", Kind::Name, "only this task")],
    },
    Route {
        method: "GET",
        paths: &["/admin/crawler/logs", "/api/v1/crawler/logs"],
        operation: Operation::Logs,
        summary: "The run log, newest first",
        parameters: &[
            LIMIT,
            parameter("status", Kind::Status, "only runs with this status"),
            parameter("task", Kind::Name, "only runs of this task"),
            parameter(
                "since",
                Kind::Moment,
                "only runs that started at this moment or later",
            ),
            parameter(
                "until",
                Kind::Moment,
                "only runs that started before this moment",
            ),
            BEFORE,
        ],
    },
    Route {
        method: "GET",
        paths: &["/admin/backup/status", "/api/v1/backup/status"],
        operation: Operation::BackupStatus,
        summary: "Whether the backups can be relied on",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/runs/{id}"],
        operation: Operation::Run,
        summary: "One run with its attempts, answers and rejected records",
        parameters: &[parameter("id", Kind::Uuid, "the run")],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/tasks/{name}"],
        operation: Operation::Task,
        summary: "One task with its last runs and days",
        parameters: &[parameter("name", Kind::Name, "the task")],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/alerts"],
        operation: Operation::Alerts,
        summary: "Troubles that are not over, and what was told",
        parameters: &[LIMIT, BEFORE],
    },
    Route {
        method: "POST",
        paths: &["/api/v1/acks"],
        operation: Operation::Acknowledge,
        summary: "Takes on a trouble: it is not repeated until it is over",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/quality"],
        operation: Operation::Quality,
        summary: "How good what was collected is",
        parameters: &[
            parameter("task", Kind::Name, "the history of this task"),
            LIMIT,
            BEFORE,
        ],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/backups"],
        operation: Operation::Backups,
        summary: "Backups, newest first",
        parameters: &[
            LIMIT,
            parameter(
                "before",
                Kind::Name,
                "the next page: `next` of the last one",
            ),
            parameter("removed", Kind::Flag, "also those that were pruned"),
        ],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/drills"],
        operation: Operation::Drills,
        summary: "Rehearsed restores, and how the repositories grow",
        parameters: &[LIMIT],
    },
    Route {
        method: "GET",
        paths: &["/openapi.json"],
        operation: Operation::OpenApi,
        summary: "This document",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/healthz"],
        operation: Operation::Alive,
        summary: "Whether the process runs",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/readyz"],
        operation: Operation::Ready,
        summary: "Whether PostgreSQL answers",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/metrics"],
        operation: Operation::Metrics,
        summary: "Metrics for Prometheus",
        parameters: &[],
    },
    page!("/", Page::Front, &[]),
    page!("/admin", Page::Front, &[]),
    page!(
        "/admin/",
        Page::Overview,
        &[
            LANGUAGE,
            parameter(
                "task",
                Kind::Name,
                "only tasks whose name or title has this"
            ),
            parameter("page", Kind::Limit(1), "page of the tasks")
        ]
    ),
    page!(
        "/admin/tasks/{name}",
        Page::Task,
        &[LANGUAGE, parameter("name", Kind::Name, "the task")]
    ),
    page!(
        "/admin/runs/{id}",
        Page::Run,
        &[LANGUAGE, parameter("id", Kind::Uuid, "the run")]
    ),
    page!(
        "/admin/logs",
        Page::Logs,
        &[
            LANGUAGE,
            LIMIT,
            parameter("status", Kind::Status, "status"),
            parameter("task", Kind::Name, "task"),
            parameter("since", Kind::Moment, "from"),
            parameter("until", Kind::Moment, "until"),
            BEFORE,
        ],
    ),
    page!("/admin/backups", Page::Backups, &[LANGUAGE]),
    page!("/admin/alerts", Page::Alerts, &[LANGUAGE, BEFORE]),
    Route {
        method: "POST",
        paths: &["/admin/alerts"],
        operation: Operation::Page(Page::Acknowledge),
        summary: "",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/assets/{file}"],
        operation: Operation::Asset,
        summary: "",
        parameters: &[parameter("file", Kind::Name, "the file")],
    },
];

/// The values of a path's braces, in their order.
type InPath<'a> = Vec<(&'a str, String)>;

fn matches<'a>(pattern: &'a str, path: &[String]) -> Option<InPath<'a>> {
    let parts: Vec<&str> = pattern.split('/').skip(1).collect();
    if parts.len() != path.len() {
        return None;
    }
    let mut values = Vec::new();
    for (part, given) in parts.iter().zip(path) {
        match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) if !given.is_empty() => values.push((name, given.clone())),
            _ if part == given => {}
            _ => return None,
        }
    }
    Some(values)
}

/// The first route of a path, whatever its method.
#[must_use]
pub fn find(path: &[String]) -> Option<(&'static Route, InPath<'static>)> {
    ROUTES.iter().find_map(|route| {
        route
            .paths
            .iter()
            .find_map(|pattern| matches(pattern, path))
            .map(|values| (route, values))
    })
}

/// All routes of a path, one a method.
#[must_use]
pub fn methods(path: &[String]) -> Vec<&'static Route> {
    ROUTES
        .iter()
        .filter(|r| {
            r.paths
                .iter()
                .any(|pattern| matches(pattern, path).is_some())
        })
        .collect()
}

/// The checked values of a request.
#[derive(Debug, Default)]
pub struct Given {
    values: HashMap<&'static str, String>,
    moments: HashMap<&'static str, DateTime<Utc>>,
    limit: Option<u16>,
}

impl Given {
    /// Checks what was given by the route's parameters. An empty value counts as absent.
    ///
    /// # Errors
    /// What is wrong, in a sentence.
    pub fn check(
        route: &'static Route,
        in_path: &[(&str, String)],
        asked: &Asked,
        zone: Tz,
    ) -> Result<Self, String> {
        let mut given = Self::default();
        // Pages come with whatever others hang on their links.
        let strict = !matches!(route.operation, Operation::Page(_));
        for (name, value) in asked.query.iter().filter(|(_, v)| strict || !v.is_empty()) {
            let Some(parameter) = route
                .parameters
                .iter()
                .find(|p| p.name == name && !in_path.iter().any(|(n, _)| n == name))
            else {
                if strict {
                    return Err(format!(
                        "there is no parameter \"{name}\" here{}",
                        nearest(name, route.parameters.iter().map(|p| p.name))
                    ));
                }
                continue;
            };
            if given.values.contains_key(parameter.name) {
                return Err(format!("{name} is given twice"));
            }
            given.add(parameter, value, zone)?;
        }
        for (name, value) in in_path {
            if let Some(parameter) = route.parameters.iter().find(|p| p.name == *name) {
                given.add(parameter, value, zone)?;
            }
        }
        if let Some(Kind::Limit(default)) = route
            .parameters
            .iter()
            .find(|p| p.name == "limit")
            .map(|p| p.kind)
        {
            given.limit.get_or_insert(default);
        }
        Ok(given)
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
            Kind::Status if !STATUSES.contains(&value) => {
                return Err(format!(
                    "there is no status \"{value}\"{}",
                    nearest(value, STATUSES.iter().copied())
                ));
            }
            Kind::Status => {}
            Kind::Moment => {
                self.moments.insert(
                    name,
                    when::parse(value, Utc::now(), zone).map_err(|e| format!("{name}: {e}"))?,
                );
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

    /// A text.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.values.get(name).cloned()
    }

    /// An id.
    #[must_use]
    pub fn uuid(&self, name: &str) -> Option<Uuid> {
        self.values.get(name).and_then(|v| v.parse().ok())
    }

    /// Whether a flag is set.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.values.get(name).is_some_and(|v| v == "true")
    }

    /// At most so many entries.
    #[must_use]
    pub fn limit(&self) -> u16 {
        self.limit.unwrap_or(50)
    }

    /// What is asked of the run log.
    #[must_use]
    pub fn filter(&self) -> Filter {
        Filter {
            task: self.text("task"),
            status: self.text("status"),
            since: self.moments.get("since").copied(),
            until: self.moments.get("until").copied(),
            before: self.uuid("before"),
            after: None,
            limit: self.limit(),
        }
    }
}

impl Kind {
    /// As JSON Schema.
    #[must_use]
    pub fn schema(self) -> Value {
        match self {
            Self::Limit(default) => {
                json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": default})
            }
            Self::Status => {
                let mut all: Vec<&str> = STATUSES.to_vec();
                all.push("");
                json!({"type": "string", "enum": all})
            }
            Self::Moment => json!({"anyOf": [
                {"type": "string", "format": "date-time"},
                {"type": "string", "format": "date"},
                {"type": "string", "pattern": "^(now|today|yesterday|[0-9]{1,5}[smhd])$"},
                {"type": "string", "maxLength": 0},
            ]}),
            Self::Uuid => {
                json!({"anyOf": [{"type": "string", "format": "uuid"}, {"type": "string", "maxLength": 0}]})
            }
            Self::Name => json!({"type": "string", "maxLength": 200, "pattern": "^[^\\u0000]*$"}),
            Self::Flag => json!({"type": "boolean"}),
        }
    }
}
