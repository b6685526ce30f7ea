//! What every private cluster is copied from: the installed programs, the account that may run them, and one `initdb`.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) const PASSWORD: &str = "oa-test-password";
pub(crate) const SUPERUSER_PASSWORD: &str = "super-test-password";

/// Who runs the server: PostgreSQL refuses root.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account {
    ids: Option<(u32, u32)>,
}

impl Account {
    pub(crate) fn unprivileged() -> Self {
        if !rustix::process::geteuid().is_root() {
            return Self { ids: None };
        }
        let passwd = fs::read_to_string("/etc/passwd").expect("/etc/passwd is readable");
        let ids = ["postgres", "nobody"].iter().find_map(|wanted| {
            let line = passwd
                .lines()
                .find(|l| l.split(':').next() == Some(*wanted))?;
            let mut fields = line.split(':').skip(2);
            Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
        });
        Self {
            ids: Some(ids.expect(
                "running as root, there must be a user postgres or nobody to run the server as",
            )),
        }
    }

    pub(crate) fn command(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid).gid(gid);
        }
        command
            .env_remove("PGDATA")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        command
    }

    pub(crate) fn give(self, path: &Path) {
        if let Some((uid, gid)) = self.ids {
            chown(path, Some(uid), Some(gid)).expect("root may give files away");
        }
    }
}

/// Where clusters live. Copying one makes a thousand files: in memory that takes a tenth of the time that a disk takes. `TMPDIR`
/// decides where it is set; else memory serves if it has room for the largest tests.
pub(crate) fn fast_folder() -> PathBuf {
    const ROOM_BYTES: u64 = 4 << 30;
    let memory = Path::new("/dev/shm");
    let roomy = || {
        let room = rustix::fs::statvfs(memory).ok()?;
        let writable = rustix::fs::access(memory, rustix::fs::Access::WRITE_OK).is_ok();
        Some(writable && room.f_bavail * room.f_frsize >= ROOM_BYTES)
    };
    if std::env::var_os("TMPDIR").is_none() && roomy() == Some(true) {
        memory.to_owned()
    } else {
        std::env::temp_dir()
    }
}

/// The oldest version that the project supports, and the one that it prefers.
const VERSION: u32 = 15;

/// Where the server's programs are: of PostgreSQL 15 if there are several versions, else of the newest.
pub(crate) fn bin_dir() -> PathBuf {
    let debian = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter_map(|e| {
            let version: u32 = e.file_name().to_str()?.parse().ok()?;
            Some((version, e.path().join("bin")))
        });
    let elsewhere = Command::new("pg_config")
        .args(["--version", "--bindir"])
        .output()
        .ok()
        .and_then(|o| {
            // "PostgreSQL 15.18 (Debian …)" or "PostgreSQL 19devel", then the folder.
            let text = String::from_utf8(o.stdout).ok()?;
            let (version, folder) = text.trim_end().split_once('\n')?;
            let version = version.strip_prefix("PostgreSQL ")?;
            let major = version.split(|c: char| !c.is_ascii_digit()).next()?;
            Some((major.parse().ok()?, PathBuf::from(folder)))
        });
    debian
        .chain(elsewhere)
        .filter(|(version, folder)| {
            *version >= VERSION && ["postgres", "initdb"].iter().all(|p| folder.join(p).is_file())
        })
        .max_by_key(|(version, _)| (*version == VERSION, *version))
        .expect(
            "no server programs of PostgreSQL 15 or newer; run scripts/setup, or: apt-get install postgresql-15",
        )
        .1
}

/// The directory that `initdb` made, with role and database, once per user and version.
pub(crate) fn template(account: Account) -> PathBuf {
    kept(account, "template", "", |data| {
        let (_work, made) = initdb(account, &bin_dir(), &[]);
        fs::rename(made, data).expect("own folder");
    })
}

/// The directory of a cluster that somebody has prepared, once per user, version of the server, state of the schema and day: which months
/// have partitions depends on it. `make` leaves it, stopped, at a path.
pub(crate) fn prepared(account: Account, name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    const DAY_SECONDS: u64 = 86_400;
    let mut hasher = DefaultHasher::new();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    (now.expect("a time after 1970").as_secs() / DAY_SECONDS).hash(&mut hasher);
    for folder in ["", "pg", "pg/migrations", "service"] {
        let folder = crate::workspace_root()
            .join("crates/oa-core/src")
            .join(folder);
        let entries = fs::read_dir(&folder).expect("the sources are there");
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in files.iter().filter(|file| file.is_file()) {
            fs::read(file)
                .expect("a source is readable")
                .hash(&mut hasher);
        }
    }
    let key = format!("{:x}-", hasher.finish());
    kept(account, name, &key, |data| {
        forget_older(name);
        make(data);
    })
}

