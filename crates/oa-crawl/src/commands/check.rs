//! `oa-crawl check`: would a run work? Configuration, sources, secrets, state directory, database, schema and tables, one line
//! each, without asking any site.

use std::time::Duration;

use chrono::{Datelike, TimeDelta, Utc};
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::base::pile::Pile;
use oa_core::base::secrets::redact;
use oa_core::base::trust::quoted;
use oa_core::journal::Recorder;
use oa_core::model::run::Batch;
use oa_core::pg::upsert::{self, UpsertError};
use oa_core::pg::{self, Settings, schema};
use oa_core::schedule::Calendar;
use oa_core::service;
use postgres::{Client, Transaction};
use serde_json::json;

use super::args::SourcesArg;
use crate::PROGRAM;
use crate::fetch::{Network, browser};
use crate::program::Query;
use crate::program::environment::Environment;
use crate::progress;
use crate::source::{BUILT_IN, FetchKind, Shows, Source, Sources};
use crate::store;

struct CheckReport {
    listing: Listing,
    worst: u8,
}

impl CheckReport {
    fn add(&mut self, what: &str, result: Result<String, (u8, String)>) {
        self.add_with(what, result, None);
    }

    /// `mended_by` is the command with which a person mends it; programs get it as `command`.
    fn add_with(
        &mut self,
        what: &str,
        result: Result<String, (u8, String)>,
        mended_by: Option<&str>,
    ) {
        let (state, text) = match result {
            Ok(text) => ("ok", text),
            Err((code, text)) => {
                self.worst = self.worst.max(code);
                (if code == exit::OK { "warning" } else { "error" }, text)
            }
        };
        let command = mended_by.filter(|_| state != "ok");
        self.listing.push(
            json!({ "check": what, "state": state, "detail": redact(&text), "command": command }),
        );
    }
}

/// Check configuration, sources, secrets, state directory and database, without contacting any site
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    #[command(flatten)]
    sources: SourcesArg,
    /// How the list is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// Exits 0 when a run would work, 78 when a person must act, 75 when PostgreSQL cannot be reached.
pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let mut report = CheckReport {
        listing: Listing::new(&[("check", "CHECK"), ("state", "STATE"), ("detail", "DETAIL")]),
        worst: exit::OK,
    };
    report.add("configuration", Ok(config.path.display().to_string()));
    for warning in config.warnings() {
        report.add("configuration", Err((exit::OK, warning)));
    }
    let shown = progress::show(args.format, false);
    let work = progress::work("check");
    let sources = check_sources(args, config, &mut report);
    check_secrets(config, sources.as_ref(), &mut report);
    check_browser(config, sources.as_ref(), &mut report);
    check_network(config, &mut report);
    check_calendar(config, &mut report);
    check_state_dir(config, &mut report);
    check_database(config, sources.as_ref(), &mut report);
    drop((work, shown));
    report
        .listing
        .print(args.format)
        .map_err(anyhow::Error::from)?;
    Ok(report.worst)
}

fn check_sources(args: &Args, config: &Config, report: &mut CheckReport) -> Option<Sources> {
    match args.sources.load(config) {
        Ok(sources) => {
            let (all, enabled) = (sources.iter().count(), sources.enabled().count());
            let said = match enabled {
                0 => Err((
                    exit::OK,
                    format!(
                        "{all} are valid, none is enabled; oa-crawl list shows them, oa-crawl enable TASK|PROVIDER enables"
                    ),
                )),
                _ => Ok(format!("{all} are valid, {enabled} of them enabled")),
            };
            report.add_with("sources", said, Some("oa-crawl enable TASK"));
            for one in sources.broken() {
                report.add(&one.task, Err((exit::CONFIG, one.reason.clone())));
            }
            for source in sources.iter() {
                // Of a built-in one that is off nobody relies on the end; somebody is writing the others.
                let file = format!("{}.toml", source.name);
                let is_built_in = BUILT_IN.iter().any(|(name, _)| *name == file);
                if source.enabled || !is_built_in {
                    check_end(source, report);
                }
                check_schedule(config, source, report);
            }
            Some(sources)
        }
        Err(e) => {
            report.add("sources", Err((exit::CONFIG, e.to_string())));
            None
        }
    }
}

