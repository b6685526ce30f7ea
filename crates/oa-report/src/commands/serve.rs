//! `oa-report serve`: the page, the API and the metrics over HTTP.

use std::net::SocketAddr;

use anyhow::{Context, anyhow};
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::supervise::install_stop_signal;

use crate::app::App;
use crate::http;

/// Serve the page, the API and the metrics over HTTP
#[allow(
    rustdoc::broken_intra_doc_links,
    reason = "help names sections of the configuration"
)]
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the page's address. Requests are logged on stderr, unless -q.\nWithout tokens in [report] only this machine is served.\n\nExamples:\n  oa-report serve\n  oa-report serve --listen 127.0.0.1:9000\nFor crontab:\n  @reboot oa-report serve -q"
)]
pub(crate) struct Args {
    /// Where to listen [default: listen of [report], 127.0.0.1:8686]
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

pub(crate) fn run(args: &Args, config: Config) -> Result<u8, Failure> {
    let listen = args.listen.unwrap_or(config.report.listen);
    if config.report.tokens.is_empty() && !listen.ip().is_loopback() {
        let refused = anyhow!(
            "{listen} can be reached from other machines, and there are no tokens; make one with oa-report token NAME, or listen on 127.0.0.1"
        );
        return Err(Failure::new(exit::REFUSED, refused));
    }
    if config.report.tokens.is_empty() && !config.report.proxies.is_empty() {
        let refused = anyhow!(
            "proxies in [report] lets others in, and there are no tokens; make one with oa-report token NAME"
        );
        return Err(Failure::new(exit::REFUSED, refused));
    }
    config.remember_secrets();
    config.link_key()?;
    let stop = install_stop_signal().context("could not listen for signals")?;
    let calendar = super::calendar(&config)?;
    http::serve(App::start(config, calendar)?, listen, stop)?;
    Ok(exit::OK)
}
