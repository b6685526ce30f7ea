//! `oa-crawl enable` and `disable`: which sources run by themselves. Everything is off until somebody who has an account, or may use
//! the site, says so; that is written into `enable` in `[crawl]`, where it can be read, reviewed and copied to the next machine.
//!
//! The other programs know what is expected from `oa.tasks` alone. A source that is switched off is forgotten there: by `disable`, and
//! by the next `run` for a file that was edited by hand. Which were on before is in `state_dir/enabled`, because another machine may
//! have them on, in a configuration of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use chrono::Utc;
use clap::Args as ClapArgs;
use oa_core::app::cli::{self, Failure};
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::app::output::Format;
use oa_core::base::state_dir::write_durably;
use oa_core::journal::{Recorder, due};
use oa_core::pg::{self, describe, schema};
use oa_core::schedule::Calendar;
use postgres::Client;
use uuid::Uuid;

use super::args::SourcesArg;
use super::document::{Document, Unchanged, array};
use super::{accounts, run};
use crate::PROGRAM;
use crate::source::{Source, Sources};

#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// Tasks, or providers with all their tasks, as `oa-crawl list` shows them
    #[arg(
        value_name = "TASK|PROVIDER",
        required_unless_present = "all",
        conflicts_with = "all"
    )]
    names: Vec<String>,
    /// Everything that `oa-crawl list` shows
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    sources: SourcesArg,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct EnableArgs {
    #[command(flatten)]
    of: Args,
    /// Try each of them once and show what comes; nothing is stored. On a terminal this happens without --try, after asking for secrets
    /// that are not set, which go into the .env beside the configuration
    #[arg(long = "try")]
    attempt: bool,
}

