//! JSON inside a script: `callback({…});`, `var x = {…};`.

/// The JSON that is given to the function, or assigned to the variable, of that name. The first such place counts.
pub(crate) fn unwrap<'a>(name: &str, text: &'a str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(found) = text[from..].find(name) {
        let start = from + found;
        let before = text[..start].chars().next_back();
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || matches!(c, '_' | '$' | '.'));
        let after = text[start + name.len()..].trim_start();
        let value = match after.strip_prefix('(') {
            Some(value) => Some(value),
            // Not a comparison.
            None => after.strip_prefix('=').filter(|v| !v.starts_with('=')),
        };
        let json = value
            .filter(|_| whole)
            .and_then(|v| value_at(v.trim_start()));
        if json.is_some() {
            return json;
        }
        from = start + name.len();
    }
    None
}

/// The object or list that a text begins with, up to its end.
fn value_at(text: &str) -> Option<&str> {
    let mut depth = 0_u32;
    let mut quoted = false;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return text.get(..=at);
                }
            }
            _ if depth == 0 => return None,
            _ => {}
        }
    }
    // It is cut short: the JSON reader says so.
    (depth > 0).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_found_in_scripts() {
        for (text, json) in [
            ("cb({\"a\": \"})\"});", Some("{\"a\": \"})\"}")),
            ("/**/ cb ( [1] )", Some("[1]")),
            (
                "var other=[0]; var cb = {\"x\": [1, \"\\\"\"]}; go(cb);",
                Some("{\"x\": [1, \"\\\"\"]}"),
            ),
            (
                "<script>if (cb == 1) {} window.cb=1; cb=[];</script>",
                Some("[]"),
            ),
            ("cb({\"a\": [", Some("{\"a\": [")),
            ("xcb({})", None),
            ("cb(1)", None),
            ("", None),
        ] {
            assert_eq!(unwrap("cb", text), json, "{text}");
        }
    }
}
