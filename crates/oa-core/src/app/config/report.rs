//! Types of `[report]`.

use std::fmt;

use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};
use crate::base::links::{LinkKey, SHORTEST_KEY};

impl Config {
    /// The key of links in messages; `None`: messages carry none.
    ///
    /// # Errors
    /// When it cannot be read, or is too short.
    pub fn link_key(&self) -> Result<Option<LinkKey>, ConfigError> {
        let Some(reference) = &self.report.link_key else {
            return Ok(None);
        };
        let key = LinkKey::new(self.secret(reference, "report.link_key")?);
        let key = key.ok_or_else(|| ConfigError::Invalid {
            path: self.path.clone(),
            message: format!(
                "link_key in [report] is shorter than {SHORTEST_KEY} characters; make one with: head -c 32 /dev/urandom | base64"
            ),
        })?;
        Ok(Some(key))
    }
}

/// SHA-256 of a token that opens the report's API, written `sha256:HEX`. A token is 256 random bits (`oa-report token`), which nobody
/// finds by trying: a slow hash, made for passwords, would add nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

impl std::str::FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "a token stands here as its hash, sha256: and 64 hexadecimal digits; make one with: oa-report token NAME".to_owned()
        };
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        if hex.len() != 64 || !hex.is_ascii() {
            return Err(wrong());
        }
        let mut bytes = [0; 32];
        for (byte, at) in bytes.iter_mut().zip((0..64).step_by(2)) {
            *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(bytes))
    }
}

/// A token of `[report.tokens]`: its hash, after `read-only` when it may only look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// SHA-256 of it.
    pub hash: TokenHash,
    /// It may acknowledge, silence and have tasks run, not only look.
    pub may_act: bool,
}

impl std::str::FromStr for Token {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let looks_only = text.strip_prefix("read-only ");
        Ok(Self {
            hash: looks_only.unwrap_or(text).trim().parse()?,
            may_act: looks_only.is_none(),
        })
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// What comes before every path when a reverse proxy serves the report below its own root: empty, or `/PATH` without a slash at its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct BasePath(pub String);

impl std::str::FromStr for BasePath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
        if !path.is_empty()
            && (!path.starts_with('/')
                || path.contains("//")
                || path.contains("..")
                || !path.chars().all(plain))
        {
            return Err(
                "it must be a path such as \"/oa\", of letters, digits, - _ . ~".to_owned(),
            );
        }
        Ok(Self(path.to_owned()))
    }
}

impl<'de> Deserialize<'de> for BasePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_written_as_its_hash_only() {
        let text = format!("sha256:{}", "0a".repeat(32));
        assert_eq!(text.parse::<TokenHash>().unwrap().to_string(), text);
        for wrong in [
            "",
            "hunter2",
            "sha256:12",
            &format!("sha256:{}", "zz".repeat(32)),
            &format!("sha256:{}", "é".repeat(32)),
        ] {
            assert!(
                wrong
                    .parse::<TokenHash>()
                    .unwrap_err()
                    .contains("oa-report token"),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_token_may_act_unless_it_is_read_only() {
        let hash = format!("sha256:{}", "0a".repeat(32));
        let (acts, looks): (Token, Token) = (
            hash.parse().unwrap(),
            format!("read-only {hash}").parse().unwrap(),
        );
        assert_eq!((acts.may_act, looks.may_act), (true, false));
        assert_eq!(acts.hash, looks.hash);
        assert!("readonly sha256:00".parse::<Token>().is_err());
    }

    #[test]
    fn a_base_path_is_a_path() {
        for (text, path) in [("", ""), ("/", ""), ("/oa/", "/oa"), ("/a/b-c", "/a/b-c")] {
            assert_eq!(text.parse::<BasePath>().unwrap().0, path);
        }
        for wrong in ["oa", "/a//b", "/../x", "/a\"b", "/a b", "//evil.example"] {
            assert!(wrong.parse::<BasePath>().is_err(), "{wrong}");
        }
    }
}
