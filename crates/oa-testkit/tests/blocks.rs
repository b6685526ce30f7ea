//! Every block of commands in the pages is run, here or by a test that is named, or has a reason why not.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "blocks/stories.rs"]
mod stories;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use stories::{By, COLLECTED, Do, ELSEWHERE, Not, RESTORED, Run, ServerGone, Step, Then};

use oa_testkit::{Postgres, program, workspace_root, write_private};

const PASSWORD: &str = "on-paper-only";

fn steps() -> impl Iterator<Item = &'static Step> {
    COLLECTED.iter().chain(RESTORED)
}

#[derive(Debug)]
struct Block {
    page: String,
    cron: bool,
    lines: Vec<String>,
}

impl Block {
    fn begins(&self, page: &str, first: &str) -> bool {
        self.page == page && self.lines[0].starts_with(first)
    }
}

/// Blocks of shell (```` ```sh ````) and of a crontab (```` ```cron ````), and how blocks of commands begin that say of neither what they are.
fn blocks() -> (Vec<Block>, Vec<String>) {
    let root = workspace_root();
    let mut pages = vec!["README.md".to_owned(), "README.zh-CN.md".to_owned()];
    for folder in ["docs", "docs/zh"] {
        let names = fs::read_dir(root.join(folder)).unwrap().map(Result::unwrap);
        let names = names.map(|e| format!("{folder}/{}", e.file_name().display()));
        pages.extend(names.filter(|n| Path::new(n).extension().is_some_and(|e| e == "md")));
    }
    let (mut found, mut unsaid) = (Vec::new(), Vec::new());
    for page in pages {
        let text = fs::read_to_string(root.join(&page)).unwrap();
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            let Some(language) = line.trim_start().strip_prefix("```") else {
                continue;
            };
            let depth = line.len() - line.trim_start().len();
            let body: Vec<String> = lines
                .by_ref()
                .take_while(|l| !l.trim_start().starts_with("```"))
                .map(|l| l.get(depth..).unwrap_or_default().to_owned())
                .collect();
            let block = Block {
                page: page.clone(),
                cron: language == "cron",
                lines: body,
            };
            if matches!(language, "sh" | "cron") {
                found.push(block);
            } else if block
                .lines
                .iter()
                .any(|l| l.starts_with("oa-") && !l.contains('◀') || l.starts_with("sudo "))
            {
                unsaid.push(format!("{page}: {}", block.lines[0]));
            }
        }
    }
    (found, unsaid)
}

#[test]
fn every_block_of_commands_in_the_pages_is_run_or_says_why_not() {
    let (blocks, unsaid) = blocks();
    assert!(unsaid.is_empty(), "not marked as sh or cron: {unsaid:#?}");
    let (mut here, mut elsewhere, mut not, mut nowhere) = (0, 0, 0, Vec::new());
    for block in &blocks {
        let run = steps().any(|s| matches!(s, Run(page, first) if block.begins(page, first)));
        let other = ELSEWHERE
            .iter()
            .find(|(page, first, _)| block.begins(page, first));
        match (run, other) {
            (true, None) => here += 1,
            (false, Some((_, _, By(_)))) => elsewhere += 1,
            (false, Some((_, _, Not(_)))) => not += 1,
            (true, Some(_)) => nowhere.push(format!("both: {block:?}")),
            (false, None) => nowhere.push(format!("neither: {block:?}")),
        }
    }
    assert!(nowhere.is_empty(), "{nowhere:#?}");
    for (page, first, how) in ELSEWHERE {
        assert!(
            blocks.iter().any(|b| b.begins(page, first)),
            "{page} has no {first}"
        );
        match how {
            By(test) => assert!(workspace_root().join(test).is_file(), "{test}"),
            Not(reason) => assert!(!reason.is_empty()),
        }
    }
    for step in steps() {
        if let Run(page, first) = step {
            assert!(
                blocks.iter().any(|b| b.begins(page, first)),
                "{page} has no {first}"
            );
        }
    }
    println!(
        "{} blocks: {here} run here, {elsewhere} by other tests, {not} not in CI",
        blocks.len()
    );
    assert!(
        here > 2 * not,
        "{here} of {} blocks are run, {not} not",
        blocks.len()
    );
}

