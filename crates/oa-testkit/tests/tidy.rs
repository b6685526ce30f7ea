//! What a reviewer should not have to say. Each rule keeps a short list of exceptions with their reasons; an exception that
//! nothing needs any more fails as well.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's Rust files below `crates/*/PART`, with their path from the root.
fn files(part: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let root = oa_testkit::workspace_root();
    let mut found = Vec::new();
    for entry in fs::read_dir(root.join("crates")).unwrap().flatten() {
        walk(&entry.path().join(part), &mut found);
    }
    found.sort();
    assert!(!found.is_empty(), "no files in crates/*/{part}");
    found
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&root).unwrap().display().to_string();
            (name, fs::read_to_string(&path).unwrap())
        })
        .collect()
}

/// The lines of a source file before its own tests.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "mod tests {")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(number, line)| (number + 1, line))
}

/// Fails with what was found and is not excepted, and with exceptions that nothing needs.
fn settle(found: &BTreeMap<String, Vec<String>>, exceptions: &[(&str, &str)], rule: &str) {
    let excepted: BTreeSet<&str> = exceptions.iter().map(|(file, _)| *file).collect();
    let new: Vec<&str> = found
        .iter()
        .filter(|(file, _)| !excepted.contains(file.as_str()))
        .flat_map(|(_, places)| places.iter().map(String::as_str))
        .collect();
    assert!(new.is_empty(), "{rule}:\n{}", new.join("\n"));
    let unused: Vec<&&str> = excepted
        .iter()
        .filter(|file| !found.contains_key(**file))
        .collect();
    assert!(
        unused.is_empty(),
        "exceptions that nothing needs: {unused:?}"
    );
}

#[test]
fn nothing_is_decided_from_the_wording_of_an_error() {
    // A server speaks the language of its lc_messages, a site and a robot any, and a path may hold any word.
    const EXCEPTIONS: &[(&str, &str)] = &[];
    const NAMES: &[&str] = &[
        "error", "err", "message", "stderr", "said", "reason", "errmsg",
    ];
    const DECIDING: &[&str] = &[".contains(\"", ".starts_with(\"", ".ends_with(\""];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in files("src") {
        if file.contains("/oa-sim/") || file.contains("/oa-testkit/") || file.ends_with("/tests.rs")
        {
            continue;
        }
        for (number, line) in code(&text) {
            for call in DECIDING {
                let Some(at) = line.find(call) else { continue };
                let before = &line[..at];
                let receiver = before
                    .rsplit(|c: char| !(c.is_alphanumeric() || "_.()".contains(c)))
                    .next()
                    .unwrap_or_default()
                    .to_lowercase();
                let parts = receiver.split(|c: char| !c.is_alphanumeric());
                if parts.into_iter().any(|p| NAMES.contains(&p)) {
                    let place = format!("{file}:{number}: {}", line.trim());
                    found.entry(file.clone()).or_default().push(place);
                }
            }
        }
    }
    settle(
        &found,
        EXCEPTIONS,
        "decided from an error's wording; ask for its SQLSTATE, exit status or code instead",
    );
}

#[test]
fn tests_wait_for_conditions_and_do_not_sleep() {
    const EXCEPTIONS: &[(&str, &str)] = &[
        (
            "crates/oa-migrate/tests/export.rs",
            "kills at random moments",
        ),
        (
            "crates/oa-backup/tests/killed.rs",
            "kills at random moments",
        ),
        (
            "crates/oa-restore/tests/killed.rs",
            "kills at random moments",
        ),
        (
            "crates/oa-migrate/tests/killed.rs",
            "kills at random moments",
        ),
    ];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in files("tests") {
        for (number, line) in text.lines().enumerate() {
            // What this file itself looks for does not count.
            if line.contains(concat!("thread::", "sleep(")) {
                let place = format!("{file}:{}: {}", number + 1, line.trim());
                found.entry(file.clone()).or_default().push(place);
            }
        }
    }
    settle(&found, EXCEPTIONS, "sleeps; use oa_testkit::wait_until");
}

#[test]
fn a_thread_that_the_system_refuses_is_no_panic() {
    const EXCEPTIONS: &[(&str, &str)] =
        &[("crates/oa-core/src/base/threads.rs", "starts all others")];
    const STARTS: &[&str] = &["thread::spawn", "thread::Builder", "Builder::new().name("];
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (file, text) in files("src") {
        if file.contains("/oa-sim/") || file.contains("/oa-testkit/") || file.ends_with("/tests.rs")
        {
            continue;
        }
        for (number, line) in code(&text) {
            let of_a_scope = line.contains("scope.spawn(");
            if of_a_scope || STARTS.iter().any(|call| line.contains(call)) {
                let place = format!("{file}:{number}: {}", line.trim());
                found.entry(file.clone()).or_default().push(place);
            }
        }
    }
    settle(
        &found,
        EXCEPTIONS,
        "std panics where the system refuses a thread; use oa_core::base::threads",
    );
}

