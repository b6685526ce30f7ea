//! A table that is in the target already. Its definition is kept: columns that the source lacks, defaults, identities and indexes
//! stay, the rows come from the source.

use oa_core::pg::quote_ident;
use postgres::GenericClient;

use super::{PlannedForeignKey, PlannedIndex};

#[derive(Debug, Clone)]
pub(crate) struct Existing {
    pub(crate) has_rows: bool,
    pub(crate) columns: Vec<ExistingColumn>,
    pub(crate) primary_key: Vec<String>,
    pub(crate) primary_key_name: String,
    /// Its other indexes.
    pub(crate) indexes: Vec<PlannedIndex>,
    /// Columns of each plain unique index, sorted.
    pub(crate) unique_columns: Vec<Vec<String>>,
    pub(crate) foreign_keys: Vec<PlannedForeignKey>,
    /// Columns of each of its `CHECK` constraints.
    pub(crate) check_columns: Vec<Vec<String>>,
    /// An earlier run has made it, so that what it lacks of the source was missing then already.
    pub(crate) ours: bool,
    /// Materialized views that show its rows as they were.
    pub(crate) materialized_views: Vec<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct ExistingColumn {
    pub(crate) name: String,
    /// Its type as `format_type` writes it.
    pub(crate) type_name: String,
    pub(crate) not_null: bool,
    /// Default, identity or generated: a row may do without a value.
    pub(crate) filled: bool,
    /// `GENERATED … AS IDENTITY`
    pub(crate) identity: bool,
    /// `GENERATED ALWAYS AS (…) STORED`
    pub(crate) generated: bool,
    /// A collation other than its type's.
    pub(crate) collation: Option<String>,
    /// The default takes numbers from a sequence that belongs to the old table.
    pub(crate) serial: bool,
}

/// Reads the description of a table; `None` when there is none of that name.
pub(crate) fn read(
    client: &mut impl GenericClient,
    schema: &str,
    table: &str,
) -> anyhow::Result<Option<Existing>> {
    let Some(row) = client.query_opt(
        "SELECT c.oid, c.relkind::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE n.nspname = $1 AND c.relname = $2",
        &[&schema, &table],
    )?
    else {
        return Ok(None);
    };
    let (oid, kind): (u32, String) = (row.get(0), row.get(1));
    if gives_way(client, oid)? {
        return Ok(None);
    }
    anyhow::ensure!(
        kind == "r",
        "{schema}.{table} is not an ordinary table in the target; rename it, or give the source table another name with --mapping"
    );
    let has_rows = has_rows(
        client,
        &format!("{}.{}", quote_ident(schema), quote_ident(table)),
    )?;
    let columns = client
        .query(
            "SELECT a.attname::text, format_type(a.atttypid, a.atttypmod), a.attnotnull,
                    a.atthasdef OR a.attidentity <> '', a.attidentity <> '', a.attgenerated <> '',
                    attidentity = '' AND EXISTS (SELECT 1 FROM pg_depend q JOIN pg_class s ON s.oid = q.objid AND s.relkind = 'S'
                      WHERE q.classid = 'pg_class'::regclass AND q.refclassid = 'pg_class'::regclass AND q.refobjid = a.attrelid
                        AND q.refobjsubid = a.attnum AND q.deptype = 'a')
                    AND coalesce(pg_get_expr(d.adbin, d.adrelid) LIKE 'nextval(%', false),
                    nullif(a.attcollation, (SELECT typcollation FROM pg_type t WHERE t.oid = a.atttypid))::regcollation::text
             FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            &[&oid],
        )?
        .iter()
        .map(|row| ExistingColumn {
            name: row.get(0),
            type_name: row.get(1),
            not_null: row.get(2),
            filled: row.get(3),
            identity: row.get(4),
            generated: row.get(5),
            serial: row.get(6),
            collation: row.get(7),
        })
        .collect();
    let mut existing = Existing {
        has_rows,
        columns,
        primary_key: Vec::new(),
        primary_key_name: String::new(),
        indexes: Vec::new(),
        unique_columns: Vec::new(),
        foreign_keys: foreign_keys(client, oid, schema)?,
        check_columns: client
            .query(
                "SELECT ARRAY(SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = k.conrelid AND a.attnum = ANY (k.conkey))
                 FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype = 'c'",
                &[&oid],
            )?
            .iter()
            .map(|row| row.get(0))
            .collect(),
        ours: false,
        materialized_views: materialized_views(client, oid)?,
    };
    read_indexes(client, oid, &mut existing)?;
    Ok(Some(existing))
}

/// This program's own view of the run log in the schema `public` gives way to a table of that name; schema `oa` has it too.
pub(crate) fn gives_way(
    client: &mut impl GenericClient,
    oid: u32,
) -> Result<bool, postgres::Error> {
    client
        .query_one(
            "SELECT EXISTS (SELECT FROM pg_class c WHERE c.oid = $1 AND c.relkind = 'v' AND c.relnamespace = 'public'::regnamespace
               AND EXISTS (SELECT FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                 JOIN pg_class o ON o.oid = d.refobjid AND d.refclassid = 'pg_class'::regclass
                 WHERE r.ev_class = c.oid AND o.relkind = 'v' AND o.relname = c.relname AND o.relnamespace = to_regnamespace('oa')))",
            &[&oid],
        )
        .map(|row| row.get(0))
}

