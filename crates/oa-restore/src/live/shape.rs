//! Renaming a table with everything whose name is the schema's: indexes, sequences, statistics. Names of constraints, triggers and
//! columns are the table's own and stay.

use oa_core::pg::quote_ident;
use postgres::GenericClient;

use super::tables::{Table, quoted};
use crate::RestoreError;

/// PostgreSQL cuts longer names.
const LONGEST: usize = 63;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Renamed {
    /// As `ALTER` calls it.
    kind: &'static str,
    schema: String,
    from: String,
    to: String,
}

/// Renames a table; `name` makes a new name from an old one and is given the table's own first.
pub(crate) fn rename(
    client: &mut impl GenericClient,
    table: &Table,
    name: impl Fn(&str) -> String,
) -> Result<Vec<Renamed>, RestoreError> {
    let rows = client
        .query(
            "SELECT 'INDEX', n.nspname::text, c.relname::text FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE i.indrelid = $1
             UNION ALL
             SELECT 'SEQUENCE', n.nspname, c.relname FROM pg_depend d JOIN pg_class c ON c.oid = d.objid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
             UNION ALL
             SELECT 'STATISTICS', n.nspname, s.stxname FROM pg_statistic_ext s JOIN pg_namespace n ON n.oid = s.stxnamespace WHERE s.stxrelid = $1",
            &[&table.oid],
        )
        .map_err(RestoreError::query("could not look for a table's indexes"))?;
    let mut renamed = vec![Renamed {
        kind: "TABLE",
        schema: table.schema.clone(),
        from: table.name.clone(),
        to: name(&table.name),
    }];
    for row in &rows {
        let from: String = row.get(2);
        let kind = match row.get::<_, String>(0).as_str() {
            "INDEX" => "INDEX",
            "SEQUENCE" => "SEQUENCE",
            _ => "STATISTICS",
        };
        let to = name(&from);
        renamed.push(Renamed {
            kind,
            schema: row.get(1),
            from,
            to,
        });
    }
    for one in &renamed {
        alter(client, one, &one.from, &one.to)?;
    }
    Ok(renamed)
}

/// Gives what was renamed other names, also on another server; `name` makes them from those that it had first.
pub(crate) fn rename_again(
    client: &mut impl GenericClient,
    renamed: &[Renamed],
    name: impl Fn(&str) -> String,
) -> Result<(), RestoreError> {
    renamed
        .iter()
        .try_for_each(|one| alter(client, one, &one.to, &name(&one.from)))
}

impl Renamed {
    /// A table that was made under a name that it will not keep.
    pub(crate) fn table(table: &Table, to: &str) -> Self {
        Self {
            kind: "TABLE",
            schema: table.schema.clone(),
            from: table.name.clone(),
            to: to.to_owned(),
        }
    }
}

fn alter(
    client: &mut impl GenericClient,
    one: &Renamed,
    from: &str,
    to: &str,
) -> Result<(), RestoreError> {
    client
        .batch_execute(&format!(
            "ALTER {} {} RENAME TO {}",
            one.kind,
            quoted(&one.schema, from),
            quote_ident(to)
        ))
        .map_err(RestoreError::query(format!(
            "could not rename {from} to {to}"
        )))
}

/// The name of something of `table` when that is called `new`: `orders_pkey` of `orders` becomes `copy_pkey`.
pub(crate) fn derived(table: &str, new: &str, name: &str) -> String {
    let long = match name.strip_prefix(table) {
        Some(rest) => format!("{new}{rest}"),
        None => format!("{new}_{name}"),
    };
    shortened(&long)
}

/// At most as long as PostgreSQL keeps it, and different for different names.
pub(crate) fn shortened(name: &str) -> String {
    if name.len() <= LONGEST {
        return name.to_owned();
    }
    let sum = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| {
        (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3)
    });
    let tail = format!("_{:08x}", sum & 0xffff_ffff);
    let mut cut = LONGEST - tail.len();
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{tail}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_tables_and_stay_different_when_they_are_cut() {
        assert_eq!(derived("orders", "copy", "orders_pkey"), "copy_pkey");
        assert_eq!(derived("orders", "copy", "by_day"), "copy_by_day");
        let (a, b) = ("仓".repeat(30) + "a", "仓".repeat(30) + "b");
        assert!(shortened(&a).len() <= LONGEST);
        assert_ne!(shortened(&a), shortened(&b));
    }
}
