//! Certificates that expire: from one second to the next nobody gets in any more. The servers' own are seen by shaking hands with them,
//! without a word after that; who does not answer is reported by others.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use hyper::Uri;
use oa_core::app::config::Config;
use oa_core::base::certificate::{self, Validity};
use oa_core::base::threads;
use oa_core::base::trust::quoted;
use oa_core::pg::{self, Settings};

use super::Findings;

const CHECK: &str = "certificate";
/// Longest wait for one server.
const LIMIT: Duration = Duration::from_secs(3);

/// `now` is the database's clock where that answers.
pub(super) fn look(
    config: &Config,
    addresses: &[Settings],
    now: DateTime<Utc>,
    findings: &mut Findings,
) {
    of_databases(config, addresses, now, findings);
    elsewhere(config, now, findings);
}

/// Those that are in the way of a session with PostgreSQL when they are over.
pub(super) fn of_databases(
    config: &Config,
    addresses: &[Settings],
    now: DateTime<Utc>,
    findings: &mut Findings,
) {
    let assessor = Assessor {
        now,
        notice: config.alert.expiry_notice.0,
    };
    let mut servers = BTreeSet::new();
    for settings in addresses {
        let limited = Settings {
            connect_timeout: settings.connect_timeout.min(LIMIT),
            ..settings.clone()
        };
        for (server, validity) in pg::certificates(&limited) {
            if servers.insert(server.clone()) {
                let what = format!("the certificate of PostgreSQL at {server}");
                assessor.line(
                    &what,
                    validity,
                    pg::verifies(settings),
                    OF_POSTGRESQL,
                    findings,
                );
            }
        }
    }
    let mut files = BTreeSet::new();
    for (name, path) in addresses.iter().flat_map(pg::certificate_files) {
        if files.insert(path.clone()) {
            assessor.file(name, &path, name == "sslcert", findings);
        }
    }
}

/// All others.
pub(super) fn elsewhere(config: &Config, now: DateTime<Utc>, findings: &mut Findings) {
    let assessor = Assessor {
        now,
        notice: config.alert.expiry_notice.0,
    };
    if let Some(path) = &config.crawl.ca_file {
        assessor.file("ca_file", path, false, findings);
    }
    for (host, port, validity) in seen_by_https(config, findings) {
        let mend = format!(
            "echo | openssl s_client -connect {host}:{port} -servername {host} 2>/dev/null | openssl x509 -noout -dates   # it is renewed there"
        );
        let what = format!("the certificate of https://{host}:{port}");
        assessor.line(&what, validity, true, &mend, findings);
    }
}

const OF_POSTGRESQL: &str = "sudo -u postgres psql -Atc 'SHOW ssl_cert_file'   # on that machine; the new certificate into this file, then: psql -c 'SELECT pg_reload_conf()'";

struct Assessor {
    now: DateTime<Utc>,
    /// So long before the end it is a warning.
    notice: Duration,
}

impl Assessor {
    /// `verified` is whether anybody looks at it: one that is over is in nobody's way else.
    fn line(
        &self,
        what: &str,
        validity: Validity,
        verified: bool,
        mend: &str,
        findings: &mut Findings,
    ) {
        let at = |time: DateTime<Utc>| time.format("%Y-%m-%d %H:%M UTC");
        let left = (validity.to - self.now).to_std();
        if validity.from > self.now {
            let detail = format!(
                "{what} is not valid before {}, or this machine's clock is behind",
                at(validity.from)
            );
            findings.error(CHECK, detail, "timedatectl");
        } else if left.is_err() && verified {
            let detail = format!("{what} expired at {}", at(validity.to));
            findings.error(CHECK, detail, mend);
        } else if left.is_err() {
            let detail = format!(
                "{what} expired at {}; this address (sslmode) does not look at it, another program's may",
                at(validity.to)
            );
            findings.warn(CHECK, detail, mend);
        } else if left.is_ok_and(|left| left < self.notice) {
            let hours = (validity.to - self.now).num_hours();
            let left = match hours {
                0..48 => format!("{hours} hours"),
                _ => format!("{} days", hours / 24),
            };
            let detail = format!("{what} expires in {left}, at {}", at(validity.to));
            findings.warn(CHECK, detail, mend);
        } else {
            findings.ok(CHECK, format!("{what} is valid until {}", at(validity.to)));
        }
    }

    /// Of a chain the first that ends counts; of authorities the last one does, because others may stand beside their successors.
    fn file(&self, name: &str, path: &Path, is_chain: bool, findings: &mut Findings) {
        // What cannot be read is reported by the connection.
        let Ok(found) = certificate::in_file(path) else {
            return;
        };
        let counts = match is_chain {
            true => found.into_iter().min_by_key(|one| one.to),
            false => {
                let holds = |one: &&Validity| one.holds_at(self.now);
                let valid = found.iter().filter(holds).max_by_key(|one| one.to);
                valid.or(found.iter().max_by_key(|one| one.to)).copied()
            }
        };
        let Some(validity) = counts else {
            return;
        };
        let what = match is_chain {
            true => format!("the certificate in {name} {}", path.display()),
            false => format!("the last authority in {name} {}", path.display()),
        };
        let mend = format!(
            "openssl x509 -noout -subject -dates -in {}   # the new one into this file",
            quoted(path)
        );
        self.line(&what, validity, true, &mend, findings);
    }
}

/// What the configuration reaches by HTTPS: the page, storage, channels, whoever watches from outside.
fn https(config: &Config) -> BTreeSet<(String, u16)> {
    let backup = config.backup.as_ref();
    let storage = backup.and_then(|b| b.s3.as_ref());
    let copy = backup.and_then(|b| b.copy.as_ref()?.s3.as_ref());
    let channels = config.alert.channels.iter();
    let secrets = channels
        .filter_map(|channel| channel.url.as_ref())
        .chain(&config.alert.heartbeat_url);
    let secrets = secrets.filter_map(|reference| config.secret(reference, "an address").ok());
    let plain = config.report.url.iter().cloned();
    plain
        .chain(
            storage
                .into_iter()
                .chain(copy)
                .map(|s3| s3.endpoint.clone()),
        )
        .chain(secrets.map(|secret| secret.expose().to_owned()))
        .filter_map(|text| {
            let uri: Uri = text.parse().ok()?;
            let host = uri.host()?.trim_matches(['[', ']']).to_owned();
            (uri.scheme_str() == Some("https")).then(|| (host, uri.port_u16().unwrap_or(443)))
        })
        .collect()
}

/// Those of them that answer, all asked at once: a name server that is down would keep each of them for long.
fn seen_by_https(config: &Config, findings: &mut Findings) -> Vec<(String, u16, Validity)> {
    let (sender, receiver) = mpsc::channel();
    for (host, port) in https(config) {
        let sender = sender.clone();
        let started = threads::spawn("look at a certificate", move || {
            let shown = certificate::dial(&host, port, LIMIT)
                .and_then(|mut stream| certificate::shown(&mut stream, &host));
            if let Ok(validity) = shown {
                let _ = sender.send((host, port, validity));
            }
        });
        if let Err(e) = started {
            findings.warn(
                CHECK,
                e.to_string(),
                "ulimit -a   # as the user who runs it",
            );
            break;
        }
    }
    drop(sender);
    let until = Instant::now() + 2 * LIMIT;
    let next = || {
        let left = until.saturating_duration_since(Instant::now());
        receiver.recv_timeout(left).ok()
    };
    let mut seen: Vec<_> = std::iter::from_fn(next).collect();
    seen.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    seen
}
