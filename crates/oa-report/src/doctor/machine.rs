//! The state directory and the disks.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use oa_core::app::config::Config;
use oa_core::base::state_dir::StateDir;
use oa_core::base::trust::{account, quoted};
use oa_core::journal::spool::Spool;
use rustix::process::geteuid;

use super::Findings;

/// So many files of the state directory are looked at; a root's mistake leaves its traces among the first.
const MOST_FILES: usize = 200_000;

/// Whether it is this account's and takes what is put there, and whether an earlier start as another account left something in it.
pub(super) fn state_dir(config: &Config, findings: &mut Findings) {
    let check = "state_dir";
    let path = &config.state_dir;
    let shown = path.display();
    let me = account(geteuid().as_raw());
    if !path.exists() {
        let make = format!("sudo install -d -m 700 -o {me} {}", quoted(path));
        return findings.error(check, format!("{shown} does not exist"), make);
    }
    let state = match StateDir::open(path) {
        Ok(state) => state,
        Err(e) => {
            let found = fs::metadata(path);
            let (owner, mode) = found.map_or((0, 0), |found| (found.uid(), found.mode()));
            let command = match owner == geteuid().as_raw() {
                true if mode & 0o022 != 0 => format!("chmod 700 {}", quoted(path)),
                true if is_read_only(path) => remount(path),
                true => format!("df -h {0}; ls -ld {0}", quoted(path)),
                // Root has made it by mistake; any other account is the one that this is for.
                false if owner == 0 => format!("sudo chown -R {me} {}", quoted(path)),
                false => format!("sudo -u {} oa-report doctor", account(owner)),
            };
            return findings.error(check, e.to_string(), command);
        }
    };
    if let Some(foreign) = foreign_file(path) {
        let owner = fs::symlink_metadata(&foreign).map_or(0, |found| found.uid());
        let detail = format!(
            "{} belongs to {}: a program was run as that account, and now the runs of {me} fail on it",
            foreign.display(),
            account(owner)
        );
        findings.error(
            check,
            detail,
            format!("sudo chown -R {me} {}", quoted(path)),
        );
    } else {
        findings.ok(check, format!("{shown} is writable"));
    }
    match Spool::open(&state, config.spool.max_size.0).and_then(|spool| spool.pending()) {
        Ok(pending) if pending.entries == 0 => findings.ok("spool", "empty"),
        Ok(pending) => findings.warn(
            "spool",
            format!(
                "{} entries wait for PostgreSQL, {} bytes",
                pending.entries, pending.bytes
            ),
            "oa-crawl drain",
        ),
        Err(e) => findings.error(
            "spool",
            e.to_string(),
            format!("ls -l {}", quoted(&path.join("spool.db"))),
        ),
    }
}

/// Whether its disk takes nothing.
fn is_read_only(path: &Path) -> bool {
    rustix::fs::access(path, rustix::fs::Access::WRITE_OK) == Err(rustix::io::Errno::ROFS)
}

/// What kind of file system it is on, by Linux's magic.h.
fn is_kind(path: &Path, magic: &[u32]) -> bool {
    let found = rustix::fs::statfs(path).map(|disk| disk.f_type as u32);
    found.is_ok_and(|found| magic.contains(&found))
}

/// tmpfs and ramfs.
fn is_memory(path: &Path) -> bool {
    is_kind(path, &[0x0102_1994, 0x8584_58f6])
}

/// NFS, SMB and its elders.
fn is_remote(path: &Path) -> bool {
    is_kind(path, &[0x6969, 0x517b, 0xff53_4d42, 0xfe53_4d42])
}

/// Makes the disk below a path writable again. The kernel takes that away when the disk fails, and says so in its own log.
pub(super) fn remount(path: &Path) -> String {
    format!(
        "sudo dmesg | tail; sudo mount -o remount,rw \"$(findmnt -no TARGET -T {})\"",
        quoted(path)
    )
}

