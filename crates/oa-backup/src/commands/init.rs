//! `oa-backup init`: creates the repository, and checks whether the server can be backed up.

use std::io::IsTerminal;

use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::pg;

use super::print;
use crate::PROGRAM;
use crate::capture::rights;
use crate::capture::server::{self, Server};
use crate::catalog;
use oa_repository::Programs;
use oa_repository::{Kind, RepositoryLocation, staging};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Start a new repository where an earlier one, with recorded backups, was lost
    #[arg(long)]
    anew: bool,
}

/// Creates the repositories that are configured and absent, and checks the server. Done twice it does no harm.
pub(crate) fn run(config: &Config, args: &Args) -> Result<u8, Failure> {
    let settings = config.backup_settings()?;
    // What is missing in the configuration is said before anything is made.
    let (first, secondary) = (
        super::location(config, false)?,
        RepositoryLocation::secondary(config)?,
    );
    staging::open(config, settings)?;
    let mut made = create(config, &first, args.anew)?;
    if let Some(secondary) = secondary {
        made |= create(config, &secondary, args.anew)?;
    }
    if made {
        warn_of_the_key(config);
    }
    let connection = server::settings(config)?;
    let mut client = pg::connect(&connection)?;
    let server = Server::ask(&mut client)?;
    let folder = Programs::find(settings.bin_dir.as_deref(), server.major())?;
    let programs = Programs::new(folder, &connection, None)?;
    let (kind, obstacle) = server.kind(settings.kind, &programs, &mut client)?;
    print(&format!(
        "PostgreSQL {} ({} as {}): backups will be {}\n",
        server.major(),
        server.database,
        server.role,
        kind.as_str()
    ))?;
    let unreadable = rights::missing(&mut client).map_err(Failure::from)?;
    for line in advice(&server, kind, obstacle)
        .into_iter()
        .chain(unreadable)
    {
        print(&format!("- {line}\n"))?;
    }
    print("next: oa-backup full, then the lines of crontab.example\n")?;
    Ok(exit::OK)
}

fn create(config: &Config, location: &RepositoryLocation, anew: bool) -> Result<bool, Failure> {
    if location.exists()? {
        location.open(&oa_repository::ProgressReporter::hidden())?;
        location.close_to_others();
        location.keep_spares()?;
        location.drop_former_spares()?;
        print(&format!(
            "the repository at {} is there and opens\n",
            location.shown()
        ))?;
        return Ok(false);
    }
    location.check_unoccupied()?;
    // An empty folder on the system's disk looks like the one that is mounted over it.
    if let Some(vanished) = location.vanished(config).filter(|_| !anew) {
        return Err(Failure::new(exit::REFUSED, vanished));
    }
    location.create()?;
    // Its folder, and what was in there before, may be open.
    location.close_to_others();
    if anew {
        let mut client = pg::connect(&pg::Settings::from_config(config, PROGRAM)?)?;
        catalog::begin_anew(&mut client, location).map_err(|e| {
            anyhow::anyhow!(
                "could not record that {} begins anew: {}",
                location.shown(),
                pg::describe(&e)
            )
        })?;
    }
    print(&format!("created the repository at {}\n", location.shown()))?;
    Ok(true)
}

fn warn_of_the_key(config: &Config) {
    let red = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (on, off) = if red {
        ("\u{1b}[1;31m", "\u{1b}[0m")
    } else {
        ("", "")
    };
    let text = format!(
        "{on}WITHOUT THE PASSWORD NOBODY CAN RESTORE ANYTHING, not even its makers.{off}\n\
         Now, before the first backup: write down on paper, and keep a copy where the same fire cannot reach it,\n\
         \x20 1. the password ({} says where it is),\n  2. where the repository is,\n  3. the address of docs/disaster.md.\n",
        config.path.display()
    );
    let _ = std::io::Write::write_all(&mut std::io::stderr().lock(), text.as_bytes());
}

/// What should be set on the server, and why.
fn advice(server: &Server, kind: Kind, obstacle: Option<String>) -> Vec<String> {
    let setting = |name: &str| server.advice.get(name).map_or("", String::as_str);
    let mut lines = Vec::new();
    if kind == Kind::Logical {
        lines.extend(obstacle.map(|why| format!("for restores to any second: {why}")));
        return lines;
    }
    if setting("max_slot_wal_keep_size").starts_with("-1") {
        lines.push("max_slot_wal_keep_size is not limited: if no backup runs for long, WAL fills the server's disk. ALTER SYSTEM SET max_slot_wal_keep_size = '20GB'".to_owned());
    }
    if setting("wal_compression") == "off" {
        lines.push("wal_compression is off: whole pages are written to the WAL uncompressed. ALTER SYSTEM SET wal_compression = 'lz4'".to_owned());
    }
    if setting("data_checksums") == "off" {
        lines.push("data checksums are off: a damaged page is noticed only when it is read. pg_checksums --enable, with the server stopped".to_owned());
    }
    lines
}
