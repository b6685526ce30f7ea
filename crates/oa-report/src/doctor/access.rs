//! What the roles may do, how long they may log in, and how many of them at once.

use oa_core::app::config::Config;
use oa_core::pg::describe;
use oa_core::service::NATURAL_KEYS;
use postgres::{Client, Error};

use super::Findings;
use super::server::edit_secrets;
use crate::pool;

/// Sessions besides those of the sources that run at once: cron's programs, the page, a backup.
const SESSIONS: u32 = 8;

/// Tables to which rows are added.
const GROWING: [&str; 25] = [
    "runs",
    "attempts",
    "tasks",
    "slots",
    "days",
    "incidents",
    "alerts",
    "deliveries",
    "starts",
    "watches",
    "backups",
    "silences",
    "requests",
    "used_links",
    "cards",
    "listeners",
    "channels",
    "raw",
    "rejects",
    "revisions",
    "quality",
    "commits",
    "robots",
    "channel_routes",
    "locks",
];
/// Tables whose rows change, or are locked.
const CHANGING: [&str; 18] = [
    "runs",
    "tasks",
    "slots",
    "days",
    "incidents",
    "alerts",
    "deliveries",
    "starts",
    "watches",
    "backups",
    "silences",
    "requests",
    "cards",
    "listeners",
    "channels",
    "locks",
    "robots",
    "channel_routes",
];
/// Tables from which rows go.
const SHRINKING: [&str; 2] = ["raw", "revisions"];

/// What every run needs. Nothing is said where there is no schema yet; whether something is lacking is given back.
pub(super) fn rights(client: &mut Client, findings: &mut Findings) -> Result<bool, Error> {
    // By number, because a name is refused where the schema may not be used.
    let row = client.query_opt(
        "SELECT quote_ident(current_user), has_schema_privilege(n.oid, 'USAGE') AND has_schema_privilege('public', 'USAGE'),
                string_agg('oa.' || c.relname, ', ' ORDER BY c.relname)
                  FILTER (WHERE c.relname = ANY($1::text[]) AND NOT (has_table_privilege(c.oid, 'SELECT') AND has_table_privilege(c.oid, 'INSERT'))),
                string_agg('oa.' || c.relname, ', ' ORDER BY c.relname) FILTER (WHERE c.relname = ANY($2::text[]) AND NOT has_table_privilege(c.oid, 'UPDATE')),
                string_agg('oa.' || c.relname, ', ' ORDER BY c.relname) FILTER (WHERE c.relname = ANY($3::text[]) AND NOT has_table_privilege(c.oid, 'DELETE'))
         FROM pg_namespace n JOIN pg_class c ON c.relnamespace = n.oid AND c.relkind IN ('r', 'p') WHERE n.nspname = 'oa' GROUP BY n.oid",
        &[&&GROWING[..], &&CHANGING[..], &&SHRINKING[..]],
    )?;
    let Some(row) = row else {
        return Ok(false);
    };
    let (role, enters): (String, bool) = (row.get(0), row.get(1));
    let (lacking, unchanged): (Option<String>, Option<String>) = (row.get(2), row.get(3));
    let kept: Option<String> = row.get(4);
    let grant = format!(
        "psql \"OWNER'S ADDRESS\" -c 'GRANT USAGE ON SCHEMA oa, public TO {role}' -c 'GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa, public TO {role}'"
    );
    let problem = if !enters {
        format!("{role} may not use schema oa or public")
    } else if let Some(tables) = lacking {
        format!("{role} may not read and write {tables}")
    } else if let Some(tables) = unchanged {
        format!("{role} may not change rows of {tables}")
    } else if let Some(tables) = kept {
        let grant = format!("psql \"OWNER'S ADDRESS\" -c 'GRANT DELETE ON {tables} TO {role}'");
        let detail = format!("{role} may not delete from {tables}: oa-crawl prune removes nothing");
        findings.warn("roles", detail, grant);
        return Ok(false);
    } else {
        findings.ok("roles", format!("{role} may do what a run needs"));
        return Ok(false);
    };
    findings.error("roles", problem, grant);
    Ok(true)
}

