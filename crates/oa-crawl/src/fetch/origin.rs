//! Where a request may go. Secrets, cookies and a source's own headers belong to the origin (scheme, host and port) of its `base`:
//! a site that redirects elsewhere, or is taken over, gets nothing of them for somebody else, and cannot send this machine to itself.

//!
//! An address is judged where it is connected to, by [`HomeOrigin::forbids_ips`]: in the resolver of the HTTP client, and in the proxy
//! that is the browser's only way out. What a name led to when it was looked at means nothing a moment later.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, ToSocketAddrs, UdpSocket};
use std::sync::{Arc, OnceLock};

use url::{Host, Origin, Url};

/// The origin that a source's secrets belong to.
#[derive(Debug, Clone)]
pub(crate) struct HomeOrigin {
    home: Option<Url>,
    /// Others to which the site may redirect.
    allowed: Vec<Url>,
    /// Where the home was when it was first connected to.
    reach: Arc<OnceLock<Reach>>,
}

/// How far away an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reach {
    /// This machine, or what only it and its neighbours on the cable know.
    Machine,
    /// A private network.
    Network,
    Anywhere,
}

impl Reach {
    fn forbidden(self) -> &'static str {
        match self {
            Self::Machine => "an address of this machine or its own network",
            Self::Network => "an address of a private network",
            Self::Anywhere => "an address elsewhere",
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asker {
    /// This program, for what the source file says. A site of this machine, or of a private network, may name others there.
    Program,
    /// A page, of whatever it likes: on this machine and in private networks only what the source itself names.
    Page,
}

impl HomeOrigin {
    pub(crate) fn of(base: &str) -> Self {
        Self {
            home: Url::parse(base).ok(),
            allowed: Vec::new(),
            reach: Arc::default(),
        }
    }

    /// The same with others to which the site may redirect.
    pub(crate) fn allowing(mut self, origins: &[String]) -> Self {
        let origins = origins.iter().filter_map(|o| Url::parse(o).ok());
        self.allowed = origins.collect();
        self
    }

    /// Whether a redirect may lead from one address to another: at home, within an origin, to the same host by https, or as the source
    /// says.
    pub(crate) fn lets_redirect(&self, from: &Url, to: &Url) -> bool {
        let secured = from.scheme() == "http"
            && to.scheme() == "https"
            && from.host() == to.host()
            && from.port().is_none()
            && to.port().is_none();
        secured
            || self.is(to)
            || from.origin() == to.origin()
            || self.allowed.iter().any(|a| a.origin() == to.origin())
    }

    pub(crate) fn is(&self, url: &Url) -> bool {
        self.home
            .as_ref()
            .is_some_and(|home| home.origin() == url.origin())
    }

    /// Why no request may go to this address, if so, as far as the address itself says it. What its name leads to is for
    /// [`Self::forbids_ips`].
    pub(crate) fn forbids(&self, url: &Url) -> Option<&'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Some("an address that is not http or https");
        }
        let (host, port) = host_and_port(url)?;
        self.forbids_host(host, port, Asker::Program)
    }

    /// The same of a host and a port.
    pub(crate) fn forbids_host(&self, host: &str, port: u16, asker: Asker) -> Option<&'static str> {
        self.forbids_reach(host, port, reach_of_host(host)?, asker)
    }

    /// The same of what its name leads to from here, for who leaves it to a proxy to connect; nothing when that is not known here.
    pub(crate) fn forbids_through_proxy(&self, url: &Url) -> Option<&'static str> {
        let (host, port) = host_and_port(url)?;
        // Where the home is the proxy knows.
        if self.is_home(host, port) {
            return None;
        }
        let ips = (host, port).to_socket_addrs().ok()?.map(|a| a.ip());
        self.forbids_ips(host, port, ips, Asker::Program)
    }

    /// Why no connection for this host may be made to these addresses, if so.
    pub(crate) fn forbids_ips(
        &self,
        host: &str,
        port: u16,
        ips: impl Iterator<Item = IpAddr>,
        asker: Asker,
    ) -> Option<&'static str> {
        self.forbids_reach(host, port, ips.map(reach_of).min()?, asker)
    }

    fn forbids_reach(
        &self,
        host: &str,
        port: u16,
        reach: Reach,
        asker: Asker,
    ) -> Option<&'static str> {
        if self.is_home(host, port) {
            // Who has the name may let it lead to this machine later.
            let first = *self.reach.get_or_init(|| reach);
            return (reach < first).then(|| reach.forbidden());
        }
        if reach == Reach::Anywhere || self.allowed.iter().any(|a| is_at(a, host, port)) {
            return None;
        }
        (asker == Asker::Page || reach < self.home_reach()).then(|| reach.forbidden())
    }

    /// Also by https, to which a site may lead of itself.
    pub(crate) fn is_home(&self, host: &str, port: u16) -> bool {
        self.home.as_ref().is_some_and(|home| {
            let secured = home.scheme() == "http" && home.port().is_none() && port == 443;
            is_at(home, host, if secured { 80 } else { port })
        })
    }

    /// Where the home was when it was connected to, else what its address itself says. Its name is not resolved for this: whoever has the name
    /// could let it lead here just then.
    fn home_reach(&self) -> Reach {
        let by_address = || {
            let (host, _) = host_and_port(self.home.as_ref()?)?;
            reach_of_host(host)
        };
        let connected = self.reach.get().copied();
        connected.or_else(by_address).unwrap_or(Reach::Anywhere)
    }
}

