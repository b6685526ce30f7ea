//! `oa-migrate init`: creates or upgrades schema `oa` and the service's own tables. Running it again changes nothing.

use anyhow::anyhow;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::{Format, Listing};
use oa_core::pg::{self, describe, schema};
use oa_core::service;
use postgres::Client;
use serde_json::json;

use super::failure;
use crate::PROGRAM;
use crate::roles::{self, Made, RolesError};

/// Create or upgrade schema oa and the service's own tables
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  oa-migrate init\n  DATABASE_URL=postgresql://postgres@/oa oa-migrate init --roles   # as a superuser: a role for each program, with what it needs and no more\n  oa-migrate init --audit variety_details   # keep revisions whoever changes it: SQL by hand, other programs"
)]
pub(crate) struct Args {
    /// Keep revisions of this table whoever changes it, by triggers (may be given several times)
    #[arg(long, value_name = "TABLE")]
    audit: Vec<String>,
    /// Remove those triggers again (may be given several times)
    #[arg(long, value_name = "TABLE")]
    no_audit: Vec<String>,
    /// Make the database's roles PREFIX_writer, _reader, _backup, _restore (and _owner, where a superuser owns schema oa), or grant them
    /// again what they need
    #[arg(long, value_name = "PREFIX", num_args = 0..=1, default_missing_value = "oa", value_parser = prefix)]
    roles: Option<String>,
    /// How the result is printed
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What may begin a role's name without quotation marks.
fn prefix(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    match text.len() <= 40
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(fits)
        && !text.starts_with("pg_")
    {
        true => Ok(text.to_owned()),
        false => Err(
            "it begins with a letter and has lower-case letters, digits and _ only, at most 40"
                .to_owned(),
        ),
    }
}

pub(crate) fn run(args: &Args, config: &Config) -> Result<u8, Failure> {
    let mut client = pg::connect(&pg::Settings::from_config(config, PROGRAM)?)?;
    schema::check_encoding(&mut client)?;
    let applied = schema::upgrade(&mut client)?;
    let refused = service::create_missing(&mut client)
        .map_err(|e| anyhow!("could not create the service's tables: {}", describe(&e)))?;
    let audits = set_audits(&mut client, args)?;
    let made = match &args.roles {
        Some(prefix) => roles::make(&mut client, prefix).map_err(|e| match e {
            RolesError::NotAllowed => Failure::new(exit::REFUSED, e),
            RolesError::Query(e) => anyhow!("could not make the roles: {}", describe(&e)).into(),
        })?,
        None => Vec::new(),
    };
    let mut listing = Listing::new(&[("what", "WHAT"), ("state", "STATE")]);
    listing.push(json!({
        "what": "schema oa",
        "state": if applied.is_empty() { "up to date".to_owned() } else { format!("applied {}", applied.join(", ")) },
        "version": schema::needed(),
    }));
    for key in service::NATURAL_KEYS {
        let state = if refused.contains(&key.table) {
            format!(
                "duplicates prevent its unique index: run oa-migrate dedupe {}",
                key.table
            )
        } else {
            "ready".to_owned()
        };
        listing.push(json!({ "what": format!("table {}", key.table), "state": state }));
    }
    for (table, on) in audits {
        let state = if on { "audited" } else { "not audited" };
        listing.push(json!({ "what": format!("table {table}"), "state": state }));
    }
    for role in &made {
        listing.push(json!({ "what": format!("role {}", role.role), "state": state_of(role) }));
    }
    listing.print(args.format).map_err(failure)?;
    let new: Vec<&str> = made
        .iter()
        .filter(|r| r.is_new)
        .map(|r| r.role.as_str())
        .collect();
    if !new.is_empty() {
        tracing::info!(
            "nobody can log in with a password yet; set one for each in psql: \\password {}",
            new.join(", \\password ")
        );
    }
    Ok(exit::OK)
}

fn state_of(role: &Made) -> String {
    let mut state = match role.is_new {
        true => "made, without a password".to_owned(),
        false => "was there; granted what it needs".to_owned(),
    };
    if !role.too_much.is_empty() {
        let too_much = role.too_much.join(" NO");
        state.push_str(&format!(
            "; it may more than it needs: ALTER ROLE {} NO{too_much}",
            role.role
        ));
    }
    for lacks in &role.lacks {
        state.push_str(&format!("; it lacks {lacks}"));
    }
    state
}

/// Sets and removes triggers, all or none; gives each table and whether it is audited now.
fn set_audits(client: &mut Client, args: &Args) -> Result<Vec<(String, bool)>, Failure> {
    let wanted = args.audit.iter().map(|t| (t, true));
    let wanted: Vec<(&String, bool)> = wanted
        .chain(args.no_audit.iter().map(|t| (t, false)))
        .collect();
    if let Some(both) = args.audit.iter().find(|t| args.no_audit.contains(t)) {
        let problem = anyhow!("{both} is named by --audit and by --no-audit");
        return Err(Failure::new(exit::USAGE, problem));
    }
    let begun = |e: postgres::Error| anyhow!("could not set the audit: {}", describe(&e));
    let mut tx = client.transaction().map_err(begun)?;
    let mut done = Vec::new();
    for (name, on) in wanted {
        let found = tx
            .query_opt(
                "SELECT c.oid::regclass::text, oa.revised_index(c.oid) IS NOT NULL, has_table_privilege(f.proowner, c.oid, 'SELECT'), f.proowner::regrole::text,
                        has_function_privilege(f.oid, 'EXECUTE'), current_user::regrole::text
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_proc f ON f.oid = 'oa.audit()'::regprocedure
                 WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND n.nspname <> 'oa'
                   AND ($1 = n.nspname || '.' || c.relname OR n.nspname = 'public' AND $1 = c.relname)
                 ORDER BY $1 = c.relname AND n.nspname = 'public' DESC LIMIT 1",
                &[name],
            )
            .map_err(begun)?;
        let Some(found) = found else {
            let problem = anyhow!(
                "there is no table {name}; write a table outside schema public with its schema, and the table instead of its partition"
            );
            return Err(Failure::new(exit::USAGE, problem));
        };
        let (table, has_key): (String, bool) = (found.get(0), found.get(1));
        if on && !has_key {
            return Err(anyhow!(
                "{name} has no unique index, so nobody could say which row changed; create one first"
            )
            .into());
        }
        let (readable, owner): (bool, String) = (found.get(2), found.get(3));
        if on && !readable {
            return Err(anyhow!(
                "role {owner}, which owns schema oa, may not read {name}, and its rows are kept before somebody empties it (TRUNCATE); as the table's owner: GRANT SELECT ON {table} TO {owner}"
            )
            .into());
        }
        let (may_call, me): (bool, String) = (found.get(4), found.get(5));
        if on && !may_call {
            return Err(anyhow!(
                "role {me} may not have changes of {name} noted; as {owner}, which owns schema oa: GRANT EXECUTE ON FUNCTION oa.audit() TO {me}"
            )
            .into());
        }
        let function = if on { "start_audit" } else { "stop_audit" };
        tx.execute(
            &format!("SELECT oa.{function}($1::text::regclass)"),
            &[&table],
        )
        .map_err(|e| anyhow!("could not set the audit of {name}: {}", describe(&e)))?;
        done.push((table, on));
    }
    tx.commit().map_err(begun)?;
    Ok(done)
}
