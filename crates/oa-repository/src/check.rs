//! Verifying what is stored: is everything there that a backup needs, and does it read back as it was written?

use std::collections::{BTreeMap, BTreeSet};

use oa_core::base::supervise::StopSignal;
use rustic_core::{CheckOptions, CheckResults, FileType, Id, ReadBackend, TreeId};
use sha2::{Digest, Sha256};

use crate::engine::{one_line, reason};
use crate::{Backup, Repository, RepositoryError, damage, repair};

/// What a verification found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// The backup; `None` for what belongs to none, or to all.
    pub backup: Option<String>,
    /// What is wrong, with the name of the file in the repository.
    pub what: String,
}

impl Repository {
    /// Checks that everything the backups need is there; with `read`, also reads every byte back. What is wrong is reported by backup;
    /// what none of these backups needs belongs to none.
    pub fn check(&self, backups: &[Backup], read: bool) -> Result<Vec<Damage>, RepositoryError> {
        let trees: Vec<(&str, TreeId)> = backups
            .iter()
            .map(|b| (b.id.as_str(), b.snapshot.tree))
            .collect();
        self.check_trees(&trees, read)
    }

    pub(crate) fn check_trees(
        &self,
        trees: &[(&str, TreeId)],
        read: bool,
    ) -> Result<Vec<Damage>, RepositoryError> {
        let check = |trees: Vec<TreeId>, read| {
            let options = CheckOptions::default().read_data(read);
            let found = self.location.guarded("check the repository", || {
                self.engine.check_with_trees(options, trees)
            })?;
            let text = |(level, e)| {
                let text = one_line(&format!("{e}"));
                // Warnings are about what costs space, not data.
                CheckResults(vec![(level, e)])
                    .is_ok()
                    .is_err()
                    .then_some(text)
            };
            let found = found.0.into_iter().filter_map(text);
            let found = found.filter(|what| !damage::is_going_anyway(what));
            if StopSignal.requested() {
                return Err(RepositoryError::Stopped);
            }
            Ok(found.collect::<Vec<String>>())
        };
        let all = check(trees.iter().map(|(_, tree)| *tree).collect(), read)?;
        if all.is_empty() {
            return Ok(Vec::new());
        }
        // Something is wrong: whose is it? Findings about packs are the same for every tree.
        let indexed = self
            .again()?
            .to_indexed()
            .map_err(self.failed("read the index"))?;
        let again = read && all.iter().any(|what| damage::ends_the_reading(what));
        let mut words = damage::Words::new(self)?;
        let mut damages = Vec::new();
        let mut whose = BTreeSet::new();
        for (id, tree) in trees {
            let packs = damage::packs_of(&indexed, *tree);
            let found = check(vec![*tree], again)?;
            let own = found
                .iter()
                .filter(|what| damage::pack_named_in(what).is_none());
            let of_packs = all.iter().chain(&found).filter(|what| {
                damage::pack_named_in(what)
                    .is_some_and(|named| packs.keys().any(|p| p.starts_with(named)))
            });
            let mine: BTreeSet<&String> = own.chain(of_packs).collect();
            whose.extend(mine.iter().map(|what| (*what).clone()));
            damages.extend(words.say(&mine, &packs)?.into_iter().map(|what| Damage {
                backup: Some((*id).to_owned()),
                what,
            }));
        }
        let others: BTreeSet<&String> = all.iter().filter(|what| !whose.contains(*what)).collect();
        for what in words.say(&others, &BTreeMap::new())? {
            if !damages.iter().any(|d| d.what == what) {
                damages.push(Damage { backup: None, what });
            }
        }
        Ok(damages)
    }

    /// What is wrong with a file, found by reading it: its name is the hash of its content.
    pub(crate) fn wrong_with(&self, kind: FileType, id: &Id) -> Result<String, RepositoryError> {
        let name = repair::name(kind, id);
        let backend = self.location.raw()?;
        let content = backend.read_full(kind, id);
        if StopSignal.requested() {
            return Err(RepositoryError::Stopped);
        }
        Ok(match content {
            Ok(content) if repair::hex(&Sha256::digest(&content)) == *id.to_hex() => {
                format!("{name}: {}", damage::FITS_NOT)
            }
            Ok(_) => format!("{name}: its content is not what was written"),
            Err(e) => match backend.list(kind) {
                Ok(there) if !there.contains(id) => format!("{name}: it is missing"),
                _ => format!("{name}: {}", reason(&e)),
            },
        })
    }
}