/// An origin and a path, without what may be a secret.
pub(crate) fn shown(url: &Url) -> String {
    match url.origin() {
        Origin::Tuple(..) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        Origin::Opaque(_) => format!("{}:…", url.scheme()),
    }
}

/// The host without brackets.
pub(crate) fn host_and_port(url: &Url) -> Option<(&str, u16)> {
    let host = url.host_str()?;
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    Some((bare, url.port_or_known_default()?))
}

fn is_at(url: &Url, host: &str, port: u16) -> bool {
    host_and_port(url).is_some_and(|(h, p)| h.eq_ignore_ascii_case(host) && p == port)
}

/// Whether this is this machine by its very name.
pub(crate) fn is_here(host: &str) -> bool {
    reach_of_host(host) == Some(Reach::Machine)
}

/// By an address in any form, or a name that is always this machine's; `None` of any other name.
fn reach_of_host(host: &str) -> Option<Reach> {
    if let Ok(ip) = host.parse() {
        return Some(reach_of(ip));
    }
    match Host::parse(host).ok()? {
        Host::Ipv4(ip) => Some(reach_of(IpAddr::V4(ip))),
        Host::Ipv6(ip) => Some(reach_of(IpAddr::V6(ip))),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.');
            (name == "localhost" || name.ends_with(".localhost")).then_some(Reach::Machine)
        }
    }
}

fn reach_of(ip: IpAddr) -> Reach {
    let reach = match ip {
        IpAddr::V4(ip) => reach_of_v4(ip),
        IpAddr::V6(ip) => reach_of_v6(ip),
    };
    match reach {
        // What is closed to others may be open to the machine itself.
        Reach::Network | Reach::Anywhere if is_own(ip) => Reach::Machine,
        reach => reach,
    }
}

/// By IANA's registry of special-purpose addresses. Those for documentation and benchmarks (198.18.0.0/15) count as elsewhere: nobody has
/// them, but programs that lead all connections through a tunnel give them to names.
fn reach_of_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, c, _] = ip.octets();
    let machine = a == 0 || ip.is_loopback() || ip.is_link_local() || ip.is_multicast() || a >= 240;
    let network = ip.is_private() || (a == 100 && b & 0xc0 == 64) || (a, b, c) == (192, 0, 0);
    match (machine, network) {
        (true, _) => Reach::Machine,
        (_, true) => Reach::Network,
        _ => Reach::Anywhere,
    }
}

fn reach_of_v6(ip: Ipv6Addr) -> Reach {
    if let Some(within) = within(ip) {
        return reach_of_v4(within);
    }
    let site_local = ip.segments()[0] & 0xffc0 == 0xfec0;
    // Local translation (64:ff9b:1::/48), and Teredo, behind which anything may be.
    let hidden = ip.segments()[..3] == [0x64, 0xff9b, 1] || ip.segments()[..2] == [0x2001, 0];
    if ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || ip.is_multicast() {
        Reach::Machine
    } else if ip.is_unique_local() || site_local || hidden {
        Reach::Network
    } else {
        Reach::Anywhere
    }
}

/// The IPv4 address to which an IPv6 address leads: mapped, translated (NAT64 and SIIT), compatible, 6to4.
fn within(ip: Ipv6Addr) -> Option<Ipv4Addr> {
    let s = ip.segments();
    let v4 = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x2002, a, b, ..] => Some(v4(a, b)),
        [0, 0, 0, 0, 0, 0, a, b] if ip != Ipv6Addr::LOCALHOST => Some(v4(a, b)),
        _ => None,
    }
}

