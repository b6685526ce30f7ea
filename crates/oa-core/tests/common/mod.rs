//! What the tests of the library share.

use std::time::Duration;

use chrono_tz::Asia::Shanghai;
use oa_core::journal::incidents::Policy;
use oa_core::model::run::{Batch, RunStart, Trigger};
use postgres::Client;
use postgres::types::FromSql;
use serde_json::Value;

/// How incidents are opened where a test says nothing else.
pub fn policy() -> Policy {
    Policy {
        timezone: Shanghai,
        keep_revisions: true,
        repeat: Duration::from_secs(3600),
    }
}

/// A run of this task that begins now.
pub fn start(task: &str) -> RunStart {
    RunStart::now(
        "oa-test",
        "0",
        task,
        "标题",
        Trigger::Manual,
        Duration::from_secs(60),
    )
}

pub fn batch(rows: Vec<Vec<Value>>) -> Batch {
    Batch {
        schema: "public".into(),
        table: "market_full_view".into(),
        columns: ["comm_code", "record_date", "total_num"]
            .map(str::to_owned)
            .to_vec(),
        key: vec!["comm_code".into(), "record_date".into()],
        rows: rows.into(),
        collected_at: "2025-12-01T16:30:00Z".parse().unwrap(),
        timezone: "Asia/Shanghai".into(),
        newest_by: None,
    }
}

/// The one value that a query gives.
pub fn one<T: for<'a> FromSql<'a>>(client: &mut Client, query: &str) -> T {
    client.query_one(query, &[]).unwrap().get(0)
}