/// Passwords that expire, and roles or databases that take fewer sessions than the programs have.
pub(super) fn logins(
    client: &mut Client,
    config: &Config,
    findings: &mut Findings,
) -> Result<(), Error> {
    let rows = client.query(
        "SELECT quote_ident(rolname), to_char(rolvaliduntil, 'YYYY-MM-DD HH24:MI TZ'), rolvaliduntil <= now() FROM pg_roles
         WHERE rolcanlogin AND isfinite(rolvaliduntil) AND rolvaliduntil < now() + make_interval(secs => $1)
           AND (rolname = current_user OR NOT rolsuper AND has_schema_privilege(oid, 'oa', 'USAGE')) ORDER BY rolname",
        &[&config.alert.expiry_notice.0.as_secs_f64()],
    )?;
    for row in &rows {
        let (role, until, over): (String, String, bool) = (row.get(0), row.get(1), row.get(2));
        let mend = format!("sudo -u postgres psql -c \"ALTER ROLE {role} VALID UNTIL 'infinity'\"");
        match over {
            true => findings.error(
                "roles",
                format!("the password of {role} expired at {until}"),
                mend,
            ),
            false => findings.warn(
                "roles",
                format!("the password of {role} expires at {until}"),
                mend,
            ),
        }
    }
    let needed = u32::try_from(config.crawl.parallel)
        .unwrap_or(u32::MAX)
        .saturating_add(SESSIONS);
    let row = client.query_one(
        "SELECT quote_ident(current_user), quote_ident(current_database()), rolconnlimit, datconnlimit, current_setting('max_connections')::int4
         FROM pg_roles, pg_database WHERE rolname = current_user AND datname = current_database()",
        &[],
    )?;
    let (role, database): (String, String) = (row.get(0), row.get(1));
    let limits: [(i32, String, String); 3] = [
        (
            row.get(2),
            format!("role {role} takes"),
            format!("sudo -u postgres psql -c 'ALTER ROLE {role} CONNECTION LIMIT -1'"),
        ),
        (
            row.get(3),
            format!("database {database} takes"),
            format!("sudo -u postgres psql -c 'ALTER DATABASE {database} CONNECTION LIMIT -1'"),
        ),
        (
            row.get(4),
            "the server takes".to_owned(),
            // Three are kept for superusers.
            format!(
                "sudo -u postgres psql -c 'ALTER SYSTEM SET max_connections = {}' && sudo systemctl restart postgresql",
                needed.saturating_add(3).max(100)
            ),
        ),
    ];
    // -1 is no limit.
    for (limit, who, mend) in limits {
        if u32::try_from(limit).is_ok_and(|limit| limit < needed) {
            findings.warn(
                "roles",
                format!("{who} {limit} sessions, and the programs may have {needed} at once (parallel in [crawl] and {SESSIONS} others)"),
                mend,
            );
        }
    }
    Ok(())
}

/// Functions that act as the owner of schema `oa`, and that anybody could have called by a trigger of his own.
pub(super) fn functions(client: &mut Client, findings: &mut Findings) -> Result<(), Error> {
    let row = client.query_one(
        "SELECT string_agg('oa.' || p.proname, ', ' ORDER BY p.proname) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = 'oa' AND p.prosecdef AND p.prorettype = 'trigger'::regtype AND has_function_privilege('public', p.oid, 'EXECUTE')",
        &[],
    )?;
    if let Some(open) = row.get::<_, Option<String>>(0) {
        findings.warn(
            "roles",
            format!("every role that may use schema oa can do with {open} what its owner may"),
            "oa-migrate init",
        );
    }
    Ok(())
}

/// The role of the page (`report.database_url`): it reads everything, and writes nothing.
pub(super) fn reader(config: &Config, findings: &mut Findings) {
    if config.report.database_url.is_none() {
        return;
    }
    let check = "reader";
    let mut client = match pool::connect_read_only(config) {
        Ok(client) => client,
        Err(e) => return findings.error(check, e.to_string(), edit_secrets(config)),
    };
    let tables: Vec<&str> = NATURAL_KEYS.iter().map(|key| key.table).collect();
    let row = client.query_one(
        "SELECT quote_ident(current_user), string_agg(c.oid::regclass::text, ', ') FILTER (WHERE NOT has_table_privilege(c.oid, 'SELECT')),
                bool_or(has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE')),
                (SELECT string_agg(t.relname::text, ', ' ORDER BY t.relname) FROM pg_class t JOIN pg_namespace n ON n.oid = t.relnamespace
                 WHERE n.nspname = 'public' AND t.relname = ANY($1::text[])
                   AND NOT (has_table_privilege(t.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE')))
         FROM pg_class c WHERE c.relnamespace = 'oa'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition",
        &[&tables],
    );
    let row = match row {
        Ok(row) => row,
        Err(e) => return findings.error(check, describe(&e), edit_secrets(config)),
    };
    let (role, unread, writes): (String, Option<String>, bool) =
        (row.get(0), row.get(1), row.get(2));
    if let Some(tables) = unread {
        let grant = format!(
            "psql \"OWNER'S ADDRESS\" -c 'GRANT SELECT ON ALL TABLES IN SCHEMA oa TO {role}'"
        );
        findings.error(check, format!("{role} may not read {tables}"), grant);
    } else if writes {
        let revoke = format!(
            "psql \"OWNER'S ADDRESS\" -c 'REVOKE INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA oa FROM {role}'"
        );
        let detail = format!("{role}, the page's role, may write; it should only read");
        findings.warn(check, detail, revoke);
    } else if let Some(tables) = row.get::<_, Option<String>>(3) {
        let grant = format!(
            "psql \"OWNER'S ADDRESS\" -c 'GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}'"
        );
        let detail = format!(
            "{role} may not read {tables}, which oa-report as-of and oa-report why are asked about"
        );
        findings.warn(check, detail, grant);
    } else {
        findings.ok(check, format!("{role} may read, and nothing else"));
    }
}
