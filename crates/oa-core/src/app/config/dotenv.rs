//! The `.env` beside the configuration.

use std::collections::HashMap;
use std::path::Path;

use super::ConfigError;
use crate::base::secrets::redact;
use crate::base::trust::{self, Content, TrustError};

impl ConfigError {
    /// Reads a file as [`trust::read`] does.
    pub(super) fn read(what: &'static str, path: &Path, content: Content) -> Result<String, Self> {
        trust::read(path, content).map_err(|e| match e {
            TrustError::Io(source) => ConfigError::Unreadable {
                path: path.to_owned(),
                source,
            },
            source => ConfigError::Untrusted { what, source },
        })
    }
}

/// The variables of the file; none when there is no file.
pub(super) fn read(path: &Path) -> Result<HashMap<String, String>, ConfigError> {
    let text = match ConfigError::read("secrets", path, Content::Secrets) {
        Ok(text) => text,
        Err(ConfigError::Unreadable { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            return Ok(HashMap::new());
        }
        Err(e) => return Err(e),
    };
    // Windows' editors begin a file with it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let invalid = |e: dotenvy::Error| ConfigError::Invalid {
        path: path.to_owned(),
        // The parser's message quotes the line, which holds a secret: say only where it is.
        message: match e {
            dotenvy::Error::LineParse(rest, _) => {
                let place = text.lines().position(|l| l.ends_with(&rest));
                let place = place.map_or_else(
                    || "a quoted value".to_owned(),
                    |i| format!("line {}", i + 1),
                );
                format!(
                    "{place} is not NAME=VALUE; put values that hold spaces or # in quotes, and close them"
                )
            }
            other => redact(&other.to_string()),
        },
    };
    // The parser puts variables in place of $NAME, and nothing where there is none: half a token would be sent to a site.
    if let Some(line) = text.lines().position(holds_a_variable) {
        return Err(ConfigError::Invalid {
            path: path.to_owned(),
            message: format!(
                "line {} holds a $ outside single quotes; write NAME='value', so that it stays as it is",
                line + 1
            ),
        });
    }
    dotenvy::from_read_iter(text.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(invalid)
}

fn holds_a_variable(line: &str) -> bool {
    let value = line.trim_start().split_once('=').map_or("", |(_, v)| v);
    !line.trim_start().starts_with('#')
        && value
            .split('\'')
            .step_by(2)
            .any(|part| part.replace("\\$", "").contains('$'))
}

impl super::Config {
    /// Variables of `.env` of which this process has another value. Programs that cron or systemd starts take those of `.env`.
    #[must_use]
    pub fn overridden(&self) -> Vec<&str> {
        let other = |value: &str, name: &str| {
            std::env::var(name).is_ok_and(|own| !own.is_empty() && own != value)
        };
        let names = self.env.iter().filter(|(name, value)| other(value, name));
        let mut names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        names
    }
}
