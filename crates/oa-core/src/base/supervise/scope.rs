//! A control group (cgroup v2) of its own for a program, where this user may make one: as root, or where the cgroup is delegated to the
//! user, as systemd does for sessions and for units with `Delegate=yes`. Nothing leaves it by forking, by another session or by an empty
//! environment, so everything in it is the program's, whatever else is known of it. Elsewhere the tree is held without one.
//!
//! The program is put into it once it has begun, and with it what it may have started until then; what it starts later begins there. It
//! is beside this process, not around it: only its own processes are in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::proc::Process;

const PROCESSES: &str = "cgroup.procs";
const PREFIX: &str = "oa-";

/// The folder of a control group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Scope(PathBuf);

impl Scope {
    /// Makes one below the group in which this process is.
    pub(super) fn make(mark: Uuid) -> Option<Self> {
        let made = own_group().and_then(|group| Self::make_below(&group, mark));
        made.inspect_err(|e| tracing::debug!("no control group for a program: {e}"))
            .ok()
    }

    fn make_below(group: &Path, mark: Uuid) -> io::Result<Self> {
        let folder = group.join(format!("{PREFIX}{mark}"));
        fs::create_dir(&folder)?;
        // In another file system a folder is only a folder.
        if let Err(e) = fs::metadata(folder.join(PROCESSES)) {
            let _ = fs::remove_dir(&folder);
            return Err(e);
        }
        Ok(Self(folder))
    }

    /// One that was noted; `None` when it is gone.
    pub(super) fn noted(path: &str) -> Option<Self> {
        let folder = PathBuf::from(path);
        let name = folder.file_name()?.to_str()?;
        let is_ours = name.strip_prefix(PREFIX)?.parse::<Uuid>().is_ok();
        (is_ours && folder.join(PROCESSES).exists()).then_some(Self(folder))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a process into it. What that has started before stays where it is.
    pub(super) fn take(&self, pid: i32) -> io::Result<()> {
        fs::write(self.0.join(PROCESSES), pid.to_string())
    }

    /// All that is in it, and in groups that the program has made below it.
    pub(super) fn processes(&self) -> Vec<Process> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            let pids = fs::read_to_string(folder.join(PROCESSES)).unwrap_or_default();
            let pids = pids.lines().filter_map(|pid| pid.parse().ok());
            found.extend(pids.filter_map(Process::read));
            folders.extend(below(&folder));
        }
        found
    }

    /// SIGKILL to all of it at once, so that nothing is started between two signals. Older kernels (before 5.14) cannot.
    pub(super) fn kill(&self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
    }

    /// Removes it when nothing is in it.
    pub(super) fn remove(&self) {
        fn remove(folder: &Path) {
            for inner in below(folder) {
                remove(&inner);
            }
            let _ = fs::remove_dir(folder);
        }
        remove(&self.0);
    }
}

fn below(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    folders.map(|e| e.path())
}

/// The folder of the group in which this process is.
fn own_group() -> io::Result<PathBuf> {
    let none = |why: &str| io::Error::new(io::ErrorKind::NotFound, why.to_owned());
    let groups = fs::read_to_string("/proc/self/cgroup")?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let group = group.ok_or_else(|| none("this system has no cgroup v2"))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let folder = mounts.lines().find_map(|line| folder_of(line, group));
    let folder = folder.ok_or_else(|| none("cgroup v2 is not mounted"))?;
    // What the paths say counts from the namespace of whoever mounted it.
    let me = std::process::id().to_string();
    let there = fs::read_to_string(folder.join(PROCESSES))?;
    match there.lines().any(|pid| pid == me) {
        true => Ok(folder),
        false => Err(none("the mounted cgroup is that of another namespace")),
    }
}

/// The folder of a group by a line of `mountinfo`, which has root, mount point and, after ` - `, the file system's type.
fn folder_of(line: &str, group: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    if !after.starts_with("cgroup2 ") {
        return None;
    }
    let mut fields = before.split(' ').skip(3);
    let (root, mounted) = (fields.next()?, fields.next()?);
    let rest = match root {
        "/" => group,
        root => group.strip_prefix(root)?,
    };
    Some(Path::new(mounted).join(rest.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_group_is_below_its_mount() {
        let hybrid = "46 35 0:36 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";
        let docker =
            "900 899 0:30 /docker/ab /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate";
        for (line, group, folder) in [
            (hybrid, "/", Some("/sys/fs/cgroup/unified/")),
            (
                hybrid,
                "/user.slice/a",
                Some("/sys/fs/cgroup/unified/user.slice/a"),
            ),
            (docker, "/docker/ab/x", Some("/sys/fs/cgroup/x")),
            (docker, "/docker/cd", None),
            (
                "36 35 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu",
                "/",
                None,
            ),
            ("", "/", None),
        ] {
            let folder = folder.map(PathBuf::from);
            assert_eq!(folder_of(line, group), folder, "{line} {group}");
        }
    }

    #[test]
    fn a_folder_that_is_no_control_group_is_not_taken_for_one() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Scope::make_below(dir.path(), Uuid::now_v7()).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert_eq!(Scope::noted(dir.path().to_str().unwrap()), None);
    }
}
