//! Whether somebody takes what is pressed on the messages of application robots.

use oa_core::app::config::Config;
use oa_core::base::text::error_text;
use oa_core::model::event::Finding;
use postgres::Client;

use crate::channels::Channel;

/// A restart takes seconds; another machine takes over within a minute.
const GRACE: &str = "3 minutes";

pub(super) fn find(client: &mut Client, config: &Config) -> Result<Vec<Finding>, postgres::Error> {
    // Without a key there is nothing to press.
    if !matches!(config.link_key(), Ok(Some(_))) {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    for channel in config
        .alert
        .channels
        .iter()
        .filter(|c| c.kind.has_buttons())
    {
        // One that cannot be used is reported by whoever sends.
        let Ok(resolved) = Channel::resolve(config, channel) else {
            continue;
        };
        let row = client.query_opt(
            &format!(
                "SELECT connected_at, coalesce(last_error, ''), coalesce(connected_at BETWEEN now() - interval '{GRACE}' AND now() + interval '{GRACE}', false) FROM oa.listeners WHERE robot = $1"
            ),
            &[&resolved.robot()],
        )?;
        let (last_at, error, listens) = row.map_or_else(
            || (None, String::new(), false),
            |row| (row.get(0), row.get(1), row.get(2)),
        );
        if !listens {
            found.push(Finding::ListenerDown {
                channel: channel.name.clone(),
                last_at,
                error: error_text(&error),
            });
        }
    }
    Ok(found)
}

/// Channels of which another machine says whether somebody listens.
pub(super) fn of_others(
    client: &mut Client,
    config: &Config,
) -> Result<Vec<String>, postgres::Error> {
    let own: Vec<&str> = config
        .alert
        .channels
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    let rows = client.query(
        "SELECT DISTINCT name FROM oa.channel_routes WHERE name <> ALL($1) AND seen_at > now() - interval '3 days'",
        &[&own],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
