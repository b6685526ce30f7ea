//! Starting Chromium, and ending it.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, SystemTime};

use oa_core::base::secrets::keep_from;
use oa_core::base::supervise::Group;
use oa_core::model::retry::ErrorKind;
use uuid::Uuid;

use super::devtools::{Devtools, Event};
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
/// Chromium reads what it is asked from descriptor 3 and answers on 4. The shell, which becomes Chromium, puts them there.
const WITH_PIPES: &str = "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null";
/// Whether Chromium has to do without its sandbox, which it refuses to root.
pub(crate) fn without_sandbox() -> bool {
    rustix::process::geteuid().is_root()
}

/// A running Chromium. It ends, with all its processes, when this is dropped.
#[derive(Debug)]
pub(super) struct Chromium {
    program: PathBuf,
    profile: PathBuf,
    group: Option<Group>,
}

impl Chromium {
    /// Starts it behind a proxy, with the connection to it. No message may have more than `longest` bytes.
    pub(super) fn start(
        folder: &Path,
        proxy: &str,
        longest: u64,
    ) -> Result<(Self, Devtools, mpsc::Receiver<Event>), FetchError> {
        let internal = |what: String| FetchError::new(ErrorKind::Internal, what);
        let program = find_program().ok_or_else(|| {
            internal(
                "no Chromium is installed, which sources of kind \"browser\" need; install the package chromium".to_owned(),
            )
        })?;
        let profiles = folder.join("profiles");
        let profile = profiles.join(Uuid::now_v7().to_string());
        own_folder(folder)
            .and_then(|()| own_folder(&profiles))
            .and_then(|()| {
                remove_stale(&profiles);
                DirBuilder::new().mode(0o700).create(&profile)
            })
            .map_err(|e| {
                internal(format!(
                    "could not make the browser's profile {}: {e}",
                    profile.display()
                ))
            })?;
        let mut chromium = Self {
            program,
            profile,
            group: None,
        };
        let group = Group::start(&mut command(&chromium.program, &chromium.profile, proxy));
        let mut group =
            group.map_err(|e| internal(format!("could not start {}: {e}", chromium.shown())))?;
        let child = group.child();
        let pipes = child.stdin.take().zip(child.stdout.take());
        chromium.group = Some(group);
        let (to, from) =
            pipes.ok_or_else(|| internal(format!("{} has no pipes", chromium.shown())))?;
        let connected = Devtools::connect(to, from, longest);
        let (devtools, events) = connected.map_err(|e| internal(e.to_string()))?;
        Ok((chromium, devtools, events))
    }

    fn shown(&self) -> String {
        self.program.display().to_string()
    }

    /// How it ended, if it has, and what you can do.
    pub(super) fn ended(&mut self) -> Option<String> {
        let status = self.group.as_mut()?.ended().ok().flatten()?;
        let program = self.shown();
        Some(format!(
            "{program} ended with {status}; run it by hand as this user: {program} --headless --dump-dom about:blank"
        ))
    }
}

/// Creates a folder that only this user may enter, or restricts it to that.
fn own_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
        let user = rustix::process::geteuid().as_raw();
        return Err(io::Error::other(format!(
            "{} is not a folder of this user (number {user}); remove it, or run oa-crawl as the user that owns it",
            path.display()
        )));
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
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

fn command(program: &Path, profile: &Path, proxy: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    keep_from(&mut command);
    command
        .args(["-c", WITH_PIPES, "sh"])
        .arg(program)
        .args([
            "--headless",
            "--remote-debugging-pipe",
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
            // Drawing images takes most of the time.
            "--blink-settings=imagesEnabled=false",
            "--password-store=basic",
            "--lang=zh-CN",
            "--window-size=1366,900",
        ])
        // All connections are the proxy's, also those to this machine, and no name is resolved but by it; calls between browsers (WebRTC)
        // send nothing past it.
        .arg(format!("--proxy-server={proxy}"))
        .args([
            "--proxy-bypass-list=<-loopback>",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--webrtc-ip-handling-policy=disable_non_proxied_udp",
            "--force-webrtc-ip-handling-policy=disable_non_proxied_udp",
        ])
        .arg(format!("--user-agent={}", crate::fetch::USER_AGENT))
        .arg(format!("--user-data-dir={}", profile.display()));
    if without_sandbox() {
        command.arg("--no-sandbox");
    }
    command
        .arg("about:blank")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

fn remove_stale(profiles: &Path) {
    let old = |path: &Path| {
        let modified = fs::symlink_metadata(path).and_then(|m| m.modified());
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

/// Whether this user has named authorities to Chromium, which looks for them in one place only.
pub(crate) fn has_authorities() -> bool {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.is_some_and(|home| home.join(".pki/nssdb/cert9.db").is_file())
}

/// The system's Chromium, by `PATH`.
pub(crate) fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    PROGRAMS.iter().find_map(|name| {
        std::env::split_paths(&path)
            .map(|folder| folder.join(name))
            .find(|program| program.is_file())
    })
}
