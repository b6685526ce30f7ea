//! What every command needs: the repository opened, its backups, a plan, and a row in the run log.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeSet;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use oa_core::app::cli::Failure;
use oa_core::app::config::{Backup as Settings, BackupKind, Config, ConfigError};
use oa_core::app::exit;
use oa_core::app::sibling;
use oa_core::app::work::{self, Job, JobOutcome};
use oa_core::base::state_dir::StateDir;
use oa_core::base::supervise::readable;
use oa_core::journal::{Recorder, catalog};
use oa_core::model::run::RunStart;
use oa_core::pg::{self, schema};
use oa_repository::staging;
use oa_repository::{
    Backup, Kind, Level, ProgressReporter, Reader, RepositoryError, RepositoryLocation,
};

use super::options::{Kind as TargetKind, TargetArgs};
use crate::live::LiveServer;
use crate::plan::target::{Target, shown};
use crate::plan::{self, Planner, RestorePlan, Strategy};
use crate::recover::WorkFolder;
use crate::{PROGRAM, RestoreError};

#[derive(Debug)]
pub(crate) struct Session<'a> {
    /// `[backup]`
    pub(crate) settings: &'a Settings,
    pub(crate) place: RepositoryLocation,
    /// Oldest first.
    pub(crate) backups: Vec<Backup>,
    pub(crate) reader: Reader,
    /// Where private servers stand.
    pub(crate) staging: PathBuf,
    /// The database of the configured address.
    database: Option<String>,
    /// Those of the configured addresses: a restored cluster knows them.
    users: Vec<String>,
    zone: Tz,
    config: &'a Config,
    /// The current time, once it was asked for.
    now: OnceCell<DateTime<Utc>>,
}

impl<'a> Session<'a> {
    /// Opens the repository. PostgreSQL is not needed, nor its address.
    pub(crate) fn open(
        config: &'a Config,
        from_copy: bool,
        bars: &ProgressReporter,
    ) -> Result<Self, Failure> {
        let settings = config.backup_settings()?;
        let place = if from_copy {
            RepositoryLocation::secondary(config)?.ok_or_else(|| {
                Failure::from(RepositoryError::Place(
                    "there is no [backup.copy] in the configuration; see docs/configuration.md"
                        .to_owned(),
                ))
            })?
        } else {
            RepositoryLocation::primary(config)?
        };
        let repository = place.open_recorded(config, bars)?;
        let (backups, damages) = repository.readable_backups()?;
        for damage in &damages {
            tracing::warn!("skipped: {}", damage.what);
        }
        let reader = repository.reader()?;
        let (database, users) = names(config);
        Ok(Self {
            settings,
            place,
            backups,
            reader,
            staging: staging::open(config, settings)?.path().to_owned(),
            database,
            users,
            zone: config.timezone,
            config,
            now: OnceCell::new(),
        })
    }

    /// Leaves out the backups of other services that use the same repository, as far as it is known whose they are. `id`: one that is named
    /// is this service's to use, whosever it is.
    pub(crate) fn leave_out_others(&mut self, id: Option<&str>) -> Result<(), RestoreError> {
        if id.is_some() {
            return Ok(());
        }
        let all = self.systems_of(|_| true);
        let own = self.own(&all, "name a backup by its id")?;
        let own: Vec<String> = own.into_iter().map(str::to_owned).collect();
        self.backups.retain(|b| own.contains(&b.meta.system_id));
        Ok(())
    }

