//! `oa-restore table`: tables, or some of their rows, as they were, into the live database.
//!
//! In the private server, which is thrown away, a table gets the name that it will have beside the live one, so that PostgreSQL's own
//! `pg_dump` and `psql` bring it over as a whole. It is compared there, and only then takes the live one's name, in one transaction;
//! the live one is kept. Killed before that transaction: a table `oa_restore_…` is left, which nobody uses, and which the next run
//! removes.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use clap::Args;
use oa_backup::repository::Bars;
use oa_core::cli::{self, Failure};
use oa_core::config::Config;
use oa_core::exit;
use oa_core::failpoint;
use oa_core::output::Listing;
use oa_core::pg::{quote_ident, quote_literal};
use oa_core::runs::Status;
use oa_core::runs::work::{Ended, Job};
use postgres::{Client, GenericClient};
use serde_json::{Value, json};
use uuid::Uuid;

use super::plan;
use super::target_dir::before;
use crate::choose::{Choice, Way};
use crate::content::{self, Content};
use crate::live::shape::{self, Renamed, derived, shortened};
use crate::live::tables::{self, Table, quoted};
use crate::live::{DISK, Live, roles, rows};
use crate::options::{Asked, Manner};
use crate::recover::{self, Need, Private, STAGING, Work, stop_if_asked};
use crate::session::{Session, recorded};
use crate::{PROGRAM, RestoreError};

/// What is wanted.
#[derive(Debug, Clone, Args)]
pub struct Wanted {
    /// The tables, with a schema where it is not public
    #[arg(required = true, value_name = "NAME")]
    pub tables: Vec<String>,
    /// The moment.
    #[command(flatten)]
    pub asked: Asked,
    /// Under this name, beside the one that is there
    #[arg(long = "as", value_name = "NEW")]
    pub new_name: Option<String>,
    /// Only the rows for which this is true
    #[arg(long = "where", value_name = "SQL")]
    pub condition: Option<String>,
    /// How.
    #[command(flatten)]
    pub manner: Manner,
}

/// Names of tables on their way end so.
const ON_ITS_WAY: &str = "oa_restore_";

/// What happens to one table.
#[derive(Debug, Clone)]
enum Step {
    /// It comes under another name.
    Beside { new: String },
    /// There is none now.
    Create,
    /// It takes the place of the one there, which is kept.
    Replace { live: Table, kept: String },
    /// Rows go back into the one there; those that they replace are kept.
    Rows { live: Table, kept: String },
}

impl Step {
    fn told(&self, name: &str) -> String {
        match self {
            Self::Beside { new } => format!("{name} comes back as {new}"),
            Self::Create => format!("{name} comes back (there is none now)"),
            Self::Replace { live, kept } => {
                format!("{} is replaced and kept as {kept}", live.shown())
            }
            Self::Rows { live, kept } => format!(
                "rows go back into {}; versions that they replace are kept in {kept}",
                live.shown()
            ),
        }
    }
}

