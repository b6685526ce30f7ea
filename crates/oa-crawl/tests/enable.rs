//! Sources are off until somebody enables them, and nothing is expected of one that is off.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{Done, Service};
use oa_testkit::Terminal;

fn alerts_check(service: &Service) -> Done {
    Command::new(oa_testkit::program("oa-alert"))
        .arg("--config")
        .arg(service.config())
        .args(["check", "--format", "json"])
        .env("DATABASE_URL", &service.url)
        .output()
        .unwrap()
        .into()
}

fn scheduled(service: &Service) -> String {
    service.text("SELECT coalesce(string_agg(name, ' ' ORDER BY name), 'none') FROM oa.tasks WHERE schedule IS NOT NULL AND next_due_at IS NOT NULL")
}

fn due(service: &Service) -> Done {
    service.crawl(&["run", "--due"])
}

/// As if every task had been due an hour ago and nobody had come.
fn let_an_hour_pass(service: &Service) {
    let sql = "INSERT INTO oa.slots (task, due_at, day) SELECT name, now() - interval '1 hour', now()::date FROM oa.tasks WHERE next_due_at IS NOT NULL";
    service.db().batch_execute(sql).unwrap();
}

#[test]
fn a_fresh_install_asks_no_site_and_alerts_about_nothing() {
    let service = Service::start();
    let example = oa_testkit::workspace_root().join("oa.example.toml");
    let text = fs::read_to_string(example).unwrap();
    let state = format!("state_dir = \"{}\"", service.state().display());
    fs::write(
        service.config(),
        text.replace("state_dir = \"/var/lib/oa\"", &state),
    )
    .unwrap();
    let first = due(&service);
    assert_eq!(first.code, 0, "{first:?}");
    assert!(first.stderr.contains("oa-crawl enable"), "{first:?}");
    let second = due(&service);
    assert_eq!(
        (second.code, second.stderr.as_str()),
        (0, ""),
        "each minute it would be noise"
    );
    let all = service.crawl(&["run", "--all"]);
    assert!(
        all.code == 0 && all.stderr.contains("oa-crawl enable"),
        "{all:?}"
    );
    let check = alerts_check(&service);
    assert_eq!((check.code, check.stdout.as_str()), (0, ""), "{check:?}");
    for table in ["oa.alerts", "oa.runs", "oa.tasks"] {
        assert_eq!(service.count(table), 0, "{table}");
    }
    let listed = service.crawl(&["list", "--format", "json"]).rows();
    assert_eq!(listed.len(), 26);
    assert!(
        listed
            .iter()
            .all(|r| r["state"] == "off" && r["next_due"].is_null())
    );
}