/// Whether it is an address of this machine: to such a one the system asks from itself. Nothing is sent. One for documentation is nobody's,
/// but a machine on which tests run may have it.
fn is_own(ip: IpAddr) -> bool {
    let any = match ip {
        IpAddr::V4(ip) if ip.is_documentation() => return false,
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let from = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    from.is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let home = HomeOrigin::of("https://a.example/app");
        let is = |url: &str| home.is(&Url::parse(url).unwrap());
        assert!(is("https://a.example/x") && is("https://A.example:443/"));
        for other in [
            "http://a.example/",
            "https://a.example:8443/",
            "https://a.example.evil/",
            "https://b.a.example/",
        ] {
            assert!(!is(other), "{other}");
        }
    }

    #[test]
    fn a_redirect_leads_to_another_origin_only_where_the_source_says_so() {
        let home = HomeOrigin::of("http://a.example").allowing(&["https://b.example/".to_owned()]);
        let lets = |from: &str, to: &str| {
            home.lets_redirect(&Url::parse(from).unwrap(), &Url::parse(to).unwrap())
        };
        for (from, to) in [
            ("http://a.example/x", "http://a.example/y"),
            ("http://a.example/", "https://a.example/"),
            ("http://a.example/", "https://b.example/x"),
            ("https://b.example/", "http://a.example/"),
            ("http://images.example/1", "http://images.example/2"),
        ] {
            assert!(lets(from, to), "{from} {to}");
        }
        for (from, to) in [
            ("http://a.example/", "http://b.example/"),
            ("http://a.example/", "https://c.example/"),
            ("http://a.example/", "https://a.example:8443/"),
            ("http://a.example:81/", "https://a.example/"),
        ] {
            assert!(!lets(from, to), "{from} {to}");
        }
    }

    #[test]
    fn a_site_elsewhere_cannot_send_this_machine_to_itself() {
        let forbids = |home: &str, url: &str| {
            let url = Url::parse(url).unwrap();
            HomeOrigin::of(home).forbids(&url).is_some()
        };
        for url in [
            "http://127.0.0.1/",
            "http://127.1:5432/",
            "http://0x7f000001/",
            "http://2130706433/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[fe80::1]/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://x.localhost/",
            "file:///etc/passwd",
        ] {
            assert!(forbids("http://192.0.2.1", url), "{url}");
        }
        assert!(!forbids("http://192.0.2.1", "http://192.0.2.2/"));
        // A site that is this machine may show another of its ports.
        assert!(!forbids("http://127.0.0.1:1", "http://127.0.0.1:2/"));
        // But not one of a private network, which may show its neighbours.
        assert!(forbids("http://10.1.2.3", "http://127.0.0.1/"));
        assert!(!forbids("http://10.1.2.3", "http://192.168.0.1/"));
    }

    #[test]
    fn an_address_is_judged_in_whatever_form_it_comes() {
        for (reach, addresses) in [
            (
                Reach::Machine,
                &[
                    "127.8.9.10",
                    "0.0.0.0",
                    "0.1.2.3",
                    "169.254.169.254",
                    "224.0.0.251",
                    "255.255.255.255",
                    "::",
                    "::1",
                    "::ffff:127.0.0.1",
                    "::127.0.0.1",
                    "::ffff:0:127.0.0.1",
                    "64:ff9b::7f00:1",
                    "64:ff9b::169.254.169.254",
                    "2002:7f00:1::1",
                    "fe80::1",
                    "ff02::fb",
                ][..],
            ),
            (
                Reach::Network,
                &[
                    "10.0.0.1",
                    "172.31.255.1",
                    "192.168.1.1",
                    "100.100.100.200",
                    "192.0.0.192",
                    "::ffff:10.0.0.1",
                    "64:ff9b::c0a8:1",
                    "64:ff9b:1::1",
                    "2002:a00:1::1",
                    "2001:0:1::1",
                    "fd00::1",
                    "fec0::1",
                ],
            ),
            (
                Reach::Anywhere,
                &[
                    "8.8.8.8",
                    "172.32.0.1",
                    "100.128.0.1",
                    "192.0.2.1",
                    "198.18.0.7",
                    "64:ff9b::808:808",
                    "2606:4700::1111",
                    "2001:db8::1",
                ],
            ),
        ] {
            for address in addresses {
                let found = match address.parse().unwrap() {
                    IpAddr::V4(ip) => reach_of_v4(ip),
                    IpAddr::V6(ip) => reach_of_v6(ip),
                };
                assert_eq!(found, reach, "{address}");
            }
        }
    }

    #[test]
    fn a_page_gets_at_nothing_here_that_the_source_does_not_name() {
        let here = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let home =
            HomeOrigin::of("http://127.0.0.1:81/app").allowing(&["http://127.0.0.1:82".to_owned()]);
        let forbids = |port, asker| {
            home.forbids_ips("127.0.0.1", port, [here].into_iter(), asker)
                .is_some()
        };
        assert!(!forbids(81, Asker::Page) && !forbids(82, Asker::Page));
        assert!(forbids(83, Asker::Page) && !forbids(83, Asker::Program));
    }

    #[test]
    fn a_name_that_led_elsewhere_leads_to_this_machine_no_more() {
        let home = HomeOrigin::of("http://rebinds.example");
        let to = |ip: &str| {
            let ips = [ip.parse().unwrap()].into_iter();
            home.forbids_ips("rebinds.example", 80, ips, Asker::Page)
        };
        assert_eq!(to("192.0.2.7"), None);
        assert!(to("127.0.0.1").is_some() && to("10.0.0.1").is_some());
        assert_eq!(to("192.0.2.8"), None);
        // One that is here from the beginning is what somebody calls this machine.
        let here = HomeOrigin::of("http://intranet.example");
        let to = |ip: &str| {
            let ips = [ip.parse().unwrap()].into_iter();
            here.forbids_ips("intranet.example", 80, ips, Asker::Page)
        };
        assert_eq!((to("127.0.0.1"), to("10.0.0.1")), (None, None));
    }
}
