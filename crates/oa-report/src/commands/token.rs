//! `oa-report token`: makes a token, shows it once, and prints the line for the configuration.

use std::io::Write;

use anyhow::Context;
use base64::Engine;
use oa_core::app::cli::Failure;
use oa_core::app::config::TokenHash;
use oa_core::app::exit;
use sha2::{Digest, Sha256};

use crate::app::guard::random_key;

/// Make a token for the API and the page
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  oa-report token wang\n  oa-report token screen --read-only")]
pub(crate) struct Args {
    /// Whose it is; shown when its owner acknowledges an incident
    name: String,
    /// It may look, but neither acknowledge nor start anything
    #[arg(long)]
    read_only: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8, Failure> {
    let name = &args.name;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > 64 || !name.chars().all(plain) {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!(
                "the name \"{name}\" must be of letters, digits, - and _; others see it when its owner acknowledges an incident"
            ),
        ));
    }
    let bytes = random_key().context("could not read /dev/urandom")?;
    let token = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let hash = TokenHash(Sha256::digest(token.as_bytes()).into());
    let before = if args.read_only { "read-only " } else { "" };
    let text = format!(
        "token of {name}, shown only now:\n\n    {token}\n\nPut its hash into the configuration, then restart oa-report serve:\n\n    [report.tokens]\n    {name} = \"{before}{hash}\"\n"
    );
    // The one secret that is meant to be seen: not through `cli::print`, which redacts.
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
