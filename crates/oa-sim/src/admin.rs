//! `/_sim/…`: the requests, the deliveries and the faults.

use serde_json::{Value, json};

use crate::Context;
use crate::http::Response;
use crate::server::State;

pub fn handle(context: &Context<'_>, rest: &str, state: &State) -> Response {
    let body = String::from_utf8_lossy(&context.request.body).into_owned();
    match (context.request.method.as_str(), rest) {
        ("GET", "log") => Response::json(&json!(state.log.requests())),
        ("GET", "messages") => Response::json(&json!(state.log.messages())),
        ("GET", "faults") => Response::json(&Value::from(
            state
                .plans()
                .iter()
                .map(|p| p.text().to_owned())
                .collect::<Vec<_>>(),
        )),
        ("POST", "faults") => {
            for line in body
                .lines()
                .map(str::trim)
                .filter(|l| !l.is_empty() && !l.starts_with('#'))
            {
                if let Err(e) = state.add_plan(line) {
                    return Response::new(400, "text/plain; charset=utf-8", e.to_string());
                }
            }
            Response::json(&json!({ "ok": true }))
        }
        ("DELETE", "faults") => {
            state.plans().clear();
            Response::json(&json!({ "ok": true }))
        }
        ("POST", "reset") => {
            state.plans().clear();
            state.log.reset();
            Response::json(&json!({ "ok": true }))
        }
        _ => Response::not_found(),
    }
}
