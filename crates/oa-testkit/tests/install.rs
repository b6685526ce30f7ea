//! README's "Use it" and `crontab.example`, word by word, by the users that they name.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use oa_testkit::{Postgres, program, wait_until, workspace_root};

/// Stands for `oa`, because a test makes no account.
const USER: &str = "nobody";

struct Machine {
    dir: tempfile::TempDir,
    server: Postgres,
}

impl Machine {
    fn root(&self) -> &Path {
        self.dir.path()
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Paths of a real machine in a text, below this one's root.
    fn here(&self, text: &str) -> String {
        let root = self.root().display().to_string();
        [
            "/etc/oa",
            "/var/lib/oa",
            "/var/log/oa",
            "/var/backups/oa",
            "/usr/local/bin",
        ]
        .iter()
        .fold(text.to_owned(), |text, path| {
            text.replace(path, &format!("{root}{path}"))
        })
    }

    fn install(&self) -> Output {
        let mut command = Command::new(workspace_root().join("scripts/install"));
        let bin = program("oa-crawl").parent().unwrap().to_owned();
        command.arg("--bin").arg(bin).args(["--user", USER]);
        command.env("DESTDIR", self.root()).output().unwrap()
    }

    /// A line of shell with what cron gives to it, and nothing else.
    fn shell(&self, user: &str, line: &str, settings: &[(String, String)]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args([
                "--reuid",
                user,
                "--regid",
                if user == "root" { "root" } else { "nogroup" },
            ])
            .args(["--clear-groups", "sh", "-c", line])
            .env_clear()
            .env("HOME", "/nonexistent")
            .envs(settings.iter().cloned())
            .current_dir(self.root());
        command
    }

    fn edit(&self) {
        let config = self.at("/etc/oa/oa.toml");
        let text = fs::read_to_string(&config).unwrap();
        let phone = self.at("/var/log/oa/phone");
        let text = self
            .here(&text)
            .replace("# listen = \"127.0.0.1:8686\"", "listen = \"127.0.0.1:0\"")
            .replace("# retries = 3", "retries = 0");
        let more = format!(
            "\n[providers.zhihui]\nbase = \"http://127.0.0.1:9\"\n[providers.fangqi]\nbase = \"http://127.0.0.1:9\"\n\
             [[alert.channels]]\nname = \"phone\"\nkind = \"command\"\ncommand = [\"sh\", \"-c\", \"cat >> {}\"]\n",
            phone.display()
        );
        fs::write(&config, text + &more).unwrap();
        let env = self.at("/etc/oa/.env");
        let text = fs::read_to_string(&env).unwrap();
        let more = format!(
            "DATABASE_URL={}\nOA_BACKUP_PASSWORD=on-paper-only\nZHIHUI_AUTH_TOKEN=token-value\n",
            self.server.url()
        );
        fs::write(&env, text + &more).unwrap();
    }
}

fn said(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The lines of the first block of shell below a heading.
fn block(page: &str, heading: &str) -> Vec<String> {
    let text = fs::read_to_string(workspace_root().join(page)).unwrap();
    let below = text.split(heading).nth(1).unwrap();
    let block = below
        .split("```sh\n")
        .nth(1)
        .unwrap()
        .split("```")
        .next()
        .unwrap();
    block
        .lines()
        .map(|l| l.split(" #").next().unwrap().trim().to_owned())
        .collect()
}

/// Settings and commands of `crontab.example`.
fn crontab() -> (Vec<(String, String)>, Vec<String>) {
    let text = fs::read_to_string(workspace_root().join("crontab.example")).unwrap();
    let (mut settings, mut commands) = (Vec::new(), Vec::new());
    for line in text
        .lines()
        .filter(|l| !l.is_empty() && !l.starts_with('#'))
    {
        match line.split_once('=') {
            Some((name, value)) if name.chars().all(|c| c.is_ascii_uppercase() || c == '_') => {
                settings.push((name.to_owned(), value.to_owned()));
            }
            _ => {
                let fields = if line.starts_with('@') { 1 } else { 5 };
                let words: Vec<&str> = line.split_whitespace().skip(fields).collect();
                commands.push(words.join(" "));
            }
        }
    }
    (settings, commands)
}

#[test]
fn both_readmes_give_the_same_commands() {
    assert_eq!(
        block("README.md", "## Use it"),
        block("README.zh-CN.md", "## 使用")
    );
}

#[test]
fn readme_and_crontab_followed_word_by_word_run_everything() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can install and be another user");
        return;
    }
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let machine = Machine {
        dir,
        server: Postgres::start(),
    };
    let (settings, lines) = crontab();
    let settings: Vec<(String, String)> = settings
        .into_iter()
        .map(|(name, value)| (name, machine.here(&value)))
        .collect();
    let legacy = machine.at("legacy.db");
    let made = Command::new(program("oa-sim"))
        .arg("--make-legacy-db")
        .arg(&legacy)
        .status();
    assert!(made.unwrap().success());
    fs::set_permissions(&legacy, fs::Permissions::from_mode(0o644)).unwrap();

