//! From when until when a certificate is valid: of a server, as it shows it, and of a file. Nothing is trusted by what is seen here, and
//! nothing is sent.

mod verifier;

use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::ClientConnection;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::base::trust;
pub(crate) use verifier::{Authority, Demand, client};

/// Both in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// It is not valid before.
    pub from: DateTime<Utc>,
    /// It is not valid after.
    pub to: DateTime<Utc>,
}

impl Validity {
    fn of_der(der: &[u8]) -> Result<Self, String> {
        let certificate = Certificate::from_der(der).map_err(|e| e.to_string())?;
        Ok(Self::of(&certificate))
    }

    fn of(certificate: &Certificate) -> Self {
        let validity = &certificate.tbs_certificate.validity;
        let time = |since: Duration| {
            let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
            DateTime::from_timestamp(seconds, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
        };
        Self {
            from: time(validity.not_before.to_unix_duration()),
            to: time(validity.not_after.to_unix_duration()),
        }
    }

    /// Whether it is valid at this time.
    #[must_use]
    pub fn holds_at(&self, at: DateTime<Utc>) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

/// The certificates of a file (PEM), in its order.
///
/// # Errors
/// When it cannot be read, or holds none.
pub fn in_file(path: &Path) -> Result<Vec<Validity>, String> {
    let text = trust::read_named(path, trust::LARGEST).map_err(|e| e.to_string())?;
    let mut found = Vec::new();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        found.push(Validity::of_der(&certificate.map_err(|e| e.to_string())?)?);
    }
    match found.is_empty() {
        true => Err("it holds no certificate".to_owned()),
        false => Ok(found),
    }
}

/// The certificate of whoever speaks TLS at the other end of a connection, whoever signed it.
///
/// # Errors
/// When it does not speak TLS, or not within the connection's own limits.
pub fn shown(stream: &mut TcpStream, host: &str) -> Result<Validity, String> {
    let config = client(Demand::Shown)?.with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let mut tls = ClientConnection::new(Arc::new(config), name).map_err(|e| e.to_string())?;
    while tls.is_handshaking() {
        tls.complete_io(stream).map_err(|e| e.to_string())?;
    }
    let shown = tls.peer_certificates().and_then(<[_]>::first);
    Validity::of_der(shown.ok_or("the server shows no certificate")?)
}

/// A connection with a limit for each step.
///
/// # Errors
/// When nobody answers.
pub fn dial(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut why = "the name has no address".to_owned();
    for address in (host, port).to_socket_addrs().map_err(text)? {
        match TcpStream::connect_timeout(&address, limit) {
            Ok(stream) => {
                stream.set_read_timeout(Some(limit)).map_err(text)?;
                stream.set_write_timeout(Some(limit)).map_err(text)?;
                return Ok(stream);
            }
            Err(e) => why = text(e),
        }
    }
    Err(why)
}
