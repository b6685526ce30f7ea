//! The one table of paths and their parameters: requests are checked by it, and the OpenAPI document is made of it.

use serde_json::{Value, json};

use crate::queries::logs::{MOST, STATUSES};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Page {
    /// Leads to the overview.
    Front,
    /// Is everything all right, and if not what to do.
    Overview,
    Task,
    Run,
    /// What a site answered, as text.
    RawAnswer,
    /// A screenshot or a page that a failed run has left.
    Failure,
    Logs,
    Backups,
    Alerts,
    /// Does what a button of a page says.
    Act,
    /// Takes a token for a cookie.
    LogIn,
    LogOut,
    /// How the sources are, for everybody and without details.
    Status,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Health,
    Logs,
    Days,
    BackupStatus,
    Run,
    Task,
    Alerts,
    Acknowledge,
    /// What people asked for.
    Requests,
    /// Asks for something.
    Ask,
    Silences,
    Quality,
    Backups,
    Drills,
    OpenApi,
    /// Whether the process runs.
    Alive,
    /// Whether PostgreSQL answers.
    Ready,
    Metrics,
    /// How a task is, as a small picture for everybody.
    Badge,
    /// Incidents for a feed reader.
    Feed,
    /// A file of the pages.
    Asset,
    Page(Page),
    /// A link of a message: what it would do.
    Link,
    /// The same: does it.
    Act,
}

impl Operation {
    /// Whether it is for everybody: it shows nothing of the data, or only what the configuration makes public.
    pub(crate) fn is_open(self) -> bool {
        // A link's signature is its token.
        matches!(
            self,
            Self::Alive
                | Self::Ready
                | Self::Asset
                | Self::Badge
                | Self::Link
                | Self::Act
                | Self::Page(Page::LogIn | Page::LogOut | Page::Status)
        )
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A number of entries, with its default.
    Limit(u16),
    Status,
    /// A time, see [`when::parse`](crate::when::parse).
    Time,
    /// A day, see [`when::day`](crate::when::day).
    Day,
    Uuid,
    Name,
    Flag,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Parameter {
    /// Its name; one that stands in the path too is required.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
}

#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) method: &'static str,
    /// The paths; parts in braces are parameters.
    pub(crate) paths: &'static [&'static str],
    pub(crate) operation: Operation,
    pub(crate) summary: &'static str,
    pub(crate) parameters: &'static [Parameter],
}

const fn parameter(name: &'static str, kind: Kind, about: &'static str) -> Parameter {
    Parameter { name, kind, about }
}

const LIMIT: Parameter = parameter("limit", Kind::Limit(50), "at most this many entries");
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

