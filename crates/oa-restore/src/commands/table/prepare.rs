//! In the private server, which is thrown away: a table is made ready to be brought into the live one.

use oa_core::pg::quote_literal;
use postgres::{Client, GenericClient};

use super::{Args, Step, ordinary};
use crate::RestoreError;
use crate::live::shape::{self, Renamed};
use crate::live::tables::{self, Table};
use crate::plan::{RestorePlan, Strategy};

/// A table in the private server that is ready to be brought.
pub(super) struct PreparedTable {
    /// Under the name that it has on its way.
    pub(super) copy: Table,
    /// What was renamed for that.
    pub(super) renamed: Vec<Renamed>,
    /// How a partition becomes one again.
    pub(super) attach: Option<String>,
}

/// Makes a table in the private server ready, under the name that it has on its way.
pub(super) fn prepare(
    past: &mut Client,
    table: &Table,
    on_its_way: &str,
    step: &Step,
    args: &Args,
) -> Result<PreparedTable, RestoreError> {
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
        copy_rows(past, table, &copy, args)?;
        return Ok(PreparedTable {
            copy,
            renamed: vec![Renamed::table(table, on_its_way)],
            attach: None,
        });
    }
    let attach = detach(past, table)?;
    keep_matching(past, table, args)?;
    if matches!(step, Step::Beside { .. }) {
        strip_copy(past, table)?;
    }
    let number = std::cell::Cell::new(0);
    let renamed = shape::rename(past, table, |_| {
        number.set(number.get() + 1);
        match number.get() {
            1 => on_its_way.to_owned(),
            n => format!("{on_its_way}_{n}"),
        }
    })?;
    Ok(PreparedTable {
        copy: copied_into(&table.schema),
        renamed,
        attach,
    })
}

/// Makes a table of its own of a partition. Returns the statement that makes it one again.
fn detach(past: &mut Client, table: &Table) -> Result<Option<String>, RestoreError> {
    let failed = RestoreError::query(format!("could not detach {}", table.shown()));
    let row = past
        .query_opt(
            "SELECT i.inhparent::regclass::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.oid = $1 AND c.relispartition",
            &[&table.oid],
        )
        .map_err(&failed)?;
    let Some(row) = row else { return Ok(None) };
    let (parent, bound): (String, String) = (row.get(0), row.get(1));
    let name = table.quoted();
    // Rows that point to the whole would keep it; the private server is thrown away.
    let pointing = past
        .query(
            "SELECT format('ALTER TABLE %s DROP CONSTRAINT %I', conrelid::regclass, conname) FROM pg_constraint
             WHERE contype = 'f' AND conparentid = 0 AND confrelid IN (SELECT relid FROM pg_partition_ancestors($1::oid::regclass))",
            &[&table.oid],
        )
        .map_err(&failed)?;
    for row in &pointing {
        past.batch_execute(row.get(0)).map_err(&failed)?;
    }
    past.batch_execute(&format!("ALTER TABLE {parent} DETACH PARTITION {name}"))
        .map_err(&failed)?;
    Ok(Some(format!(
        "ALTER TABLE {parent} ATTACH PARTITION {name} {bound}"
    )))
}

/// The table in the restored database.
pub(super) fn find_in_backup(
    past: &mut Client,
    plan: &RestorePlan,
    name: &str,
    step: &Step,
) -> Result<Table, RestoreError> {
    let Some(table) = tables::find(past, name).map_err(RestoreError::in_private)? else {
        let all = tables::all(past).map_err(RestoreError::in_private)?;
        let hint = oa_core::base::mistakes::nearest(name, all.iter().map(String::as_str));
        return Err(RestoreError::NoPlan(format!(
            "there was no table {name} as of {}{hint}",
            plan.target
        )));
    };
    ordinary(
        &table,
        matches!(step, Step::Rows { .. } | Step::Beside { .. }),
    )?;
    if table.unlogged && matches!(plan.strategy, Strategy::Physical(_)) {
        return Err(RestoreError::Refused(format!(
            "{} was unlogged: PostgreSQL writes no WAL for it, and it is empty after every recovery; nothing was changed. A dump has its rows: --kind logical",
            table.shown()
        )));
    }
    if matches!(step, Step::Rows { .. }) && table.kind == "r" {
        let row = past
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

fn keep_matching(past: &mut Client, table: &Table, args: &Args) -> Result<(), RestoreError> {
    let Some(condition) = &args.condition else {
        return Ok(());
    };
    let failed = RestoreError::query(format!("--where {condition}"));
    past.execute(
        &format!(
            "DELETE FROM {} WHERE ({condition}) IS NOT TRUE",
            table.quoted()
        ),
        &[],
    )
    .map_err(&failed)?;
    let left: i64 = past
        .query_one(&format!("SELECT count(*) FROM {}", table.quoted()), &[])
        .map_err(&failed)?
        .get(0);
    some_rows(left, table, condition)
}

fn some_rows(count: i64, table: &Table, condition: &str) -> Result<(), RestoreError> {
    if count > 0 {
        return Ok(());
    }
    Err(RestoreError::NoPlan(format!(
        "{} had no rows then with {condition}; nothing was changed",
        table.shown()
    )))
}

fn copy_rows(
    past: &mut Client,
    table: &Table,
    copy: &Table,
    args: &Args,
) -> Result<(), RestoreError> {
    let condition = args.condition.as_deref().unwrap_or("true");
    let failed = RestoreError::query(format!("--where {condition}"));
    let count = past
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
    past.batch_execute(&format!(
        "DO $do$ BEGIN EXECUTE format('ALTER TABLE %s OWNER TO %I', {}, (SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = {})); END $do$",
        quote_literal(&copy.quoted()),
        table.oid
    ))
    .map_err(&failed)?;
    if args.condition.is_none() {
        return Ok(());
    }
    some_rows(i64::try_from(count).unwrap_or(i64::MAX), table, condition)
}

/// A copy to look at must hold nothing back and set nothing off: it comes without foreign keys and triggers.
fn strip_copy(past: &mut Client, table: &Table) -> Result<(), RestoreError> {
    drop_foreign_keys(past, table)?;
    let failed = RestoreError::query("could not prepare the copy");
    let rows = past
        .query(
            "SELECT format('DROP TRIGGER %I ON %s', tgname, $1::text) FROM pg_trigger WHERE tgrelid = $2 AND NOT tgisinternal",
            &[&table.quoted(), &table.oid],
        )
        .map_err(&failed)?;
    for row in &rows {
        past.batch_execute(row.get(0)).map_err(&failed)?;
    }
    // Else its rows would be among those of the live table that it inherits from.
    let parents = past
        .query(
            "SELECT format('ALTER TABLE %s NO INHERIT %s', $1::text, inhparent::regclass) FROM pg_inherits WHERE inhrelid = $2",
            &[&table.quoted(), &table.oid],
        )
        .map_err(&failed)?;
    for row in &parents {
        past.batch_execute(row.get(0)).map_err(&failed)?;
    }
    Ok(())
}

pub(super) fn drop_foreign_keys(
    client: &mut impl GenericClient,
    table: &Table,
) -> Result<(), RestoreError> {
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
