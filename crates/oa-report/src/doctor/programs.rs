//! What the other programs know of their own settings: asked of them, as processes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use oa_core::app::config::Config;
use oa_core::app::{exit, sibling};
use oa_core::base::trust::quoted;
use rustix::process::geteuid;
use serde_json::Value;

use super::{Findings, State, edit};

pub(super) const PROGRAMS: [&str; 6] = [
    "oa-migrate",
    "oa-crawl",
    "oa-alert",
    "oa-backup",
    "oa-restore",
    "oa-report",
];
/// Opening a large repository takes its time.
const LIMIT: Duration = Duration::from_secs(300);

/// All six are there, and of one version.
pub(super) fn installed(findings: &mut Findings) {
    const VERSION: &str = env!("CARGO_PKG_VERSION");
    let mut wrong = Vec::new();
    for program in PROGRAMS {
        let Some(path) = sibling::find(program) else {
            wrong.push(format!("{program} is not installed beside oa-report"));
            continue;
        };
        let said = Command::new(&path).arg("--version").output();
        let said = said.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
        match said {
            Ok(said) if said.rsplit(' ').next() == Some(VERSION) => {}
            Ok(said) => wrong.push(format!(
                "{} says \"{said}\", and oa-report is {VERSION}",
                path.display()
            )),
            Err(e) => wrong.push(format!("{} does not start: {e}", path.display())),
        }
    }
    match wrong.is_empty() {
        true => findings.ok("programs", format!("all six are version {VERSION}")),
        false => findings.error(
            "programs",
            wrong.join("; "),
            match Path::new("/usr/share/oa").is_dir() {
                true => "sudo apt-get install --reinstall oa",
                false => "sudo scripts/install",
            },
        ),
    }
}

/// A second installation on this machine: which of the two is started depends on who starts it.
pub(super) fn others(findings: &mut Findings) {
    let Some(own) = std::env::current_exe()
        .ok()
        .and_then(|me| me.canonicalize().ok())
    else {
        return;
    };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/bin", "/usr/bin"].map(PathBuf::from);
    let mut found: Vec<PathBuf> = std::env::split_paths(&path)
        .chain(usual)
        .filter_map(|folder| folder.join("oa-report").canonicalize().ok())
        .filter(|other| *other != own)
        .collect();
    found.sort();
    found.dedup();
    for other in found {
        let prefix = other.ancestors().nth(2).unwrap_or(Path::new("/usr/local"));
        findings.warn(
            "programs",
            format!(
                "there is a second installation: {}, and this is {}",
                other.display(),
                own.display()
            ),
            match prefix == Path::new("/usr") {
                true => "sudo apt-get remove oa".to_owned(),
                false => format!(
                    "sudo scripts/install --uninstall --prefix {}",
                    quoted(prefix)
                ),
            },
        );
    }
}

/// What runs all the time goes on with its old program after an upgrade, until it is started again.
pub(super) fn outdated(findings: &mut Findings) {
    const LASTING: [(&str, &str); 3] = [
        ("serve", "oa-report.service"),
        ("stream", "oa-backup-stream.service"),
        ("listen", "oa-alert-listen.service"),
    ];
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = process.file_name().to_string_lossy().into_owned();
        let is_ours = process
            .metadata()
            .is_ok_and(|m| m.uid() == geteuid().as_raw());
        let Some(running) = is_ours
            .then(|| fs::read_link(process.path().join("exe")).ok())
            .flatten()
        else {
            continue;
        };
        let running = running.to_string_lossy().into_owned();
        let Some(path) = running.strip_suffix(" (deleted)").map(Path::new) else {
            continue;
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let said = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let said = String::from_utf8_lossy(&said).into_owned();
        let words: Vec<&str> = said.split('\0').skip(1).filter(|w| !w.is_empty()).collect();
        let lasting = LASTING.iter().find(|(word, _)| words.contains(word));
        let Some((word, unit)) = lasting.filter(|_| PROGRAMS.contains(&&*name)) else {
            continue;
        };
        let words: Vec<String> = words.iter().map(|word| quoted(Path::new(word))).collect();
        let mend = match Path::new("/run/systemd/system").exists() {
            true => format!("sudo systemctl restart {unit}"),
            false => format!(
                "kill {id}; nohup {} {} >/dev/null 2>&1 &",
                quoted(path),
                words.join(" ")
            ),
        };
        findings.warn(
            "programs",
            format!(
                "{name} {word} (process {id}) was started before the upgrade and is the old version"
            ),
            mend,
        );
    }
}

