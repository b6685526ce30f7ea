//! What protects a connection: TLS as libpq has it, and files with passwords.

use oa_core::pg::ConnectError;
use oa_testkit::Postgres;

use super::{connect, one};

#[test]
fn sslmode_means_what_libpq_means_by_it() {
    let (server, authority) = Postgres::start_with_tls();
    // Its files are there as long as it is.
    let (_other_server, other_authority) = Postgres::start_with_tls();
    let host = |host: &str, parameters: &str| {
        format!("{}?{parameters}", server.url().replace("127.0.0.1", host))
    };
    let encrypted = |url: &str| -> Result<bool, ConnectError> {
        let mut client = connect(url)?;
        Ok(one(
            &mut client,
            "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
        ))
    };
    let root = format!("sslrootcert={}", authority.display());
    assert!(!encrypted(&host("127.0.0.1", "sslmode=disable")).unwrap());
    assert!(encrypted(&host("127.0.0.1", "sslmode=prefer")).unwrap());
    assert!(encrypted(&host("127.0.0.1", "sslmode=require")).unwrap());
    assert!(encrypted(&host("localhost", &format!("sslmode=verify-full&{root}"))).unwrap());
    assert!(
        encrypted(&host("127.0.0.1", &format!("sslmode=verify-ca&{root}"))).unwrap(),
        "the name does not matter"
    );
    let wrong_name =
        encrypted(&host("127.0.0.1", &format!("sslmode=verify-full&{root}"))).unwrap_err();
    assert!(
        matches!(wrong_name, ConnectError::Tls { .. }),
        "{wrong_name}"
    );
    for mode in ["verify-ca", "verify-full", "require"] {
        let impostor = encrypted(&host(
            "localhost",
            &format!("sslmode={mode}&sslrootcert={}", other_authority.display()),
        ))
        .unwrap_err();
        assert!(
            matches!(impostor, ConnectError::Tls { .. }) && !impostor.is_passing(),
            "{mode}: {impostor}"
        );
    }
    let unknown = encrypted(&host("localhost", "sslmode=verify-full")).unwrap_err();
    assert!(matches!(unknown, ConnectError::Tls { .. }), "{unknown}");
    let plain = Postgres::start();
    let refused = connect(&format!("{}?sslmode=require", plain.url()))
        .err()
        .unwrap();
    assert!(matches!(refused, ConnectError::Tls { .. }), "{refused}");
}

/// Those of PostgreSQL's manual (18.9.5), which strict rules for the web refuse.
#[test]
fn certificates_that_psql_takes_are_taken_and_no_others() {
    let (server, authority) = Postgres::start_with_tls();
    // Its files are there as long as it is.
    let (_other_server, other) = Postgres::start_with_tls();
    let folder = authority.parent().unwrap();
    let openssl = |arguments: &str| {
        let mut command = std::process::Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder);
        let done = command.output().unwrap();
        assert!(done.status.success(), "openssl {arguments}: {done:?}");
    };
    let mut admin = postgres::Client::connect(&server.superuser_url(), postgres::NoTls).unwrap();
    let url =
        |host: &str, more: &str| format!("{}?{more}", server.url().replace("127.0.0.1", host));
    let psql = |url: &str| {
        let mut command = std::process::Command::new("psql");
        let done = command.args(["-Atc", "SELECT 1", url]).output().unwrap();
        done.status.success()
    };
    for (what, make, root) in [
        (
            "version 1, the name in the subject",
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -out server.pem -days 2",
            "ca.pem",
        ),
        (
            "its own authority",
            "req -x509 -key server.key -subj /CN=localhost -days 2 -out server.pem",
            "server.pem",
        ),
    ] {
        openssl(make);
        admin.batch_execute("SELECT pg_reload_conf()").unwrap();
        let root = folder.join(root);
        let root = format!("sslrootcert={}", root.display());
        let other = format!("sslrootcert={}", other.display());
        oa_testkit::wait_until(
            "the new certificate",
            std::time::Duration::from_secs(20),
            || psql(&url("localhost", &format!("sslmode=verify-ca&{root}"))),
        );
        for (host, more) in [
            ("localhost", "sslmode=prefer"),
            ("localhost", "sslmode=require"),
            ("localhost", &*format!("sslmode=verify-ca&{root}")),
            ("localhost", &*format!("sslmode=verify-full&{root}")),
            ("127.0.0.1", &*format!("sslmode=verify-full&{root}")),
            ("localhost", &*format!("sslmode=verify-ca&{other}")),
            ("localhost", &*format!("sslmode=verify-full&{other}")),
        ] {
            let url = url(host, more);
            let (theirs, ours) = (psql(&url), connect(&url));
            assert_eq!(ours.is_ok(), theirs, "{what}: {more}: {:?}", ours.err());
        }
    }
    // A certificate of this program's own.
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout me.key -out me.pem -days 2 -subj /CN=me",
    );
    let ca = folder.join("me.pem").display().to_string();
    admin
        .batch_execute(&format!("ALTER SYSTEM SET ssl_ca_file = '{ca}'"))
        .unwrap();
    std::fs::set_permissions(&ca, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    admin.batch_execute("SELECT pg_reload_conf()").unwrap();
    let key = folder.join("me.key");
    let own = url(
        "localhost",
        &format!("sslmode=require&sslcert={ca}&sslkey={}", key.display()),
    );
    let shown = "SELECT coalesce(client_dn, '') FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
    oa_testkit::wait_until(
        "the authority of clients",
        std::time::Duration::from_secs(20),
        || connect(&own).is_ok_and(|mut c| one::<String>(&mut c, shown) == "/CN=me"),
    );
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = connect(&own).err().unwrap().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
}

#[test]
fn a_password_file_is_read_as_psql_reads_it_and_what_cannot_be_kept_is_refused() {
    let server = Postgres::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pass");
    let (before, host) = server
        .url()
        .split_once('@')
        .map(|(b, h)| (b.to_owned(), h.to_owned()))
        .unwrap();
    let password = before.rsplit(':').next().unwrap().to_owned();
    oa_testkit::write_private(
        &file,
        format!("127.0.0.1:{}:oa:oa:{password}\n", server.port()),
    );
    let url = format!("postgresql://oa@{host}?passfile={}", file.display());
    connect(&url).unwrap();
    // Of several hosts each gets its own password, and none another's.
    let absent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = absent.local_addr().unwrap().port();
    drop(absent);
    let other = folder.path().join("several");
    oa_testkit::write_private(
        &other,
        format!(
            "127.0.0.1:{port}:*:*:of-the-other\n127.0.0.1:{}:oa:oa:{password}\n",
            server.port()
        ),
    );
    let both = format!(
        "postgresql://oa@127.0.0.1:{port},{host}?passfile={}",
        other.display()
    );
    connect(&both).unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let refused = connect(&url).err().unwrap().to_string();
    assert!(
        refused.contains("chmod 600") && !refused.contains(&password),
        "{refused}"
    );
    for taken in [
        "gssencmode=disable",
        "client_encoding=utf8",
        "fallback_application_name=x",
    ] {
        connect(&format!("{}?{taken}", server.url())).unwrap();
    }
    for refused in [
        "require_auth=scram-sha-256",
        "gssencmode=require",
        "service=x",
        "sslcrl=/x",
    ] {
        let error = connect(&format!("{}?{refused}", server.url()))
            .err()
            .unwrap();
        let name = refused.split('=').next().unwrap();
        assert!(
            matches!(&error, ConnectError::Address(text) if text.contains(name)),
            "{error}"
        );
    }
}
