//! `oa-restore table`: brings tables, or some of their rows, back into the live database as they were.
//!
//! In the private server, which is thrown away, a table gets the name that it will have beside the live one, so that PostgreSQL's own
//! `pg_dump` and `psql` bring it over as a whole. It is compared there, and only then takes the live one's name, in one transaction;
//! the live one is kept. Killed before that transaction: a table `oa_restore_…` is left, which nobody uses, and which the next run
//! removes.

mod prepare;

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Listing;
use oa_core::app::work::{Job, JobOutcome};
use oa_core::base::failpoint;
use oa_core::model::run::Status;
use oa_core::pg::{quote_ident, revisions};
use postgres::Client;
use serde_json::{Value, json};
use uuid::Uuid;

use self::prepare::{PreparedTable, drop_foreign_keys, find_in_backup, prepare};
use super::options::{RunArgs, TargetArgs};
use super::session::{Session, recorded};
use super::target_dir::before;
use crate::content::{self, TableContent};
use crate::disk::{DiskNeed, STAGING_REMEDY, check_room};
use crate::error::stop_if_asked;
use crate::live::large_objects::{self, LargeObjects};
use crate::live::shape::{self, Renamed, derived, shortened};
use crate::live::tables::{self, Table, quoted};
use crate::live::{DISK_REMEDY, LiveServer, event_triggers, roles, rows};
use crate::plan::RestorePlan;
use crate::recover::{PrivateServer, WorkFolder};
use crate::{PROGRAM, RestoreError};

/// Bring tables, or some of their rows, back into the live database
#[derive(Debug, clap::Args)]
#[command(
    after_help = "A table that is there is replaced in one short step and kept as NAME_before_TIME. With --where rows go back by primary key, and the versions that they replace are kept beside.\n\nExamples:\n  oa-restore table option_flows --to \"2026-11-23 14:05\" --as option_flows_1405\n  oa-restore table option_flows --to \"10min ago\"\n  oa-restore table option_flows --to latest --where \"comm_code = 'RB'\"\n  oa-restore table one two --to 3f2a9c81 --yes"
)]
pub(crate) struct Args {
    /// The tables, with their schema unless that is public
    #[arg(required = true, value_name = "NAME")]
    tables: Vec<String>,
    #[command(flatten)]
    target: TargetArgs,
    /// Restore it under this name, beside the one that is there
    #[arg(long = "as", value_name = "NEW")]
    new_name: Option<String>,
    /// Restore only the rows for which this is true
    #[arg(long = "where", value_name = "SQL")]
    condition: Option<String>,
    #[command(flatten)]
    run: RunArgs,
}

/// Names of tables on their way end so.
const ON_ITS_WAY: &str = "oa_restore_";

fn on_its_way() -> String {
    let tag = Uuid::now_v7().simple().to_string();
    format!("{ON_ITS_WAY}{}", &tag[20..])
}

#[derive(Debug, Clone)]
enum Step {
    /// It comes under another name.
    Beside { new: String, schema: Option<String> },
    /// There is none now.
    Create,
    /// It takes the place of the one there, which is kept.
    Replace { live: Table, kept: String },
    /// Rows go back into the one there; those that they replace are kept.
    Rows { live: Table, kept: String },
}

impl Step {
    /// Where it goes, as far as that is known before it is looked up in the backup.
    fn schema(&self) -> Option<&str> {
        match self {
            Self::Beside { schema, .. } => schema.as_deref(),
            Self::Create => None,
            Self::Replace { live, .. } | Self::Rows { live, .. } => Some(&live.schema),
        }
    }

