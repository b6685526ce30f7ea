//! `/metrics`, in Prometheus' text format. Totals come from `oa.run_totals`, which only grows: dropping a month of the run log, or
//! starting this program again, takes nothing back.

use std::fmt::Write as _;
use std::sync::Arc;

use chrono::{DateTime, Utc};

use crate::app::App;
use crate::app::answer::Answer;
use crate::queries::days::{self, Newest};
use crate::queries::health::TaskHealth;
use crate::queries::totals::{self, Total};
use crate::queries::watch;
use crate::snapshot::Snapshot;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Default)]
struct Page(String);

impl Page {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        for (i, (label, text)) in labels.iter().enumerate() {
            self.0.push(if i == 0 { '{' } else { ',' });
            let _ = write!(self.0, "{label}=\"");
            for c in text.chars() {
                match c {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric with one sample a task, of those that have a value.
    fn of_tasks(
        &mut self,
        name: &str,
        help: &str,
        tasks: &[TaskHealth],
        value: impl Fn(&TaskHealth) -> Option<f64>,
    ) {
        self.metric(name, "gauge", help);
        for task in tasks {
            if let Some(value) = value(task) {
                self.sample(name, &[("task", &task.name)], value);
            }
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: Option<f64>) {
        if let Some(value) = value {
            self.metric(name, kind, help);
            self.sample(name, &[], value);
        }
    }
}

/// Seconds since 1970.
fn seconds(at: DateTime<Utc>) -> f64 {
    at.timestamp_millis() as f64 / 1000.0
}

/// While PostgreSQL is unreachable the values are those of the last snapshot, and `oa_database_up` is 0.
pub(crate) async fn answer(app: &Arc<App>) -> Answer {
    let latest = app.snapshots.latest().await;
    let is_stale = latest.is_stale();
    let fresh = if is_stale {
        None
    } else {
        app.ask(|tx| totals::all(tx)).await.ok()
    };
    let totals = app.newest_totals(fresh);
    let days = if is_stale {
        Vec::new()
    } else {
        let today = Utc::now().with_timezone(&app.config.timezone).date_naive();
        let config = Arc::clone(&app.config);
        let asked = app.ask(move |tx| days::newest(tx, &config, today)).await;
        asked.unwrap_or_default()
    };
    let mut page = Page::default();
    page.one(
        "oa_database_up",
        "gauge",
        "Whether PostgreSQL answers.",
        Some(if is_stale { 0.0 } else { 1.0 }),
    );
    if let Some(snapshot) = &latest.snapshot {
        of_snapshot(&mut page, snapshot);
    }
    of_days(&mut page, &days);
    of_totals(&mut page, &totals);
    of_program(&mut page, app);
    Answer::text(CONTENT_TYPE, page.0)
}

fn of_program(page: &mut Page, app: &App) {
    page.metric("oa_report_info", "gauge", "The program that answers.");
    page.sample(
        "oa_report_info",
        &[("version", env!("CARGO_PKG_VERSION"))],
        1.0,
    );
    page.one(
        "oa_report_start_timestamp_seconds",
        "gauge",
        "When the program that answers was started.",
        Some(seconds(app.started_at)),
    );
    page.metric(
        "oa_report_http_responses_total",
        "counter",
        "Answers given since the start, by status.",
    );
    for (status, count) in app.answers_by_status() {
        page.sample(
            "oa_report_http_responses_total",
            &[("code", &status.to_string())],
            count as f64,
        );
    }
}

fn of_snapshot(page: &mut Page, snapshot: &Snapshot) {
    let tasks = &snapshot.tasks;
    page.one(
        "oa_snapshot_timestamp_seconds",
        "gauge",
        "When the snapshot was taken that these values are of.",
        Some(seconds(snapshot.taken_at)),
    );
    page.of_tasks(
        "oa_task_health",
        "How a task was over the last 24 hours: 0 healthy, 1 warning, 2 critical.",
        tasks,
        |t| Some(f64::from(t.health as u8)),
    );
    page.metric(
        "oa_task_state",
        "gauge",
        "The one state of a task now: 1 for the state that it is in.",
    );
    for task in tasks {
        let labels = [("task", task.name.as_str()), ("state", task.state.as_str())];
        page.sample("oa_task_state", &labels, 1.0);
    }
    page.of_tasks(
        "oa_task_severity",
        "How bad that is: 0 healthy, 1 warning, 2 critical.",
        tasks,
        |t| Some(f64::from(t.severity as u8)),
    );
    page.of_tasks(
        "oa_task_last_run_timestamp_seconds",
        "When a task started last.",
        tasks,
        |t| t.last_run.map(seconds),
    );
    page.of_tasks(
        "oa_task_last_success_timestamp_seconds",
        "When a task succeeded last.",
        tasks,
        |t| t.last_success.map(seconds),
    );
    page.of_tasks(
        "oa_task_last_run_duration_seconds",
        "How long a task's last run took.",
        tasks,
        |t| t.last_duration,
    );
    page.of_tasks(
        "oa_task_next_due_timestamp_seconds",
        "When a task is due next, or was when it is late.",
        tasks,
        |t| t.next_due.map(seconds),
    );
    page.of_tasks(
        "oa_task_lateness_seconds",
        "How long a task has been due without a start, beyond the grace; 0 when it is on time.",
        tasks,
        |t| {
            t.schedule
                .as_ref()
                .map(|_| t.late_seconds.unwrap_or(0) as f64)
        },
    );
    page.of_tasks(
        "oa_task_consecutive_failures",
        "Failed runs of a task since its last success.",
        tasks,
        |t| Some(f64::from(t.consecutive_failures)),
    );
    page.of_tasks("oa_task_running", "Whether a task runs now.", tasks, |t| {
        Some(if t.running { 1.0 } else { 0.0 })
    });
    page.metric("oa_alerts_open", "gauge", "Open incidents, by severity.");
    for severity in ["critical", "warning", "info"] {
        let open = snapshot
            .incidents
            .iter()
            .filter(|t| t.severity == severity)
            .count();
        page.sample("oa_alerts_open", &[("severity", severity)], open as f64);
    }
    let oldest = snapshot.incidents.iter().map(|t| t.since).min();
    page.one(
        "oa_alerts_open_since_timestamp_seconds",
        "gauge",
        "Since when the oldest open incident is open.",
        oldest.map(seconds),
    );
    page.one(
        "oa_alerts_unsent",
        "gauge",
        "Alerts that not every channel has yet.",
        Some(snapshot.waiting.alerts as f64),
    );
    page.one(
        "oa_alerts_unsent_since_timestamp_seconds",
        "gauge",
        "Since when the oldest of them waits.",
        snapshot.waiting.since.map(seconds),
    );
    for (name, help, what) in [
        (
            "oa_check_timestamp_seconds",
            "When oa-alert check was last started.",
            "check",
        ),
        (
            "oa_due_timestamp_seconds",
            "When oa-crawl run --due was last started.",
            "due",
        ),
    ] {
        let last = watch::newest(&snapshot.watches, what);
        page.one(name, "gauge", help, last.map(|w| seconds(w.at)));
    }
    of_backups(page, snapshot);
}

fn of_backups(page: &mut Page, snapshot: &Snapshot) {
    let backups = &snapshot.backups;
    page.one(
        "oa_backup_health",
        "gauge",
        "How it is with the backups: 0 ok, 1 warning, 2 error.",
        Some(f64::from(backups.status as u8)),
    );
    page.one(
        "oa_backups",
        "gauge",
        "Backups in the repositories.",
        Some(backups.total_backups as f64),
    );
    page.one(
        "oa_backup_last_full_timestamp_seconds",
        "gauge",
        "When the newest full backup ended.",
        backups.latest_full.as_ref().map(|b| seconds(b.time)),
    );
    page.one(
        "oa_backup_restorable_timestamp_seconds",
        "gauge",
        "The last point in time that can be restored.",
        backups.restorable_to.map(seconds),
    );
    page.one(
        "oa_backup_verified_timestamp_seconds",
        "gauge",
        "When a backup was last read back, every byte, without a fault.",
        backups.last_verified.map(seconds),
    );
    if let Some(drill) = &backups.last_drill {
        page.one(
            "oa_drill_timestamp_seconds",
            "gauge",
            "When the last rehearsed restore began.",
            Some(seconds(drill.started_at)),
        );
        page.one(
            "oa_drill_ok",
            "gauge",
            "Whether the last rehearsed restore was right.",
            Some(if drill.ok { 1.0 } else { 0.0 }),
        );
        page.one(
            "oa_drill_rto_seconds",
            "gauge",
            "How long the last rehearsed restore took until the server answered.",
            drill.rto_seconds,
        );
        page.one(
            "oa_drill_rpo_seconds",
            "gauge",
            "What would have been lost when the last rehearsed restore began.",
            drill.rpo_seconds,
        );
    }
    if let Some(size) = &backups.repository {
        page.one(
            "oa_backup_repository_size_bytes",
            "gauge",
            "Size of the repository that was measured last.",
            Some(size.size_bytes as f64),
        );
        page.one(
            "oa_backup_repository_free_bytes",
            "gauge",
            "Bytes left on its disk.",
            size.free_bytes.map(|b| b as f64),
        );
    }
}

fn of_days(page: &mut Page, days: &[Newest]) {
    page.metric(
        "oa_day_state",
        "gauge",
        "The state of a source's newest day whose time is over: 1 for the state that it is in.",
    );
    for day in days {
        let labels = [("task", day.task.as_str()), ("state", day.state.as_str())];
        page.sample("oa_day_state", &labels, 1.0);
    }
    page.metric(
        "oa_day_timestamp_seconds",
        "gauge",
        "When that day began (UTC).",
    );
    for day in days {
        let began = day.day.and_time(chrono::NaiveTime::MIN).and_utc();
        let labels = [("task", day.task.as_str())];
        page.sample("oa_day_timestamp_seconds", &labels, seconds(began));
    }
    page.metric(
        "oa_day_holes",
        "gauge",
        "Days of the last two weeks that a source owes and that are not complete.",
    );
    for day in days {
        let labels = [("task", day.task.as_str())];
        page.sample("oa_day_holes", &labels, day.holes as f64);
    }
}

fn of_totals(page: &mut Page, totals: &[Total]) {
    page.metric(
        "oa_runs_total",
        "counter",
        "Outcomes recorded, by task and status.",
    );
    for t in totals {
        page.sample(
            "oa_runs_total",
            &[("task", &t.task), ("status", &t.status)],
            t.runs as f64,
        );
    }
    page.metric(
        "oa_run_duration_seconds",
        "summary",
        "Durations of runs that were not skipped.",
    );
    for of_task in totals.chunk_by(|a, b| a.task == b.task) {
        let ran = || of_task.iter().filter(|t| t.status != "skipped");
        let labels = [("task", of_task[0].task.as_str())];
        page.sample(
            "oa_run_duration_seconds_sum",
            &labels,
            ran().map(|t| t.seconds).sum(),
        );
        page.sample(
            "oa_run_duration_seconds_count",
            &labels,
            ran().map(|t| t.runs).sum::<u64>() as f64,
        );
    }
    page.metric(
        "oa_records_total",
        "counter",
        "Records by what became of them.",
    );
    for of_task in totals.chunk_by(|a, b| a.task == b.task) {
        let sum = |of: fn(&Total) -> u64| of_task.iter().map(of).sum::<u64>() as f64;
        for (result, value) in [
            ("inserted", sum(|t| t.inserted)),
            ("updated", sum(|t| t.updated)),
            ("unchanged", sum(|t| t.unchanged)),
            ("rejected", sum(|t| t.rejected)),
        ] {
            page.sample(
                "oa_records_total",
                &[("task", &of_task[0].task), ("result", result)],
                value,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_numbers_are_whole_where_they_are() {
        let mut page = Page::default();
        page.sample("a", &[("task", "x\"y\\z\n多空")], 3.0);
        page.sample("b", &[], 0.25);
        assert_eq!(page.0, "a{task=\"x\\\"y\\\\z\\n多空\"} 3\nb 0.25\n");
    }
}
