//! Named places at which a crash test may kill the process.
//!
//! `OA_FAILPOINT=name` makes a debug build kill itself with SIGKILL when it comes to that place, which is what a power cut or
//! the kernel's out-of-memory killer does: no destructor, no flush. `OA_FAILPOINT=stop:name` sends SIGTERM instead, as an operator
//! or a service manager would. Release builds compile to nothing.

/// Dies here, or is asked to stop, if this is the place that the environment asks for.
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    if let Some(wanted) = std::env::var_os("OA_FAILPOINT") {
        use rustix::process::{Signal, getpid, kill_process};
        let wanted = wanted.as_encoded_bytes();
        if wanted == name.as_bytes() {
            let _ = kill_process(getpid(), Signal::KILL);
        } else if wanted.strip_prefix(b"stop:") == Some(name.as_bytes())
            && !crate::base::supervise::StopSignal.requested()
        {
            let _ = kill_process(getpid(), Signal::TERM);
            // Another thread may be the one that takes it.
            let _ = crate::base::supervise::StopSignal.wait(std::time::Duration::from_secs(10));
        }
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
