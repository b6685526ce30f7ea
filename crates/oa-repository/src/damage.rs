//! Whose damage it is: a pack that is missing concerns only the backups that need it. And what is wrong, in a line for each file of
//! the repository: the engine finds the same damage in many files, and speaks of its own insides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rustic_core::{FileType, Id, IndexedFullStatus, ReadBackend, Repository as Engine, TreeId};

use crate::{Repository, RepositoryError};

/// The packs that a tree needs, in hexadecimal digits, and whether they hold trees. What cannot be read any more is skipped: the
/// check names it by itself.
pub(crate) fn packs_of(engine: &Engine<IndexedFullStatus>, root: TreeId) -> BTreeMap<String, bool> {
    let mut packs = BTreeMap::new();
    let mut seen = BTreeSet::from([root]);
    let mut trees = VecDeque::from([root]);
    while let Some(id) = trees.pop_front() {
        let Ok(entry) = engine.get_index_entry(&id) else {
            continue;
        };
        packs.insert(entry.pack.to_hex().to_string(), true);
        let Ok(tree) = engine.get_tree(&id) else {
            continue;
        };
        for node in tree.nodes {
            for blob in node.content.iter().flatten() {
                if let Ok(entry) = engine.get_index_entry(blob) {
                    packs
                        .entry(entry.pack.to_hex().to_string())
                        .or_insert(false);
                }
            }
            trees.extend(node.subtree.filter(|t| seen.insert(*t)));
        }
    }
    packs
}

/// Findings in our words; each pack is looked at once.
pub(crate) struct Words<'a> {
    repository: &'a Repository,
    there: BTreeMap<String, Id>,
    known: BTreeMap<String, String>,
}

impl<'a> Words<'a> {
    pub(crate) fn new(repository: &'a Repository) -> Result<Self, RepositoryError> {
        let packs = repository
            .location
            .raw()?
            .list(FileType::Pack)
            .map_err(repository.failed("list the files"))?;
        Ok(Self {
            repository,
            there: packs
                .into_iter()
                .map(|id| (id.to_hex().to_string(), id))
                .collect(),
            known: BTreeMap::new(),
        })
    }

    /// `packs`: those of the backup that the findings are about.
    pub(crate) fn say(
        &mut self,
        findings: &BTreeSet<&String>,
        packs: &BTreeMap<String, bool>,
    ) -> Result<Vec<String>, RepositoryError> {
        let mut said: Vec<String> = Vec::new();
        let mut named = BTreeSet::new();
        let (mut trees, mut others) = (false, Vec::new());
        for finding in findings {
            match pack_named_in(finding) {
                Some(pack) => {
                    named.insert(pack.to_owned());
                }
                None if ends_the_reading(finding) => trees = true,
                None => others.push(finding.as_str()),
            }
        }
        for pack in named {
            let full = packs
                .keys()
                .chain(self.there.keys())
                .find(|p| p.starts_with(&pack));
            let full = full.cloned().unwrap_or(pack);
            said.push(self.pack(&full)?);
        }
        if trees {
            let before = said.len();
            for pack in packs
                .iter()
                .filter(|(_, trees)| **trees)
                .map(|(pack, _)| pack)
            {
                let what = self.pack(pack)?;
                if !what.ends_with(FITS_NOT) && !said.contains(&what) {
                    said.push(what);
                }
            }
            if before == said.len() && said.is_empty() {
                said.push("its list of files cannot be read".to_owned());
            }
        }
        if let Some(first) = others.first() {
            let more = match others.len() {
                1 => String::new(),
                n => format!(" (and {} more like it)", n - 1),
            };
            said.push(format!("{first}{more}"));
        }
        said.sort();
        said.dedup();
        Ok(said)
    }

    fn pack(&mut self, pack: &str) -> Result<String, RepositoryError> {
        if let Some(known) = self.known.get(pack) {
            return Ok(known.clone());
        }
        let what = match self.there.get(pack) {
            Some(id) => self.repository.wrong_with(FileType::Pack, id)?,
            None => format!(
                "data/{}/{pack}: it is missing",
                pack.get(..2).unwrap_or_default()
            ),
        };
        self.known.insert(pack.to_owned(), what.clone());
        Ok(what)
    }
}

/// What is said of a file that is as it was written.
pub(crate) const FITS_NOT: &str = "it is whole, but the index does not fit it";

/// What a prune has marked and another one is removing is in the index for a moment longer.
pub(crate) fn is_going_anyway(finding: &str) -> bool {
    finding.contains("marked to-delete: true") || finding.contains("marked to delete: true")
}

/// Trees could not be read, and so the engine did not go on to read their data, nor that of any other tree.
pub(crate) fn ends_the_reading(finding: &str) -> bool {
    finding.starts_with("error checking trees")
}

/// The beginning of the name of the pack that a finding of the engine is about. Its kinds of findings have no public names, so their
/// text is read ("pack 1234abcd ...: ...").
pub(crate) fn pack_named_in(finding: &str) -> Option<&str> {
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
