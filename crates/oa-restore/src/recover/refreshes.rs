//! Materialized views of a dump. Their rows are made anew from tables, and one that cannot be made keeps nothing else from coming back.

use std::fs;
use std::path::{Path, PathBuf};

use oa_core::pg::describe;
use oa_repository::Programs;
use postgres::Client;

use crate::RestoreError;
use crate::error::stop_if_asked;

/// As `pg_restore --list` calls the entry that refreshes one.
const ENTRY: &str = "MATERIALIZED VIEW DATA ";

/// The refreshes of a dump, which are done when all else is loaded.
#[derive(Debug, Default)]
pub(crate) struct Refreshes {
    /// The list of everything else, where there are any.
    list: Option<PathBuf>,
    /// Schema, name and owner of each, in the order in which they depend on each other.
    entries: Vec<String>,
}

/// A view that was not refreshed.
#[derive(Debug)]
pub(crate) struct NotRefreshed {
    /// As the list has it.
    entry: String,
    /// For the operator.
    pub(crate) note: String,
}

impl Refreshes {
    /// Those of a dump in a folder; `list` is a file to write.
    pub(crate) fn of(programs: &Programs, dump: &Path, list: &Path) -> Result<Self, RestoreError> {
        let arguments = [
            "--list".to_owned(),
            format!("--file={}", list.display()),
            dump.display().to_string(),
        ];
        programs.run("pg_restore", &arguments)?;
        let failed = RestoreError::disk("could not use", list);
        let bytes = fs::read(list).map_err(&failed)?;
        let (mut entries, mut rest) = (Vec::new(), Vec::new());
        // Names have the dump's encoding, whatever that is.
        for line in bytes.split_inclusive(|b| *b == b'\n') {
            match entry(&String::from_utf8_lossy(line)) {
                Some(entry) => entries.push(entry.to_owned()),
                None => rest.extend_from_slice(line),
            }
        }
        if entries.is_empty() {
            return Ok(Self::default());
        }
        fs::write(list, rest).map_err(&failed)?;
        Ok(Self {
            list: Some(list.to_owned()),
            entries,
        })
    }

    /// Also those that were not made in another server, and so are not in a dump of it.
    pub(crate) fn and(mut self, others: &[NotRefreshed]) -> Self {
        for other in others {
            if !self.entries.contains(&other.entry) {
                self.entries.push(other.entry.clone());
            }
        }
        self
    }

    /// For `pg_restore`.
    pub(crate) fn argument(&self) -> Option<String> {
        let list = self.list.as_ref()?;
        Some(format!("--use-list={}", list.display()))
    }

    /// Does them. Returns those that failed.
    pub(crate) fn make(&self, client: &mut Client) -> Result<Vec<NotRefreshed>, RestoreError> {
        let mut not_made = Vec::new();
        if self.entries.is_empty() {
            return Ok(not_made);
        }
        let failed = RestoreError::query("could not look for materialized views");
        // Names in the list have a space for each end of a line.
        let rows = client
            .query(
                "SELECT translate(n.nspname::text || ' ' || c.relname::text || ' ', E'\\n\\r', '  '), format('%I.%I', n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'",
                &[],
            )
            .map_err(&failed)?;
        // As pg_dump has it.
        client
            .batch_execute("SELECT pg_catalog.set_config('search_path', '', false)")
            .map_err(&failed)?;
        for entry in &self.entries {
            stop_if_asked()?;
            let mut is_found = false;
            let mut push = |note| {
                let entry = entry.clone();
                not_made.push(NotRefreshed { entry, note });
            };
            for row in &rows {
                // Not every encoding's names can be read here.
                let (Ok(begin), Ok(name)) = (row.try_get::<_, &str>(0), row.try_get::<_, &str>(1))
                else {
                    continue;
                };
                if !entry.starts_with(begin) {
                    continue;
                }
                is_found = true;
                let refresh = format!("REFRESH MATERIALIZED VIEW {name}");
                match client.batch_execute(&refresh) {
                    Err(e) if oa_core::pg::is_connection_error(&e) => {
                        return Err(RestoreError::query(format!("could not refresh {name}"))(e));
                    }
                    Err(e) => push(format!(
                        "materialized view {name} is there without rows, because it cannot be refreshed: {}; put that right, then: {refresh}",
                        describe(&e)
                    )),
                    Ok(()) => {}
                }
            }
            if !is_found {
                push(format!(
                    "a materialized view is there without rows, because it is not found by its name, with schema and owner in the dump's list: {}; refresh it with REFRESH MATERIALIZED VIEW",
                    entry.trim_end()
                ));
            }
        }
        client.batch_execute("RESET search_path").map_err(failed)?;
        Ok(not_made)
    }
}

/// What stands after its number, two numbers of the catalogue, and the kind of entry.
fn entry(line: &str) -> Option<&str> {
    let (_, rest) = line.split_once("; ")?;
    let (_, rest) = rest.split_once(' ')?;
    let (_, rest) = rest.split_once(' ')?;
    rest.strip_prefix(ENTRY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pg_restore_lists_them_so() {
        let line = "4321; 0 17507 MATERIALIZED VIEW DATA public mv postgres\n";
        assert_eq!(entry(line), Some("public mv postgres\n"));
        for other in [
            "313; 1259 17507 MATERIALIZED VIEW public mv postgres",
            ";     Format: CUSTOM",
            "4310; 0 17500 TABLE DATA public MATERIALIZED VIEW DATA postgres",
        ] {
            assert_eq!(entry(other), None, "{other}");
        }
    }
}
