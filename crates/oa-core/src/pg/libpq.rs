//! Settings for PostgreSQL's own programs (`pg_dump`, `pg_basebackup`, `psql`): as environment variables, because what stands on a
//! command line can be seen by every user of the machine.

use std::str::FromStr;

use postgres::config::{ChannelBinding, Host, TargetSessionAttrs};

use super::address::{Address, default_mode, explain_address};
use super::connect::{ConnectError, Settings};
use super::tls::Mode;
use crate::base::secrets::Secret;

/// Certificates of the system, for libpq before version 16, which does not know `sslrootcert=system`.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// The same address, but for its database.
///
/// # Errors
/// When the address is not valid.
pub fn of_database(settings: &Settings, database: &str) -> Result<Settings, ConnectError> {
    let variables = environment(settings, Some(database))?;
    let own = Address::parse(settings.url.expose()).map_err(ConnectError::Address)?;
    let is_own = own.tls.root_cert.is_some();
    let mut text = String::new();
    for (name, key) in [
        ("PGHOST", "host"),
        ("PGHOSTADDR", "hostaddr"),
        ("PGPORT", "port"),
        ("PGUSER", "user"),
        ("PGPASSWORD", "password"),
        ("PGDATABASE", "dbname"),
        ("PGOPTIONS", "options"),
        ("PGSSLMODE", "sslmode"),
        ("PGSSLROOTCERT", "sslrootcert"),
        ("PGSSLCERT", "sslcert"),
        ("PGSSLKEY", "sslkey"),
        ("PGPASSFILE", "passfile"),
        ("PGCHANNELBINDING", "channel_binding"),
        ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ] {
        let of_it = variables.iter().find(|(n, _)| *n == name);
        // The system's own authorities are nobody's sslrootcert, unless the address names them: the rules for them are stricter.
        if let Some((_, value)) = of_it.filter(|(_, value)| is_own || value != SYSTEM_ROOTS) {
            text.push_str(&keyword(key, value));
            text.push(' ');
        }
    }
    Ok(Settings {
        url: Secret::new(text),
        ..settings.clone()
    })
}

/// A database for an argument of one of PostgreSQL's programs, which would take a name with `=` in it for a whole connection string.
#[must_use]
pub fn dbname(database: &str) -> String {
    keyword("dbname", database)
}

fn keyword(key: &str, value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('\'', "\\'");
    format!("{key}='{value}'")
}