/// Restores tables.
///
/// # Errors
/// 75 when the live server is away, 77 when something is in the way or not confirmed; nothing is changed then.
pub fn run(config: &Config, wanted: &Wanted, bars: &Bars) -> Result<u8, Failure> {
    let (asked, manner) = (&wanted.asked, &wanted.manner);
    if wanted.new_name.is_some() && wanted.tables.len() != 1 {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("--as names one table, so restore one at a time with it"),
        ));
    }
    let session = Session::open(config, asked.from_copy, bars)?;
    let work = Work::begin(&session.staging)?;
    let mut live = Live::connect(config)?;
    let choice = session.choose(asked, asked.kind.into(), Some(&live), &work)?;
    let steps: Vec<(String, Step)> = wanted
        .tables
        .iter()
        .map(|name| Ok((name.clone(), step(&mut live.client, name, wanted)?)))
        .collect::<Result<_, RestoreError>>()?;
    let told: Vec<String> = steps.iter().map(|(name, s)| s.told(name)).collect();
    if manner.dry_run {
        for line in &told {
            cli::print(&format!("{line}\n")).map_err(anyhow::Error::from)?;
        }
        return plan::tell(&session, &choice, manner.format);
    }
    recover::room(&[Private::need(&choice, &work)])?;
    let harmless = |s: &Step| matches!(s, Step::Beside { .. } | Step::Create);
    if !steps.iter().all(|(_, s)| harmless(s)) {
        cli::confirm(
            &format!(
                "As of {}: {}. Do it?",
                session.shown(choice.moment),
                told.join("; ")
            ),
            manner.yes,
        )?;
    }
    let job = Job::by_hand(PROGRAM, "restore-table", "单表恢复");
    let (done, failed) = recorded(config, &job, |_| {
        let private = Private::start(&session.reader, &choice, work, session.users(), |_, _| {
            Ok(())
        })?;
        remove_left(&mut live)?;
        let mut done = Vec::new();
        let mut failed = None;
        for (name, step) in &steps {
            let restored = stop_if_asked()
                .and_then(|()| restore(&private, &mut live, &choice, name, step, wanted));
            match restored {
                Ok(row) => done.push(row),
                Err(e) if done.is_empty() => return Err(e.into()),
                // Those before it are restored, each by itself, and stay so.
                Err(e) => {
                    failed = Some((name.clone(), e));
                    break;
                }
            }
        }
        let rows = done.iter().filter_map(|d| d["rows"].as_u64()).sum();
        let error = failed.as_ref().map(|(name, e)| format!("{name}: {e}"));
        let mut ended = Ended::success((done, failed));
        ended.fetched = rows;
        if error.is_some() {
            ended.status = Status::Partial;
            ended.error = error;
        }
        for (key, value) in [
            ("to", json!(choice.target.to_string())),
            ("tables", json!(ended.value.0)),
        ] {
            ended.details.insert(key.to_owned(), value);
        }
        Ok(ended)
    })?;
    let mut listing = Listing::new(&[
        ("table", "table"),
        ("restored_as", "restored as"),
        ("rows", "rows"),
        ("what", "what"),
        ("kept_as", "kept as"),
    ]);
    let names: Vec<String> = done
        .iter()
        .filter_map(|d| d["table"].as_str().map(str::to_owned))
        .collect();
    for row in done {
        listing.push(row);
    }
    listing.print(manner.format).map_err(anyhow::Error::from)?;
    let Some((name, e)) = failed else {
        return Ok(exit::OK);
    };
    let failure = Failure::from(e);
    Err(Failure::new(
        failure.code,
        anyhow::anyhow!(
            "{} was restored, and {name} was not: {failure}",
            names.join(", ")
        ),
    ))
}

fn step(client: &mut Client, name: &str, wanted: &Wanted) -> Result<Step, RestoreError> {
    let live = tables::find(client, name)?;
    if let Some(new) = &wanted.new_name {
        if new.contains('.') {
            return Err(RestoreError::Refused(format!(
                "--as {new}: give a name without a schema; the table stays in its own"
            )));
        }
        if new.len() > 63 {
            return Err(RestoreError::Refused(format!(
                "{new} is longer than the 63 bytes that PostgreSQL allows for a name"
            )));
        }
        let schema = live.as_ref().map(|t| t.schema.clone());
        let place = schema.map_or_else(|| quote_ident(new), |s| quoted(&s, new));
        if tables::find(client, &place)?.is_some() {
            return Err(RestoreError::Refused(format!(
                "{new} exists already; give another name to --as, nothing was changed"
            )));
        }
        return Ok(Step::Beside { new: new.clone() });
    }
    let Some(live) = live else {
        return Ok(Step::Create);
    };
    let rows = wanted.condition.is_some();
    ordinary(&live, rows)?;
    let kept = shortened(&before(&live.name));
    if rows {
        return Ok(Step::Rows { live, kept });
    }
    let dependents = tables::dependents(client, live.oid)?;
    if dependents.is_empty() {
        return Ok(Step::Replace { live, kept });
    }
    Err(RestoreError::Refused(format!(
        "{} cannot be replaced, because these would go on pointing to the old one: {}. Restore it beside with --as, or put rows back into it with --where (--where true: all of them)",
        live.shown(),
        dependents.join(", ")
    )))
}

/// What is made of partitions is copied, and takes rows back, as one table; it is not put in place of another.
fn ordinary(table: &Table, as_rows: bool) -> Result<(), RestoreError> {
    match table.kind.as_str() {
        "r" => Ok(()),
        "p" if as_rows => Ok(()),
        "p" => Err(RestoreError::Refused(format!(
            "{} is made of partitions and cannot be put back as a whole: put rows back into it with --where (--where true: all of them), take a copy as one table with --as, or restore the database beside with oa-restore database",
            table.shown()
        ))),
        _ => Err(RestoreError::Refused(format!(
            "{} is no table; restore the database beside with oa-restore database",
            table.shown()
        ))),
    }
}

