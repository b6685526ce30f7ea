//! A legacy SQLite database as the old service would have left it: the ORM's tables and indexes, naive local times, JSON as text,
//! NULL where the model says default, and duplicate natural keys in one table. For machines without the real one.

use std::path::Path;

use anyhow::{Context as _, ensure};
use chrono::NaiveDate;
use rusqlite::{Connection, params};
use serde_json::Value;

use crate::data::{Rng, VARIETIES};
use crate::sites::zhihui;

const TABLES: &str = "
CREATE TABLE commodities (id INTEGER NOT NULL, code VARCHAR(20) NOT NULL, name VARCHAR(50) NOT NULL, exchange VARCHAR(20),
  category VARCHAR(20), PRIMARY KEY (id), UNIQUE (code));
CREATE TABLE institutional_positions (id INTEGER NOT NULL, comm_code VARCHAR(20) NOT NULL, broker_name VARCHAR(50),
  net_position INTEGER, position_change INTEGER, win_rate FLOAT, record_date DATE NOT NULL, created_at DATETIME, PRIMARY KEY (id));
CREATE TABLE option_flows (id INTEGER NOT NULL, comm_code VARCHAR(20) NOT NULL, contract_code VARCHAR(100), net_flow FLOAT,
  volume FLOAT, change_ratio FLOAT, record_time DATETIME NOT NULL, created_at DATETIME, PRIMARY KEY (id));
CREATE TABLE research_reports (id INTEGER NOT NULL, report_id BIGINT, comm_code VARCHAR(20) NOT NULL, variety_name VARCHAR(50),
  institution_id INTEGER, institution_name VARCHAR(100), publish_date DATE NOT NULL, view_port VARCHAR(20), sentiment VARCHAR(10),
  trade_logic TEXT, related_data TEXT, risk_factor TEXT, report_link VARCHAR(500), created_at DATETIME, updated_at DATETIME,
  PRIMARY KEY (id));
CREATE TABLE market_full_view (id INTEGER NOT NULL, comm_code VARCHAR(20) NOT NULL, variety_name VARCHAR(50), record_date DATE NOT NULL,
  excessive_num INTEGER, excessive_ratio FLOAT, neutral_num INTEGER, neutral_ratio FLOAT, empty_num INTEGER, empty_ratio FLOAT,
  total_num INTEGER, more_port VARCHAR(20), more_rate FLOAT, main_sentiment VARCHAR(10), created_at DATETIME, updated_at DATETIME,
  PRIMARY KEY (id));
CREATE TABLE data_sources (id INTEGER NOT NULL, source_name VARCHAR(100) NOT NULL, source_type VARCHAR(50) NOT NULL,
  category VARCHAR(50), provider VARCHAR(100), url VARCHAR(500), method VARCHAR(20), update_frequency VARCHAR(50),
  cron_expression VARCHAR(100), description TEXT, data_fields JSON, dependencies JSON, is_active BOOLEAN, health_status VARCHAR(20),
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP, updated_at DATETIME DEFAULT CURRENT_TIMESTAMP, last_collect_time DATETIME,
  last_collect_status VARCHAR(20), last_record_count INTEGER, PRIMARY KEY (id), UNIQUE (source_name));
CREATE TABLE data_collection_logs (id INTEGER NOT NULL, source_id INTEGER NOT NULL REFERENCES data_sources (id),
  source_name VARCHAR(100) NOT NULL, collect_time DATETIME NOT NULL, status VARCHAR(20) NOT NULL, duration_seconds INTEGER,
  records_collected INTEGER, records_inserted INTEGER, records_updated INTEGER, records_failed INTEGER, data_quality_score FLOAT,
  missing_rate FLOAT, duplicate_rate FLOAT, error_message TEXT, error_traceback TEXT, extra_metadata JSON,
  created_at DATETIME DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (id));
CREATE INDEX ix_institutional_positions_comm_code ON institutional_positions (comm_code);
CREATE INDEX ix_option_flows_comm_code ON option_flows (comm_code);
CREATE INDEX ix_option_flows_record_time ON option_flows (record_time);
CREATE INDEX ix_research_reports_publish_date ON research_reports (publish_date);
CREATE INDEX ix_market_full_view_record_date ON market_full_view (record_date);
CREATE INDEX ix_data_sources_id ON data_sources (id);
CREATE INDEX ix_data_collection_logs_id ON data_collection_logs (id);
";