    /// Of the clusters in the repository those that are this service's: as PostgreSQL knows, and where it does not answer, those whose WAL
    /// this machine has received. All where there is but one; an error where there are several, and nobody can say.
    fn own<'s>(&self, all: &[&'s str], remedy: &str) -> Result<Vec<&'s str>, RestoreError> {
        if all.len() < 2 {
            return Ok(all.to_vec());
        }
        let known = pg::Settings::from_config(self.config, PROGRAM)
            .ok()
            .and_then(|settings| pg::connect(&settings).ok())
            .and_then(|mut client| catalog::own_clusters(&mut client).ok());
        let is_own = |id: &&&str| match &known {
            Some(own) => own.contains(**id),
            None => staging::wal_folder(&self.staging, id).is_dir(),
        };
        let own: Vec<&str> = all.iter().filter(is_own).copied().collect();
        if own.is_empty() {
            return Err(RestoreError::NoPlan(format!(
                "the repository holds {}, and nobody can say which of them is this service's; {remedy}",
                self.describe_systems(all.iter())
            )));
        }
        Ok(own)
    }

    pub(crate) fn users(&self) -> &[String] {
        &self.users
    }

    /// A time as people of this service read it.
    pub(crate) fn shown(&self, at: DateTime<Utc>) -> String {
        shown(at, self.zone)
    }

    /// The current time by the live server's clock, by which "10 min ago" is meant; by this machine's where it does not answer, unless
    /// the backups show that that one is behind.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        *self.now.get_or_init(|| {
            server_clock(self.config).unwrap_or_else(|| {
                let of =
                    |system: &str| {
                        plan::clock(self.backups.iter().filter(|b| {
                            b.meta.kind == Kind::Physical && b.meta.system_id == system
                        }))
                    };
                let known = self.systems().into_iter().map(of).max();
                known.unwrap_or_else(Utc::now)
            })
        })
    }

    /// Reads `--to`.
    pub(crate) fn target(&self, text: &str) -> Result<Target, Failure> {
        Ok(Target::parse(text, self.zone, || self.now())?)
    }

    /// A target of a moment ago is in no backup yet: where it goes back into the server that it is of, what was written since the last
    /// backup is backed up first. Returns what would be done, and does nothing, with `dry_run`.
    pub(crate) fn catch_up(
        &mut self,
        config: &'a Config,
        args: &TargetArgs,
        live: &mut LiveServer,
        (bars, dry_run): (&ProgressReporter, bool),
    ) -> Result<Option<String>, Failure> {
        let now = live.now()?;
        self.now = OnceCell::from(now);
        let Target::Time(at) = self.target(&args.to)? else {
            return Ok(None);
        };
        let elsewhere = args.from_copy || args.system.is_some() || args.kind == TargetKind::Logical;
        let Some(newest) = self.newest_of(live).filter(|_| !elsewhere) else {
            return Ok(None);
        };
        if at <= newest || at > now {
            return Ok(None);
        }
        let since = self.shown(newest);
        if dry_run {
            return Ok(Some(format!(
                "first what was written since {since} would be backed up: oa-backup incremental"
            )));
        }
        tracing::info!("backing up what was written since {since}");
        let day = std::time::Duration::from_secs(24 * 3600);
        let done = sibling::run("oa-backup", config, &["incremental"], day);
        // Another one that runs already may have done it.
        *self = Self {
            now: OnceCell::from(now),
            ..Self::open(config, false, bars)?
        };
        if self.newest_of(live).is_some_and(|newest| at <= newest) {
            return Ok(None);
        }
        let why = match done {
            Ok(done) => readable(&done.stderr).trim().to_owned(),
            Err(e) => e.to_string(),
        };
        Err(RestoreError::NoPlan(format!(
            "{} is later than what is backed up ({since}), and what was written since could not be backed up: {why}",
            self.shown(at)
        ))
        .into())
    }

    /// Up to when the live server's own physical backups go, where it has some.
    fn newest_of(&self, live: &LiveServer) -> Option<DateTime<Utc>> {
        let system = live.system_id.as_deref()?;
        let of_it = self
            .backups
            .iter()
            .filter(|b| b.meta.kind == Kind::Physical && b.meta.system_id == system);
        of_it.map(|b| b.meta.restorable_to).max()
    }

    /// The plan for a target. `live`: the server that it will go into; another cluster's backups are none for it.
    pub(crate) fn plan(
        &self,
        args: &TargetArgs,
        kind: BackupKind,
        live: Option<&LiveServer>,
        work: &WorkFolder,
    ) -> Result<RestorePlan, Failure> {
        let target = self.target(&args.to)?;
        let all = self.systems();
        let mut notes = Vec::new();
        let systems = match &target {
            Target::Backup(_) => all.clone(),
            _ => self.systems_for(args, live, &all, &mut notes)?,
        };
        let kind = match (&args.full, kind) {
            (Some(_), BackupKind::Logical) => {
                return Err(RestoreError::Target(
                    "--full names a physical backup, and --kind logical wants a dump".to_owned(),
                )
                .into());
            }
            (Some(_), _) => BackupKind::Physical,
            (None, kind) => kind,
        };
        if let Some(id) = args.full.as_deref().filter(|id| !self.has_full(id)) {
            return Err(RestoreError::NoPlan(format!(
                "there is no full physical backup {id}; see oa-backup list"
            ))
            .into());
        }
        let mut planner = self.planner(&systems, work);
        planner.full = args.full.as_deref();
        planner.failed = self.failed();
        let found = planner
            .plan(&target, kind)
            .map_err(|e| match (e, &args.full) {
                (RestoreError::NoPlan(text), Some(id)) => {
                    RestoreError::NoPlan(format!("beginning with full backup {id}: {text}"))
                }
                (e, _) => e,
            });
        let mut plan = found.map_err(|e| match e {
            RestoreError::NoPlan(text) if systems.len() < all.len() => {
                let others = all.iter().filter(|s| !systems.contains(s));
                RestoreError::NoPlan(format!(
                    "{text}. The repository also holds {}: take that with --system",
                    self.describe_systems(others)
                ))
            }
            other => other,
        })?;
        if let Some(id) = args
            .full
            .as_ref()
            .filter(|id| !plan.backup().id.starts_with(*id))
        {
            return Err(RestoreError::NoPlan(format!(
                "no full physical backup {id} leads to {target}; see oa-backup list"
            ))
            .into());
        }
        let damaged = &plan.backup().meta.damaged;
        if !damaged.is_empty() {
            notes.push(format!(
                "the server had damaged pages when backup {} was made, and they are restored as they were: {}. A time before the damage may have them whole",
                plan.backup().short_id(),
                damaged.join("; ")
            ));
        }
        let system = &plan.backup().meta.system_id;
        if live
            .and_then(|live| live.system_id.as_ref())
            .is_some_and(|mine| mine != system)
        {
            notes.push(format!(
                "this backup is of another cluster (system {system}) than the live server"
            ));
        }
        if let (Some(live), Strategy::Logical(dump)) = (live, &plan.strategy)
            && dump.backup.meta.database != live.database
        {
            notes.push(format!(
                "the dump is of database {}, and the address's is {}",
                dump.backup.meta.database, live.database
            ));
        }
        plan.notes.extend(notes);
        for note in &plan.notes {
            tracing::warn!("{note}");
        }
        Ok(plan)
    }

    fn has_full(&self, id: &str) -> bool {
        self.backups.iter().any(|b| {
            b.meta.kind == Kind::Physical && b.meta.level == Level::Full && b.id.starts_with(id)
        })
    }

    /// Those whose verification failed, where PostgreSQL answers, which knows it.
    fn failed(&self) -> BTreeSet<String> {
        const FAILED: &str =
            "SELECT id FROM oa.backups WHERE check_error IS NOT NULL AND removed_at IS NULL";
        let client = pg::Settings::from_config(self.config, PROGRAM)
            .ok()
            .and_then(|settings| pg::connect(&settings).ok());
        let rows = client.and_then(|mut client| client.query(FAILED, &[]).ok());
        let rows = rows.unwrap_or_default();
        rows.iter().map(|row| row.get(0)).collect()
    }

    /// For looking at the backups of these clusters.
    pub(crate) fn planner<'s>(
        &'s self,
        systems: &'s [&'s str],
        work: &'s WorkFolder,
    ) -> Planner<'s> {
        Planner {
            backups: &self.backups,
            systems,
            reader: &self.reader,
            full: None,
            failed: BTreeSet::new(),
            settings: self.settings,
            database: self.database.as_deref(),
            zone: self.zone,
            scratch: work.folder(),
            reached: RefCell::default(),
            names: RefCell::default(),
        }
    }

    /// The clusters of which there are backups, the one that was backed up last first.
    pub(crate) fn systems(&self) -> Vec<&str> {
        self.systems_of(|kind| kind != Kind::Files)
    }

    fn systems_of(&self, counts: impl Fn(Kind) -> bool) -> Vec<&str> {
        let mut systems = Vec::new();
        for backup in self.backups.iter().rev() {
            let id = backup.meta.system_id.as_str();
            if counts(backup.meta.kind) && !systems.contains(&id) {
                systems.push(id);
            }
        }
        systems
    }

    /// The backups of files out of which `--to` may choose.
    pub(crate) fn files(&self, args: &TargetArgs, target: &Target) -> Result<Vec<Backup>, Failure> {
        if args.full.is_some() {
            let said = "--full is for what is restored from a physical backup; files are not";
            return Err(RestoreError::Target(said.to_owned()).into());
        }
        let mut found = self.backups.clone();
        found.retain(|b| b.meta.kind == Kind::Files);
        // Where there is none, the plan says so.
        if found.is_empty() || matches!(target, Target::Backup(_)) {
            return Ok(found);
        }
        // Of all clusters: where another one's files are the only ones, they are not this service's for that.
        let all = self.systems_of(|_| true);
        let mut notes = Vec::new();
        let systems = self.systems_for(args, None, &all, &mut notes)?;
        for note in notes {
            tracing::warn!("{note}");
        }
        found.retain(|b| systems.contains(&b.meta.system_id.as_str()));
        Ok(found)
    }

    fn systems_for<'s>(
        &'s self,
        args: &TargetArgs,
        live: Option<&LiveServer>,
        all: &[&'s str],
        notes: &mut Vec<String>,
    ) -> Result<Vec<&'s str>, RestoreError> {
        if let Some(wanted) = &args.system {
            let found = all.iter().find(|s| *s == wanted);
            return found.map(|s| vec![*s]).ok_or_else(|| {
                RestoreError::NoPlan(format!(
                    "the repository has no backup of a cluster with system id {wanted}; it has {}",
                    self.describe_systems(all.iter())
                ))
            });
        }
        let Some(live) = live else {
            let own = self.own(
                all,
                "say which one with --system, or name a backup with --to",
            )?;
            let others: Vec<&&str> = all.iter().filter(|s| !own.contains(s)).collect();
            if !others.is_empty() {
                notes.push(format!(
                    "the repository also holds {}: take that with --system",
                    self.describe_systems(others.into_iter())
                ));
            }
            if own.len() > 1 {
                notes.push(format!(
                    "the repository holds {}: the newest that had that point in time is taken; choose another one with --system",
                    self.describe_systems(own.iter())
                ));
            }
            return Ok(own);
        };
        if let Some(own) = all.iter().find(|s| live.system_id.as_deref() == Some(**s)) {
            return Ok(vec![*own]);
        }
        if all.len() > 1 {
            return Err(RestoreError::NoPlan(format!(
                "none of the clusters in the repository is the live server: it holds {}; say which one with --system, or name a backup with --to",
                self.describe_systems(all.iter())
            )));
        }
        if !all.is_empty() {
            notes.push(format!(
                "the live server is another one than that of the backups: they are of {}",
                self.describe_systems(all.iter())
            ));
        }
        Ok(all.to_vec())
    }

    fn describe_systems<'s>(&self, systems: impl Iterator<Item = &'s &'s str>) -> String {
        let one = |id: &&str| {
            let newest = self
                .backups
                .iter()
                .filter(|b| b.meta.system_id == **id)
                .max_by_key(|b| (b.meta.kind != Kind::Files, b.meta.restorable_to))?;
            Some(format!(
                "system {id} (database {}, backed up to {})",
                newest.meta.database,
                self.shown(newest.meta.restorable_to)
            ))
        };
        systems.filter_map(one).collect::<Vec<_>>().join(" and ")
    }
}

