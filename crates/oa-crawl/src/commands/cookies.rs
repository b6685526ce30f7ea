//! `oa-crawl cookies import`: a person's login in a browser of their own, for sources that cannot log in by themselves.

use std::collections::BTreeSet;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::mistakes::nearest;
use oa_core::base::state_dir::{StateDir, write_durably};

use super::args::SourcesArg;
use crate::fetch::browser::cookies;
use crate::source::FetchKind;

/// Import the cookies of a person's login, for sources that use a browser
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  oa-crawl cookies import rongda ~/Downloads/cookies.json")]
pub(crate) enum Command {
    Import(Args),
}

/// Store the cookies of a JSON file, as browser extensions export it
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Name of the provider, as `oa-crawl list` shows it
    provider: String,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    sources: SourcesArg,
}

/// Exits 2 for a provider without sources that use a browser, 1 for a file that is no list of cookies, 77 for an unusable state directory.
pub(crate) fn import(args: &Args, config: &Config) -> Result<u8, Failure> {
    let (provider, file) = (args.provider.as_str(), &args.file);
    let sources = args.sources.load(config)?;
    let known: BTreeSet<&str> = sources
        .iter()
        .filter(|s| s.fetch.kind == FetchKind::Browser)
        .map(|s| s.provider.as_str())
        .collect();
    if !known.contains(provider) {
        let hint = nearest(provider, known.iter().copied());
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("no source that uses a browser is of provider \"{provider}\"{hint}"),
        ));
    }
    let found = cookies::read(file).map_err(anyhow::Error::msg)?;
    if found.is_empty() {
        return Err(anyhow::anyhow!(
            "{} holds no cookie that is still valid; log in with a browser and export them again",
            file.display()
        )
        .into());
    }
    let kept = StateDir::open(&config.state_dir)?
        .folder("browser")?
        .join(format!("{provider}.json"));
    cookies::write(&kept, &found).map_err(|e| {
        anyhow::anyhow!("could not write {}: {e}; free space there", kept.display())
    })?;
    // Nobody but a person can renew them: oa-alert check reports it when they are about to expire.
    write_durably(&kept.with_extension("imported"), b"").map_err(anyhow::Error::from)?;
    let expires = found
        .iter()
        .filter_map(|c| c.expiration_date)
        .reduce(f64::min);
    let until = expires
        .and_then(|at| chrono::DateTime::from_timestamp(at as i64, 0))
        .map_or_else(
            || "as long as the site likes".to_owned(),
            |at| {
                format!(
                    "until {}",
                    at.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M")
                )
            },
        );
    cli::print(&format!(
        "{} cookies of {provider} are kept; the first to expire is good {until}. Delete {} now: it is as good as a password.\n",
        found.len(),
        file.display()
    ))
    .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