fn restore(
    private: &Private,
    live: &mut Live,
    choice: &Choice,
    name: &str,
    step: &Step,
    wanted: &Wanted,
) -> Result<Value, RestoreError> {
    let database = choice.database_for(live);
    let mut then = private.server.connect(&database)?;
    // Neither triggers nor cascades shall change what was; a name means what it means to the live role.
    let session = format!(
        "SET session_replication_role = replica; SET search_path = {}",
        live.search_path
    );
    then.batch_execute(&session)
        .map_err(RestoreError::query("could not prepare the private server"))
        .map_err(RestoreError::in_private)?;
    let table = in_the_past(&mut then, choice, name, step)?;
    let tag = Uuid::now_v7().simple().to_string();
    let on_its_way = format!("{ON_ITS_WAY}{}", &tag[20..]);
    let from = From {
        private,
        database: &database,
        choice,
    };
    let taken = take(&mut then, &table, &on_its_way, step, wanted);
    let Taken {
        copy,
        renamed,
        attach,
    } = taken.map_err(RestoreError::in_private)?;
    let content = bring(&from, live, &mut then, &copy)?;
    failpoint::hit("restore.brought");
    match step {
        Step::Rows { live: into, kept } => {
            let put = rows::put_back(&mut live.client, into, &on_its_way, kept)
                .inspect_err(|_| drop_table(live, &copy))?;
            Ok(json!({
                "table": into.shown(), "restored_as": into.shown(), "rows": put.inserted + put.updated + put.unchanged,
                "what": format!("{} inserted, {} changed back, {} unchanged", put.inserted, put.updated, put.unchanged),
                "inserted": put.inserted, "updated": put.updated, "unchanged": put.unchanged,
                "kept_as": (put.updated > 0).then(|| format!("{}.{kept}", into.schema)),
            }))
        }
        Step::Beside { new } => {
            let named = Table {
                name: new.clone(),
                ..table.clone()
            };
            take_the_name(&mut live.client, step, &renamed, |n| {
                derived(&table.name, new, n)
            })
            .inspect_err(|_| drop_table(live, &copy))?;
            Ok(json!({
                "table": table.shown(), "restored_as": named.shown(), "rows": content.rows, "what": "beside", "kept_as": null,
            }))
        }
        Step::Create | Step::Replace { .. } => {
            let kept = take_the_name(&mut live.client, step, &renamed, str::to_owned)
                .inspect_err(|_| drop_table(live, &copy))?;
            let what = match (&kept, attach) {
                (Some(_), _) => "replaced".to_owned(),
                (None, None) => "came back".to_owned(),
                (None, Some(attach)) => format!("came back on its own; then: {attach}"),
            };
            Ok(json!({
                "table": table.shown(), "restored_as": table.shown(), "rows": content.rows, "what": what, "kept_as": kept,
            }))
        }
    }
}

/// Where a table comes from.
struct From<'a> {
    private: &'a Private,
    database: &'a str,
    choice: &'a Choice,
}

/// A table in the private server that is ready to be brought.
struct Taken {
    /// Under the name that it has on its way.
    copy: Table,
    /// What was renamed for that.
    renamed: Vec<Renamed>,
    /// How a partition becomes one again.
    attach: Option<String>,
}

/// Makes a table in the private server ready, under the name that it has on its way.
fn take(
    then: &mut Client,
    table: &Table,
    on_its_way: &str,
    step: &Step,
    wanted: &Wanted,
) -> Result<Taken, RestoreError> {
    let copied_into = |schema: &str| Table {
        schema: schema.to_owned(),
        name: on_its_way.to_owned(),
        ..table.clone()
    };
    let schema = match step {
        Step::Rows { live, .. } => Some(&live.schema),
        Step::Beside { .. } if table.kind == "p" => Some(&table.schema),
        _ => None,
    };
    if let Some(schema) = schema {
        let copy = copied_into(schema);
        copy_rows(then, table, &copy, wanted)?;
        return Ok(Taken {
            copy,
            renamed: vec![Renamed::table(table, on_its_way)],
            attach: None,
        });
    }
    let attach = detach(then, table)?;
    keep_only(then, table, wanted)?;
    if matches!(step, Step::Beside { .. }) {
        bare(then, table)?;
    }
    let number = std::cell::Cell::new(0);
    let renamed = shape::rename(then, table, |_| {
        number.set(number.get() + 1);
        match number.get() {
            1 => on_its_way.to_owned(),
            n => format!("{on_its_way}_{n}"),
        }
    })?;
    Ok(Taken {
        copy: copied_into(&table.schema),
        renamed,
        attach,
    })
}

