//! What only the text of a `CREATE` statement says: conditions of `CHECK`, expressions of generated columns and of indexes,
//! collations, `AUTOINCREMENT`, conditions of partial indexes.
//!
//! The text is cut into tokens, so that a word in a string or a comment is never taken for SQL, and read by counting parentheses.
//! SQLite has already accepted the text; nothing here has to validate it. What cannot be
//! read has an empty name, which is nobody's.

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A bare word: a keyword, a name, a function.
    Word(String),
    /// A name in double quotes, backticks or brackets, without them.
    Quoted(String),
    /// A string in single quotes, without them.
    Text(String),
    /// A blob literal, as written.
    Blob(String),
    /// A number, as written.
    Number(String),
    /// An operator or a punctuation mark.
    Symbol(String),
}

impl Token {
    /// Whether this is the given bare word, in any case.
    pub(crate) fn is_word(&self, word: &str) -> bool {
        matches!(self, Self::Word(w) if w.eq_ignore_ascii_case(word))
    }

    /// Whether this is the given symbol.
    pub(crate) fn is_symbol(&self, symbol: &str) -> bool {
        matches!(self, Self::Symbol(s) if s == symbol)
    }

    fn name(&self) -> Option<&str> {
        match self {
            Self::Word(name) | Self::Quoted(name) | Self::Text(name) => Some(name),
            _ => None,
        }
    }
}

/// A token and where it stands in the text.
type PlacedToken = (Token, usize, usize);

/// Cuts SQL into tokens; comments and blanks disappear.
pub(crate) fn tokens(sql: &str) -> Vec<Token> {
    placed(sql).into_iter().map(|(token, _, _)| token).collect()
}

fn placed(sql: &str) -> Vec<PlacedToken> {
    let bytes = sql.as_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let start = at;
        let rest = &bytes[at..];
        match bytes[at] {
            b if b.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'-' if rest.starts_with(b"--") => {
                at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                continue;
            }
            b'/' if rest.starts_with(b"/*") => {
                at += rest
                    .windows(2)
                    .skip(2)
                    .position(|w| w == b"*/")
                    .map_or(rest.len(), |p| p + 4);
                continue;
            }
            b'\'' => {
                let text = quoted(sql, &mut at, '\'');
                out.push((Token::Text(text), start, at));
            }
            b'"' => {
                let text = quoted(sql, &mut at, '"');
                out.push((Token::Quoted(text), start, at));
            }
            b'`' => {
                let text = quoted(sql, &mut at, '`');
                out.push((Token::Quoted(text), start, at));
            }
            b'[' => {
                // Up to the end where nothing closes it.
                let length = rest.iter().position(|b| *b == b']');
                let end = length.map_or(sql.len(), |length| start + length);
                at = length.map_or(sql.len(), |_| end + 1);
                out.push((Token::Quoted(sql[start + 1..end].to_owned()), start, at));
            }
            b'x' | b'X' if rest.get(1) == Some(&b'\'') => {
                at += 1;
                let text = quoted(sql, &mut at, '\'');
                out.push((Token::Blob(text), start, at));
            }
            b @ (b'0'..=b'9' | b'.')
                if b != b'.' || rest.get(1).is_some_and(u8::is_ascii_digit) =>
            {
                at += number_length(rest);
                out.push((Token::Number(sql[start..at].to_owned()), start, at));
            }
            b if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 => {
                at += rest
                    .iter()
                    .position(|b| {
                        !(b.is_ascii_alphanumeric() || matches!(b, b'_' | b'$') || *b >= 0x80)
                    })
                    .unwrap_or(rest.len());
                out.push((Token::Word(sql[start..at].to_owned()), start, at));
            }
            _ => {
                let long = ["<=", ">=", "<>", "!=", "==", "||", "<<", ">>", "->>", "->"]
                    .into_iter()
                    .filter(|m| rest.starts_with(m.as_bytes()))
                    .max_by_key(|m| m.len());
                at += long.map_or(1, str::len);
                out.push((Token::Symbol(sql[start..at].to_owned()), start, at));
            }
        }
    }
    out
}

fn number_length(rest: &[u8]) -> usize {
    if rest.len() > 1 && rest[0] == b'0' && (rest[1] | 32) == b'x' {
        return 2 + rest[2..]
            .iter()
            .take_while(|b| b.is_ascii_hexdigit())
            .count();
    }
    let mut length = 0;
    while let Some(b) = rest.get(length) {
        let exponent_sign =
            matches!(b, b'+' | b'-') && length > 0 && (rest[length - 1] | 32) == b'e';
        if !(b.is_ascii_digit() || matches!(b, b'.' | b'_') || (*b | 32) == b'e' || exponent_sign) {
            break;
        }
        length += 1;
    }
    length
}

