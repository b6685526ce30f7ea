//! What libpq's `sslmode` promises, on rustls.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use tokio_postgres_rustls::MakeRustlsConnect;
use x509_cert::der::Decode;

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

/// Makes the connector for a mode other than [`Mode::Disable`].
pub fn connector(mode: Mode, root_cert: Option<&Path>) -> Result<MakeRustlsConnect, String> {
    let mode = if mode == Mode::Require && root_cert.is_some() {
        Mode::VerifyCa
    } else {
        mode
    };
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    let config = match mode {
        Mode::VerifyFull => builder
            .with_root_certificates(roots(root_cert)?)
            .with_no_client_auth(),
        Mode::VerifyCa => {
            let inner =
                WebPkiServerVerifier::builder_with_provider(Arc::new(roots(root_cert)?), provider)
                    .build()
                    .map_err(|e| e.to_string())?;
            builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(AnyHost(inner)))
                .with_no_client_auth()
        }
        Mode::Disable | Mode::Prefer | Mode::Require => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
            .with_no_client_auth(),
    };
    Ok(MakeRustlsConnect::new(config))
}

fn roots(file: Option<&Path>) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    match file {
        Some(path) => {
            let fail = |e: String| format!("could not read sslrootcert {}: {e}", path.display());
            for cert in CertificateDer::pem_file_iter(path).map_err(|e| fail(e.to_string()))? {
                let cert = cert.map_err(|e| fail(e.to_string()))?;
                store.add(cert).map_err(|e| fail(e.to_string()))?;
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
    Ok(store)
}

/// `verify-ca`: the chain counts, the name does not.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        // The name is checked last, so this error means that the chain was good.
        match self
            .0
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// `prefer` and `require`: encryption against listeners, no protection against an impostor, as libpq documents it.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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

/// The end of validity (UTC) of the certificate that a PostgreSQL server shows, whoever signed it; `None` when it speaks no TLS.
///
/// # Errors
/// When it does not answer within the limit, or not as PostgreSQL does.
pub fn certificate_end(
    host: &str,
    port: u16,
    limit: Duration,
) -> Result<Option<DateTime<Utc>>, String> {
    let text = |e: std::io::Error| e.to_string();
    let address = (host, port).to_socket_addrs().map_err(text)?.next();
    let address = address.ok_or("the name has no address")?;
    let mut stream = TcpStream::connect_timeout(&address, limit).map_err(text)?;
    stream.set_read_timeout(Some(limit)).map_err(text)?;
    stream.set_write_timeout(Some(limit)).map_err(text)?;
    // SSLRequest: length 8, code 80877103. https://www.postgresql.org/docs/15/protocol-message-formats.html
    stream
        .write_all(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])
        .map_err(text)?;
    let mut answer = [0];
    stream.read_exact(&mut answer).map_err(text)?;
    if answer != *b"S" {
        return Ok(None);
    }
    let provider = Arc::new(ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let mut tls =
        ClientConnection::new(Arc::new(config), name).map_err(|e: Error| e.to_string())?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(text)?;
    }
    let shown = tls.peer_certificates().and_then(<[_]>::first);
    let shown = shown.ok_or("the server shows no certificate")?;
    let parsed = x509_cert::Certificate::from_der(shown).map_err(|e| e.to_string())?;
    let end = parsed.tbs_certificate.validity.not_after.to_unix_duration();
    let end = i64::try_from(end.as_secs()).map_err(|e| e.to_string())?;
    Ok(DateTime::from_timestamp(end, 0))
}
