//! The proxy that the usual variables name, as the browser's own proxy asks it: `CONNECT` of HTTP, SOCKS 4, 4a, 5. The same variables and
//! the same rules as for sources without a browser, which are ureq's.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oa_core::model::retry::ErrorKind;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use ureq::ProxyProtocol;
use ureq::tls::RootCerts;

use super::proxy::Failure;

/// Both ways of a connection.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}
pub(super) type Stream = Box<dyn Duplex>;

/// A proxy's greeting is short.
const LONGEST_ANSWER: usize = 16 << 10;

#[derive(Debug)]
pub(super) struct Upstream {
    proxy: ureq::Proxy,
    /// Whose certificates it may have, as for sources without a browser.
    roots: RootCerts,
}

impl Upstream {
    pub(super) fn from_env(roots: RootCerts) -> Option<Self> {
        let proxy = ureq::Proxy::try_from_env()?;
        Some(Self { proxy, roots })
    }

    /// Whether it is asked for this host and port; `NO_PROXY` says for which not.
    pub(super) fn takes(&self, authority: &str) -> bool {
        let uri: Result<ureq::http::Uri, _> = format!("http://{authority}/").parse();
        uri.is_ok_and(|uri| !self.proxy.is_no_proxy(&uri))
    }

    /// Whether it gets an address in place of a name.
    pub(super) fn wants_address(&self) -> bool {
        self.proxy.resolve_target()
    }

    /// A connection to that host by way of the proxy.
    pub(super) async fn connect(&self, host: &str, port: u16) -> Result<Stream, Failure> {
        let failed = |e: io::Error| {
            let why = format!("the proxy gives no connection: {e}");
            Failure::new(ErrorKind::Network, why)
        };
        self.ask(host, port).await.map_err(failed)
    }

    async fn ask(&self, host: &str, port: u16) -> io::Result<Stream> {
        let proxy = self.proxy.host().trim_matches(['[', ']']);
        let plain = TcpStream::connect((proxy, self.proxy.port())).await?;
        plain.set_nodelay(true)?;
        let mut stream: Stream = match self.proxy.protocol() {
            ProxyProtocol::Https => Box::new(encrypted(proxy, plain, &self.roots).await?),
            _ => Box::new(plain),
        };
        match self.proxy.protocol() {
            ProxyProtocol::Http | ProxyProtocol::Https => {
                self.by_http(&mut stream, host, port).await?;
            }
            ProxyProtocol::Socks4 | ProxyProtocol::Socks4A => {
                by_socks4(&mut stream, host, port).await?;
            }
            _ => self.by_socks5(&mut stream, host, port).await?,
        }
        Ok(stream)
    }

    async fn by_http(&self, stream: &mut Stream, host: &str, port: u16) -> io::Result<()> {
        let to = match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        };
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n");
        if self.proxy.username().is_some() || self.proxy.password().is_some() {
            let (user, password) = (self.proxy.username(), self.proxy.password());
            let both = format!(
                "{}:{}",
                user.unwrap_or_default(),
                password.unwrap_or_default()
            );
            let both = STANDARD.encode(both);
            request.push_str(&format!("Proxy-Authorization: Basic {both}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await?);
            if answer.len() > LONGEST_ANSWER {
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split_ascii_whitespace().nth(1).unwrap_or_default();
        match status.starts_with('2') {
            true => Ok(()),
            false => Err(io::Error::other(format!("HTTP {status} to CONNECT {to}"))),
        }
    }

    async fn by_socks5(&self, stream: &mut Stream, host: &str, port: u16) -> io::Result<()> {
        let user = self.proxy.username();
        let greeting: &[u8] = match user {
            Some(_) => &[5, 2, 2, 0],
            None => &[5, 1, 0],
        };
        stream.write_all(greeting).await?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await?;
        match (answer, user) {
            ([5, 0], _) => {}
            ([5, 2], Some(user)) => {
                let mut login = vec![1];
                push(&mut login, user)?;
                push(&mut login, self.proxy.password().unwrap_or_default())?;
                stream.write_all(&login).await?;
                stream.read_exact(&mut answer).await?;
                if answer[1] != 0 {
                    return Err(io::Error::other("it refuses the login"));
                }
            }
            _ => return Err(io::Error::other("it wants another login")),
        }
        let mut request = vec![5, 1, 0];
        match host.parse::<IpAddr>() {
            Ok(IpAddr::V4(ip)) => {
                request.push(1);
                request.extend(ip.octets());
            }
            Ok(IpAddr::V6(ip)) => {
                request.push(4);
                request.extend(ip.octets());
            }
            Err(_) => {
                request.push(3);
                push(&mut request, host)?;
            }
        }
        request.extend(port.to_be_bytes());
        stream.write_all(&request).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        if answer[..2] != [5, 0] {
            return Err(io::Error::other(format!("SOCKS code {}", answer[1])));
        }
        let rest = match answer[3] {
            1 => 4,
            4 => 16,
            _ => usize::from(stream.read_u8().await?),
        };
        stream.read_exact(&mut vec![0; rest + 2]).await?;
        Ok(())
    }
}

async fn by_socks4(stream: &mut Stream, host: &str, port: u16) -> io::Result<()> {
    let mut request = vec![4, 1];
    request.extend(port.to_be_bytes());
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(ip)) => {
            request.extend(ip.octets());
            request.push(0);
        }
        Ok(IpAddr::V6(_)) => return Err(io::Error::other("SOCKS 4 knows no IPv6")),
        Err(_) => {
            request.extend([0, 0, 0, 1, 0]);
            request.extend(host.as_bytes());
            request.push(0);
        }
    }
    stream.write_all(&request).await?;
    let mut answer = [0; 8];
    stream.read_exact(&mut answer).await?;
    match answer[1] {
        90 => Ok(()),
        code => Err(io::Error::other(format!("SOCKS code {code}"))),
    }
}

/// A text with its length before it.
fn push(to: &mut Vec<u8>, text: &str) -> io::Result<()> {
    let length = u8::try_from(text.len()).map_err(io::Error::other)?;
    to.push(length);
    to.extend(text.as_bytes());
    Ok(())
}

async fn encrypted(
    proxy: &str,
    plain: TcpStream,
    roots: &RootCerts,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut trusted = RootCertStore::empty();
    if let RootCerts::Specific(roots) = roots {
        trusted.add_parsable_certificates(roots.iter().map(|c| CertificateDer::from(c.der())));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let name = ServerName::try_from(proxy.to_owned()).map_err(io::Error::other)?;
    tokio_rustls::TlsConnector::from(Arc::new(config))
        .connect(name, plain)
        .await
}