/// The first file or folder below that belongs to another account.
fn foreign_file(path: &Path) -> Option<PathBuf> {
    let me = geteuid().as_raw();
    let mut waiting = vec![path.to_owned()];
    let mut seen = 0;
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            seen += 1;
            if seen > MOST_FILES {
                return None;
            }
            let Ok(found) = entry.metadata() else {
                continue;
            };
            if found.uid() != me {
                return Some(entry.path());
            }
            if found.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    None
}

/// The disks of all that is written to: bytes and inodes.
pub(super) fn disks(config: &Config, findings: &mut Findings) {
    let mut places = vec![config.state_dir.clone(), PathBuf::from("/var/log/oa")];
    let repository = config.backup.as_ref().map(|b| PathBuf::from(&b.repository));
    if let Some(backup) = &config.backup {
        places.extend(backup.staging.clone());
        let copy = backup.copy.as_ref().map(|copy| &copy.repository);
        let folders = [Some(&backup.repository), copy].into_iter().flatten();
        places.extend(folders.filter(|r| !r.contains("://")).map(PathBuf::from));
    }
    let mut known = Vec::new();
    for place in [&config.state_dir]
        .into_iter()
        .chain(&repository)
        .filter(|p| is_memory(p))
    {
        findings.warn(
            "disk",
            format!(
                "{} is kept in memory (tmpfs): it is gone with the next start of the machine",
                place.display()
            ),
            super::edit(&config.path),
        );
    }
    if is_remote(&config.state_dir) {
        findings.warn(
            "state_dir",
            format!("{} is on another machine's disk: the locks there do not hold as the spool needs them", config.state_dir.display()),
            super::edit(&config.path),
        );
    }
    for place in places {
        // What is not there yet will be on the disk of the folder above.
        let there = place.ancestors().find(|path| path.exists());
        let Some(place) = there
            .filter(|path| *path != Path::new("/"))
            .map(Path::to_owned)
        else {
            continue;
        };
        let (Ok(disk), Ok(found)) = (rustix::fs::statvfs(&place), fs::metadata(&place)) else {
            continue;
        };
        if known.contains(&found.dev()) {
            continue;
        }
        known.push(found.dev());
        let share = |free: u64, all: u64| free as f64 / all.max(1) as f64;
        let bytes = share(disk.f_bavail, disk.f_blocks);
        // File systems without a table of inodes say 0 of 0.
        let inodes = match disk.f_files {
            0 => 1.0,
            all => share(disk.f_favail, all),
        };
        let shown = place.display();
        let detail = format!(
            "{shown}: {:.0} % of the space is free, {:.1} GiB",
            bytes * 100.0,
            (disk.f_bavail * disk.f_frsize) as f64 / f64::from(1 << 30)
        );
        let look = format!(
            "sudo du -xh --max-depth=2 {} | sort -h | tail",
            quoted(&place)
        );
        if bytes < config.alert.disk_critical || inodes < config.alert.disk_critical {
            let inodes = format!("; {:.0} % of the inodes are free", inodes * 100.0);
            findings.error("disk", detail + &inodes, look);
        } else if bytes < config.alert.disk_warning || inodes < config.alert.disk_warning {
            let inodes = format!("; {:.0} % of the inodes are free", inodes * 100.0);
            findings.warn("disk", detail + &inodes, look);
        } else {
            findings.ok("disk", detail);
        }
    }
    if let Some(backup) = &config.backup {
        let repository = Path::new(&backup.repository);
        let same = fs::metadata(repository).ok().map(|m| m.dev())
            == fs::metadata(&config.state_dir).ok().map(|m| m.dev());
        if repository.is_dir() && same && backup.copy.is_none() {
            findings.warn(
                "disk",
                format!("{} is on the same disk as the data and has no copy: one broken disk takes both", repository.display()),
                super::edit(&config.path),
            );
        }
    }
}