    for command in block("README.md", "## Use it") {
        let done = if command == "cargo build --release" || command.is_empty() {
            continue;
        } else if command == "sudo scripts/install" {
            machine.install()
        } else if command.starts_with("sudoedit /etc/oa/oa.toml /etc/oa/.env") {
            machine.edit();
            continue;
        } else if command == "sudo crontab -u oa crontab.example" {
            assert!(workspace_root().join("crontab.example").is_file());
            continue;
        } else if let Some(line) = command.strip_prefix("sudo -u oa ") {
            let line = line.replace("oa-restore drill", "oa-restore drill --yes");
            machine.shell(USER, &line, &settings).output().unwrap()
        } else {
            let line = command.strip_prefix("sudo ").expect("a user is named");
            machine.shell("root", line, &settings).output().unwrap()
        };
        assert!(done.status.success(), "{command}: {}", said(&done));
    }
    check_modes(&machine);

    // By mistake as root: nothing is done, and nothing is in the way afterwards.
    let mistake = machine
        .shell("root", "oa-crawl run zhihui-full-view", &settings)
        .output()
        .unwrap();
    assert_eq!(mistake.status.code(), Some(77), "{}", said(&mistake));
    assert!(
        said(&mistake).contains("sudo -u nobody oa-crawl"),
        "{}",
        said(&mistake)
    );

    for line in lines {
        let log = line
            .split(">>")
            .nth(1)
            .expect("each line has a log")
            .split(' ')
            .next()
            .unwrap();
        let log = machine.at(log);
        let here = machine.here(&line);
        if line.contains("oa-report serve") {
            serve_and_upgrade(&machine, &here, &settings);
            continue;
        }
        let done = machine.shell(USER, &here, &settings).output().unwrap();
        // The sites of this test are down.
        let down = line.contains("run --due") && done.status.code() == Some(1);
        let text =
            fs::read_to_string(&log).unwrap_or_else(|e| panic!("{line}: {e}: {}", said(&done)));
        assert!(
            done.status.success() || down,
            "{line}: {}\n{text}",
            said(&done)
        );
    }
    check_modes(&machine);
    downgrade_and_uninstall(&machine);
}