/// Switches them on, asks for what they need, and tries them.
///
/// Exits as [`disable`], and with 1 or 78 when one that is enabled now would fail, or lacks a secret.
pub(crate) fn enable(args: &EnableArgs, config: &Config) -> Result<u8, Failure> {
    let mut changed = switch(&args.of, config, true)?;
    if !args.attempt && !cli::interactive() {
        return Ok(exit::OK);
    }
    let sources = args
        .of
        .sources
        .load(&changed)
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let calendar =
        Calendar::load(changed.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let named = |s: &&Source| {
        let names = &args.of.names;
        args.of.all || names.contains(&s.name) || names.contains(&s.provider)
    };
    let of: Vec<&Source> = sources.enabled().filter(named).collect();
    if cli::interactive()
        && let Some(answered) = accounts::ask(&changed, &of)?
    {
        changed = answered;
    }
    let mut code = exit::OK;
    let mut ready = Vec::new();
    for source in of {
        match source.secrets(&changed) {
            Ok(_) => ready.push(source),
            Err(e) => {
                code = exit::CONFIG;
                tracing::error!("{}: {e}", source.name);
            }
        }
    }
    let today = Utc::now().with_timezone(&changed.timezone).date_naive();
    let day = |source: &Source| source.present_day(today, &calendar);
    let tried = run::dry_run(&changed, &ready, &day, &calendar, Format::Table)?;
    Ok(code.max(tried))
}

/// Switches them off.
///
/// Exits 2 for a name that is neither a task nor a provider, 77 for a file that may not be written, 78 for one that is wrong.
pub(crate) fn disable(args: &Args, config: &Config) -> Result<u8, Failure> {
    switch(args, config, false).map(|_| exit::OK)
}

/// Switches tasks, all tasks of providers, or everything on or off, and prints what is on afterwards. Gives the configuration as it is
/// then.
fn switch(args: &Args, config: &Config, on: bool) -> Result<Config, Failure> {
    cli::end_at_the_latest(Duration::ZERO);
    let sources = args
        .sources
        .load(config)
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    for name in &args.names {
        sources
            .named(name)
            .map_err(|e| Failure::new(exit::USAGE, e))?;
    }
    let providers = sources.iter().map(|s| s.provider.clone());
    let names: BTreeSet<String> = match args.all {
        true => providers.collect(),
        false => args.names.iter().cloned().collect(),
    };
    let mut changed = config.clone();
    let crawl = &mut changed.crawl;
    let listed = crawl.enable.take().unwrap_or_default();
    crawl.enable = Some(match on {
        true => with(&sources, listed, &names),
        false => without(&sources, listed, &names),
    });
    if on {
        crawl.skip = without(&sources, std::mem::take(&mut crawl.skip), &names);
    }
    if changed.crawl.enable != config.crawl.enable || changed.crawl.skip != config.crawl.skip {
        edit(&changed)?;
    }
    let after = args
        .sources
        .load(&changed)
        .map_err(|e| Failure::new(exit::CONFIG, e))?;
    let enabled: Vec<&str> = after.enabled().map(|s| s.name.as_str()).collect();
    let shown = match enabled.is_empty() {
        true => "none".to_owned(),
        false => enabled.join(", "),
    };
    cli::print(&format!("enabled: {shown}\n")).map_err(anyhow::Error::from)?;
    if !on {
        let off = after.iter().filter(|s| !s.enabled);
        let off: Vec<&str> = off
            .filter(|s| names.contains(&s.name) || names.contains(&s.provider))
            .map(|s| s.name.as_str())
            .collect();
        let settings = pg::Settings::from_config(config, PROGRAM)?;
        let mut client = pg::connect(&settings)?;
        schema::check(&mut client)?;
        forget(&mut client, &off)?;
    }
    Ok(changed)
}

/// The list with these names. A provider stands for its tasks.
fn with(sources: &Sources, listed: Vec<String>, names: &BTreeSet<String>) -> Vec<String> {
    let mut list = listed;
    list.extend(names.iter().cloned());
    let whole: Vec<String> = list.clone();
    let mut seen = BTreeSet::new();
    list.retain(|name| {
        let by_provider = sources
            .get(name)
            .is_ok_and(|s| s.provider != *name && whole.contains(&s.provider));
        !by_provider && seen.insert(name.clone())
    });
    list
}

/// The list without these names. Of a provider the other tasks stay.
fn without(sources: &Sources, listed: Vec<String>, names: &BTreeSet<String>) -> Vec<String> {
    let gone = |name: &str, provider: &str| names.contains(name) || names.contains(provider);
    let mut list = Vec::new();
    for name in listed {
        // A name that stands for no usable source stays as it is.
        let tasks = sources.named(&name).unwrap_or_default();
        let kept: Vec<_> = tasks
            .iter()
            .filter(|s| !gone(&s.name, &s.provider))
            .collect();
        if kept.len() == tasks.len() && !names.contains(&name) {
            list.push(name);
        } else {
            list.extend(kept.into_iter().map(|s| s.name.clone()));
        }
    }
    list
}

/// Writes both lists into the file, which keeps everything else: comments, order, mode and owner.
fn edit(config: &Config) -> Result<(), Failure> {
    let enable = config.crawl.enable.as_deref().unwrap_or_default();
    let names: Vec<String> = enable.iter().map(|name| format!("\"{name}\"")).collect();
    let line = format!("enable = [{}]", names.join(", "));
    let file = config.path.display().to_string();
    let cannot = |e: io::Error| {
        Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "could not write {file}: {e}; run this as the file's owner, or write below [crawl] there: {line}"
            ),
        )
    };
    let failed = |unchanged| match unchanged {
        Unchanged::Io(e) => cannot(e),
        Unchanged::Other(what) => {
            let error =
                anyhow::anyhow!("could not edit {file}: {what}; write below [crawl] there: {line}");
            Failure::new(exit::CONFIG, error)
        }
        Unchanged::Invalid(e) => e.into(),
    };
    let change = || {
        let mut document = Document::open(&config.path)?;
        document.put("crawl.enable", array(enable))?;
        match config.crawl.skip.as_slice() {
            [] => document.remove("crawl.skip")?,
            skip => document.put("crawl.skip", array(skip))?,
        }
        document.write()
    };
    change().map_err(failed)
}

