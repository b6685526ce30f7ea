//! Whose damage it is: a pack that is missing concerns only the backups that need it.

use std::collections::{BTreeSet, VecDeque};

use rustic_core::{IndexedFullStatus, Repository as Engine, TreeId};

/// The packs that a tree needs, in hexadecimal digits. What cannot be read any more is left out: the check names it by itself.
pub(super) fn packs_of(engine: &Engine<IndexedFullStatus>, root: TreeId) -> BTreeSet<String> {
    let mut packs = BTreeSet::new();
    let mut seen = BTreeSet::from([root]);
    let mut trees = VecDeque::from([root]);
    while let Some(id) = trees.pop_front() {
        let Ok(entry) = engine.get_index_entry(&id) else {
            continue;
        };
        packs.insert(entry.pack.to_hex().to_string());
        let Ok(tree) = engine.get_tree(&id) else {
            continue;
        };
        for node in tree.nodes {
            for blob in node.content.iter().flatten() {
                if let Ok(entry) = engine.get_index_entry(blob) {
                    packs.insert(entry.pack.to_hex().to_string());
                }
            }
            trees.extend(node.subtree.filter(|t| seen.insert(*t)));
        }
    }
    packs
}

/// What a prune has marked and another one is removing is in the index for a moment longer.
pub(super) fn is_going_anyway(finding: &str) -> bool {
    finding.contains("marked to-delete: true") || finding.contains("marked to delete: true")
}

/// Trees could not be read, and so the engine did not go on to read their data, nor that of any other tree.
pub(super) fn ends_the_reading(finding: &str) -> bool {
    finding.starts_with("error checking trees")
}

/// The beginning of the name of the pack that a finding of the engine is about. Its kinds of findings have no public names, so their
/// text is read ("pack 1234abcd ...: ...").
pub(super) fn pack_named_in(finding: &str) -> Option<&str> {
    let rest = ["pack ", "error reading pack ", "error checking pack "]
        .iter()
        .find_map(|begin| finding.strip_prefix(begin))?;
    let end = rest
        .find(|c: char| !c.is_ascii_hexdigit())
        .unwrap_or(rest.len());
    (end >= 8).then(|| &rest[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_engine_names_packs_so() {
        for (finding, pack) in [
            (
                "pack 0123abcd marked to-delete: false is referenced by the index with size 5 but not present!",
                Some("0123abcd"),
            ),
            ("error checking pack 0123abcd : x", Some("0123abcd")),
            ("pack 0123abcd: Hash mismatch", Some("0123abcd")),
            (
                "file \"data/base/1\" blob 0123abcd is missing in index",
                None,
            ),
            ("file \"pack 20261123.jpg\" has no content", None),
            ("error checking trees : unpack it", None),
        ] {
            assert_eq!(pack_named_in(finding), pack, "{finding}");
        }
    }
}
