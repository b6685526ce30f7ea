//! `oa-report doctor` on an installation that is well, and on some sixty that are broken: each fault is found, and the command that it
//! names is one that mends it.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod installation;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use oa_testkit::wait_until;
use serde_json::Value;

use installation::{FIRED, Installation, said};

#[test]
fn forty_broken_installations_are_each_given_the_command_that_mends_them() {
    let here = Installation::well();
    let well = here.doctor(0);
    for line in &well.0 {
        // The test's own cluster has no checksums, and all is on one disk.
        assert_ne!(line["state"], "error", "{line}");
        assert_eq!(line["command"].is_null(), line["state"] == "ok", "{line}");
    }
    well.warned("certificate", "expires in 47 hours", "ssl_cert_file");
    well.warned("database", "autovacuum", "ALTER SYSTEM SET autovacuum = on");
    well.warned(
        "channel phone",
        "never taken a message",
        "oa-alert test phone",
    );
    let done = here
        .command("oa-alert", &["test", "phone"])
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", said(&done));
    broken_configurations(&here);
    broken_files(&here);
    broken_settings(&here);
    broken_schedules(&here);
    misread_schedules(&here);
    expired_certificates(&here);
    broken_database(&here);
    broken_schema(&here);
}

/// 1 to 7: nothing can be read at all, and the one thing that is in the way is named.
fn broken_configurations(here: &Installation) {
    here.config(|c| c.replace("[crawl]", "[crawl]\nretrys = 3"));
    here.doctor(1)
        .broken("configuration", "did you mean \"retries\"", "oa.toml");
    here.config(|c| c.replace("kind = \"logical\"", "kind = \"logicl\""));
    here.doctor(1).broken("configuration", "logicl", "oa.toml");
    here.restore();
    here.mode("oa.toml", 0o666);
    here.doctor(1)
        .broken("configuration", "may be changed by others", "chmod go-w");
    here.restore();
    here.mode(".env", 0o644);
    here.doctor(1)
        .broken("configuration", "may be read by others", "chmod 600");
    here.restore();
    here.env("OA_DATABASE=", "OA_DATABASE=$HOME");
    here.doctor(1)
        .broken("configuration", "single quotes", ".env");
    here.restore();
    let moved = here.at("elsewhere.toml");
    fs::rename(here.at("oa.toml"), &moved).unwrap();
    here.doctor(1)
        .broken("configuration", "could not read config", "oa.toml");
    here.restore();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(here.at("oa.toml"), Some(65_534), None).unwrap();
        here.doctor(1)
            .broken("configuration", "belongs to nobody", "sudo chown root");
        here.restore();
    }
}

/// 8 to 13: what stands on the disk. Several faults at once hide none of each other.
fn broken_files(here: &Installation) {
    here.mode("state", 0o777);
    here.mode("backups", 0o755);
    fs::remove_dir_all(here.at("log")).unwrap();
    let found = here.doctor(1);
    found.broken("state_dir", "others may change it", "chmod 700");
    found.broken("log folder", "does not exist", "install -d -m 750");
    found.broken("backup", "other users of this machine", "chmod -R go=");
    here.mode("state", 0o700);
    here.mode("backups", 0o700);
    fs::create_dir(here.at("log")).unwrap();

    fs::rename(here.at("state"), here.at("state.away")).unwrap();
    fs::rename(here.at("backups"), here.at("backups.away")).unwrap();
    let found = here.doctor(1);
    found.broken("state_dir", "does not exist", "install -d -m 700");
    found.line("backup", "");
    let _ = fs::remove_dir_all(here.at("state"));
    fs::rename(here.at("state.away"), here.at("state")).unwrap();
    fs::rename(here.at("backups.away"), here.at("backups")).unwrap();

    here.plain();
    fs::write(here.at("state/spool.db.damaged"), "").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(here.at("state/spool.db.damaged"), Some(65_534), None).unwrap();
        let found = here.doctor(1);
        found.broken("state_dir", "belongs to nobody", "chown -R root");
    }
    fs::remove_file(here.at("state/spool.db.damaged")).unwrap();
    here.restore();
}

