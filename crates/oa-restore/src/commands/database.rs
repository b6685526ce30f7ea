//! `oa-restore database`: restores the whole database beside the live one, compares it, and on request swaps them.
//!
//! It is loaded under a name of its own, `oa_restore_…`, and gets the name that was asked for when it is whole and compared. Killed
//! before that: the next run drops what is left. The swap is one transaction; killed in it, nothing has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Listing;
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::base::threads;
use oa_core::pg::libpq::dbname;
use oa_core::pg::{describe, quote_ident};
use oa_repository::{ContentFingerprint, Lsn};
use postgres::Client;
use serde_json::json;
use uuid::Uuid;

use super::options::{RunArgs, TargetArgs};
use super::session::{Session, recorded};
use super::target_dir::before;
use crate::content::{self, compare};
use crate::disk::{DiskNeed, STAGING_REMEDY, check_room};
use crate::error::stop_if_asked;
use crate::live::shape::shortened;
use crate::live::{DISK_REMEDY, LiveServer, roles, runs};
use crate::plan::target::Target;
use crate::plan::{RestorePlan, Strategy};
use crate::recover::{self, PrivateServer, Refreshes, WorkFolder};
use crate::{PROGRAM, RestoreError};

/// Restore the database beside the live one, and with --swap into its place
#[derive(Debug, clap::Args)]
#[command(
    after_help = "It is compared before you can use it. With --swap the live one is renamed and kept until you drop it.\n\nExamples:\n  oa-restore database --to \"2026-11-23 14:05\" --into oa_1405\n  oa-restore database --to latest --into oa_new --swap --yes"
)]
pub(crate) struct Args {
    #[command(flatten)]
    target: TargetArgs,
    /// The new database's name
    #[arg(long, value_name = "NAME")]
    into: String,
    /// Swap names with the live database, which is kept
    #[arg(long)]
    swap: bool,
    #[command(flatten)]
    run: RunArgs,
}

/// Names of databases on their way begin so.
const ON_ITS_WAY: &str = "oa_restore_";

pub(crate) fn run(args: &Args, config: &Config, quiet: bool) -> Result<u8, Failure> {
    let bars = args.run.bars(quiet);
    let mut session = Session::open(config, args.target.from_copy, &bars)?;
    let work = WorkFolder::begin(&session.staging)?;
    let mut live = LiveServer::connect(config)?;
    let how = (&bars, args.run.dry_run);
    if let Some(first) = session.catch_up(config, &args.target, &mut live, how)? {
        cli::print(&format!("{first}\n")).map_err(anyhow::Error::from)?;
        return Ok(exit::OK);
    }
    let plan = session.plan(&args.target, args.target.kind.into(), Some(&live), &work)?;
    let source = live.database_in(&plan);
    check_allowed(&mut live, args, &source)?;
    if args.run.dry_run {
        return super::plan::print_dry_run(&session, &plan, config, args.run.format);
    }
    let bytes = estimated_bytes(&mut live, &plan, &source)?;
    let mut needs = vec![PrivateServer::need(&plan, &work), dump_of(&work, bytes)];
    needs.extend(live.need(bytes));
    check_room(&needs)?;
    let kept = shortened(&before(&live.database));
    if args.swap {
        cli::confirm(
            &format!(
                "As of {}: restore database {} and put it in the place of the live one, which is kept as {kept}? All its sessions are ended",
                session.shown(plan.as_of),
                live.database
            ),
            args.run.yes,
        )?;
    }
    let name = if args.swap {
        live.database.clone()
    } else {
        args.into.clone()
    };
    let job = Job::by_hand(PROGRAM, "restore-database", "数据库恢复");
    let (tables, mut notes) = recorded(config, &job, |_| {
        let restored = restore(&session, work, live, &plan, args, &kept)?;
        let mut ended = JobOutcome::success(restored);
        ended.fetched = ended.value.0 as u64;
        for (key, value) in [
            ("to", json!(plan.target.to_string())),
            ("database", json!(name)),
        ] {
            ended.details.insert(key.to_owned(), value);
        }
        Ok(ended)
    })?;
    if tables == 0 {
        notes.push(format!("database {source} had no tables then"));
    }
    let mut listing = Listing::new(&[
        ("database", "database"),
        ("as_of_shown", "as of"),
        ("tables", "tables compared"),
        ("kept_as", "the live one before"),
    ]);
    listing.push(json!({
        "database": name, "as_of": plan.as_of, "as_of_shown": session.shown(plan.as_of),
        "tables": tables, "kept_as": args.swap.then_some(&kept), "backup": plan.backup().id, "notes": notes,
    }));
    listing
        .print(args.run.format)
        .map_err(anyhow::Error::from)?;
    for note in &notes {
        tracing::warn!("{note}");
    }
    Ok(exit::OK)
}