/// Makes a table of its own of a partition. Returns the statement that makes it one again.
fn detach(then: &mut Client, table: &Table) -> Result<Option<String>, RestoreError> {
    let failed = RestoreError::query(format!("could not detach {}", table.shown()));
    let row = then
        .query_opt(
            "SELECT i.inhparent::regclass::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.oid = $1 AND c.relispartition",
            &[&table.oid],
        )
        .map_err(&failed)?;
    let Some(row) = row else { return Ok(None) };
    let (parent, bound): (String, String) = (row.get(0), row.get(1));
    let name = table.quoted();
    // Rows that point to the whole would keep it; the private server is thrown away.
    let pointing = then
        .query(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND conparentid = 0 AND confrelid IN (SELECT relid FROM pg_partition_ancestors($1::oid::regclass))",
            &[&table.oid],
        )
        .map_err(&failed)?;
    for row in &pointing {
        then.batch_execute(row.get(0)).map_err(&failed)?;
    }
    then.batch_execute(&format!("ALTER TABLE {parent} DETACH PARTITION {name}"))
        .map_err(&failed)?;
    Ok(Some(format!(
        "ALTER TABLE {parent} ATTACH PARTITION {name} {bound}"
    )))
}

/// The table in the restored database.
fn in_the_past(
    then: &mut Client,
    choice: &Choice,
    name: &str,
    step: &Step,
) -> Result<Table, RestoreError> {
    let Some(table) = tables::find(then, name).map_err(RestoreError::in_private)? else {
        let all = tables::all(then).map_err(RestoreError::in_private)?;
        let hint = oa_core::config::nearest(name, all.iter().map(String::as_str));
        return Err(RestoreError::NoWay(format!(
            "there was no table {name} as of {}{hint}",
            choice.target
        )));
    };
    ordinary(
        &table,
        matches!(step, Step::Rows { .. } | Step::Beside { .. }),
    )?;
    if table.unlogged && matches!(choice.way, Way::Physical(_)) {
        return Err(RestoreError::Refused(format!(
            "{} was unlogged: PostgreSQL keeps no log of it, and it is empty after every recovery; nothing was changed. A dump has its rows: --kind logical",
            table.shown()
        )));
    }
    if matches!(step, Step::Rows { .. }) && table.kind == "r" {
        let row = then
            .query_one(
                "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhparent = $1)",
                &[&table.oid],
            )
            .map_err(RestoreError::query("could not look for its children"))?;
        if row.get(0) {
            return Err(RestoreError::Refused(format!(
                "other tables inherit from {}, and their rows would be taken for its own; nothing was changed. Restore it beside with --as, or all of it with oa-restore database",
                table.shown()
            )));
        }
    }
    Ok(table)
}

fn keep_only(then: &mut Client, table: &Table, wanted: &Wanted) -> Result<(), RestoreError> {
    let Some(condition) = &wanted.condition else {
        return Ok(());
    };
    let failed = RestoreError::query(format!("--where {condition}"));
    then.execute(
        &format!(
            "DELETE FROM {} WHERE ({condition}) IS NOT TRUE",
            table.quoted()
        ),
        &[],
    )
    .map_err(&failed)?;
    let left: i64 = then
        .query_one(&format!("SELECT count(*) FROM {}", table.quoted()), &[])
        .map_err(&failed)?
        .get(0);
    some_rows(left, table, condition)
}

fn some_rows(count: i64, table: &Table, condition: &str) -> Result<(), RestoreError> {
    if count > 0 {
        return Ok(());
    }
    Err(RestoreError::NoWay(format!(
        "{} had no rows then with {condition}; nothing was changed",
        table.shown()
    )))
}