/// 14 to 22: settings that are valid and do not do.
fn broken_settings(here: &Installation) {
    here.config(|c| {
        c.replace(
            "[[alert.channels]]\nname = \"phone\"\nkind = \"command\"\ncommand = [\"true\"]\n",
            "",
        )
        .replace(
            "heartbeat_url = \"env:HEARTBEAT\"\n",
            "disk_critical = 1.0\n",
        )
        .replace("[\"zhihui-full-view\"]", "[]")
        .replace("state_dir", "calendar = \"calendar.toml\"\nstate_dir")
            + "[backup.copy]\nrepository = \"elsewhere\"\n"
    });
    let found = here.doctor(1);
    found.warned("schedule", "nothing starts oa-backup copy", "crontab");
    found.broken("channels", "alerts reach nobody", "oa.toml");
    found.warned("heartbeat_url", "nobody outside", "oa.toml");
    found.broken("disk", "of the space is free", "du -xh");
    found.warned("sources", "none is enabled", "oa-crawl enable");
    found.broken("calendar", "calendar.toml", "oa.toml");
    here.config(|c| {
        let cut = c.split("[backup]").next().unwrap();
        cut.replace(
            "kind = \"command\"\ncommand = [\"true\"]",
            "kind = \"dingtalk\"\nurl = \"env:NOT_SET\"",
        )
        .replace("state_dir", "locale = \"en\"\nstate_dir")
    });
    here.env("ZHIHUI_AUTH_TOKEN", "ANOTHER_NAME");
    let found = here.doctor(1);
    found.broken("backup", "there is no [backup]", "oa.toml");
    found.broken("channel phone", "NOT_SET", "oa.toml");
    found.broken("zhihui-full-view", "ZHIHUI_AUTH_TOKEN", ".env");
    here.restore();
    here.env("on-paper-only", "another-password");
    here.doctor(1)
        .broken("backup", "password", "oa-backup doctor");
    here.restore();
}

/// 23 to 26: a crontab that starts nothing, or not all, and a cron that does not fire.
fn broken_schedules(here: &Installation) {
    // Without its password the repository takes no time.
    here.env("OA_BACKUP_PASSWORD=", "NO_PASSWORD=");
    let crontab = fs::read_to_string(here.at("crontab")).unwrap();
    let without: String = crontab
        .lines()
        .filter(|l| !l.contains("oa-backup full") && !l.contains("oa-restore drill"))
        .map(|l| format!("{l}\n"))
        .collect();
    let without = without
        .replace("OA_CONFIG=", "OA_CONFIG=/nowhere")
        .lines()
        .map(|l| {
            if l.starts_with("PATH=") {
                "PATH=/nowhere\n".to_owned()
            } else {
                format!("{l}\n")
            }
        })
        .collect::<String>();
    fs::write(here.at("crontab"), without).unwrap();
    here.sql("UPDATE oa.starts SET last_at = now() - interval '3 hours'; DELETE FROM oa.starts WHERE what = 'due'; UPDATE oa.channels SET took_last = false");
    let found = here.doctor(1);
    found.broken("channel phone", "not taken the last", "oa-alert test phone");
    found.broken("backup", "OA_BACKUP_PASSWORD, which is not set", "oa.toml");
    found.broken("schedule", "nothing starts oa-backup full", "crontab");
    found.warned("schedule", "nothing starts oa-restore drill", "crontab");
    found.broken("schedule", "finds no oa-crawl in its PATH", "PATH=");
    found.warned("schedule", "cron's programs read /nowhere", "OA_CONFIG=");
    found.broken("timers", "last started 3 hours ago", "systemctl");
    found.broken("timers", "run --due was never started", "systemctl");
    here.restore();
    here.sql(FIRED);
    here.sql("UPDATE oa.starts SET first_at = now() - interval '1 hour', starts = 7 WHERE what = 'check'");
    here.sql("INSERT INTO oa.starts (what, host, day, first_at, last_at) SELECT 'due', 'elsewhere', current_date, t, t FROM (SELECT now() - interval '3 hours') x (t)");
    here.sql("UPDATE oa.starts SET first_at = now() - interval '1 hour', starts = 130 WHERE what = 'due' AND host = 'here'; UPDATE oa.channels SET took_last = true");
    here.sql("INSERT INTO oa.watches (what, host, ok, detail) VALUES ('heartbeat', 'here', false, 'refused'), ('check', 'here', true, '')");
    let found = here.doctor(0);
    found.warned("timers", "started 7 times within 60 minutes", "systemctl");
    found.warned(
        "timers",
        "130 times within 60 minutes on here; two schedules",
        "systemctl",
    );
    found.warned("timers", "3 hours ago on elsewhere", "systemctl");
    found.warned(
        "heartbeat_url",
        "could not reach it: refused",
        "oa-alert check",
    );
    assert_eq!(found.line("channel phone", "has taken")["state"], "ok");
    here.sql("DELETE FROM oa.starts WHERE host = 'elsewhere'; DELETE FROM oa.watches WHERE what IN ('heartbeat', 'check')");
    here.sql(FIRED);
}