pub(crate) const ROUTES: &[Route] = &[
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
            parameter(
                "status",
                Kind::Status,
                "only runs with one of these statuses, with commas between; `!success` for all others, `not-ok` for all that ended and were no success",
            ),
            parameter("task", Kind::Name, "only runs of this task"),
            parameter(
                "since",
                Kind::Time,
                "only runs that started at this time or later",
            ),
            parameter(
                "until",
                Kind::Time,
                "only runs that started before this time; the same day as `since` for that whole day",
            ),
            BEFORE,
        ],
    },
    Route {
        method: "GET",
        paths: &["/admin/crawler/days", "/api/v1/crawler/days"],
        operation: Operation::Days,
        summary: "What each source owes for each day, and what came",
        parameters: &[
            parameter("task", Kind::Name, "only this source"),
            parameter(
                "from",
                Kind::Day,
                "the first day; without it, two weeks up to `to`",
            ),
            parameter(
                "to",
                Kind::Day,
                "the last day, at most 400 days after the first; without it, today",
            ),
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
        summary: "Open incidents, and alerts",
        parameters: &[LIMIT, BEFORE],
    },
    Route {
        method: "POST",
        paths: &["/api/v1/acks"],
        operation: Operation::Acknowledge,
        summary: "Acknowledges an incident: it is not repeated until it is resolved",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/requests"],
        operation: Operation::Requests,
        summary: "What people asked for, and what came of it",
        parameters: &[
            parameter("subject", Kind::Name, "only of this source or channel"),
            LIMIT,
        ],
    },
    Route {
        method: "POST",
        paths: &["/api/v1/requests"],
        operation: Operation::Ask,
        summary: "Asks for a run, a backfill or a test message, which the programs that cron starts carry out within a minute",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/silences"],
        operation: Operation::Silences,
        summary: "Silences that hold or will, and what they keep from people",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/quality"],
        operation: Operation::Quality,
        summary: "How good the collected data are",
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
    Route {
        method: "GET",
        paths: &["/badge/{file}"],
        operation: Operation::Badge,
        summary: "",
        parameters: &[parameter("file", Kind::Name, "the task, and .svg")],
    },
    Route {
        method: "GET",
        paths: &["/api/v1/incidents.rss"],
        operation: Operation::Feed,
        summary: "Alerts for a feed reader, newest first",
        parameters: &[],
    },
    page!("/status", Page::Status, &[LANGUAGE]),
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
        "/admin/runs/{id}/raw/{seq}",
        Page::RawAnswer,
        &[
            parameter("id", Kind::Uuid, "the run"),
            parameter("seq", Kind::Name, "the answer's number"),
        ]
    ),
    page!(
        "/admin/runs/{id}/failures/{file}",
        Page::Failure,
        &[
            parameter("id", Kind::Uuid, "the run"),
            parameter("file", Kind::Name, "the screenshot or page"),
        ]
    ),
    page!(
        "/admin/logs",
        Page::Logs,
        &[
            LANGUAGE,
            LIMIT,
            parameter("status", Kind::Status, "status"),
            parameter("task", Kind::Name, "task"),
            parameter("since", Kind::Time, "from"),
            parameter("until", Kind::Time, "until"),
            BEFORE,
        ],
    ),
    page!("/admin/backups", Page::Backups, &[LANGUAGE]),
    page!("/admin/alerts", Page::Alerts, &[LANGUAGE, BEFORE]),
    Route {
        method: "POST",
        paths: &["/admin/act"],
        operation: Operation::Page(Page::Act),
        summary: "",
        parameters: &[],
    },
    page!(
        "/login",
        Page::LogIn,
        &[LANGUAGE, parameter("next", Kind::Name, "where to go then")]
    ),
    Route {
        method: "POST",
        paths: &["/login"],
        operation: Operation::Page(Page::LogIn),
        summary: "",
        parameters: &[],
    },
    Route {
        method: "POST",
        paths: &["/logout"],
        operation: Operation::Page(Page::LogOut),
        summary: "",
        parameters: &[],
    },
    Route {
        method: "GET",
        paths: &["/act/{link}"],
        operation: Operation::Link,
        summary: "",
        parameters: &[],
    },
    Route {
        method: "POST",
        paths: &["/act/{link}"],
        operation: Operation::Act,
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
pub(crate) type InPath<'a> = Vec<(&'a str, String)>;

fn matches<'a>(pattern: &'a str, path: &[String]) -> Option<InPath<'a>> {
    let parts: Vec<&str> = pattern.split('/').skip(1).collect();
    if parts.len() != path.len() {
        return None;
    }
    let mut values = Vec::new();
    for (part, value) in parts.iter().zip(path) {
        match part.strip_prefix('{').and_then(|p| p.strip_suffix('}')) {
            Some(name) if !value.is_empty() => values.push((name, value.clone())),
            _ if part == value => {}
            _ => return None,
        }
    }
    Some(values)
}

/// A route with the values of its path.
pub(crate) type Found = (&'static Route, InPath<'static>);

/// The first route of a path, whatever its method.
pub(crate) fn find(path: &[String]) -> Option<Found> {
    ROUTES.iter().find_map(|route| {
        route
            .paths
            .iter()
            .find_map(|pattern| matches(pattern, path))
            .map(|values| (route, values))
    })
}

/// All routes of a path, one a method.
pub(crate) fn methods(path: &[String]) -> Vec<&'static Route> {
    ROUTES
        .iter()
        .filter(|r| {
            r.paths
                .iter()
                .any(|pattern| matches(pattern, path).is_some())
        })
        .collect()
}

impl Kind {
    pub(crate) fn schema(self) -> Value {
        match self {
            Self::Limit(default) => {
                json!({"type": "integer", "minimum": 1, "maximum": MOST, "default": default})
            }
            Self::Status => {
                // At least one is left.
                let one = STATUSES.join("|");
                json!({"type": "string", "pattern": format!("^((not-ok|{one})(,(not-ok|{one}))*|!({one})(,!({one})){{0,6}})?$")})
            }
            Self::Day => json!({"anyOf": [
                {"type": "string", "format": "date"},
                {"type": "string", "pattern": "^(today|yesterday)?$"},
            ]}),
            Self::Time => json!({"anyOf": [
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
