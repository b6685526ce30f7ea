//! The statements that make a table's keys, indexes and constraints, for the staging schema, for advice and for `plan --ddl`.
//! `of` is the table's name with its schema, quoted.

use oa_core::pg::quote_ident;

use super::staging::create_table;
use crate::plan::{Plan, PlannedForeignKey, PlannedIndex, PlannedTable};

fn named(name: Option<&str>) -> String {
    name.filter(|n| !n.is_empty())
        .map_or_else(String::new, |n| format!("CONSTRAINT {} ", quote_ident(n)))
}

/// Whether the columns of the primary key may be NULL, so that only a unique constraint is possible.
pub(crate) fn nullable_key(table: &PlannedTable) -> bool {
    table.existing.is_none()
        && table
            .columns
            .iter()
            .any(|c| !c.not_null && table.primary_key.contains(&c.target))
}

pub(crate) fn primary_key(of: &str, table: &PlannedTable, kind: &str) -> String {
    let columns: Vec<String> = table.primary_key.iter().map(|c| quote_ident(c)).collect();
    let name = table.existing.as_ref().map(|e| e.primary_key_name.as_str());
    let name = name.or(table.primary_key_name.as_deref());
    format!(
        "ALTER TABLE {of} ADD {}{kind} ({})",
        named(name),
        columns.join(", ")
    )
}

pub(crate) fn index(of: &str, index: &PlannedIndex) -> String {
    let name = quote_ident(&index.name);
    if index.constraint {
        format!(
            "ALTER TABLE {of} ADD CONSTRAINT {name} {}",
            index.definition
        )
    } else {
        let unique = if index.unique { "UNIQUE " } else { "" };
        format!("CREATE {unique}INDEX {name} ON {of} {}", index.definition)
    }
}

pub(crate) fn check(of: &str, constraint: Option<&str>, condition: &str) -> String {
    format!(
        "ALTER TABLE {of} ADD {}CHECK ({condition})",
        named(constraint)
    )
}

/// `parent` is the schema of the other table.
pub(crate) fn foreign_key(of: &str, key: &PlannedForeignKey, parent: &str) -> String {
    format!(
        "ALTER TABLE {of} ADD {}{}",
        named(key.name.as_deref()),
        key.definition(parent)
    )
}

/// Everything that a plan would create, as a script. Tables that exist are only named.
pub(crate) fn script(plan: &Plan) -> String {
    let mut out = String::new();
    let mut put = |sql: &str| {
        out.push_str(sql);
        out.push_str(";\n");
    };
    let (there, new): (Vec<&PlannedTable>, Vec<&PlannedTable>) =
        plan.tables.iter().partition(|t| t.existing.is_some());
    for table in &new {
        for sql in create_table(&plan.schema, &plan.schema, table) {
            put(&sql);
        }
        let of = &table.qualified;
        if !table.primary_key.is_empty() {
            let kind = if nullable_key(table) {
                "UNIQUE"
            } else {
                "PRIMARY KEY"
            };
            put(&primary_key(of, table, kind));
        }
        for planned in &table.indexes {
            put(&index(of, planned));
        }
        for (name, condition) in &table.checks {
            put(&check(of, name.as_deref(), condition));
        }
    }
    for table in &new {
        for key in &table.foreign_keys {
            put(&foreign_key(&table.qualified, key, &plan.schema));
        }
    }
    for table in there {
        out.push_str(&format!(
            "-- {} exists and keeps its definition\n",
            table.qualified
        ));
    }
    for missing in plan.missing() {
        out.push_str(&format!("-- {}\n", missing.sentence().replace('\n', " ")));
    }
    out
}
