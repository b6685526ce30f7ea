//! What is between this machine and the sites: trusted certificates, and proxies.

use std::path::Path;

use oa_core::base::trust;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Proxy;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// Variables that name a proxy.
const PROXIES: [&str; 6] = [
    "all_proxy",
    "ALL_PROXY",
    "https_proxy",
    "HTTPS_PROXY",
    "http_proxy",
    "HTTP_PROXY",
];

#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(super) tls: TlsConfig,
}

impl Network {
    /// The system's certificate store (or what `SSL_CERT_FILE` and `SSL_CERT_DIR` name), and the authorities of `ca_file`. On a machine
    /// without any, the built-in ones.
    /// The error is one of the configuration, or of a variable: a proxy that cannot be used is not passed by in silence.
    pub(crate) fn load(ca_file: Option<&Path>) -> Result<Self, String> {
        check_proxies()?;
        let native = rustls_native_certs::load_native_certs();
        let named = ["SSL_CERT_FILE", "SSL_CERT_DIR"]
            .into_iter()
            .find(|name| std::env::var_os(name).is_some());
        if let Some(name) = named.filter(|_| native.certs.is_empty()) {
            return Err(format!(
                "no certificate could be read from what {name} names; correct the variable or unset it"
            ));
        }
        let mut trusted = native.certs;
        if let Some(path) = ca_file {
            let before = trusted.len();
            let fail = |e: String| {
                format!(
                    "could not read ca_file {} of [crawl]: {e}; it must hold certificates in PEM form",
                    path.display()
                )
            };
            let text = trust::read_named(path, trust::LARGEST).map_err(|e| fail(e.to_string()))?;
            for one in CertificateDer::pem_slice_iter(&text) {
                trusted.push(one.map_err(|e| fail(e.to_string()))?);
            }
            if trusted.len() == before {
                return Err(fail("no certificate is in it".to_owned()));
            }
        }
        let roots = match trusted.is_empty() {
            true => RootCerts::WebPki,
            false => {
                let own = |der: &CertificateDer<'_>| Certificate::from_der(der).to_owned();
                RootCerts::new_with_certs(&trusted.iter().map(own).collect::<Vec<_>>())
            }
        };
        Ok(Self {
            tls: TlsConfig::builder().root_certs(roots).build(),
        })
    }
}

/// The value is not shown: it may have a password in it.
fn check_proxies() -> Result<(), String> {
    for name in PROXIES {
        let value = std::env::var(name).unwrap_or_default();
        if !value.is_empty() && Proxy::new(&value).is_err() {
            return Err(format!(
                "could not use the proxy that {name} names: it must be an address such as http://proxy:3128, with http, https, socks4, socks4a, socks5 or socks5h; correct the variable or unset it"
            ));
        }
    }
    Ok(())
}
