//! The docs' examples: every command line in the pages, in `crontab.example` and in `--help` is one that the programs take, and every
//! link leads somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PROGRAMS: [&str; 6] = [
    "oa-migrate",
    "oa-crawl",
    "oa-alert",
    "oa-backup",
    "oa-restore",
    "oa-report",
];

fn pages() -> Vec<PathBuf> {
    let root = oa_testkit::workspace_root();
    let top = ["README.md", "README.zh-CN.md", "CHANGELOG.md"];
    let mut pages: Vec<PathBuf> = top.iter().map(|p| root.join(p)).collect();
    for folder in ["docs", "docs/adr", "docs/zh"] {
        let found = fs::read_dir(root.join(folder)).unwrap();
        pages.extend(
            found
                .map(|e| e.unwrap().path())
                .filter(|p| p.extension().is_some_and(|e| e == "md")),
        );
    }
    pages
}

/// The lines of a page's code blocks.
fn code_lines(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.lines()
        .filter(|line| {
            if line.starts_with("```") {
                inside = !inside;
                return false;
            }
            inside
        })
        .collect()
}

/// Programs with their arguments, out of a line of shell.
fn commands(line: &str) -> Vec<(&'static str, Vec<String>)> {
    let line = line.split(" #").next().unwrap_or_default();
    let line = line.split(" >>").next().unwrap_or_default();
    let mut found = Vec::new();
    for part in line.split(['|', ';', '(', ')']).flat_map(|p| p.split("&&")) {
        // A wrapped program's own arguments come after `--`.
        let part = part.split(" -- ").next().unwrap_or_default();
        let mut words = part.split_whitespace();
        let Some(program) = words.find_map(|w| PROGRAMS.iter().copied().find(|p| *p == w)) else {
            continue;
        };
        found.push((program, words.map(str::to_owned).collect()));
    }
    found
}

struct Helps(BTreeMap<String, Option<String>>);

impl Helps {
    fn of(&mut self, program: &str, subcommand: &str) -> Option<&str> {
        self.0
            .entry(format!("{program} {subcommand}"))
            .or_insert_with(|| {
                let mut command = Command::new(oa_testkit::program(program));
                if !subcommand.is_empty() {
                    command.arg(subcommand);
                }
                let done = command.arg("--help").output().unwrap();
                done.status
                    .success()
                    .then(|| String::from_utf8(done.stdout).unwrap())
            })
            .as_deref()
    }

    /// Why a command line is not one that the program takes.
    fn refuse(&mut self, program: &str, arguments: &[String]) -> Option<String> {
        let subcommand = arguments
            .first()
            .filter(|a| a.starts_with(|c: char| c.is_ascii_lowercase()))
            .map_or("", String::as_str);
        let Some(help) = self.of(program, subcommand) else {
            return Some(format!("{program} has no command {subcommand}"));
        };
        // `Usage: oa-restore table [OPTIONS] --to <TARGET> <NAME>...`; a line of shell that goes on is not seen as a whole.
        let usage = help.lines().find_map(|l| l.strip_prefix("Usage: "));
        let required = usage
            .unwrap_or_default()
            .split_whitespace()
            .filter(|w| w.len() > 2 && w.starts_with("--"));
        let given = |flag: &str| arguments.iter().any(|a| a.split('=').next() == Some(flag));
        let goes_on = arguments.last().is_none_or(|a| a == "\\");
        if let Some(flag) = required.filter(|_| !goes_on).find(|flag| !given(flag)) {
            return Some(format!("{program} {subcommand} needs {flag}"));
        }
        arguments
            .iter()
            .filter_map(|a| a.strip_prefix("--"))
            .map(|a| a.split('=').next().unwrap_or(a))
            .find(|flag| !flag.is_empty() && !help.contains(&format!("--{flag}")))
            .map(|flag| format!("{program} {subcommand} has no --{flag}"))
    }
}

