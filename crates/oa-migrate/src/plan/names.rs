//! Names: folded to lower case or kept, cut to PostgreSQL's 63 bytes, and made different where two would be the same.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

/// PostgreSQL's limit (NAMEDATALEN - 1).
const MAX_BYTES: usize = 63;

/// What happens to the letters of names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Identifiers {
    /// Lower case, so that SQL needs no quotes
    #[default]
    Lower,
    /// As they are
    Keep,
}

/// Names given within one space (the tables and indexes of a schema, the columns of a table).
#[derive(Debug, Default)]
pub(crate) struct Names {
    used: HashSet<String>,
}

impl Names {
    /// Marks a name as used by something else.
    pub(crate) fn reserve(&mut self, name: &str) {
        self.used.insert(name.to_owned());
    }

    /// Gives a free name that is as close to the preferred one as possible.
    pub(crate) fn give(&mut self, preferred: &str, identifiers: Identifiers) -> String {
        let folded = match identifiers {
            Identifiers::Lower => preferred.to_ascii_lowercase(),
            Identifiers::Keep => preferred.to_owned(),
        };
        let folded = folded.replace('\0', "_");
        let folded = if folded.is_empty() {
            "_".to_owned()
        } else {
            folded
        };
        let mut name = shorten(&folded, preferred);
        let mut n = 2;
        while !self.used.insert(name.clone()) {
            name = shorten(&format!("{folded}_{n}"), &format!("{preferred}_{n}"));
            n += 1;
        }
        name
    }
}

/// Cuts a name to 63 bytes; what was cut off becomes part of a checksum, so that long names with the same beginning stay apart.
pub(crate) fn shorten(name: &str, original: &str) -> String {
    if name.len() <= MAX_BYTES {
        return name.to_owned();
    }
    let digest = Sha256::digest(original.as_bytes());
    let checksum: String = digest[..4].iter().map(|b| format!("{b:02x}")).collect();
    let mut end = MAX_BYTES - 9;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}_{checksum}", &name[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_fold_to_the_same_get_numbers() {
        let mut names = Names::default();
        assert_eq!(names.give("Orders", Identifiers::Lower), "orders");
        assert_eq!(names.give("ORDERS", Identifiers::Lower), "orders_2");
        assert_eq!(names.give("ORDERS", Identifiers::Keep), "ORDERS");
    }

    #[test]
    fn long_names_are_cut_at_a_character_and_stay_different() {
        let mut names = Names::default();
        let a = names.give(&"多".repeat(40), Identifiers::Lower);
        let b = names.give(&format!("{}x", "多".repeat(40)), Identifiers::Lower);
        assert!(a.len() <= 63 && b.len() <= 63 && a != b, "{a} {b}");
    }
}
