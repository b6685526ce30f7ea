//! Who starts the programs: the lines of a crontab, or systemd's timers. Whether they really fire is in the database (`server`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use oa_core::app::config::Config;
use oa_core::base::trust::{self, account, quoted};
use rustix::fs::Access;
use rustix::process::geteuid;

use super::{Findings, State};

const PACKAGED: &str = "/etc/cron.d/oa";

/// What has to be started by somebody: the command, its timer, and whether anything else can stand in.
const NEEDED: [(&str, &str, State); 7] = [
    ("oa-alert check", "oa-check.timer", State::Error),
    ("oa-crawl run", "oa-crawl.timer", State::Error),
    ("oa-report daily", "oa-daily.timer", State::Warning),
    ("oa-backup full", "oa-backup-full.timer", State::Error),
    ("oa-backup prune", "oa-backup-prune.timer", State::Warning),
    ("oa-backup verify", "oa-backup-verify.timer", State::Warning),
    ("oa-restore drill", "oa-restore-drill.timer", State::Warning),
];

/// Lines of a crontab, and the variables that stand before them.
#[derive(Debug, Default)]
struct Crontab {
    variables: HashMap<String, String>,
    commands: Vec<String>,
}

impl Crontab {
    fn parse(text: &str) -> Self {
        let mut found = Self::default();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
            match line.split_once('=') {
                Some((key, value)) if key.trim().chars().all(name) => {
                    let value = value.trim().trim_matches(['"', '\'']);
                    found
                        .variables
                        .insert(key.trim().to_owned(), value.to_owned());
                }
                _ => found.commands.push(line.to_owned()),
            }
        }
        found
    }

    fn starts(&self, command: &str) -> bool {
        self.commands.iter().any(|line| line.contains(command))
    }

    /// The files to which lines that start our programs append.
    fn logs(&self) -> Vec<PathBuf> {
        let ours = self.commands.iter().filter(|line| line.contains("oa-"));
        let mut logs: Vec<PathBuf> = ours
            .filter_map(|line| {
                line.split('>')
                    .skip(1)
                    .find(|part| part.trim().starts_with('/'))
            })
            .filter_map(|part| part.split_whitespace().next())
            .map(PathBuf::from)
            .collect();
        logs.sort();
        logs.dedup();
        logs
    }
}

pub(super) fn look(config: &Config, named: Option<&Path>, findings: &mut Findings) {
    let check = "schedule";
    let texts = match named {
        Some(path) => match trust::read_named_text(path, trust::LARGEST) {
            Ok(text) => vec![text],
            Err(e) => {
                let detail = format!("could not read {}: {e}", path.display());
                return findings.error(check, detail, format!("ls -l {}", quoted(path)));
            }
        },
        None => [own_crontab(), std::fs::read_to_string(PACKAGED).ok()]
            .into_iter()
            .flatten()
            .collect(),
    };
    let crontabs: Vec<Crontab> = texts.iter().map(|text| Crontab::parse(text)).collect();
    let timers = match named {
        Some(_) => Vec::new(),
        None => enabled_timers(),
    };
    let install = install();
    for (command, timer, state) in NEEDED {
        let of_backups = command.starts_with("oa-backup") || command.starts_with("oa-restore");
        if of_backups && config.backup.is_none() {
            continue;
        }
        let by_cron = crontabs.iter().filter(|c| c.starts(command)).count();
        let by_timer = usize::from(timers.iter().any(|t| t == timer));
        match by_cron + by_timer {
            0 => findings.push(
                check,
                state,
                &format!("nothing starts {command}: no line of a crontab, no timer"),
                Some(&install),
            ),
            1 => {}
            n => findings.warn(
                check,
                format!(
                    "{command} is started by {n} schedules at once: crontab, {PACKAGED}, systemd"
                ),
                match by_timer {
                    0 => "sudo rm /etc/cron.d/oa".to_owned(),
                    _ => format!("sudo systemctl disable --now {timer}"),
                },
            ),
        }
    }
    for crontab in &crontabs {
        lines(config, crontab, findings);
    }
    if !findings.lines.iter().any(|line| line.check == check) {
        findings.ok(check, "everything has a line or a timer");
    }
}

