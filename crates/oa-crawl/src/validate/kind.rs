//! What a JSON value is, in words for findings and rejects.

use oa_core::base::exact;
use serde_json::Value;

pub(super) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        _ if exact::number(value).is_some() => "a number",
        _ if exact::malformed(value).is_some() => "no JSON",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
