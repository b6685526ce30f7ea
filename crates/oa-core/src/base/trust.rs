//! Whose files these are. A configuration says which programs are run and whom secrets are sent to, a state directory what was
//! collected: both must be this user's, or root's, and nobody else may change them. What holds secrets must not be readable by others.
//!
//! A file is checked after it was opened, so that it cannot be exchanged between the look and the reading.

use std::fs::{self, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};

/// What settings, sources, keys and certificates take at most, in bytes.
pub const LARGEST: u64 = 16 << 20;

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The system does not let us have it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is somebody else's.
    #[error("{} belongs to {owner}, and this runs as {me}; {remedy}", path.display())]
    Owner {
        /// The file or folder.
        path: PathBuf,
        /// Whose it is.
        owner: String,
        /// Who asks.
        me: String,
        /// What to do.
        remedy: String,
    },
    /// Others may change it.
    #[error("{} may be changed by others (mode {mode:04o}); run: chmod go-w {}", path.display(), quoted(path))]
    Writable {
        /// The file or folder.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// Others may read it, and it holds secrets.
    #[error("{} holds secrets and may be read by others (mode {mode:04o}); run: chmod {advice} {}", path.display(), quoted(path))]
    Readable {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
        /// The one that it should have.
        advice: &'static str,
    },
}

/// What a file may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// Settings: anybody may read them.
    Settings,
    /// Secrets: for the owner, and for a group that an administrator has chosen (0640 root:oa).
    Secrets,
}

/// Reads a text file that is this user's or root's and that nobody else may change, nor read where it holds secrets.
///
/// # Errors
/// When it is not, or cannot be read.
pub fn read(path: &Path, content: Content) -> Result<String, TrustError> {
    let bytes = read_bytes(path, content)?;
    Ok(utf8(bytes)?)
}

/// Windows' editors write other encodings.
fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    let wrong = |line: usize, what: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} holds {what}; save the file as UTF-8"),
        )
    };
    let line = |end: usize, bytes: &[u8]| 1 + bytes[..end].iter().filter(|b| **b == b'\n').count();
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(wrong(line(at, &bytes), "a zero byte, as in UTF-16"));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = line(e.utf8_error().valid_up_to(), e.as_bytes());
        wrong(at, "bytes that are no UTF-8, as in GBK or UTF-16")
    })
}

/// The same for a file in any encoding.
///
/// # Errors
/// When it is somebody else's, others may change or read it, or it cannot be read.
pub fn read_bytes(path: &Path, content: Content) -> Result<Vec<u8>, TrustError> {
    check_link(path)?;
    let file = open(path)?;
    check(path, &file.metadata()?, content)?;
    Ok(read_to_its_end(file, LARGEST)?)
}

/// Reads a file that the user has named, whoever owns it, or what a pipe brings, as in `--body <(…)`.
///
/// # Errors
/// When it cannot be read, has more than `most` bytes, or is a pipe to which nobody writes.
pub fn read_named(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_to_its_end(open(path)?, most)
}

/// The same as text.
///
/// # Errors
/// When it is not UTF-8 either.
pub fn read_named_text(path: &Path, most: u64) -> io::Result<String> {
    utf8(read_named(path, most)?)
}

/// Opens whatever it is without waiting: for somebody who writes to a pipe one would wait for ever.
fn open(path: &Path) -> io::Result<fs::File> {
    let flags = OFlags::NONBLOCK.bits().cast_signed();
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

fn read_to_its_end(file: fs::File, most: u64) -> io::Result<Vec<u8>> {
    let is_pipe = file.metadata()?.file_type().is_fifo();
    // Whoever writes to it may take his time.
    rustix::fs::fcntl_setfl(&file, OFlags::empty())?;
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it has more than {most} bytes"),
        ));
    }
    if is_pipe && bytes.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::UnexpectedEof,
            "it is a pipe to which nobody writes",
        ));
    }
    Ok(bytes)
}

/// Opens a file that somebody has given us: a pipe, on which we would wait for ever, and a device, which never ends, are errors.
///
/// # Errors
/// When it is not a regular file, or cannot be opened.
pub fn open_regular(path: &Path) -> io::Result<fs::File> {
    let file = open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "it is not a regular file",
        )),
    }
}

/// Reads such a file.
///
/// # Errors
/// As [`open_regular`]; when it is larger than `most` bytes.
pub fn read_regular(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    read_to_its_end(open_regular(path)?, most)
}

/// A folder whose files are used.
///
/// # Errors
/// When it is somebody else's, or others may put files there.
pub fn check_folder(path: &Path) -> Result<(), TrustError> {
    check_link(path)?;
    check(path, &fs::metadata(path)?, Content::Settings)
}

/// Whoever owns a link says where it leads.
///
/// # Errors
/// When it is a link of somebody else's.
pub(crate) fn check_link(path: &Path) -> Result<(), TrustError> {
    let link = fs::symlink_metadata(path)?;
    match link.is_symlink() && !is_mine(&link) {
        true => Err(foreign(path, &link)),
        false => Ok(()),
    }
}

