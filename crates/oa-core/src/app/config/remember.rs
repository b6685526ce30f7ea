//! Secrets that another program may print: they must be known before its output is kept.

use std::path::Path;

use super::{Config, SecretRef};
use crate::base::secrets::{Secret, is_secret_variable};
use crate::base::trust;

impl Config {
    /// Makes [`redact`](crate::base::secrets::redact) remove every secret that the configuration refers to, and the value of every
    /// variable of the environment and of `.env` whose name says that it is one. A reference that leads nowhere is passed over:
    /// whoever needs it says so.
    pub fn remember_secrets(&self) {
        for reference in self.references() {
            self.remember(reference);
        }
        for name in self.exec.values().flat_map(|e| &e.env) {
            self.remember(&SecretRef::Env(name.clone()));
        }

        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        });
        let file = self.env.iter().map(|(n, v)| (n.clone(), v.clone()));
        for (name, value) in environment.chain(file) {
            if is_secret_variable(&name) {
                let _ = Secret::new(value);
            }
        }
    }

    /// The variables to which the configuration refers, and the one that always holds the database's address.
    #[must_use]
    pub fn secret_names(&self) -> Vec<String> {
        let names = self.references().filter_map(|r| match r {
            SecretRef::Env(name) => Some(name.clone()),
            _ => None,
        });
        names.chain(["DATABASE_URL".to_owned()]).collect()
    }

    fn references(&self) -> impl Iterator<Item = &SecretRef> {
        let channels = self.alert.channels.iter();
        channels
            .flat_map(|c| {
                let own = [c.url.as_ref(), c.secret.as_ref()];
                own.into_iter().chain(c.headers.values().map(Some))
            })
            .chain([
                self.database.url.as_ref(),
                self.report.database_url.as_ref(),
                self.report.link_key.as_ref(),
                self.alert.heartbeat_url.as_ref(),
            ])
            .flatten()
            .chain(self.backup.iter().flat_map(super::Backup::secrets))
    }

    /// Makes [`redact`](crate::base::secrets::redact) remove what one reference leads to.
    pub fn remember(&self, reference: &SecretRef) {
        let known = self.secret(reference, "");
        // A file that is refused, because others may read it, still holds a secret.
        if let (Err(_), SecretRef::File(path)) = (known, reference) {
            let folder = self.path.parent().unwrap_or(Path::new("."));
            let read = trust::read_regular(&folder.join(path), trust::LARGEST);
            if let Some(text) = read.ok().and_then(|bytes| String::from_utf8(bytes).ok()) {
                let _ = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
    }
}
