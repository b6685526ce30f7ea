//! `oa-report token`: makes a token, shows it once, and gives the line for the configuration.

use std::io::Write;

use anyhow::Context;
use base64::Engine;
use oa_core::app::cli::Failure;
use oa_core::app::config::TokenHash;
use oa_core::app::exit;
use sha2::{Digest, Sha256};

use crate::server::random;

/// Prints a new token of that name.
///
/// # Errors
/// When the name cannot stand in the configuration, or the system gives no random bytes.
pub fn run(name: &str) -> Result<u8, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!(
                "the name \"{name}\" must be of letters, digits, - and _; it is shown to others when its owner takes on a trouble"
            ),
        ));
    }
    let bytes = random().context("could not read /dev/urandom")?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let hash = TokenHash(Sha256::digest(token.as_bytes()).into());
    let text = format!(
        "token of {name}, shown only now:\n\n    {token}\n\nIts hash goes into the configuration; then start oa-report serve again:\n\n    [report.tokens]\n    {name} = \"{hash}\"\n"
    );
    // The one secret that is meant to be seen.
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