/// Makes one with five days of data.
///
/// # Errors
/// When the file exists or cannot be written.
pub fn make(path: &Path, seed: u64) -> anyhow::Result<()> {
    ensure!(!path.exists(), "it exists already");
    let mut db = Connection::open(path)?;
    db.execute_batch(TABLES)?;
    let tx = db.transaction()?;
    let mut rng = Rng::new(seed, &[10]);
    for (i, (code, name, sector)) in (0i64..).zip(VARIETIES) {
        tx.execute(
            "INSERT INTO commodities VALUES (?, ?, ?, ?, ?)",
            params![i + 1, code, name, "SHFE", (i % 3 > 0).then_some(sector)],
        )?;
    }
    let titles = [
        "智汇期讯-多空全景",
        "智汇期讯-研报淘金",
        "交易可查-每日蓝图",
    ];
    for (i, title) in (1i64..).zip(titles) {
        tx.execute(
            "INSERT INTO data_sources (id, source_name, source_type, data_fields, dependencies, is_active) VALUES (?, ?, 'spider', ?, '[]', 1)",
            params![i, title, r#"["variety_code", "品种"]"#],
        )?;
    }
    let first = NaiveDate::from_ymd_opt(2025, 11, 26).context("a day")?;
    for day in first.iter_days().take(5) {
        add_day(&tx, seed, day, &mut rng)?;
    }
    tx.commit()?;
    Ok(())
}

fn add_day(
    tx: &rusqlite::Transaction<'_>,
    seed: u64,
    day: NaiveDate,
    rng: &mut Rng,
) -> anyhow::Result<()> {
    let at = |hour: u32, rng: &mut Rng| {
        format!(
            "{day} {hour:02}:{:02}:{:02}.{:06}",
            rng.below(60),
            rng.below(60),
            rng.below(1_000_000)
        )
    };
    let real = |v: &Value| v.as_f64();
    for r in zhihui::full_view(seed, day) {
        let sentiment = match r["morePort"].as_str() {
            Some("偏多") => "bull",
            Some("偏空") => "bear",
            _ => "neutral",
        };
        let created = at(21, rng);
        tx.execute(
            "INSERT INTO market_full_view (comm_code, variety_name, record_date, excessive_num, excessive_ratio, neutral_num, neutral_ratio,
               empty_num, empty_ratio, total_num, more_port, more_rate, main_sentiment, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?14)",
            params![
                r["varietyCode"].as_str(), r["varietyName"].as_str(), day.to_string(), r["excessiveNum"].as_i64(), real(&r["excessiveRate"]),
                r["neutralNum"].as_i64(), real(&r["neutralRate"]), r["emptyNum"].as_i64(), real(&r["emptyRate"]), r["sum"].as_i64(),
                r["morePort"].as_str(), real(&r["moreRate"]), sentiment, created
            ],
        )?;
    }
    // One page, as the legacy crawler took it.
    for index in 0..zhihui::report_count(seed, day).min(100) {
        let r = zhihui::report(seed, day, index);
        let created = at(18, rng);
        tx.execute(
            "INSERT INTO research_reports (report_id, comm_code, variety_name, institution_id, institution_name, publish_date, view_port, sentiment,
               trade_logic, related_data, risk_factor, report_link, created_at, updated_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'neutral', ?8, ?9, ?10, ?11, ?12, ?12)",
            params![
                r["id"].as_i64(), r["varietyCode"].as_str(), r["variety"].as_str(), r["institutionId"].as_i64(), r["institutionName"].as_str(),
                day.to_string(), r["viewPort"].as_str(), r["tradeLogic"].as_str(), r["relatedData"].as_str(), r["riskFactor"].as_str(),
                r["link"].as_str(), created
            ],
        )?;
    }
    for (code, _, _) in VARIETIES.iter().take(10) {
        for broker in ["东方财富", "国泰君安", "东证期货"] {
            let times = if rng.below(12) == 0 { 2 } else { 1 };
            for _ in 0..times {
                tx.execute(
                    "INSERT INTO institutional_positions (comm_code, broker_name, net_position, position_change, win_rate, record_date, created_at)
                     VALUES (?, ?, ?, ?, ?, ?, ?)",
                    params![
                        code, broker, rng.below(200_000) as i64 - 100_000, rng.below(10_000) as i64 - 5_000,
                        (rng.below(3) > 0).then(|| rng.below(10_000) as f64 / 10_000.0), day.to_string(), at(19, rng)
                    ],
                )?;
            }
        }
    }
    for _ in 0..800 {
        let (code, _, _) = *rng.pick(&VARIETIES);
        let moment = at(9 + u32::try_from(rng.below(6))?, rng);
        tx.execute(
            "INSERT INTO option_flows (comm_code, contract_code, net_flow, volume, change_ratio, record_time, created_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
            params![code, format!("{}2601C{}", code.to_lowercase(), 1000 + rng.below(90) * 100), rng.decimal(-300, 300), rng.decimal(0, 500), rng.decimal(-20, 20), moment],
        )?;
    }
    for i in 0..48 {
        let failed = rng.below(10) == 0;
        tx.execute(
            "INSERT INTO data_collection_logs (source_id, source_name, collect_time, status, duration_seconds, records_collected, records_inserted,
               error_message, extra_metadata) VALUES (?, 'src', ?, ?, ?, ?, ?, ?, ?)",
            params![
                1 + i % 3, format!("{day} {:02}:{:02}:00", i / 2, i % 2 * 30), if failed { "failed" } else { "success" }, rng.below(60) as i64, if failed { 0 } else { 75 },
                if failed { 0 } else { 75 }, failed.then_some("Connection timeout"), (!failed).then_some(r#"{"attempt": 1}"#)
            ],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_troubles_of_the_real_one() {
        let path = std::env::temp_dir().join(format!("oa-sim-legacy-{}.db", std::process::id()));
        let _ = std::fs::remove_file(&path);
        make(&path, 1).unwrap();
        let db = Connection::open(&path).unwrap();
        let count = |query: &str| db.query_row(query, [], |r| r.get::<_, i64>(0)).unwrap();
        assert!(count("SELECT count(*) FROM option_flows") == 4000);
        assert!(
            count(
                "SELECT count(*) FROM (SELECT 1 FROM institutional_positions GROUP BY comm_code, broker_name, record_date HAVING count(*) > 1)"
            ) > 0
        );
        assert!(make(&path, 1).unwrap_err().to_string().contains("exists"));
        std::fs::remove_file(&path).unwrap();
    }
}
