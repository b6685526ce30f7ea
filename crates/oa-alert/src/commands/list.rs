//! `oa-alert list`: alerts and who has them.

use oa_core::cli::Failure;
use oa_core::config::Config;
use oa_core::exit;
use oa_core::output::{Format, Listing};
use oa_core::pg::{self, Settings, schema};
use serde_json::{Value, json};

use crate::PROGRAM;

/// Prints alerts that wait, or with `all` the newest `limit` of all of them.
///
/// # Errors
/// When PostgreSQL cannot be reached or asked.
pub fn run(config: &Config, all: bool, limit: i64, format: Format) -> Result<u8, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    let rows = client
        .query(
            "SELECT a.id, a.created_at, a.severity, a.kind, a.task, a.title, a.body, a.settled_at IS NOT NULL,
                    coalesce(jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', d.last_error)
                                       ORDER BY d.channel) FILTER (WHERE d.channel IS NOT NULL), '[]')
             FROM oa.alerts a LEFT JOIN oa.deliveries d ON d.alert_id = a.id
             WHERE $1 OR a.settled_at IS NULL GROUP BY a.id ORDER BY a.seq DESC LIMIT $2",
            &[&all, &limit],
        )
        .map_err(|e| anyhow::anyhow!("could not read the alerts: {}", pg::describe(&e)))?;
    let mut listing = Listing::new(&[
        ("time", "TIME"),
        ("severity", "SEVERITY"),
        ("kind", "KIND"),
        ("title", "ALERT"),
        ("delivered", "DELIVERED"),
    ]);
    for row in rows {
        let at: chrono::DateTime<chrono::Utc> = row.get(1);
        let deliveries: Value = row.get(8);
        let shown: Vec<String> = deliveries
            .as_array()
            .into_iter()
            .flatten()
            .map(|d| {
                format!(
                    "{}: {}",
                    d["channel"].as_str().unwrap_or_default(),
                    d["state"].as_str().unwrap_or_default()
                )
            })
            .collect();
        listing.push(json!({
            "id": row.get::<_, uuid::Uuid>(0),
            "time": at.with_timezone(&config.timezone).format("%Y-%m-%d %H:%M:%S").to_string(),
            "severity": row.get::<_, String>(2),
            "kind": row.get::<_, String>(3),
            "task": row.get::<_, Option<String>>(4),
            "title": row.get::<_, String>(5),
            "body": row.get::<_, String>(6),
            "settled": row.get::<_, bool>(7),
            "delivered": if shown.is_empty() { "nobody yet".to_owned() } else { shown.join(", ") },
            "deliveries": deliveries,
        }));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Prints the troubles that are not over: the last alert of each, since when, and who has taken it on.
///
/// # Errors
/// When PostgreSQL cannot be reached or asked.
pub fn open(config: &Config, limit: i64, format: Format) -> Result<u8, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    let rows = client
        .query(
            "SELECT fingerprint, severity, title, told_at, taken_on_by, note, silenced_by IS NOT NULL, since FROM oa.troubles ORDER BY since DESC LIMIT $1",
            &[&limit],
        )
        .map_err(|e| anyhow::anyhow!("could not read the alerts: {}", pg::describe(&e)))?;
    let mut listing = Listing::new(&[
        ("fingerprint", "FINGERPRINT"),
        ("severity", "SEVERITY"),
        ("title", "TROUBLE"),
        ("since", "SINCE"),
        ("taken_on_by", "TAKEN ON BY"),
    ]);
    for row in rows {
        let local = |moment: chrono::DateTime<chrono::Utc>| {
            let local = moment.with_timezone(&config.timezone);
            local.format("%Y-%m-%d %H:%M:%S").to_string()
        };
        listing.push(json!({
            "fingerprint": row.get::<_, String>(0), "severity": row.get::<_, String>(1), "title": row.get::<_, String>(2),
            "since": local(row.get(7)), "told": local(row.get(3)),
            "taken_on_by": row.get::<_, Option<String>>(4), "note": row.get::<_, Option<String>>(5), "silenced": row.get::<_, bool>(6),
        }));
    }
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