#[test]
fn every_command_in_the_pages_is_one_that_the_programs_take() {
    let root = oa_testkit::workspace_root();
    let mut helps = Helps(BTreeMap::new());
    let mut wrong = Vec::new();
    let mut seen = 0;
    let mut look = |place: &Path, line: &str, wrong: &mut Vec<String>| {
        for (program, arguments) in commands(line) {
            seen += 1;
            if let Some(reason) = helps.refuse(program, &arguments) {
                wrong.push(format!("{}: {line}: {reason}", place.display()));
            }
        }
    };
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for line in code_lines(&text) {
            look(&page, line, &mut wrong);
        }
    }
    let crontab = root.join("crontab.example");
    for line in fs::read_to_string(&crontab).unwrap().lines() {
        // A line that is switched off is one that somebody will switch on.
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '*' | '@')) {
            look(&crontab, line, &mut wrong);
        }
    }
    let timers = root.join("scripts/packaging/timers");
    for line in fs::read_to_string(&timers).unwrap().lines() {
        look(&timers, line, &mut wrong);
    }
    // What is said around them is no command.
    let rules = root.join("scripts/monitoring/prometheus-rules.yml");
    for line in fs::read_to_string(&rules).unwrap().lines() {
        if let Some((_, remedy)) = line.split_once("remedy: ") {
            look(&rules, remedy.trim_matches('"'), &mut wrong);
        }
    }
    for program in PROGRAMS {
        let all = Command::new(oa_testkit::program(program))
            .arg("--help")
            .output()
            .unwrap();
        let all = String::from_utf8(all.stdout).unwrap();
        let list = all.lines().skip_while(|l| *l != "Commands:").skip(1);
        for name in list
            .take_while(|l| !l.is_empty())
            .filter_map(|l| l.split_whitespace().next())
        {
            let help = Command::new(oa_testkit::program(program))
                .args([name, "--help"])
                .output()
                .unwrap();
            for line in String::from_utf8(help.stdout).unwrap().lines() {
                if line.starts_with("  oa-") {
                    look(Path::new(program), line, &mut wrong);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 40, "only {seen} command lines were found");
}

#[test]
fn every_link_in_the_pages_leads_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let text = fs::read_to_string(&page).unwrap();
        for piece in text.split("](").skip(1) {
            let target = piece.split([')', '#']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            if !page.parent().unwrap().join(target).exists() {
                wrong.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_page_is_in_the_contents() {
    let docs = oa_testkit::workspace_root().join("docs");
    let contents = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    for page in pages() {
        let Ok(name) = page.strip_prefix(&docs) else {
            continue;
        };
        let name = name.to_string_lossy().into_owned();
        // Code hosts show the second one by its name.
        if !["SUMMARY.md", "SECURITY.md"].contains(&name.as_str()) {
            assert!(contents.contains(&format!("]({name})")), "{name}");
        }
    }
}

/// The texts of errors in a source file, as `#[error("…")]` gives them, with `…` for what is filled in.
fn messages(source: &str) -> Vec<String> {
    let mut found = Vec::new();
    for piece in source.split("#[error(").skip(1) {
        let Some(piece) = piece.trim_start().strip_prefix('"') else {
            continue;
        };
        let (mut text, mut placeholder, mut chars) = (String::new(), false, piece.chars());
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    // A line that goes on.
                    Some('\n') => {
                        let rest = chars.as_str().trim_start();
                        chars = rest.chars();
                    }
                    Some(c) => text.push(c),
                    None => break,
                },
                '{' => placeholder = true,
                '}' if placeholder => {
                    placeholder = false;
                    text.push('…');
                }
                c if !placeholder => text.push(c),
                _ => {}
            }
        }
        // What is nothing but others' words has no row.
        if text.chars().any(char::is_alphanumeric) {
            found.push(text);
        }
    }
    found
}

/// Every message, with the program or library that it comes from.
fn all_messages() -> BTreeMap<String, String> {
    fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => walk(&path, found),
                false => found.push(path),
            }
        }
    }
    let crates = oa_testkit::workspace_root().join("crates");
    let mut all = BTreeMap::new();
    for name in PROGRAMS
        .iter()
        .chain(&["oa-core", "oa-repository", "oa-wording"])
    {
        let mut files = Vec::new();
        walk(&crates.join(name).join("src"), &mut files);
        for file in files {
            for message in messages(&fs::read_to_string(file).unwrap()) {
                all.entry(message).or_insert_with(|| (*name).to_owned());
            }
        }
    }
    all
}

