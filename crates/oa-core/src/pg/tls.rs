//! What libpq's `sslmode` promises, on rustls.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{Error, RootCertStore};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::base::certificate::{self, Authority, Demand, Validity};
use crate::base::trust::{self, Content};

/// How much of the server's identity is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No encryption.
    Disable,
    /// Encryption where the server offers it; nothing is checked.
    Prefer,
    /// Encryption; nothing is checked, except the chain when `sslrootcert` is given (as libpq does).
    Require,
    /// The certificate comes from a known authority.
    VerifyCa,
    /// That, and it is made out to the host that was asked for.
    VerifyFull,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text {
            "disable" => Self::Disable,
            "allow" | "prefer" => Self::Prefer,
            "require" => Self::Require,
            "verify-ca" => Self::VerifyCa,
            "verify-full" => Self::VerifyFull,
            // Not quoted: it may be a piece of the password.
            _ => {
                return Err(
                    "sslmode is not one of disable, allow, prefer, require, verify-ca, verify-full"
                        .to_owned(),
                );
            }
        })
    }
}

/// What an address says of TLS.
#[derive(Debug, Default)]
pub struct TlsSettings {
    pub(super) mode: Option<Mode>,
    pub(super) root_cert: Option<PathBuf>,
    /// A certificate of this program's own, with its key.
    pub(super) client_cert: Option<PathBuf>,
    pub(super) client_key: Option<PathBuf>,
}

/// Makes the connector for a mode other than [`Mode::Disable`].
pub fn connector(mode: Mode, settings: &TlsSettings) -> Result<MakeRustlsConnect, String> {
    let root_cert = settings.root_cert.as_deref();
    let mode = if mode == Mode::Require && root_cert.is_some() {
        Mode::VerifyCa
    } else {
        mode
    };
    let demand = match mode {
        Mode::VerifyFull | Mode::VerifyCa => {
            let (store, named) = roots(root_cert)?;
            Demand::Authority(Authority::new(store, named, mode == Mode::VerifyFull)?)
        }
        Mode::Disable | Mode::Prefer | Mode::Require => Demand::Key,
    };
    let builder = certificate::client(demand)?;
    let config = match (&settings.client_cert, &settings.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(cert), Some(key)) => {
            let (chain, key) = client(cert, key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|e| format!("sslcert and sslkey do not fit each other: {e}"))?
        }
        _ => return Err("sslcert and sslkey stand in an address together, or neither".to_owned()),
    };
    Ok(MakeRustlsConnect::new(config))
}

/// A certificate of this program's own, and its key, which nobody else may read.
fn client(
    cert: &Path,
    key: &Path,
) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let fail = |what: &str, path: &Path, e: String| {
        format!("could not read {what} {}: {e}", path.display())
    };
    let chain = trust::read_named(cert, trust::LARGEST)
        .map_err(|e| fail("sslcert", cert, e.to_string()))?;
    let chain = CertificateDer::pem_slice_iter(&chain)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| fail("sslcert", cert, e.to_string()))?;
    let text =
        trust::read_bytes(key, Content::Secrets).map_err(|e| fail("sslkey", key, e.to_string()))?;
    let key =
        PrivateKeyDer::from_pem_slice(&text).map_err(|e| fail("sslkey", key, e.to_string()))?;
    Ok((chain, key))
}

/// The authorities that are trusted, and of them those that a file names.
fn roots(file: Option<&Path>) -> Result<(RootCertStore, Vec<CertificateDer<'static>>), String> {
    let mut store = RootCertStore::empty();
    let mut named = Vec::new();
    match file {
        Some(path) => {
            let fail = |e: String| format!("could not read sslrootcert {}: {e}", path.display());
            let text = trust::read_named(path, trust::LARGEST).map_err(|e| fail(e.to_string()))?;
            for cert in CertificateDer::pem_slice_iter(&text) {
                let cert = cert.map_err(|e| fail(e.to_string()))?;
                store.add(cert.clone()).map_err(|e| fail(e.to_string()))?;
                named.push(cert);
            }
        }
        None => {
            let (_, _) =
                store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    if store.is_empty() {
        return Err(
            "there is no certificate authority to trust; name one with sslrootcert".to_owned(),
        );
    }
    Ok((store, named))
}

/// Whether it was the encryption that failed.
pub(super) fn is_tls_error(error: &postgres::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let wrapped = inner
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if inner.is::<Error>()
            || wrapped.is_some_and(<dyn std::error::Error + Send + Sync>::is::<Error>)
        {
            return true;
        }
        source = inner.source();
    }
    false
}

/// The certificate that a PostgreSQL server shows, whoever signed it; `None` when it speaks no TLS.
///
/// # Errors
/// When it does not answer within the limit, or not as PostgreSQL does.
pub fn shown_certificate(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Option<Validity>, String> {
    let text = |e: std::io::Error| e.to_string();
    let mut stream = certificate::dial(host, port, limit)?;
    // SSLRequest: length 8, code 80877103. https://www.postgresql.org/docs/15/protocol-message-formats.html
    stream
        .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
        .map_err(text)?;
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(text)?;
    if answer != *b"S" {
        return Ok(None);
    }
    certificate::shown(&mut stream, host).map(Some)
}
