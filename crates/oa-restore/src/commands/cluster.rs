//! `oa-restore cluster`: a data directory that is ready to run.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::{BackupKind, Config};
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::base::supervise::Launch;
use oa_core::pg::{self, Settings};
use serde_json::json;

use super::options::{Kind, RunArgs, TargetArgs};
use super::session::{Session, recorded};
use super::target_dir::{REMEDY_ON_THE_WAY, TargetDir, keep_off};
use crate::disk::check_room;
use crate::live::runs;
use crate::plan::target::Target;
use crate::plan::{Physical, RestorePlan, Strategy};
use crate::recover::account::Account;
use crate::recover::{self, WorkFolder};
use crate::{PROGRAM, RestoreError};

/// Restore a whole cluster into a directory, recovered and ready to run
#[derive(Debug, clap::Args)]
#[command(
    after_help = "PostgreSQL need not run. If it is interrupted, run the same command again: it continues where it was.\n\nExamples:\n  oa-restore cluster --to latest --target-dir /var/lib/postgresql/restored\n  oa-restore cluster --to \"2026-11-23 14:05\" --target-dir /srv/restored --start\n  oa-restore cluster --to latest --target-dir /srv/restored --dry-run"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// The data directory: absent or empty
    #[arg(long, value_name = "DIR")]
    target_dir: PathBuf,
    /// Start the server there
    #[arg(long)]
    start: bool,
    /// Its port on 127.0.0.1 [default: the first free one from 5432 on]
    #[arg(long)]
    port: Option<u16>,
    /// The user who will own it, when oa-restore runs as root
    #[arg(long, value_name = "USER", default_value = "postgres")]
    owner: String,
    /// Move aside what is in the directory
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// How long a recovered server may take to start.
const START_TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) fn run(args: &Args, config: &Config, quiet: bool) -> Result<u8, Failure> {
    if args.target.kind == Kind::Logical {
        return Err(RestoreError::Refused(
            "a dump holds no cluster; restore it with oa-restore database".to_owned(),
        )
        .into());
    }
    let bars = args.run.bars(quiet);
    let session = Session::open(config, args.target.from_copy, &bars)?;
    let work = WorkFolder::begin(&session.staging)?;
    let plan = session.plan(&args.target, BackupKind::Physical, None, &work)?;
    let Strategy::Physical(physical) = &plan.strategy else {
        return Err(RestoreError::NoPlan(format!(
            "backup {} is a dump and holds no cluster; restore it with oa-restore database",
            plan.backup().short_id()
        ))
        .into());
    };
    if args.run.dry_run {
        return super::plan::print_dry_run(&session, &plan, config, args.run.format);
    }
    let system = physical.full.meta.system_id.as_str();
    let histories = session.planner(&[system], &work).histories(system)?;
    let account = Account::find(&[args.owner.as_str()])?;
    let of = format!("full backup {}", physical.full.id);
    keep_off(&args.target_dir, session.place.folder(), &session.staging)?;
    let dir = TargetDir::look(&args.target_dir, &of, args.force, args.run.yes)?;
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
    check_room(&[dir.need(physical.size_bytes())])?;
    let job = Job::by_hand(PROGRAM, "restore-cluster", "集群恢复");
    let restored = recorded(config, &job, |_| {
        let restore = ClusterRestore {
            physical,
            histories: &histories,
            dir: &dir,
            tablespaces: &tablespaces,
            account: &account,
            work: &work,
            cut_off: !matches!(plan.target, Target::Latest),
        };
        let restored = restore.run(&session, config, args).map_err(|e| {
            e.in_private()
                .on_disk_of(dir.path().display(), REMEDY_ON_THE_WAY)
        })?;
        let mut ended = JobOutcome::success(restored);
        for (key, value) in [
            ("backup", json!(physical.full.id)),
            ("to", json!(plan.target.to_string())),
        ] {
            ended.details.insert(key.to_owned(), value);
        }
        Ok(ended)
    })?;
    report(&session, &plan, &dir, &account, &restored, args.run.format)?;
    Ok(exit::OK)
}

struct RestoredCluster {
    port: u16,
    socket: PathBuf,
    notes: Vec<String>,
    started: bool,
    command: String,
}