/// 27 to 32: lines that cron takes otherwise than their writer, and a shell that is not cron's.
fn misread_schedules(here: &Installation) {
    here.plain();
    let crontab = fs::read_to_string(here.at("crontab")).unwrap();
    let me = String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout).unwrap();
    let me = me.trim();
    let changed = crontab
        .lines()
        .map(|line| match line {
            // As an editor of Windows leaves it.
            l if l.contains("oa-report daily") => format!("{l}\r\n"),
            l if l.contains("oa-crawl drain") => {
                let account = l.replace("oa-crawl drain", &format!("{me} oa-crawl drain"));
                format!("{l}\n{account}\n")
            }
            l if l.contains("oa-alert check >") => format!("{l}\n{l}\n"),
            l if l.contains("oa-crawl run --due") => {
                l.replace(
                    "oa-crawl run --due",
                    "oa-crawl --config \"$HOME/%\" run --due",
                ) + "\n"
            }
            l => format!("{l}\n"),
        })
        .collect::<String>();
    fs::write(here.at("crontab"), changed).unwrap();
    let found = here.doctor_with(1, &[("ZHIHUI_AUTH_TOKEN", "of-this-shell")]);
    found.broken("schedule", "line ends of Windows", "sed -i 's/\\r$//'");
    found.broken("schedule", "ends a line at a %", "\\% for each %");
    found.broken("schedule", "names an account before", "oa-crawl drain");
    found.warned("schedule", "has oa-alert check twice", "crontab");
    found.warned(
        "configuration",
        "another ZHIHUI_AUTH_TOKEN",
        "unset ZHIHUI_AUTH_TOKEN",
    );
    let nothing = |l: &Value| l["detail"].as_str().unwrap().contains("nothing starts");
    assert!(!found.0.iter().any(nothing), "options are not in the way");
    here.plain();
    // The file of a package, before it is installed: its lines name an account.
    let at = |line: &str| line.starts_with(|c: char| c.is_ascii_digit() || "*@".contains(c));
    let named = |line: &str| match at(line) {
        true => line.replacen(" oa-", " oa-of-elsewhere oa-", 1),
        false => line.to_owned(),
    };
    let lines = crontab.lines().map(|line| named(line) + "\n");
    fs::write(here.at("crontab"), lines.collect::<String>()).unwrap();
    let found = here.doctor(1);
    assert_eq!(
        found.line("schedule", "everything has a line")["state"],
        "ok"
    );
    here.plain();
}

