//! Event triggers of the live database see what a restore does there, and may refuse it: that is tried before anything is recovered, in a
//! transaction that is rolled back.

use oa_core::pg::{describe, quote_ident};
use postgres::{Client, Transaction};

use super::LiveServer;
use super::tables::quoted;
use crate::RestoreError;

/// Those that are switched on, by name.
fn names(client: &mut Client) -> Result<Vec<String>, RestoreError> {
    let rows = client
        .query(
            "SELECT evtname::text FROM pg_event_trigger WHERE evtenabled <> 'D' ORDER BY 1",
            &[],
        )
        .map_err(RestoreError::query("could not look for event triggers"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// What to do when one of them is in the way; nothing where there are none.
pub(crate) fn hint(client: &mut Client) -> Result<String, RestoreError> {
    let names = names(client)?;
    Ok(if names.is_empty() {
        String::new()
    } else {
        format!(
            ". Event triggers of the live database act on it too: {}; should one of them be the reason, restore as a superuser, or have one disable it meanwhile ({})",
            names.join(", "),
            disable(&names)
        )
    })
}

fn disable(names: &[String]) -> String {
    let one = |name: &String| format!("ALTER EVENT TRIGGER {} DISABLE", quote_ident(name));
    names.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// Refuses what they would not let pass: a table comes, takes a name, and goes again. `schema`: where; `None`: where names without one are.
/// `name`: as tables are called on their way. `rows`: its rows go into another one, and it goes.
pub(crate) fn check(
    live: &mut LiveServer,
    schema: Option<&str>,
    name: &str,
    rows: bool,
) -> Result<(), RestoreError> {
    let names = names(&mut live.client)?;
    if names.is_empty() {
        return Ok(());
    }
    let superuser = live.superuser;
    let failed = RestoreError::query("could not try what event triggers let pass");
    let mut tx = live.client.transaction().map_err(&failed)?;
    let tried = rehearse(&mut tx, superuser, schema, (name, rows));
    tx.rollback().map_err(&failed)?;
    match tried {
        Err(e) if e.as_db_error().is_some() => Err(RestoreError::Refused(format!(
            "event triggers of the live database do not let a table be restored: {}; nothing was changed. As a superuser, until it is restored: {}",
            describe(&e),
            disable(&names)
        ))),
        tried => tried.map_err(failed),
    }
}

fn rehearse(
    tx: &mut Transaction<'_>,
    superuser: bool,
    schema: Option<&str>,
    (name, rows): (&str, bool),
) -> Result<(), postgres::Error> {
    let usual = || -> Result<Option<String>, postgres::Error> {
        Ok(tx.query_one("SELECT current_schema()::text", &[])?.get(0))
    };
    let Some(schema) = schema.map_or_else(usual, |s| Ok(Some(s.to_owned())))? else {
        return Ok(());
    };
    let (first, renamed) = (quoted(&schema, name), format!("{name}_1"));
    let last = quoted(&schema, &renamed);
    // As it is loaded, see the command `table`.
    tx.batch_execute("SET LOCAL search_path = ''")?;
    if superuser {
        tx.batch_execute("SET LOCAL session_replication_role = replica")?;
    }
    tx.batch_execute(&format!(
        "CREATE TABLE {first} (id pg_catalog.int4); ALTER TABLE {first} ADD PRIMARY KEY (id)"
    ))?;
    if superuser {
        tx.batch_execute("SET LOCAL session_replication_role = DEFAULT")?;
    }
    tx.batch_execute("SET LOCAL search_path = DEFAULT")?;
    // As it takes its name, and as the rows that it replaces are kept.
    tx.batch_execute(&format!(
        "ALTER TABLE {first} RENAME TO {}",
        quote_ident(&renamed)
    ))?;
    if rows {
        tx.batch_execute(&format!(
            "CREATE TABLE {first} AS SELECT * FROM {last}; DROP TABLE {first}"
        ))?;
    }
    drop_table(tx, superuser, &last)
}

fn drop_table(
    tx: &mut Transaction<'_>,
    superuser: bool,
    table: &str,
) -> Result<(), postgres::Error> {
    if superuser {
        tx.batch_execute("SET LOCAL session_replication_role = replica")?;
    }
    tx.batch_execute(&format!("DROP TABLE IF EXISTS {table}"))
}

/// Drops a table that came and does not stay. Where the role is a superuser, only event triggers that always fire have a say in that.
pub(crate) fn drop_quietly(live: &mut LiveServer, table: &str) -> Result<(), postgres::Error> {
    let superuser = live.superuser;
    let mut tx = live.client.transaction()?;
    drop_table(&mut tx, superuser, table)?;
    tx.commit()
}