/// From what, to where, and as whom.
struct ClusterRestore<'a> {
    physical: &'a Physical,
    histories: &'a BTreeMap<String, Vec<u8>>,
    dir: &'a TargetDir,
    tablespaces: &'a Path,
    account: &'a Account,
    work: &'a WorkFolder,
    /// There was more than is restored.
    cut_off: bool,
}

impl ClusterRestore<'_> {
    fn run(
        &self,
        session: &Session<'_>,
        config: &Config,
        args: &Args,
    ) -> Result<RestoredCluster, RestoreError> {
        let &Self {
            physical,
            histories,
            dir,
            tablespaces,
            account,
            work,
            cut_off,
        } = self;
        let data = dir.path();
        dir.begin()?;
        // Whatever WAL an earlier attempt has fetched may be more than is wanted now.
        let stale = data.join("pg_wal");
        if stale.is_dir() {
            std::fs::remove_dir_all(&stale)
                .map_err(RestoreError::disk("could not remove", &stale))?;
        }
        recover::copy_files(&session.reader, physical, data, tablespaces)?;
        failpoint::hit("restore.copied");
        recover::relink_tablespaces(data, tablespaces)?;
        recover::fetch_wal(&session.reader, physical, data)?;
        recover::write_histories(histories, data)?;
        account.own(data)?;
        if dir.part().is_some() {
            account.own(tablespaces)?;
        }
        dir.changing()?;
        failpoint::hit("restore.changing");
        // The server that is restored here need not answer any more.
        let mut live = Settings::from_config(config, PROGRAM)
            .ok()
            .and_then(|settings| pg::connect(&settings).ok());
        let mut since = runs::Since {
            live: live.as_mut(),
            backups: &session.backups,
            cut_off,
        };
        let (mut notes, needs) =
            recover::recover_in_place(physical, account, data, work, session.users(), |client| {
                runs::close(client, &mut since)
            })?;
        failpoint::hit("restore.recovered");
        let port = args.port.unwrap_or_else(free_port);
        let socket = socket_folder(account);
        notes.extend(recover::finish_settings(
            &needs, data, port, &socket, account,
        )?);
        dir.done()?;
        let command = start_command(physical, data, account);
        if args.start {
            start(physical, data, account)?;
        }
        Ok(RestoredCluster {
            port,
            socket,
            notes,
            started: args.start,
            command,
        })
    }
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

/// Debian's folder for sockets, if this account can use it.
fn socket_folder(account: &Account) -> PathBuf {
    let usual = Path::new("/var/run/postgresql");
    if account.writes(usual) {
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
        format!("--timeout={}", START_TIMEOUT.as_secs()),
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
        ..Launch::new(START_TIMEOUT)
    };
    let finished = launch
        .run(&mut command)
        .map_err(RestoreError::disk("could not run", Path::new(&words[0])))?;
    if finished.status.success() {
        return Ok(());
    }
    // Only for the error's text: without the log, what pg_ctl said must do.
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

fn report(
    session: &Session<'_>,
    plan: &RestorePlan,
    dir: &TargetDir,
    account: &Account,
    restored: &RestoredCluster,
    format: Format,
) -> Result<(), Failure> {
    let mut listing = Listing::new(&[
        ("target_dir", "data directory"),
        ("as_of_shown", "as of"),
        ("port", "port"),
        ("owner", "owner"),
        ("started", "started"),
    ]);
    listing.push(json!({
        "target_dir": dir.path(), "as_of": plan.as_of, "as_of_shown": session.shown(plan.as_of), "port": restored.port,
        "socket_dir": restored.socket, "owner": account.name(), "started": restored.started, "start_command": restored.command, "notes": restored.notes,
        "backup": plan.backup().id, "tablespaces_dir": dir.part(),
    }));
    listing.print(format).map_err(anyhow::Error::from)?;
    for note in &restored.notes {
        tracing::warn!("{note}");
    }
    if format == Format::Table {
        let text = if restored.started {
            format!("\nIt runs: psql -h 127.0.0.1 -p {}\n", restored.port)
        } else {
            format!("\nStart it with:\n  {}\n", restored.command)
        };
        let more = "It accepts connections from this machine only and archives nothing: see the end of postgresql.auto.conf there.\n";
        cli::print(&format!("{text}{more}")).map_err(anyhow::Error::from)?;
    }
    Ok(())
}
