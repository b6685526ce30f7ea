//! The proof of the schema: what the source or a table of the target had and what does not stand afterwards.

use serde::Serialize;

/// Something that did not come along.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Missing {
    /// The table in PostgreSQL, or the one in SQLite where there is none.
    pub(crate) table: String,
    pub(crate) item: String,
    pub(crate) had: String,
    /// How it is now, or why it is not.
    pub(crate) has: String,
    /// The statement that makes it; may need a person's hand.
    pub(crate) sql: String,
}

impl Missing {
    /// Whether a person means it by `default of column a`, or `t: default of column a` for that table only.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        let plain = self.table.replace('"', "");
        let short = plain.rsplit('.').next().unwrap_or(&plain);
        text == self.item
            || [plain.as_str(), short]
                .iter()
                .any(|table| text == format!("{table}: {}", self.item))
    }

    pub(crate) fn sentence(&self) -> String {
        let Self {
            table,
            item,
            had,
            has,
            sql,
        } = self;
        let run = if sql.is_empty() {
            String::new()
        } else {
            format!("; to create it: {sql}")
        };
        format!("{table}: {item} is missing (had: {had}; now: {has}){run}")
    }
}
