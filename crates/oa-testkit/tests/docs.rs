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
    let mut pages: Vec<PathBuf> = ["README.md", "README.zh-CN.md", "CHANGELOG.md"]
        .iter()
        .map(|p| root.join(p))
        .collect();
    for folder in ["docs", "docs/adr"] {
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
        if !line.starts_with('#') {
            look(&crontab, line, &mut wrong);
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
