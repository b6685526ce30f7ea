//! The browser's only way out: a SOCKS proxy of this process. Chromium resolves no name and connects to nothing else (`launch.rs`), whatever
//! asks in it: pages, frames, workers, sockets, prefetches, redirects. Each connection is judged here, by the address to which it is made
//! then, so that a name cannot lead elsewhere in between.
//!
//! It listens on loopback, and serves this user alone: others of the machine could ask under its name. What the usual variables name as a
//! proxy is asked in turn, as for sources without a browser.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use oa_core::base::threads;
use oa_core::model::retry::ErrorKind;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::timeout;
use ureq::tls::RootCerts;
use url::Url;

use super::upstream::{self, Upstream};
use crate::fetch::origin::{Asker, HomeOrigin, host_and_port, is_here};

/// For a connection as a whole, as for sources without a browser.
const CONNECT: Duration = Duration::from_secs(15);
/// For a name of which the operator's proxy is asked anyway: where only that resolves names, nobody may answer here for long.
const LOOK_UP: Duration = Duration::from_secs(3);
/// So long after one address of a host another one is tried beside it.
const BESIDE: Duration = Duration::from_millis(250);
/// Chromium says at once where it wants to go.
const GREETING: Duration = Duration::from_secs(10);
/// So many addresses that were refused are named.
const MOST_REFUSED: usize = 5;
/// What to do where a page needs what was refused.
pub(super) const REMEDY: &str = "; if it needs that, name its origin as redirects in [fetch]";

/// Whose sockets there are, also where a service sees nothing of `/proc` but processes.
const SOCKETS: &str = "/proc/self/net/tcp";

/// Codes of RFC 1928.
const GRANTED: u8 = 0;
const FAILED: u8 = 1;
const NOT_ALLOWED: u8 = 2;
const UNKNOWN_COMMAND: u8 = 7;

/// Why there is no connection.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    pub(super) kind: ErrorKind,
    pub(super) why: String,
}

impl Failure {
    pub(super) fn new(kind: ErrorKind, why: impl Into<String>) -> Self {
        let why = why.into();
        Self { kind, why }
    }

    fn of(error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Network,
        };
        Self::new(kind, error.to_string())
    }
}

/// What was refused or failed since the page was opened.
#[derive(Debug, Default)]
struct Notes {
    /// Host and port, and why.
    refused: Vec<(String, u16, &'static str)>,
    last: Option<Failure>,
}

/// A proxy that runs. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub(super) struct Proxy {
    port: u16,
    notes: Arc<Mutex<Notes>>,
    _running: oneshot::Sender<()>,
}

impl Proxy {
    /// Starts one for the pages of a source.
    /// `roots`: whom an operator's proxy that speaks TLS has its certificate from.
    pub(super) fn start(home: HomeOrigin, roots: RootCerts) -> io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (running, ended) = oneshot::channel();
        let notes = Arc::default();
        let way = Way {
            home,
            upstream: Upstream::from_env(roots),
            notes: Arc::clone(&notes),
        };
        threads::spawn("let the browser out", move || {
            runtime.block_on(async {
                tokio::select! {
                    () = accept(listener, port, Arc::new(way)) => {}
                    _ = ended => {}
                }
            });
            // A name that is still being resolved is not waited for.
            runtime.shutdown_background();
        })?;
        Ok(Self {
            port,
            notes,
            _running: running,
        })
    }

    /// Where Chromium asks.
    pub(super) fn address(&self) -> String {
        format!("socks5://{}:{}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Forgets what was refused or failed before.
    pub(super) fn forget(&self) {
        *lock(&self.notes) = Notes::default();
    }

    /// Why the last connection that was not made was not.
    pub(super) fn last_failure(&self) -> Option<Failure> {
        lock(&self.notes).last.clone()
    }

    /// Why this address was refused, if it was.
    pub(super) fn refusal_of(&self, url: &Url) -> Option<&'static str> {
        let (host, port) = host_and_port(url)?;
        let notes = lock(&self.notes);
        let mut refused = notes.refused.iter();
        let found = refused.find(|(h, p, _)| h.eq_ignore_ascii_case(host) && *p == port);
        found.map(|(_, _, why)| *why)
    }

    /// What the page asked for and did not get, and what you can do.
    pub(super) fn refused(&self) -> Option<String> {
        let notes = lock(&self.notes);
        let refused = notes.refused.iter().take(MOST_REFUSED);
        let refused: Vec<String> = refused
            .map(|(host, port, why)| format!("{} ({why})", authority(host, *port)))
            .collect();
        (!refused.is_empty()).then(|| {
            format!(
                "the page got no connection to {}{REMEDY}",
                refused.join(", ")
            )
        })
    }
}

