//! Who starts the programs: the lines of a crontab, or systemd's timers. Whether they really fire is in the database (`server`).

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use chrono::{Offset, TimeZone, Utc};
use chrono_tz::Tz;
use oa_core::app::config::Config;
use oa_core::base::trust::{self, account, quoted};
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::geteuid;

use super::crontab::{Crontab, Place};
use super::{Findings, State, times};

const CHECK: &str = "schedule";
const PACKAGED: &str = "/etc/cron.d/oa";

/// What has to be started by somebody: the command, its timer, and whether anything else can stand in.
const NEEDED: [(&str, &str, &str, State); 8] = [
    ("oa-alert", "check", "oa-check.timer", State::Error),
    ("oa-crawl", "run", "oa-crawl.timer", State::Error),
    ("oa-report", "daily", "oa-daily.timer", State::Warning),
    ("oa-backup", "full", "oa-backup-full.timer", State::Error),
    (
        "oa-backup",
        "prune",
        "oa-backup-prune.timer",
        State::Warning,
    ),
    (
        "oa-backup",
        "verify",
        "oa-backup-verify.timer",
        State::Warning,
    ),
    ("oa-backup", "copy", "oa-backup-copy.timer", State::Warning),
    (
        "oa-restore",
        "drill",
        "oa-restore-drill.timer",
        State::Warning,
    ),
];

pub(super) fn look(config: &Config, named: Option<&Path>, findings: &mut Findings) {
    let crontabs = match named {
        Some(path) => match trust::read_named_text(path, trust::LARGEST) {
            Ok(text) => vec![Crontab::parse(Place::of(path, &text), &text)],
            Err(e) => {
                let detail = format!("could not read {}: {e}", path.display());
                return findings.error(CHECK, detail, format!("ls -l {}", quoted(path)));
            }
        },
        None => Crontab::installed(),
    };
    let timers = match named {
        Some(_) => Vec::new(),
        None => timers(),
    };
    for crontab in &crontabs {
        for (detail, command) in crontab.faults() {
            findings.error(CHECK, detail, command);
        }
        for words in crontab.repeated() {
            findings.warn(
                CHECK,
                format!(
                    "{} has {words} twice, at the same times",
                    crontab.place.shown()
                ),
                crontab.place.edit("remove one of the two"),
            );
        }
    }
    for (program, subcommand, timer, state) in NEEDED {
        let backup = config.backup.as_ref();
        if matches!(program, "oa-backup" | "oa-restore") && backup.is_none() {
            continue;
        }
        if subcommand == "copy" && backup.is_none_or(|b| b.copy.is_none()) {
            continue;
        }
        let command = format!("{program} {subcommand}");
        // Another account's are another installation, unless there is nothing else.
        let ours = crontabs.iter().any(|c| c.starts_as_us(program, subcommand));
        let by_cron: Vec<&Place> = crontabs
            .iter()
            .filter(|c| match ours {
                true => c.starts_as_us(program, subcommand),
                false => c.starts(program, subcommand),
            })
            .map(|c| &c.place)
            .collect();
        let by_timer = timers.iter().find(|t| t.name == timer);
        let missing = absent(named, &command);
        needed(
            &command,
            state,
            &by_cron,
            (timer, by_timer),
            &missing,
            findings,
        );
    }
    times::lines(CHECK, config, &crontabs, streams(), findings);
    times::expected(CHECK, config, findings);
    if named.is_none() {
        running(config, &crontabs, findings);
    }
    for crontab in crontabs.iter().filter(|crontab| crontab.is_ours()) {
        lines(config, crontab, findings);
    }
    if timers.iter().any(|timer| timer.enabled) {
        environment(config, findings);
    }
    if !findings.lines.iter().any(|line| line.check == CHECK) {
        findings.ok(CHECK, "everything has a line or a timer");
    }
}

/// Where a command was looked for in vain, and what brings it there.
fn absent(named: Option<&Path>, command: &str) -> (String, String) {
    if let Some(path) = named {
        let line = format!("{}   # a line that starts {command}", super::edit(path));
        return (format!("no line of {}", path.display()), line);
    }
    let unread = Crontab::unread();
    let looked = "no line of this account's crontab, of /etc/crontab or /etc/cron.d, no timer";
    match unread.first() {
        None => (looked.to_owned(), install(command)),
        Some(path) => (
            format!("{looked}; and this account may not read {}", path.display()),
            format!("sudo chmod 644 {}", quoted(path)),
        ),
    }
}

