//! Arguments that several commands take.

use std::path::{Path, PathBuf};

use chrono::NaiveDate;
use clap::Args;
use oa_core::app::config::{Config, Crawl};
use oa_core::base::units::Span;
use oa_core::model::retry::Policy;
use oa_core::model::run::Trigger;

use crate::dates;
use crate::source::{SourceError, Sources};

#[derive(Debug, Args)]
pub(crate) struct SourcesArg {
    /// Folder with source files that replace or add to the built-in ones
    #[arg(long, value_name = "DIR", value_parser = parse_folder)]
    pub(crate) sources: Option<PathBuf>,
}

impl SourcesArg {
    pub(crate) fn load(&self, config: &Config) -> Result<Sources, SourceError> {
        Sources::load(config, self.folder())
    }

    pub(crate) fn folder(&self) -> Option<&Path> {
        self.sources.as_deref()
    }
}

/// What is not given is what `[crawl]` says, else the source file, else the default.
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
#[derive(Debug, Args)]
pub(crate) struct RetryArgs {
    /// Retries after the first attempt [default: what [crawl] or the source file says, else 3]
    #[arg(long, value_name = "N", value_parser = parse_retries)]
    retries: Option<u32>,
    /// Wait between attempts [default: what [crawl] or the source file says, else 60s]
    #[arg(long, value_name = "DURATION", visible_alias = "delay", value_parser = parse_delay)]
    retry_delay: Option<Span>,
    /// Limit of one attempt, with everything it starts [default: what [crawl] or the source file says, else 300s]
    #[arg(long, value_name = "DURATION", value_parser = parse_limit)]
    timeout: Option<Span>,
}

impl RetryArgs {
    pub(crate) fn apply(&self, crawl: &mut Crawl) {
        crawl.retries = self.retries.or(crawl.retries);
        crawl.retry_delay = self.retry_delay.or(crawl.retry_delay);
        crawl.timeout = self.timeout.or(crawl.timeout);
    }
}

#[derive(Debug, Args)]
pub(crate) struct CronArg {
    /// Record the run as started by cron
    #[arg(long)]
    cron: bool,
}

impl CronArg {
    pub(crate) fn trigger(&self) -> Trigger {
        match self.cron {
            true => Trigger::Cron,
            false => Trigger::Manual,
        }
    }
}

pub(crate) fn parse_date(text: &str) -> Result<NaiveDate, String> {
    dates::day(text).ok_or_else(|| format!("\"{text}\" is not a day such as 2025-12-01"))
}

fn parse_limit(text: &str) -> Result<Span, String> {
    let limit: Span = text.parse()?;
    Policy {
        timeout: limit.0,
        ..Policy::DEFAULT
    }
    .check()?;
    Ok(limit)
}

pub(crate) fn parse_delay(text: &str) -> Result<Span, String> {
    let delay: Span = text.parse()?;
    Policy {
        delay: delay.0,
        ..Policy::DEFAULT
    }
    .check()?;
    Ok(delay)
}

fn parse_retries(text: &str) -> Result<u32, String> {
    let retries = text
        .parse()
        .map_err(|_| format!("\"{text}\" is not a number of retries"))?;
    Policy {
        retries,
        ..Policy::DEFAULT
    }
    .check()?;
    Ok(retries)
}

fn parse_folder(text: &str) -> Result<PathBuf, String> {
    let path = Path::new(text);
    if path.is_dir() {
        Ok(path.to_owned())
    } else {
        Err(format!("{text} is not a folder"))
    }
}