/// Of the server, of this program's own, of its authorities, and of the page.
fn expired_certificates(here: &Installation) {
    here.plain();
    here.openssl("x509 -in ca.pem -signkey ca.key -days -1 -out over.pem");
    here.sign(-1);
    let at = |name: &str| here.authority.with_file_name(name).display().to_string();
    let with = |parameters: &str| here.env("/oa\n", &format!("/oa?{parameters}\n"));
    // Nobody looks at it: then it is no fault, and somebody else may.
    here.doctor(1)
        .warned("certificate", "expired at", "ssl_cert_file");
    with(&format!("sslmode=verify-ca&sslrootcert={}", at("ca.pem")));
    let found = here.doctor(1);
    found.broken("database", "TLS connection", "ssl_cert_file");
    found.broken("certificate", "of PostgreSQL at 127.0.0.1", "ssl_cert_file");
    here.plain();
    with(&format!("sslmode=verify-ca&sslrootcert={}", at("over.pem")));
    let found = here.doctor(1);
    found.broken("certificate", "authority in sslrootcert", "openssl x509");
    here.plain();
    with(&format!(
        "sslcert={}&sslkey={}",
        at("over.pem"),
        at("ca.key")
    ));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut page = Command::new("openssl")
        .args(["s_server", "-www", "-quiet", "-accept"])
        .arg(format!("127.0.0.1:{port}"))
        .args(["-cert", &at("over.pem"), "-key", &at("ca.key")])
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("the page listens", Duration::from_secs(30), || {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    here.config(|c| {
        let cut = c.split("[backup]").next().unwrap();
        format!("{cut}[report]\nurl = \"https://localhost:{port}\"\n")
    });
    let found = here.doctor(1);
    here.env(&format!(":{}/", here.server.port()), ":1/");
    let gone = here.doctor(1);
    let _ = page.kill();
    page.wait().unwrap();
    // What is over there does not keep anybody from the database.
    gone.broken("certificate", "https://localhost", "s_client");
    let of_database = |line: &&Value| line["check"] == "database";
    let commands = gone.0.iter().filter(of_database);
    let commands: Vec<String> = commands.map(|line| line["command"].to_string()).collect();
    assert!(
        commands.len() == 1 && !commands[0].contains("s_client"),
        "{commands:?}"
    );
    found.broken("certificate", "in sslcert", "openssl x509");
    found.broken(
        "certificate",
        "https://localhost",
        "s_client -connect localhost",
    );
    here.sign(30);
    here.plain();
}

/// 33 to 41: the server, its settings and its roles.
fn broken_database(here: &Installation) {
    here.plain();
    here.env("@127.0.0.1:", "@127.0.0.1:1");
    here.doctor(1).broken("database", "", "");
    here.plain();
    here.env("/oa\n", "/nosuch\n");
    here.doctor(1).broken("database", "nosuch", "createdb");
    here.plain();
    here.env("OA_DATABASE=", "OTHER=");
    here.doctor(1).broken("database", "OA_DATABASE", ".env");
    here.plain();
    here.env("postgresql://oa:", "postgresql://oa:wrong");
    here.doctor(1)
        .broken("database", "refused the login", ".env");
    here.plain();

    here.superuser("ALTER SYSTEM SET archive_command = 'false'");
    here.superuser(
        "SELECT pg_reload_conf(), pg_create_physical_replication_slot('forgotten', true)",
    );
    here.superuser("SELECT pg_switch_wal()");
    wait_until("archiving fails", Duration::from_secs(60), || {
        let mut client =
            postgres::Client::connect(&here.server.superuser_url(), postgres::NoTls).unwrap();
        let failed = client.query_one("SELECT failed_count > 0 FROM pg_stat_archiver", &[]);
        failed.unwrap().get(0)
    });
    here.superuser(
        "ALTER DATABASE oa SET synchronous_commit = off; ALTER ROLE oa SET default_transaction_read_only = on; ALTER ROLE oa SUPERUSER;
         ALTER ROLE oa VALID UNTIL 'tomorrow' CONNECTION LIMIT 9;
         CREATE ROLE page LOGIN PASSWORD 'page'; GRANT USAGE ON SCHEMA oa TO page; GRANT SELECT ON oa.schema_history TO page",
    );
    here.config(|c| {
        let cut = c.replace("[alert]\n", "[alert]\nwal_limit = \"1KiB\"\n");
        cut.split("[backup]").next().unwrap().to_owned() + "[report]\ndatabase_url = \"env:PAGE\"\n"
    });
    here.env(
        "HEARTBEAT=",
        &format!("PAGE={}\nHEARTBEAT=", page_url(here)),
    );
    let found = here.doctor(1);
    found.broken(
        "database",
        "default_transaction_read_only is on",
        "ALTER ROLE oa RESET",
    );
    found.warned("database", "synchronous_commit is off", "ALTER SYSTEM SET");
    found.warned("roles", "oa is a superuser", "oa-migrate init --roles");
    found.warned(
        "roles",
        "password of oa expires at",
        "VALID UNTIL 'infinity'",
    );
    found.warned("roles", "role oa takes 9 sessions", "CONNECTION LIMIT -1");
    found.broken("wal", "archive_command fails", "SHOW archive_command");
    found.broken(
        "wal",
        "nobody reads slot forgotten",
        "pg_drop_replication_slot('forgotten')",
    );
    here.superuser("ALTER SYSTEM RESET archive_command");
    here.superuser("SELECT pg_reload_conf(), pg_drop_replication_slot('forgotten')");
    found.broken("reader", "page may not read", "GRANT SELECT");
    here.superuser("GRANT SELECT ON ALL TABLES IN SCHEMA oa TO page; UPDATE pg_database SET datcollversion = 'of another system' WHERE datname = 'oa'");
    let found = here.doctor(1);
    found.broken(
        "database",
        "sorts texts otherwise",
        "REFRESH COLLATION VERSION",
    );
    here.superuser("UPDATE pg_database SET datcollversion = NULL WHERE datname = 'oa'");
    found.warned("reader", "oa-report as-of", "IN SCHEMA public TO page");
    here.superuser(
        "ALTER DATABASE oa RESET synchronous_commit; ALTER ROLE oa RESET default_transaction_read_only; ALTER ROLE oa NOSUPERUSER VALID UNTIL 'infinity' CONNECTION LIMIT -1;
         CREATE ROLE crawler LOGIN PASSWORD 'page'",
    );
    here.plain();
    let (from, to) = (
        here.server.url(),
        page_url(here).replace("page:", "crawler:"),
    );
    here.env(&from, &to);
    let found = here.doctor(1);
    found.broken("roles", "may not use schema", "GRANT USAGE ON SCHEMA");
    assert!(!found.0.iter().any(|line| line["check"] == "schema"));
    here.superuser("GRANT USAGE ON SCHEMA oa, public TO crawler; GRANT SELECT ON ALL TABLES IN SCHEMA oa TO crawler");
    here.doctor(1).broken(
        "roles",
        "crawler may not read and write",
        "GRANT SELECT, INSERT, UPDATE",
    );
    // It may add rows and not change them, and its table's numbers are not its own.
    here.superuser("GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA oa, public TO crawler");
    here.sql(
        "ALTER TABLE market_full_view ALTER id DROP IDENTITY; CREATE SEQUENCE public.numbers OWNED BY market_full_view.id;
         ALTER TABLE market_full_view ALTER id SET DEFAULT nextval('public.numbers')",
    );
    let found = here.doctor(1);
    found.broken(
        "roles",
        "crawler may not change rows of oa.alerts",
        "UPDATE",
    );
    found.broken(
        "market_full_view",
        "the sequence numbers",
        "GRANT USAGE ON SEQUENCE numbers TO crawler",
    );
    here.superuser(
        "GRANT UPDATE ON ALL TABLES IN SCHEMA oa TO crawler; REVOKE INSERT ON oa.commits FROM crawler",
    );
    here.doctor(1).broken(
        "roles",
        "crawler may not read and write oa.commits",
        "GRANT SELECT, INSERT, UPDATE",
    );
    here.plain();
}

fn page_url(here: &Installation) -> String {
    format!("postgresql://page:page@127.0.0.1:{}/oa", here.server.port())
}

/// 42 to 45: the schema.
fn broken_schema(here: &Installation) {
    here.sql("INSERT INTO oa.schema_history SELECT 999, name, applied_on, checksum FROM oa.schema_history LIMIT 1");
    here.doctor(1)
        .broken("schema", "newer than", "newer version");
    here.sql("DELETE FROM oa.schema_history WHERE version = 999; ALTER SCHEMA oa RENAME TO away");
    here.doctor(1)
        .broken("schema", "no schema \"oa\"", "oa-migrate init");
    here.sql("ALTER SCHEMA away RENAME TO oa; GRANT EXECUTE ON FUNCTION oa.audit() TO PUBLIC; DROP INDEX market_full_view_key");
    let found = here.doctor(1);
    found.warned("roles", "what its owner may", "oa-migrate init");
    here.sql("REVOKE EXECUTE ON FUNCTION oa.audit() FROM PUBLIC");
    here.doctor(1).broken(
        "market_full_view",
        "no unique index",
        "oa-migrate dedupe market_full_view",
    );
    here.sql("ALTER TABLE market_full_view RENAME TO gone");
    here.doctor(1)
        .broken("market_full_view", "table is missing", "oa-migrate init");
}