/// Reads a quoted text in which a doubled quote stands for one.
fn quoted(sql: &str, at: &mut usize, quote: char) -> String {
    let mut text = String::new();
    let mut chars = sql[*at + 1..].char_indices().peekable();
    let base = *at + 1;
    while let Some((i, c)) = chars.next() {
        if c == quote {
            if chars.peek().is_some_and(|(_, next)| *next == quote) {
                chars.next();
            } else {
                *at = base + i + 1;
                return text;
            }
        }
        text.push(c);
    }
    *at = sql.len();
    text
}

/// What the text of `CREATE TABLE` says.
#[derive(Debug, Default)]
pub(crate) struct CreateTable {
    /// The columns' own parts.
    pub(crate) columns: Vec<ColumnText>,
    /// All `CHECK` constraints, of columns and of the table.
    pub(crate) checks: Vec<Check>,
    /// All foreign keys, of columns and of the table.
    pub(crate) foreign_keys: Vec<ForeignKeyText>,
    /// `AUTOINCREMENT` is there.
    pub(crate) autoincrement: bool,
}

/// A `CHECK` constraint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Check {
    /// The name that `CONSTRAINT` gives.
    pub(crate) name: Option<String>,
    pub(crate) condition: String,
}

/// What only the text of a foreign key says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ForeignKeyText {
    /// The name that `CONSTRAINT` gives.
    pub(crate) name: Option<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) parent: String,
    /// `DEFERRABLE …`, as PostgreSQL writes it; empty for a key that is checked at once.
    pub(crate) deferrable: &'static str,
}

/// What the text of a column says.
#[derive(Debug, Default)]
pub(crate) struct ColumnText {
    pub(crate) name: String,
    pub(crate) collation: Option<String>,
    pub(crate) generated: Option<String>,
}

pub(crate) fn parse_create_table(sql: &str) -> CreateTable {
    let all = placed(sql);
    let mut result = CreateTable::default();
    let Some(open) = all.iter().position(|(t, _, _)| t.is_symbol("(")) else {
        return result;
    };
    let Some(close) = matching(&all, open) else {
        return result;
    };
    for (first, last) in split(&all, open + 1, close) {
        read_definition(sql, &all[first..last], &mut result);
    }
    result
}

fn read_definition(sql: &str, part: &[PlacedToken], result: &mut CreateTable) {
    let Some((head, _, _)) = part.first() else {
        return;
    };
    let of_table = ["CONSTRAINT", "PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]
        .iter()
        .any(|w| head.is_word(w));
    let mut column = (!of_table).then(|| ColumnText {
        name: head.name().unwrap_or_default().to_owned(),
        ..ColumnText::default()
    });
    // Columns of the foreign key that REFERENCES will begin, and the name for the next constraint.
    let mut columns: Vec<String> = column.iter().map(|c| c.name.clone()).collect();
    let mut name: Option<String> = None;
    let mut i = usize::from(!of_table);
    while i < part.len() {
        let token = &part[i].0;
        let next_name = || part.get(i + 1).and_then(|(t, _, _)| t.name());
        let in_parentheses = part
            .get(i + 1)
            .filter(|(t, _, _)| t.is_symbol("("))
            .and_then(|_| matching(part, i + 1))
            .map(|end| (sql[part[i + 1].2..part[end].1].trim().to_owned(), end));
        if token.is_word("AUTOINCREMENT") {
            result.autoincrement = true;
        } else if token.is_word("CONSTRAINT") {
            name = next_name().map(str::to_owned);
            i += 1;
        } else if token.is_word("CHECK")
            && let Some((condition, end)) = in_parentheses
        {
            let name = name.take();
            result.checks.push(Check { name, condition });
            i = end;
        } else if token.is_word("KEY")
            && of_table
            && part[..i].iter().any(|(t, _, _)| t.is_word("FOREIGN"))
            && let Some((_, end)) = in_parentheses
        {
            columns = split(part, i + 2, end)
                .into_iter()
                .filter_map(|(first, _)| part[first].0.name().map(str::to_owned))
                .collect();
            i = end;
        } else if token.is_word("REFERENCES") {
            result.foreign_keys.push(ForeignKeyText {
                name: name.take(),
                columns: columns.clone(),
                parent: next_name().unwrap_or_default().to_owned(),
                deferrable: deferrable(&part[i..]),
            });
            i += 1;
        } else if token.is_word("AS")
            && let (Some((text, end)), Some(column)) = (in_parentheses, &mut column)
        {
            column.generated = Some(text);
            i = end;
        } else if token.is_word("COLLATE")
            && let (Some(next), Some(column)) = (next_name(), &mut column)
        {
            column.collation = Some(next.to_owned());
        } else if ["PRIMARY", "UNIQUE", "NULL", "DEFAULT"]
            .iter()
            .any(|w| token.is_word(w))
        {
            name = None;
        } else if token.is_symbol("(") {
            i = matching(part, i).unwrap_or(i);
        }
        i += 1;
    }
    result.columns.extend(column);
}

/// Whether the foreign key whose text begins here is checked at the end of the transaction. `NOT DEFERRABLE INITIALLY DEFERRED`
/// is checked at once in SQLite.
fn deferrable(key: &[PlacedToken]) -> &'static str {
    for (i, (token, _, _)) in key.iter().enumerate().skip(1) {
        if token.is_word("REFERENCES") || token.is_word("CONSTRAINT") {
            break;
        }
        if token.is_word("DEFERRABLE") {
            let is = |at: usize, word: &str| key.get(at).is_some_and(|(t, _, _)| t.is_word(word));
            return if is(i - 1, "NOT") {
                ""
            } else if is(i + 1, "INITIALLY") && is(i + 2, "DEFERRED") {
                " DEFERRABLE INITIALLY DEFERRED"
            } else {
                " DEFERRABLE"
            };
        }
    }
    ""
}