/// That one schedule starts a command, and not several.
fn needed(
    command: &str,
    state: State,
    by_cron: &[&Place],
    (name, timer): (&str, Option<&Timer>),
    (looked, mend): &(String, String),
    findings: &mut Findings,
) {
    let by_timer = timer.is_some_and(|timer| timer.enabled);
    match by_cron.len() + usize::from(by_timer) {
        0 if timer.is_some_and(|timer| timer.masked) => findings.push(
            CHECK,
            state,
            &format!("nothing starts {command}: {name} is masked"),
            Some(&format!(
                "sudo systemctl unmask {name} && sudo systemctl enable --now {name}"
            )),
        ),
        0 => findings.push(
            CHECK,
            state,
            &format!("nothing starts {command}: {looked}"),
            Some(mend.as_str()),
        ),
        1 if by_timer && timer.is_some_and(|timer| !timer.active) => findings.push(
            CHECK,
            state,
            &format!(
                "{name} starts with the machine, and is stopped now: nothing starts {command}"
            ),
            Some(&format!("sudo systemctl start {name}")),
        ),
        1 => {}
        n => {
            let mut places: Vec<String> = by_cron.iter().map(|place| place.shown()).collect();
            places.extend(by_timer.then(|| name.to_owned()));
            let packaged = by_cron
                .iter()
                .any(|p| **p == Place::System(PACKAGED.into()));
            findings.warn(
                CHECK,
                format!(
                    "{command} is started by {n} schedules at once: {}",
                    places.join(", ")
                ),
                match (by_timer, packaged) {
                    (true, _) => format!("sudo systemctl disable --now {name}"),
                    (false, true) => format!("sudo rm {PACKAGED}"),
                    (false, false) => by_cron[0].edit(&format!("without {command}")),
                },
            );
        }
    }
}

/// What makes a schedule: the program of a package, or the example of the source.
fn install(command: &str) -> String {
    let me = std::env::current_exe().unwrap_or_default();
    let setup = me.ancestors().nth(2).map(|p| p.join("sbin/oa-setup"));
    let kind = match Path::new("/run/systemd/system").exists() {
        true => "systemd",
        false => "cron",
    };
    match setup.is_some_and(|setup| setup.exists()) {
        true => format!("sudo oa-setup --timers {kind}"),
        // In the example it is a comment.
        false if command == "oa-backup copy" => format!(
            "sudo crontab -u {} -e   # with the lines of crontab.example for the secondary repository",
            account(geteuid().as_raw())
        ),
        false => format!(
            "sudo crontab -u {} crontab.example",
            account(geteuid().as_raw())
        ),
    }
}

/// That cron itself runs, that its hours are those that are meant, and that what runs all the time does.
fn running(config: &Config, crontabs: &[Crontab], findings: &mut Findings) {
    let ours = || crontabs.iter().filter(|c| c.is_ours());
    let Some(first) = ours().next() else {
        return services(findings);
    };
    if cron_runs() == Some(false) {
        let detail = format!(
            "no cron runs on this machine: nothing starts the lines of {}",
            first.place.shown()
        );
        findings.error("cron", detail, start_cron());
    }
    for crontab in ours() {
        hours(config, crontab, findings);
    }
    if ours().any(|c| c.starts_as_us("oa-report", "serve")) {
        page(config, findings);
    }
    services(findings);
}

