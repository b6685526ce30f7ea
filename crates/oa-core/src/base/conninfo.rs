//! libpq's key/value form of a database address.

/// `name = value` of libpq's other form of address.
pub(crate) struct Pair<'a> {
    pub(crate) name: &'a str,
    /// Without its quotes.
    pub(crate) value: String,
    /// As it was written.
    pub(crate) text: &'a str,
}

/// The parts of such an address, as libpq reads it: a value may stand in single quotes, and `\\` before any character. `None` when it
/// is none.
pub(crate) fn pairs(text: &str) -> Option<Vec<Pair<'_>>> {
    let mut pairs = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let begin = rest;
        let (name, after) = rest.split_once('=')?;
        let name = name.trim_end();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return None;
        }
        rest = after.trim_start();
        let quoted = rest.starts_with('\'');
        rest = &rest[usize::from(quoted)..];
        let mut value = String::new();
        let mut characters = rest.char_indices();
        let end = loop {
            match characters.next() {
                Some((i, '\'')) if quoted => break i + 1,
                Some((i, c)) if !quoted && c.is_whitespace() => break i,
                Some((_, '\\')) => value.extend(characters.next().map(|(_, c)| c)),
                Some((_, c)) => value.push(c),
                None if quoted => return None,
                None => break rest.len(),
            }
        };
        rest = &rest[end..];
        let text = &begin[..begin.len() - rest.len()];
        pairs.push(Pair { name, value, text });
        rest = rest.trim_start();
    }
    Some(pairs)
}
