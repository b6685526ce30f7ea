//! The secrets of a source, which its file only names.

use oa_core::app::config::{Config, ConfigError, SecretRef};
use oa_core::base::secrets::Secret;

use super::Source;

/// The name under which a secret of the query is resolved.
pub(crate) fn query_secret(name: &str) -> String {
    format!("parameter {name}")
}

impl Source {
    /// Secrets that inputs of the browser are filled with, by the inputs' selectors. Only a login needs them, and cookies may do
    /// without one.
    pub(crate) fn input_secrets(&self) -> Vec<(String, &SecretRef)> {
        let rules = self.browser.iter();
        let steps = rules.flat_map(|r| r.login.iter().flat_map(|l| &l.steps).chain(&r.steps));
        steps
            .filter_map(|s| Some((s.fill.clone()?, s.secret.as_ref()?)))
            .collect()
    }

    /// All references that a run cannot do without, with what they are.
    pub(crate) fn needed_secrets(&self) -> Vec<(String, &SecretRef)> {
        let headers = self.fetch.secret_headers.iter();
        let headers = headers.map(|(name, reference)| (format!("header {name}"), reference));
        let query = self.fetch.secret_query.iter();
        let query = query.map(|(name, reference)| (query_secret(name), reference));
        headers.chain(query).chain(self.access_secrets()).collect()
    }

    /// Every secret that its file refers to.
    pub(crate) fn secret_references(&self) -> impl Iterator<Item = &SecretRef> {
        let all = self
            .needed_secrets()
            .into_iter()
            .chain(self.input_secrets());
        all.map(|(_, reference)| reference)
    }

    /// Its secrets, resolved: headers by their names, inputs of the browser by their selectors. What only a login needs may be absent.
    pub(crate) fn secrets(&self, config: &Config) -> Result<Vec<(String, Secret)>, ConfigError> {
        let mut resolved = Vec::new();
        for (name, reference) in &self.fetch.secret_headers {
            let setting = format!("header {name} of source {}", self.name);
            resolved.push((name.clone(), config.secret(reference, &setting)?));
        }
        let query = self.fetch.secret_query.iter();
        let query = query.map(|(name, reference)| (query_secret(name), reference));
        for (name, reference) in query.chain(self.access_secrets()) {
            let setting = format!("{name} of source {}", self.name);
            resolved.push((name, config.secret(reference, &setting)?));
        }
        for (input, reference) in self.input_secrets() {
            let setting = format!("{input} of source {}", self.name);
            let secret = config.secret(reference, &setting).ok();
            resolved.extend(secret.map(|s| (input, s)));
        }
        Ok(resolved)
    }
}