/// The way out is in most messages themselves, after the last semicolon.
fn own_advice(message: &str) -> String {
    let advice = message
        .rsplit_once("; ")
        .map_or(message, |(_, advice)| advice);
    let mut letters = advice.chars();
    let first = letters.next().map(|c| c.to_uppercase().to_string());
    format!("{}{}.", first.unwrap_or_default(), letters.as_str())
}

#[test]
fn every_error_message_of_the_programs_is_in_the_troubleshooting_page() {
    let page = oa_testkit::workspace_root().join("docs/troubleshooting.md");
    let text = fs::read_to_string(&page).unwrap();
    let head = "| message | from | way out |\n|---|---|---|\n";
    let (before, table) = text.split_once(head).unwrap();
    let mut rows = BTreeMap::new();
    for row in table.lines() {
        let (message, rest) = row.strip_prefix("| `").unwrap().split_once("` | ").unwrap();
        rows.insert(message.replace("\\|", "|"), rest.to_owned());
    }
    let all = all_messages();
    assert!(all.len() > 50, "only {} messages were found", all.len());
    if std::env::var_os("OA_UPDATE_DOCS").is_some() {
        let mut sorted: Vec<_> = all.iter().collect();
        sorted.sort_by_key(|(message, from)| (*from, *message));
        let mut new = format!("{before}{head}");
        for (message, from) in sorted {
            let rest = rows.remove(message);
            let rest = rest.unwrap_or_else(|| format!("{from} | {} |", own_advice(message)));
            new.push_str(&format!("| `{}` | {rest}\n", message.replace('|', "\\|")));
        }
        fs::write(&page, new).unwrap();
        return;
    }
    let absent: Vec<&String> = all.keys().filter(|m| !rows.contains_key(*m)).collect();
    let gone: Vec<&String> = rows.keys().filter(|m| !all.contains_key(*m)).collect();
    assert!(
        absent.is_empty() && gone.is_empty(),
        "run OA_UPDATE_DOCS=1 cargo nextest run --workspace --test docs; not in {}: {absent:#?}; there, and in no program: {gone:#?}",
        page.display()
    );
}

#[test]
fn every_kind_of_error_and_every_exit_code_is_in_the_troubleshooting_page() {
    let root = oa_testkit::workspace_root();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let page = read("docs/troubleshooting.md");
    let kinds = read("crates/oa-core/src/model/retry.rs");
    let kinds = kinds.split("pub fn as_str").nth(1).unwrap();
    let kinds = kinds.split("pub fn ").next().unwrap();
    let names: Vec<&str> = kinds
        .split("=> \"")
        .skip(1)
        .filter_map(|k| k.split('"').next())
        .collect();
    assert!(names.len() > 10, "{names:?}");
    for name in names {
        assert!(page.contains(&format!("| `{name}` |")), "{name}");
    }
    let retry = read("crates/oa-core/src/model/retry.rs");
    let retried = retry.split("pub fn is_transient").nth(1).unwrap();
    let retried = retried.split("=> true").next().unwrap();
    assert_eq!(retried.matches("Self::").count(), 10);
    assert!(page.contains("The first ten are retried."));
    for line in read("crates/oa-core/src/app/exit.rs").lines() {
        if let Some((_, code)) = line
            .strip_prefix("pub const ")
            .and_then(|l| l.split_once(": u8 = "))
        {
            let code = code.trim_end_matches(';');
            assert!(page.contains(&format!("\n| {code} |")), "{code}");
        }
    }
}

#[test]
fn every_page_that_a_man_page_names_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for program in PROGRAMS {
        let done = Command::new(oa_testkit::program(program))
            .args(["man", "--dir"])
            .arg(folder.path())
            .status();
        assert!(done.unwrap().success(), "{program}");
    }
    let mut pages = 0;
    for entry in fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for section in ["EXIT STATUS", "FILES", "ENVIRONMENT"] {
            assert!(
                text.contains(&format!(".SH \"{section}\"")),
                "{}: {section}",
                path.display()
            );
        }
        pages += 1;
        for named in text.replace("\\-", "-").split("(1)").filter_map(|t| {
            t.rsplit(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
                .next()
        }) {
            if named.starts_with("oa-") {
                let there = folder.path().join(format!("{named}.1"));
                assert!(there.is_file(), "{} names {named}(1)", path.display());
            }
        }
    }
    assert!(pages > 60, "only {pages} pages");
}