/// What makes a schedule: the program of a package, or the example of the source.
fn install() -> String {
    let me = std::env::current_exe().unwrap_or_default();
    let setup = me.ancestors().nth(2).map(|p| p.join("sbin/oa-setup"));
    let kind = match Path::new("/run/systemd/system").exists() {
        true => "systemd",
        false => "cron",
    };
    match setup.is_some_and(|setup| setup.exists()) {
        true => format!("sudo oa-setup --timers {kind}"),
        false => format!(
            "sudo crontab -u {} crontab.example",
            account(geteuid().as_raw())
        ),
    }
}

/// What would keep cron's shell from starting anything, in silence.
fn lines(config: &Config, crontab: &Crontab, findings: &mut Findings) {
    let me = account(geteuid().as_raw());
    for log in crontab.logs() {
        let folder = log.parent().unwrap_or(Path::new("/"));
        if !folder.is_dir() {
            findings.error(
                "log folder",
                format!(
                    "{} does not exist: cron's shell cannot open the log and starts no program, and nobody hears of it",
                    folder.display()
                ),
                format!("sudo install -d -m 750 -o {me} {}", quoted(folder)),
            );
            return;
        }
        let place = if log.exists() { log.as_path() } else { folder };
        if rustix::fs::access(place, Access::WRITE_OK).is_err() {
            findings.error(
                "log folder",
                format!(
                    "{me} may not write to {}: cron's shell starts no program",
                    place.display()
                ),
                format!("sudo chown {me} {}", quoted(place)),
            );
            return;
        }
    }
    if !crontab.logs().is_empty() {
        findings.ok("log folder", "writable");
    }
    // Where the crontab names none, cron's own is /usr/bin:/bin.
    let path = crontab
        .variables
        .get("PATH")
        .map_or("/usr/bin:/bin", String::as_str);
    let found = path
        .split(':')
        .any(|p| Path::new(p).join("oa-crawl").is_file());
    if crontab.starts(" oa-crawl") && !found {
        findings.error(
            "schedule",
            format!("cron finds no oa-crawl in its PATH, {path}"),
            format!("crontab -e   # PATH={}:/usr/bin:/bin", own_folder()),
        );
    }
    if let Some(named) = crontab.variables.get("OA_CONFIG") {
        let same = |a: &Path, b: &Path| match (a.canonicalize(), b.canonicalize()) {
            (Ok(a), Ok(b)) => a == b,
            _ => a == b,
        };
        if !same(Path::new(named), &config.path) {
            findings.warn(
                "schedule",
                format!(
                    "cron's programs read {named}, this one {}",
                    config.path.display()
                ),
                format!("crontab -e   # OA_CONFIG={}", config.path.display()),
            );
        }
    }
}

fn own_folder() -> String {
    let me = std::env::current_exe().unwrap_or_default();
    me.parent()
        .unwrap_or(Path::new("/usr/local/bin"))
        .display()
        .to_string()
}

/// The crontab of the account that this runs as.
fn own_crontab() -> Option<String> {
    let done = Command::new("crontab").arg("-l").output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    done.status.success().then_some(text)
}

/// Timers that start with the machine, where systemd runs it.
fn enabled_timers() -> Vec<String> {
    if !Path::new("/run/systemd/system").exists() {
        return Vec::new();
    }
    let done = Command::new("systemctl")
        .args([
            "list-unit-files",
            "oa-*.timer",
            "--state=enabled",
            "--plain",
            "--no-legend",
        ])
        .output();
    let text = done.map_or_else(|_| Vec::new(), |done| done.stdout);
    String::from_utf8_lossy(&text)
        .lines()
        .filter_map(|line| line.split_whitespace().next().map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_logs_and_variables_of_a_crontab_are_read() {
        let text = "# note\nPATH=/opt/oa/bin:/bin\n* * * * * oa-crawl run --due >>/var/log/oa/crawl.log 2>&1\n\
                    @reboot oa-report serve -q >> /var/log/oa/report.log 2>&1\n0 1 * * * backup >>/tmp/other.log\n";
        let crontab = Crontab::parse(text);
        assert_eq!(crontab.variables["PATH"], "/opt/oa/bin:/bin");
        assert!(crontab.starts("oa-crawl run") && !crontab.starts("oa-alert check"));
        let logs = ["/var/log/oa/crawl.log", "/var/log/oa/report.log"];
        assert_eq!(crontab.logs(), logs.map(PathBuf::from));
    }
}
