//! `oa-alert show`: one alert as people got it, and each channel's answer.

use chrono::{DateTime, Utc};
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::journal::incidents;
use oa_core::pg::describe;
use serde_json::{Value, json};

use super::silence::connect;
use super::wording;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The id of an alert, or its beginning (oa-alert list); or the fingerprint of an incident, for its newest alert (oa-alert list --open)
    #[arg(value_name = "ID|FINGERPRINT")]
    of: String,
    /// How it is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Fewer characters of an id could be of too many.
const SHORTEST: usize = 8;

/// Prints one alert. 1 when there is none of that name, or more than one.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let by_id =
        args.of.len() >= SHORTEST && args.of.chars().all(|c| c.is_ascii_hexdigit() || c == '-');
    let rows = connect(config)?
        .query(
            "SELECT a.id, a.created_at, a.severity, a.kind, a.task, a.rule, a.fingerprint, a.run_id, a.event, a.title, a.body,
                    coalesce((SELECT jsonb_agg(jsonb_build_object('channel', d.channel, 'state', d.state, 'tries', d.tries, 'error', d.last_error) ORDER BY d.channel)
                              FROM oa.deliveries d WHERE d.alert_id = a.id), '[]'),
                    i.opened_at, i.resolved_at, i.acknowledged_by, i.note, a.silenced_by, a.follows
             FROM oa.alerts a LEFT JOIN oa.incidents i ON i.fingerprint = a.fingerprint
             WHERE a.id = ANY(ARRAY(SELECT id FROM oa.alerts WHERE $2 AND id::text LIKE $1 || '%' LIMIT 2))
                OR a.id = (SELECT id FROM oa.alerts WHERE fingerprint = $3 ORDER BY seq DESC LIMIT 1)",
            // Names of channels, machines and repositories may have capital letters.
            &[&args.of.to_lowercase(), &by_id, &args.of],
        )
        .map_err(|e| anyhow::anyhow!("could not read the alert: {}", describe(&e)))?;
    let row = match rows.as_slice() {
        [row] => row,
        [] => {
            return Err(anyhow::anyhow!(
                "there is no alert {}; oa-alert list --all shows those there are",
                args.of
            )
            .into());
        }
        _ => {
            return Err(anyhow::anyhow!(
                "more than one alert begins with {}; give more of its id",
                args.of
            )
            .into());
        }
    };
    let wording = wording(config);
    let alert = wording.text(&incidents::event_of(row, 8, row.get(5), row.get(6)));
    let at = |i: usize| {
        row.get::<_, Option<DateTime<Utc>>>(i)
            .map(|at| wording.at(at))
    };
    let deliveries: Value = row.get(11);
    let shown = json!({
        "id": row.get::<_, uuid::Uuid>(0), "time": wording.at(row.get(1)), "severity": row.get::<_, String>(2), "kind": row.get::<_, String>(3),
        "task": row.get::<_, Option<String>>(4), "rule": row.get::<_, String>(5), "fingerprint": row.get::<_, String>(6),
        "run": row.get::<_, Option<uuid::Uuid>>(7), "title": alert.title, "body": alert.body, "deliveries": deliveries,
        "opened_at": at(12), "resolved_at": at(13), "acknowledged_by": row.get::<_, Option<String>>(14), "note": row.get::<_, Option<String>>(15),
        "silence": row.get::<_, Option<i64>>(16), "follows": row.get::<_, Option<String>>(17),
    });
    if args.format != Format::Table {
        let mut listing = Listing::new(&[("id", "ID")]);
        listing.push(shown);
        listing.print(args.format).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let mut text = format!("{}\n", alert.body.trim_end());
    for key in [
        "id",
        "time",
        "severity",
        "kind",
        "rule",
        "fingerprint",
        "task",
        "run",
        "opened_at",
        "resolved_at",
        "acknowledged_by",
        "note",
        "silence",
        "follows",
    ] {
        match &shown[key] {
            Value::Null => {}
            Value::String(said) if said.is_empty() => {}
            Value::String(said) => text.push_str(&format!("\n{key}: {said}")),
            other => text.push_str(&format!("\n{key}: {other}")),
        }
    }
    for d in shown["deliveries"].as_array().into_iter().flatten() {
        let said = |key: &str| d[key].as_str().unwrap_or_default().to_owned();
        text.push_str(&format!(
            "\n{}: {} (tries: {})",
            said("channel"),
            said("state"),
            d["tries"]
        ));
        if let Some(error) = d["error"].as_str() {
            text.push_str(&format!(": {error}"));
        }
    }
    text.push('\n');
    cli::print(&text).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