/// There is either the old file or the whole new one, with the owner of this one, and its mode where none is given.
pub(super) fn replace(
    path: &Path,
    like: &Path,
    mode: Option<u32>,
    content: &[u8],
) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    let beside = folder.join(format!(".oa.toml.{}.tmp", Uuid::now_v7()));
    let old = fs::metadata(like)?;
    let mode = mode.unwrap_or(old.mode() & 0o7777);
    let mut file = fs::OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&beside)?;
    let written = file
        .write_all(content)
        .and_then(|()| std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid())))
        .and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)))
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&beside, path))
        .and_then(|()| File::open(folder)?.sync_all());
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Called by each run of everything that is enabled: forgets what was switched off since the last one, and says what to do when nothing
/// is enabled.
/// Exits 78 when the file says nothing, as that of a version in which everything was on, and tasks ran until now: they must not end in
/// silence.
pub(super) fn reconcile(
    config: &Config,
    sources: &Sources,
    recorder: &Recorder,
    by_hand: bool,
) -> Result<(), Failure> {
    let noted = noted(recorder);
    let enabled: BTreeSet<String> = sources.enabled().map(|s| s.name.clone()).collect();
    // A file that is broken now was not switched off: its runs are missed until it is fixed.
    let before = noted.iter().flatten();
    let still = before.filter(|name| sources.broken_one(name).is_some());
    let enabled: BTreeSet<String> = still.cloned().chain(enabled).collect();
    if config.crawl.enable.is_none() {
        let before = recorder.connected(|client| scheduled(client, sources))?;
        let before =
            before.map_err(|e| anyhow::anyhow!("could not read oa.tasks: {}", describe(&e)))?;
        // What is not enabled now was on before.
        note(recorder, &before);
        let skip = &config.crawl.skip;
        let names: Vec<&str> = before
            .iter()
            .filter(|n| !skip.contains(n))
            .map(String::as_str)
            .collect();
        if !names.is_empty() {
            let names = names.join(" ");
            return Err(Failure::new(
                exit::CONFIG,
                anyhow::anyhow!(
                    "sources are off until they are enabled since this version, {} enables none, and these ran until now: {names}. Nothing was collected. To go on: oa-crawl enable {names}; to end it: oa-crawl disable --all",
                    config.path.display()
                ),
            ));
        }
    }
    if noted.as_ref() != Some(&enabled) {
        let before = noted.clone().unwrap_or_default();
        let off: Vec<&str> = before.difference(&enabled).map(String::as_str).collect();
        if !off.is_empty() {
            match recorder.connect() {
                Ok((mut client, _)) => forget(&mut client, &off)?,
                // The next one will.
                Err(e) => {
                    tracing::warn!("could not forget {}: {e}", off.join(", "));
                    return Ok(());
                }
            }
        }
        note(recorder, &enabled);
    }
    if enabled.is_empty() && (by_hand || noted.is_none()) {
        tracing::warn!(
            "no source is enabled, so nothing is collected; oa-crawl list shows them, oa-crawl enable TASK|PROVIDER enables"
        );
    }
    Ok(())
}

/// Tasks that are expected to run.
fn scheduled(client: &mut Client, sources: &Sources) -> Result<BTreeSet<String>, postgres::Error> {
    let names: Vec<&str> = sources.iter().map(|s| s.name.as_str()).collect();
    let query =
        "SELECT name FROM oa.tasks WHERE name = ANY($1) AND tool = $2 AND schedule IS NOT NULL";
    let rows = client.query(query, &[&names, &PROGRAM])?;
    Ok(rows.iter().map(|r| r.get(0)).collect())
}

fn forget(client: &mut Client, tasks: &[&str]) -> Result<(), Failure> {
    for task in tasks {
        due::forget(client, task)
            .map_err(|e| anyhow::anyhow!("could not forget {task}: {}", describe(&e)))?;
    }
    Ok(())
}

fn noted(recorder: &Recorder) -> Option<BTreeSet<String>> {
    let text = fs::read_to_string(path(recorder)).ok()?;
    Some(text.lines().map(str::to_owned).collect())
}

/// A lost note leaves a task expected that is off: it is reported as missed until `oa-crawl disable` forgets it.
fn note(recorder: &Recorder, tasks: &BTreeSet<String>) {
    let text: String = tasks.iter().map(|t| format!("{t}\n")).collect();
    if let Err(e) = write_durably(&path(recorder), text.as_bytes()) {
        tracing::warn!("could not note which sources are enabled: {e}");
    }
}

fn path(recorder: &Recorder) -> PathBuf {
    recorder.state().path().join("enabled")
}
