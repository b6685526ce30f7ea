//! The pages in a real Chromium: they load, filter, keep themselves up to date, acknowledge incidents, are accessible in both languages on
//! desk and phone, and take nothing that a site has put in for more than text. Screenshots are kept in `target/screenshots`.
//!
//! `scripts/setup --tests` installs what is needed below `target/browser`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use common::{Site, TOKEN};

fn chromium() -> Option<PathBuf> {
    let names = [
        "chromium",
        "chromium-browser",
        "google-chrome",
        "google-chrome-stable",
    ];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .find_map(|folder| names.iter().map(|n| folder.join(n)).find(|p| p.is_file()))
}

fn in_the_browser(site: &Site, how: &str) {
    let root = oa_testkit::workspace_root();
    let installed = root.join("target/browser");
    let (Some(chromium), true) = (chromium(), installed.join("node_modules/axe-core").is_dir())
    else {
        oa_testkit::skip("Chromium and Playwright", "scripts/setup --tests");
        return;
    };
    let shots = root.join("target/screenshots");
    fs::create_dir_all(&shots).unwrap();
    // Beside the modules that it imports.
    let script = installed.join(format!("page-{how}-{}.mjs", std::process::id()));
    fs::copy(
        root.join("crates/oa-report/tests/browser/page.mjs"),
        &script,
    )
    .unwrap();
    let serving = site.serve(Some(TOKEN));
    let done = Command::new("node")
        .arg(&script)
        .args([&format!("http://{}/", serving.at), TOKEN])
        .arg(&shots)
        .arg(chromium)
        .arg(how)
        .arg(serving.pid().to_string())
        .arg(site.dir.path().join("go-on"))
        .output();
    let _ = fs::remove_file(&script);
    let done = done.unwrap();
    let report = format!(
        "{}{}",
        String::from_utf8_lossy(&done.stdout),
        String::from_utf8_lossy(&done.stderr)
    );
    println!("{report}");
    assert!(done.status.success(), "{report}");
}

const BACKUP: &str = "[report]\nstatus_page = true\n[backup]\nrepository = \"/var/backups/oa\"\npassword = \"env:OA_TEST_KEY\"\n";

#[test]
fn a_person_finds_everything_on_the_page() {
    let site = Site::with_token(BACKUP);
    // A program that prints now and then, until its file is gone.
    let go_on = site.dir.path().join("go-on");
    fs::write(&go_on, "").unwrap();
    let script = "n=0; while [ -e \"$0\" ]; do n=$((n+1)); echo \"page $n of a long list\"; sleep 0.2; done; echo done";
    let mut watched = Command::new(oa_testkit::program("oa-crawl"))
        .arg("--config")
        .arg(site.dir.path().join("oa.toml"))
        .args([
            "exec",
            "--task",
            "long-list",
            "--title",
            "长列表",
            "--",
            "sh",
            "-c",
            script,
        ])
        .arg(&go_on)
        .env("DATABASE_URL", site.server.url())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    in_the_browser(&site, "friendly");
    let _ = fs::remove_file(&go_on);
    assert!(watched.wait().unwrap().success());
}

#[test]
fn every_page_is_accessible_in_both_languages_on_desk_and_phone() {
    in_the_browser(&Site::with_token(BACKUP), "accessible");
}

#[test]
fn what_sites_and_programs_put_in_stays_text() {
    let site = Site::with_token(BACKUP);
    // Every text column of the schema that something outside can fill.
    let attack = r#"'><script>window.hit=1</script><img src=x onerror="window.hit=2"><svg onload=window.hit=3>"</title></pre><style>*{display:none}</style>'"#.replace('\'', "''");
    for (table, columns) in [
        ("tasks", "title last_error schedule last_status tool"),
        ("runs", "error_message error_kind host version tool"),
        ("attempts", "error_message error_kind"),
        ("rejects", "target source_key field reason"),
        ("raw", "url content_type sha256 part"),
        ("alerts", "title body rule"),
        ("incidents", "acknowledged_by note"),
        ("deliveries", "last_error channel"),
        (
            "backups",
            "id check_error host database repository parent_id",
        ),
        ("drills", "error host backup_id repository"),
        ("repositories", "repository"),
        ("silences", "reason by"),
        ("days", "evidence"),
        ("slots", "reason"),
    ] {
        for column in columns.split(' ') {
            // Keys must differ.
            let unique = if column == "id" || column == "channel" {
                "|| ctid::text"
            } else {
                ""
            };
            site.sql(&format!(
                "UPDATE oa.{table} SET {column} = '{attack}' {unique} WHERE true"
            ));
        }
    }
    let value = serde_json::json!({"<script>window.hit=1</script>": attack.replace("''", "'")})
        .to_string()
        .replace('\'', "''");
    site.sql(&format!(
        "UPDATE oa.rejects SET record = '{value}'; UPDATE oa.runs SET details = '{value}' WHERE status <> 'success'; UPDATE oa.drills SET checks = '[{value}]';
         UPDATE oa.quality SET findings = jsonb_build_array('{attack}');
         UPDATE oa.alerts SET event = jsonb_build_object('event', 'channel_refuses', 'channel', '{attack}', 'error', '{attack}') WHERE rule = 'run_missed'"
    ));
    in_the_browser(&site, "hostile");
}