/// A proxy or a `ca_file` that cannot be used: no site can be asked.
fn check_network(config: &Config, report: &mut CheckReport) {
    if let Err(e) = Network::load(config.crawl.ca_file.as_deref()) {
        report.add("network", Err((exit::CONFIG, e)));
    }
}

fn check_secrets(config: &Config, sources: Option<&Sources>, report: &mut CheckReport) {
    let env = config.path.with_file_name(".env");
    let edit = format!("sudoedit {}", quoted(&env));
    for source in sources.iter().flat_map(|s| s.enabled()) {
        for (what, reference) in source.needed_secrets() {
            let setting = format!("{what} of source {}", source.name);
            report.add_with(
                &source.name,
                config
                    .secret(reference, &setting)
                    .map(|_| format!("{what} is set"))
                    .map_err(|e| (exit::CONFIG, e.to_string())),
                Some(&edit),
            );
        }
        for (input, reference) in source.input_secrets() {
            let setting = format!("{input} of source {}", source.name);
            report.add_with(
                &source.name,
                config
                    .secret(reference, &setting)
                    .map(|_| format!("{input} is set"))
                    .map_err(|e| {
                        (
                            exit::OK,
                            format!("{e}; until then it needs imported cookies"),
                        )
                    }),
                Some(&edit),
            );
        }
    }
    for (task, exec) in config.exec.iter().filter(|(_, e)| !e.env.is_empty()) {
        let environment = Environment::of(config, task)
            .map(|_| format!("env: {}", exec.env.join(", ")))
            .map_err(|e| (exit::CONFIG, e.to_string()));
        report.add(task, environment);
    }
}

fn check_state_dir(config: &Config, report: &mut CheckReport) {
    match Recorder::open(config, PROGRAM).and_then(|r| {
        r.spool()
            .and_then(|s| s.pending())
            .map_err(anyhow::Error::from)
    }) {
        Ok(pending) if pending.entries == 0 => report.add(
            "state_dir",
            Ok(format!(
                "{} is writable, the spool is empty",
                config.state_dir.display()
            )),
        ),
        Ok(pending) => report.add_with(
            "state_dir",
            Err((
                exit::OK,
                format!(
                    "{} entries wait in the spool; run oa-crawl drain",
                    pending.entries
                ),
            )),
            Some("oa-crawl drain"),
        ),
        Err(e) => {
            let failure = Failure::from(e);
            report.add("state_dir", Err((failure.code, failure.to_string())));
        }
    }
}

/// Without a total, only the source's author knows whether a list that ends is complete.
fn check_end(source: &Source, report: &mut CheckReport) {
    let rules = &source.answer;
    let has_total = rules.total.is_some()
        || !rules.lists.is_empty() && rules.lists.iter().all(|list| list.total.is_some());
    let what = match &source.paging {
        _ if has_total => return,
        Some(paging) if paging.end.is_none() && !paging.is_linked() => {
            "[paging] has neither total in [answer] nor end: say by what the last page is known, end = \"empty page\" or \"short page\""
        }
        None if rules.end.is_none() && source.fetch.kind != FetchKind::Command => {
            "[answer] has no total, so that nothing proves that one answer is all: say where the total is, read the pages with [paging], or say end = \"one answer\" when the site gives everything in each answer"
        }
        _ => return,
    };
    let mended_by = format!("oa-crawl run {} --dry-run", source.name);
    report.add_with(
        &source.name,
        Err((exit::OK, what.to_owned())),
        Some(&mended_by),
    );
}