/// What a connection needs.
struct Way {
    home: HomeOrigin,
    upstream: Option<Upstream>,
    notes: Arc<Mutex<Notes>>,
}

async fn accept(listener: std::net::TcpListener, port: u16, way: Arc<Way>) {
    let Ok(listener) = TcpListener::from_std(listener) else {
        return;
    };
    loop {
        match listener.accept().await {
            Ok((page, from)) => {
                let way = Arc::clone(&way);
                tokio::spawn(async move {
                    match is_this_user(from, port) {
                        Ok(true) => {
                            let _ = way.serve(page).await;
                        }
                        Ok(false) => tracing::debug!("another user asks the browser's proxy"),
                        Err(e) => {
                            let why =
                                format!("could not see whose connection it is: {e}: {SOCKETS}");
                            lock(&way.notes).last = Some(Failure::new(ErrorKind::Internal, why));
                        }
                    }
                });
            }
            // Too many files are open: some of them are closed soon.
            Err(e) => {
                tracing::debug!("the browser's proxy: {e}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

impl Way {
    async fn serve(&self, mut page: TcpStream) -> io::Result<()> {
        page.set_nodelay(true)?;
        let (host, port) = timeout(GREETING, requested(&mut page)).await??;
        if let Some(why) = self.home.forbids_host(&host, port, Asker::Page) {
            self.refuse(&host, port, why);
            return answer(&mut page, NOT_ALLOWED).await;
        }
        let connected = timeout(CONNECT, self.connect(&host, port)).await;
        let late = || Failure::new(ErrorKind::Timeout, "no connection within 15 s");
        let mut there = match connected.unwrap_or_else(|_| Err(late())) {
            Ok(there) => there,
            Err(failure) => {
                lock(&self.notes).last = Some(failure);
                return answer(&mut page, FAILED).await;
            }
        };
        answer(&mut page, GRANTED).await?;
        copy_bidirectional(&mut page, &mut there).await?;
        Ok(())
    }

    /// Connects to an address that was judged, or has the operator's proxy do so.
    async fn connect(&self, host: &str, port: u16) -> Result<upstream::Stream, Failure> {
        let proxy = self.upstream.as_ref();
        let proxy = proxy.filter(|p| !is_here(host) && p.takes(&authority(host, port)));
        let Some(proxy) = proxy else {
            let found = self.addresses(host, port).await?;
            let there = first_of(found).await.map_err(|e| Failure::of(&e))?;
            return Ok(Box::new(there));
        };
        if proxy.wants_address() {
            let found = self.addresses(host, port).await?;
            let first = found.first().map(|address| address.ip().to_string());
            let first = first.unwrap_or_else(|| host.to_owned());
            return proxy.connect(&first, port).await;
        }
        // Where the home is the proxy knows.
        if self.home.is_home(host, port) {
            return proxy.connect(host, port).await;
        }
        // Where the name leads to from here may be what it leads to from there: the proxy may be of this machine.
        let found: Vec<SocketAddr> = match timeout(LOOK_UP, lookup_host((host, port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        };
        if let Some(why) = self.home.forbids_ips(host, port, ips(&found), Asker::Page) {
            return Err(self.refuse(host, port, why));
        }
        proxy.connect(host, port).await
    }

    async fn addresses(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, Failure> {
        let unknown = |_| Failure::new(ErrorKind::Dns, "the host name cannot be resolved");
        let found = lookup_host((host, port)).await.map_err(unknown)?;
        let found: Vec<SocketAddr> = found.collect();
        match self.home.forbids_ips(host, port, ips(&found), Asker::Page) {
            Some(why) => Err(self.refuse(host, port, why)),
            None => Ok(found),
        }
    }

    fn refuse(&self, host: &str, port: u16, why: &'static str) -> Failure {
        let shown = authority(host, port);
        let remedy = match self.home.is_home(host, port) {
            true => "",
            false => REMEDY,
        };
        let failure = Failure::new(
            ErrorKind::Blocked,
            format!("the page led to {shown} ({why}){remedy}"),
        );
        let mut notes = lock(&self.notes);
        let refused = (host.to_owned(), port, why);
        // A page may try all ports.
        if notes.refused.len() < 1000 && !notes.refused.contains(&refused) {
            tracing::debug!("refused: {shown} ({why})");
            notes.refused.push(refused);
        }
        notes.last = Some(failure.clone());
        failure
    }
}

/// The first of these addresses that takes a connection. One that says nothing, as often an IPv6 address behind a broken line, keeps the others
/// waiting for a moment only.
async fn first_of(addresses: Vec<SocketAddr>) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    let mut addresses = addresses.into_iter();
    let mut under_way = JoinSet::new();
    loop {
        if let Some(address) = addresses.next() {
            under_way.spawn(TcpStream::connect(address));
        }
        match timeout(BESIDE, under_way.join_next()).await {
            Ok(Some(Ok(Ok(there)))) => return Ok(there),
            Ok(Some(Ok(Err(e)))) => last = e,
            Ok(Some(Err(_))) | Err(_) => {}
            Ok(None) => return Err(last),
        }
    }
}

fn ips(addresses: &[SocketAddr]) -> impl Iterator<Item = IpAddr> {
    addresses.iter().map(SocketAddr::ip)
}

/// Where Chromium wants to go (RFC 1928).
async fn requested(page: &mut TcpStream) -> io::Result<(String, u16)> {
    let mut greeting = [0; 2];
    page.read_exact(&mut greeting).await?;
    let mut methods = vec![0; usize::from(greeting[1])];
    page.read_exact(&mut methods).await?;
    page.write_all(&[5, 0]).await?;
    let mut request = [0; 4];
    page.read_exact(&mut request).await?;
    let host = match request[3] {
        1 => IpAddr::from(read::<4>(page).await?).to_string(),
        4 => IpAddr::from(read::<16>(page).await?).to_string(),
        3 => {
            let mut name = vec![0; usize::from(page.read_u8().await?)];
            page.read_exact(&mut name).await?;
            let name = String::from_utf8(name).map_err(io::Error::other)?;
            name.trim_start_matches('[')
                .trim_end_matches(']')
                .to_owned()
        }
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    let port = page.read_u16().await?;
    if request[..2] != [5, 1] {
        answer(page, UNKNOWN_COMMAND).await?;
        return Err(io::ErrorKind::Unsupported.into());
    }
    Ok((host, port))
}

async fn read<const N: usize>(page: &mut TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    page.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn answer(page: &mut TcpStream, code: u8) -> io::Result<()> {
    page.write_all(&[5, code, 0, 1, 0, 0, 0, 0, 0, 0]).await
}

/// Whether the other end of a connection to `port` belongs to this user.
fn is_this_user(from: SocketAddr, port: u16) -> io::Result<bool> {
    let SocketAddr::V4(from) = from else {
        return Ok(false);
    };
    // As the kernel writes them (proc_net_tcp(5)).
    let written = |ip: Ipv4Addr, port: u16| {
        let ip = u32::from_ne_bytes(ip.octets());
        format!("{ip:08X}:{port:04X}")
    };
    let theirs = written(*from.ip(), from.port());
    let ours = written(Ipv4Addr::LOCALHOST, port);
    let user = rustix::process::geteuid().as_raw().to_string();
    let table = std::fs::read_to_string(SOCKETS)?;
    Ok(table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.len() > 7 && fields[1] == theirs && fields[2] == ours && fields[7] == user
    }))
}

/// Host and port as they stand in an address.
fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

fn lock(notes: &Mutex<Notes>) -> MutexGuard<'_, Notes> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_takes_no_connection_keeps_no_other_from_it() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let there = listener.local_addr().unwrap();
        let closed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let nobody = closed.local_addr().unwrap();
        drop(closed);
        let connected = runtime.block_on(first_of(vec![nobody, there])).unwrap();
        assert_eq!(connected.peer_addr().unwrap(), there);
        let refused = runtime
            .block_on(first_of(vec![nobody, nobody]))
            .unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(runtime.block_on(first_of(Vec::new())).is_err());
    }
}