/// What `oa-setup` meets on a machine of its own: the folders that it writes to are mounted over, so that it is the real one, for the real
/// account.
const MACHINE: &str = r#"
base=$1 bin=$2
mkdir "$base"/{etc,local,backups,srv}
cp -a /etc/. "$base/etc"
mount --make-rprivate /
mount --bind "$base/etc" /etc
mount --bind "$base/local" /usr/local
mount --bind "$base/backups" /var/backups
mount --bind "$base/srv" /srv
mount -t tmpfs tmpfs /var/lib
[[ ! -d /var/spool/cron/crontabs ]] || mount -t tmpfs tmpfs /var/spool/cron/crontabs
mount -t tmpfs tmpfs /var/log
mount -t tmpfs tmpfs /run
rm -rf /etc/oa /etc/cron.d/oa
mkdir -p /etc/cron.d
"$3/scripts/install" --bin "$bin" >/dev/null 2>&1
setup() { /usr/local/sbin/oa-setup --yes --timers none --no-drill "$@"; }
refused() { # refused CODE FLAGS…: nothing is changed; $why is what it said
    local wanted=$1 code=0 before
    shift
    before=$(cat /etc/oa/oa.toml /etc/oa/.env | sha256sum)
    why=$(setup "$@" 2>&1 >/dev/null) || code=$?
    [[ $code == "$wanted" && $before == $(cat /etc/oa/oa.toml /etc/oa/.env | sha256sum) ]] || { echo "$* ended with $code: $why"; exit 1; }
}
names() { [[ $why == *"line $(grep -n "$1" "$2" | head -1 | cut -d: -f1) of $2"* ]] || { echo "it does not name the line of $1: $why"; exit 1; }; }
well() { # its last step is the doctor's, who finds that nothing starts the programs
    local said
    said=$(setup "$@" 2>&1 || true)
    [[ $said == *"== oa-report doctor"* ]] || { echo "$*: $said"; exit 1; }
}
# What is backed up how is not asked here.
sed -i -e '/^locale/d' -e 's/^kind = "auto"/verify_recovery = false\nkind = "logical"/' /etc/oa/oa.toml
printf '%s' "it's 5% of \$1 & \"ü\" \\ #" >"$base/odd"
well --database "$DATABASE" --backups /srv/first --locale en --backup-password "file:$base/odd"
grep -q '^locale = "en"' /etc/oa/oa.toml
[[ -e /srv/first/config && ! -e /var/backups/oa/config ]]
# The same again.
well --database "$DATABASE" --backups /srv/first --backup-password "file:$base/odd"
# All of it is said at once, each with its line.
echo another >"$base/password"
OA_S3_ACCESS_KEY=key OA_CHANNEL_URL=http://127.0.0.1:9/hook refused 78 --backups s3://bucket/oa --s3-endpoint http://127.0.0.1:9 --s3-region eu \
    --s3-path-style --database "$DATABASE-of-others" --backup-password "file:$base/password"
[[ $(wc -l <<<"$why") == 8 ]] || { echo "not all is said: $why"; exit 1; }
names '^repository' /etc/oa/oa.toml
names '^DATABASE_URL' /etc/oa/.env
names '^OA_BACKUP_PASSWORD' /etc/oa/.env
refused 78 --local --channel webhook --backups /var/backups/oa
[[ $(wc -l <<<"$why") == 3 ]] || { echo "not all is said: $why"; exit 1; }
refused 78 --timers systemd
: >"$base/password"
refused 2 --backup-password "file:$base/password"
refused 2 --local --database "$DATABASE"
refused 2 --cluster 15/main
refused 2 --backups /srv/first --s3-region eu
OA_CHANNEL_URL=http://127.0.0.1:9/hook refused 2 --channel none
OA_CHANNEL_SECRET=secret refused 2 --channel wecom
cp -p /etc/oa/oa.toml "$base/oa.toml"
sed -i 's|^repository = .*|repository = "s3://bucket/oa"|' /etc/oa/oa.toml
printf '\n[backup.s3]\nendpoint = "https://storage.example"\nregion = "eu"\naccess_key = "env:OTHER"\nsecret_key = "env:OTHER"\n' >>/etc/oa/oa.toml
OA_S3_SECRET_KEY=other refused 78 --backups s3://bucket/oa/ --s3-endpoint https://storage.example:443/ --s3-path-style --s3-region us
[[ $(wc -l <<<"$why") == 3 && $why == *"[backup.s3] of /etc/oa/oa.toml has none"* ]] || { echo "not all is said: $why"; exit 1; }
names '^region' /etc/oa/oa.toml
names '^secret_key' /etc/oa/oa.toml
cp -p "$base/oa.toml" /etc/oa/oa.toml
# Who else makes a schedule.
if [[ -d /var/spool/cron/crontabs ]] && command -v crontab >/dev/null; then
    echo '* * * * * oa-crawl drain' | crontab -u oa -
    refused 78 --timers cron
    crontab -u oa -r