/// What a machine of the pages has besides the programs. Nothing is asked here, so that what destroys gets --yes; what runs for ever is ended when
/// it has said its first words.
const PRELUDE: &str = r#"
sudo() { while [[ $1 == -* ]]; do [[ $1 != -u ]] || shift; shift; done; "$@"; }
runuser() { shift 3; "$@"; }
crontab() { :; }
type jq >/dev/null 2>&1 || jq() { cat; }
oa-migrate() {
    case $1 in
    dedupe) command oa-migrate "$@" --yes ;;
    *) command oa-migrate "$@" ;;
    esac
}
oa-restore() {
    case $1 in
    cluster) command oa-restore "$@" --port "$RESTORED_PORT" --yes ;;
    table | database | drill | files) command oa-restore "${@/--yes/-q}" --yes ;;
    *) command oa-restore "$@" ;;
    esac
}
oa-report() {
    case " $* " in
    *" --run ID "*)
        local id
        id=$(command oa-report logs --format json | sed -n 's/.*"id": *"\([^"]*\)".*/\1/p' | sed -n 1p)
        command oa-report "${@/#ID/$id}"
        ;;
    *" serve "* | *" --follow "*)
        local words=$PWD/words process
        rm -f "$words"
        command oa-report "$@" >"$words" &
        process=$!
        until [[ -s $words ]]; do kill -0 "$process" || return 1; done
        kill "$process"
        wait "$process" || true
        ;;
    *) command oa-report "$@" ;;
    esac
}
"#;

/// Commands whose exit code says what they found: there is something to find.
const FOUND: &[(&str, &[i32])] = &[
    ("oa-report health", &[0, 1, 2, 10, 20]),
    ("oa-report days --fail-on", &[0, 10, 20]),
    ("oa-report doctor", &[0, 1]),
    ("oa-backup doctor", &[0, 1]),
    ("oa-backup status", &[0, 1]),
    ("oa-alert check", &[0, 1, 2]),
    ("oa-report why", &[0, 1]),
    ("oa-crawl try my-quotes.toml --body", &[0, 1]),
];

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server whose first line says where it listens.
fn listening(command: &mut Command) -> (Ended, String) {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    let words: Vec<&str> = line.split_whitespace().collect();
    // `listening on URL` of the simulator, `Serving HTTP on ADDRESS port PORT (URL/) ...` of Python.
    let url = words.iter().find_map(|w| {
        w.find("http://")
            .map(|at| w[at..].trim_end_matches(['/', ')']).to_owned())
    });
    (Ended(child), url.unwrap_or_else(|| panic!("{line}")))
}

struct World {
    dir: tempfile::TempDir,
    server: Postgres,
    _processes: [Ended; 2],
    /// Words of the pages, and what they are here.
    here: Vec<(String, String)>,
    restored_port: u16,
    done: BTreeSet<String>,
    failures: Vec<String>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop_restored();
    }
}

