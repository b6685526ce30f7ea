//! What stands in a crontab, read as cron reads it: its variables, what it starts for whom, and what keeps it from starting anything.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use oa_core::base::trust::{account, quoted};

use super::programs::PROGRAMS;
use super::times;

/// Whose crontab it is: a system's lines name an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `crontab -e`.
    Account,
    /// A file that was named on the command line, in either form.
    Named { path: PathBuf, is_system: bool },
    /// `/etc/crontab` and what is in `/etc/cron.d`.
    System(PathBuf),
}

const SYSTEM: &str = "/etc/crontab";
const FOLDER: &str = "/etc/cron.d";

impl Place {
    /// That of a file which was named. Where cron reads it, its place says in which form it is; elsewhere most of its lines do.
    pub(super) fn of(path: &Path, text: &str) -> Self {
        if path == Path::new(SYSTEM) || path.parent() == Some(Path::new(FOLDER)) {
            return Self::System(path.to_owned());
        }
        let lines = text.lines().filter_map(job);
        let (with, without): (Vec<bool>, Vec<bool>) = lines
            .map(|(_, rest)| begins_with_account(rest))
            .partition(|with| *with);
        Self::Named {
            path: path.to_owned(),
            is_system: with.len() > without.len(),
        }
    }

    /// Whether each line has an account before its command.
    fn has_accounts(&self) -> bool {
        match self {
            Self::Account => false,
            Self::Named { is_system, .. } => *is_system,
            Self::System(_) => true,
        }
    }

    pub(super) fn shown(&self) -> String {
        match self {
            Self::Account => "the crontab".to_owned(),
            Self::Named { path, .. } | Self::System(path) => path.display().to_string(),
        }
    }

    /// Opens it in an editor; behind the # stands what to write.
    pub(super) fn edit(&self, what: &str) -> String {
        let edit = match self {
            Self::Account => "crontab -e".to_owned(),
            Self::Named { path, .. } => super::edit(path),
            Self::System(path) => format!("sudoedit {}", quoted(path)),
        };
        format!("{edit}   # {what}")
    }
}

/// When a line of a crontab starts something, and the rest of it. None of empty lines, comments and variables.
fn job(line: &str) -> Option<(String, &str)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') || variable(line).is_some() {
        return None;
    }
    let fields = if line.starts_with('@') { 1 } else { 5 };
    let (mut when, mut rest) = (Vec::new(), line);
    for _ in 0..fields {
        let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        when.push(word);
        rest = after.trim_start();
    }
    Some((when.join(" "), rest))
}

fn variable(line: &str) -> Option<(String, String)> {
    let name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let (key, value) = line.split_once('=')?;
    let key = key.trim();
    let value = value.trim().trim_matches(['"', '\'']);
    key.chars()
        .all(name)
        .then(|| (key.to_owned(), value.to_owned()))
}

/// Whether what stands behind the times begins with an account instead of a command. Some words are both (mail, sync), and the account of
/// another machine is not known on this one: then what comes next decides.
fn begins_with_account(rest: &str) -> bool {
    let mut words = rest.split_whitespace();
    let word = words.next().unwrap_or_default();
    let next = words.next().unwrap_or_default();
    let named = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
    if !word.chars().all(named) || PROGRAMS.contains(&word) {
        return false;
    }
    let program_follows = PROGRAMS.contains(&base(next)) || next.starts_with('/');
    match (is_account(word), is_command(word)) {
        (true, true) | (false, false) => program_follows,
        (account, _) => account,
    }
}

fn is_account(name: &str) -> bool {
    let accounts = fs::read_to_string("/etc/passwd").unwrap_or_default();
    accounts
        .lines()
        .any(|line| line.split(':').next() == Some(name))
}

/// A program of this machine, or a word of the shell.
fn is_command(name: &str) -> bool {
    const OF_SHELL: [&str; 12] = [
        ".", ":", "cd", "command", "eval", "exec", "export", "if", "set", "ulimit", "umask",
        "while",
    ];
    const FOLDERS: [&str; 4] = ["/usr/local/bin", "/usr/bin", "/usr/sbin", "/sbin"];
    OF_SHELL.contains(&name) || FOLDERS.iter().any(|at| Path::new(at).join(name).is_file())
}