#[test]
fn only_what_is_enabled_is_expected_and_what_is_disabled_is_forgotten() {
    let service = Service::start();
    service.configure_crawl("enable = []\n");
    assert_eq!(
        service.run("zhihui-full-view").code,
        0,
        "by name, for a day"
    );
    let by_hand = service.crawl(&["run", "fangqi-night"]);
    assert_eq!(by_hand.code, 0, "by name, now: {by_hand:?}");
    assert_eq!(scheduled(&service), "none");
    let on = service.crawl(&["enable", "zhihui", "fangqi-night", "--try"]);
    assert_eq!(on.code, 0, "{on:?}");
    let tried = |task: &str| {
        on.stdout
            .lines()
            .any(|line| line.trim_start().starts_with(task))
    };
    assert!(tried("zhihui-reports") && tried("fangqi-night"), "{on:?}");
    service.sim.fault("/fangqi: 500").unwrap();
    let fails = service.crawl(&["enable", "fangqi-night", "--try"]);
    assert!(
        fails.code == 1 && fails.stdout.contains("HTTP 500"),
        "{fails:?}"
    );
    service.sim.clear_faults();
    due(&service);
    let all = "fangqi-night zhihui-full-view zhihui-reports zhihui-varieties";
    assert_eq!(scheduled(&service), all);
    assert_eq!(service.crawl(&["disable", "zhihui-reports"]).code, 0);
    assert_eq!(
        scheduled(&service),
        "fangqi-night zhihui-full-view zhihui-varieties",
        "at once"
    );
    // By hand, in the file.
    let text = fs::read_to_string(service.config()).unwrap();
    let text = text.replace("\"zhihui-varieties\"", "");
    fs::write(service.config(), text).unwrap();
    due(&service);
    assert_eq!(scheduled(&service), "fangqi-night zhihui-full-view");
    let_an_hour_pass(&service);
    let missed = alerts_check(&service).stdout;
    assert!(
        missed.contains("fangqi-night") && missed.contains("zhihui-full-view"),
        "{missed}"
    );
    assert!(
        !missed.contains("zhihui-reports") && !missed.contains("zhihui-varieties"),
        "{missed}"
    );
    assert_eq!(service.crawl(&["disable", "--all"]).code, 0);
    assert_eq!(scheduled(&service), "none");
    let check = alerts_check(&service);
    assert_eq!(check.code, 0, "{check:?}");
    assert_eq!(
        service.count("oa.incidents WHERE resolved_at IS NULL"),
        0,
        "resolved"
    );
    // And back again.
    assert_eq!(service.crawl(&["enable", "zhihui-reports"]).code, 0);
    due(&service);
    assert_eq!(scheduled(&service), "zhihui-reports");
    assert_eq!(
        service.count("oa.tasks WHERE name = 'zhihui-reports' AND forgotten_at IS NULL"),
        1
    );
}

#[test]
fn an_upgrade_that_would_end_all_collecting_is_loud() {
    let mut service = Service::start();
    due(&service);
    assert!(scheduled(&service).contains("zhihui-full-view"));
    // The file of a version in which everything was on.
    service.configure_crawl("skip = [\"fangqi-morning\", \"fangqi-night\"]\n");
    fs::remove_file(service.state().join("enabled")).unwrap();
    for command in [&["run", "--due"][..], &["run", "--all"]] {
        let done = service.crawl(command);
        assert_eq!(done.code, 78, "{done:?}");
        assert!(
            done.stderr
                .contains("oa-crawl enable jiaoyikecha-blueprint")
                && !done.stderr.contains("fangqi"),
            "{done:?}"
        );
    }
    let_an_hour_pass(&service);
    let found = alerts_check(&service);
    assert!(
        found.code != 0 && found.stdout.contains("zhihui-full-view"),
        "the phone rings too: {found:?}"
    );
    // One line a source in the crontab goes on.
    let own = service.crawl(&["run", "--cron", "zhihui-reports"]);
    assert_eq!(own.code, 0, "{own:?}");
    // The advice is true, and what it does not name is resolved.
    assert_eq!(service.crawl(&["enable", "zhihui-full-view"]).code, 0);
    assert_ne!(due(&service).code, 78);
    assert_eq!(scheduled(&service), "zhihui-full-view");
    service.server.stop();
    service.configure_crawl("");
    assert_eq!(
        due(&service).code,
        75,
        "nobody can say whether anything ran"
    );
}