/// What a program prints as JSON lines; what it ended with, and its words, when it prints none.
fn ask(
    program: &str,
    config: &Config,
    arguments: &[&str],
) -> Result<Vec<Value>, (Option<i32>, String)> {
    let done =
        sibling::run(program, config, arguments, LIMIT).map_err(|e| (None, e.to_string()))?;
    let rows: Vec<Value> = String::from_utf8_lossy(&done.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    if rows.is_empty() && !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr);
        let said = said.lines().last().unwrap_or("it says nothing").to_owned();
        return Err((done.status.code(), said));
    }
    Ok(rows)
}

fn text(row: &Value, key: &str) -> String {
    row[key].as_str().unwrap_or_default().to_owned()
}

fn state(row: &Value) -> State {
    match row["state"].as_str() {
        Some("ok") => State::Ok,
        Some("warning") => State::Warning,
        _ => State::Error,
    }
}

/// Whether alerts could leave (`oa-alert check-config`), and whether anybody outside notices when this machine is off.
pub(super) fn channels(config: &Config, findings: &mut Findings) {
    let mend = edit(&config.path);
    match ask("oa-alert", config, &["check-config", "--format", "json"]) {
        Ok(rows) => {
            // What is said of secrets in general is said already.
            for row in rows.iter().filter(|row| row["setting"] != "secrets") {
                let (setting, detail) = (text(row, "setting"), text(row, "detail"));
                findings.push(&setting, state(row), &detail, Some(&mend));
            }
        }
        Err((_, said)) => findings.error("channels", said, "oa-alert check-config"),
    }
    if config.alert.heartbeat_url.is_none() {
        findings.warn(
            "heartbeat_url",
            "nobody outside notices when this machine is off; see docs/alerts.md",
            mend,
        );
    }
}

/// What `oa-backup doctor` finds.
pub(super) fn repository(config: &Config, findings: &mut Findings) {
    let check = "backup";
    if config.backup.is_none() {
        return findings.error(
            check,
            "there is no [backup] in the configuration: nothing is backed up",
            edit(&config.path),
        );
    }
    match ask("oa-backup", config, &["doctor", "--format", "json"]) {
        Ok(rows) if rows.is_empty() => findings.ok(check, "nothing is wrong with the backups"),
        Ok(rows) => {
            for row in &rows {
                let command = row["command"].as_str().unwrap_or("oa-backup doctor");
                findings.push(check, State::Error, &text(row, "what"), Some(command));
            }
        }
        Err((code, said)) => {
            let command = match code {
                Some(code) if code == i32::from(exit::CONFIG) => edit(&config.path),
                _ => "oa-backup doctor".to_owned(),
            };
            findings.error(check, said, command);
        }
    }
}

/// What `oa-crawl check` finds of sources, secrets, browser, network, calendar, tables and `[exec]`.
pub(super) fn sources(config: &Config, findings: &mut Findings) {
    // Looked at here, and said already.
    const KNOWN: [&str; 3] = ["configuration", "state_dir", "database"];
    match ask("oa-crawl", config, &["check", "--format", "json"]) {
        Ok(rows) => {
            let mend = edit(&config.path);
            for row in rows.iter().filter(|row| {
                let check = row["check"].as_str().unwrap_or_default();
                !KNOWN.contains(&check)
            }) {
                let command = row["command"].as_str().unwrap_or(&mend);
                let (check, detail) = (text(row, "check"), text(row, "detail"));
                findings.push(&check, state(row), &detail, Some(command));
            }
        }
        Err((_, said)) => findings.error("sources", said, "oa-crawl check"),
    }
}
