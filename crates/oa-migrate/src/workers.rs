//! A few workers that take items of work in order, each with a connection of its own.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, anyhow};
use oa_core::base::threads;

/// Does `count` items of work with at most `workers` at a time; the results are in the order of the items. After the first
/// error no further item is begun.
pub(crate) fn each<C, T: Send>(
    workers: usize,
    count: usize,
    connect: impl Fn() -> Result<C> + Sync,
    work: impl Fn(&mut C, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, T)>> = Mutex::new(Vec::with_capacity(count));
    let failed: Mutex<Option<anyhow::Error>> = Mutex::new(None);
    let fail = |error| {
        next.store(count, Ordering::Relaxed);
        if let Ok(mut slot) = failed.lock() {
            slot.get_or_insert(error);
        }
    };
    threads::several("work", workers.clamp(1, count.max(1)), || {
        let mut connection = match connect() {
            Ok(connection) => connection,
            Err(e) => return fail(e),
        };
        loop {
            let i = next.fetch_add(1, Ordering::Relaxed);
            if i >= count {
                return;
            }
            match work(&mut connection, i) {
                Ok(result) => {
                    if let Ok(mut results) = results.lock() {
                        results.push((i, result));
                    }
                }
                Err(e) => return fail(e),
            }
        }
    });
    if let Some(error) = failed.into_inner().unwrap_or_default() {
        return Err(error);
    }
    let mut results = results.into_inner().unwrap_or_default();
    if results.len() != count {
        return Err(anyhow!(
            "a worker ended without a result; please report this"
        ));
    }
    results.sort_by_key(|(i, _)| *i);
    Ok(results.into_iter().map(|(_, result)| result).collect())
}
