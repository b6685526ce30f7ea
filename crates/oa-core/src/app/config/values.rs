//! Values of the right type that nobody can mean.

use std::path::Path;
use std::time::Duration;

use super::{Backup, ConfigFile, Database, SecretRef};

/// PostgreSQL counts the milliseconds of a timeout in 31 bits.
const LONGEST_STATEMENT: Duration = Duration::from_millis(i32::MAX as u64);

pub(super) fn check(file: &ConfigFile) -> Result<(), String> {
    database(&file.database)?;
    if file.spool.max_size.0 == 0 {
        return Err(
            "max_size in [spool] is 0, so nothing could wait while PostgreSQL is down; write a size such as \"1GiB\"".to_owned(),
        );
    }
    let backup = file.backup.iter().flat_map(Backup::paths_in_use);
    let own = [
        Some(file.state_dir.as_path()),
        file.calendar.as_deref(),
        file.crawl.sources.as_deref(),
        file.crawl.ca_file.as_deref(),
    ];
    own.into_iter().flatten().chain(backup).try_for_each(path)
}

fn database(of: &Database) -> Result<(), String> {
    if of.connect_timeout.0 < Duration::from_millis(1) {
        return Err(
            "connect_timeout in [database] is 0, so no server could answer in time; write a duration such as \"10s\"".to_owned(),
        );
    }
    let statement = of.statement_timeout.0;
    if statement > LONGEST_STATEMENT
        || (statement < Duration::from_millis(1) && !statement.is_zero())
    {
        return Err(
            "statement_timeout in [database] is between 1 ms and 24 days, or 0 for no limit"
                .to_owned(),
        );
    }
    match &of.url {
        Some(SecretRef::Env(name)) if name.is_empty() || name.contains(char::is_whitespace) => Err(
            "url in [database] names no environment variable; write \"env:DATABASE_URL\""
                .to_owned(),
        ),
        _ => Ok(()),
    }
}

fn path(path: &Path) -> Result<(), String> {
    if path.as_os_str().is_empty() {
        return Err("a path is empty; write it, or remove its line for the default".to_owned());
    }
    if path.starts_with("~") {
        return Err(format!(
            "\"{}\" begins with ~, which only a shell understands; write the whole path, such as /home/NAME/…",
            path.display()
        ));
    }
    Ok(())
}