/// A day that no month has is a valid cron expression.
fn check_schedule(config: &Config, source: &Source, report: &mut CheckReport) {
    let (Ok(schedule), Ok(calendar)) = (
        source.schedule_in(config.timezone),
        Calendar::load(config.calendar.as_deref()),
    ) else {
        return;
    };
    if schedule.next_after(Utc::now(), &calendar).is_none() {
        let what = format!(
            "schedule \"{}\" with days and sessions of the source is never due within the next year; correct it in the source file, or run oa-crawl disable {}",
            source.schedule, source.name
        );
        let disable = format!("oa-crawl disable {}", source.name);
        let mended_by = source.enabled.then_some(disable.as_str());
        report.add_with(&source.name, Err((exit::CONFIG, what)), mended_by);
        return;
    }
    let zone = config.timezone;
    let mut due = source.due_times(Utc::now(), zone, &calendar);
    let again = source.again.and_then(|_| due.find(|due| due.again));
    let too_late = again.filter(|due| due.at.with_timezone(&zone).date_naive() > due.day);
    if too_late.is_some() && source.shows() == Shows::Today {
        let what = "again comes on the next day, when the site shows that one (shows): the day is not collected once more; choose a shorter wait";
        report.add(&source.name, Err((exit::OK, what.to_owned())));
    }
}

fn check_browser(config: &Config, sources: Option<&Sources>, report: &mut CheckReport) {
    let needs = sources
        .iter()
        .flat_map(|s| s.enabled())
        .filter(|s| s.fetch.kind == FetchKind::Browser);
    let tasks: Vec<&str> = needs.map(|s| s.name.as_str()).collect();
    if tasks.is_empty() {
        return;
    }
    let found = browser::find_program();
    let mended_by = match found {
        // It makes the account.
        Some(_) => "sudo oa-setup",
        None => "sudo apt-get install chromium",
    };
    report.add_with(
        "browser",
        match found {
            Some(program) if browser::without_sandbox() => Err((
                exit::OK,
                format!(
                    "{} runs without its sandbox for root; run oa-crawl as a user of its own",
                    program.display()
                ),
            )),
            Some(program) => Ok(program.display().to_string()),
            None => Err((
                exit::CONFIG,
                format!(
                    "no Chromium is installed, which {} need; install the package chromium",
                    tasks.join(", ")
                ),
            )),
        },
        Some(mended_by),
    );
    if let Some(file) = &config.crawl.ca_file
        && !browser::has_authorities()
    {
        let what = format!(
            "Chromium does not read ca_file, for {}; where a certificate comes from an authority in that file, add it to this user's NSS database (package libnss3-tools)",
            tasks.join(", ")
        );
        let add = format!(
            "mkdir -p ~/.pki/nssdb && certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n oa -i {}",
            quoted(file)
        );
        report.add_with("browser", Err((exit::OK, what)), Some(&add));
    }
}

/// So long before its last day a calendar must be prolonged.
const CALENDAR_NOTICE: TimeDelta = TimeDelta::days(30);

fn check_calendar(config: &Config, report: &mut CheckReport) {
    let calendar = match Calendar::load(config.calendar.as_deref()) {
        Ok(calendar) => calendar,
        Err(e) => return report.add("calendar", Err((exit::CONFIG, e.to_string()))),
    };
    let today = Utc::now().with_timezone(&config.timezone).date_naive();
    let needed = (today + CALENDAR_NOTICE).year();
    let missing = (today.year()..=needed)
        .find(|year| calendar.last_known_year().is_none_or(|last| last < *year));
    let last = calendar.last_known_year();
    let known = last.map_or_else(
        || "no trading days are known".to_owned(),
        |last| format!("trading days are known up to {last}"),
    );
    report.add("calendar", match missing {
        None => Ok(known),
        Some(year) => {
            let when = if year == today.year() { "" } else { ", which begins soon," };
            Err((
                exit::OK,
                format!("{known} only; in {year}{when} Monday to Friday count as such, holidays too; add the year in a file named by calendar = \"…\""),
            ))
        }
    });
}