fn check(path: &Path, found: &Metadata, content: Content) -> Result<(), TrustError> {
    if !is_mine(found) {
        return Err(foreign(path, found));
    }
    let mode = found.mode() & 0o7777;
    // Nobody should change the mode of a folder or a device for having named it.
    if content == Content::Secrets && !found.is_file() && !found.file_type().is_fifo() {
        let why = "it is not a regular file";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why).into());
    }
    if content == Content::Secrets && mode & 0o027 != 0 {
        return Err(TrustError::Readable {
            path: path.to_owned(),
            mode,
            // The service's group needs root's file.
            advice: if found.uid() == 0 && found.gid() != 0 {
                "640"
            } else {
                "600"
            },
        });
    }
    // A group of this user's own, as many systems give one to each, is this user.
    // With an access list the group's bits are those of everybody in the list.
    let own_group = (found.gid() == 0
        || found.gid() == getegid().as_raw() && is_group_of_one(found.gid()))
        && !has_access_list(path);
    if mode & 0o002 != 0 || (mode & 0o020 != 0 && !own_group) {
        return Err(TrustError::Writable {
            path: path.to_owned(),
            mode,
        });
    }
    Ok(())
}

/// Whether nobody but this user is in a group, as far as the machine's own files say: some systems have one for all people.
fn is_group_of_one(gid: u32) -> bool {
    let file = |path| fs::read_to_string(path).unwrap_or_default();
    let me = geteuid().as_raw();
    others_in(gid, me, &file("/etc/passwd"), &file("/etc/group")).is_none()
}

/// Somebody else whose group it is, or who is a member of it. Root may everything anyway.
fn others_in<'a>(gid: u32, me: u32, accounts: &'a str, groups: &'a str) -> Option<&'a str> {
    let fields = |line: &'a str| line.split(':').collect::<Vec<_>>();
    let number = |text: Option<&&str>| text.and_then(|n| n.parse::<u32>().ok());
    let is_other = |uid: Option<u32>| uid.is_some_and(|uid| uid != me && uid != 0);
    let all: Vec<Vec<&str>> = accounts.lines().map(fields).collect();
    let by_account = all
        .iter()
        .find(|account| is_other(number(account.get(2))) && number(account.get(3)) == Some(gid));
    let uid_of = |name: &str| {
        let found = all.iter().find(|account| account.first() == Some(&name));
        found.and_then(|account| number(account.get(2)))
    };
    let mut groups = groups.lines().map(fields);
    let group = groups.find(|group| number(group.get(2)) == Some(gid));
    let members = group.and_then(|group| group.get(3).copied());
    let mut members = members.unwrap_or_default().split(',');
    // One whom no file names may be anybody.
    let by_group = members.find(|name| {
        let uid = uid_of(name);
        !name.is_empty() && (uid.is_none() || is_other(uid))
    });
    by_account.and_then(|a| a.first().copied()).or(by_group)
}

fn has_access_list(path: &Path) -> bool {
    let found = rustix::fs::getxattr(path, "system.posix_acl_access", &mut [0u8; 512]);
    matches!(found, Ok(1..) | Err(rustix::io::Errno::RANGE))
}

fn is_mine(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == geteuid().as_raw()
}

fn foreign(path: &Path, found: &Metadata) -> TrustError {
    let (me, path) = (account(geteuid().as_raw()), path.to_owned());
    let take = format!("chown {me} {}", quoted(&path));
    TrustError::Owner {
        owner: account(found.uid()),
        remedy: format!("if it is yours, run: sudo {take}; else name another one (--config)"),
        me,
        path,
    }
}

/// The name of an account, or its number.
#[must_use]
pub fn account(uid: u32) -> String {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = accounts.lines().find_map(|line| {
        let mut parts = line.split(':');
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| uid.to_string())
}

/// A path as a shell takes it.
#[must_use]
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@".contains(c);
    match text.chars().all(plain) {
        true => text,
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_group_is_this_users_own_only_while_nobody_else_is_in_it() {
        let accounts =
            "root:x:0:0:::\noa:x:1000:1000:::\nwang:x:1001:100:::\nli:x:1002:100:::\nbroken\n";
        let groups = "root:x:0:\noa:x:1000:\nusers:x:100:\nops:x:50:oa,wang\nalone:x:51:oa,root\nelsewhere:x:52:oa,ldap\n";
        let of = |gid, me| others_in(gid, me, accounts, groups);
        assert_eq!(of(1000, 1000), None);
        assert_eq!(of(51, 1000), None);
        assert_eq!(of(77, 1000), None, "a container that names nobody");
        assert_eq!(of(100, 1001), Some("li"));
        assert_eq!(of(50, 1000), Some("wang"));
        assert_eq!(of(52, 1000), Some("ldap"));
    }

    #[test]
    fn what_never_comes_or_never_ends_is_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let kind = |result: io::Result<Vec<u8>>| result.unwrap_err().kind();
        assert_eq!(kind(read_named(&pipe, 10)), io::ErrorKind::UnexpectedEof);
        assert_eq!(kind(read_regular(&pipe, 10)), io::ErrorKind::InvalidInput);
        assert!(matches!(
            read(&pipe, Content::Settings),
            Err(TrustError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof
        ));
        let zero = Path::new("/dev/zero");
        assert_eq!(kind(read_named(zero, 10)), io::ErrorKind::FileTooLarge);
        let sparse = dir.path().join("sparse");
        let file = fs::File::create(&sparse).unwrap();
        file.set_len(1 << 40).unwrap();
        assert!(matches!(
            read(&sparse, Content::Settings),
            Err(TrustError::Io(e)) if e.kind() == io::ErrorKind::FileTooLarge
        ));
    }
}