/// What the text of `CREATE VIRTUAL TABLE` says.
#[derive(Debug, Default)]
pub(crate) struct CreateVirtual {
    /// The module, in lower case.
    pub(crate) module: String,
    /// Its arguments, as written.
    pub(crate) arguments: Vec<String>,
}

impl CreateVirtual {
    /// The value of an argument `name = value`, without quotes.
    pub(crate) fn option(&self, name: &str) -> Option<String> {
        self.arguments.iter().find_map(|argument| {
            let (key, value) = argument.split_once('=')?;
            if !key.trim().eq_ignore_ascii_case(name) {
                return None;
            }
            let value = value.trim();
            Some(match tokens(value).as_slice() {
                [Token::Quoted(text) | Token::Text(text) | Token::Word(text)] => text.clone(),
                _ => value.to_owned(),
            })
        })
    }
}

pub(crate) fn parse_create_virtual(sql: &str) -> CreateVirtual {
    let all = placed(sql);
    let mut result = CreateVirtual::default();
    let Some(using) = all.iter().position(|(t, _, _)| t.is_word("USING")) else {
        return result;
    };
    if let Some((token, _, _)) = all.get(using + 1) {
        result.module = token.name().unwrap_or_default().to_ascii_lowercase();
    }
    let open = using + 2;
    if all.get(open).is_some_and(|(t, _, _)| t.is_symbol("("))
        && let Some(close) = matching(&all, open)
    {
        for (first, last) in split(&all, open + 1, close) {
            result
                .arguments
                .push(sql[all[first].1..all[last - 1].2].to_owned());
        }
    }
    result
}

/// What the text of `CREATE INDEX` says.
#[derive(Debug, Default)]
pub(crate) struct CreateIndex {
    /// The text of each part, without `ASC`, `DESC` and `COLLATE`.
    pub(crate) parts: Vec<String>,
    pub(crate) condition: Option<String>,
}

/// Reads `CREATE INDEX`; empty for the empty text of an index that a constraint made.
pub(crate) fn parse_create_index(sql: &str) -> CreateIndex {
    let all = placed(sql);
    let mut result = CreateIndex::default();
    let Some(open) = all.iter().position(|(t, _, _)| t.is_symbol("(")) else {
        return result;
    };
    let Some(close) = matching(&all, open) else {
        return result;
    };
    for (first, last) in split(&all, open + 1, close) {
        let mut end = last;
        while end > first + 1 {
            let token = &all[end - 1].0;
            if token.is_word("ASC") || token.is_word("DESC") {
                end -= 1;
            } else if end >= first + 3 && all[end - 2].0.is_word("COLLATE") {
                end -= 2;
            } else {
                break;
            }
        }
        result
            .parts
            .push(sql[all[first].1..all[end - 1].2].to_owned());
    }
    if all
        .get(close + 1)
        .is_some_and(|(t, _, _)| t.is_word("WHERE"))
    {
        result.condition = Some(
            sql[all[close + 1].2..]
                .trim()
                .trim_end_matches(';')
                .to_owned(),
        );
    }
    result
}

