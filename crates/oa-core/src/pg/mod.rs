//! PostgreSQL: connecting, quoting, the schema `oa`, upserts.

mod address;
mod bulk;
mod certificates;
mod connect;
mod deferred;
mod fresh;
pub mod libpq;
mod lock;
mod meaning;
mod passfile;
pub mod revisions;
pub mod schema;
mod session;
mod tls;
pub mod upsert;
mod usual;

pub use address::check_address;
pub use certificates::{certificate, certificate_files, certificates, tls_servers, verifies};
pub use connect::{ConnectError, Settings, connect};
pub use deferred::{Deferred, settled};
pub use lock::alone;
pub use meaning::{Meaning, is_connection_error, is_passing};
pub use session::{Connection, Prepared, Session, Tx, is_outdated};

/// Quotes an identifier, whatever it contains.
#[must_use]
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes a string literal, also where `standard_conforming_strings` is off.
#[must_use]
pub fn quote_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}

/// What PostgreSQL said, in one line: message, detail and hint where it gave them. `postgres::Error` alone prints only
/// "db error".
#[must_use]
pub fn describe(error: &postgres::Error) -> String {
    let Some(db) = error.as_db_error() else {
        let mut text = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) {
                text.push_str(": ");
                text.push_str(&inner_text);
            }
            source = inner.source();
        }
        return text;
    };
    let mut text = format!("{} ({})", db.message(), db.code().code());
    for part in [db.detail(), db.hint()].into_iter().flatten() {
        text.push_str("; ");
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_and_literals_are_quoted() {
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("O'Brien"), "'O''Brien'");
        assert_eq!(quote_literal("a\\'b"), "E'a\\\\''b'");
    }
}
