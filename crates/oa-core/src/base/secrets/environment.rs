//! Which variables of its environment this process passes on to a program that it starts.

use std::env;
use std::process::Command;

use super::redact;

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
/// Without these no program works as it should, whatever is in them.
const NEEDED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "TZ"];

/// Whether a variable holds a secret, by its name.
#[must_use]
pub fn is_secret_variable(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    // The shell's present and last folder.
    let is_folder = ["PWD", "OLDPWD"].contains(&name.as_str());
    let has_part = || name.split('_').any(|part| SECRET_PARTS.contains(&part));
    SECRET_WORDS.iter().any(|word| name.contains(word)) || (!is_folder && has_part())
}

/// Takes out of what a program will find in its environment all that is secret, by its name or by its value. What it is given of that must be
/// set afterwards. A browser shows pages of others, a server that is restored belongs to another account: neither needs any of it.
pub fn keep_from(command: &mut Command) {
    for (name, value) in env::vars_os() {
        let text = name.to_string_lossy();
        let is_needed = NEEDED.contains(&&*text) || text.starts_with("LD_");
        let is_secret = || {
            let value = value.to_string_lossy();
            is_secret_variable(&text) || redact(&value) != value
        };
        if !is_needed && is_secret() {
            command.env_remove(&name);
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
