//! The address of a database as libpq takes it: which parameters the driver knows, which of TLS are ours, and which nothing can keep. What
//! is wrong with an address is said without quoting it, because it may be a piece of the password.

use std::path::PathBuf;
use std::str::FromStr;

use postgres::config::Host;

use super::tls::{self, TlsSettings};
use crate::base::conninfo::pairs;
use crate::base::secrets::Secret;

/// The address without the parameters that the driver does not know.
pub(super) struct Address {
    pub(super) text: String,
    pub(super) tls: TlsSettings,
    pub(super) passfile: Option<PathBuf>,
}

/// What libpq takes and the driver does not: where the value changes nothing here, it is passed over.
const WITHOUT_EFFECT: [(&str, &[&str]); 6] = [
    ("gssencmode", &["disable", "prefer"]),
    ("client_encoding", &["utf8", "UTF8", "UTF-8", "auto"]),
    ("sslcompression", &["0"]),
    ("sslsni", &["1"]),
    ("sslcertmode", &["allow"]),
    ("ssl_min_protocol_version", &["TLSv1.2", "TLSv1"]),
];

/// What libpq takes and these programs cannot keep. Passing it over would be a lie.
const NOT_TAKEN: [&str; 16] = [
    "require_auth",
    "service",
    "gssencmode",
    "krbsrvname",
    "gsslib",
    "gssdelegation",
    "requirepeer",
    "sslcrl",
    "sslcrldir",
    "sslpassword",
    "sslcompression",
    "sslsni",
    "sslcertmode",
    "client_encoding",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
];

impl Address {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut tls = TlsSettings::default();
        let mut passfile = None;
        let mut keep = |name: &str, value: &str| -> Result<bool, String> {
            match name {
                "sslmode" => tls.mode = Some(value.parse()?),
                "sslrootcert" => {
                    tls.root_cert = (value != "system").then(|| PathBuf::from(value));
                }
                "sslcert" => tls.client_cert = Some(PathBuf::from(value)),
                "sslkey" => tls.client_key = Some(PathBuf::from(value)),
                "passfile" => passfile = Some(PathBuf::from(value)),
                "fallback_application_name" => {}
                _ if WITHOUT_EFFECT
                    .iter()
                    .any(|(of, values)| *of == name && values.contains(&value)) => {}
                _ => {
                    if let Some(name) = NOT_TAKEN.iter().find(|of| **of == name) {
                        return Err(format!(
                            "{name} in it cannot be kept by these programs; take it out, see docs/configuration.md"
                        ));
                    }
                    return Ok(true);
                }
            }
            Ok(false)
        };
        let mut kept = Vec::new();
        let text = if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            check_userinfo(text)?;
            let (base, query) = text.split_once('?').unwrap_or((text, ""));
            for pair in query.split('&').filter(|p| !p.is_empty()) {
                let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
                if keep(name, &decoded(value))? {
                    kept.push(pair);
                }
            }
            if kept.is_empty() {
                base.to_owned()
            } else {
                format!("{base}?{}", kept.join("&"))
            }
        } else if is_other_scheme(text) {
            return Err(EXAMPLE.to_owned());
        } else {
            for pair in pairs(text).ok_or_else(wrong_parts)? {
                if keep(pair.name, &pair.value)? {
                    kept.push(pair.text);
                }
            }
            kept.join(" ")
        };
        Ok(Self {
            text,
            tls,
            passfile,
        })
    }
}

fn decoded(value: &str) -> String {
    percent_encoding::percent_decode_str(value)
        .decode_utf8_lossy()
        .into_owned()
}

/// libpq would use TLS where the server offers it and verify nothing. Here another machine is verified in full unless the
/// address says otherwise; this machine is trusted.
pub(super) fn default_mode(hosts: &[Host]) -> tls::Mode {
    let local = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => {
            name == "localhost"
                || name
                    .parse::<std::net::IpAddr>()
                    .is_ok_and(|ip| ip.is_loopback())
        }
    };
    if hosts.iter().all(local) {
        tls::Mode::Prefer
    } else {
        tls::Mode::VerifyFull
    }
}

/// Whether an address is one, before anybody uses it: what comes of one that is not would be shown.
///
/// # Errors
/// When it is not valid; the text holds nothing of it.
pub fn check_address(url: &Secret) -> Result<(), String> {
    let address = Address::parse(url.expose())?;
    let config = postgres::Config::from_str(&address.text).map_err(|e| explain_address(&e))?;
    match config.get_hosts().is_empty() {
        true => Err("it names no host".to_owned()),
        false => Ok(()),
    }
}

