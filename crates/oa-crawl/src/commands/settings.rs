//! `oa-crawl settings`, which no help shows: what `oa-setup` reads and writes in the configuration. A shell would take the same table, written
//! in another way, for none, and write it a second time.

use std::io;
use std::path::Path;

use clap::{Args as ClapArgs, Subcommand};
use oa_core::app::cli::{self, Failure};
use oa_core::app::exit;
use oa_core::base::trust;
use toml_edit::Value;

use super::document::{Document, Unchanged, entries};

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print all keys and tables, a line each: number of the line, name, value
    List,
    /// Give keys other values
    Put(PutArgs),
    /// Add a table to a list of tables
    Add(AddArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct PutArgs {
    /// TABLE.KEY=TEXT, or TABLE.KEY:=VALUE in TOML's form
    #[arg(required = true, value_parser = assignment)]
    assignments: Vec<(String, Value)>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AddArgs {
    /// The list
    list: String,
    /// The keys of the new table
    #[arg(required = true, value_parser = assignment)]
    assignments: Vec<(String, Value)>,
}

fn assignment(text: &str) -> Result<(String, Value), String> {
    let (key, value) = text.split_once('=').ok_or("it is no KEY=VALUE")?;
    match key.strip_suffix(':') {
        None => Ok((key.to_owned(), value.into())),
        Some(key) => Ok((
            key.to_owned(),
            value.parse().map_err(|_| "the value is no TOML")?,
        )),
    }
}

/// Whatever else is wrong with it is found when it is used; what is written is a valid configuration.
///
/// Exits 77 for a file that may not be read or written, 78 for one that is wrong, or would be.
pub(crate) fn run(command: Command, file: &Path) -> Result<u8, Failure> {
    let done = match command {
        Command::List => return list(file),
        Command::Put(args) => Document::open(file).and_then(|mut document| {
            for (key, value) in args.assignments {
                document.put(&key, value)?;
            }
            document.write()
        }),
        Command::Add(args) => Document::open(file).and_then(|mut document| {
            document.add(&args.list, args.assignments)?;
            document.write()
        }),
    };
    done.map(|()| exit::OK).map_err(|e| failure(file, e))
}

fn list(file: &Path) -> Result<u8, Failure> {
    let text = trust::read_named_text(file, trust::LARGEST).map_err(|e| failure(file, e.into()))?;
    let mut said = String::new();
    for entry in entries(&text).map_err(|e| failure(file, e))? {
        // A line is a line.
        let value = entry.value.replace(['\n', '\r', '\t'], " ");
        said.push_str(&format!("{}\t{}\t{value}\n", entry.line, entry.key));
    }
    cli::print(&said).map_err(anyhow::Error::from)?;
    Ok(exit::OK)
}

fn failure(file: &Path, error: Unchanged) -> Failure {
    let file = file.display();
    match error {
        Unchanged::Io(e) if e.kind() == io::ErrorKind::InvalidData => Failure::new(
            exit::CONFIG,
            anyhow::anyhow!("could not read {file}: {e}; save it as UTF-8"),
        ),
        Unchanged::Io(e) => Failure::new(
            exit::REFUSED,
            anyhow::anyhow!("could not edit {file}: {e}; run this as the file's owner"),
        ),
        Unchanged::Other(what) => Failure::new(
            exit::CONFIG,
            anyhow::anyhow!("could not edit {file}: {what}; correct it there"),
        ),
        Unchanged::Invalid(e) => e.into(),
    }
}
