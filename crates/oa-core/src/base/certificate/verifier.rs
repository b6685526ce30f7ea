//! What a certificate must be before anything is sent to whoever shows it.
//!
//! libpq takes certificates that the strict rules of the web do not, and so do we: those of PostgreSQL's own manual. A server's certificate
//! may be its own authority, when `sslrootcert` names it; it may be of X.509 version 1; its name may stand in the common name alone.
//!
//! Nothing is trusted that `sslrootcert` does not name: the signature of the authority, the time, the name and the server's proof that it
//! has the key are verified here as well.

use std::sync::Arc;

use chrono::DateTime;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, Error, RootCertStore,
    SignatureScheme,
};
use x509_cert::der::asn1::{AnyRef, BitStringRef, ObjectIdentifier};
use x509_cert::der::{Decode, Encode, Reader, SliceReader};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, SubjectAltName};
use x509_cert::{Certificate, Version};

use super::Validity;

/// The common name in a subject.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// What a server must show.
#[derive(Debug)]
pub(crate) enum Demand {
    /// Any certificate, without a proof that the server has its key: to look at it. The connection ends before anything is sent.
    Shown,
    /// Any certificate whose key the server has: encryption against listeners, no protection against an impostor, as libpq documents `prefer`
    /// and `require`.
    Key,
    /// That, and an authority has signed it: `verify-ca` and `verify-full`.
    Authority(Authority),
}

/// Whom a program trusts.
#[derive(Debug)]
pub(crate) struct Authority {
    strict: Arc<WebPkiServerVerifier>,
    named: Vec<CertificateDer<'static>>,
    check_name: bool,
}

impl Authority {
    /// `named`: those of the roots that `sslrootcert` names; nothing for the system's authorities, to whom the strict rules apply. `check_name`:
    /// the certificate must be of the host that was meant, too.
    pub(crate) fn new(
        roots: RootCertStore,
        named: Vec<CertificateDer<'static>>,
        check_name: bool,
    ) -> Result<Self, String> {
        let strict =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        Ok(Self {
            strict: strict.map_err(|e| e.to_string())?,
            named,
            check_name,
        })
    }

    fn verify(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
        algorithms: &WebPkiSupportedAlgorithms,
    ) -> Result<ServerCertVerified, Error> {
        let strict = self.strict.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        let Err(error) = strict else {
            return strict;
        };
        // The name is checked last, so this error means that the chain was good.
        let only_the_name = matches!(
            error,
            Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )
        );
        if only_the_name && !self.check_name {
            return Ok(ServerCertVerified::assertion());
        }
        let Ok(shown) = Certificate::from_der(end_entity) else {
            return Err(error);
        };
        let trusted = only_the_name && !self.named.is_empty()
            || is_valid_at(&shown, now)
                && self.named.iter().any(|root| {
                    root == end_entity || is_signed_by(end_entity, &shown, root, now, algorithms)
                });
        if trusted && (!self.check_name || is_of(server_name, &shown)) {
            return Ok(ServerCertVerified::assertion());
        }
        Err(error)
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// A client that makes this demand; whether it has a certificate of its own is still to say.
pub(crate) fn client(
    demand: Demand,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let provider = provider();
    let verifier = Verifier {
        demand,
        algorithms: provider.signature_verification_algorithms,
    };
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?;
    Ok(client
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier)))
}

#[derive(Debug)]
struct Verifier {
    demand: Demand,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    /// The server's proof that it has the key, where one is demanded; `strict` is what the rules of the web say of it.
    fn proof(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
        strict: VerifySignature,
    ) -> Result<HandshakeSignatureValid, Error> {
        if let Demand::Shown = self.demand {
            return Ok(HandshakeSignatureValid::assertion());
        }
        strict(message, cert, dss, &self.algorithms)
            .or_else(|e| has_the_key(message, cert, dss, &self.algorithms).ok_or(e))
    }
}

