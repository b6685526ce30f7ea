//! `oa-restore cluster`: a data directory that is ready to run.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use oa_core::cli::Failure;
use oa_core::config::{BackupKind, Config};
use oa_core::exit;
use oa_core::failpoint;
use oa_core::output::{Format, Listing};
use oa_core::runs::Trigger;
use oa_core::runs::work::{Ended, Job};
use oa_core::supervise::Launch;
use oa_repository::ProgressReporter as Bars;
use serde_json::json;

use super::plan;
use super::target_dir::{ROOM_ON_THE_WAY, TargetDir};
use crate::choose::{Choice, Physical, Way};
use crate::options::{Asked, Kind, Manner};
use crate::recover::account::Account;
use crate::recover::{self, Work};
use crate::session::{Session, recorded};
use crate::{PROGRAM, RestoreError};

/// How it is done.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// The moment.
    #[command(flatten)]
    pub asked: Asked,
    /// The data directory: absent or empty
    #[arg(long, value_name = "DIR")]
    pub target_dir: PathBuf,
    /// Start the server there
    #[arg(long)]
    pub start: bool,
    /// Its port on 127.0.0.1 [default: the first free one from 5432 on]
    #[arg(long)]
    pub port: Option<u16>,
    /// Whose it will be, when oa-restore runs as root
    #[arg(long, value_name = "USER", default_value = "postgres")]
    pub owner: String,
    /// Move aside what is in the directory
    #[arg(long)]
    pub force: bool,
    /// How.
    #[command(flatten)]
    pub manner: Manner,
}

/// How long a recovered server may take to start.
const START: Duration = Duration::from_secs(3600);

/// Restores a cluster.
///
/// # Errors
/// When nothing leads to that moment, the directory is not empty, or a step fails; run again it goes on.
pub fn run(config: &Config, wanted: &Wanted, bars: &Bars) -> Result<u8, Failure> {
    let (asked, manner) = (&wanted.asked, &wanted.manner);
    if asked.kind == Kind::Logical {
        return Err(RestoreError::Refused(
            "a dump holds no cluster; restore it with oa-restore database".to_owned(),
        )
        .into());
    }
    let session = Session::open(config, asked.from_copy, bars)?;
    let work = Work::begin(&session.staging)?;
    let choice = session.choose(asked, BackupKind::Physical, None, &work)?;
    let Way::Physical(physical) = &choice.way else {
        return Err(RestoreError::NoWay(format!(
            "backup {} is a dump and holds no cluster; restore it with oa-restore database",
            choice.backup().short_id()
        ))
        .into());
    };
    if manner.dry_run {
        return plan::tell(&session, &choice, manner.format);
    }
    let system = physical.full.meta.system_id.as_str();
    let histories = session.chooser(&[system], &work).histories(system)?;
    let account = Account::find(&[wanted.owner.as_str()])?;
    let dir = TargetDir::look(
        &wanted.target_dir,
        &format!("full backup {}", physical.full.id),
        wanted.force,
        manner.yes,
    )?;
    let parent = dir.parent().to_owned();
    if !account.reaches(&parent) {
        return Err(RestoreError::Refused(format!(
            "user {} cannot get into {}, and PostgreSQL does not run as root; restore into a directory such as /var/lib/postgresql/restored, or let that user in",
            account.name(),
            parent.display()
        ))
        .into());
    }
    let usual = tablespaces_of(dir.path());
    let dir = if physical.full.meta.tablespaces.is_empty() {
        dir
    } else {
        dir.with(&usual)
    };
    let tablespaces = dir.part().unwrap_or(&usual).to_owned();
    recover::room(&[dir.need(physical.size_bytes())])?;
    let job = Job {
        trigger: Trigger::Manual,
        ..Job::by_hand(PROGRAM, "restore-cluster", "集群恢复")
    };
    let done = recorded(config, &job, |_| {
        let way = Restore {
            physical,
            histories: &histories,
            dir: &dir,
            tablespaces: &tablespaces,
            account: &account,
            work: &work,
        };
        let done = restore(&session, &way, wanted).map_err(|e| {
            e.in_private()
                .on_disk_of(dir.path().display(), ROOM_ON_THE_WAY)
        })?;
        let mut ended = Ended::success(done);
        ended
            .details
            .insert("backup".to_owned(), json!(physical.full.id));
        ended
            .details
            .insert("to".to_owned(), json!(choice.target.to_string()));
        Ok(ended)
    })?;
    tell(&session, &choice, &dir, &account, &done, manner.format)?;
    Ok(exit::OK)
}

/// What came of it.
struct Done {
    port: u16,
    socket: PathBuf,
    notes: Vec<String>,
    started: bool,
    command: String,
}

/// From what, to where, and as whom.
struct Restore<'a> {
    physical: &'a Physical,
    histories: &'a BTreeMap<String, Vec<u8>>,
    dir: &'a TargetDir,
    tablespaces: &'a Path,
    account: &'a Account,
    work: &'a Work,
}

