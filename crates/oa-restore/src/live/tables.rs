//! Tables and whatever depends on them.

use oa_core::pg::quote_ident;
use postgres::GenericClient;

use crate::RestoreError;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) oid: u32,
    pub(crate) schema: String,
    pub(crate) name: String,
    /// `relkind`: `r` for an ordinary one, `p` for one that is made of partitions.
    pub(crate) kind: String,
    /// The WAL has nothing of it.
    pub(crate) unlogged: bool,
}

impl Table {
    pub(crate) fn quoted(&self) -> String {
        quoted(&self.schema, &self.name)
    }

    pub(crate) fn shown(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

/// A name for SQL.
pub(crate) fn quoted(schema: &str, name: &str) -> String {
    format!("{}.{}", quote_ident(schema), quote_ident(name))
}

/// Finds a table by its name, with or without schema, written as in SQL.
pub(crate) fn find(
    client: &mut impl GenericClient,
    name: &str,
) -> Result<Option<Table>, RestoreError> {
    let row = client
        .query_opt(
            "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence = 'u' FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.oid = to_regclass($1::text)",
            &[&name],
        )
        .map_err(RestoreError::query(format!("could not look for table {name}")))?;
    Ok(row.map(|r| Table {
        oid: r.get(0),
        schema: r.get(1),
        name: r.get(2),
        kind: r.get(3),
        unlogged: r.get(4),
    }))
}

/// Names of tables that are like a name, for errors.
pub(crate) fn all(client: &mut impl GenericClient) -> Result<Vec<String>, RestoreError> {
    let rows = client
        .query(
            "SELECT CASE n.nspname WHEN 'public' THEN '' ELSE n.nspname || '.' END || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE c.relkind = 'r' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' ORDER BY 1",
            &[],
        )
        .map_err(RestoreError::query("could not list the tables"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// What points to a table from outside, in words: it would go on pointing to the old one when another takes its name.
pub(crate) fn dependents(
    client: &mut impl GenericClient,
    oid: u32,
) -> Result<Vec<String>, RestoreError> {
    let rows = client
        .query(
            "WITH types AS (
               SELECT oid FROM pg_type WHERE typrelid = $1 UNION SELECT typarray FROM pg_type WHERE typrelid = $1 AND typarray <> 0),
             sequences AS (
               SELECT objid AS oid FROM pg_depend JOIN pg_class c ON c.oid = objid
               WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND refobjid = $1 AND deptype IN ('a', 'i') AND relkind = 'S')
             SELECT DISTINCT what FROM (
               SELECT 'a foreign key of ' || conrelid::regclass::text AS what FROM pg_constraint WHERE contype = 'f' AND confrelid = $1 AND conrelid <> $1
               UNION ALL
               SELECT 'view ' || r.ev_class::regclass::text FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
               WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND r.ev_class <> $1
               UNION ALL
               SELECT 'table ' || CASE inhparent WHEN $1 THEN inhrelid ELSE inhparent END::regclass::text || ' by inheritance' FROM pg_inherits WHERE $1 IN (inhparent, inhrelid)
               UNION ALL
               SELECT 'function ' || d.objid::regprocedure::text FROM pg_depend d
               WHERE d.classid = 'pg_proc'::regclass
                 AND (d.refclassid, d.refobjid) IN (SELECT 'pg_class'::regclass, $1::oid UNION ALL SELECT 'pg_type'::regclass, oid FROM types)
               UNION ALL
               SELECT 'column ' || a.attname || ' of ' || d.objid::regclass::text FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.objid AND a.attnum = d.objsubid
               WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_type'::regclass AND d.refobjid IN (SELECT oid FROM types) AND d.objid <> $1
               UNION ALL
               SELECT 'domain ' || t.oid::regtype::text FROM pg_type t WHERE t.typbasetype IN (SELECT oid FROM types)
               UNION ALL
               SELECT 'policy ' || p.polname || ' of ' || p.polrelid::regclass::text FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid
               WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid = $1 AND p.polrelid <> $1
               UNION ALL
               SELECT 'a default of ' || f.adrelid::regclass::text || ' by its sequence' FROM pg_depend d JOIN pg_attrdef f ON f.oid = d.objid
               WHERE d.classid = 'pg_attrdef'::regclass AND d.refclassid = 'pg_class'::regclass AND d.refobjid IN (SELECT oid FROM sequences) AND f.adrelid <> $1
               UNION ALL
               SELECT 'publication ' || p.pubname FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE r.prrelid = $1
             ) x ORDER BY 1",
            &[&oid],
        )
        .map_err(RestoreError::query("could not look for what depends on the table"))?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

/// What it takes on the disk, with its indexes.
pub(crate) fn size_bytes(
    client: &mut impl GenericClient,
    table: &Table,
) -> Result<u64, RestoreError> {
    let row = client
        .query_one(
            "SELECT pg_total_relation_size(to_regclass($1::text))",
            &[&table.quoted()],
        )
        .map_err(RestoreError::query("could not ask for a table's size"))?;
    let bytes: Option<i64> = row.get(0);
    bytes.map(i64::cast_unsigned).ok_or_else(|| {
        RestoreError::Differs(format!("table {} is not there any more", table.shown()))
    })
}