/// The variables that make libpq connect as [`super::connect()`] does. `database` replaces the address's own.
///
/// # Errors
/// When the address is not valid.
pub fn environment(
    settings: &Settings,
    database: Option<&str>,
) -> Result<Vec<(&'static str, String)>, ConnectError> {
    let Address {
        text,
        tls,
        passfile,
    } = Address::parse(settings.url.expose()).map_err(ConnectError::Address)?;
    let config = postgres::Config::from_str(&text)
        .map_err(|e| ConnectError::Address(explain_address(&e)))?;
    let hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    let mut variables = vec![
        ("PGHOST", hosts.join(",")),
        ("PGAPPNAME", settings.program.to_owned()),
        (
            "PGCONNECT_TIMEOUT",
            settings.connect_timeout.as_secs().max(2).to_string(),
        ),
    ];
    let ports: Vec<String> = config.get_ports().iter().map(u16::to_string).collect();
    if !ports.is_empty() {
        variables.push(("PGPORT", ports.join(",")));
    }
    if let Some(user) = config.get_user() {
        variables.push(("PGUSER", user.to_owned()));
    }
    if let Some(password) = config.get_password() {
        variables.push(("PGPASSWORD", String::from_utf8_lossy(password).into_owned()));
    }
    if let Some(name) = database.or_else(|| config.get_dbname()) {
        variables.push(("PGDATABASE", name.to_owned()));
    }
    if let Some(options) = config.get_options() {
        variables.push(("PGOPTIONS", options.to_owned()));
    }
    if !config.get_hostaddrs().is_empty() {
        let all = config.get_hostaddrs().iter().map(ToString::to_string);
        variables.push(("PGHOSTADDR", all.collect::<Vec<_>>().join(",")));
    }
    let attributes = match config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => Some("read-write"),
        TargetSessionAttrs::ReadOnly => Some("read-only"),
        _ => None,
    };
    variables.extend(attributes.map(|of| ("PGTARGETSESSIONATTRS", of.to_owned())));
    // A login that is bound to the connection is what the address asks for, of every program.
    let binding = match config.get_channel_binding() {
        ChannelBinding::Require => Some("require"),
        ChannelBinding::Disable => Some("disable"),
        _ => None,
    };
    variables.extend(binding.map(|of| ("PGCHANNELBINDING", of.to_owned())));
    let mode = tls.mode.unwrap_or_else(|| default_mode(config.get_hosts()));
    let name = match mode {
        Mode::Disable => "disable",
        Mode::Prefer => "prefer",
        Mode::Require => "require",
        Mode::VerifyCa => "verify-ca",
        Mode::VerifyFull => "verify-full",
    };
    variables.push(("PGSSLMODE", name.to_owned()));
    let files = [
        ("PGSSLCERT", tls.client_cert),
        ("PGSSLKEY", tls.client_key),
        ("PGPASSFILE", passfile),
    ];
    for (name, file) in files {
        variables.extend(file.map(|path| (name, path.display().to_string())));
    }
    match tls.root_cert {
        Some(path) => variables.push(("PGSSLROOTCERT", path.display().to_string())),
        None if matches!(mode, Mode::VerifyCa | Mode::VerifyFull) => {
            variables.push(("PGSSLROOTCERT", SYSTEM_ROOTS.to_owned()));
        }
        None => {}
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::secrets::Secret;
    use std::time::Duration;

    fn settings(url: &str) -> Settings {
        Settings {
            url: Secret::new(url.to_owned()),
            connect_timeout: Duration::from_secs(10),
            statement_timeout: Duration::ZERO,
            program: "oa-test",
        }
    }

    #[test]
    fn another_database_of_the_server_is_connected_to_in_the_same_way() {
        for url in [
            "postgresql://u:p%40%27s%5C@a:6432,b:6433/d?target_session_attrs=read-write&channel_binding=require&sslmode=verify-full",
            "postgresql://u@a/d?hostaddr=192.0.2.1&sslmode=verify-ca&sslrootcert=/ca.pem&sslcert=/c.pem&sslkey=/k.pem&passfile=/p",
            "host=/run/postgresql user=u dbname=d options='-c search_path=x' channel_binding=disable target_session_attrs=read-only",
            "postgresql://u@a/d?sslmode=require&sslrootcert=/etc/ssl/certs/ca-certificates.crt",
        ] {
            let database = "a=b 'c'";
            let there = of_database(&settings(url), database).unwrap();
            let sorted = |of: &Settings, database| {
                let mut all = environment(of, database).unwrap();
                all.sort();
                all
            };
            assert_eq!(
                sorted(&there, None),
                sorted(&settings(url), Some(database)),
                "{url}"
            );
            let tls = |of: &Settings| {
                let tls = Address::parse(of.url.expose()).unwrap().tls;
                (tls.mode, tls.root_cert)
            };
            let (mode, root) = tls(&settings(url));
            assert!(mode.is_none() || tls(&there) == (mode, root), "{url}");
        }
        let far = of_database(&settings("postgresql://u@a/d"), "other").unwrap();
        let address = Address::parse(far.url.expose()).unwrap();
        assert_eq!(
            (address.tls.mode, address.tls.root_cert),
            (Some(Mode::VerifyFull), None)
        );
    }

    #[test]
    fn libpq_connects_as_we_do() {
        let of = |url: &str| {
            let settings = settings(url);
            let variables = environment(&settings, None).unwrap();
            move |name: &str| {
                let found = variables.iter().find(|(n, _)| *n == name);
                found.map(|(_, value)| value.clone())
            }
        };
        let local = of("postgresql://u:p%40ss@127.0.0.1:6432/d");
        assert_eq!(local("PGPASSWORD").unwrap(), "p@ss");
        assert_eq!(local("PGPORT").unwrap(), "6432");
        assert_eq!(local("PGSSLMODE").unwrap(), "prefer");
        assert_eq!(local("PGSSLROOTCERT"), None);
        let far = of("postgresql://u@a:6432,b:6433/d?target_session_attrs=read-write");
        assert_eq!(far("PGHOST").unwrap(), "a,b");
        assert_eq!(far("PGSSLMODE").unwrap(), "verify-full");
        assert_eq!(far("PGTARGETSESSIONATTRS").unwrap(), "read-write");
        assert_eq!((far("PGHOSTADDR"), far("PGCHANNELBINDING")), (None, None));
        let bound = of("postgresql://u@a,b/d?hostaddr=192.0.2.1,192.0.2.2&channel_binding=require");
        assert_eq!(bound("PGHOSTADDR").unwrap(), "192.0.2.1,192.0.2.2");
        assert_eq!(bound("PGCHANNELBINDING").unwrap(), "require");
    }
}
