//! `oa-restore database`: the whole database beside the live one, compared, and then, if that is wanted, in its place.
//!
//! It is loaded under a name of its own, `oa_restore_…`, and gets the name that was asked for when it is whole and compared. Killed
//! before that: the next run drops what is left. The swap is one transaction; killed in it, nothing has changed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use oa_backup::capture::mark;
use oa_backup::repository::{Bars, Lsn, Mark};
use oa_core::cli::{self, Failure};
use oa_core::config::Config;
use oa_core::exit;
use oa_core::failpoint;
use oa_core::output::{Format, Listing};
use oa_core::pg::{describe, quote_ident};
use oa_core::runs::work::{Ended, Job};
use postgres::Client;
use serde_json::json;
use uuid::Uuid;

use super::plan;
use super::target_dir::before;
use crate::choose::Choice;
use crate::content::compare;
use crate::live::Live;
use crate::live::shape::shortened;
use crate::recover::{Private, Work, stop_if_asked};
use crate::session::{Asked, Session, recorded};
use crate::{PROGRAM, RestoreError};

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The new database's name.
    pub into: String,
    /// Let it change names with the live one.
    pub swap: bool,
    /// Do not ask.
    pub yes: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Names of databases on their way begin so.
const ON_ITS_WAY: &str = "oa_restore_";
/// Comparing takes no longer than this.
const COUNT: Duration = Duration::from_secs(2 * 3600);

/// Restores a database.
///
/// # Errors
/// 75 when the live server is away, 77 when the name is taken or the swap is not confirmed; the live database is untouched then.
pub fn run(
    config: &Config,
    asked: &Asked,
    wanted: &Wanted,
    bars: &Bars,
    format: Format,
) -> Result<u8, Failure> {
    let session = Session::open(config, asked.from_copy, bars)?;
    let target = session.target(&asked.to)?;
    let work = Work::begin(&session.staging)?;
    let choice = session.choose(&target, asked.kind, &work)?;
    let mut live = Live::connect(config)?;
    name_is_free(&mut live.client, &wanted.into)?;
    if wanted.dry_run {
        return plan::run(config, asked, format);
    }
    let kept = shortened(&before(&live.database));
    if wanted.swap {
        cli::confirm(
            &format!(
                "As of {}: restore database {} and put it in the place of the live one, which is kept as {kept}? All its sessions are ended",
                session.shown(choice.moment),
                live.database
            ),
            wanted.yes,
        )?;
    }
    let name = live.database.clone();
    let mut work = Some(work);
    let mut live = Some(live);
    let job = Job::by_hand(PROGRAM, "restore-database", "数据库恢复");
    let tables = recorded(config, &job, |_| {
        let work = match work.take() {
            Some(work) => work,
            None => Work::begin(&session.staging)?,
        };
        let mut here = match live.take() {
            Some(live) => live,
            None => Live::connect(config)?,
        };
        let private = Private::start(&session.reader, &choice, work, session.users(), |_, _| {
            Ok(())
        })?;
        remove_left(&mut here.client)?;
        let tables = beside(&session, &private, &mut here, &choice, &wanted.into)?;
        drop(private);
        if wanted.swap {
            swap(here, &wanted.into, &kept)?;
        }
        let mut ended = Ended::success(tables);
        ended.fetched = tables as u64;
        ended
            .details
            .insert("to".to_owned(), json!(choice.target.to_string()));
        ended
            .details
            .insert("database".to_owned(), json!(wanted.into));
        Ok(ended)
    })?;
    let mut listing = Listing::new(&[
        ("database", "database"),
        ("moment_shown", "as of"),
        ("tables", "tables compared"),
        ("kept_as", "the live one before"),
    ]);
    listing.push(json!({
        "database": if wanted.swap { &name } else { &wanted.into }, "moment": choice.moment, "moment_shown": session.shown(choice.moment),
        "tables": tables, "kept_as": wanted.swap.then_some(&kept), "backup": choice.backup().id,
    }));
    listing.print(format).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn name_is_free(client: &mut Client, name: &str) -> Result<(), RestoreError> {
    let taken: bool = client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1::text) OR length($1::text) > 63 OR $1::text = ''",
            &[&name],
        )
        .map_err(RestoreError::query("could not look for the database's name"))?
        .get(0);
    if taken {
        return Err(RestoreError::Refused(format!(
            "database \"{name}\" exists already, or is no name; give another one to --into, nothing was changed"
        )));
    }
    Ok(())
}