/// Removes what nobody copies any more.
fn forget_older(name: &str) {
    const KEPT_SECONDS: u64 = 2 * 86_400;
    let prefix = format!("oa-testkit-{name}-");
    for entry in fs::read_dir(std::env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let is_one = entry.file_name().to_string_lossy().starts_with(&prefix);
        let age = entry.metadata().and_then(|m| m.modified()).ok();
        let age = age.and_then(|at| at.elapsed().ok());
        if is_one && age.is_some_and(|age| age.as_secs() > KEPT_SECONDS) {
            // Somebody else's is for him to remove.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A directory of a cluster below the temporary folder, made where it is not there yet.
fn kept(account: Account, name: &str, key: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let stamp = fs::metadata(bin_dir().join("postgres"))
        .map(|m| format!("{}-{}", m.size(), m.mtime()))
        .expect("the server's program");
    let base = std::env::temp_dir();
    let uid = account
        .ids
        .map_or_else(|| rustix::process::geteuid().as_raw(), |(uid, _)| uid);
    let path = base.join(format!("oa-testkit-{name}-{key}{uid}-{stamp}-1"));
    // A system that clears old files out of its temporary folder leaves empty directories: only a whole template counts, and
    // none that another user put there.
    let whole = || {
        fs::metadata(path.join("PG_VERSION")).is_ok()
            && fs::metadata(&path).is_ok_and(|m| m.uid() == uid)
    };
    if whole() {
        return path;
    }
    let lock = File::create(base.join(format!(
        "oa-testkit-{name}-{}.lock",
        rustix::process::geteuid().as_raw()
    )))
    .expect("a lock file");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    if whole() {
        return path;
    }
    if path.is_dir() {
        fs::remove_dir_all(&path).expect("the remains of an old template can be removed");
    }
    let work = tempfile::Builder::new()
        .prefix("oa-testkit-new-")
        .tempdir_in(&base)
        .expect("the temporary folder is writable");
    let data = work.path().join("data");
    make(&data);
    match fs::rename(&data, &path) {
        Ok(()) => path,
        // Root and the account it uses have different locks and the same template.
        Err(_) if whole() => path,
        Err(e) => panic!("could not keep the template {}: {e}", path.display()),
    }
}

/// A new cluster, with role and database, in a folder that is gone with the first value: move the second one out of it.
pub(crate) fn initdb(
    account: Account,
    bin: &Path,
    options: &[&str],
) -> (tempfile::TempDir, PathBuf) {
    let base = std::env::temp_dir();
    let work = tempfile::Builder::new()
        .prefix("oa-testkit-initdb-")
        .tempdir_in(&base)
        .expect("the temporary folder is writable");
    fs::set_permissions(work.path(), fs::Permissions::from_mode(0o711)).expect("own folder");
    account.give(work.path());
    let password_file = work.path().join("password");
    fs::write(&password_file, SUPERUSER_PASSWORD).expect("own folder");
    account.give(&password_file);
    let data = work.path().join("data");
    let made = account
        .command(bin.join("initdb"))
        .args([
            "-U",
            "postgres",
            "-A",
            "scram-sha-256",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--wal-segsize=1",
            "--pwfile",
        ])
        .arg(&password_file)
        .args(options)
        .arg("-D")
        .arg(&data)
        .output()
        .expect("initdb runs");
    assert!(
        made.status.success(),
        "initdb failed: {}",
        String::from_utf8_lossy(&made.stderr)
    );
    let mut single = account
        .command(bin.join("postgres"))
        .args(["--single", "-D"])
        .arg(&data)
        .arg("postgres")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("postgres runs");
    let sql = format!("CREATE ROLE oa LOGIN PASSWORD '{PASSWORD}'\nCREATE DATABASE oa OWNER oa\n");
    single
        .stdin
        .take()
        .expect("a pipe")
        .write_all(sql.as_bytes())
        .expect("the pipe takes it");
    assert!(
        single.wait().expect("it ends").success(),
        "could not make role and database"
    );
    (work, data)
}
