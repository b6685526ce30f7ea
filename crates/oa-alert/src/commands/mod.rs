//! One file per command.

pub(crate) mod ack;
pub(crate) mod check;
pub(crate) mod check_config;
pub(crate) mod flush;
mod heartbeat;
pub(crate) mod list;
pub(crate) mod listen;
pub(crate) mod send;
pub(crate) mod show;
pub(crate) mod silence;
pub(crate) mod test;

use oa_core::app::config::Config;
use oa_wording::Wording;

use crate::channels::Channel;

/// Language and zone of the configuration.
fn wording(config: &Config) -> Wording {
    Wording {
        locale: config.locale,
        timezone: config.timezone,
    }
}

/// All channels that can be used; those that cannot are reported, and do not stop the others.
fn channels(config: &Config) -> (Vec<Channel>, bool) {
    let mut usable = Vec::new();
    let mut broken = false;
    for channel in &config.alert.channels {
        match Channel::resolve(config, channel) {
            Ok(channel) => usable.push(channel),
            Err(e) => {
                tracing::error!("channel {} cannot be used: {e}", channel.name);
                broken = true;
            }
        }
    }
    (usable, broken)
}
