//! `[exec.TASK]`.

use serde::Deserialize;

/// `[exec.TASK]`: a program that `oa-crawl exec` runs.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// SQL that counts the records that a try stored; `$1` is the time at which the try began.
    pub records: Option<String>,
    /// Variables, also of `.env`, that the program is given. Those to which the configuration refers it gets only so.
    #[serde(default)]
    pub env: Vec<String>,
}

impl Exec {
    pub(super) fn check(&self, task: &str) -> Result<(), String> {
        let good = |name: &&String| {
            let mut letters = name.chars();
            letters
                .next()
                .is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
                && letters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        };
        match self.env.iter().find(|name| !good(name)) {
            // Not quoted: it may be NAME=VALUE, with a secret.
            Some(_) => Err(format!(
                "env in [exec.{task}] holds something that is no variable's name; write names alone: env = [\"NAME\"]"
            )),
            None => Ok(()),
        }
    }
}