/// Runs the queries of `[exec.TASK]`, as after an attempt.
fn check_queries(
    config: &Config,
    settings: &Settings,
    client: &mut postgres::Client,
    report: &mut CheckReport,
) {
    for (task, exec) in &config.exec {
        let Some(sql) = exec.records.clone() else {
            continue;
        };
        let settings = settings.clone();
        let counted = Query { sql, settings }.check(client);
        report.add(
            task,
            counted
                .map(|_| "its query for records works".to_owned())
                .map_err(|e| {
                    let what = format!("records in [exec.{task}] cannot be used: {e:#}");
                    (exit::CONFIG, what)
                }),
        );
    }
}

fn check_database(config: &Config, sources: Option<&Sources>, report: &mut CheckReport) {
    let settings = match Settings::from_config(config, PROGRAM) {
        Ok(settings) => settings,
        Err(e) => return report.add("database", Err((exit::CONFIG, e.to_string()))),
    };
    let mut client = match pg::connect(&settings) {
        Ok(client) => client,
        Err(e) => {
            let said = e.to_string();
            return report.add("database", Err((Failure::from(e).code, said)));
        }
    };
    if let Err(e) = schema::check(&mut client) {
        return report.add("database", Err((exit::CONFIG, e.to_string())));
    }
    report.add(
        "database",
        Ok(format!(
            "reachable, schema oa is version {}",
            schema::needed()
        )),
    );
    check_queries(config, &settings, &mut client, report);
    check_rights(&mut client, sources, report);
    check_own_tables(&mut client, sources, report);
    let mut tables: Vec<&str> = sources
        .iter()
        .flat_map(|s| s.enabled())
        .map(|s| s.store.table.as_str())
        .collect();
    tables.sort_unstable();
    tables.dedup();
    for key in tables.into_iter().filter_map(service::natural_key) {
        let query = "SELECT to_regclass($1) IS NOT NULL, to_regclass($2) IS NOT NULL";
        let state = client
            .query_one(
                query,
                &[
                    &format!("public.{}", key.table),
                    &format!("public.{}", key.index),
                ],
            )
            .map(|r| (r.get(0), r.get(1)));
        let mended_by = match state {
            Ok((true, _)) => format!("oa-migrate dedupe {}", key.table),
            _ => "oa-migrate init".to_owned(),
        };
        report.add_with(key.table, match state {
            Ok((true, true)) => Ok("table and natural key are there".to_owned()),
            Ok((true, false)) => Err((exit::CONFIG, format!("has no unique index on its natural key; run oa-migrate init, or oa-migrate dedupe {} when it holds duplicates", key.table))),
            Ok((false, _)) => Err((exit::CONFIG, "table is missing; run oa-migrate init".to_owned())),
            Err(e) => Err((exit::FAILED, pg::describe(&e))),
        }, Some(&mended_by));
    }
}

/// Tables that are not the service's: whether rows of their sources could be stored.
fn check_own_tables(client: &mut Client, sources: Option<&Sources>, report: &mut CheckReport) {
    let enabled = sources.iter().flat_map(|s| s.enabled());
    for source in enabled.filter(|s| service::natural_key(&s.store.table).is_none()) {
        let batch = store::batch(source, Pile::default(), Utc::now());
        let checked = client
            .transaction()
            .map_err(|e| pg::describe(&e))
            .and_then(|mut tx| {
                match upsert::check(&mut tx, &batch) {
                    // What is only for now, and rights, are said elsewhere.
                    Err(UpsertError::Database { .. }) => return Ok(()),
                    checked => checked.map_err(|e| e.to_string())?,
                }
                unfilled(&mut tx, &batch).map_err(|e| pg::describe(&e))?
            });
        if let Err(problem) = checked {
            report.add(&source.name, Err((exit::CONFIG, problem)));
        }
    }
}

/// Columns that may not be null, and that nothing fills.
fn unfilled(
    tx: &mut Transaction<'_>,
    batch: &Batch,
) -> Result<Result<(), String>, postgres::Error> {
    let row = tx.query_one(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
         WHERE attrelid = to_regclass(format('%I.%I', $1::text, $2::text)) AND attnum > 0 AND NOT attisdropped AND attnotnull AND NOT atthasdef
           AND attidentity = '' AND attname <> ALL($3::text[] || '{created_at,updated_at}')",
        &[&batch.schema, &batch.table, &batch.columns],
    )?;
    Ok(match row.get::<_, Option<String>>(0) {
        None => Ok(()),
        Some(columns) => Err(format!(
            "{columns} of table {} may not be null, and neither a field of the source nor a default fills it",
            batch.table
        )),
    })
}

