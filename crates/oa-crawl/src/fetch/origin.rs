//! Where a request may go. Secrets, cookies and a source's own headers belong to the origin (scheme, host and port) of its `base`:
//! a site that redirects elsewhere, or is taken over, gets nothing of them for somebody else, and cannot send this machine to itself.

use std::net::{IpAddr, Ipv6Addr, ToSocketAddrs};

use url::{Host, Origin, Url};

/// The origin that a source's secrets belong to.
#[derive(Debug, Clone)]
pub(crate) struct HomeOrigin {
    home: Option<Url>,
    /// Others to which the site may redirect.
    allowed: Vec<Origin>,
}

impl HomeOrigin {
    pub(crate) fn of(base: &str) -> Self {
        Self {
            home: Url::parse(base).ok(),
            allowed: Vec::new(),
        }
    }

    /// The same with others to which the site may redirect.
    pub(crate) fn allowing(mut self, origins: &[String]) -> Self {
        let origins = origins.iter().filter_map(|o| Url::parse(o).ok());
        self.allowed = origins.map(|o| o.origin()).collect();
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
            || self.allowed.contains(&to.origin())
    }

    pub(crate) fn is(&self, url: &Url) -> bool {
        self.home
            .as_ref()
            .is_some_and(|home| home.origin() == url.origin())
    }

    /// Why no request may go to this address, if so.
    pub(crate) fn forbids(&self, url: &Url) -> Option<&'static str> {
        if !matches!(url.scheme(), "http" | "https") {
            return Some("an address that is not http or https");
        }
        let elsewhere = |home: &Url| !is_this_machine(home);
        let foreign = !self.is(url) && self.home.as_ref().is_some_and(elsewhere);
        (foreign && is_this_machine(url)).then_some("an address of this machine or its own network")
    }
}

/// An origin and a path, without what may be a secret.
pub(crate) fn shown(url: &Url) -> String {
    match url.origin() {
        Origin::Tuple(..) => format!("{}{}", url.origin().ascii_serialization(), url.path()),
        Origin::Opaque(_) => format!("{}:…", url.scheme()),
    }
}

/// Loopback and link-local addresses, and names of such.
fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => is_local(IpAddr::V4(ip)),
        Some(Host::Ipv6(ip)) => is_local(IpAddr::V6(ip)),
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.');
            let port = url.port_or_known_default().unwrap_or(80);
            name == "localhost"
                || name.ends_with(".localhost")
                || (name, port)
                    .to_socket_addrs()
                    .is_ok_and(|mut all| all.any(|a| is_local(a.ip())))
        }
        None => false,
    }
}

fn is_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => {
            ip.is_loopback() || ip.is_unspecified() || ip.is_unicast_link_local() || is_mapped(ip)
        }
    }
}

fn is_mapped(ip: Ipv6Addr) -> bool {
    ip.to_ipv4().is_some_and(|ip| is_local(IpAddr::V4(ip)))
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
    }
}
