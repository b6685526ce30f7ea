//! The settings of a restored cluster. Debian keeps `postgresql.conf` and `pg_hba.conf` outside the data directory, so a backup may
//! have none; where it has them, they and `postgresql.auto.conf` name archives, ports and certificates of another machine.

use std::fs;
use std::path::Path;

use oa_repository::Meta;

use super::account::Account;
use super::requirements::Requirements;
use crate::RestoreError;
use crate::plan::StopAt;

/// The private server's own files in a data directory; `postgresql.auto.conf`, which would win over them, stands aside meanwhile.
pub(super) const CONFIG: &str = "oa-restore.conf";
pub(super) const HBA: &str = "oa-restore.hba";
pub(super) const IDENT: &str = "oa-restore.ident";
const AUTO: &str = "postgresql.auto.conf";
const AUTO_ASIDE: &str = "postgresql.auto.conf.source";
pub(super) const SIGNAL: &str = "recovery.signal";

/// Time, process, and the code of an error.
pub(super) const LOG_PREFIX: &str = "%m [%p] %e ";

/// How a private server is to run.
#[derive(Debug, Clone)]
pub(super) struct PrivateSettings<'a> {
    pub(super) socket: &'a Path,
    pub(super) meta: &'a Meta,
    pub(super) needs: &'a Requirements,
    pub(super) timeline: Option<u32>,
    pub(super) end: Option<&'a StopAt>,
    /// What it writes must survive a power cut.
    pub(super) durable: bool,
}

/// A value for a configuration file.
fn quote(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "''"))
}

fn write(path: &Path, text: &str) -> Result<(), RestoreError> {
    fs::write(path, text).map_err(RestoreError::disk("could not write", path))
}

/// Puts the private server's files into a data directory. With `end` it recovers when it starts.
pub(super) fn private(data: &Path, settings: &PrivateSettings<'_>) -> Result<(), RestoreError> {
    let auto = data.join(AUTO);
    if auto.exists() {
        let aside = data.join(AUTO_ASIDE);
        fs::rename(&auto, &aside).map_err(RestoreError::disk("could not rename", &auto))?;
    }
    let mut lines = vec![
        "listen_addresses = ''".to_owned(),
        "port = 5432".to_owned(),
        format!(
            "unix_socket_directories = {}",
            quote(&settings.socket.to_string_lossy())
        ),
        "unix_socket_permissions = 0700".to_owned(),
        "archive_mode = off".to_owned(),
        "hot_standby = off".to_owned(),
        "autovacuum = off".to_owned(),
        "max_logical_replication_workers = 0".to_owned(),
        "synchronous_standby_names = ''".to_owned(),
        "logging_collector = off".to_owned(),
        "lc_messages = 'C'".to_owned(),
        // Whether its disk became full is seen by the code of an error.
        format!("log_line_prefix = {}", quote(LOG_PREFIX)),
        "TimeZone = 'UTC'".to_owned(),
        "log_timezone = 'UTC'".to_owned(),
        "jit = off".to_owned(),
        // Each of its processes counts what it has touched of this; what does not fit is in the kernel's memory.
        "shared_buffers = '48MB'".to_owned(),
        "restore_command = 'false'".to_owned(),
    ];
    if settings.durable {
        // All that was copied, at once and not file by file; from version 14 on.
        if settings.meta.server_version >= 140_000 {
            lines.push("recovery_init_sync_method = 'syncfs'".to_owned());
        }
    } else {
        lines.push("fsync = off\nfull_page_writes = off\nsynchronous_commit = off".to_owned());
    }
    // From version 17 on; before, what has them fire is avoided.
    if settings.meta.server_version >= 170_000 {
        lines.push("event_triggers = off".to_owned());
    }
    for (name, value) in &settings.needs.settings {
        lines.push(format!("{name} = {}", quote(value)));
    }
    if let Some(timeline) = settings.timeline {
        lines.push(format!("recovery_target_timeline = '{timeline}'"));
    } else {
        lines.push("recovery_target_timeline = 'current'".to_owned());
    }
    if let Some(end) = settings.end {
        lines.push(target(end));
        lines.push("recovery_target_action = 'promote'".to_owned());
        write(&data.join(SIGNAL), "")?;
    } else {
        // A dump is loaded: what a table gets in the transaction that makes it needs no WAL then.
        lines.push("wal_level = minimal\nmax_wal_senders = 0".to_owned());
    }
    lines.push(String::new());
    write(&data.join(CONFIG), &lines.join("\n"))?;
    // Only who reaches the socket can connect, and that is the account that runs the server.
    write(&data.join(HBA), "local all all trust\n")?;
    write(&data.join(IDENT), "")
}

