//! Man pages, from the definition of the command line: one of a program and its commands to read at once, or one each to install.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};
use clap_mangen::Man;

use crate::app::exit;

const EXIT_CODES: &str = "Exit codes:\n";
const EXAMPLES: &str = "Examples:\n";

const FILES: &str = "\
/etc/oa/oa.toml      the configuration, unless --config, $OA_CONFIG or ./oa.toml is there
/etc/oa/.env         secrets that the configuration names; read from beside it
/var/lib/oa          the state directory: spool, locks, raw archive
/usr/share/oa        examples of a configuration and a crontab";

const ENVIRONMENT: &str = "\
OA_CONFIG            the configuration file
DATABASE_URL         the database's address; wins over database.url
OA_LOG               what is logged, for example oa_crawl=debug
NO_COLOR             no colours";

/// Prints a program's page with those of its commands, or writes a page for each into a folder, under the names by which they refer
/// to each other.
///
/// # Errors
/// When stdout or the folder cannot be written.
pub fn print<C: CommandFactory>(folder: Option<&Path>) -> io::Result<()> {
    let mut root = C::command().disable_help_subcommand(true);
    root.build();
    let mut all = Vec::new();
    let mut waiting = vec![&root];
    while let Some(command) = waiting.pop() {
        let shown = command.get_subcommands().filter(|s| !s.is_hide_set());
        waiting.extend(shown);
        let page = page(command)?;
        match folder {
            Some(folder) => {
                // As the pages name each other: oa-crawl-list(1).
                let name = command.get_display_name().unwrap_or(command.get_name());
                fs::create_dir_all(folder)?;
                fs::write(folder.join(format!("{name}.1")), page)?;
            }
            None => all.extend(page),
        }
    }
    io::stdout().lock().write_all(&all)
}

fn page(command: &Command) -> io::Result<Vec<u8>> {
    let man = Man::new(command.clone()).manual("oa");
    let mut out = Vec::new();
    man.render_title(&mut out)?;
    man.render_name_section(&mut out)?;
    man.render_synopsis_section(&mut out)?;
    man.render_description_section(&mut out)?;
    let help = command.get_after_help().map(ToString::to_string);
    let help = help.unwrap_or_default();
    let (text, codes) = split(&help, EXIT_CODES);
    let (text, examples) = split(text, EXAMPLES);
    paragraphs(&mut out, text);
    man.render_options_section(&mut out)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut out)?;
    }
    literal(&mut out, "EXAMPLES", examples);
    let codes = if codes.is_empty() {
        exit::HELP.split_once('\n').map_or("", |(_, codes)| codes)
    } else {
        codes
    };
    literal(&mut out, "EXIT STATUS", codes);
    literal(&mut out, "FILES", FILES);
    literal(&mut out, "ENVIRONMENT", ENVIRONMENT);
    Ok(out)
}

fn split<'a>(text: &'a str, heading: &str) -> (&'a str, &'a str) {
    text.split_once(heading).unwrap_or((text, ""))
}

fn paragraphs(out: &mut Vec<u8>, text: &str) {
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        out.extend(format!(".PP\n{}\n", escaped(line)).into_bytes());
    }
}

/// Lines as they stand.
fn literal(out: &mut Vec<u8>, heading: &str, text: &str) {
    if text.trim().is_empty() {
        return;
    }
    out.extend(format!(".SH \"{heading}\"\n.nf\n").into_bytes());
    for line in text.lines() {
        out.extend(format!("{}\n", escaped(line)).into_bytes());
    }
    out.extend(b".fi\n");
}

/// A line that roff takes for text: a backslash is one, a dot or a quote at its beginning begins no request, and a hyphen can be copied.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}
