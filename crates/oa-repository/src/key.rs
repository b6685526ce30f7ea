//! The first key of a repository: the master key, encrypted with what scrypt makes of the password.
//!
//! The engine makes keys that take 128 MB each time a program opens the repository, more than everything else that a backup does.
//! scrypt is as hard to guess against with less memory and more rounds (OWASP's Password Storage Cheat Sheet has the pairs), and restic's
//! format has the parameters in the key's file.

use aes256ctr_poly1305aes::aead::Aead;
use aes256ctr_poly1305aes::{Aes256CtrPoly1305Aes, Key, Nonce};
use rand::{Rng, rng};
use rustic_core::jiff::Zoned;
use rustic_core::repofile::{KeyFile, MasterKey};
use rustic_core::{FileType, Id, RusticError, WriteBackend};
use sha2::{Digest, Sha256};

use crate::repair::hex;
use crate::{RepositoryError, RepositoryLocation};

/// What it takes to make a key of a password: `128 * r << log_n` bytes, `p` times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyCost {
    log_n: u8,
    r: u32,
    p: u32,
}

impl KeyCost {
    /// 32 MB, three times.
    pub(crate) const USUAL: Self = Self {
        log_n: 15,
        r: 8,
        p: 3,
    };
    /// Nothing to speak of, for tests that open a repository a hundred times.
    pub(crate) const OF_TESTS: Self = Self {
        log_n: 4,
        r: 8,
        p: 1,
    };
}

impl RepositoryLocation {
    /// Writes a key that opens `master` by the location's password.
    pub(crate) fn write_key(
        &self,
        backend: &dyn WriteBackend,
        master: &MasterKey,
        cost: KeyCost,
    ) -> Result<(), RepositoryError> {
        let unmade = |reason: String| RepositoryError::Engine {
            doing: "make a key",
            place: self.shown(),
            reason,
            system: None,
        };
        let file = key_file(self.password(), master, cost).map_err(unmade)?;
        let content = serde_json::to_vec(&file).map_err(|e| unmade(e.to_string()))?;
        let id: Id = hex(&Sha256::digest(&content))
            .parse()
            .map_err(|e: Box<RusticError>| self.failed("make a key", &e))?;
        backend
            .write_bytes(FileType::Key, &id, false, content.into())
            .map_err(|e| self.failed("write a key", &e))
    }
}

fn key_file(password: &str, master: &MasterKey, cost: KeyCost) -> Result<KeyFile, String> {
    let parameters = scrypt::Params::new(cost.log_n, cost.r, cost.p).map_err(|e| e.to_string())?;
    let mut salt = vec![0; 64];
    rng().fill_bytes(&mut salt);
    let mut key = [0; 64];
    scrypt::scrypt(password.as_bytes(), &salt, &parameters, &mut key).map_err(|e| e.to_string())?;
    let mut nonce = [0; 16];
    rng().fill_bytes(&mut nonce);
    let text = serde_json::to_vec(master).map_err(|e| e.to_string())?;
    let sealed = Aes256CtrPoly1305Aes::new(Key::from_slice(&key))
        .encrypt(Nonce::from_slice(&nonce), text.as_slice())
        .map_err(|e| e.to_string())?;
    Ok(KeyFile {
        hostname: None,
        username: None,
        created: Some(Zoned::now()),
        kdf: "scrypt".to_owned(),
        n: 1 << cost.log_n,
        r: cost.r,
        p: cost.p,
        data: [nonce.as_slice(), &sealed].concat(),
        salt,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_the_master_key_back_for_its_password_alone() {
        let master = MasterKey::new();
        for cost in [KeyCost::USUAL, KeyCost::OF_TESTS] {
            let file = key_file("right", &master, cost).unwrap();
            assert!(file.key_from_password(&"right").is_ok(), "{cost:?}");
            assert!(file.key_from_password(&"wrong").is_err(), "{cost:?}");
        }
        let memory = (128 * u64::from(KeyCost::USUAL.r)) << KeyCost::USUAL.log_n;
        assert!(memory <= 32 << 20, "a small machine opens it too");
    }
}
