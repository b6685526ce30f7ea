//! How far the work has come, for whoever looks: the phase, the table that was begun last, and rows. There is one work a process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

static DONE: AtomicU64 = AtomicU64::new(0);
static TOTAL: AtomicU64 = AtomicU64::new(0);
static PHASE: Mutex<Option<Phase>> = Mutex::new(None);

#[derive(Debug, Clone)]
struct Phase {
    text: String,
    table: String,
    began: Instant,
}

fn phase() -> std::sync::MutexGuard<'static, Option<Phase>> {
    PHASE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A phase of the work begins; with 0 it is unknown how many rows it has.
pub(crate) fn begin(text: impl Into<String>, rows: u64) {
    DONE.store(0, Ordering::Relaxed);
    TOTAL.store(rows, Ordering::Relaxed);
    *phase() = Some(Phase {
        text: text.into(),
        table: String::new(),
        began: Instant::now(),
    });
}

pub(crate) fn table(name: &str) {
    if let Some(phase) = phase().as_mut() {
        name.clone_into(&mut phase.table);
    }
}

/// How many rows are counted at once: threads that share a counter slow each other down.
const STEP: u64 = 1024;

/// To be called after each row with the number of rows that the caller has seen.
#[inline]
pub(crate) fn rows(seen: u64) {
    if seen.is_multiple_of(STEP) {
        DONE.fetch_add(STEP, Ordering::Relaxed);
    }
}

/// One line: `loading quotes: 120000 of 1400000 rows, 350000 a second, 4 s left`.
pub(crate) fn line() -> String {
    let Some(Phase { text, table, began }) = phase().clone() else {
        return String::new();
    };
    let (done, total) = (DONE.load(Ordering::Relaxed), TOTAL.load(Ordering::Relaxed));
    let mut line = text;
    if !table.is_empty() {
        line.push(' ');
        line.push_str(&table);
    }
    if done == 0 {
        return line;
    }
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    let rate = done as f64 / seconds;
    if total < done {
        return format!("{line}: {done} rows, {rate:.0} a second");
    }
    let left = (total - done) as f64 / rate;
    format!("{line}: {done} of {total} rows, {rate:.0} a second, {left:.0} s left")
}