fn read_indexes(
    client: &mut impl GenericClient,
    oid: u32,
    existing: &mut Existing,
) -> Result<(), postgres::Error> {
    // A constraint's definition and an index's definition, each without the table's name.
    let rows = client.query(
        "SELECT i.relname::text, x.indisprimary, x.indisunique, k.oid IS NOT NULL,
                CASE WHEN k.oid IS NOT NULL THEN pg_get_constraintdef(k.oid) ELSE pg_get_indexdef(i.oid) END,
                CASE WHEN 0 = ANY (x.indkey::int2[]) OR x.indpred IS NOT NULL THEN NULL ELSE
                  ARRAY(SELECT a.attname::text FROM unnest(x.indkey[0:x.indnkeyatts - 1]) AS n JOIN pg_attribute a
                        ON a.attrelid = x.indrelid AND a.attnum = n ORDER BY 1) END,
                ARRAY(SELECT a.attname::text FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS n(num, pos)
                      JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = n.num ORDER BY n.pos)
         FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
         LEFT JOIN pg_constraint k ON k.conindid = x.indexrelid AND k.conrelid = x.indrelid AND k.contype IN ('p', 'u', 'x')
         WHERE x.indrelid = $1 ORDER BY i.relname",
        &[&oid],
    )?;
    for row in rows {
        let (name, primary, unique, constraint): (String, bool, bool, bool) =
            (row.get(0), row.get(1), row.get(2), row.get(3));
        let (definition, plain, ordered): (String, Option<Vec<String>>, Vec<String>) =
            (row.get(4), row.get(5), row.get(6));
        if unique {
            existing.unique_columns.extend(plain);
        }
        if primary {
            existing.primary_key = ordered;
            existing.primary_key_name = name;
            continue;
        }
        let definition = if constraint {
            definition
        } else {
            definition
                .find(" USING ")
                .map_or_else(String::new, |at| definition[at..].to_owned())
        };
        existing.indexes.push(PlannedIndex {
            name,
            unique,
            constraint,
            definition,
        });
    }
    Ok(())
}

fn foreign_keys(
    client: &mut impl GenericClient,
    oid: u32,
    schema: &str,
) -> Result<Vec<PlannedForeignKey>, postgres::Error> {
    let rows = client.query(
        "SELECT p.relname::text, n.nspname::text,
                ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY AS u(num, pos)
                      JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.pos),
                ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY AS u(num, pos)
                      JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.pos),
                k.confupdtype::text, k.confdeltype::text, k.conname::text, k.confmatchtype = 'f',
                CASE WHEN k.condeferred THEN ' DEFERRABLE INITIALLY DEFERRED' WHEN k.condeferrable THEN ' DEFERRABLE' ELSE '' END,
                coalesce((SELECT ' (' || string_agg(quote_ident(a.attname), ', ' ORDER BY u.pos) || ')'
                  FROM unnest(k.confdelsetcols) WITH ORDINALITY AS u(num, pos)
                  JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num), '')
         FROM pg_constraint k JOIN pg_class p ON p.oid = k.confrelid JOIN pg_namespace n ON n.oid = p.relnamespace
         WHERE k.conrelid = $1 AND k.contype = 'f' ORDER BY k.conname",
        &[&oid],
    )?;
    let action = |code: &str| match code {
        "c" => "CASCADE",
        "n" => "SET NULL",
        "d" => "SET DEFAULT",
        "r" => "RESTRICT",
        _ => "NO ACTION",
    };
    Ok(rows
        .iter()
        .map(|row| PlannedForeignKey {
            parent: row.get(0),
            columns: row.get(2),
            parent_columns: row.get(3),
            parent_moves: false,
            actions: format!(
                "{}ON UPDATE {} ON DELETE {}{}",
                if row.get(7) { "MATCH FULL " } else { "" },
                action(&row.get::<_, String>(4)),
                action(&row.get::<_, String>(5)),
                row.get::<_, String>(9)
            ),
            name: row.get(6),
            timing: row.get(8),
            parent_schema: Some(row.get::<_, String>(1)).filter(|s| s != schema),
            of_target: true,
            dangling: false,
        })
        .collect())
}

/// Whether a table has rows, also those that row level security hides. `name` is quoted.
pub(crate) fn has_rows(
    client: &mut impl GenericClient,
    name: &str,
) -> Result<bool, postgres::Error> {
    // Checked before it is tried, because a refusal would end the transaction.
    let hidden: bool = client
        .query_one("SELECT row_security_active($1::text::regclass)", &[&name])?
        .get(0);
    let sql = if hidden {
        format!(
            "SELECT pg_relation_size('{}'::regclass) > 0",
            name.replace('\'', "''")
        )
    } else {
        format!("SELECT EXISTS (SELECT 1 FROM ONLY {name})")
    };
    client.query_one(&sql, &[]).map(|row| row.get(0))
}

/// The materialized views that are made of a table, also by way of other views.
fn materialized_views(
    client: &mut impl GenericClient,
    oid: u32,
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "WITH RECURSIVE v AS (
           SELECT $1::oid AS oid
           UNION SELECT r.ev_class FROM v JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = v.oid AND d.classid = 'pg_rewrite'::regclass
             JOIN pg_rewrite r ON r.oid = d.objid)
         SELECT c.oid::regclass::text FROM v JOIN pg_class c USING (oid) WHERE c.relkind = 'm' ORDER BY 1",
        &[&oid],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Names of everything in a schema that shares a namespace with tables and indexes.
pub(crate) fn relation_names(
    client: &mut impl GenericClient,
    schema: &str,
) -> Result<Vec<String>, postgres::Error> {
    let rows = client.query(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1",
        &[&schema],
    )?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}
