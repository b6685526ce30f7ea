//! The database's roles: one for each way in which the programs use it, with what that way needs and no more.
//!
//! | role | used by | may |
//! |---|---|---|
//! | owner | `oa-migrate` | change schema `oa` and the service's tables |
//! | writer | `[database]`: crawlers, alerts, the run log of all programs | read and write rows |
//! | reader | `[report] database_url` | read rows |
//! | backup | `[backup] database_url` | read everything, replicate |
//! | restore | `oa-restore` | what the owner may, under a password of its own |
//!
//! Rights are granted for what is there and, as the owner's default privileges, for what an upgrade, a migration or a restore will make.
//! A role that exists keeps its password and attributes, and those that it should not have are reported. Killed in between: nothing
//! has happened, it is one transaction.

use oa_core::pg::{quote_ident, quote_literal};
use postgres::{Client, Error, Transaction};

/// Who only reads leaves sessions for the programs: the page needs six.
const READERS: &str = "CONNECTION LIMIT 20";

/// What was done about a role.
#[derive(Debug)]
pub(crate) struct Made {
    pub(crate) role: String,
    /// It has been made now, and has no password yet.
    pub(crate) is_new: bool,
    /// What it may although it need not.
    pub(crate) too_much: Vec<&'static str>,
    /// What it should be able to and cannot, with the statement that mends it.
    pub(crate) lacks: Vec<String>,
}

/// Who asks.
struct Me {
    superuser: bool,
    may_make_roles: bool,
}

/// Why no roles were made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RolesError {
    #[error(
        "this role may not make roles; run it once with a superuser's address: DATABASE_URL=… oa-migrate init --roles"
    )]
    NotAllowed,
    #[error("could not make the roles")]
    Query(#[from] Error),
}

/// Makes the roles whose names begin with `prefix`, and grants them what they need.
pub(crate) fn make(client: &mut Client, prefix: &str) -> Result<Vec<Made>, RolesError> {
    let mut tx = client.transaction()?;
    let me = tx.query_one(
        "SELECT rolsuper, rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user",
        &[],
    )?;
    let me = Me {
        superuser: me.get(0),
        may_make_roles: me.get(1),
    };
    if !me.may_make_roles {
        return Err(RolesError::NotAllowed);
    }
    let mut made = Vec::new();
    let owner = owner(&mut tx, prefix, &me, &mut made)?;
    let name = |of: &str| format!("{prefix}_{of}");
    for of in ["writer", "reader", "backup", "restore"] {
        made.push(make_one(&mut tx, &name(of), of, &me)?);
    }
    let of = Names {
        owner: quote_ident(&owner),
        writer: quote_ident(&name("writer")),
        reader: quote_ident(&name("reader")),
        backup: quote_ident(&name("backup")),
        restore: quote_ident(&name("restore")),
    };
    tx.batch_execute(&of.grants())?;
    let from_16: bool = tx
        .query_one(
            "SELECT current_setting('server_version_num')::int >= 160000",
            &[],
        )?
        .get(0);
    if from_16 {
        // Whether a member has the rights is said with each grant there, and an earlier one may say no.
        tx.batch_execute(&format!(
            "GRANT pg_read_all_data, pg_read_all_stats TO {} WITH INHERIT TRUE",
            of.backup
        ))?;
    }
    // What is restored belongs to the owner, and so gets the rights that are the default.
    tx.batch_execute(&format!(
        "ALTER ROLE {} SET role = {}",
        of.restore,
        quote_literal(&owner)
    ))?;
    tx.commit()?;
    Ok(made)
}

struct Names {
    owner: String,
    writer: String,
    reader: String,
    backup: String,
    restore: String,
}

impl Names {
    /// May be run again.
    fn grants(&self) -> String {
        let Self {
            owner,
            writer,
            reader,
            backup,
            restore,
        } = self;
        format!(
            "GRANT USAGE ON SCHEMA oa, public TO {writer}, {reader};
             GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA oa, public TO {writer};
             GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {writer};
             GRANT DELETE ON oa.raw, oa.revisions TO {writer};
             REVOKE INSERT, UPDATE ON oa.schema_history FROM {writer};
             GRANT SELECT ON ALL TABLES IN SCHEMA oa, public TO {reader};
             ALTER ROLE {reader} SET default_transaction_read_only = on;
             ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA oa, public GRANT SELECT, INSERT, UPDATE ON TABLES TO {writer};
             ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA public GRANT USAGE ON SEQUENCES TO {writer};
             ALTER DEFAULT PRIVILEGES FOR ROLE {owner} IN SCHEMA oa, public GRANT SELECT ON TABLES TO {reader};
             GRANT pg_read_all_data, pg_read_all_stats TO {backup};
             GRANT {owner} TO {restore}"
        )
    }
}

