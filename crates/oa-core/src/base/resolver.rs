//! Addresses of names, for whoever speaks HTTP.
//!
//! The library's own way takes a thread for each name, to be able to stop waiting for it, and panics where it gets none. An address needs
//! no looking up, and without a thread a name is looked up as long as the system takes for it.

use std::net::IpAddr;
use std::sync::mpsc::sync_channel;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{self, DefaultResolver, ResolvedSocketAddrs};
use ureq::unversioned::transport::time::Duration;
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use ureq::{Agent, Error};

use super::threads;

/// A client for HTTP that needs no thread.
#[must_use]
pub fn agent(config: Config) -> Agent {
    Agent::with_parts(config, DefaultConnector::default(), SparingResolver)
}

/// Looks names up in a thread, or without one where there is none.
#[derive(Debug)]
pub struct SparingResolver;

impl resolver::Resolver for SparingResolver {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        let patient = NextTimeout {
            after: Duration::NotHappening,
            ..timeout
        };
        let here = || DefaultResolver::default().resolve(uri, config, patient);
        let host = uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        if timeout.after.is_not_happening() || bare.parse::<IpAddr>().is_ok() {
            return here();
        }
        let (sender, receiver) = sync_channel(1);
        let (uri, config) = (uri.clone(), config.clone());
        let looks = threads::spawn("look up a name", move || {
            let found = DefaultResolver::default().resolve(&uri, &config, patient);
            let _ = sender.send(found);
        });
        match looks {
            Ok(_) => receiver
                .recv_timeout(*timeout.after)
                .unwrap_or(Err(Error::Timeout(timeout.reason))),
            Err(e) => {
                tracing::debug!("{e}");
                here()
            }
        }
    }
}