fi
printf '#!/bin/sh\n' >/usr/local/sbin/cron && chmod 755 /usr/local/sbin/cron
/usr/local/sbin/oa-setup --timers cron
printf '\n[backup.copy]\nrepository = "/srv/copy"\n' >>/etc/oa/oa.toml
sed -i 's/^# @reboot oa oa-backup stream/@reboot oa oa-backup stream/; s/^5 /6 /' /etc/cron.d/oa
/usr/local/sbin/oa-setup --timers cron
grep -q '^6 ' /etc/oa/cron.d.former
grep -q '^@reboot oa oa-backup stream' /etc/cron.d/oa && grep -q '^0 .* oa oa-backup copy' /etc/cron.d/oa && ! grep '^6 ' /etc/cron.d/oa
/usr/local/sbin/oa-setup --timers none
[[ ! -e /etc/cron.d/oa ]]
cp -p "$base/oa.toml" /etc/oa/oa.toml
rm /etc/oa/cron.d.former
# Nor does the installation become another account's, or go to a place that nobody looks at.
for flags in "--user nobody" "--uninstall --user oa" "--prefix relative" "--uninstall --prefix /opt/nothing"; do
    code=0
    # shellcheck disable=SC2086
    "$3/scripts/install" $flags >/dev/null 2>&1 || code=$?
    [[ $code == 77 || $code == 2 || $code == 1 ]] && [[ $(stat -c %U /var/lib/oa) == oa && -x /usr/local/bin/oa-crawl ]] || { echo "scripts/install $flags ended with $code"; exit 1; }
done
export OA_CHANNEL_URL=http://127.0.0.1:9/hook
printf '
[[alert.channels]]
name = "log"
kind = "command"
command = ["true"]
' >>/etc/oa/oa.toml
refused 78 --channel webhook
unset OA_CHANNEL_URL
# As the message says: written into the configuration, it begins anew there, and the old one stays.
sed -i 's|^repository = .*|repository = "/srv/second"|' /etc/oa/oa.toml
well --backups /srv/second
[[ -e /srv/first/config && -e /srv/second/config ]]

