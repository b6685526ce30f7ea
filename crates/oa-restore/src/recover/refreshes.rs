//! Materialized views of a dump. Their rows are made anew from tables, and one that cannot be made keeps nothing else from coming back.

use std::fs;
use std::path::{Path, PathBuf};

use oa_core::pg::describe;
use oa_repository::Programs;
use postgres::Client;

use crate::RestoreError;

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

    /// For `pg_restore`.
    pub(crate) fn argument(&self) -> Option<String> {
        let list = self.list.as_ref()?;
        Some(format!("--use-list={}", list.display()))
    }

    /// Does them. Returns a note for each that failed.
    pub(crate) fn make(&self, client: &mut Client) -> Result<Vec<String>, RestoreError> {
        let mut notes = Vec::new();
        if self.entries.is_empty() {
            return Ok(notes);
        }
        let failed = RestoreError::query("could not look for materialized views");
        let rows = client
            .query(
                "SELECT n.nspname::text || ' ' || c.relname::text || ' ', format('%I.%I', n.nspname, c.relname)
                 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'm'",
                &[],
            )
            .map_err(&failed)?;
        // As pg_dump has it.
        client
            .batch_execute("SELECT pg_catalog.set_config('search_path', '', false)")
            .map_err(&failed)?;
        for entry in &self.entries {
            for row in &rows {
                let (begin, name): (&str, &str) = (row.get(0), row.get(1));
                if !entry.starts_with(begin) {
                    continue;
                }
                let refresh = format!("REFRESH MATERIALIZED VIEW {name}");
                match client.batch_execute(&refresh) {
                    Err(e) if oa_core::pg::is_connection_error(&e) => {
                        return Err(RestoreError::query(format!("could not refresh {name}"))(e));
                    }
                    Err(e) => notes.push(format!(
                        "materialized view {name} is there without rows, because it cannot be refreshed: {}; put that right, then: {refresh}",
                        describe(&e)
                    )),
                    Ok(()) => {}
                }
            }
        }
        client.batch_execute("RESET search_path").map_err(failed)?;
        Ok(notes)
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
