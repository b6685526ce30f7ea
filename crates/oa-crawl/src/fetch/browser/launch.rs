//! Starting Chromium, and ending it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use oa_core::retry::ErrorKind;
use oa_core::supervise::{Group, StopSignal};
use uuid::Uuid;

use crate::fetch::FetchError;

/// Names under which distributions install it.
const PROGRAMS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];
/// A profile that a killed run left behind is removed when it is older.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Longest time for its start.
const START: Duration = Duration::from_secs(30);

/// A running Chromium. It ends, with all its processes, when this is dropped.
#[derive(Debug)]
pub(super) struct Chromium {
    address: String,
    profile: PathBuf,
    group: Option<Group>,
}

impl Chromium {
    pub(super) fn start(folder: &Path, deadline: Instant) -> Result<Self, FetchError> {
        let internal = |what: String| FetchError::new(ErrorKind::Internal, what);
        let program = find_program().ok_or_else(|| {
            internal(
                "no Chromium is installed, which sources of kind \"browser\" need; install the package chromium".to_owned(),
            )
        })?;
        let profiles = folder.join("profiles");
        remove_stale(&profiles);
        let profile = profiles.join(Uuid::now_v7().to_string());
        fs::create_dir_all(&profile).map_err(|e| {
            internal(format!(
                "could not make the browser's profile {}: {e}",
                profile.display()
            ))
        })?;
        let group = Group::start(&mut command(&program, &profile))
            .map_err(|e| internal(format!("could not start {}: {e}", program.display())))?;
        let mut chromium = Self {
            address: String::new(),
            profile,
            group: Some(group),
        };
        let deadline = deadline.min(Instant::now() + START);
        chromium.address = chromium.wait_for_address(&program, deadline)?;
        Ok(chromium)
    }

    /// Where it listens for the DevTools protocol.
    pub(super) fn address(&self) -> &str {
        &self.address
    }

    /// It writes port and path into a file of its profile once it listens.
    fn wait_for_address(
        &mut self,
        program: &Path,
        deadline: Instant,
    ) -> Result<String, FetchError> {
        let file = self.profile.join("DevToolsActivePort");
        loop {
            let text = fs::read_to_string(&file).unwrap_or_default();
            let mut lines = text.lines();
            if let (Some(port), Some(path)) = (lines.next(), lines.next()) {
                return Ok(format!("ws://127.0.0.1:{port}{path}"));
            }
            let ended = self.group.as_mut().and_then(|g| g.ended().ok().flatten());
            let program = program.display();
            let what = match ended {
                Some(status) => format!(
                    "{program} ended at its start with {status}; run it by hand as this user: {program} --headless --dump-dom about:blank"
                ),
                None if StopSignal.requested() => {
                    "stopped by a signal while the browser started".to_owned()
                }
                None if Instant::now() >= deadline => format!("{program} did not start in time"),
                None => {
                    thread::sleep(Duration::from_millis(20));
                    continue;
                }
            };
            return Err(FetchError::new(ErrorKind::Internal, what));
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        // In this order: a living one would write into its profile again.
        self.group = None;
        remove_socket(&self.profile);
        // Its processes end one after the other.
        let gone = || matches!(fs::remove_dir_all(&self.profile), Err(e) if e.kind() == io::ErrorKind::NotFound);
        for _ in 0..200 {
            if gone() {
                return;
            }
            thread::sleep(Duration::from_millis(25));
        }
        tracing::warn!("could not remove {}", self.profile.display());
    }
}

fn command(program: &Path, profile: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args([
            "--headless",
            "--remote-debugging-port=0",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--no-default-browser-check",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-extensions",
            "--disable-breakpad",
            "--disable-crash-reporter",
            "--disable-dev-shm-usage",
            // Nobody looks at them, and drawing them takes most of the time.
            "--blink-settings=imagesEnabled=false",
            "--password-store=basic",
            "--lang=zh-CN",
            "--window-size=1366,900",
        ])
        .arg(format!("--user-agent={}", crate::fetch::USER_AGENT))
        .arg(format!("--user-data-dir={}", profile.display()));
    if rustix::process::geteuid().is_root() {
        // Chromium refuses root with its sandbox.
        command.arg("--no-sandbox");
    }
    command.arg("about:blank");
    command
}

fn remove_stale(profiles: &Path) {
    let old = |path: &Path| {
        let modified = fs::metadata(path).and_then(|m| m.modified());
        modified.is_ok_and(|at| {
            SystemTime::now()
                .duration_since(at)
                .is_ok_and(|age| age > STALE)
        })
    };
    for profile in fs::read_dir(profiles).into_iter().flatten().flatten() {
        if old(&profile.path()) {
            remove_socket(&profile.path());
            let _ = fs::remove_dir_all(profile.path());
        }
    }
}

/// Removes the folder of its socket, which it makes in the system's folder for temporary files and, killed, leaves there. The
/// profile has a link to it. Chromium gives it a short path because a socket's must not be longer than 107 bytes: moving it into
/// the profile would fail on some machines.
fn remove_socket(profile: &Path) {
    let Ok(socket) = fs::read_link(profile.join("SingletonSocket")) else {
        return;
    };
    let Some(folder) = socket.parent() else {
        return;
    };
    if folder.parent() == Some(&std::env::temp_dir()) {
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(folder.join("SingletonCookie"));
        let _ = fs::remove_dir(folder);
    }
}

/// The system's Chromium, by `PATH`.
#[must_use]
pub fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS.iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|program| program.is_file())
    })
}