/// cron's hours are the machine's, unless it knows `CRON_TZ`; Debian's does not.
fn hours(config: &Config, crontab: &Crontab, findings: &mut Findings) {
    let Some((when, command)) = crontab.at_fixed_hours() else {
        return;
    };
    let named = crontab.variables.get("CRON_TZ");
    let knows_it = Path::new("/usr/sbin/crond").exists();
    let zone = match named.filter(|_| knows_it) {
        Some(name) => name.parse().ok(),
        None => machine_zone(),
    };
    let Some(zone): Option<Tz> = zone else {
        return;
    };
    let now = Utc::now().naive_utc();
    let offset = |zone: Tz| zone.offset_from_utc_datetime(&now).fix().local_minus_utc();
    let apart = offset(config.timezone) - offset(zone);
    if apart == 0 {
        return;
    }
    let ignored = match named {
        Some(_) if !knows_it => " (this cron knows no CRON_TZ)",
        _ => "",
    };
    let detail = format!(
        "the hours of {} are those of {zone}{ignored}, {:+.1} h from {}: {command} ({when}) is started at other hours than written",
        crontab.place.shown(),
        f64::from(-apart) / 3600.0,
        config.timezone,
    );
    let mend = match Path::new("/run/systemd/system").exists() {
        true => format!(
            "sudo timedatectl set-timezone {} && sudo systemctl restart cron",
            config.timezone
        ),
        false => format!(
            "sudo ln -sf /usr/share/zoneinfo/{} /etc/localtime && sudo service cron restart",
            config.timezone
        ),
    };
    findings.warn(
        "time zone",
        detail,
        format!("{mend}   # or other hours in the crontab"),
    );
}

/// The machine's, whatever this shell's `TZ` is. UTC where there is none; nothing where its name cannot be seen.
fn machine_zone() -> Option<Tz> {
    let place = Path::new("/etc/localtime");
    if !place.exists() {
        return Some(Tz::UTC);
    }
    let named = place.canonicalize().ok()?;
    let (_, name) = named.to_str()?.split_once("/zoneinfo/")?;
    name.parse().ok()
}

