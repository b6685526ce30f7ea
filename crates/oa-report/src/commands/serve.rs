//! `oa-report serve`: the page, the API and the metrics over HTTP.

use std::net::SocketAddr;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;

use crate::server;

/// Serves until it is asked to stop, at `listen` or where the configuration says.
///
/// # Errors
/// See [`server::serve`].
pub fn run(config: Config, listen: Option<SocketAddr>) -> Result<u8, Failure> {
    let listen = listen.unwrap_or(config.report.listen);
    server::serve(config, listen)
}
