//! Expressions of `CHECK`, `DEFAULT`, generated columns and indexes, translated where both sides mean the same.
//!
//! Only a list of words and functions that are known to agree is let through; anything else is reported as not translated, never
//! guessed. What passes is still tried: PostgreSQL must accept it, and the rows must satisfy it.

use oa_core::pg::{quote_ident, quote_literal};

use super::types::PgType;
use crate::inspect::ddl::{Token, tokens};

const KEYWORDS: [&str; 15] = [
    "AND", "OR", "NOT", "IN", "IS", "NULL", "BETWEEN", "CASE", "WHEN", "THEN", "ELSE", "END",
    "TRUE", "FALSE", "ESCAPE",
];
/// Functions that mean the same for the arguments that constraints have.
const FUNCTIONS: [(&str, &str); 9] = [
    ("length", "length"),
    ("abs", "abs"),
    ("coalesce", "coalesce"),
    ("ifnull", "coalesce"),
    ("nullif", "nullif"),
    ("trim", "btrim"),
    ("ltrim", "ltrim"),
    ("rtrim", "rtrim"),
    ("replace", "replace"),
];

/// The columns that an expression may name: name in SQLite, name in PostgreSQL, type.
pub(crate) type Columns<'a> = [(&'a str, &'a str, PgType)];

pub(crate) fn translate(sql: &str, columns: &Columns<'_>) -> Result<String, String> {
    let tokens = tokens(sql);
    let mut out: Vec<String> = Vec::new();
    let mut i = 0;
    while i < tokens.len() {
        let token = &tokens[i];
        let calls = tokens.get(i + 1).is_some_and(|t| t.is_symbol("("));
        let text = match token {
            Token::Number(n) if n.starts_with("0x") || n.contains('_') => {
                return Err(format!("number {n}"));
            }
            Token::Number(n) => n.clone(),
            Token::Text(text) => quote_literal(text),
            Token::Blob(_) => return Err("a blob literal".to_owned()),
            Token::Symbol(symbol) => match symbol.as_str() {
                "==" => "=".to_owned(),
                "(" | ")" | "," | "+" | "-" | "*" | "/" | "%" | "<" | "<=" | ">" | ">=" | "="
                | "<>" | "!=" | "||" => symbol.clone(),
                other => return Err(format!("operator {other}")),
            },
            // A column of a JSON type holds nothing else.
            Token::Word(word) if calls && json_is_valid(word, &tokens[i + 1..], columns) => {
                i += 3;
                "TRUE".to_owned()
            }
            Token::Word(word) if calls => function(word)?,
            Token::Word(word) if KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(word)) => {
                word.to_ascii_uppercase()
            }
            Token::Word(name) => {
                let (target, pg) = column(name, columns).ok_or_else(|| format!("word {name}"))?;
                let (text, further) = boolean_comparison(&tokens[i..], pg, target);
                i += further;
                text
            }
            // SQLite takes an unknown name in double quotes for a string.
            Token::Quoted(name) => match column(name, columns) {
                Some((target, pg)) => {
                    let (text, further) = boolean_comparison(&tokens[i..], pg, target);
                    i += further;
                    text
                }
                None => quote_literal(name),
            },
        };
        out.push(text);
        i += 1;
    }
    if out.is_empty() {
        return Err("an empty expression".to_owned());
    }
    Ok(out.join(" "))
}

/// Whether an expression names a column, as SQLite reads it.
pub(crate) fn names(sql: &str, column: &str) -> bool {
    tokens(sql).iter().any(|token| match token {
        Token::Word(name) | Token::Quoted(name) => name.eq_ignore_ascii_case(column),
        _ => false,
    })
}

fn column<'a>(name: &str, columns: &Columns<'a>) -> Option<(&'a str, PgType)> {
    columns
        .iter()
        .find(|(sqlite, _, _)| sqlite.eq_ignore_ascii_case(name))
        .map(|(_, target, pg)| (*target, *pg))
}

