//! One file a command.

pub mod check;
pub mod check_config;
pub mod flush;
mod heartbeat;
pub mod list;
pub mod send;
pub mod silence;
pub mod test;

use oa_core::config::Config;

use crate::channels::Channel;

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