/// `None` where there is no server that answers.
fn server_clock(config: &Config) -> Option<DateTime<Utc>> {
    let settings = pg::Settings::from_config(config, PROGRAM).ok()?;
    let row = pg::connect(&settings)
        .ok()?
        .query_one("SELECT clock_timestamp()", &[]);
    Some(row.ok()?.get(0))
}

/// The database of the address, and the users of both addresses; as far as they are known.
fn names(config: &Config) -> (Option<String>, Vec<String>) {
    let first = config.database_url().ok();
    let second = config
        .backup
        .as_ref()
        .and_then(|b| b.database_url.as_ref())
        .and_then(|r| config.secret(r, "database_url in [backup]").ok());
    let mut users = Vec::new();
    let mut database = None;
    for url in [first, second].into_iter().flatten() {
        let settings = pg::Settings {
            url,
            connect_timeout: config.database.connect_timeout.0,
            statement_timeout: config.database.statement_timeout.0,
            program: PROGRAM,
        };
        let Ok(variables) = pg::libpq::environment(&settings, None) else {
            continue;
        };
        let of = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, v)| v.clone())
        };
        let user = of("PGUSER");
        database = database.or_else(|| of("PGDATABASE").or_else(|| user.clone()));
        users.extend(user);
    }
    (database, users)
}

