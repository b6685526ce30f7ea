//! docs/disaster.md is followed word by word, with Debian's restic and nothing of ours.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

use crate::support;

use std::fs;
use std::process::Command;

use support::{Service, stop};

/// The page's commands, in order, of one of its sections. Blocks within a list are indented.
fn commands(page: &str, section: &str) -> Vec<String> {
    let (_, rest) = page.split_once(&format!("\n{section}\n")).unwrap();
    let mut blocks = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for line in rest.lines() {
        if line.starts_with('#') && block.is_none() {
            break;
        }
        let indent = line.len() - line.trim_start().len();
        match (&mut block, line.trim()) {
            (None, "```sh") => block = Some((indent, String::new())),
            (Some(_), "```") => blocks.extend(block.take().map(|b| b.1)),
            (Some((depth, text)), _) => {
                text.push_str(line.get(*depth..).unwrap_or_default());
                text.push('\n');
            }
            _ => {}
        }
    }
    blocks
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

fn run(script: &str, service: &Service, password: &str) -> String {
    let script = if rustix::process::geteuid().is_root() {
        script.to_owned()
    } else {
        // Whoever is not root restores for himself.
        script
            .replace("runuser -u postgres -- ", "")
            .replace("chown -R postgres:", "true")
    };
    let output = Command::new("bash")
        .args(["-euc", &script])
        .current_dir("/")
        .env("HOME", service.dir.path())
        .env("PGPASSWORD", password)
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{script}\n{out}\n{err}");
    out
}

#[test]
fn the_page_brings_everything_back_with_restic_alone() {
    let mut service = Service::start();
    service.backup(&["init"]).ok();
    let me = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    if !rustix::process::geteuid().is_root() {
        // peer lets in whoever is called as the role.
        service.sql(&format!("CREATE ROLE \"{}\" SUPERUSER LOGIN", me.trim()));
    }
    service.sql("CREATE TABLE quotes AS SELECT generate_series(1, 1234) AS id");
    service.backup(&["full"]).ok();
    service.sql("INSERT INTO quotes VALUES (1235)");
    service.backup(&["incremental"]).ok();
    service.sql("CREATE TABLE later AS SELECT 1 AS id");
    service.backup(&["incremental"]).ok();
    service.server.stop();

    let page = fs::read_to_string(oa_testkit::workspace_root().join("docs/disaster.md")).unwrap();
    let blocks = commands(&page, "## With restic alone");
    assert_eq!(blocks.len(), 9, "{blocks:#?}");
    assert!(
        blocks[0].contains("apt-get install restic") && blocks[1].contains("RESTIC_REPOSITORY")
    );
    let (password, dir) = (service.path("password"), service.path("by-hand"));
    fs::write(&password, support::PASSWORD).unwrap();
    let settings = format!(
        "export RESTIC_REPOSITORY={}\nexport RESTIC_PASSWORD_FILE={}\nDIR={}\nDATABASE=oa\nPORT={}\n",
        service.path("repository").display(),
        password.display(),
        dir.display(),
        free_port()
    );
    let look = "runuser -u postgres -- psql -h /tmp -p \"$PORT\" -d \"$DATABASE\" -Atc 'SELECT count(*) FROM quotes' -c 'SELECT count(*) FROM later'\n";
    let script = settings + &blocks[2..].concat() + look;
    let out = run(&script, &service, "");
    assert!(out.ends_with("1235\n1\n"), "{out}");
    stop(&dir.join("data"));
}

#[test]
fn the_page_brings_a_dump_back_with_restic_alone() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.backup(&["init"]).ok();
    service.sql("CREATE ROLE reader; CREATE TABLE quotes AS SELECT generate_series(1, 99) AS id; GRANT SELECT ON quotes TO reader");
    service.backup(&["full"]).ok();
    let page = fs::read_to_string(oa_testkit::workspace_root().join("docs/disaster.md")).unwrap();
    let blocks = commands(&page, "### From a dump");
    let new = oa_testkit::Postgres::start();
    let url = new.superuser_url();
    postgres::Client::connect(&url.replace("/oa", "/postgres"), postgres::NoTls)
        .unwrap()
        .batch_execute("DROP DATABASE oa")
        .unwrap();
    let password = service.path("password");
    fs::write(&password, support::PASSWORD).unwrap();
    let settings = format!(
        "export RESTIC_REPOSITORY={} RESTIC_PASSWORD_FILE={} PGHOST=127.0.0.1 PGPORT={} PGUSER=postgres\nDIR={}\n",
        service.path("repository").display(),
        password.display(),
        new.port(),
        service.path("by-hand").display()
    );
    let secret = url.split(':').nth(2).unwrap().split('@').next().unwrap();
    run(&(settings + &blocks.concat()), &service, secret);
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    assert_eq!(support::count(&mut client, "quotes"), 99);
}

#[test]
fn the_page_brings_a_dump_into_a_newer_server() {
    let service = Service::start_with("kind = \"logical\"\n", &[]);
    service.backup(&["init"]).ok();
    service.sql("CREATE ROLE reader; CREATE TABLE quotes AS SELECT generate_series(1, 99) AS id; GRANT SELECT ON quotes TO reader");
    service.backup(&["full"]).ok();
    let page = fs::read_to_string(oa_testkit::workspace_root().join("docs/disaster.md")).unwrap();
    let blocks = commands(&page, "### Into a newer server");
    assert_eq!(blocks.len(), 1, "{blocks:#?}");
    let new = oa_testkit::Postgres::start_anew();
    let url = new.superuser_url().replace("/oa", "/postgres");
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    for sql in ["DROP DATABASE oa", "DROP ROLE oa"] {
        client.batch_execute(sql).unwrap();
    }
    let address = "postgresql://postgres:PASSWORD@127.0.0.1:5432/postgres";
    assert!(blocks[0].contains(address), "{blocks:#?}");
    let programs = oa_testkit::program("oa-restore");
    let script = format!(
        "export PATH={}:$PATH OA_CONFIG={} OA_BACKUP_PASSWORD={}\n{}",
        programs.parent().unwrap().display(),
        service.config().display(),
        support::PASSWORD,
        blocks[0].replace(address, &url)
    );
    run(&script, &service, "");
    let url = new.superuser_url();
    let mut client = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    assert_eq!(support::count(&mut client, "quotes"), 99);
}