fn json_is_valid(word: &str, rest: &[Token], columns: &Columns<'_>) -> bool {
    let [open, Token::Word(name) | Token::Quoted(name), close, ..] = rest else {
        return false;
    };
    word.eq_ignore_ascii_case("json_valid")
        && open.is_symbol("(")
        && close.is_symbol(")")
        && column(name, columns).is_some_and(|(_, pg)| matches!(pg, PgType::Json | PgType::Jsonb))
}

fn function(word: &str) -> Result<String, String> {
    let lower = word.to_ascii_lowercase();
    if KEYWORDS.iter().any(|k| k.eq_ignore_ascii_case(word)) {
        return Ok(word.to_ascii_uppercase());
    }
    // SQLite folds ASCII letters only. For others the rows are tried, and the proof compares generated columns.
    if lower == "lower" || lower == "upper" {
        return Ok(lower);
    }
    FUNCTIONS
        .iter()
        .find(|(sqlite, _)| *sqlite == lower)
        .map(|(_, target)| (*target).to_owned())
        .ok_or_else(|| format!("function {word}"))
}

/// `flag = 1`, `flag IN (0, 1)`: integers beside a column that became boolean. Returns the translation, and how many
/// further tokens it covers.
fn boolean_comparison(tokens: &[Token], pg: PgType, target: &str) -> (String, usize) {
    let name = quote_ident(target);
    if pg != PgType::Bool {
        return (name, 0);
    }
    let bit = |token: Option<&Token>| match token {
        Some(Token::Number(n)) if n == "0" => Some("FALSE"),
        Some(Token::Number(n)) if n == "1" => Some("TRUE"),
        _ => None,
    };
    if let (Some(Token::Symbol(symbol)), Some(value)) = (tokens.get(1), bit(tokens.get(2)))
        && ["=", "==", "<>", "!="].contains(&symbol.as_str())
    {
        let operator = if symbol == "==" { "=" } else { symbol };
        return (format!("{name} {operator} {value}"), 2);
    }
    if tokens.get(1).is_some_and(|t| t.is_word("IN"))
        && tokens.get(2).is_some_and(|t| t.is_symbol("("))
        && tokens.get(4).is_some_and(|t| t.is_symbol(","))
        && tokens.get(6).is_some_and(|t| t.is_symbol(")"))
        && let (Some(a), Some(b)) = (bit(tokens.get(3)), bit(tokens.get(5)))
    {
        return (format!("{name} IN ({a}, {b})"), 6);
    }
    (name, 0)
}

/// An expression without blanks, outer parentheses and capital letters outside of texts.
fn plain(sql: &str) -> String {
    let mut out = String::new();
    let mut quoted = false;
    for c in sql.chars() {
        quoted ^= c == '\'';
        if quoted {
            out.push(c);
        } else if !c.is_whitespace() {
            out.push(c.to_ascii_lowercase());
        }
    }
    while let Some(inner) = out.strip_prefix('(').and_then(|o| o.strip_suffix(')')) {
        // Not `(a) + (b)`.
        let mut depth = 0i32;
        if inner.chars().any(|c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            depth < 0
        }) {
            break;
        }
        out = inner.to_owned();
    }
    out
}