/// What `@reboot` starts comes with the next start of the machine only, and is not started again when it ends.
fn page(config: &Config, findings: &mut Findings) {
    let at = config.report.listen;
    let mut asked = at;
    if at.ip().is_unspecified() {
        asked.set_ip(match at {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    match TcpStream::connect_timeout(&asked, Duration::from_secs(2)) {
        Ok(_) => findings.ok("page", format!("somebody answers at {at}")),
        Err(e) => findings.warn(
            "page",
            format!("nobody answers at {at}, where oa-report serve should: {e}; its line starts it with the machine only"),
            format!(
                "nohup {}/oa-report --config {} serve -q >/dev/null 2>&1 &",
                own_folder(),
                quoted(&config.path)
            ),
        ),
    }
}

/// The services of oa that start with the machine, and those that run now.
fn units() -> (Vec<String>, Vec<String>) {
    let names = |arguments: &[&str]| -> Vec<String> {
        let said = systemctl(arguments).unwrap_or_default();
        let first = |line: &str| line.split_whitespace().next().map(str::to_owned);
        said.lines().filter_map(first).collect()
    };
    let of_state = |list, state| names(&[list, "oa-*.service", state, "--plain", "--no-legend"]);
    (
        of_state("list-unit-files", "--state=enabled"),
        of_state("list-units", "--state=active"),
    )
}

/// Whether a service receives the WAL all the time. One that is enabled and does not run is reported by [`services`].
fn streams() -> bool {
    let (enabled, active) = units();
    let is_it = |name: &String| name == "oa-backup-stream.service";
    enabled.iter().any(is_it) || active.iter().any(is_it)
}

/// Units that start with the machine and have ended, or never came up.
fn services(findings: &mut Findings) {
    let (enabled, active) = units();
    for name in enabled.iter().filter(|name| !active.contains(name)) {
        findings.error(
            "services",
            format!("{name} starts with the machine, and does not run"),
            format!("sudo systemctl restart {name}; systemctl status {name}"),
        );
    }
}

fn start_cron() -> String {
    match Path::new("/run/systemd/system").exists() {
        true => "sudo systemctl enable --now cron".to_owned(),
        false => "sudo service cron start".to_owned(),
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
        if let Err(e) = rustix::fs::access(place, Access::WRITE_OK) {
            let why = match e {
                Errno::ROFS => {
                    format!("{} is on a disk that is mounted read-only", place.display())
                }
                _ => format!("{me} may not write to {}", place.display()),
            };
            let command = match e {
                Errno::ROFS => super::machine::remount(place),
                _ => format!("sudo chown {me} {}", quoted(place)),
            };
            findings.error(
                "log folder",
                format!("{why}: cron's shell starts no program"),
                command,
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
    if crontab.needs_path() && !found {
        findings.error(
            CHECK,
            format!("cron finds no oa-crawl in its PATH, {path}"),
            crontab
                .place
                .edit(&format!("PATH={}:/usr/bin:/bin", own_folder())),
        );
    }
    if crontab.names_configurations() {
        return;
    }
    let named = crontab.variables.get("OA_CONFIG").map(String::as_str);
    // Where the crontab names none, the programs take this one.
    other_configuration(
        config,
        named.unwrap_or(DEFAULT),
        "cron's programs read",
        findings,
        |own| crontab.place.edit(&format!("OA_CONFIG={own}")),
    );
}

const DEFAULT: &str = "/etc/oa/oa.toml";

/// The timers' programs have a configuration of their own choice, too.
fn environment(config: &Config, findings: &mut Findings) {
    let Some(set) = systemctl(&[
        "show",
        "--property=Environment",
        "--value",
        "oa-crawl.service",
    ]) else {
        return;
    };
    let named = set
        .split_whitespace()
        .find_map(|v| v.strip_prefix("OA_CONFIG="));
    other_configuration(
        config,
        named.unwrap_or(DEFAULT),
        "systemd's programs read",
        findings,
        |_| "systemctl cat oa-crawl.service   # then this one's with the same --config".to_owned(),
    );
}

fn other_configuration(
    config: &Config,
    named: &str,
    who: &str,
    findings: &mut Findings,
    mend: impl Fn(&str) -> String,
) {
    let same = match (Path::new(named).canonicalize(), config.path.canonicalize()) {
        (Ok(a), Ok(b)) => a == b,
        _ => Path::new(named) == config.path,
    };
    if !same {
        let own = std::path::absolute(&config.path).unwrap_or_else(|_| config.path.clone());
        let own = own.display().to_string();
        findings.warn(CHECK, format!("{who} {named}, this one {own}"), mend(&own));
    }
}

fn own_folder() -> String {
    let me = std::env::current_exe().unwrap_or_default();
    me.parent()
        .unwrap_or(Path::new("/usr/local/bin"))
        .display()
        .to_string()
}

/// A timer that is installed.
struct Timer {
    name: String,
    /// Starts with the machine.
    enabled: bool,
    /// Cannot be started at all.
    masked: bool,
    /// Runs now.
    active: bool,
}

fn timers() -> Vec<Timer> {
    let installed = systemctl(&["list-unit-files", "oa-*.timer", "--plain", "--no-legend"]);
    let active = systemctl(&[
        "list-units",
        "oa-*.timer",
        "--state=active",
        "--plain",
        "--no-legend",
    ]);
    let active = active.unwrap_or_default();
    let first = |line: &str| {
        line.split_whitespace()
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let active: Vec<String> = active.lines().map(first).collect();
    let installed = installed.unwrap_or_default();
    let of = |line: &str| {
        let name = first(line);
        let state = line
            .split_whitespace()
            .nth(1)
            .unwrap_or_default()
            .to_owned();
        Timer {
            enabled: state.starts_with("enabled"),
            masked: state.starts_with("masked"),
            active: active.contains(&name),
            name,
        }
    };
    installed.lines().map(of).collect()
}

/// What systemctl prints, where systemd runs the machine.
fn systemctl(arguments: &[&str]) -> Option<String> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let done = Command::new("systemctl").args(arguments).output().ok()?;
    Some(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// The command that brings back what starts the programs each minute, where it can be seen what is down.
pub(super) fn revive() -> String {
    let look = "systemctl status cron; systemctl list-timers 'oa-*'; sudo crontab -u oa -l";
    let crontabs = Crontab::installed();
    let by_cron = crontabs
        .iter()
        .any(|c| c.starts("oa-alert", "check") || c.starts("oa-crawl", "run"));
    match by_cron && cron_runs() == Some(false) {
        true => start_cron(),
        false => look.to_owned(),
    }
}

/// Whether there is a cron on this machine; none where it cannot be seen.
fn cron_runs() -> Option<bool> {
    const NAMES: [&str; 4] = ["cron", "crond", "fcron", "supercronic"];
    // Where other accounts' processes are hidden, so is the first one.
    fs::read_to_string("/proc/1/comm").ok()?;
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let mut names = processes.filter_map(|p| fs::read_to_string(p.path().join("comm")).ok());
    Some(names.any(|name| NAMES.contains(&name.trim())))
}
