//! Secrets that another program may print: they must be known before its output is kept.

use std::fs;
use std::path::Path;

use super::{Config, SecretRef};
use crate::base::secrets::Secret;

/// A variable whose name has one of these words holds a secret.
const SECRET_WORDS: [&str; 11] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "COOKIE",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "APIKEY",
    "CREDENTIAL",
    "PASSPHRASE",
];
/// The same where it is one of the parts between underscores: `DB_PASS`, but not `SSH_ASKPASS`, which is a program.
const SECRET_PARTS: [&str; 4] = ["PASS", "PWD", "DSN", "WEBHOOK"];

fn is_secret_variable(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // The shell's present and last folder.
    let is_folder = ["PWD", "OLDPWD"].contains(&name.as_str());
    let has_part = || name.split('_').any(|part| SECRET_PARTS.contains(&part));
    SECRET_WORDS.iter().any(|word| name.contains(word)) || (!is_folder && has_part())
}

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
            if let Ok(text) = fs::read_to_string(folder.join(path)) {
                let _ = Secret::new(text.trim_end_matches(['\r', '\n']).to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::is_secret_variable;

    #[test]
    fn variables_of_secrets_are_known_by_their_names() {
        for name in [
            "DB_PASS",
            "smtp_pwd",
            "PGPASSWORD",
            "SENTRY_DSN",
            "DINGTALK_WEBHOOK",
            "AWS_SECRET_ACCESS_KEY",
        ] {
            assert!(is_secret_variable(name), "{name}");
        }
        for name in ["PWD", "OLDPWD", "SSH_ASKPASS", "PATH", "COMPASS_HOME"] {
            assert!(!is_secret_variable(name), "{name}");
        }
    }
}