/// Defaults that people write with SQLite's functions: the current time, and random texts.
fn usual_default(sql: &str, pg: PgType) -> Option<String> {
    let now = "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')";
    let text = matches!(pg, PgType::Text | PgType::Varchar(_));
    match plain(sql).as_str() {
        "datetime('now')" | "datetime()" | "datetime(current_timestamp)" => {
            translate_default("CURRENT_TIMESTAMP", pg).ok()
        }
        "date('now')" | "date()" => translate_default("CURRENT_DATE", pg).ok(),
        "time('now')" | "time()" => translate_default("CURRENT_TIME", pg).ok(),
        "unixepoch()"
        | "unixepoch('now')"
        | "strftime('%s','now')"
        | "strftime('%s')"
        | "cast(strftime('%s','now')asinteger)" => match pg {
            PgType::Timestamptz(_) => Some("CURRENT_TIMESTAMP".to_owned()),
            PgType::Timestamp(_) => Some(now.to_owned()),
            PgType::Int4 | PgType::Int8 => {
                Some("(floor(extract(epoch FROM CURRENT_TIMESTAMP))::bigint)".to_owned())
            }
            _ => None,
        },
        "strftime('%Y-%m-%d %H:%M:%f','now')" => match pg {
            PgType::Timestamp(_) => Some(format!("date_trunc('milliseconds', {now})")),
            _ if text => Some(format!("to_char({now}, 'YYYY-MM-DD HH24:MI:SS.MS')")),
            _ => None,
        },
        "strftime('%Y-%m-%dT%H:%M:%fZ','now')" => match pg {
            PgType::Timestamptz(_) => {
                Some("date_trunc('milliseconds', CURRENT_TIMESTAMP)".to_owned())
            }
            _ if text => Some(format!(
                "to_char({now}, 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')"
            )),
            _ => None,
        },
        "hex(randomblob(16))" if text => {
            Some("upper(replace(gen_random_uuid()::text, '-', ''))".to_owned())
        }
        "lower(hex(randomblob(16)))" if text => {
            Some("replace(gen_random_uuid()::text, '-', '')".to_owned())
        }
        other if pg == PgType::Bytea => {
            let digits = other.strip_prefix("x'")?.strip_suffix('\'')?;
            let even = digits.len().is_multiple_of(2);
            (even && digits.bytes().all(|b| b.is_ascii_hexdigit()))
                .then(|| format!("'\\x{digits}'::bytea"))
        }
        _ => None,
    }
}

/// Translates a `DEFAULT`; times are UTC in SQLite.
pub(crate) fn translate_default(sql: &str, pg: PgType) -> Result<String, String> {
    if let Some(usual) = usual_default(sql, pg) {
        return Ok(usual);
    }
    let parsed = tokens(sql);
    if let [Token::Word(word)] = parsed.as_slice() {
        let upper = word.to_ascii_uppercase();
        let now = "(CURRENT_TIMESTAMP AT TIME ZONE 'UTC')";
        match (upper.as_str(), pg) {
            ("NULL", _) => return Ok("NULL".to_owned()),
            ("CURRENT_TIMESTAMP", PgType::Timestamp(_)) => return Ok(now.to_owned()),
            ("CURRENT_DATE", PgType::Timestamp(_)) => {
                return Ok(format!("date_trunc('day', {now})"));
            }
            ("CURRENT_TIMESTAMP" | "CURRENT_DATE" | "CURRENT_TIME", PgType::Timestamptz(_)) => {
                return Ok("CURRENT_TIMESTAMP".to_owned());
            }
            ("CURRENT_TIMESTAMP" | "CURRENT_DATE", PgType::Date) => {
                return Ok(format!("({now}::date)"));
            }
            ("CURRENT_TIME", PgType::Time) => return Ok(format!("({now}::time)")),
            ("CURRENT_TIMESTAMP", PgType::Text | PgType::Varchar(_)) => {
                return Ok(format!("to_char({now}, 'YYYY-MM-DD HH24:MI:SS')"));
            }
            ("CURRENT_DATE", PgType::Text | PgType::Varchar(_)) => {
                return Ok(format!("to_char({now}, 'YYYY-MM-DD')"));
            }
            ("TRUE" | "FALSE", PgType::Bool) => return Ok(upper),
            ("TRUE", t) if t.is_integer() => return Ok("1".to_owned()),
            ("FALSE", t) if t.is_integer() => return Ok("0".to_owned()),
            // In SQLite they are the integers 1 and 0, which a TEXT column keeps as texts.
            ("TRUE", PgType::Float8 | PgType::Numeric(_)) => return Ok("1".to_owned()),
            ("FALSE", PgType::Float8 | PgType::Numeric(_)) => return Ok("0".to_owned()),
            ("TRUE", PgType::Text | PgType::Varchar(_)) => return Ok("'1'".to_owned()),
            ("FALSE", PgType::Text | PgType::Varchar(_)) => return Ok("'0'".to_owned()),
            _ => {}
        }
    }
    if pg == PgType::Bool {
        return match parsed.as_slice() {
            [Token::Number(n)] if n == "0" => Ok("FALSE".to_owned()),
            [Token::Number(n)] if n == "1" => Ok("TRUE".to_owned()),
            [Token::Text(t) | Token::Quoted(t)] => crate::inspect::scan::parse_bool(t.as_bytes())
                .map(|b| if b { "TRUE" } else { "FALSE" }.to_owned())
                .ok_or_else(|| format!("'{t}' as a boolean")),
            _ => Err(format!("{sql} as a boolean")),
        };
    }
    let is_text = matches!(pg, PgType::Text | PgType::Varchar(_));
    if let [Token::Number(n)] = parsed.as_slice()
        && let Some(n) = hexadecimal(n)
    {
        let n = n.to_string();
        return Ok(if is_text { quote_literal(&n) } else { n });
    }
    match parsed.as_slice() {
        [Token::Number(n)] if is_text && n.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(quote_literal(n.trim_start_matches('0')).replace("''", "'0'"))
        }
        [Token::Number(n)] if is_text => Err(format!("number {n} as a text")),
        [Token::Text(t) | Token::Quoted(t)] => Ok(quote_literal(t)),
        _ => translate(sql, &[]),
    }
}