#[test]
fn timers_start_what_the_crontab_starts() {
    let root = oa_testkit::workspace_root();
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap();
    let (timers, crontab) = (read("scripts/packaging/timers"), read("crontab.example"));
    let command = |line: &str| {
        let command = line[line.find("oa-").unwrap()..].split(" >>").next();
        command.unwrap().to_owned()
    };
    let starts = |optional: bool| -> Vec<String> {
        let lines = timers.lines().filter(|l| !l.starts_with('#'));
        lines
            .filter(|l| l.starts_with('[') == optional)
            .map(|l| l.rsplit('|').next().unwrap().trim().to_owned())
            .collect()
    };
    let on = crontab
        .lines()
        .filter(|l| l.contains(" oa-") && !l.starts_with(['#', '@']));
    assert_eq!(starts(false), on.map(command).collect::<Vec<_>>());
    // The secondary repository's are there, and off.
    let off = crontab
        .lines()
        .filter_map(|l| l.strip_prefix("# "))
        .filter(|l| l.starts_with(|c: char| c.is_ascii_digit()) && l.contains(" oa-backup "));
    assert_eq!(starts(true), off.map(command).collect::<Vec<_>>());
    // What starts with the machine is a service.
    let layout = read("scripts/packaging/layout.sh");
    for line in crontab.lines() {
        let line = line.strip_prefix("# ").unwrap_or(line);
        if line.starts_with("@reboot") {
            let start = format!("ExecStart=%s/{}\\n", command(line));
            assert!(layout.contains(&start), "{start}");
        }
    }
}

#[test]
fn rules_for_prometheus_name_metrics_that_there_are() {
    let root = oa_testkit::workspace_root();
    let rules = fs::read_to_string(root.join("scripts/monitoring/prometheus-rules.yml")).unwrap();
    let metrics = fs::read_to_string(root.join("crates/oa-report/src/metrics.rs")).unwrap();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut seen = 0;
    for line in rules.lines().filter(|l| l.contains("expr:")) {
        for name in line.split(|c| !is_name(c)).filter(|w| w.starts_with("oa_")) {
            seen += 1;
            assert!(metrics.contains(&format!("\"{name}\"")), "{name}");
        }
    }
    assert!(seen > 5, "only {seen} metrics are named");
}

#[test]
fn benchmarks_of_different_days_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let scripts = oa_testkit::workspace_root().join("scripts");
    let bench = |commit: &str, parts: &[&str]| {
        let mut command = Command::new(scripts.join("bench"));
        command.args(["--commit", commit, "--only"]).args(parts);
        command.arg("--from").arg(folder.path());
        command.arg("--out").arg(at("page.md"));
        let done = command.arg("--keep").arg(at("keep")).output().unwrap();
        (
            done.status.code(),
            fs::read_to_string(at("page.md")).unwrap(),
        )
    };
    fs::write(at("alert.md"), "| check | 7 |\n").unwrap();
    fs::write(at("crawl.md"), "| small | 28 |\n").unwrap();
    let (code, page) = bench("first", &["alert", "crawl"]);
    assert_eq!(code, Some(0));
    assert!(page.find("| small | 28 |") < page.find("| check | 7 |"));

    fs::write(at("crawl.md"), "| small | 19 |\n").unwrap();
    let (code, page) = bench("second", &["crawl"]);
    assert_eq!(code, Some(0));
    for there in [
        "at commit first",
        "| check | 7 |",
        "at commit second",
        "| small | 19 |",
    ] {
        assert!(page.contains(there), "{there}: {page}");
    }
    assert!(!page.contains("| small | 28 |"), "{page}");

    // What cannot be measured keeps what was.
    let (code, after) = bench("third", &["storm"]);
    assert_eq!((code, after), (Some(1), page));
    let kept = fs::read_to_string(at("keep/crawl.section.md")).unwrap();
    assert!(kept.contains("| small | 19 |"), "{kept}");

    let lib = scripts.join("bench_lib.py");
    let mut medians = Command::new("python3");
    medians.env("PYTHONDONTWRITEBYTECODE", "1");
    let done = medians.args(["-m", "doctest"]).arg(lib).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
}

