//! `oa-crawl sources export`: the built-in source files, as a start for one's own.

use std::fs;
use std::path::Path;

use oa_core::cli::{self, Failure};
use oa_core::exit;
use oa_core::state_dir::write_durably;

use crate::source::{BUILT_IN, schema_text};

/// The file with the JSON Schema, which editors find by the first line of each source file.
const SCHEMA: &str = "source.schema.json";

/// Prints the JSON Schema of source files.
pub(crate) fn schema() -> Result<u8, Failure> {
    cli::print(&schema_text()).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Writes the files, and their JSON Schema, into a folder, made if absent. A file that is there already stays as it is unless `force` is set.
/// Exits 77 when a file of the folder differs, 1 when one cannot be written.
pub(crate) fn run(folder: &Path, force: bool) -> Result<u8, Failure> {
    let cannot = |path: &Path, e: std::io::Error| {
        anyhow::anyhow!(
            "could not write {}: {e}; choose a folder that is writable",
            path.display()
        )
    };
    fs::create_dir_all(folder).map_err(|e| cannot(folder, e))?;
    let files = BUILT_IN
        .iter()
        .map(|(file, text)| (*file, format!("#:schema ./{SCHEMA}\n{text}")));
    let files: Vec<(&str, String)> = files.collect();
    let differs: Vec<&str> = files
        .iter()
        .filter(|(file, text)| {
            fs::read(folder.join(file)).is_ok_and(|there| there != text.as_bytes())
        })
        .map(|(file, _)| *file)
        .collect();
    if !differs.is_empty() && !force {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "{} in {} differ from the built-in ones and were perhaps edited; nothing was written: name another folder, or use --force",
                differs.join(", "),
                folder.display()
            ),
        ));
    }
    for (file, text) in files.iter().chain([&(SCHEMA, schema_text())]) {
        let path = folder.join(file);
        write_durably(&path, text.as_bytes()).map_err(|e| cannot(&path, e))?;
    }
    cli::print(&format!(
        "{} files in {}; they replace the built-in ones with --sources {}, or sources = \"…\" in [crawl]\n",
        BUILT_IN.len(),
        folder.display(),
        folder.display()
    ))
    .map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}