impl World {
    fn new() -> Self {
        let dir = oa_testkit::temp_dir();
        let root = dir.path().to_owned();
        // The server's account walks through it to what is restored.
        fs::set_permissions(&root, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let server = Postgres::start();
        for folder in [
            "etc/oa/sources",
            "var/log/oa",
            "var/www/html",
            "var/lib/postgresql",
            "srv",
            "work/saved",
            "work/crawlers",
            "opt/service/jobs",
            "site/api",
        ] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        let (sim, sites) = listening(
            Command::new(program("oa-sim"))
                .args(["--fault", "/zhihui/api/report/viewPoint/listPage: 502"]),
        );
        let mut site = Command::new("python3");
        site.args([
            "-u",
            "-m",
            "http.server",
            "0",
            "--bind",
            "127.0.0.1",
            "--directory",
        ])
        .arg(root.join("site"));
        let (quotes, quotes_url) = listening(&mut site);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut here: Vec<(String, String)> = [
            "/etc/oa",
            "/var/lib/oa",
            "/var/log/oa",
            "/var/backups/oa",
            "/var/www/html",
            "/var/lib/postgresql/restored",
            "/srv/restored-files",
            "/mnt/backup",
            "/opt/service",
        ]
        .iter()
        .map(|p| ((*p).to_owned(), format!("{}{p}", root.display())))
        .collect();
        here.push(("https://quotes.example.com".to_owned(), quotes_url));
        here.push(("psql -p 5432".to_owned(), format!("psql -p {port}")));
        here.push(("'…'".to_owned(), format!("'{PASSWORD}'")));
        let world = Self {
            dir,
            server,
            _processes: [sim, quotes],
            here,
            restored_port: port,
            done: BTreeSet::new(),
            failures: Vec::new(),
        };
        world.write_files(&sites);
        world
    }

    /// Ends the server that `oa-restore cluster --start` has started, and removes what was restored.
    fn stop_restored(&self) {
        let data = self.at("var/lib/postgresql/restored");
        let pid = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
        if let Some(pid) = pid.lines().next() {
            let ended = || !Path::new("/proc").join(pid).exists();
            let _ = Command::new("kill").args(["-INT", pid]).status();
            oa_testkit::wait_until("the restored server ends", Duration::from_secs(60), ended);
        }
        let _ = fs::remove_dir_all(data);
        let _ = fs::remove_dir_all(self.at("srv/restored-files"));
    }

    fn at(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn write_files(&self, sites: &str) {
        let root = self.dir.path().display();
        let providers: String = [
            "zhihui",
            "fangqi",
            "jiaoyikecha",
            "openvlab",
            "rongda",
            "rdqh",
        ]
        .iter()
        .map(|p| format!("[providers.{p}]\nbase = \"{sites}/{p}\"\n"))
        .collect();
        let config = format!(
            "state_dir = \"{root}/var/lib/oa\"\n[database]\nurl = \"env:DATABASE_URL\"\n\
             [crawl]\nenable = []\nretries = 0\nsources = \"{root}/etc/oa/sources\"\n{providers}\
             [report]\nlisten = \"127.0.0.1:0\"\n\
             [[alert.channels]]\nname = \"ops\"\nkind = \"dingtalk\"\nurl = \"env:ROBOT\"\n\
             [backup]\nrepository = \"{root}/var/backups/oa\"\npassword = \"env:OA_BACKUP_PASSWORD\"\nretries = 0\nverify_recovery = false\npaths = [\"{root}/etc/oa\"]\n\
             [backup.copy]\nrepository = \"{root}/mnt/elsewhere/oa\"\n"
        );
        fs::write(self.at("etc/oa/oa.toml"), config).unwrap();
        let secrets = format!(
            "DATABASE_URL={}\nOA_BACKUP_PASSWORD={PASSWORD}\nZHIHUI_AUTH_TOKEN=sim-token\nROBOT={sites}/dingtalk/robot/send?access_token=t\n",
            self.server.superuser_url()
        );
        write_private(&self.at("etc/oa/.env"), secrets);
        // The site and the source file of docs/new-source.md.
        let records: Vec<String> = ["rb2601", "hc2601", "i2601"]
            .iter()
            .map(|c| format!("{{\"contract\": \"{c}\", \"close\": \"3,100.5\"}}"))
            .collect();
        let answer = format!(
            "{{\"data\": {{\"list\": [{}], \"count\": 3}}}}",
            records.join(", ")
        );
        fs::write(self.at("site/api/daily"), &answer).unwrap();
        fs::write(self.at("work/saved/answer.json"), answer).unwrap();
        let page = fs::read_to_string(workspace_root().join("docs/new-source.md")).unwrap();
        let source = page
            .split("```toml\n")
            .nth(1)
            .unwrap()
            .split("```")
            .next()
            .unwrap();
        // This site has the same on every day.
        let source = source.replacen("\n[fetch]", "may_repeat = true\n\n[fetch]", 1);
        fs::write(
            self.at("work/saved/my-quotes.toml"),
            self.translate(&source),
        )
        .unwrap();
        let collector = "import json\nfor n in range(50):\n    print(json.dumps({\"n\": n}))\n";
        for place in [
            "work/crawlers/fangqi.py",
            "opt/service/jobs/virtual_real_ratio.py",
            "opt/service/jobs/daily_analysis.py",
        ] {
            fs::write(self.at(place), collector).unwrap();
        }
        let made = Command::new(program("oa-sim"))
            .arg("--make-legacy-db")
            .arg(self.at("work/option_tracker.db"))
            .status();
        assert!(made.unwrap().success());
    }

    fn translate(&self, text: &str) -> String {
        self.here
            .iter()
            .fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// A script as somebody in that folder would give it; what the pages call a time in the past is the last time at which a backup had all.
    fn shell(&mut self, place: &str, script: &str) {
        let command = script.lines().next().unwrap_or_default();
        let command = command.split(" #").next().unwrap_or_default();
        let command = command
            .trim_start_matches("sudo -u oa ")
            .trim_start_matches("sudo ");
        // What takes long is done once; an incremental backup by cron is what comes after the times of the pages.
        let command =
            ["full", "verify", "prune", "drill"]
                .iter()
                .fold(command.to_owned(), |c, verb| {
                    c.replace(&format!("{verb} --cron"), verb)
                        .replace(&format!("{verb} --yes"), verb)
                });
        let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
        let alone = script.lines().count() == 1;
        if alone && !self.done.insert(command.clone()) {
            return;
        }
        let programs = program("oa-crawl").parent().unwrap().display().to_string();
        let path = format!(
            "{programs}:{}:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            self.server.programs().display()
        );
        let superuser = self.server.superuser_url();
        let password = superuser
            .split(':')
            .nth(2)
            .unwrap()
            .split('@')
            .next()
            .unwrap();
        let began = std::time::Instant::now();
        let done = Command::new("timeout")
            .args(["300", "bash", "-uo", "pipefail", "-c"])
            .arg(format!("{PRELUDE}\n{}", self.translate(script)))
            .current_dir(self.at("work"))
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.at("work"))
            .env("LC_ALL", "C.UTF-8")
            .env("OA_CONFIG", self.at("etc/oa/oa.toml"))
            .env("RESTORED_PORT", self.restored_port.to_string())
            .envs([
                ("PGHOST", "127.0.0.1"),
                ("PGUSER", "postgres"),
                ("PGDATABASE", "oa"),
                ("PGPASSWORD", password),
            ])
            .env("PGPORT", self.server.port().to_string())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let code = done.status.code().unwrap_or(-1);
        println!(
            "{:6.1} s, exit {code}: {command}",
            began.elapsed().as_secs_f64()
        );
        let found = FOUND.iter().find(|(c, _)| command.starts_with(c));
        if !found.map_or(&[0][..], |(_, codes)| codes).contains(&code) {
            let (out, err) = (
                String::from_utf8_lossy(&done.stdout),
                String::from_utf8_lossy(&done.stderr),
            );
            self.failures
                .push(format!("{place}: {script}\nexit {code}\n{out}{err}"));
        }
    }

    fn block(&mut self, block: &Block) {
        if block.cron {
            for line in &block.lines {
                let command: Vec<&str> = line.split_whitespace().skip(5).collect();
                self.shell(&block.page, &command.join(" "));
            }
            return;
        }
        // Lines that belong together.
        let whole = block
            .lines
            .iter()
            .any(|l| l.contains("<<") || l.starts_with("export ") || l.starts_with("for "));
        if whole {
            self.shell(&block.page, &block.lines.join("\n"));
            return;
        }
        for line in block
            .lines
            .iter()
            .filter(|l| !l.is_empty() && !l.starts_with('#'))
        {
            self.shell(&block.page, line);
        }
    }
}

fn follow(story: &[Step]) {
    let (blocks, _) = blocks();
    let mut world = World::new();
    for step in story {
        match step {
            Do(line) => world.shell("between the pages", line),
            Run(page, first) => {
                let block = blocks.iter().find(|b| b.begins(page, first)).unwrap();
                world.block(block);
            }
            Then => {
                let now = "SELECT to_char(clock_timestamp() AT TIME ZONE 'Asia/Shanghai', 'YYYY-MM-DD HH24:MI:SS.US')";
                let now: String = world.server.connect().query_one(now, &[]).unwrap().get(0);
                for past in ["2026-11-23 14:05", "2025-12-01 16:00", "10 min ago"] {
                    world.here.push((past.to_owned(), now.clone()));
                }
            }
            ServerGone => {
                world.server.stop();
                world.stop_restored();
                world.done.clear();
            }
        }
    }
    let failures = &world.failures;
    assert!(
        failures.is_empty(),
        "{} failed:\n\n{}",
        failures.len(),
        failures.join("\n\n")
    );
}

#[test]
fn the_pages_followed_word_by_word_migrate_collect_notify_and_report() {
    follow(COLLECTED);
}

#[test]
fn the_pages_followed_word_by_word_back_up_restore_and_survive_the_loss_of_the_machine() {
    follow(RESTORED);
}