fn restore(
    session: &Session<'_>,
    way: &Restore<'_>,
    wanted: &Wanted,
) -> Result<Done, RestoreError> {
    let &Restore {
        physical,
        histories,
        dir,
        tablespaces,
        account,
        work,
    } = way;
    let data = dir.path();
    dir.begin()?;
    // Whatever log an earlier try has fetched may be more than is wanted now.
    let stale = data.join("pg_wal");
    if stale.is_dir() {
        std::fs::remove_dir_all(&stale).map_err(RestoreError::disk("could not remove", &stale))?;
    }
    recover::copy(&session.reader, physical, data, tablespaces)?;
    failpoint::hit("restore.copied");
    recover::link(data, tablespaces)?;
    recover::log_of(&session.reader, physical, data)?;
    recover::histories(histories, data)?;
    account.own(data)?;
    if dir.part().is_some() {
        account.own(tablespaces)?;
    }
    dir.changing()?;
    failpoint::hit("restore.changing");
    let (mut notes, needs) = recover::in_place(physical, account, data, work, session.users())?;
    failpoint::hit("restore.recovered");
    let port = wanted.port.unwrap_or_else(free_port);
    let socket = socket_folder(account);
    notes.extend(recover::finish_settings(
        &needs, data, port, &socket, account,
    )?);
    dir.done()?;
    let command = start_command(physical, data, account);
    if wanted.start {
        start(physical, data, account)?;
    }
    Ok(Done {
        port,
        socket,
        notes,
        started: wanted.start,
        command,
    })
}

/// Beside the data directory, where PostgreSQL wants tablespaces to be.
fn tablespaces_of(data: &Path) -> PathBuf {
    let name = data.file_name().unwrap_or_default().to_string_lossy();
    data.with_file_name(format!("{name}-tablespaces"))
}

fn free_port() -> u16 {
    (5432..6432)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .unwrap_or(5432)
}

/// Debian's place for sockets, if this account can use it.
fn socket_folder(account: &Account) -> PathBuf {
    let usual = Path::new("/var/run/postgresql");
    let writable = account
        .command(Path::new("test"))
        .arg("-w")
        .arg(usual)
        .current_dir("/")
        .status();
    if writable.is_ok_and(|s| s.success()) {
        usual.to_owned()
    } else {
        PathBuf::from("/tmp")
    }
}

fn pg_ctl(physical: &Physical, data: &Path) -> Vec<String> {
    vec![
        physical.programs.join("pg_ctl").display().to_string(),
        format!("--pgdata={}", data.display()),
        format!("--log={}", data.join("server.log").display()),
        format!("--timeout={}", START.as_secs()),
        "--wait".to_owned(),
        "start".to_owned(),
    ]
}

fn start_command(physical: &Physical, data: &Path, account: &Account) -> String {
    let quoted = |word: &String| {
        if word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "/-_=.".contains(c))
        {
            word.clone()
        } else {
            format!("'{}'", word.replace('\'', "'\\''"))
        }
    };
    let words: Vec<String> = pg_ctl(physical, data).iter().map(quoted).collect();
    let line = words.join(" ");
    if rustix::process::geteuid().is_root() {
        format!("runuser -u {} -- {line}", account.name())
    } else {
        line
    }
}

fn start(physical: &Physical, data: &Path, account: &Account) -> Result<(), RestoreError> {
    let words = pg_ctl(physical, data);
    let mut command = account.command(Path::new(&words[0]));
    command.args(&words[1..]).current_dir("/");
    let launch = Launch {
        leaves_daemon: true,
        ..Launch::new(START)
    };
    let finished = launch
        .run(&mut command)
        .map_err(RestoreError::disk("could not run", Path::new(&words[0])))?;
    if finished.status.success() {
        return Ok(());
    }
    let log = std::fs::read_to_string(data.join("server.log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&finished.stderr).into_owned();
    let last = |text: &str| {
        let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
        lines[lines.len().saturating_sub(4)..].join("; ")
    };
    Err(RestoreError::Server {
        doing: "the cluster is restored, but its server did not start",
        said: [last(&said), last(&log)].join("; "),
    })
}

fn tell(
    session: &Session<'_>,
    choice: &Choice,
    dir: &TargetDir,
    account: &Account,
    done: &Done,
    format: Format,
) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("target_dir", "data directory"),
        ("moment_shown", "as of"),
        ("port", "port"),
        ("owner", "owner"),
        ("started", "started"),
    ]);
    listing.push(json!({
        "target_dir": dir.path(), "moment": choice.moment, "moment_shown": session.shown(choice.moment), "port": done.port,
        "socket_dir": done.socket, "owner": account.name(), "started": done.started, "start_command": done.command, "notes": done.notes,
        "backup": choice.backup().id, "tablespaces_dir": dir.part(),
    }));
    listing.print(format).map_err(anyhow::Error::from)?;
    for note in &done.notes {
        tracing::warn!("{note}");
    }
    if format == Format::Table {
        let text = if done.started {
            format!("\nIt runs: psql -h 127.0.0.1 -p {}\n", done.port)
        } else {
            format!("\nStart it with:\n  {}\n", done.command)
        };
        let more = "It takes connections from this machine only and archives nothing: see the end of postgresql.auto.conf there.\n";
        oa_core::cli::print(&format!("{text}{more}")).map_err(anyhow::Error::from)?;
    }
    Ok(())
}