fn copy_rows(
    then: &mut Client,
    table: &Table,
    copy: &Table,
    wanted: &Wanted,
) -> Result<(), RestoreError> {
    let condition = wanted.condition.as_deref().unwrap_or("true");
    let failed = RestoreError::query(format!("--where {condition}"));
    let count = then
        .execute(
            &format!(
                "CREATE TABLE {} AS SELECT * FROM {} WHERE ({condition})",
                copy.quoted(),
                table.quoted()
            ),
            &[],
        )
        .map_err(&failed)?;
    // The private server's superuser is nobody in the live one.
    then.batch_execute(&format!(
        "DO $do$ BEGIN EXECUTE format('ALTER TABLE %s OWNER TO %I', {}, (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {})); END $do$",
        quote_literal(&copy.quoted()),
        table.oid
    ))
    .map_err(&failed)?;
    if wanted.condition.is_none() {
        return Ok(());
    }
    some_rows(i64::try_from(count).unwrap_or(i64::MAX), table, condition)
}

/// A copy to look at must hold nothing back and set nothing off: it comes without foreign keys and triggers.
fn bare(then: &mut Client, table: &Table) -> Result<(), RestoreError> {
    free(then, table)?;
    let failed = RestoreError::query("could not prepare the copy");
    let rows = then
        .query(
            "SELECT format('DROP TRIGGER %I ON %s', tgname, $1::text) FROM pg_trigger WHERE tgrelid = $2 AND NOT tgisinternal",
            &[&table.quoted(), &table.oid],
        )
        .map_err(&failed)?;
    for row in &rows {
        then.batch_execute(row.get(0)).map_err(&failed)?;
    }
    // Else its rows would be among those of the live table that it inherits from.
    let parents = then
        .query(
            "SELECT format('ALTER TABLE %s NO INHERIT %s', $1::text, inhparent::regclass) FROM pg_inherits WHERE inhrelid = $2",
            &[&table.quoted(), &table.oid],
        )
        .map_err(&failed)?;
    for row in &parents {
        then.batch_execute(row.get(0)).map_err(&failed)?;
    }
    Ok(())
}

/// Takes its foreign keys away.
fn free(client: &mut impl GenericClient, table: &Table) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not drop foreign keys");
    let rows = client
        .query(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', $1::text, conname) FROM pg_constraint WHERE conrelid = $2 AND contype = 'f'",
            &[&table.quoted(), &table.oid],
        )
        .map_err(&failed)?;
    for row in &rows {
        client.batch_execute(row.get(0)).map_err(&failed)?;
    }
    Ok(())
}

/// Brings a table from the private server into the live one, whole or not at all, and compares.
fn bring(
    from: &From<'_>,
    live: &mut Live,
    then: &mut Client,
    table: &Table,
) -> Result<Content, RestoreError> {
    let staging = from.private.staging();
    let bytes = tables::size_bytes(then, table).map_err(RestoreError::in_private)?;
    let mut needs = vec![Need {
        folder: staging.to_owned(),
        bytes,
        remedy: STAGING,
    }];
    needs.extend(live.need(bytes));
    recover::room(&needs)?;
    let file = from.private.folder().join("table.sql");
    let mut arguments = vec![
        format!("--table={}", table.quoted()),
        format!("--file={}", file.display()),
        "--no-publications".to_owned(),
        "--no-password".to_owned(),
    ];
    if !live.superuser {
        arguments.push("--no-owner".to_owned());
    }
    if !live.has_tablespaces_of(then)? {
        arguments.push("--no-tablespaces".to_owned());
    }
    from.private
        .server
        .programs(from.database)?
        .run("pg_dump", &arguments)
        .map_err(RestoreError::from)
        .and_then(|()| add_statistics(then, table, &file))
        .map_err(|e| e.in_private().on_disk_of(staging.display(), STAGING))?;
    let then_table = tables::find(then, &table.quoted()).map_err(RestoreError::in_private)?;
    roles::make_missing(then, then_table.as_ref(), live)?;
    live.programs(from.choice.programs(), None)?
        .run(
            "psql",
            &[
                "--no-psqlrc".to_owned(),
                "--quiet".to_owned(),
                "--single-transaction".to_owned(),
                "--set=ON_ERROR_STOP=1".to_owned(),
                format!("--file={}", file.display()),
            ],
        )
        .map_err(|e| {
            RestoreError::Differs(format!(
                "{} does not fit into the live database, and nothing was changed: {e}. With --as it comes without foreign keys and triggers",
                table.shown()
            ))
            .on_disk_of("the live server", DISK)
        })?;
    remove(&file)?;
    let was =
        content::of_table(then, &table.schema, &table.name).map_err(RestoreError::in_private)?;
    let is = content::of_table(&mut live.client, &table.schema, &table.name)
        .inspect_err(|_| drop_table(live, table))?;
    if was != is {
        drop_table(live, table);
        return Err(RestoreError::Differs(format!(
            "{} rows of {} came into the live database and are not the {} that were there then; they were removed again, and nothing else was changed",
            is.rows,
            table.shown(),
            was.rows
        )));
    }
    Ok(is)
}

