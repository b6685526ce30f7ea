//! A folder of source files. A file that cannot be used stops only its own source: the others are as they were, and the built-in
//! source that it was to replace does not come back in its place, because that is not what the operator wrote.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use oa_core::base::trust::{self, Content, TrustError};

use super::{Source, SourceError, parse};

#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// The task, as far as its file says; else named after the file.
    pub(crate) task: String,
    /// What is wrong, with file, line and key.
    pub(crate) reason: String,
}

/// The task that stands for the folder itself.
pub(crate) const FOLDER: &str = "source-files";

/// Larger files are not source files.
const LARGEST: u64 = 4 << 20;

/// The sources of a folder, by name, and what could not be used.
pub(super) fn read(folder: &Path) -> (BTreeMap<String, Source>, Vec<Broken>) {
    let mut found: BTreeMap<String, (Source, PathBuf)> = BTreeMap::new();
    let mut broken: Vec<Broken> = Vec::new();
    let mut failed: Vec<(PathBuf, String, String)> = Vec::new();
    let mut unusable: Vec<(PathBuf, Option<String>, String)> = Vec::new();
    let files = match files(folder) {
        Ok(files) => files,
        Err(e) => {
            let task = FOLDER.to_owned();
            let reason = format!(
                "{e}; no source runs until the folder is there again, because any of its files may replace a built-in one"
            );
            return (BTreeMap::new(), vec![Broken { task, reason }]);
        }
    };
    for path in files {
        match read_one(&path) {
            Ok(source) => {
                let name = source.name.clone();
                match found.get(&name) {
                    None => drop(found.insert(name, (source, path))),
                    Some((_, first)) => failed.push((
                        path.clone(),
                        name.clone(),
                        format!(
                            "could not use source file {}: it has the same name \"{name}\" as {}; rename one of them, until then neither runs",
                            path.display(),
                            first.display()
                        ),
                    )),
                }
            }
            Err((text, e)) => unusable.push((path, name_in(&text), e.to_string())),
        }
    }
    for (path, name, reason) in unusable {
        let stem = stem(&path);
        let beside = format!("{stem}-file");
        // A broken copy beside a file that works is not that source.
        let names = name.into_iter().chain([stem]);
        let task = names.into_iter().find(|name| !found.contains_key(name));
        broken.push(Broken {
            task: task.unwrap_or(beside),
            reason,
        });
    }
    for (_, task, reason) in failed {
        found.remove(&task);
        broken.push(Broken { task, reason });
    }
    let found = found.into_iter().map(|(name, (source, _))| (name, source));
    (found.collect(), broken)
}

fn files(folder: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let unreadable = |source| SourceError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    trust::check_folder(folder).map_err(|e| untrusted(folder, e))?;
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        // Hidden ones are what editors leave.
        let hidden = path
            .file_name()
            .is_some_and(|n| n.to_string_lossy().starts_with('.'));
        if !hidden && path.extension().is_some_and(|e| e == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn untrusted(path: &Path, error: TrustError) -> SourceError {
    match error {
        TrustError::Io(source) => SourceError::Unreadable {
            path: path.to_owned(),
            source,
        },
        other => SourceError::Untrusted(other),
    }
}

/// The error comes with what could be read of the file.
fn read_one(path: &Path) -> Result<Source, (String, SourceError)> {
    let unreadable = |source| SourceError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let invalid = |message: &str| SourceError::Invalid {
        file: path.display().to_string(),
        message: message.to_owned(),
    };
    let there = fs::metadata(path).map_err(|e| (String::new(), unreadable(e)))?;
    if !there.is_file() || there.len() > LARGEST {
        return Err((String::new(), invalid("it is not a file of source rules")));
    }
    let bytes = trust::read_bytes(path, Content::Settings)
        .map_err(|e| (String::new(), untrusted(path, e)))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let text = String::from_utf8_lossy(e.as_bytes()).into_owned();
        (text, invalid("it is not UTF-8; save it in that encoding"))
    })?;
    parse(&path.display().to_string(), &text).map_err(|e| (text, e))
}

/// The name that a file gives itself, also when it is no valid TOML.
fn name_in(text: &str) -> Option<String> {
    let mut lines = text.lines();
    let name = lines.find_map(|line| {
        let value = line
            .trim()
            .strip_prefix("name")?
            .trim_start()
            .strip_prefix('=')?
            .trim();
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let rest = &value[1..];
        Some(rest[..rest.find(quote)?].to_owned())
    })?;
    is_name(&name).then_some(name)
}

/// Whether a text can be a task's name.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(allowed)
}

fn stem(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let letter = |c: char| match c.to_ascii_lowercase() {
        c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
        _ => '-',
    };
    stem.chars().map(letter).collect()
}