/// What a run would be refused: writing at all, and each of its tables.
fn check_rights(client: &mut Client, sources: Option<&Sources>, report: &mut CheckReport) {
    let read_only = client
        .query_one(
            "SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::bool",
            &[],
        )
        .map(|r| r.get(0));
    match read_only {
        Ok(false) => {}
        Ok(true) => report.add(
            "database",
            Err((
                exit::CONFIG,
                "it is read-only: a standby, or default_transaction_read_only is on; name the primary, or turn that off".to_owned(),
            )),
        ),
        Err(e) => report.add("database", Err((exit::FAILED, pg::describe(&e)))),
    }
    let role: String = client
        .query_one("SELECT quote_ident(current_user)", &[])
        .map_or_else(|_| "ROLE".to_owned(), |row| row.get(0));
    let stores = sources.iter().flat_map(|s| s.enabled()).map(|s| &s.store);
    let mut tables: Vec<(&str, &str)> = stores
        .map(|s| (s.schema.as_str(), s.table.as_str()))
        .chain([("oa", "runs"), ("oa", "tasks"), ("oa", "days")])
        .collect();
    tables.sort_unstable();
    tables.dedup();
    for (schema, table) in tables {
        let lacking = client
            .query_one(
                "SELECT string_agg(right_, ', ') FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE']) right_
                 WHERE NOT has_table_privilege(to_regclass(format('%I.%I', $1::text, $2::text)), right_)",
                &[&schema, &table],
            )
            .map(|r| r.get::<_, Option<String>>(0));
        let (problem, grant) = match lacking {
            Ok(None) => continue,
            Ok(Some(rights)) => (
                format!("the role has no right to {rights} in {schema}.{table}; grant it"),
                Some(format!(
                    "psql \"OWNER'S ADDRESS\" -c 'GRANT {rights} ON {schema}.{table} TO {role}'"
                )),
            ),
            Err(e) => (pg::describe(&e), None),
        };
        report.add_with(table, Err((exit::CONFIG, problem)), grant.as_deref());
    }
    check_sequences(client, sources, &role, report);
}

/// Numbers of rows that come from a sequence (`serial`), whose rights are its own; an identity column's are the table's.
fn check_sequences(
    client: &mut Client,
    sources: Option<&Sources>,
    role: &str,
    report: &mut CheckReport,
) {
    let stores = sources.iter().flat_map(|s| s.enabled()).map(|s| &s.store);
    let mut tables: Vec<(&str, &str)> = stores.map(|s| (&*s.schema, &*s.table)).collect();
    tables.sort_unstable();
    tables.dedup();
    for (schema, table) in tables {
        let lacking = client.query_one(
            "SELECT string_agg(s.oid::regclass::text, ', ') FROM pg_depend d JOIN pg_class s ON s.oid = d.objid
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype = 'a'
               AND d.refobjid = to_regclass(format('%I.%I', $1::text, $2::text))
               AND CASE s.relkind WHEN 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE, UPDATE') ELSE false END",
            &[&schema, &table],
        );
        let (problem, grant) = match lacking.map(|row| row.get::<_, Option<String>>(0)) {
            Ok(None) => continue,
            Ok(Some(names)) => (
                format!(
                    "the role may not take numbers from the sequence {names} of {schema}.{table}; grant it"
                ),
                Some(format!(
                    "psql \"OWNER'S ADDRESS\" -c 'GRANT USAGE ON SEQUENCE {names} TO {role}'"
                )),
            ),
            Err(e) => (pg::describe(&e), None),
        };
        report.add_with(table, Err((exit::CONFIG, problem)), grant.as_deref());
    }
}