#[test]
fn every_source_file_is_part_of_a_program() {
    let mut orphans = Vec::new();
    let all: BTreeMap<String, String> = files("src").into_iter().collect();
    for file in all.keys() {
        let (folder, name) = file.rsplit_once('/').unwrap();
        let (folder, name) = match name.strip_suffix(".rs").unwrap() {
            "lib" | "main" => continue,
            "mod" => folder.rsplit_once('/').unwrap(),
            name => (folder, name),
        };
        let parents = [
            format!("{folder}.rs"),
            format!("{folder}/mod.rs"),
            format!("{folder}/lib.rs"),
            format!("{folder}/main.rs"),
        ];
        let declared = parents.iter().filter_map(|p| all.get(p)).any(|text| {
            text.lines()
                .map(|l| l.trim().trim_end_matches(';'))
                .any(|l| l.rsplit_once("mod ").is_some_and(|(_, m)| m == name))
        });
        if !declared && !file.contains("/src/bin/") {
            orphans.push(file);
        }
    }
    assert!(orphans.is_empty(), "no module declares {orphans:?}");
}

/// The modules of each crate, from the bottom to the top: each imports only from those before it. Those of one line do not know each
/// other.
const LAYERS: &[(&str, &[&str])] = &[
    (
        "oa-core",
        &[
            "base", "model", "pg", "schedule", "journal", "service", "app",
        ],
    ),
    (
        "oa-alert",
        &[
            "pace render",
            "channels",
            "deliver check",
            "listen",
            "commands",
        ],
    ),
    (
        "oa-crawl",
        &[
            "dates progress",
            "source",
            "extract",
            "fetch program",
            "answer_day",
            "archive validate",
            "collect latest store",
            "content",
            "verdict",
            "collector",
            "commands",
        ],
    ),
    (
        "oa-migrate",
        &[
            "errors progress roles values workers",
            "inspect",
            "plan",
            "load",
            "proof",
            "runs sync transfer",
            "commands",
        ],
    ),
];