    fn describe(&self, name: &str) -> String {
        match self {
            Self::Beside { new, .. } => format!("{name} comes back as {new}"),
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

pub(crate) fn run(args: &Args, config: &Config, quiet: bool) -> Result<u8, Failure> {
    if args.new_name.is_some() && args.tables.len() != 1 {
        return Err(Failure::new(
            exit::USAGE,
            anyhow::anyhow!("--as names one table, so restore one at a time with it"),
        ));
    }
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
    let steps: Vec<(String, Step)> = args
        .tables
        .iter()
        .map(|name| Ok((name.clone(), step(&mut live.client, name, args)?)))
        .collect::<Result<_, RestoreError>>()?;
    // Where one that is gone was, with a schema in its name, is looked up in the backup.
    let known =
        |(name, step): &&(String, Step)| !(matches!(step, Step::Create) && name.contains('.'));
    for (_, step) in steps.iter().filter(known) {
        let rows = matches!(step, Step::Rows { .. });
        event_triggers::check(&mut live, step.schema(), &on_its_way(), rows)?;
    }
    let described: Vec<String> = steps.iter().map(|(name, s)| s.describe(name)).collect();
    if args.run.dry_run {
        for line in &described {
            cli::print(&format!("{line}\n")).map_err(anyhow::Error::from)?;
        }
        return super::plan::print_dry_run(&session, &plan, config, args.run.format);
    }
    check_room(&[PrivateServer::need(&plan, &work)])?;
    let harmless = |s: &Step| matches!(s, Step::Beside { .. } | Step::Create);
    if !steps.iter().all(|(_, s)| harmless(s)) {
        cli::confirm(
            &format!(
                "As of {}: {}. Do it?",
                session.shown(plan.as_of),
                described.join("; ")
            ),
            args.run.yes,
        )?;
    }
    let job = Job::by_hand(PROGRAM, "restore-table", "单表恢复");
    let outcome = recorded(config, &job, |start| {
        let by = config.keeps_revisions().then_some(start.id);
        let outcome = restore_all(&session, work, &mut live, &plan, &steps, (args, by))?;
        let mut ended = JobOutcome::success(outcome);
        let outcome = &ended.value;
        ended.fetched = outcome
            .restored
            .iter()
            .filter_map(|d| d["rows"].as_u64())
            .sum();
        if let Some((name, e)) = &outcome.failed {
            ended.status = Status::Partial;
            ended.error = Some(format!("{name}: {e}"));
        }
        for (key, value) in [
            ("to", json!(plan.target.to_string())),
            ("tables", json!(outcome.restored)),
        ] {
            ended.details.insert(key.to_owned(), value);
        }
        Ok(ended)
    })?;
    report(outcome, args)
}

/// What became of the tables, in their order, up to the first that failed.
struct TablesOutcome {
    restored: Vec<Value>,
    failed: Option<(String, RestoreError)>,
}

fn restore_all(
    session: &Session<'_>,
    work: WorkFolder,
    live: &mut LiveServer,
    plan: &RestorePlan,
    steps: &[(String, Step)],
    (args, by): (&Args, Option<Uuid>),
) -> Result<TablesOutcome, RestoreError> {
    remove_left(live)?;
    let private =
        PrivateServer::start(&session.reader, plan, work, session.users(), |_, _| Ok(()))?;
    private.warn_of_not_refreshed();
    private
        .server
        .silence_event_triggers()
        .map_err(RestoreError::in_private)?;
    let mut restored = Vec::new();
    for (name, step) in steps {
        let row =
            stop_if_asked().and_then(|()| restore(&private, live, plan, name, step, (args, by)));
        match row {
            Ok(row) => restored.push(row),
            Err(e) if restored.is_empty() => return Err(e),
            // Those before it are restored, each by itself, and stay so.
            Err(e) => {
                return Ok(TablesOutcome {
                    restored,
                    failed: Some((name.clone(), e)),
                });
            }
        }
    }
    Ok(TablesOutcome {
        restored,
        failed: None,
    })
}

fn report(outcome: TablesOutcome, args: &Args) -> Result<u8, Failure> {
    let names: Vec<String> = outcome
        .restored
        .iter()
        .filter_map(|d| d["table"].as_str().map(str::to_owned))
        .collect();
    let mut listing = Listing::new(&[
        ("table", "table"),
        ("restored_as", "restored as"),
        ("rows", "rows"),
        ("what", "what"),
        ("kept_as", "kept as"),
    ]);
    for row in outcome.restored {
        listing.push(row);
    }
    listing
        .print(args.run.format)
        .map_err(anyhow::Error::from)?;
    let Some((name, e)) = outcome.failed else {
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

fn step(client: &mut Client, name: &str, args: &Args) -> Result<Step, RestoreError> {
    let live = tables::find(client, name)?;
    match &live {
        Some(live) => may_create(client, Some(&live.schema))?,
        // One that is gone, with a schema in its name, is looked up in the backup first.
        None if name.contains('.') => {}
        None => may_create(client, None)?,
    }
    if let Some(new) = &args.new_name {
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
        let new_quoted = match &schema {
            Some(schema) => quoted(schema, new),
            None => quote_ident(new),
        };
        if tables::find(client, &new_quoted)?.is_some() {
            return Err(RestoreError::Refused(format!(
                "{new} exists already; give another name to --as, nothing was changed"
            )));
        }
        return Ok(Step::Beside {
            new: new.clone(),
            schema,
        });
    }
    let Some(live) = live else {
        return Ok(Step::Create);
    };
    let rows = args.condition.is_some();
    ordinary(&live, rows)?;
    sees_all(client, &live)?;
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

/// Whether the role may create tables in a schema, else in that of names without one: recovering takes long, and what cannot be done
/// after it is said before. A crawler's role may not.
fn may_create(client: &mut Client, schema: Option<&str>) -> Result<(), RestoreError> {
    let closed = client
        .query_opt(
            "SELECT n.nspname::text, current_user::text FROM pg_namespace n
             WHERE n.nspname::text = coalesce($1::text, current_schema()::text) AND NOT has_schema_privilege(n.oid, 'CREATE')",
            &[&schema],
        )
        .map_err(RestoreError::query("could not ask for the role's rights"))?;
    let Some(row) = closed else {
        return Ok(());
    };
    let (schema, role): (String, String) = (row.get(0), row.get(1));
    Err(RestoreError::Refused(format!(
        "role {} may not create tables in schema {}, and nothing was changed; run it as the tables' owner: DATABASE_URL=postgresql://OWNER@HOST/DATABASE oa-restore table …",
        quote_ident(&role),
        quote_ident(&schema)
    )))
}

/// Under row security it would be some of the rows that are compared and put back.
fn sees_all(client: &mut Client, table: &Table) -> Result<(), RestoreError> {
    let row = client
        .query_one(
            "SELECT coalesce(row_security_active($1::oid), false), current_user::text",
            &[&table.oid],
        )
        .map_err(RestoreError::query("could not ask for its row security"))?;
    if !row.get::<_, bool>(0) {
        return Ok(());
    }
    Err(RestoreError::Refused(format!(
        "row security hides rows of {} from role {role}; nothing was changed. As a superuser: ALTER ROLE {role} BYPASSRLS",
        table.shown(),
        role = quote_ident(row.get(1))
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
    private: &PrivateServer,
    live: &mut LiveServer,
    plan: &RestorePlan,
    name: &str,
    step: &Step,
    (args, by): (&Args, Option<Uuid>),
) -> Result<Value, RestoreError> {
    let database = live.database_then(private, plan)?;
    let mut past = private.server.connect(&database)?;
    // Neither triggers nor cascades shall change what was; a name means what it means to the live role.
    let session = format!(
        "SET session_replication_role = replica; SET search_path = {}",
        live.search_path
    );
    past.batch_execute(&session)
        .map_err(RestoreError::query("could not prepare the private server"))
        .map_err(RestoreError::in_private)?;
    let table = find_in_backup(&mut past, plan, name, step)?;
    let on_its_way = on_its_way();
    let source = TransferSource {
        private,
        database: &database,
        plan,
    };
    let prepared = prepare(&mut past, &table, &on_its_way, step, args);
    let PreparedTable {
        copy,
        renamed,
        attach,
    } = prepared.map_err(RestoreError::in_private)?;
    let content = transfer(&source, live, &mut past, &copy)?;
    let objects =
        large_objects::transfer(&mut past, live, &copy).inspect_err(|_| drop_table(live, &copy))?;
    failpoint::hit("restore.brought");
    install(
        live,
        step,
        &table,
        &copy,
        (&renamed, attach, by),
        &content,
        &objects,
    )
    .inspect_err(|_| {
        drop_table(live, &copy);
        objects.remove(live);
    })
}

/// What was transferred gets its name.
fn install(
    live: &mut LiveServer,
    step: &Step,
    table: &Table,
    copy: &Table,
    (renamed, attach, by): (&[Renamed], Option<String>, Option<Uuid>),
    content: &TableContent,
    objects: &LargeObjects,
) -> Result<Value, RestoreError> {
    let with = objects.shown();
    let carried = json!({"brought": objects.brought.len(), "kept": objects.kept});
    match step {
        Step::Rows { live: into, kept } => {
            let put = rows::put_back(&mut live.client, into, &copy.name, kept, by)?;
            Ok(json!({
                "table": into.shown(), "restored_as": into.shown(), "rows": put.inserted + put.updated + put.unchanged,
                "what": format!("{} inserted, {} changed back, {} unchanged{with}", put.inserted, put.updated, put.unchanged),
                "inserted": put.inserted, "updated": put.updated, "unchanged": put.unchanged,
                "kept_as": (put.updated > 0).then(|| format!("{}.{kept}", into.schema)), "large_objects": carried,
            }))
        }
        Step::Beside { new, .. } => {
            let named = Table {
                name: new.clone(),
                ..table.clone()
            };
            take_the_name(&mut live.client, (step, &named), renamed, None, |n| {
                derived(&table.name, new, n)
            })?;
            Ok(json!({
                "table": table.shown(), "restored_as": named.shown(), "rows": content.rows, "what": format!("beside{with}"), "kept_as": null,
                "large_objects": carried,
            }))
        }
        Step::Create | Step::Replace { .. } => {
            let kept = take_the_name(&mut live.client, (step, table), renamed, by, str::to_owned)?;
            let what = match (&kept, attach) {
                (Some(_), _) => format!("replaced{with}"),
                (None, None) => format!("came back{with}"),
                (None, Some(attach)) => format!("came back on its own{with}; then: {attach}"),
            };
            Ok(json!({
                "table": table.shown(), "restored_as": table.shown(), "rows": content.rows, "what": what, "kept_as": kept,
                "large_objects": carried,
            }))
        }
    }
}

struct TransferSource<'a> {
    private: &'a PrivateServer,
    database: &'a str,
    plan: &'a RestorePlan,
}

/// Brings a table from the private server into the live one, whole or not at all, and compares.
fn transfer(
    source: &TransferSource<'_>,
    live: &mut LiveServer,
    past: &mut Client,
    table: &Table,
) -> Result<TableContent, RestoreError> {
    let staging = source.private.staging();
    let bytes = tables::size_bytes(past, table).map_err(RestoreError::in_private)?;
    let mut needs = vec![DiskNeed {
        folder: staging.to_owned(),
        bytes,
        remedy: STAGING_REMEDY,
    }];
    needs.extend(live.need(bytes));
    check_room(&needs)?;
    let file = source.private.folder().join("table.sql");
    let mut arguments = vec![
        format!("--table={}", table.quoted()),
        format!("--file={}", file.display()),
        "--no-publications".to_owned(),
        "--no-password".to_owned(),
    ];
    if !live.superuser {
        arguments.push("--no-owner".to_owned());
    }
    if !live.has_tablespaces_of(past)? {
        arguments.push("--no-tablespaces".to_owned());
    }
    source
        .private
        .server
        .programs(source.database)?
        .run("pg_dump", &arguments)
        .map_err(RestoreError::from)
        .and_then(|()| add_statistics(past, table, &file))
        .map_err(|e| e.in_private().on_disk_of(staging.display(), STAGING_REMEDY))?;
    let past_table = tables::find(past, &table.quoted()).map_err(RestoreError::in_private)?;
    roles::make_missing(past, past_table.as_ref(), live)?;
    let mut arguments = vec![
        "--no-psqlrc".to_owned(),
        "--quiet".to_owned(),
        "--single-transaction".to_owned(),
        "--set=ON_ERROR_STOP=1".to_owned(),
    ];
    if live.superuser {
        // pg_dump's file loads with an empty search_path, with which functions of event triggers need not work; they fire when the
        // table gets its name.
        arguments.push("--command=SET session_replication_role = replica".to_owned());
    }
    arguments.push(format!("--file={}", file.display()));
    if let Err(e) = live
        .programs(source.plan.programs(), None)?
        .run("psql", &arguments)
    {
        let triggers = event_triggers::hint(&mut live.client)?;
        return Err(RestoreError::Differs(format!(
            "{} does not fit into the live database, and nothing was changed: {e}. With --as it comes without foreign keys and triggers{triggers}",
            table.shown()
        ))
        .on_disk_of("the live server", DISK_REMEDY));
    }
    remove(&file)?;
    let was =
        content::of_table(past, &table.schema, &table.name).map_err(RestoreError::in_private)?;
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

/// `pg_dump` of a table skips its extended statistics.
fn add_statistics(past: &mut Client, table: &Table, file: &Path) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not read the table's statistics objects");
    let mut tx = past.transaction().map_err(&failed)?;
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
    (step, table): (&Step, &Table),
    renamed: &[Renamed],
    by: Option<Uuid>,
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
        drop_foreign_keys(&mut tx, &kept_table)?;
        kept_as = Some(format!("{}.{kept}", live.schema));
    }
    shape::rename_again(&mut tx, renamed, name)?;
    if let Some(run) = by
        && revisions::are_there(&mut tx).map_err(&failed)?
    {
        let was = match step {
            Step::Replace { live, kept } => Some(quoted(&live.schema, kept)),
            _ => None,
        };
        let is_now = table.quoted();
        revisions::table_replaced(&mut tx, was.as_deref(), &is_now, run).map_err(&failed)?;
    }
    tx.commit().map_err(&failed)?;
    Ok(kept_as)
}

/// Of what does not stay. Where even that fails, the next restore tries it again, and until then it is in nobody's way.
fn drop_table(live: &mut LiveServer, table: &Table) {
    if let Err(e) = event_triggers::drop_quietly(live, &table.quoted()) {
        tracing::warn!(
            "could not remove {}, which nobody uses: {}; the next oa-restore table removes it, or DROP TABLE {}",
            table.shown(),
            oa_core::pg::describe(&e),
            table.quoted()
        );
    }
}

/// Tables that a killed restore has left on their way. Not those of one that runs meanwhile: its task is locked by its run.
fn remove_left(live: &mut LiveServer) -> Result<(), RestoreError> {
    let failed = RestoreError::query("could not look for what a killed restore has left");
    let rows = live
        .client
        .query(
            "SELECT n.nspname::text, c.relname::text, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND c.relname ~ ('^' || $1 || '[0-9a-f]{12}$') AND pg_has_role(c.relowner, 'USAGE')",
            &[&ON_ITS_WAY],
        )
        .map_err(&failed)?;
    for row in &rows {
        let (schema, name): (String, String) = (row.get(0), row.get(1));
        let left = Table {
            oid: row.get(2),
            schema,
            name,
            kind: "r".to_owned(),
            unlogged: false,
        };
        tracing::warn!("removing {}, which a killed restore has left", left.shown());
        drop_table(live, &left);
    }
    Ok(())
}