type VerifySignature = fn(
    &[u8],
    &CertificateDer<'_>,
    &DigitallySignedStruct,
    &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, Error>;

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match &self.demand {
            Demand::Shown | Demand::Key => Ok(ServerCertVerified::assertion()),
            Demand::Authority(authority) => authority.verify(
                end_entity,
                intermediates,
                server_name,
                ocsp_response,
                now,
                &self.algorithms,
            ),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proof(message, cert, dss, verify_tls12_signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.proof(message, cert, dss, verify_tls13_signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The server's proof, of a certificate that the strict rules cannot read: version 1.
fn has_the_key(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<HandshakeSignatureValid> {
    let shown = Certificate::from_der(cert).ok()?;
    let key = Key::of(&shown)?;
    let (_, of_scheme) = algorithms
        .mapping
        .iter()
        .find(|(scheme, _)| *scheme == dss.scheme)?;
    of_scheme
        .iter()
        .filter(|a| a.public_key_alg_id().as_ref() == key.algorithm)
        .any(|a| {
            a.verify_signature(&key.bits, message, dss.signature())
                .is_ok()
        })
        .then(HandshakeSignatureValid::assertion)
}

struct Key {
    /// Its algorithm, in DER without tag and length.
    algorithm: Vec<u8>,
    bits: Vec<u8>,
}

impl Key {
    fn of(certificate: &Certificate) -> Option<Self> {
        let info = &certificate.tbs_certificate.subject_public_key_info;
        let algorithm = info.algorithm.to_der().ok()?;
        Some(Self {
            algorithm: AnyRef::from_der(&algorithm).ok()?.value().to_vec(),
            bits: info.subject_public_key.raw_bytes().to_vec(),
        })
    }
}

fn is_signed_by(
    der: &[u8],
    shown: &Certificate,
    root: &CertificateDer<'_>,
    now: UnixTime,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let verified = || {
        let authority = Certificate::from_der(root).ok()?;
        if !may_sign(&authority)
            || authority.tbs_certificate.subject != shown.tbs_certificate.issuer
            || !is_valid_at(&authority, now)
        {
            return None;
        }
        let key = Key::of(&authority)?;
        // The bytes that were signed, as they were sent.
        let (signed, algorithm, signature) = SliceReader::new(der)
            .and_then(|mut reader| {
                reader.sequence(|inner| {
                    let signed = inner.tlv_bytes()?;
                    let algorithm = AnyRef::decode(inner)?;
                    Ok((signed, algorithm, BitStringRef::decode(inner)?))
                })
            })
            .ok()?;
        algorithms
            .all
            .iter()
            .filter(|a| {
                a.signature_alg_id().as_ref() == algorithm.value()
                    && a.public_key_alg_id().as_ref() == key.algorithm
            })
            .any(|a| {
                a.verify_signature(&key.bits, signed, signature.raw_bytes())
                    .is_ok()
            })
            .then_some(())
    };
    verified().is_some()
}

/// Version 1 knows no constraints; of the others a server's own certificate is no authority for a second one.
fn may_sign(authority: &Certificate) -> bool {
    match authority.tbs_certificate.get::<BasicConstraints>() {
        Ok(Some((_, constraints))) => constraints.ca,
        Ok(None) => authority.tbs_certificate.version == Version::V1,
        Err(_) => false,
    }
}

fn is_valid_at(certificate: &Certificate, now: UnixTime) -> bool {
    let seconds = i64::try_from(now.as_secs()).ok();
    seconds
        .and_then(|seconds| DateTime::from_timestamp(seconds, 0))
        .is_some_and(|now| Validity::of(certificate).holds_at(now))
}

/// As libpq: the common name counts only where the certificate has no names of that kind of its own.
fn is_of(server: &ServerName<'_>, certificate: &Certificate) -> bool {
    let names = certificate
        .tbs_certificate
        .get::<SubjectAltName>()
        .ok()
        .flatten()
        .map(|(_, names)| names.0)
        .unwrap_or_default();
    match server {
        ServerName::DnsName(name) => {
            let own: Vec<&str> = names
                .iter()
                .filter_map(|n| match n {
                    GeneralName::DnsName(dns) => Some(dns.as_str()),
                    _ => None,
                })
                .collect();
            match own.is_empty() {
                false => own.iter().any(|of| fits(name.as_ref(), of)),
                true => common_names(certificate)
                    .iter()
                    .any(|of| fits(name.as_ref(), of)),
            }
        }
        ServerName::IpAddress(ip) => {
            let ip = std::net::IpAddr::from(*ip);
            let bytes = match ip {
                std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
                std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
            };
            let mut own = names
                .iter()
                .filter_map(|n| match n {
                    GeneralName::IpAddress(of) => Some(of.as_bytes()),
                    _ => None,
                })
                .peekable();
            match own.peek().is_some() {
                true => own.any(|of| of == bytes),
                false => names.is_empty() && common_names(certificate).contains(&ip.to_string()),
            }
        }
        _ => false,
    }
}

fn common_names(certificate: &Certificate) -> Vec<String> {
    let parts = certificate.tbs_certificate.subject.0.iter();
    let parts = parts.flat_map(|part| part.0.iter());
    parts
        .filter(|part| part.oid == COMMON_NAME)
        .filter_map(|part| String::from_utf8(part.value.value().to_vec()).ok())
        .collect()
}

/// A `*` stands for the first label alone.
fn fits(name: &str, pattern: &str) -> bool {
    let (name, pattern) = (name.to_ascii_lowercase(), pattern.to_ascii_lowercase());
    match pattern.strip_prefix("*.") {
        None => name == pattern,
        Some(rest) => name
            .split_once('.')
            .is_some_and(|(first, of)| !first.is_empty() && of == rest && rest.contains('.')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_one_label() {
        assert!(fits("DB.example.com", "db.example.com"));
        assert!(fits("db.example.com", "*.example.com"));
        for no in ["example.com", "a.b.example.com", ".example.com"] {
            assert!(!fits(no, "*.example.com"), "{no}");
        }
        assert!(!fits("db.com", "*.com"));
    }
}