/// Who owns schema `oa`. Where that is a superuser, a role of its own owns it from now on, with the tables that this superuser has in
/// `public`: superusers still may everything, and functions that act as their owner no longer act as a superuser. The same becomes of
/// what a superuser's upgrade has made since.
fn owner(
    tx: &mut Transaction<'_>,
    prefix: &str,
    me: &Me,
    made: &mut Vec<Made>,
) -> Result<String, Error> {
    let found = tx.query_one(
        "SELECT r.rolname::text, r.rolsuper, current_user::text FROM pg_namespace n JOIN pg_roles r ON r.oid = n.nspowner WHERE n.nspname = 'oa'",
        &[],
    )?;
    let (present, is_superuser): (String, bool) = (found.get(0), found.get(1));
    let name = format!("{prefix}_owner");
    let is_it = present == name;
    let becomes_it = is_superuser && me.superuser;
    if is_it || becomes_it {
        made.push(make_one(tx, &name, "owner", me)?);
    }
    let gives = becomes_it || is_it && me.superuser;
    if !gives {
        return Ok(present);
    }
    let from: String = if is_it { found.get(2) } else { present };
    let owner = quote_ident(&name);
    let database: String = tx.query_one("SELECT current_database()::text", &[])?.get(0);
    tx.batch_execute(&format!(
        "GRANT CREATE, TEMPORARY ON DATABASE {} TO {owner}; GRANT USAGE, CREATE ON SCHEMA public TO {owner}",
        quote_ident(&database)
    ))?;
    // Sequences of columns and partitions' indexes follow their tables; what an extension made stays its own.
    let statements = tx.query(
        "SELECT format('ALTER %s %s OWNER TO %s', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE' ELSE 'TABLE' END,
                       c.oid::regclass, $2::text)
         FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles r ON r.oid = c.relowner
         WHERE (n.nspname = 'oa' OR n.nspname = 'public' AND r.rolname = $1) AND r.rolname <> $3 AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                           AND (d.deptype = 'e' OR c.relkind = 'S' AND d.deptype IN ('a', 'i')))
         UNION ALL
         SELECT format('ALTER ROUTINE %s OWNER TO %s', p.oid::regprocedure, $2::text) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
         WHERE n.nspname = 'oa' AND pg_get_userbyid(p.proowner) <> $3
         UNION ALL
         SELECT format('ALTER TYPE %s OWNER TO %s', t.oid::regtype, $2::text) FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
         WHERE n.nspname = 'oa' AND t.typtype IN ('e', 'd') AND pg_get_userbyid(t.typowner) <> $3
         UNION ALL SELECT format('ALTER SCHEMA oa OWNER TO %s', $2::text)",
        &[&from, &owner, &name],
    )?;
    for row in &statements {
        tx.batch_execute(row.get::<_, &str>(0))?;
    }
    Ok(name)
}

fn make_one(tx: &mut Transaction<'_>, name: &str, of: &str, me: &Me) -> Result<Made, Error> {
    let found = tx.query_opt(
        "SELECT rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolcanlogin,
                rolinherit OR current_setting('server_version_num')::int >= 160000, coalesce(rolvaliduntil <= now(), false),
                rolconnlimit = 0, rolconnlimit < 0 FROM pg_roles WHERE rolname = $1",
        &[&name],
    )?;
    let for_backups = of == "backup";
    let is_new = found.is_none();
    if is_new {
        let special = match of {
            "backup" if me.superuser => "REPLICATION BYPASSRLS",
            "reader" => READERS,
            _ => "",
        };
        tx.batch_execute(&format!(
            "CREATE ROLE {} LOGIN {special}",
            quote_ident(name)
        ))?;
    }
    let has = |attribute: usize, anew: bool| found.as_ref().map_or(anew, |row| row.get(attribute));
    let superuser: bool = has(0, false);
    let (replicates, bypasses) = (has(3, me.superuser), has(4, me.superuser));
    let need_not = [
        (superuser, "SUPERUSER"),
        (has(1, false), "CREATEROLE"),
        // `oa-restore database` makes one.
        (
            has(2, false) && !matches!(of, "owner" | "restore"),
            "CREATEDB",
        ),
        (!is_new && replicates && !for_backups, "REPLICATION"),
        (!is_new && bypasses && !for_backups, "BYPASSRLS"),
    ];
    // The owner may be somebody as whom nobody logs in.
    let logs_in = of != "owner";
    let by_membership = for_backups && !superuser;
    let needs = [
        (
            for_backups && !replicates && !superuser,
            "REPLICATION, so backups will be dumps; as a superuser",
            "REPLICATION BYPASSRLS",
        ),
        (
            logs_in && !has(5, true),
            "LOGIN, so nobody can connect as it",
            "LOGIN",
        ),
        (
            by_membership && !has(6, true),
            "INHERIT, so it may not read what it was granted",
            "INHERIT",
        ),
        (
            logs_in && has(7, false),
            "a password that is still valid",
            "VALID UNTIL 'infinity'",
        ),
        (
            logs_in && has(8, false) && !superuser,
            "connections, its limit is 0",
            match of {
                "reader" => READERS,
                _ => "CONNECTION LIMIT -1",
            },
        ),
        (
            of == "reader" && has(9, false) && !superuser,
            "a limit, so it could take all sessions of the server",
            READERS,
        ),
    ];
    let needs = needs.into_iter().filter(|(lacks, ..)| *lacks);
    Ok(Made {
        role: name.to_owned(),
        is_new,
        too_much: need_not
            .into_iter()
            .filter_map(|(has, what)| has.then_some(what))
            .collect(),
        lacks: needs
            .map(|(_, what, how)| format!("{what}: ALTER ROLE {name} {how}"))
            .collect(),
    })
}