#[test]
fn each_promise_names_tests_that_there_are() {
    let root = oa_testkit::workspace_root();
    let results = tempfile::NamedTempFile::new().unwrap();
    let one = "<testsuites timestamp=\"2026-01-02T03:04:05Z\"><testsuite name=\"oa-crawl::all\"><testcase name=\"held::a\" time=\"1\"/>\
               <testcase name=\"held::b\" time=\"2\"><flakyFailure/></testcase></testsuite></testsuites>";
    fs::write(results.path(), one).unwrap();
    let mut command = Command::new(root.join("scripts/promises"));
    let done = command.arg(results.path()).output().unwrap();
    // All other tests have no result.
    assert_eq!(done.status.code(), Some(1));
    let table = String::from_utf8(done.stdout).unwrap();
    assert!(table.contains("| 2 | 0 | 1 | 3 |"), "{table}");
    let names: Vec<(&str, &str)> = table
        .split('`')
        .filter_map(|word| word.split_once("::"))
        .collect();
    assert!(names.len() > 15, "{table}");
    for (of, name) in names {
        let test = root.join(format!("crates/{of}/tests/{name}.rs"));
        assert!(test.is_file(), "{}", test.display());
    }
}

#[test]
fn every_file_that_the_pages_name_is_there() {
    let root = oa_testkit::workspace_root();
    let is_path = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let (mut seen, mut wrong) = (0, Vec::new());
    for page in pages() {
        // What the changelog names may be gone.
        if page.ends_with("CHANGELOG.md") {
            continue;
        }
        let text = fs::read_to_string(&page).unwrap();
        for span in text.split('`').skip(1).step_by(2) {
            let path = span.split([' ', ':']).next().unwrap_or_default();
            let ours = ["crates/", "scripts/", ".ci/", ".config/", ".github/"];
            if ours.iter().any(|p| path.starts_with(p))
                && path.chars().all(is_path)
                && !path.contains("NAME")
            {
                seen += 1;
                if !root.join(path).exists() {
                    wrong.push(format!("{}: {path}", page.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(seen > 30, "only {seen} files are named");
}

#[test]
fn what_contributing_says_of_adding_something_is_where_it_says() {
    let mut command = Command::new(oa_testkit::workspace_root().join("scripts/walk"));
    let done = command.arg("--dry-run").output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

#[test]
fn kubernetes_takes_the_manifests_and_they_start_what_the_crontab_starts() {
    let root = oa_testkit::workspace_root();
    let made = Command::new(root.join("scripts/packaging/kubernetes"))
        .arg("registry.example.com/oa:1")
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let text = String::from_utf8(made.stdout).unwrap();
    let crontab = fs::read_to_string(root.join("crontab.example")).unwrap();
    let mut lines = 0;
    for line in crontab.lines() {
        let words: Vec<&str> = line
            .split(" >>")
            .next()
            .unwrap()
            .split_whitespace()
            .collect();
        let is_start = words.first() == Some(&"@reboot");
        if !is_start
            && !words
                .first()
                .is_some_and(|w| w.starts_with(|c: char| c.is_ascii_digit() || c == '*'))
        {
            continue;
        }
        lines += 1;
        let (when, command) = words.split_at(if is_start { 1 } else { 5 });
        let command = format!("command: [\"{}\"]", command.join("\", \""));
        let of = text
            .split("---\n")
            .find(|document| document.contains(&command));
        let of = of.unwrap_or_else(|| panic!("no manifest starts: {line}"));
        let starts = match is_start {
            true => "kind: Deployment\n".to_owned(),
            false => format!("schedule: \"{}\"\n", when.join(" ")),
        };
        assert!(of.contains(&starts), "{line}: {of}");
    }
    assert_eq!(text.split("---\n").count(), lines + 2, "two claims");
    let tool = root.join("target/schemathesis/bin/kubernetes-validate");
    if !tool.is_file() {
        oa_testkit::skip("kubernetes-validate", "scripts/setup --tests");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("oa.yaml");
    for (text, valid) in [
        (text.clone(), true),
        (
            text.replace("concurrencyPolicy: Forbid", "concurrency: Forbid"),
            false,
        ),
    ] {
        fs::write(&file, text).unwrap();
        let done = Command::new(&tool)
            .arg("--strict")
            .arg(&file)
            .output()
            .unwrap();
        assert_eq!(done.status.success(), valid, "{done:?}");
    }
}
