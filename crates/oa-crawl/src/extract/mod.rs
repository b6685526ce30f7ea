//! From an answer to records: the places that a source file names, and the proof that they hold what the answer announces.

pub(crate) mod day;
pub(crate) mod json;
pub(crate) mod table;

#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extracted {
    /// The records, as they came, with the constants of their list.
    pub(crate) records: Vec<serde_json::Value>,
    /// How many the answer announces, where it does.
    pub(crate) total: Option<u64>,
    /// Lists that do not have the length that the answer announces for them, in sentences.
    pub(crate) miscounted: Vec<String>,
}