/// `pg_dump` of a table leaves out its extended statistics.
fn add_statistics(then: &mut Client, table: &Table, file: &Path) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not read the table's statistics objects");
    let mut tx = then.transaction().map_err(&failed)?;
    tx.batch_execute("SET LOCAL search_path = pg_catalog")
        .map_err(&failed)?;
    let rows = tx
        .query(
            "SELECT pg_get_statisticsobjdef(oid) FROM pg_statistic_ext WHERE stxrelid = to_regclass($1::text)",
            &[&table.quoted()],
        )
        .map_err(&failed)?;
    tx.commit().map_err(&failed)?;
    let mut end = OpenOptions::new()
        .append(true)
        .open(file)
        .map_err(RestoreError::disk("could not write", file))?;
    for row in &rows {
        writeln!(end, "{};", row.get::<_, String>(0))
            .map_err(RestoreError::disk("could not write", file))?;
    }
    Ok(())
}

fn remove(file: &Path) -> Result<(), RestoreError> {
    std::fs::remove_file(file).map_err(RestoreError::disk("could not remove", file))
}

/// The one short step: the live table makes room, the restored one takes its name.
fn take_the_name(
    client: &mut Client,
    step: &Step,
    renamed: &[Renamed],
    name: impl Fn(&str) -> String,
) -> Result<Option<String>, RestoreError> {
    let failed = RestoreError::query("could not put the restored table in its place");
    let mut tx = client.transaction().map_err(&failed)?;
    let mut kept_as = None;
    if let Step::Replace { live, kept } = step {
        tx.batch_execute(&format!(
            "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE",
            live.quoted()
        ))
        .map_err(&failed)?;
        let now = tables::dependents(&mut tx, live.oid)?;
        if !now.is_empty() {
            return Err(RestoreError::Refused(format!(
                "meanwhile {} points to {}; nothing was changed",
                now.join(", "),
                live.shown()
            )));
        }
        shape::rename(&mut tx, live, |n| derived(&live.name, kept, n))?;
        // What is only kept must not hold back what goes on.
        let kept_table = Table {
            name: kept.clone(),
            ..live.clone()
        };
        free(&mut tx, &kept_table)?;
        kept_as = Some(format!("{}.{kept}", live.schema));
    }
    shape::rename_again(&mut tx, renamed, name)?;
    tx.commit().map_err(&failed)?;
    Ok(kept_as)
}

/// After an error, which is told; this one adds nothing to it.
fn drop_table(live: &mut Live, table: &Table) {
    if let Err(e) = live
        .client
        .batch_execute(&format!("DROP TABLE IF EXISTS {}", table.quoted()))
    {
        tracing::warn!(
            "could not remove {}: {}",
            table.shown(),
            oa_core::pg::describe(&e)
        );
    }
}

/// Tables that a killed restore has left on their way. Not those of one that runs meanwhile: its task is locked by its run.
fn remove_left(live: &mut Live) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not look for what a killed restore has left");
    let rows = live
        .client
        .query(
            "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relname ~ ('^' || $1 || '[0-9a-f]{12}$') AND pg_has_role(c.relowner, 'USAGE')",
            &[&ON_ITS_WAY],
        )
        .map_err(&failed)?;
    for row in &rows {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        tracing::warn!("removing {schema}.{name}, which a killed restore has left");
        live.client
            .batch_execute(&format!("DROP TABLE {}", quoted(&schema, &name)))
            .map_err(&failed)?;
    }
    Ok(())
}
