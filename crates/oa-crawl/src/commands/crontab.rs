//! `oa-crawl crontab`: the sources' schedules as crontab lines, for those who prefer them to `run --due`.

use std::fmt::Write as _;

use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::schedule::Days;

use super::args::SourcesArg;
use super::list;
use crate::source::{Source, Sources};

/// Print the schedules of the enabled sources as crontab lines
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourcesArg,
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let sources = args.sources.load(config)?;
    cli::print(&lines(config, &sources)).map_err(anyhow::Error::from)?;
    Ok(list::log_broken(&sources, exit::OK))
}

fn lines(config: &Config, sources: &Sources) -> String {
    let zone = config.timezone.name();
    // cron starts programs in the user's home.
    let path = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
    let mut text = format!(
        "# Schedules are in {zone}, crontab lines in the zone of cron: set the machine's zone to it, or CRON_TZ where cron knows that.\n\
         # One line for all of them, which knows the zone, trading days and sessions, and makes up for what was missed:\n\
         # * * * * * oa-crawl run --due\n\
         OA_CONFIG={}\n",
        path.display()
    );
    if sources.enabled().next().is_none() {
        text.push_str("# No source is enabled: oa-crawl list shows them, oa-crawl enable TASK|PROVIDER enables.\n");
    }
    for source in sources.enabled() {
        let _ = writeln!(
            text,
            "\n# {}{}\n{} oa-crawl run --cron {}",
            source.title,
            only(source),
            source.schedule,
            source.name
        );
    }
    text
}

/// What the line itself cannot say: `--cron` skips the starts that are outside its days and sessions.
fn only(source: &Source) -> &'static str {
    match (source.sessions.is_empty(), source.days) {
        (false, _) => ", within trading sessions only",
        (true, Days::Trading) => ", on trading days only",
        (true, Days::Night) => ", on days with a night session only",
        (true, Days::All) => "",
    }
}
