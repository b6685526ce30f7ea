//! What a plan must not do: overwrite rows, or fail at the end for want of a privilege.

use anyhow::{Result, anyhow};
use oa_core::pg::{describe, quote_ident};
use postgres::Client;

use super::Plan;
use crate::errors::Refused;

/// Refuses what would overwrite rows, with the remedy.
pub(crate) fn refuse_overwriting(plan: &Plan, replace: bool) -> Result<()> {
    let refuse = |text: String| Err(Refused(text).into());
    let full: Vec<&str> = plan
        .tables
        .iter()
        .filter(|t| t.existing.as_ref().is_some_and(|e| e.has_rows))
        .map(|t| t.target.as_str())
        .collect();
    if !full.is_empty() && !replace {
        return refuse(format!(
            "the target already has rows in {}; --replace loads them again and keeps the present rows in a schema of their own",
            full.join(", ")
        ));
    }
    Ok(())
}

/// Refuses a schema that PostgreSQL, or this program, keeps for itself.
pub(crate) fn refuse_schema(schema: &str) -> Result<()> {
    if ["oa", "information_schema"].contains(&schema)
        || ["pg_", "oa_staging_", "oa_before_", "oa_after_"]
            .iter()
            .any(|p| schema.starts_with(p))
    {
        return Err(Refused(format!(
            "schema {schema} is not for tables of applications; nothing was changed. Name another one with --schema"
        ))
        .into());
    }
    Ok(())
}

/// Refuses names of columns that PostgreSQL keeps for itself.
fn refuse_names(plan: &Plan) -> Result<()> {
    const HIDDEN: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];
    for table in &plan.tables {
        if let Some(column) = table
            .columns
            .iter()
            .find(|c| HIDDEN.contains(&c.target.as_str()))
        {
            return Err(Refused(format!(
                "column {} of table {} cannot have that name in PostgreSQL, which keeps it for itself; give it another with --mapping ([tables.{1}.columns.{0}] target = \"…\")",
                column.source, table.source.name
            ))
            .into());
        }
    }
    Ok(())
}

/// Refuses at the beginning what would fail at the end: the role must be able to put tables into the schema and to move those
/// that are there.
pub(crate) fn refuse_without_privileges(client: &mut Client, plan: &Plan) -> Result<()> {
    let explain =
        |e: postgres::Error| anyhow!("could not read the role's privileges: {}", describe(&e));
    let row = client
        .query_one(
            "SELECT current_user::text,
                    CASE WHEN to_regnamespace(quote_ident($1)) IS NULL THEN has_database_privilege(current_database(), 'CREATE')
                         ELSE has_schema_privilege(to_regnamespace(quote_ident($1)), 'CREATE') END,
                    to_regnamespace(quote_ident($1)) IS NULL, current_database()::text",
            &[&plan.schema],
        )
        .map_err(explain)?;
    let (role, may): (String, bool) = (row.get(0), row.get(1));
    refuse_names(plan)?;
    let creates = plan.tables.iter().any(|t| {
        let own = |name: &String| {
            let indexes = t.existing.iter().flat_map(|e| &e.indexes);
            indexes.into_iter().any(|i| i.name == *name)
        };
        t.existing.is_none() || t.indexes.iter().any(|i| !own(&i.name))
    });
    if !may && creates {
        let grant = if row.get(2) {
            format!(
                "GRANT CREATE ON DATABASE {} TO {}",
                quote_ident(&row.get::<_, String>(3)),
                quote_ident(&role)
            )
        } else {
            format!(
                "GRANT CREATE ON SCHEMA {} TO {}",
                quote_ident(&plan.schema),
                quote_ident(&role)
            )
        };
        return Err(Refused(format!(
            "role {role} may not create tables in schema {}; nothing was changed. As its owner: {grant}",
            plan.schema
        ))
        .into());
    }
    for table in plan.tables.iter().filter(|t| t.existing.is_some()) {
        let row = client
            .query_one(
                "SELECT pg_has_role(c.relowner, 'USAGE'), pg_get_userbyid(c.relowner)::text FROM pg_class c WHERE c.oid = $1::text::regclass",
                &[&table.qualified],
            )
            .map_err(explain)?;
        if !row.get::<_, bool>(0) {
            return Err(Refused(format!(
                "table {} belongs to role {}, which role {role} is not a member of, so rows cannot be put there; nothing was changed. Run as its owner, or: GRANT {1} TO {2}",
                table.qualified,
                row.get::<_, String>(1),
                role
            ))
            .into());
        }
    }
    Ok(())
}