# A table is the same one however it is written: nothing is written a second time, nor found to be missing.
whole="state_dir = '/var/lib/oa'
database = { url = 'env:DATABASE_URL' }
alert = { channels = [{ name = 'log', kind = 'command', command = ['true'] }] }
"
printf '%s[ "backup" ] # here\nrepository = "/srv/second"\npassword = "env:OA_BACKUP_PASSWORD"\nkind = "logical"\nverify_recovery = false\n' "$whole" >/etc/oa/oa.toml
cp /etc/oa/oa.toml "$base/before.toml"
well --backups /srv/second --channel none
cmp /etc/oa/oa.toml "$base/before.toml" || { echo "it was changed: $(diff "$base/before.toml" /etc/oa/oa.toml)"; exit 1; }
OA_CHANNEL_URL=http://127.0.0.1:9/hook refused 78 --channel webhook --backups /srv/other
names 'channels = ' /etc/oa/oa.toml
names '^repository' /etc/oa/oa.toml
printf '%sbackup = { "repository" = "/var/backups/oa", password = "env:OA_BACKUP_PASSWORD", kind = "logical", verify_recovery = false }\n' "$whole" >/etc/oa/oa.toml
well --backups '/srv/third ü 5%' --locale en
grep -q '^backup = { "repository" = "/srv/third ü 5%", password = ' /etc/oa/oa.toml && grep -q '^locale = "en"' /etc/oa/oa.toml && [[ -e '/srv/third ü 5%/config' ]] || { echo "not written: $(cat /etc/oa/oa.toml)"; exit 1; }
printf 'backup.repository = "/var/backups/oa"\nbackup.kind = "logical"\nbackup . "verify_recovery" = false\nbackup.password = "env:OA_BACKUP_PASSWORD"\n%s' "$whole" >/etc/oa/oa.toml
well --backups /srv/fourth
[[ -e /srv/fourth/config && $(grep -c '^backup.repository = "/srv/fourth"$' /etc/oa/oa.toml) == 1 ]] || { echo "not written: $(cat /etc/oa/oa.toml)"; exit 1; }
printf '[crawl\n' >/etc/oa/oa.toml
refused 78 --backups /srv/fourth
[[ $why == *"line 1 is no TOML"* ]] || { echo "it does not say where: $why"; exit 1; }
# With cron the page runs from now on, once, and ends with the schedule.
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
printf '%sreport = { listen = "127.0.0.1:%s" }\n' "$whole" "$port" >/etc/oa/oa.toml
page() { (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null; }
said=$(/usr/local/sbin/oa-setup --timers cron 2>&1)
[[ $said == *"started oa-report serve"* ]] && page || { echo "the page does not run: $said: $(cat /var/log/oa/report.log)"; exit 1; }
said=$(/usr/local/sbin/oa-setup --timers cron 2>&1)
[[ $said != *started* && $said != *"something else"* ]] && page || { echo "started twice: $said"; exit 1; }
/usr/local/sbin/oa-setup --timers none
! page || { echo "the page goes on"; exit 1; }
python3 -m http.server --bind 127.0.0.1 "$port" >/dev/null 2>&1 &
other=$!
for _ in $(seq 100); do ! page || break; sleep 0.1; done
said=$(/usr/local/sbin/oa-setup --timers cron 2>&1)
kill $other
[[ $said == *"something else answers at 127.0.0.1:$port"* ]] || { echo "another's port: $said"; exit 1; }
/usr/local/sbin/oa-setup --timers none

# A file for cron that cron does not take: the doctor's command mends it, word by word. Server and repository have nothing to do with it.
printf '[database]\nurl = "postgresql://oa@127.0.0.1:9/oa"\n' >/etc/oa/oa.toml
sudo() { "$@"; }
doctor() { (cd / && setpriv --reuid oa --regid oa --clear-groups env -i PATH=/usr/local/bin:/usr/bin:/bin oa-report doctor --format json || true); }
mended() { # mended WORDS; of the line that is wrong
    local line
    line=$(doctor | grep "$1" | grep '"state":"error"') || { echo "the doctor does not see: $1: $(doctor)"; exit 1; }
    eval "$(python3 -c 'import json, sys; print(json.loads(sys.argv[1].splitlines()[0])["command"])' "$line")" >/dev/null 2>&1 || true
    ! doctor | grep "$1" || { echo "its command does not mend: $line"; exit 1; }
}
if doctor | grep '"check":"schedule"' | grep -v 'nothing starts'; then exit 1; fi
cp /usr/local/share/oa/cron.d /etc/cron.d/oa
doctor | grep -q 'everything has a line or a timer' || { echo "not everything has a line: $(doctor)"; exit 1; }
chmod 666 /etc/cron.d/oa && mended 'it must belong to root'
mv /etc/cron.d/oa /etc/cron.d/oa.cron && mended 'letters, digits'
mv /etc/cron.d/oa-cron /etc/cron.d/oa
printf '* * * * * oa oa-crawl drain' >>/etc/cron.d/oa && mended 'its last line does not end'
sed -i 's/$/\r/' /etc/cron.d/oa && mended 'line ends of Windows'
rm -r /var/log/oa && mended 'does not exist'
chown root /var/log/oa && mended 'may not write to'
mount -t tmpfs -o ro tmpfs /var/log/oa && mended 'mounted read-only'
umount /var/log/oa
mount -t tmpfs -o ro,mode=0700,uid="$(id -u oa)" tmpfs /var/lib/oa && mended 'Read-only file system'
umount /var/lib/oa
zones=/usr/share/zoneinfo
[[ ! -e $zones/Asia/Shanghai ]] || ln -sf $zones/America/New_York /etc/localtime
chmod 600 /etc/cron.d/oa && mended 'may not read /etc/cron.d/oa'
found=$(doctor)
[[ $found == *'everything has a line or a timer'* ]] || { echo "not everything is mended: $found"; exit 1; }
[[ ! -e $zones/Asia/Shanghai || -e /usr/sbin/crond || $found == *'"check":"time zone"'*'America/New_York'* ]] || { echo "cron's hours are others: $found"; exit 1; }
"#;

#[test]
fn setup_refuses_what_it_would_ignore_and_the_doctor_mends_what_cron_ignores() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: only root can install and mount");
        return;
    }
    let dir = tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o755))
        .tempdir()
        .unwrap();
    let server = Postgres::start();
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "bash", "-euo", "pipefail", "-c", script, "_"])
            .arg(dir.path())
            .arg(program("oa-crawl").parent().unwrap())
            .arg(workspace_root())
            .env("DATABASE", format!("{}?connect_timeout=5", server.url()))
            .env_remove("DATABASE_URL");
        command.output().unwrap()
    };
    if !unshared("mount --make-rprivate /").status.success() {
        println!("skipped: this machine lets nobody mount");
        return;
    }
    let done = unshared(MACHINE);
    assert!(done.status.success(), "{}", said(&done));
}

