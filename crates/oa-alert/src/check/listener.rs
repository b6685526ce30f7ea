//! Whether a listener receives the buttons that people press on messages of application robots.

use oa_core::app::config::Config;
use oa_core::base::text::error_text;
use oa_core::model::event::Finding;
use postgres::Client;

use crate::channels::Channel;

/// A restart takes seconds; another machine takes over within a minute.
const GRACE: &str = "3 minutes";

/// What is wrong, and the channels of which this machine cannot say whether somebody listens: those that only others can use, and all
/// just after PostgreSQL was away, when whoever listens has not said so again yet.
pub(super) fn find(
    client: &mut Client,
    host: &str,
    config: &Config,
) -> Result<(Vec<Finding>, Vec<String>), postgres::Error> {
    // Without a key there is nothing to press.
    let has_key = matches!(config.link_key(), Ok(Some(_)));
    let channels = config.alert.channels.iter();
    let (mut found, mut unsure) = (Vec::new(), Vec::new());
    let mut judged: Vec<&str> = Vec::new();
    for channel in channels.filter(|c| has_key && c.kind.has_buttons()) {
        // One that cannot be used is reported by whoever sends.
        let Ok(resolved) = Channel::resolve(config, channel) else {
            continue;
        };
        let row = client.query_opt(
            &format!(
                "SELECT connected_at, coalesce(last_error, ''),
                        coalesce(connected_at BETWEEN now() - interval '{GRACE}' AND now() + interval '{GRACE}', false),
                        connected_at IS NOT NULL AND (pg_postmaster_start_time() > now() - interval '{GRACE}'
                          OR EXISTS (SELECT FROM oa.incidents WHERE rule = 'database_unreachable' AND resolved_at > now() - interval '{GRACE}'))
                 FROM oa.listeners WHERE robot = $1"
            ),
            &[&resolved.robot()],
        )?;
        let (last_at, error, listens, was_away) = row.map_or_else(
            || (None, String::new(), false, false),
            |row| (row.get(0), row.get(1), row.get(2), row.get(3)),
        );
        if was_away && !listens {
            unsure.push(channel.name.clone());
            continue;
        }
        judged.push(&channel.name);
        if !listens {
            found.push(Finding::ListenerDown {
                channel: channel.name.clone(),
                last_at,
                error: error_text(&error),
            });
        }
    }
    let others = client.query(
        "SELECT DISTINCT name FROM oa.channel_routes WHERE name <> ALL($1) AND host <> $2 AND seen_at > now() - interval '3 days'",
        &[&judged, &host],
    )?;
    unsure.extend(others.iter().map(|row| row.get::<_, String>(0)));
    Ok((found, unsure))
}
