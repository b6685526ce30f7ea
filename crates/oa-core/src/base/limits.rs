//! What the system lets a process have, and what to raise where that was not enough.

use std::io;

use rustix::io::Errno;

/// What helps where the system refuses a process.
const PROCESSES: &str =
    "raise how many processes this user (ulimit -u), service (TasksMax) or container may have";

/// An error of starting a program, with what helps.
pub(crate) fn of_program(error: io::Error) -> io::Error {
    match Errno::from_io_error(&error) {
        Some(Errno::AGAIN) => io::Error::other(format!("{error}; {PROCESSES}")),
        _ => match remedy(&error) {
            Some(remedy) => io::Error::other(format!("{error}; {remedy}")),
            None => error,
        },
    }
}

/// What helps against an error of the system that says that there is no more; `None` for any other.
#[must_use]
pub fn remedy(error: &io::Error) -> Option<&'static str> {
    Some(match Errno::from_io_error(error)? {
        Errno::MFILE => {
            "raise how many files and connections this process may have open (ulimit -n, LimitNOFILE)"
        }
        Errno::NFILE => "raise how many files this machine may have open (sysctl fs.file-max)",
        Errno::NOMEM => {
            "raise how much memory this process may have (ulimit -v, MemoryMax), or give the machine more"
        }
        Errno::FBIG => "raise how large a file may become (ulimit -f, LimitFSIZE)",
        _ => return None,
    })
}
