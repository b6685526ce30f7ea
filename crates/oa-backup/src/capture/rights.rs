//! What keeps a role from reading everything, by the catalogue.

use oa_core::pg;
use postgres::GenericClient;

use crate::error::BackupError;

/// Names that are listed; of more only how many there are.
const NAMED: usize = 5;

/// A kind of obstacle: the query gives the names of what is in the way.
struct Obstacle {
    what: &'static str,
    query: &'static str,
    remedy: &'static str,
}

/// Tables and sequences that a dump reads: what extensions own it leaves to them.
const OBSTACLES: [Obstacle; 3] = [
    Obstacle {
        what: "row security hides rows from role {role} in",
        query: "SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relrowsecurity AND row_security_active(c.oid) ORDER BY 1",
        remedy: "ALTER ROLE {role} BYPASSRLS",
    },
    Obstacle {
        what: "role {role} may not read",
        query: "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE c.relkind IN ('r', 'p', 'S') AND c.relpersistence <> 't' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
                  AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
                  AND NOT (has_schema_privilege(n.oid, 'USAGE')
                           AND CASE WHEN c.relkind = 'S' THEN has_sequence_privilege(c.oid, 'SELECT') ELSE has_table_privilege(c.oid, 'SELECT') END)
                ORDER BY 1",
        remedy: "GRANT pg_read_all_data TO {role}",
    },
    Obstacle {
        what: "role {role} may not read large object",
        query: "SELECT oid::text FROM pg_largeobject_metadata m
                WHERE NOT pg_has_role(m.lomowner, 'USAGE') AND current_setting('lo_compat_privileges') = 'off'
                  AND NOT EXISTS (SELECT FROM aclexplode(m.lomacl) a
                                  WHERE a.privilege_type = 'SELECT' AND (a.grantee = 0 OR pg_has_role(a.grantee, 'USAGE')))
                ORDER BY m.oid",
        remedy: "GRANT SELECT ON LARGE OBJECT … TO {role}, or let their owner or a superuser make the dumps",
    },
];

/// What this role cannot read in this database as a whole, and the statement that mends it; `None` when there is nothing.
pub(crate) fn missing(client: &mut impl GenericClient) -> Result<Option<String>, BackupError> {
    let failed = BackupError::query("could not ask what this role may read");
    let role: String = client
        .query_one("SELECT current_user::text", &[])
        .map_err(&failed)?
        .get(0);
    let role = pg::quote_ident(&role);
    let mut found = Vec::new();
    for obstacle in OBSTACLES {
        let rows = client.query(obstacle.query, &[]).map_err(&failed)?;
        if rows.is_empty() {
            continue;
        }
        let names: Vec<String> = rows.iter().take(NAMED).map(|r| r.get(0)).collect();
        let more = if rows.len() > NAMED {
            format!(" and {} more", rows.len() - NAMED)
        } else {
            String::new()
        };
        found.push(
            format!(
                "{} {}{more}; as a superuser: {}",
                obstacle.what,
                names.join(", "),
                obstacle.remedy
            )
            .replace("{role}", &role),
        );
    }
    Ok((!found.is_empty()).then(|| found.join("; ")))
}

/// Whether this role may read the roles' passwords, as a rule only a superuser.
pub(crate) fn reads_passwords(client: &mut impl GenericClient) -> Result<bool, BackupError> {
    let row = client
        .query_one(
            "SELECT has_table_privilege('pg_catalog.pg_authid', 'SELECT')",
            &[],
        )
        .map_err(BackupError::query("could not ask what this role may read"))?;
    Ok(row.get(0))
}