/// Does the work under a row in the run log. Restoring needs none: without a database address, or where schema `oa` is absent or of
/// another version, it goes on all the same, and says so.
pub(crate) fn recorded<T>(
    config: &Config,
    job: &Job,
    once: impl FnOnce(&RunStart) -> Result<JobOutcome<T>, Failure>,
) -> Result<T, Failure> {
    let Some(why) = no_run_log(config)? else {
        let recorder = Recorder::open(config, PROGRAM)?;
        // It is attempted once.
        let mut once = Some(once);
        let result = work::recorded(&recorder, job, |run| match once.take() {
            Some(once) => once(run),
            None => Err(anyhow::anyhow!("{} is not attempted again", job.task).into()),
        });
        oa_core::app::flush_now(config);
        return result;
    };
    tracing::warn!("this is not recorded in the run log: {why}");
    let state = StateDir::open(&config.state_dir)?;
    let Some(_lock) = state.try_lock(&format!("task-{}", job.task))? else {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!("{} runs already on this machine", job.task),
        ));
    };
    let day = std::time::Duration::from_secs(24 * 3600);
    let version = env!("CARGO_PKG_VERSION");
    let run = RunStart::now(PROGRAM, version, job.task, job.title, job.trigger, day);
    once(&run).map(|ended| ended.value)
}

/// Why there is no run log, if there is none. One that is only unreachable for now gets its row later.
fn no_run_log(config: &Config) -> Result<Option<String>, Failure> {
    if let Err(ConfigError::Missing(..)) = config.database_url() {
        return Ok(Some("there is no database address".to_owned()));
    }
    let Ok(mut client) = pg::connect(&pg::Settings::from_config(config, PROGRAM)?) else {
        return Ok(None);
    };
    Ok(schema::check(&mut client)
        .err()
        .filter(schema::SchemaError::is_for_a_person)
        .map(|e| e.to_string()))
}
