//! Modules import only from the layers below their own, as `main.rs` says.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom to the top; modules of one layer do not know each other.
const LAYERS: [&[&str]; 7] = [
    &["errors", "values", "workers"],
    &["inspect"],
    &["plan"],
    &["load"],
    &["proof"],
    &["runs", "sync", "transfer"],
    &["commands"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|l| l.contains(&module))
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The modules that a text names after `crate::`, within braces too.
fn imported(text: &str) -> Vec<&str> {
    fn first_word(text: &str) -> &str {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        text.trim_start()
            .split(|c| !is_word(c))
            .next()
            .unwrap_or_default()
    }
    text.split("crate::")
        .skip(1)
        .flat_map(|rest| match rest.strip_prefix('{') {
            Some(list) => {
                let list = list.split('}').next().unwrap_or_default();
                list.split(',').map(first_word).collect()
            }
            None => vec![first_word(rest)],
        })
        .collect()
}

#[test]
fn modules_import_only_from_the_layers_below_their_own() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    let mut wrong = Vec::new();
    let mut seen = 0;
    for file in files {
        let name = file
            .strip_prefix(&src)
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let own = name.split('/').next().unwrap().trim_end_matches(".rs");
        if own == "main" {
            continue;
        }
        let own_layer = layer(own).unwrap_or_else(|| panic!("{name} belongs to no layer"));
        for module in imported(&fs::read_to_string(&file).unwrap()) {
            seen += 1;
            if module != own && layer(module).is_some_and(|other| other >= own_layer) {
                wrong.push(format!("{name} imports {module}"));
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