/// A newer version is not replaced, and what was collected outlives the programs.
fn downgrade_and_uninstall(machine: &Machine) {
    for place in [
        "/usr/local/sbin/oa-setup",
        "/usr/local/share/man/man1/oa-crawl-run.1.gz",
        "/usr/local/share/bash-completion/completions/oa-crawl",
        "/usr/local/lib/systemd/system/oa-crawl.timer",
        "/usr/local/lib/systemd/system/oa-backup-stream.service",
        "/usr/local/lib/systemd/system/oa-alert-listen.service",
        "/usr/local/share/oa/cron.d",
        "/usr/local/share/oa/prometheus-rules.yml",
        "/usr/local/share/oa/grafana-dashboard.json",
    ] {
        assert!(machine.at(place).is_file(), "{place}");
    }
    // Every line of it names the account, also those that somebody will switch on.
    let cron = fs::read_to_string(machine.at("/usr/local/share/oa/cron.d")).unwrap();
    for line in cron.lines().map(|l| l.strip_prefix("# ").unwrap_or(l)) {
        if line.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '*' | '@')) {
            assert!(line.contains(&format!(" {USER} oa-")), "{line}");
        }
    }
    let program = machine.at("/usr/local/bin/oa-crawl");
    fs::remove_file(&program).unwrap();
    fs::write(&program, "#!/bin/sh\necho oa-crawl 99.0.0\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let refused = machine.install();
    assert_eq!(refused.status.code(), Some(77), "{}", said(&refused));
    assert!(
        said(&refused).contains("does not know its schema"),
        "{}",
        said(&refused)
    );
    let removed = Command::new(workspace_root().join("scripts/install"))
        .arg("--uninstall")
        .env("DESTDIR", machine.root())
        .output()
        .unwrap();
    assert!(removed.status.success(), "{}", said(&removed));
    for gone in [
        "/usr/local/bin/oa-crawl",
        "/usr/local/share/oa",
        "/etc/logrotate.d/oa",
    ] {
        assert!(!machine.at(gone).exists(), "{gone}");
    }
    let units = fs::read_dir(machine.at("/usr/local/lib/systemd/system")).unwrap();
    let units: Vec<_> = units.map(|unit| unit.unwrap().file_name()).collect();
    assert!(units.is_empty(), "{units:?}");
    for kept in [
        "/etc/oa/.env",
        "/var/lib/oa",
        "/var/backups/oa/config",
        "/var/log/oa/crawl.log",
    ] {
        assert!(machine.at(kept).exists(), "{kept}");
    }
}

/// The page is up, the programs are replaced below it, the configuration stays.
fn serve_and_upgrade(machine: &Machine, line: &str, settings: &[(String, String)]) {
    let mut page = machine
        .shell(USER, &format!("exec {line}"), settings)
        .spawn()
        .unwrap();
    let log = machine.at("/var/log/oa/report.log");
    wait_until("the page listens", Duration::from_secs(60), || {
        fs::read_to_string(&log).is_ok_and(|text| text.contains("/admin/"))
    });
    let before = fs::read(machine.at("/etc/oa/oa.toml")).unwrap();
    let again = machine.install();
    assert!(again.status.success(), "{}", said(&again));
    assert_eq!(fs::read(machine.at("/etc/oa/oa.toml")).unwrap(), before);
    assert!(page.try_wait().unwrap().is_none(), "it goes on");
    let doctor = "oa-report doctor --format json";
    let found = machine.shell(USER, doctor, settings).output().unwrap();
    assert!(
        said(&found).contains("was started before the upgrade"),
        "{}",
        said(&found)
    );
    let _ = rustix::process::kill_process(
        rustix::process::Pid::from_child(&page),
        rustix::process::Signal::TERM,
    );
    page.wait().unwrap();
}

fn check_modes(machine: &Machine) {
    for (path, mode, owner) in [
        ("/etc/oa", 0o750, 0),
        ("/etc/oa/oa.toml", 0o640, 0),
        ("/etc/oa/.env", 0o640, 0),
        ("/var/lib/oa", 0o700, 65_534),
        ("/var/log/oa", 0o750, 65_534),
        ("/var/backups/oa", 0o700, 65_534),
        ("/usr/local/bin/oa-crawl", 0o755, 0),
        ("/etc/logrotate.d/oa", 0o644, 0),
    ] {
        let found = fs::metadata(machine.at(path)).unwrap();
        assert_eq!(
            (found.mode() & 0o7777, found.uid()),
            (mode, owner),
            "{path}"
        );
    }
}
