//! Who runs a private server. PostgreSQL refuses root; then its own account does, or `nobody`.
//!
//! The staging folder belongs to root alone, so that account could not walk to a data directory in it. The server is therefore given
//! the directory open, as its stdin, and knows it by that.

use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;
use std::process::Command;

use oa_core::base::secrets::keep_from;

use crate::RestoreError;

/// An account that is not root.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    ids: Option<(u32, u32)>,
    name: String,
}

impl Account {
    /// This user, or for root the first of `names` that exists.
    pub(crate) fn find(names: &[&str]) -> Result<Self, RestoreError> {
        let path = Path::new("/etc/passwd");
        let passwd = fs::read_to_string(path);
        let entry = |matches: &dyn Fn(&[&str]) -> bool| {
            passwd.as_deref().unwrap_or("").lines().find_map(|line| {
                let fields: Vec<&str> = line.split(':').collect();
                if !matches(&fields) {
                    return None;
                }
                let uid: u32 = fields.get(2)?.parse().ok()?;
                let gid: u32 = fields.get(3)?.parse().ok()?;
                Some((fields.first()?.to_string(), uid, gid))
            })
        };
        let me = rustix::process::geteuid();
        if !me.is_root() {
            let uid = me.as_raw().to_string();
            let name = entry(&|f| f.get(2) == Some(&uid.as_str()));
            return Ok(Self {
                ids: None,
                name: name.map_or(uid, |(name, _, _)| name),
            });
        }
        let found = names
            .iter()
            .find_map(|name| entry(&|f| f.first() == Some(name)));
        if let Err(e) = passwd {
            return Err(RestoreError::disk("could not read", path)(e));
        }
        match found {
            Some((name, uid, gid)) if uid != 0 => Ok(Self {
                ids: Some((uid, gid)),
                name,
            }),
            _ => Err(RestoreError::Refused(format!(
                "PostgreSQL does not run as root, and there is no user {}; run oa-restore as another user",
                names.join(" or ")
            ))),
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A command that it runs, without what libpq or the server would take from the environment.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = match self.ids {
            None => Command::new(program),
            Some((uid, gid)) => {
                let mut command = Command::new("setpriv");
                command
                    .arg(format!("--reuid={uid}"))
                    .arg(format!("--regid={gid}"))
                    .args(["--clear-groups", "--"])
                    .arg(program);
                command
            }
        };
        // The server that it becomes is another account's.
        keep_from(&mut command);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// How a data directory is named to a server that has it as its stdin.
    pub(crate) fn name_of<'a>(&self, data: &'a Path) -> &'a Path {
        match self.ids {
            None => data,
            Some(_) => Path::new("/proc/self/fd/0"),
        }
    }

    /// Gives it a file or a folder with everything in it; links are given, not followed.
    pub(crate) fn own(&self, path: &Path) -> Result<(), RestoreError> {
        let Some((uid, gid)) = self.ids else {
            return Ok(());
        };
        lchown(path, Some(uid), Some(gid))
            .map_err(RestoreError::disk("could not give away", path))?;
        let is_folder = path.symlink_metadata().is_ok_and(|m| m.is_dir());
        if is_folder {
            let failed = RestoreError::disk("could not read", path);
            for entry in fs::read_dir(path).map_err(&failed)? {
                self.own(&entry.map_err(&failed)?.path())?;
            }
        }
        Ok(())
    }

    /// Whether it can walk to a folder.
    pub(crate) fn reaches(&self, folder: &Path) -> bool {
        self.may("-x", folder)
    }

    /// Whether it can make files in a folder.
    pub(crate) fn writes(&self, folder: &Path) -> bool {
        self.may("-w", folder)
    }

    fn may(&self, what: &str, folder: &Path) -> bool {
        let tested = self
            .command(Path::new("test"))
            .arg(what)
            .arg(folder)
            .current_dir("/")
            .status();
        tested.is_ok_and(|s| s.success())
    }
}