/// Returns how many tables were compared, and notes for the operator.
fn restore(
    session: &Session<'_>,
    work: WorkFolder,
    mut live: LiveServer,
    plan: &RestorePlan,
    args: &Args,
    kept: &str,
) -> Result<(usize, Vec<String>), RestoreError> {
    let private =
        PrivateServer::start(&session.reader, plan, work, session.users(), |_, _| Ok(()))?;
    let source = &live.database_then(&private, plan)?;
    let mut notes = verify_restored(&private, plan, source).map_err(RestoreError::in_private)?;
    remove_left(&mut live.client)?;
    let mut new = load_beside(session, &private, &mut live, plan, source)?;
    notes.append(&mut new.notes);
    drop(private);
    let closed = live.connect_to(&new.name).and_then(|mut restored| {
        let mut since = runs::Since {
            live: Some(&mut live.client),
            backups: &session.backups,
            cut_off: !matches!(plan.target, Target::Latest),
        };
        runs::close(&mut restored, &mut since)
    });
    // That is no reason to give up what is whole.
    if let Err(e) = closed {
        tracing::warn!("runs that were under way then may be reported as interrupted: {e}");
    }
    if args.swap {
        swap(live, &new.name, &args.into, kept)?;
    } else {
        rename(&mut live.client, &new.name, &args.into)
            .inspect_err(|_| drop_database(&mut live.client, &new.name))?;
    }
    Ok((new.tables, notes))
}

/// What would fail in the end is refused before anything is restored.
fn check_allowed(live: &mut LiveServer, args: &Args, source: &str) -> Result<(), RestoreError> {
    name_is_free(&mut live.client, &args.into)?;
    if !live.makes_databases {
        return Err(RestoreError::Refused(format!(
            "role {role} may not make databases; as a superuser: ALTER ROLE {role} CREATEDB",
            role = quote_ident(&live.role)
        )));
    }
    if args.swap && live.database != source {
        return Err(RestoreError::Refused(format!(
            "--swap would put database {source} in the place of {}; restore it without --swap",
            live.database
        )));
    }
    let subscriptions: i64 = live
        .client
        .query_one(
            "SELECT count(subname) FROM pg_subscription WHERE subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[],
        )
        .map_err(RestoreError::query("could not look for subscriptions"))?
        .get(0);
    if args.swap && subscriptions > 0 {
        return Err(RestoreError::Refused(format!(
            "database {} has {subscriptions} subscription(s), which would go on in the old one and not in the new one; restore it without --swap, and make them there",
            live.database
        )));
    }
    Ok(())
}

/// An estimate of the database's size: that of the live one of its name, if there is one. What else is in its cluster is not in it.
fn estimated_bytes(
    live: &mut LiveServer,
    plan: &RestorePlan,
    source: &str,
) -> Result<u64, RestoreError> {
    let whole = match &plan.strategy {
        Strategy::Physical(p) => p.full.meta.stored.size_bytes,
        Strategy::Logical(l) => return Ok(2 * l.backup.meta.stored.size_bytes),
    };
    let now: Option<i64> = live
        .client
        .query_one(
            "SELECT (SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1 AND has_database_privilege(oid, 'CONNECT'))",
            &[&source],
        )
        .map_err(RestoreError::query("could not ask for the database's size"))?
        .get(0);
    Ok(now.map_or(whole, i64::cast_unsigned).min(whole))
}

/// What leaves the private server stands beside it for a while.
fn dump_of(work: &WorkFolder, bytes: u64) -> DiskNeed {
    DiskNeed {
        folder: work.staging().to_owned(),
        bytes,
        remedy: STAGING_REMEDY,
    }
}

/// What was restored privately, against what was recorded when it was dumped. Returns notes for the operator.
fn verify_restored(
    private: &PrivateServer,
    plan: &RestorePlan,
    source: &str,
) -> Result<Vec<String>, RestoreError> {
    let mut past = private.server.connect(source)?;
    if let Strategy::Physical(_) = &plan.strategy {
        return Ok(recover::unlogged(&mut past, source)?.into_iter().collect());
    }
    if let Some(mark) = &plan.backup().meta.mark {
        let compared = compare(mark, &content::of_database(&mut past)?);
        if !compared.wrong.is_empty() {
            return Err(RestoreError::Differs(format!(
                "the dump is not what was recorded when it was made, and nothing was changed: {}",
                compared.wrong.join("; ")
            )));
        }
    }
    Ok(Vec::new())
}