/// A line that starts one of the programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// The five fields, or `@reboot`.
    pub(super) when: String,
    /// In a system's crontab the word that cron takes for the account.
    pub(super) account: Option<String>,
    pub(super) command: String,
}

impl Line {
    /// The programs and their arguments, wherever they stand among the commands of a line.
    fn programs(&self) -> impl Iterator<Item = Vec<&str>> {
        let commands = self.command.split(['>', '<', '|', ';', '&', '(', ')']);
        commands.filter_map(|command| {
            let words: Vec<&str> = command
                .split_whitespace()
                .map(|word| word.trim_matches(['"', '\'']))
                .skip_while(|word| !PROGRAMS.contains(&base(word)))
                .collect();
            (!words.is_empty()).then_some(words)
        })
    }

    fn starts(&self, program: &str, subcommand: &str) -> bool {
        self.programs()
            .any(|words| base(words[0]) == program && words[1..].contains(&subcommand))
    }

    /// Whether it runs as this account.
    fn is_ours(&self) -> bool {
        self.account.as_deref().is_none_or(|name| name == me())
    }

    /// The first file to which it writes, where its name is all there.
    fn log(&self) -> Option<PathBuf> {
        let mut parts = self.command.split('>').skip(1).map(str::trim_start);
        let ends = |c: char| c.is_whitespace() || matches!(c, ';' | '&' | '|' | ')' | '<');
        let name = parts
            .find(|part| part.starts_with('/'))?
            .split(ends)
            .next()?;
        // What the shell makes of the rest is not known; of the folder before it, it is.
        let known = name.split(['$', '`']).next()?;
        match known.len() == name.len() {
            true => Some(PathBuf::from(name)),
            false => (!name[known.len()..].contains('/'))
                .then(|| known.rsplit_once('/'))
                .flatten()
                .map(|(folder, _)| Path::new(folder).join("log")),
        }
    }

    /// cron takes a bare % for the end of the line, and gives the rest to the program's input.
    fn has_bare_percent(&self) -> bool {
        let mut before = ' ';
        self.command.chars().any(|c| {
            let bare = c == '%' && before != '\\';
            before = c;
            bare
        })
    }
}

