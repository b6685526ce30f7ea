//! Named places at which a crash test may kill the process.
//!
//! `OA_FAILPOINT=name` makes a debug build kill itself with SIGKILL when it comes to that place, which is what a power cut or
//! the kernel's out-of-memory killer does: no destructor, no flush. Release builds compile to nothing.

/// Dies here if this is the place that the environment asks for.
#[inline]
pub fn hit(name: &str) {
    #[cfg(debug_assertions)]
    if std::env::var_os("OA_FAILPOINT")
        .is_some_and(|wanted| wanted.as_encoded_bytes() == name.as_bytes())
    {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
    #[cfg(not(debug_assertions))]
    let _ = name;
}