fn name_is_free(client: &mut Client, name: &str) -> Result<(), RestoreError> {
    let is_taken: bool = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text) OR length($1::text) > 63 OR $1::text = ''",
            &[&name],
        )
        .map_err(RestoreError::query("could not look for the database's name"))?
        .get(0);
    if is_taken {
        return Err(RestoreError::Refused(format!(
            "database \"{name}\" exists already, or is no name; give another one to --into, nothing was changed"
        )));
    }
    Ok(())
}

/// A database in the live server that is whole and has no name of its own yet.
struct LoadedDatabase {
    name: String,
    /// Tables that were compared.
    tables: usize,
    /// For the operator.
    notes: Vec<String>,
}

/// Loads it and compares it.
fn load_beside(
    session: &Session<'_>,
    private: &PrivateServer,
    live: &mut LiveServer,
    plan: &RestorePlan,
    source: &str,
) -> Result<LoadedDatabase, RestoreError> {
    let tag = Uuid::now_v7().simple().to_string();
    let on_its_way = format!("{ON_ITS_WAY}{}", &tag[20..]);
    // In the private server it gets the name that it comes with, so that pg_dump writes its owner, rights and settings for that.
    private
        .server
        .anywhere()?
        .batch_execute(&format!(
            "ALTER DATABASE {} RENAME TO {}",
            quote_ident(source),
            quote_ident(&on_its_way)
        ))
        .map_err(|e| {
            RestoreError::NoPlan(format!(
                "database {source} was not there then, or cannot be used: {}",
                describe(&e)
            ))
        })?;
    let jobs = session.settings.jobs.max(1);
    let dump = private.folder().join("database");
    let arguments = [
        "--format=directory".to_owned(),
        "--compress=0".to_owned(),
        "--create".to_owned(),
        // It would have the name of the live one's slot at the publisher, and could not be dropped without that.
        "--no-subscriptions".to_owned(),
        format!("--jobs={jobs}"),
        format!("--file={}", dump.display()),
        "--no-password".to_owned(),
    ];
    private
        .server
        .programs(&on_its_way)?
        .run("pg_dump", &arguments)
        .map_err(|e| RestoreError::from(e).on_disk_of(session.staging.display(), STAGING_REMEDY))?;
    failpoint::hit("restore.dumped");
    stop_if_asked()?;
    let mut arguments = vec![
        "--create".to_owned(),
        "--exit-on-error".to_owned(),
        format!("--jobs={jobs}"),
        format!("--dbname={}", dbname(&live.database)),
        "--no-password".to_owned(),
    ];
    if !live.superuser {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
        tracing::warn!(
            "this role is no superuser: all of it will belong to it, and rights of others are not restored"
        );
    }
    let mut past = private.server.connect(&on_its_way)?;
    roles::make_missing(&mut past, None, live)?;
    if !live.has_tablespaces_of(&mut past)? {
        arguments.push("--no-tablespaces".to_owned());
    }
    let programs = live.programs(plan.programs(), None)?;
    let list = private.folder().join("database.list");
    // What only the live server reaches is refreshed there.
    let refreshes = Refreshes::of(&programs, &dump, &list)?.and(&private.not_refreshed);
    arguments.extend(refreshes.argument());
    arguments.push(dump.display().to_string());
    programs
        .run("pg_restore", &arguments)
        .map_err(|e| RestoreError::from(e).on_disk_of("the live server", DISK_REMEDY))
        .and_then(|()| refreshes.make(&mut live.connect_to(&on_its_way)?))
        .and_then(|failed| Ok((check(&mut past, live, &on_its_way)?, failed)))
        .inspect_err(|_| drop_database(&mut live.client, &on_its_way))
        .map(|(tables, failed)| {
            failpoint::hit("restore.brought");
            LoadedDatabase {
                name: on_its_way.clone(),
                tables,
                notes: failed.into_iter().map(|f| f.note).collect(),
            }
        })
}