fn base(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

#[derive(Debug)]
pub(super) struct Crontab {
    pub(super) place: Place,
    pub(super) variables: HashMap<String, String>,
    /// Those that start one of the programs.
    pub(super) lines: Vec<Line>,
    text: String,
}

impl Crontab {
    pub(super) fn parse(place: Place, text: &str) -> Self {
        let of_lines = text.lines().map(str::trim);
        let variables = of_lines
            .filter(|line| !line.starts_with('#'))
            .filter_map(variable)
            .collect();
        let mut lines = Vec::new();
        for (when, rest) in text.lines().filter_map(job) {
            let (account, command) = match place.has_accounts() {
                true => {
                    let (word, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
                    (Some(word.to_owned()), after.trim_start())
                }
                false => (None, rest),
            };
            let found = Line {
                when,
                account,
                command: command.to_owned(),
            };
            // A line without an account, or with four fields.
            let misplaced = found.account.iter().map(String::as_str);
            let misplaced = misplaced
                .chain(found.when.split(' '))
                .any(|word| PROGRAMS.contains(&base(word)));
            if misplaced || found.programs().next().is_some() {
                lines.push(found);
            }
        }
        Self {
            place,
            variables,
            lines,
            text: text.to_owned(),
        }
    }

    /// The account's own, and those of the system that start one of the programs.
    pub(super) fn installed() -> Vec<Self> {
        let mut found = Vec::new();
        if let Ok(done) = Command::new("crontab").arg("-l").output()
            && done.status.success()
        {
            found.push(Self::parse(
                Place::Account,
                &String::from_utf8_lossy(&done.stdout),
            ));
        }
        let folder = fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = folder.map(|entry| entry.path()).collect();
        files.retain(|path| !is_left_over(path));
        files.sort();
        files.insert(0, PathBuf::from(SYSTEM));
        for path in files {
            let Ok(text) = fs::read_to_string(&path) else {
                continue;
            };
            let crontab = Self::parse(Place::System(path), &text);
            if !crontab.lines.is_empty() {
                found.push(crontab);
            }
        }
        found
    }

    /// Files of the system that cron reads and this account may not: what they start is not known.
    pub(super) fn unread() -> Vec<PathBuf> {
        let folder = fs::read_dir(FOLDER).into_iter().flatten().flatten();
        let files = folder
            .map(|entry| entry.path())
            .filter(|p| !is_left_over(p));
        files
            .chain([PathBuf::from(SYSTEM)])
            .filter(|path| {
                fs::File::open(path)
                    .is_err_and(|e| e.kind() == std::io::ErrorKind::PermissionDenied)
            })
            .collect()
    }

    /// Whether a line runs as this account: of the others nothing can be said by what this one may do.
    pub(super) fn is_ours(&self) -> bool {
        self.lines.iter().any(Line::is_ours)
    }

    pub(super) fn starts(&self, program: &str, subcommand: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.starts(program, subcommand))
    }

    /// The same, of lines that run as this account.
    pub(super) fn starts_as_us(&self, program: &str, subcommand: &str) -> bool {
        self.lines
            .iter()
            .any(|line| line.is_ours() && line.starts(program, subcommand))
    }

    /// When the lines start a command, by its words; with `ours` only those that run as this account.
    pub(super) fn times(&self, ours: bool, is_it: impl Fn(&[&str]) -> bool) -> Vec<&str> {
        let lines = self.lines.iter().filter(|line| !ours || line.is_ours());
        lines
            .filter(|line| line.programs().any(|words| is_it(&words)))
            .map(|line| line.when.as_str())
            .collect()
    }

    /// Whether each line of this account says itself which configuration its program reads.
    pub(super) fn names_configurations(&self) -> bool {
        let named =
            |line: &Line| line.command.contains("--config") || line.command.contains("OA_CONFIG=");
        self.lines.iter().filter(|line| line.is_ours()).all(named)
    }

    /// Whether a line relies on `PATH` to find its program.
    pub(super) fn needs_path(&self) -> bool {
        let bare = |line: &Line| line.programs().any(|words| !words[0].contains('/'));
        self.lines.iter().any(|line| line.is_ours() && bare(line))
    }

    /// The files to which the lines of this account append.
    pub(super) fn logs(&self) -> Vec<PathBuf> {
        let ours = self.lines.iter().filter(|line| line.is_ours());
        let mut logs: Vec<PathBuf> = ours.filter_map(Line::log).collect();
        logs.sort();
        logs.dedup();
        logs
    }

    /// The first line of this account that starts something at fixed hours: its times and its command.
    pub(super) fn at_fixed_hours(&self) -> Option<(&str, &str)> {
        let fixed = |line: &&Line| {
            let hour = line.when.split(' ').nth(1);
            line.is_ours() && hour.is_some_and(|hour| !hour.starts_with('*'))
        };
        let line = self.lines.iter().find(fixed)?;
        Some((&line.when, &line.command))
    }

    /// Lines that stand there twice, at the same times.
    pub(super) fn repeated(&self) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        for (n, line) in self.lines.iter().enumerate() {
            // `[ -x /usr/bin/oa-alert ]` starts nothing.
            let starts = |words: &Vec<&str>| words.get(1).is_some_and(|word| *word != "]");
            for words in line.programs().filter(starts) {
                let same = |other: &Line| {
                    other.when == line.when
                        && other.account == line.account
                        && other.programs().any(|theirs| theirs == words)
                };
                let shown = words.join(" ");
                if self.lines[..n].iter().any(same) && !found.contains(&shown) {
                    found.push(shown);
                }
            }
        }
        found
    }

    /// What keeps cron from starting these lines, and the command that mends it. cron itself says so in its own log at most.
    pub(super) fn faults(&self) -> Vec<(String, String)> {
        let shown = self.place.shown();
        let mut found = Vec::new();
        if self.text.contains("\r\n") {
            let mend = match &self.place {
                Place::Account => "crontab -l | tr -d '\\r' | crontab -".to_owned(),
                Place::Named { path, .. } => format!("sed -i 's/\\r$//' {}", quoted(path)),
                Place::System(path) => format!("sudo sed -i 's/\\r$//' {}", quoted(path)),
            };
            let detail = format!(
                "{shown} has the line ends of Windows: the shell takes them for a part of each command, and starts none"
            );
            found.push((detail, mend));
        }
        for line in &self.lines {
            if line.has_bare_percent() {
                let detail = format!(
                    "{shown}: cron ends a line at a %, and this one starts something else: {}",
                    line.command
                );
                found.push((detail, self.place.edit("\\% for each %")));
            }
        }
        if let Place::System(path) = &self.place {
            found.extend(ignored(path, &self.text, &self.lines));
        }
        // crontab -e refuses them by itself.
        let wrong = |line: &Line| {
            let wrong = times::wrong(&line.when).filter(|_| self.place != Place::Account);
            wrong.map(|why| (line.when.clone(), why))
        };
        if let Some((when, why)) = self.lines.iter().find_map(wrong) {
            let detail = format!(
                "{shown}: cron takes \"{when}\" for no time ({why}), and starts nothing of the file"
            );
            found.push((
                detail,
                self.place
                    .edit("minute, hour, day, month and weekday before the command"),
            ));
        }
        if self.place.has_accounts() {
            for line in &self.lines {
                let named = line.account.as_deref().unwrap_or_default();
                if PROGRAMS.contains(&base(named)) {
                    let detail = format!(
                        "{shown} names no account before {named}: cron takes that for the account, and starts nothing of the file"
                    );
                    found.push((detail, self.place.edit(&format!("{} {named} …", me()))));
                    break;
                }
                let first = line.command.split_whitespace().next().unwrap_or_default();
                if named == "root" && me() != "root" && PROGRAMS.contains(&base(first)) {
                    let detail = format!(
                        "{shown} starts {first} as root, which it refuses: these are the files of {}",
                        me()
                    );
                    found.push((
                        detail,
                        self.place.edit(&format!("{} instead of root", me())),
                    ));
                    break;
                }
            }
        } else if let Some((line, account)) = self.lines.iter().find_map(|line| {
            let account = line.command.split_whitespace().next()?;
            (is_account(account) && begins_with_account(&line.command)).then_some((line, account))
        }) {
            let detail = format!(
                "{shown} names an account before its commands, as only files of /etc/cron.d do: the shell finds no program {account}"
            );
            let without = line.command.split_once(' ').map_or("", |(_, rest)| rest);
            found.push((detail, self.place.edit(&format!("{} {without}", line.when))));
        }
        found
    }
}