/// In `user:password@host` each of the characters that end something must be the one that does, or a piece of the password would be
/// taken, and shown, as the host.
fn check_userinfo(text: &str) -> Result<(), String> {
    let rest = text.split_once("://").map_or("", |(_, rest)| rest);
    if rest.contains('#') {
        return Err(format!("it holds a #; {ENCODE}"));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let signs = rest.matches('@').count();
    if signs > 1 || signs != authority.matches('@').count() {
        return Err(format!(
            "it holds an @ that does not end the password, or a / or ? before the one that does; {ENCODE}"
        ));
    }
    let (userinfo, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    if userinfo.matches(':').count() > 1 {
        return Err(format!("its password holds a :; {ENCODE}"));
    }
    let is_code =
        |rest: &str| rest.len() >= 2 && rest.bytes().take(2).all(|b| b.is_ascii_hexdigit());
    if rest.split('%').skip(1).any(|rest| !is_code(rest)) {
        return Err(format!("it holds a % that begins no code; {ENCODE}"));
    }
    // Without an @, what should be a port may be a password.
    let has_port = |host: &str| {
        let after = host.rsplit_once(']').map_or(host, |(_, after)| after);
        let port = after.rsplit_once(':').map_or("", |(_, port)| port);
        port.bytes().all(|b| b.is_ascii_digit())
    };
    match hosts.split(',').all(has_port) {
        true => Ok(()),
        false => Err(format!("its port is no number; {EXAMPLE}")),
    }
}

/// The driver's message quotes the part that it does not understand, which may be one of the password: nothing of it is shown.
pub(super) fn explain_address(_: &postgres::Error) -> String {
    wrong_parts()
}

fn wrong_parts() -> String {
    format!(
        "it has a port that is no number, an unknown parameter, or a value with spaces that is not in single quotes; {EXAMPLE}"
    )
}

fn is_other_scheme(text: &str) -> bool {
    let letters = |scheme: &str| scheme.bytes().all(|b| b.is_ascii_alphanumeric());
    text.split_once("://")
        .is_some_and(|(scheme, _)| letters(scheme))
}

const EXAMPLE: &str = "it should look like postgresql://USER:PASSWORD@HOST:5432/DATABASE";

const ENCODE: &str = "percent-encode user and password: %40 for @, %3A for :, %2F for /, %3F for ?, %23 for #, %25 for %";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_parameters_are_taken_out_of_both_forms_of_address() {
        let a = Address::parse("postgresql://u@h1,h2:6432/d?target_session_attrs=read-write&sslmode=verify-ca&sslrootcert=%2Fca.pem").unwrap();
        assert_eq!(
            a.text,
            "postgresql://u@h1,h2:6432/d?target_session_attrs=read-write"
        );
        assert_eq!(a.tls.mode, Some(tls::Mode::VerifyCa));
        assert_eq!(a.tls.root_cert, Some(PathBuf::from("/ca.pem")));
        let a = Address::parse("host=localhost sslmode=disable dbname=oa").unwrap();
        assert_eq!(a.text, "host=localhost dbname=oa");
        assert_eq!(a.tls.mode, Some(tls::Mode::Disable));
    }

    #[test]
    fn a_quoted_password_stays_as_it_is() {
        for (written, password) in [
            ("'two  spaces'", "two  spaces"),
            ("'a sslmode=disable b'", "a sslmode=disable b"),
            ("'it\\'s \\\\ x'", "it's \\ x"),
            ("'a://b'", "a://b"),
            ("a\\ b", "a b"),
        ] {
            let text = format!("host=h sslmode = verify-full password = {written} dbname=d");
            let a = Address::parse(&text).unwrap();
            assert_eq!(a.tls.mode, Some(tls::Mode::VerifyFull), "{text}");
            let config = postgres::Config::from_str(&a.text).unwrap();
            assert_eq!(config.get_password(), Some(password.as_bytes()), "{text}");
            assert_eq!(config.get_dbname(), Some("d"));
            let pairs = pairs(&text).unwrap();
            assert_eq!(pairs[2].value, password);
        }
        assert!(pairs("host=h password='never ends").is_none());
    }

    #[test]
    fn another_machine_is_verified_by_default() {
        let hosts = |text: &str| {
            postgres::Config::from_str(text)
                .unwrap()
                .get_hosts()
                .to_vec()
        };
        assert_eq!(
            default_mode(&hosts("postgresql://u@localhost,127.0.0.1/d")),
            tls::Mode::Prefer
        );
        assert_eq!(
            default_mode(&hosts("postgresql://u@127.0.0.1,db.example.com/d")),
            tls::Mode::VerifyFull
        );
    }
}
