//! `oa-crawl sources`: the built-in source files, as a start for your own, and their JSON Schema.

use std::fs;
use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use oa_core::app::cli::{self, Failure};
use oa_core::app::exit;
use oa_core::base::state_dir::write_durably;
use oa_core::base::trust;

use crate::source::{BUILT_IN, schema_text};

/// The file with the JSON Schema, which editors find by the first line of each source file.
const SCHEMA: &str = "source.schema.json";

/// Write the built-in source files into a folder, to correct them or to learn from them
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  oa-crawl sources export ./sources")]
pub(crate) enum Command {
    Export(ExportArgs),
    /// Print the JSON Schema of source files, for editors
    Schema,
}

/// Write the files; those that differ from the built-in ones are not overwritten
#[derive(Debug, ClapArgs)]
pub(crate) struct ExportArgs {
    /// The folder, created if absent
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// Overwrite files that differ
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(command: &Command) -> Result<u8, Failure> {
    match command {
        Command::Export(args) => export(args),
        Command::Schema => schema(),
    }
}

fn schema() -> Result<u8, Failure> {
    cli::print(&schema_text()).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

/// Writes the files, and their JSON Schema, into a folder, made if absent. A file that is there already stays as it is unless `force` is set.
/// Exits 77 when a file of the folder differs, 1 when one cannot be written.
fn export(args: &ExportArgs) -> Result<u8, Failure> {
    let folder = args.folder.as_path();
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
            let there = trust::read_regular(&folder.join(file), trust::LARGEST);
            there.is_ok_and(|there| there != text.as_bytes())
        })
        .map(|(file, _)| *file)
        .collect();
    if !differs.is_empty() && !args.force {
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