/// The modules that code names after `crate::`, also within braces.
fn imported(line: &str) -> Vec<&str> {
    fn first_word(text: &str) -> &str {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let text = text.trim_start();
        text.split(|c| !is_word(c)).next().unwrap_or_default()
    }
    line.split("crate::")
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
fn modules_import_only_from_the_layers_before_theirs() {
    let mut wrong = Vec::new();
    let sources = files("src");
    for (name, layers) in LAYERS {
        let layer = |module: &str| {
            let of = |line: &str| line.split(' ').any(|m| m == module);
            layers.iter().position(|line| of(line))
        };
        let src = format!("crates/{name}/src/");
        let mut seen = 0;
        for (file, text) in &sources {
            let Some(inside) = file.strip_prefix(&src) else {
                continue;
            };
            let own = inside.split('/').next().unwrap().trim_end_matches(".rs");
            // What is fuzzed is anything.
            if ["main", "lib", "fuzz"].contains(&own) {
                continue;
            }
            let Some(place) = layer(own) else {
                wrong.push(format!("{file} belongs to no layer"));
                continue;
            };
            let joined: String = text
                .lines()
                .filter(|line| !line.trim_start().starts_with("//"))
                .collect::<Vec<_>>()
                .join(" ");
            for module in imported(&joined) {
                seen += 1;
                if module != own && layer(module).is_some_and(|other| other >= place) {
                    wrong.push(format!("{file} imports {module}"));
                }
            }
        }
        assert!(seen > 5, "only {seen} imports were found in {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn programs_never_import_each_other() {
    const LIBRARIES: &[&str] = &["oa-core", "oa-wording", "oa-repository"];
    let root = oa_testkit::workspace_root();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root.join("crates")).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        let manifest = fs::read_to_string(entry.path().join("Cargo.toml")).unwrap();
        let mut section = "";
        for line in manifest.lines() {
            if line.starts_with('[') {
                section = line;
            }
            let Some(used) = line
                .split(['.', ' ', '='])
                .next()
                .filter(|u| u.starts_with("oa-"))
            else {
                continue;
            };
            let test_only =
                section == "[dev-dependencies]" && matches!(used, "oa-testkit" | "oa-sim");
            if section.contains("dependencies") && !LIBRARIES.contains(&used) && !test_only {
                wrong.push(format!("{name} {section} {used}"));
            }
        }
    }
    assert!(wrong.is_empty(), "wrong arrows: {wrong:?}");
}

/// A claim whose test was renamed or removed would be a lie.
#[test]
fn the_pages_on_security_and_scale_name_tests_that_exist() {
    let root = oa_testkit::workspace_root();
    let sources = files("src").into_iter().chain(files("tests"));
    let all: String = sources.map(|(_, text)| text).collect();
    let mut missing = Vec::new();
    let mut named = 0;
    for page in ["docs/security.md", "docs/scale-out.md"] {
        let text = fs::read_to_string(root.join(page)).unwrap();
        for name in text.split('`').skip(1).step_by(2) {
            let is_test = name.len() > 30
                && name
                    .chars()
                    .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
            if is_test {
                named += 1;
                if !all.contains(&format!("fn {name}(")) {
                    missing.push(format!("{page}: {name}"));
                }
            }
        }
    }
    assert!(named > 40, "{named}");
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn tests_need_no_other_features_than_the_programs() {
    // Else CI builds the crate, and all that use it, once for the programs and once more for the tests.
    let root = oa_testkit::workspace_root();
    let mut wrong = Vec::new();
    for entry in fs::read_dir(root.join("crates")).unwrap().flatten() {
        let manifest = entry.path().join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let (_, own) = text.split_once("[dev-dependencies]").unwrap_or_default();
        let lines = own.lines().filter(|l| l.contains("features"));
        wrong.extend(lines.map(|l| format!("{}: {l}", manifest.display())));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn examples_in_comments_are_no_tests() {
    // scripts/test does not run such tests, since there are none. What is shown is in a language that is named.
    const SHOWN: &[&str] = &["text", "toml", "json", "sh", "sql"];
    let mut wrong = Vec::new();
    for (file, text) in files("src") {
        let (mut within, mut after_blank) = (false, false);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_start();
            let Some(said) = ["//!", "///"].iter().find_map(|p| line.strip_prefix(p)) else {
                (within, after_blank) = (false, true);
                continue;
            };
            let fence = said.trim_start().strip_prefix("```");
            let is_code = match fence {
                Some(language) if !within => !SHOWN.contains(&language.trim()),
                Some(_) => false,
                // Markdown takes what is indented for code, too.
                None => !within && after_blank && said.starts_with("     "),
            };
            if is_code {
                wrong.push(format!("{file}:{}: {line}", number + 1));
            }
            within ^= fence.is_some();
            after_blank = said.trim().is_empty();
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_of_tests_is_run() {
    // Where the tests of a crate are one binary, cargo does not look for further files.
    const ALONE: &[&str] = &["crates/oa-core/tests/supervise.rs"];
    let all: BTreeMap<String, String> = files("tests").into_iter().collect();
    let (mut seen, mut wrong) = (0, Vec::new());
    for file in all.keys().filter(|file| !ALONE.contains(&file.as_str())) {
        let (folder, name) = file.rsplit_once('/').unwrap();
        let root = format!("{folder}/all.rs");
        let Some(text) = all.get(&root).filter(|_| *file != root) else {
            continue;
        };
        seen += 1;
        let declared = format!("mod {};", name.trim_end_matches(".rs"));
        if !text.lines().any(|line| line == declared) {
            wrong.push(format!("{file}: {root} does not say {declared}"));
        }
    }
    assert!(seen > 90, "{seen}");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_file_is_longer_than_700_lines() {
    const MOST: usize = 700;
    let all = files("src").into_iter().chain(files("tests"));
    let long: Vec<String> = all
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > MOST)
        .map(|(file, lines)| format!("{file}: {lines}"))
        .collect();
    assert!(long.is_empty(), "split by what each part means: {long:#?}");
}

/// The names in backticks.
fn named(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn the_page_on_architecture_has_the_arrows_of_the_code() {
    let root = oa_testkit::workspace_root();
    let page = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let rows = || page.lines().filter_map(|line| line.strip_prefix("| `"));
    let mut crates = BTreeSet::new();
    for row in rows().filter(|row| row.starts_with("oa-")) {
        let row = format!("`{row}");
        let [of, _, imports] = row.splitn(3, " | ").collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        for name in named(of) {
            let manifest = root.join(format!("crates/{name}/Cargo.toml"));
            let manifest = fs::read_to_string(manifest).unwrap();
            let (_, own) = manifest.split_once("[dependencies]").unwrap();
            let used: BTreeSet<&str> = own
                .lines()
                .take_while(|line| !line.starts_with('['))
                .filter_map(|line| line.split(['.', ' ', '=']).next())
                .filter(|used| used.starts_with("oa-"))
                .collect();
            assert_eq!(used, named(imports).into_iter().collect(), "{name}");
            crates.insert(name.to_owned());
        }
    }
    let there = fs::read_dir(root.join("crates")).unwrap().flatten();
    let there = there.map(|entry| entry.file_name().into_string().unwrap());
    assert_eq!(crates, there.collect());
    let layers: Vec<&str> = rows()
        .filter(|row| !row.starts_with("oa-"))
        .filter_map(|row| row.split('`').next())
        .collect();
    let (_, core) = LAYERS.iter().find(|(name, _)| *name == "oa-core").unwrap();
    assert_eq!(layers, *core);
}