#[test]
fn enable_keeps_the_operators_file() {
    let service = Service::start();
    let before = "# mine\nstate_dir = \"state\" # here\n\n[crawl]   # sites\nparallel = 2\nenable = [] # none yet\n# the end\n\n[database]\nurl = \"env:DATABASE_URL\"\n";
    let config = service.config();
    fs::write(&config, before).unwrap();
    fs::set_permissions(&config, fs::Permissions::from_mode(0o640)).unwrap();
    let done = service.crawl(&["enable", "rdqh", "zhihui-reports", "zhihui"]);
    assert_eq!(done.code, 0, "{done:?}");
    assert_eq!(
        done.stdout,
        "enabled: rdqh-indicators, zhihui-full-view, zhihui-reports, zhihui-varieties\n"
    );
    let now = fs::read_to_string(&config).unwrap();
    assert_eq!(
        now,
        before.replace("enable = []", "enable = [\"rdqh\", \"zhihui\"]")
    );
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&config), 0o640);
    let inode = || std::os::unix::fs::MetadataExt::ino(&fs::metadata(&config).unwrap());
    let unchanged = inode();
    assert_eq!(service.crawl(&["enable", "zhihui-reports"]).code, 0);
    assert_eq!(inode(), unchanged, "it is on already");
    assert_eq!(service.crawl(&["disable", "zhihui-reports"]).code, 0);
    let now = fs::read_to_string(&config).unwrap();
    assert!(
        now.contains("enable = [\"rdqh\", \"zhihui-full-view\", \"zhihui-varieties\"] # none yet"),
        "{now}"
    );
    // A link stays one, and a file without the section gets it.
    let real = service.dir.path().join("real.toml");
    fs::write(&real, "state_dir = \"state\"\n").unwrap();
    fs::remove_file(&config).unwrap();
    std::os::unix::fs::symlink(&real, &config).unwrap();
    assert_eq!(service.crawl(&["enable", "--all"]).code, 0);
    let now = fs::read_to_string(&real).unwrap();
    assert!(
        now.starts_with("state_dir = \"state\"\n")
            && now.contains("[crawl]\nenable = [\"cffex\", \"czce\", \"dce\", \"fangqi\", \"gfex\", \"ine\", \"jiaoyikecha\", \"openvlab\", \"rdqh\", \"rongda\", \"shfe\", \"zhihui\"]\n"),
        "{now}"
    );
    assert!(fs::symlink_metadata(&config).unwrap().is_symlink());
    let wrong = service.crawl(&["enable", "zhihu"]);
    assert_eq!(wrong.code, 2);
    assert!(
        wrong.stderr.contains("did you mean \"zhihui\"?"),
        "{wrong:?}"
    );
}

#[test]
fn on_a_terminal_enable_asks_for_what_is_missing_and_shows_none_of_it() {
    let service = Service::start();
    service.configure("enable = []\n");
    let dir = service.dir.path();
    let variables = dir.join(".env");
    let known = fs::read_to_string(&variables).unwrap();
    let token = known
        .lines()
        .find_map(|l| l.strip_prefix("ZHIHUI_AUTH_TOKEN="));
    let token = token.unwrap().trim_matches('\'').to_owned();
    oa_testkit::write_private(&variables, "OTHER=1");
    // As it is installed: the service reads it by its group.
    fs::set_permissions(&variables, fs::Permissions::from_mode(0o640)).unwrap();
    let mut terminal = Terminal::run(
        service
            .command(&["enable", "zhihui-full-view"])
            .current_dir(dir),
    );
    terminal.wait_for("ZHIHUI_AUTH_TOKEN, for zhihui-full-view (empty: later): ");
    terminal.press(&format!("{token}\n"));
    assert!(terminal.end().success(), "{}", terminal.screen());
    let screen = terminal.screen();
    assert!(!screen.contains(&token), "{screen}");
    assert_eq!(
        fs::read_to_string(&variables).unwrap(),
        format!("OTHER=1\nZHIHUI_AUTH_TOKEN='{token}'\n")
    );
    let mode = fs::metadata(&variables).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640);
    assert_eq!(service.crawl(&["run", "zhihui-full-view"]).code, 0);
}

#[test]
fn a_question_that_is_broken_off_leaves_the_terminal_as_it_was() {
    let service = Service::start();
    service.configure("enable = []\n");
    let dir = service.dir.path();
    fs::remove_file(dir.join(".env")).unwrap();
    let mut terminal = Terminal::run_within(
        service
            .command(&["enable", "zhihui-full-view"])
            .current_dir(dir),
        |enable| format!("trap : INT; {enable}; stty -a > modes"),
    );
    terminal.wait_for("ZHIHUI_AUTH_TOKEN, for zhihui-full-view (empty: later): ");
    terminal.press("\x03");
    assert!(terminal.end().success(), "{}", terminal.screen());
    let screen = terminal.screen();
    assert!(screen.contains("stopped by a signal"), "{screen}");
    let modes = fs::read_to_string(dir.join("modes")).unwrap();
    assert!(modes.split_whitespace().any(|m| m == "echo"), "{modes}");
}