/// Where to stop. The LSN is that of the first record that is not wanted any more.
fn target(end: &StopAt) -> String {
    match end {
        StopAt::EndOfWal => String::new(),
        StopAt::Consistent => "recovery_target = 'immediate'".to_owned(),
        StopAt::Time(at) => format!(
            "recovery_target_time = '{}'\nrecovery_target_inclusive = on",
            at.format("%Y-%m-%d %H:%M:%S%.6f+00")
        ),
        StopAt::Lsn(lsn) => {
            format!("recovery_target_lsn = '{lsn}'\nrecovery_target_inclusive = off")
        }
    }
}

/// What of the source's own settings does not fit another machine, another time, or a second server beside the first.
const SKIPPED: [&str; 27] = [
    "archive_cleanup_command",
    "archive_command",
    "archive_library",
    "archive_mode",
    "config_file",
    "data_directory",
    "external_pid_file",
    "hba_file",
    // "on" keeps a server from starting where there are none; without it they are used where there are some.
    "huge_page_size",
    "huge_pages",
    "ident_file",
    "listen_addresses",
    "log_directory",
    "max_logical_replication_workers",
    "port",
    "primary_conninfo",
    "primary_slot_name",
    "promote_trigger_file",
    "recovery_end_command",
    "restore_command",
    "ssl",
    "synchronous_standby_names",
    "unix_socket_directories",
    "unix_socket_group",
    "unix_socket_permissions",
    "recovery_min_apply_delay",
    "cluster_name",
];

/// Leaves a recovered data directory as one that anybody can start: with settings of its own where it has none.
pub(super) fn finished(
    data: &Path,
    needs: &Requirements,
    port: u16,
    socket: &Path,
    account: &Account,
) -> Result<Vec<String>, RestoreError> {
    let mut notes = Vec::new();
    for file in [CONFIG, HBA, IDENT] {
        let _ = fs::remove_file(data.join(file));
    }
    let (conf, hba, ident) = (
        data.join("postgresql.conf"),
        data.join("pg_hba.conf"),
        data.join("pg_ident.conf"),
    );
    if !conf.exists() {
        write(
            &conf,
            "# Written by oa-restore: the server's own file was outside its data directory and is not in the backup.\n\
             # What recovery needs is in postgresql.auto.conf; put shared_buffers and the like here.\n",
        )?;
        notes.push("postgresql.conf was not in the backup (Debian keeps it in /etc/postgresql); a small one was written".to_owned());
    }
    take_over(data, &conf)?;
    // What the source says of these counts, where it says so; the server's own defaults are too small for large segments.
    let sizes = ["min_wal_size", "max_wal_size"];
    let own = fs::read(&conf).map_err(RestoreError::disk("could not read", &conf))?;
    let mut text: String = sizes
        .iter()
        .filter_map(|name| Some((name, needs.settings.get(*name)?)))
        .map(|(name, value)| format!("{name} = {value}\n"))
        .collect();
    text.push_str(&String::from_utf8_lossy(&own));
    write(&conf, &text)?;
    if !hba.exists() {
        write(
            &hba,
            "# Written by oa-restore: the server's own file was outside its data directory and is not in the backup.\n\
             # md5 lets in whoever has a password of either kind.\n\
             local all all peer\n\
             host all all 127.0.0.1/32 md5\n\
             host all all ::1/128 md5\n\
             local replication all peer\n\
             host replication all 127.0.0.1/32 md5\n",
        )?;
        notes.push("pg_hba.conf was not in the backup; one was written that lets users of this machine in by password, and by peer".to_owned());
    }
    if !ident.exists() {
        write(&ident, "")?;
    }
    let aside = data.join(AUTO_ASIDE);
    let source = if aside.exists() {
        fs::read(&aside).map_err(RestoreError::disk("could not read", &aside))?
    } else {
        Vec::new()
    };
    let source = String::from_utf8_lossy(&source);
    let mut text = String::new();
    for line in source.lines() {
        let (name, _) = setting(line);
        let set = needs.settings.contains_key(&name) && !sizes.contains(&name.as_str());
        if is_skipped(&name) || set {
            text.push_str(NOT_TAKEN);
        }
        text.push_str(line);
        text.push('\n');
    }
    text.push_str(&format!(
        "# By oa-restore. Reachable from this machine only, not archiving, and not following its subscriptions, until somebody decides otherwise.\n\
         listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = {}\narchive_mode = off\nsynchronous_standby_names = ''\nssl = off\n\
         max_logical_replication_workers = 0\n",
        quote(&socket.to_string_lossy())
    ));
    let others = |(name, _): &(&String, &String)| !sizes.contains(&name.as_str());
    for (name, value) in needs.settings.iter().filter(others) {
        text.push_str(&format!("{name} = {}\n", quote(value)));
    }
    write(&data.join(AUTO), &text)?;
    let _ = fs::remove_file(&aside);
    for path in [conf, hba, ident, data.join(AUTO)] {
        account.own(&path)?;
    }
    Ok(notes)
}