/// The place of the parenthesis that closes the one at `open`.
fn matching(all: &[PlacedToken], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (i, (token, _, _)) in all.iter().enumerate().skip(open) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth -= 1;
            if depth == 0 {
                return Some(i);
            }
        }
    }
    None
}

/// Cuts at the commas that stand in no inner parenthesis.
fn split(all: &[PlacedToken], from: usize, to: usize) -> Vec<(usize, usize)> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, from);
    for (i, (token, _, _)) in all.iter().enumerate().take(to).skip(from) {
        if token.is_symbol("(") {
            depth += 1;
        } else if token.is_symbol(")") {
            depth = depth.saturating_sub(1);
        } else if depth == 0 && token.is_symbol(",") {
            parts.push((start, i));
            start = i + 1;
        }
    }
    if start < to {
        parts.push((start, to));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_nothing_closes_goes_to_the_end() {
        for text in ["[", "[a", "[\u{fffd}"] {
            assert_eq!(tokens(text), [Token::Quoted(text[1..].to_owned())]);
        }
    }

    #[test]
    fn checks_and_expressions_are_found_and_words_in_strings_are_not() {
        let table = parse_create_table(
            "CREATE TABLE \"a (b\" (id INTEGER PRIMARY KEY AUTOINCREMENT, -- CHECK (no)\n\
             [full name] TEXT COLLATE NOCASE DEFAULT 'CHECK (x)' CHECK (length(\"full name\") < 10),\n\
             total REAL GENERATED ALWAYS AS (price * (1 + tax)) STORED, CONSTRAINT c CHECK (a > 0 AND b IN (1, 2)))",
        );
        assert!(table.autoincrement);
        let checks: Vec<(Option<&str>, &str)> = table
            .checks
            .iter()
            .map(|c| (c.name.as_deref(), c.condition.as_str()))
            .collect();
        assert_eq!(
            checks,
            [
                (None, "length(\"full name\") < 10"),
                (Some("c"), "a > 0 AND b IN (1, 2)")
            ]
        );
        assert_eq!(table.columns[1].name, "full name");
        assert_eq!(table.columns[1].collation.as_deref(), Some("NOCASE"));
        assert_eq!(
            table.columns[2].generated.as_deref(),
            Some("price * (1 + tax)")
        );
    }

    #[test]
    fn foreign_keys_have_names_and_say_when_they_are_checked() {
        let table = parse_create_table(
            "CREATE TABLE c (a INT CONSTRAINT \"Fk A\" REFERENCES p(id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED CHECK (a > 0),
               b INT NOT NULL REFERENCES p NOT DEFERRABLE INITIALLY DEFERRED, d INT REFERENCES q DEFERRABLE,
               CONSTRAINT two FOREIGN KEY (\"x y\", b) REFERENCES r (m, n) DEFERRABLE INITIALLY DEFERRED)",
        );
        let found: Vec<(Option<&str>, String, &str, &str)> = table
            .foreign_keys
            .iter()
            .map(|k| {
                (
                    k.name.as_deref(),
                    k.columns.join("+"),
                    k.parent.as_str(),
                    k.deferrable,
                )
            })
            .collect();
        let deferred = " DEFERRABLE INITIALLY DEFERRED";
        assert_eq!(
            found,
            [
                (Some("Fk A"), "a".to_owned(), "p", deferred),
                (None, "b".to_owned(), "p", ""),
                (None, "d".to_owned(), "q", " DEFERRABLE"),
                (Some("two"), "x y+b".to_owned(), "r", deferred),
            ]
        );
    }

    #[test]
    fn a_virtual_table_names_its_module_and_options() {
        let table = parse_create_virtual(
            "CREATE VIRTUAL TABLE IF NOT EXISTS main.\"using it\" USING FTS5(a, b UNINDEXED, content='t x', tokenize = \"porter unicode61\")",
        );
        assert_eq!(table.module, "fts5");
        assert_eq!(table.option("content").as_deref(), Some("t x"));
        assert_eq!(table.option("languageid"), None);
        let empty = parse_create_virtual("create virtual table c using fts5(a, content='')");
        assert_eq!(empty.option("content").as_deref(), Some(""));
    }

    #[test]
    fn parts_and_condition_of_an_index_are_found() {
        let index = parse_create_index(
            "CREATE UNIQUE INDEX i ON t (lower(a) COLLATE NOCASE DESC, b ASC, substr(c, 1, 2)) WHERE d > 0",
        );
        assert_eq!(index.parts, ["lower(a)", "b", "substr(c, 1, 2)"]);
        assert_eq!(index.condition.as_deref(), Some("d > 0"));
    }
}