fn me() -> String {
    account(rustix::process::geteuid().as_raw())
}

/// Asked of the system, which may have accounts elsewhere than in its file.
fn is_known_account(name: &str) -> bool {
    let done = Command::new("id").args(["-u", "--", name]).output();
    done.is_ok_and(|done| done.status.success())
}

/// What editors, package managers and people leave beside a file, so that cron does not look at it.
fn is_left_over(path: &Path) -> bool {
    const ENDS: [&str; 9] = [
        "bak", "disabled", "off", "old", "orig", "rpmnew", "rpmsave", "save", "swp",
    ];
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    name.starts_with('.')
        || name.ends_with('~')
        || ENDS.contains(&end)
        || end.starts_with("dpkg-")
        || end.starts_with("ucf-")
}

/// Why cron does not look at a file of the system.
fn ignored(path: &Path, text: &str, lines: &[Line]) -> Option<(String, String)> {
    let (shown, quoted) = (path.display(), quoted(path));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Debian's cron is the strict one.
    let strict = Path::new("/etc/debian_version").exists();
    if strict
        && !name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-')
    {
        let plain: String = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        return Some((
            format!(
                "cron ignores {shown}: the names of such files have letters, digits, - and _ only"
            ),
            format!("sudo mv {quoted} /etc/cron.d/{plain}"),
        ));
    }
    let found = fs::metadata(path);
    if found.is_ok_and(|found| found.uid() != 0 || found.mode() & 0o022 != 0) {
        return Some((
            format!("cron ignores {shown}: it must belong to root, and nobody else may change it"),
            format!("sudo chown root:root {quoted} && sudo chmod 644 {quoted}"),
        ));
    }
    if strict && !text.ends_with('\n') {
        return Some((
            format!("cron ignores {shown}: its last line does not end"),
            format!("echo | sudo tee -a {quoted}"),
        ));
    }
    let accounts = lines.iter().filter_map(|line| line.account.as_deref());
    let mut named = accounts.filter(|name| !PROGRAMS.contains(&base(name)));
    let unknown = named.find(|name| !is_known_account(name))?;
    Some((
        format!("cron ignores {shown}: there is no account {unknown} on this machine"),
        format!("sudoedit {quoted}   # {} instead of {unknown}", me()),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own(text: &str) -> Crontab {
        Crontab::parse(Place::Account, text)
    }

    fn system(text: &str) -> Crontab {
        Crontab::parse(Place::System(PathBuf::from("/etc/crontab")), text)
    }

    #[test]
    fn commands_logs_and_variables_of_a_crontab_are_read() {
        let crontab = own(
            "# note\nPATH=/opt/oa/bin:/bin\n* * * * * oa-crawl run --due >>/var/log/oa/crawl.log 2>&1\n\
             @reboot oa-report serve -q >> /var/log/oa/report.log 2>&1\n0 1 * * * backup >>/tmp/other.log\n",
        );
        assert_eq!(crontab.variables["PATH"], "/opt/oa/bin:/bin");
        assert!(crontab.starts("oa-crawl", "run") && !crontab.starts("oa-alert", "check"));
        let logs = ["/var/log/oa/crawl.log", "/var/log/oa/report.log"];
        assert_eq!(crontab.logs(), logs.map(PathBuf::from));
        assert!(crontab.needs_path() && crontab.faults().is_empty());
    }

    #[test]
    fn a_program_is_found_by_its_path_behind_options_and_other_commands() {
        for line in [
            "* * * * * /opt/oa/bin/oa-alert --config /etc/other.toml check",
            "* * * * * cd / && OA_CONFIG=/x oa-alert -q check >>/dev/null",
            "* * * * * flock -n /tmp/l sh -c 'oa-alert check'",
            "* * * * * test -x /usr/bin/oa-alert && oa-alert check",
            "* * * * * [ -x /usr/bin/oa-alert ] || exit 0; /usr/bin/oa-alert check",
            "* * * * * oa-crawl run --due; oa-alert check",
        ] {
            assert!(own(line).starts("oa-alert", "check"), "{line}");
        }
        for line in [
            "* * * * * oa-alert send; echo check",
            "* * * * * my-oa-alert check",
        ] {
            assert!(!own(line).starts("oa-alert", "check"), "{line}");
        }
        assert!(!own("* * * * * /usr/bin/oa-alert check").needs_path());
        let crontab = system("*/5 * * * * oa oa-alert check\n");
        assert!(crontab.starts("oa-alert", "check"));
        assert_eq!(crontab.lines[0].account.as_deref(), Some("oa"));
    }

    #[test]
    fn lines_of_other_accounts_and_files_that_were_put_aside_are_not_ours() {
        let crontab = system(&format!(
            "* * * * * somebody-else /usr/bin/oa-alert check >>/nowhere/a.log\n\
             * * * * * {} /usr/bin/oa-crawl run >>/var/log/oa/c-$(date +\\%F).log\n",
            me()
        ));
        assert_eq!(crontab.logs(), [PathBuf::from("/var/log/oa/log")]);
        assert!(crontab.starts("oa-alert", "check") && crontab.is_ours());
        assert!(crontab.starts_as_us("oa-crawl", "run"));
        assert!(!crontab.starts_as_us("oa-alert", "check") && !crontab.names_configurations());
        assert!(own("* * * * * oa-alert --config /x check").names_configurations());
        for name in [".oa.new", "oa~", "oa.dpkg-dist", "oa.bak"] {
            assert!(is_left_over(&Path::new(FOLDER).join(name)), "{name}");
        }
        assert!(!is_left_over(Path::new("/etc/cron.d/oa.cron")));
    }

    #[test]
    fn whether_a_file_names_accounts_is_seen_from_its_lines() {
        let is_system = |path: &str, text: &str| match Place::of(Path::new(path), text) {
            Place::Named { is_system, .. } => is_system,
            Place::System(_) => true,
            Place::Account => unreachable!("it was named"),
        };
        assert!(is_system("/etc/cron.d/oa", "* * * * * oa-alert check\n"));
        let me = me();
        for text in [
            "PATH=/usr/bin\n* * * * * oa oa-alert check\n@reboot oa oa-report serve -q\n".to_owned(),
            "0 2 * * * nobody-of-here /opt/oa/bin/oa-backup full\n".to_owned(),
            format!("* * * * * {me} test -x /opt/oa && oa-alert check\n"),
            "* * * * * mail oa-alert check\n".to_owned(),
            // One line lacks it, and that is a fault of the line.
            "* * * * * oa oa-alert check\n* * * * * oa oa-crawl drain\n* * * * * oa-crawl run --due\n".to_owned(),
        ] {
            assert!(is_system("/usr/share/oa/cron.d", &text), "{text}");
        }
        for text in [
            "* * * * * oa-alert check\n".to_owned(),
            "* * * * * /usr/bin/oa-alert check\n@daily nice oa-backup full\n".to_owned(),
            "* * * * * cd /srv && oa-alert check\n".to_owned(),
            "* * * * * OA_CONFIG=/x oa-alert check\n* * * * * sh -c 'oa-alert check'\n".to_owned(),
            format!(
                "* * * * * {me} oa-alert check\n* * * * * oa-crawl drain\n* * * * * oa-crawl run --due\n"
            ),
            String::new(),
        ] {
            assert!(!is_system("/etc/crontab.example", &text), "{text}");
        }
    }

    #[test]
    fn the_same_line_twice_is_found_and_other_times_or_arguments_are_other_lines() {
        let twice = "0 2 * * * oa-backup full --cron >>/a\n0 14 * * * oa-backup full --cron >>/a\n\
                     1 * * * * oa-backup verify\n1 * * * * oa-backup verify --copy\n* * * * * oa-alert check >>/a\n* * * * *  oa-alert  check >>/b\n";
        assert_eq!(own(twice).repeated(), ["oa-alert check"]);
    }

    #[test]
    fn what_keeps_cron_from_starting_a_line_is_found() {
        let faults = |crontab: Crontab| {
            let all = crontab.faults().into_iter();
            all.map(|(_, command)| command).collect::<Vec<_>>()
        };
        assert_eq!(
            faults(own("* * * * * oa-alert check\r\n")),
            ["crontab -l | tr -d '\\r' | crontab -"]
        );
        assert_eq!(
            faults(own("* * * * * oa-report logs --since $(date +%F)\n")),
            ["crontab -e   # \\% for each %"]
        );
        assert!(faults(own("* * * * * oa-report logs --since $(date +\\%F)\n")).is_empty());
        let me = me();
        assert_eq!(
            faults(own(&format!("* * * * * {me} oa-alert check\n"))),
            ["crontab -e   # * * * * * oa-alert check"]
        );
        assert_eq!(
            faults(system("* * * * * oa-alert check\n")).last().unwrap(),
            &format!("sudoedit /etc/crontab   # {me} oa-alert …")
        );
        let text =
            format!("* * * * * {me} oa-alert check\n* * * * * no-such-account oa-crawl drain\n");
        assert_eq!(
            faults(system(&text)).last().unwrap(),
            &format!("sudoedit /etc/crontab   # {me} instead of no-such-account")
        );
        let named = |text: &str| {
            let place = Place::of(Path::new("/nowhere/file"), text);
            faults(Crontab::parse(place, text)).len()
        };
        for wrong in [
            "*/5 * * * oa-alert check\n",
            "61 * * * * oa-alert check\n",
            "0 25 * * * oa oa-backup full\n",
            "@often oa-alert check\n",
        ] {
            assert_eq!(named(wrong), 1, "{wrong}");
        }
        for right in [
            "@reboot oa-report serve\n",
            "0-59/2 8-16 * jan-mar mon-fri oa-alert check\n",
            "30 4 * * 7 oa oa-backup verify\n",
        ] {
            assert_eq!(named(right), 0, "{right}");
        }
        let dotted = Crontab::parse(
            Place::System(PathBuf::from("/etc/cron.d/oa.cron")),
            "* * * * * oa oa-alert check\n",
        );
        assert_eq!(
            faults(dotted),
            ["sudo mv /etc/cron.d/oa.cron /etc/cron.d/oa-cron"]
        );
    }
}