fn check(past: &mut Client, live: &LiveServer, name: &str) -> Result<usize, RestoreError> {
    let mut new = live.connect_to(name)?;
    let was = ContentFingerprint {
        lsn: Lsn(0),
        exact: true,
        tables: content::of_database(past).map_err(RestoreError::in_private)?,
    };
    let compared = compare(&was, &content::of_database(&mut new)?);
    if !compared.wrong.is_empty() {
        return Err(RestoreError::Differs(format!(
            "what came into the live server is not what was there then, and was removed again: {}",
            compared.wrong.join("; ")
        )));
    }
    // Without statistics its first queries would be slow.
    new.batch_execute("ANALYZE")
        .map_err(RestoreError::query("could not analyze it"))?;
    Ok(compared.tables)
}

fn rename(client: &mut Client, from: &str, to: &str) -> Result<(), RestoreError> {
    client
        .batch_execute(&format!(
            "ALTER DATABASE {} RENAME TO {}",
            quote_ident(from),
            quote_ident(to)
        ))
        .map_err(RestoreError::query(format!("could not name it {to}")))
}

/// After an error, which is reported; this one adds nothing to it.
fn drop_database(client: &mut Client, name: &str) {
    let dropped = client.batch_execute(&format!(
        "DROP DATABASE IF EXISTS {} WITH (FORCE)",
        quote_ident(name)
    ));
    if let Err(e) = dropped {
        tracing::warn!("could not remove database {name}: {}", describe(&e));
    }
}

/// Databases that a killed restore has left on their way. Not those of one that runs meanwhile: its task is locked by its run.
fn remove_left(client: &mut Client) -> Result<(), RestoreError> {
    let rows = client
        .query(
            "SELECT datname::text FROM pg_database WHERE datname ~ ('^' || $1 || '[0-9a-f]{12}$') AND pg_has_role(datdba, 'USAGE')",
            &[&ON_ITS_WAY],
        )
        .map_err(RestoreError::query("could not look for what a killed restore has left"))?;
    for row in &rows {
        let name: String = row.get(0);
        tracing::warn!("removing database {name}, which a killed restore has left");
        drop_database(client, &name);
    }
    Ok(())
}

/// The restored database takes the live one's name, and that one's becomes `kept`, in one transaction. It locks the live one, so that
/// nobody new gets in, and waits for those who are in to leave, which another session sees to. Nothing of it stays should this process
/// be killed. Where it is not possible the restored one gets the name `into`.
fn swap(mut live: LiveServer, new: &str, into: &str, kept: &str) -> Result<(), RestoreError> {
    let name = live.database.clone();
    let Some(elsewhere) = ["postgres", "template1"]
        .into_iter()
        .find(|d| *d != name && live.connect_to(d).is_ok())
    else {
        rename(&mut live.client, new, into)?;
        return Err(RestoreError::Refused(format!(
            "the swap needs a session in database postgres or template1, and this role gets none; \"{into}\" is ready, and the live database is untouched"
        )));
    };
    let (mut renamer, mut ender) = (live.connect_to(elsewhere)?, live.connect_to(elsewhere)?);
    drop(live);
    let done = Arc::new(AtomicBool::new(false));
    let (flag, names) = (Arc::clone(&done), [name.clone(), new.to_owned()]);
    let ending = threads::spawn("end sessions", move || {
        while !flag.load(Ordering::Relaxed) {
            let ended = ender.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = ANY($1) AND pid <> pg_backend_pid()",
                &[&&names[..]],
            );
            if let Err(e) = ended {
                tracing::warn!("could not end sessions: {}", describe(&e));
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    });
    let ending = match ending {
        Ok(ending) => ending,
        Err(e) => {
            rename(&mut renamer, new, into)?;
            return Err(RestoreError::Refused(format!(
                "{e}; \"{into}\" is ready, and the live database is untouched"
            )));
        }
    };
    let renamed = (|| {
        let mut tx = renamer.transaction()?;
        for (from, to) in [(name.as_str(), kept), (new, name.as_str())] {
            tx.batch_execute(&format!(
                "ALTER DATABASE {} RENAME TO {}",
                quote_ident(from),
                quote_ident(to)
            ))?;
            failpoint::hit("restore.swapping");
        }
        tx.commit()
    })();
    done.store(true, Ordering::Relaxed);
    let _ = ending.join();
    let Err(e) = renamed else { return Ok(()) };
    let named = rename(&mut renamer, new, into).map_or(new, |()| into);
    Err(RestoreError::query(format!(
        "could not swap the databases; the live one is untouched, and the restored one is \"{named}\""
    ))(e))
}
