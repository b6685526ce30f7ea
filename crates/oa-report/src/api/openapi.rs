//! The OpenAPI 3.1 document, made of the table of paths and of the types that are sent.

use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

use super::answers::{
    Ack, AckAnswer, AlertsAnswer, AliveAnswer, Ask, AskAnswer, BackupStatusAnswer, BackupsAnswer,
    DaysAnswer, DrillsAnswer, LogsAnswer, QualityAnswer, ReadyAnswer, RequestsAnswer,
    SilencesAnswer,
};
use crate::app::answer::Problem;
use crate::app::request::SESSION;
use crate::app::routes::{Kind, Operation, ROUTES, Route};
use crate::queries::run::RunDetail;
use crate::queries::task::TaskDetail;
use crate::snapshot::HealthAnswer;

/// The document; `base` is what comes before every path.
pub(crate) fn document(base: &str) -> Value {
    let mut schemas = SchemaSettings::draft2020_12()
        .with(|s| {
            s.definitions_path = "/components/schemas".into();
            s.meta_schema = None;
        })
        .into_generator();
    let mut paths = Map::new();
    for route in ROUTES {
        let Some(answer) = answer(route.operation, &mut schemas) else {
            continue;
        };
        for path in route.paths {
            let operation = operation(route, path, &answer, &mut schemas);
            let at = paths.entry((*path).to_owned()).or_insert_with(|| json!({}));
            at[route.method.to_ascii_lowercase()] = operation;
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "oa-report",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What ran, what is wrong, and whether the backups can be relied on. Times are UTC in RFC 3339, durations seconds, sizes bytes.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": if base.is_empty() { "/" } else { base }}],
        "security": [{"bearer": []}, {"basic": []}, {"session": []}],
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "basic": {"type": "http", "scheme": "basic", "description": "Any user name; the token as the password."},
                "session": {"type": "apiKey", "in": "cookie", "name": SESSION, "description": "What the login page gives for a token."},
            },
        },
    })
}

/// What an operation answers with; `None` for pages and their files.
fn answer(operation: Operation, schemas: &mut SchemaGenerator) -> Option<Value> {
    macro_rules! json_of {
        ($type:ty) => {
            json!({"application/json": {"schema": schemas.subschema_for::<$type>()}})
        };
    }
    Some(match operation {
        Operation::Health => json_of!(HealthAnswer<'_>),
        Operation::Logs => json_of!(LogsAnswer),
        Operation::Days => json_of!(DaysAnswer),
        Operation::BackupStatus => json_of!(BackupStatusAnswer<'_>),
        Operation::Run => json_of!(RunDetail),
        Operation::Task => json_of!(TaskDetail),
        Operation::Alerts => json_of!(AlertsAnswer),
        Operation::Acknowledge => json_of!(AckAnswer),
        Operation::Requests => json_of!(RequestsAnswer),
        Operation::Ask => json_of!(AskAnswer),
        Operation::Silences => json_of!(SilencesAnswer),
        Operation::Quality => json_of!(QualityAnswer),
        Operation::Backups => json_of!(BackupsAnswer),
        Operation::Drills => json_of!(DrillsAnswer),
        Operation::Alive => json_of!(AliveAnswer),
        Operation::Ready => json_of!(ReadyAnswer),
        Operation::OpenApi => json!({"application/json": {"schema": {"type": "object"}}}),
        Operation::Metrics => json!({"text/plain": {"schema": {"type": "string"}}}),
        Operation::Feed => json!({"application/rss+xml": {"schema": {"type": "string"}}}),
        Operation::Badge
        | Operation::Asset
        | Operation::Page(_)
        | Operation::Link
        | Operation::Act => return None,
    })
}

fn operation(route: &Route, path: &str, answer: &Value, schemas: &mut SchemaGenerator) -> Value {
    let problem =
        json!({"application/problem+json": {"schema": schemas.subschema_for::<Problem>()}});
    let mut responses = Map::new();
    let mut add = |status: &str, about: &str| {
        responses.insert(
            status.to_owned(),
            json!({"description": about, "content": problem}),
        );
    };
    add("400", "A parameter is not what it must be");
    add("405", "Another method");
    let has = |name: &str| route.parameters.iter().any(|p| p.name == name);
    if has("since") || has("from") || route.operation == Operation::Ask {
        add("409", "Parameters contradict each other");
    }
    if !route.operation.is_open() {
        add("401", "A token is needed");
        add("403", "Not under this name, or not without a token");
        add("429", "Too many wrong tokens");
    }
    if route.operation != Operation::Alive && route.operation != Operation::OpenApi {
        add(
            "500",
            "PostgreSQL refuses, for example because its schema is another version's",
        );
        add("503", "PostgreSQL does not answer");
    }
    let named = route
        .parameters
        .iter()
        .any(|p| path.contains(&format!("{{{}}}", p.name)));
    if named
        || matches!(
            route.operation,
            Operation::Health | Operation::Days | Operation::Acknowledge | Operation::Ask
        )
    {
        add("404", "There is no such thing");
    }
    let body = match route.operation {
        Operation::Acknowledge => Some(schemas.subschema_for::<Ack>()),
        Operation::Ask => Some(schemas.subschema_for::<Ask>()),
        _ => None,
    };
    if body.is_some() {
        for (status, about) in [
            ("408", "The body did not come in time"),
            ("413", "The body is too long"),
            ("415", "The body is no JSON"),
        ] {
            add(status, about);
        }
    }
    let good = match route.operation {
        Operation::Acknowledge => "201",
        Operation::Ask => "202",
        _ => "200",
    };
    responses.insert(
        good.to_owned(),
        json!({"description": route.summary, "content": answer}),
    );
    if route.method == "GET" {
        responses.insert(
            "304".to_owned(),
            json!({"description": "As the ETag of If-None-Match says"}),
        );
    }
    let parameters: Vec<Value> = route
        .parameters
        .iter()
        .map(|p| {
            let in_path = path.contains(&format!("{{{}}}", p.name));
            let schema = match (in_path, p.kind) {
                (true, Kind::Uuid) => json!({"type": "string", "format": "uuid"}),
                (true, _) => json!({"type": "string", "minLength": 1, "maxLength": 200, "pattern": "^[^\\u0000]+$"}),
                (false, kind) => kind.schema(),
            };
            json!({"name": p.name, "in": if in_path { "path" } else { "query" }, "required": in_path, "description": p.about, "schema": schema})
        })
        .collect();
    let mut name: Vec<&str> = path
        .split('/')
        .filter(|p| !p.is_empty() && !p.starts_with('{'))
        .collect();
    name.insert(0, if route.method == "GET" { "get" } else { "post" });
    let mut operation = json!({
        "operationId": name.join("_").replace('.', "_"),
        "summary": route.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if let Some(schema) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": schema}}});
    }
    if route.operation.is_open() {
        operation["security"] = json!([]);
    }
    operation
}