/// `0x10`: 64 bits, as SQLite reads it.
fn hexadecimal(number: &str) -> Option<i64> {
    let digits = number
        .strip_prefix("0x")
        .or_else(|| number.strip_prefix("0X"))?;
    u64::from_str_radix(digits, 16).ok().map(u64::cast_signed)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn known_expressions_are_translated_and_others_named() {
        let columns = [
            ("Price", "price", PgType::Float8),
            ("on", "on", PgType::Bool),
        ];
        assert_eq!(
            translate("price >= 0 AND length('a''b') == 3", &columns).unwrap(),
            "\"price\" >= 0 AND length ( 'a''b' ) = 3"
        );
        assert_eq!(
            translate("\"on\" IN (0, 1)", &columns).unwrap(),
            "\"on\" IN (FALSE, TRUE)"
        );
        let json = [("data", "data", PgType::Jsonb)];
        assert_eq!(
            translate("(JSON_VALID(\"data\") OR data IS NULL)", &json).unwrap(),
            "( TRUE OR \"data\" IS NULL )"
        );
        assert_eq!(
            translate("price LIKE 'a%'", &columns).unwrap_err(),
            "word LIKE"
        );
        assert_eq!(
            translate("strftime('%Y', price) > 1", &columns).unwrap_err(),
            "function strftime"
        );
    }

    #[test]
    fn defaults_follow_the_columns_type() {
        assert_eq!(translate_default("1", PgType::Bool).unwrap(), "TRUE");
        assert_eq!(translate_default("'x'", PgType::Text).unwrap(), "'x'");
        assert_eq!(translate_default("TRUE", PgType::Text).unwrap(), "'1'");
        assert_eq!(
            translate_default("false", PgType::Numeric(None)).unwrap(),
            "0"
        );
        assert_eq!(translate_default("0x10", PgType::Text).unwrap(), "'16'");
        assert_eq!(translate_default("0x10", PgType::Int4).unwrap(), "16");
        assert_eq!(translate_default("007", PgType::Text).unwrap(), "'7'");
        assert_eq!(translate_default("0", PgType::Text).unwrap(), "'0'");
        translate_default("1.50", PgType::Text).unwrap_err();
        let seconds = translate_default("(strftime('%s', 'now'))", PgType::Int8).unwrap();
        assert!(seconds.contains("epoch"), "{seconds}");
        assert_eq!(
            translate_default("(datetime('now'))", PgType::Timestamptz(6)).unwrap(),
            "CURRENT_TIMESTAMP"
        );
        assert_eq!(
            translate_default("X'00fF'", PgType::Bytea).unwrap(),
            "'\\x00fF'::bytea"
        );
        translate_default("(datetime('now', 'localtime'))", PgType::Timestamp(6)).unwrap_err();
        assert_eq!(translate_default("-1.5", PgType::Float8).unwrap(), "- 1.5");
        assert!(
            translate_default("CURRENT_TIMESTAMP", PgType::Timestamp(6))
                .unwrap()
                .contains("UTC")
        );
    }
}