/// Loads it, compares it, and gives it its name. Returns how many tables were compared.
fn beside(
    session: &Session<'_>,
    private: &Private,
    live: &mut Live,
    choice: &Choice,
    into: &str,
) -> Result<usize, RestoreError> {
    let tag = Uuid::now_v7().simple().to_string();
    let on_its_way = format!("{ON_ITS_WAY}{}", &tag[20..]);
    // In the private server it gets the name that it comes with, so that pg_dump writes its owner, rights and settings for that.
    private
        .server
        .connect("template1")?
        .batch_execute(&format!(
            "ALTER DATABASE {} RENAME TO {}",
            quote_ident(&live.database),
            quote_ident(&on_its_way)
        ))
        .map_err(RestoreError::query(format!(
            "database {} was not there then, or cannot be used",
            live.database
        )))?;
    let jobs = session.settings.jobs.max(1);
    let dump = private.folder().join("database");
    private.server.programs(&on_its_way)?.run(
        "pg_dump",
        &[
            "--format=directory".to_owned(),
            "--compress=0".to_owned(),
            "--create".to_owned(),
            format!("--jobs={jobs}"),
            format!("--file={}", dump.display()),
            "--no-password".to_owned(),
        ],
    )?;
    failpoint::hit("restore.dumped");
    stop_if_asked()?;
    let mut arguments = vec![
        "--create".to_owned(),
        "--exit-on-error".to_owned(),
        format!("--jobs={jobs}"),
        format!("--dbname={}", live.database),
        "--no-password".to_owned(),
    ];
    if !live.superuser {
        arguments.extend(["--no-owner".to_owned(), "--no-privileges".to_owned()]);
        tracing::warn!(
            "this role is no superuser: all of it will belong to it, and rights of others are not restored"
        );
    }
    if !live.has_tablespaces_of(&mut private.server.connect(&on_its_way)?)? {
        arguments.push("--no-tablespaces".to_owned());
    }
    arguments.push(dump.display().to_string());
    let loaded = live
        .programs(choice.programs(), None)?
        .run("pg_restore", &arguments)
        .map_err(RestoreError::from)
        .and_then(|()| check(private, live, &on_its_way))
        .and_then(|tables| {
            failpoint::hit("restore.brought");
            live.client
                .batch_execute(&format!(
                    "ALTER DATABASE {} RENAME TO {}",
                    quote_ident(&on_its_way),
                    quote_ident(into)
                ))
                .map_err(RestoreError::query(format!("could not name it {into}")))?;
            Ok(tables)
        });
    if loaded.is_err() {
        drop_database(&mut live.client, &on_its_way);
    }
    loaded
}

fn check(private: &Private, live: &Live, name: &str) -> Result<usize, RestoreError> {
    let count = |client: &mut Client| {
        let mut tx = client
            .transaction()
            .map_err(RestoreError::query("could not compare"))?;
        Ok::<_, RestoreError>(mark::tables(&mut tx, Instant::now() + COUNT)?)
    };
    let mut new = live.connect_to(name)?;
    let was = Mark {
        lsn: Lsn(0),
        exact: true,
        tables: count(&mut private.server.connect(name)?)?,
    };
    let compared = compare(&was, &count(&mut new)?);
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

/// After an error, which is told; this one adds nothing to it.
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

/// The two databases change names in one transaction. It locks the live one, so that nobody new gets in, and waits for those who are
/// in to leave, which another session sees to. Nothing of it stays should this process be killed.
fn swap(live: Live, new: &str, kept: &str) -> Result<(), RestoreError> {
    let name = live.database.clone();
    let elsewhere = ["postgres", "template1"]
        .into_iter()
        .find(|d| *d != name && live.connect_to(d).is_ok())
        .ok_or_else(|| {
            RestoreError::Refused(format!(
                "the swap needs a session in database postgres or template1, and this role gets none; \"{new}\" is ready, and the live database is untouched"
            ))
        })?;
    let (mut renamer, mut ender) = (live.connect_to(elsewhere)?, live.connect_to(elsewhere)?);
    drop(live);
    let done = Arc::new(AtomicBool::new(false));
    let (flag, names) = (Arc::clone(&done), [name.clone(), new.to_owned()]);
    let ending = thread::spawn(move || {
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
    renamed.map_err(RestoreError::query(format!(
        "could not swap the databases; the live one is untouched, and the restored one is \"{new}\""
    )))
}
