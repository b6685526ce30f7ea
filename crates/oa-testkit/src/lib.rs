//! Development only: private PostgreSQL clusters for tests, from the installed binaries, and a few helpers.
//!
//! Each [`Postgres`] is a server of its own on a free port of 127.0.0.1, so that a test may stop, kill and restart it. `initdb`
//! runs once per machine and version; a test copies its result. A server never outlives its test: when the test process ends,
//! however it ends, a janitor process sees its end of a pipe close, stops the server and removes its directory.
//!
//! Everything here panics with a sentence when it cannot do its work: these are tests.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    reason = "helpers of tests fail by panicking"
)]

mod clock;
mod disk;
pub mod fuzz;
mod line;
mod postgres;
mod template;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

pub use crate::clock::Clock;
pub use crate::disk::SmallDisk;
pub use crate::line::Line;
pub use crate::postgres::Postgres;
pub use crate::terminal::Terminal;

/// Writes a file that only this user may read, as the programs demand it of `.env` and of files with secrets.
pub fn write_private(path: &Path, text: impl AsRef<[u8]>) {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    let file = options.create_new(true).write(true).mode(0o600).open(path);
    let written = file.and_then(|mut f| f.write_all(text.as_ref()));
    written.unwrap_or_else(|e| panic!("could not write {}: {e}", path.display()));
}

/// The workspace's root.
#[must_use]
pub fn workspace_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .nth(2)
        .expect("crates/oa-testkit is two levels below the root")
        .to_owned()
}

/// Says that a test cannot do its work because `what` is absent, and how to get it. In CI that is a failure: a test that passes
/// without having run is worse than none.
///
/// # Panics
/// When `CI` is set.
pub fn skip(what: &str, remedy: &str) {
    assert!(
        std::env::var_os("CI").is_none(),
        "this test needs {what}: {remedy}"
    );
    println!("skipped: this test needs {what}: {remedy}");
}

/// The folder with real data that are not part of the project: `$OA_SHARED`, else `../shared/data` beside the workspace.
/// `None`, after [`skip`], when it is absent.
#[must_use]
pub fn shared_data() -> Option<PathBuf> {
    let shared = std::env::var_os("OA_SHARED")
        .map_or_else(|| workspace_root().join("../shared"), PathBuf::from);
    let found = [shared.join("data"), shared.clone()]
        .into_iter()
        .find(|p| p.join("option_tracker.db").is_file());
    if found.is_none() {
        skip(
            &format!("real data in {}", shared.display()),
            "set OA_SHARED to their folder",
        );
    }
    found
}

/// A program of this workspace, built beside the running test.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let me = std::env::current_exe().expect("a process knows its own file");
    let folder = me
        .parent()
        .and_then(Path::parent)
        .expect("tests run in target/PROFILE/deps");
    let path = folder.join(name);
    assert!(
        path.is_file(),
        "{} is not built; run: cargo build --workspace --bins",
        path.display()
    );
    path
}

/// A folder for one test, in memory where there is room: syncing files there costs nothing.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn temp_dir() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("oa-test-")
        .tempdir_in(template::fast_folder())
        .expect("the temporary folder is writable")
}

/// The same program under a limit of addresses, in KB, as `ulimit -v` sets it.
#[must_use]
pub fn limited(command: &Command, kilobytes: u32) -> Command {
    let mut limited = Command::new("sh");
    limited
        .arg("-c")
        .arg(format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\""))
        .arg(command.get_program())
        .args(command.get_args());
    same_environment(command, &mut limited);
    limited
}

/// Gives one command the variables and the folder of another.
fn same_environment(of: &Command, to: &mut Command) {
    for (name, value) in of.get_envs() {
        match value {
            Some(value) => to.env(name, value),
            None => to.env_remove(name),
        };
    }
    if let Some(folder) = of.get_current_dir() {
        to.current_dir(folder);
    }
}

/// Waits for a condition, looking every few milliseconds.
///
/// # Panics
/// When it does not come true within the limit.
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + limit;
    while !condition() {
        assert!(Instant::now() < end, "waited {limit:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
