//! `oa-alert list`: alerts and who has them; open incidents and who has acknowledged them.

use chrono::{DateTime, Utc};
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::incidents;
use oa_core::pg::{self, Settings, schema};
use postgres::Client;
use serde_json::{Value, json};

use super::wording;
use crate::PROGRAM;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also alerts that all channels have
    #[arg(long)]
    all: bool,
    /// Open incidents, one line each
    #[arg(long, conflicts_with = "all")]
    open: bool,
    /// Show at most this many, newest first
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let mut client = pg::connect(&Settings::from_config(config, PROGRAM)?)?;
    schema::check(&mut client)?;
    let listing = match args.open {
        true => open(&mut client, config, args.limit),
        false => alerts(&mut client, config, args),
    };
    let listing =
        listing.map_err(|e| anyhow::anyhow!("could not read the alerts: {}", pg::describe(&e)))?;
    listing.print(args.format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Alerts that wait, or the newest of all of them.
fn alerts(client: &mut Client, config: &Config, args: &Args) -> Result<Listing, postgres::Error> {
    let wording = wording(config);
    let rows = client.query(
        "SELECT a.id, a.created_at, a.severity, a.kind, a.task, a.rule, a.fingerprint, a.settled_at IS NOT NULL,
                coalesce(jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', d.last_error)
                                   ORDER BY d.channel) FILTER (WHERE d.channel IS NOT NULL), '[]'), a.event, a.title, a.body, a.follows, a.silenced_by
         FROM oa.alerts a LEFT JOIN oa.deliveries d ON d.alert_id = a.id
         WHERE $1 OR a.settled_at IS NULL GROUP BY a.id ORDER BY a.seq DESC LIMIT $2",
        &[&args.all, &args.limit],
    )?;
    let mut listing = Listing::new(&[
        ("time", "TIME"),
        ("severity", "SEVERITY"),
        ("kind", "KIND"),
        ("title", "ALERT"),
        ("delivered", "DELIVERED"),
        ("id", "ID"),
    ]);
    for row in rows {
        let deliveries: Value = row.get(8);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let shown: Vec<String> = deliveries
            .as_array()
            .into_iter()
            .flatten()
            .map(|d| format!("{}: {}", text(&d["channel"]), text(&d["state"])))
            .collect();
        let alert = wording.text(&incidents::event_of(&row, 9, row.get(5), row.get(6)));
        let follows: Option<String> = row.get(12);
        let settled: bool = row.get(7);
        let nobody = match (row.get::<_, Option<i64>>(13), &follows) {
            (Some(silence), _) => format!("nobody, silence {silence}"),
            (None, Some(cause)) => format!("nobody, it follows from {cause}"),
            (None, None) if settled => "nobody, it was for no channel".to_owned(),
            (None, None) => "nobody yet".to_owned(),
        };
        listing.push(json!({
            "id": row.get::<_, uuid::Uuid>(0),
            "time": wording.at(row.get(1)),
            "severity": row.get::<_, String>(2),
            "kind": row.get::<_, String>(3),
            "task": row.get::<_, Option<String>>(4),
            "rule": row.get::<_, String>(5),
            "fingerprint": row.get::<_, String>(6),
            "title": alert.title,
            "body": alert.body,
            "settled": settled,
            "delivered": if shown.is_empty() { nobody } else { shown.join(", ") },
            "follows": follows,
            "deliveries": deliveries,
        }));
    }
    Ok(listing)
}

/// Open incidents, the newest first.
fn open(client: &mut Client, config: &Config, limit: i64) -> Result<Listing, postgres::Error> {
    let wording = wording(config);
    let rows = client.query(
        "SELECT i.fingerprint, i.severity, i.notified_at, i.acknowledged_by, i.note, a.silenced_by IS NOT NULL, i.opened_at, i.rule, a.event, a.title, a.body
         FROM oa.incidents i LEFT JOIN oa.alerts a ON a.id = i.last_alert
         WHERE i.resolved_at IS NULL ORDER BY i.opened_at DESC, i.fingerprint LIMIT $1",
        &[&limit],
    )?;
    let mut listing = Listing::new(&[
        ("fingerprint", "FINGERPRINT"),
        ("severity", "SEVERITY"),
        ("title", "INCIDENT"),
        ("since", "SINCE"),
        ("acknowledged_by", "ACKNOWLEDGED BY"),
    ]);
    for row in rows {
        let fingerprint: String = row.get(0);
        let event = incidents::event_of(&row, 8, row.get(7), &fingerprint);
        listing.push(json!({
            "title": wording.text(&event).title,
            "fingerprint": fingerprint,
            "severity": row.get::<_, String>(1),
            "since": wording.at(row.get::<_, DateTime<Utc>>(6)),
            "notified": wording.at(row.get(2)),
            "acknowledged_by": row.get::<_, Option<String>>(3),
            "note": row.get::<_, Option<String>>(4),
            "silenced": row.get::<_, bool>(5),
        }));
    }
    Ok(listing)
}
