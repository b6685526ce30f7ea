//! Politeness: how many requests one host gets at the same time, and how far apart.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use oa_core::base::supervise::StopSignal;

/// How often a waiting thread looks for a signal to stop.
const POLL: Duration = Duration::from_millis(100);

/// The requests of one process to all hosts.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<GateState>);

#[derive(Debug)]
struct GateState {
    parallel: usize,
    hosts: Mutex<HashMap<String, Host>>,
    permit_returned: Condvar,
}

#[derive(Debug)]
struct Host {
    running: usize,
    next: Instant,
}

/// The permission to make one request, returned when it is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Gate,
    host: String,
}

impl Gate {
    /// Lets `parallel` requests (at least one) to one host run at the same time.
    pub(crate) fn new(parallel: usize) -> Self {
        Self(Arc::new(GateState {
            parallel: parallel.max(1),
            hosts: Mutex::default(),
            permit_returned: Condvar::new(),
        }))
    }

    /// Waits for its turn with the host of `url`, at least `pause` after the request before. `None` at the deadline, or when this
    /// process is to stop.
    pub(crate) fn enter(&self, url: &str, pause: Duration, deadline: Instant) -> Option<Permit> {
        let host = host_of(url);
        let mut hosts = self.hosts();
        loop {
            let now = Instant::now();
            let entry = hosts.entry(host.clone()).or_insert(Host {
                running: 0,
                next: now,
            });
            let next = entry.next;
            if entry.running < self.0.parallel && now >= next {
                entry.running += 1;
                entry.next = now + pause;
                let gate = self.clone();
                return Some(Permit { gate, host });
            }
            if now >= deadline || StopSignal.requested() {
                return None;
            }
            let until = if next > now { next - now } else { POLL };
            let wait = until.min(POLL).min(deadline - now);
            let waited = self.0.permit_returned.wait_timeout(hosts, wait);
            hosts = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn hosts(&self) -> MutexGuard<'_, HashMap<String, Host>> {
        self.0.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(host) = self.gate.hosts().get_mut(&self.host) {
            host.running -= 1;
        }
        self.gate.0.permit_returned.notify_all();
    }
}

/// Host and port, in lower case.
fn host_of(url: &str) -> String {
    let after = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = after.split(['/', '?', '#']).next().unwrap_or_default();
    host.to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_host_gets_so_many_at_once_and_others_do_not_wait_for_it() {
        let gate = Gate::new(2);
        let soon = || Instant::now() + Duration::from_millis(20);
        let first = gate.enter("http://A:1/x", Duration::ZERO, soon()).unwrap();
        let _second = gate
            .enter("http://a:1/y?z", Duration::ZERO, soon())
            .unwrap();
        assert!(gate.enter("http://a:1", Duration::ZERO, soon()).is_none());
        assert!(gate.enter("http://a:2", Duration::ZERO, soon()).is_some());
        drop(first);
        assert!(gate.enter("http://a:1", Duration::ZERO, soon()).is_some());
    }

    #[test]
    fn a_pause_is_kept_from_start_to_start() {
        let gate = Gate::new(8);
        let begun = Instant::now();
        let pause = Duration::from_millis(30);
        for _ in 0..4 {
            assert!(gate.enter("http://a", pause, begun + LONG).is_some());
        }
        assert!(begun.elapsed() >= 3 * pause);
    }

    #[test]
    fn who_waits_goes_on_as_soon_as_somebody_leaves() {
        let gate = Gate::new(1);
        let permit = gate.enter("http://a", Duration::ZERO, Instant::now() + LONG);
        let other = gate.clone();
        let waiting = std::thread::spawn(move || {
            other
                .enter("http://a", Duration::ZERO, Instant::now() + LONG)
                .is_some()
        });
        drop(permit);
        assert!(waiting.join().unwrap());
    }
}