/// Before a line that does not count any more.
const NOT_TAKEN: &str = "# not taken over by oa-restore: ";

fn is_skipped(name: &str) -> bool {
    SKIPPED.contains(&name) || name.starts_with("recovery_target") || name.starts_with("ssl_")
}

/// A line's setting, in small letters, and its value without quotes; the equals sign may be absent.
fn setting(line: &str) -> (String, String) {
    let line = line.trim_start();
    let end = line.find(|c: char| c == '=' || c.is_whitespace());
    let (name, rest) = line.split_at(end.unwrap_or(line.len()));
    let value = rest.trim_start_matches(|c: char| c == '=' || c.is_whitespace());
    let value = match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => value.split(|c: char| c == '#' || c.is_whitespace()).next(),
    };
    (
        name.to_ascii_lowercase(),
        value.unwrap_or_default().to_owned(),
    )
}

/// Makes a comment of what is skipped in a file of the source's settings, and of those within the data directory that it includes.
/// What it includes from elsewhere is not here.
fn take_over(data: &Path, file: &Path) -> Result<(), RestoreError> {
    let source = fs::read(file).map_err(RestoreError::disk("could not read", file))?;
    let source = String::from_utf8_lossy(&source);
    let folder = file.parent().unwrap_or(data);
    let mut text = String::new();
    for line in source.lines() {
        let (name, value) = setting(line);
        let mut kept = !is_skipped(&name);
        if name.starts_with("include") {
            let included = folder.join(value);
            kept = included.starts_with(data) && included.exists();
            if kept && name == "include_dir" {
                let failed = RestoreError::disk("could not read", &included);
                for entry in fs::read_dir(&included).map_err(&failed)? {
                    let path = entry.map_err(&failed)?.path();
                    if path.extension().is_some_and(|e| e == "conf") {
                        take_over(data, &path)?;
                    }
                }
            } else if kept {
                take_over(data, &included)?;
            }
        }
        if !kept {
            text.push_str(NOT_TAKEN);
        }
        text.push_str(line);
        text.push('\n');
    }
    write(file, &text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_act_on_the_live_world_becomes_a_comment_wherever_it_is_written() {
        let data = tempfile::tempdir().unwrap();
        let conf = data.path().join("postgresql.conf");
        let more = data.path().join("conf.d");
        fs::create_dir(&more).unwrap();
        fs::write(more.join("a.conf"), "Archive_Command 'cp %p /live'\n").unwrap();
        let text = "data_directory='/live'   # x\nshared_buffers = 1GB\ninclude_dir 'conf.d'\ninclude '/etc/live.conf'\n# port = 1\n";
        fs::write(&conf, text).unwrap();
        take_over(data.path(), &conf).unwrap();
        assert_eq!(
            fs::read_to_string(&conf).unwrap(),
            "# not taken over by oa-restore: data_directory='/live'   # x\nshared_buffers = 1GB\ninclude_dir 'conf.d'\n# not taken over by oa-restore: include '/etc/live.conf'\n# port = 1\n"
        );
        assert_eq!(
            fs::read_to_string(more.join("a.conf")).unwrap(),
            "# not taken over by oa-restore: Archive_Command 'cp %p /live'\n"
        );
    }

    #[test]
    fn a_target_stops_right_before_the_lsn_and_right_after_the_time() {
        let at = "2026-11-23T06:05:00Z".parse().unwrap();
        assert_eq!(
            target(&StopAt::Time(at)),
            "recovery_target_time = '2026-11-23 06:05:00.000000+00'\nrecovery_target_inclusive = on"
        );
        assert_eq!(
            target(&StopAt::Lsn("16/B374D848".parse().unwrap())),
            "recovery_target_lsn = '16/B374D848'\nrecovery_target_inclusive = off"
        );
    }
}
