//! A web socket that never waits for long: a read returns after a quarter of a second at most.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderMap;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Error, HandshakeError, Message, WebSocket};

/// Longest wait for one address.
const CONNECT: Duration = Duration::from_secs(4);
/// Longest wait for the handshakes, and until something is sent.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long one read waits.
const TICK: Duration = Duration::from_millis(250);
/// Platforms send events of some kilobytes.
const LARGEST: usize = 1 << 20;

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum NotConnected {
    /// The platform said no, and why in these headers.
    Refused(u16, Box<HeaderMap>),
    /// It could not be reached, or what answers is no web socket.
    Failed(String),
}

/// A connected web socket.
pub(super) struct Socket(WebSocket<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects to `ws://…` or `wss://…`.
    pub(super) fn connect(url: &str) -> Result<Self, NotConnected> {
        let failed = |what: String| NotConnected::Failed(what);
        let request = url
            .into_client_request()
            .map_err(|e| failed(format!("the platform gave an address that is none: {e}")))?;
        let host = request.uri().host().unwrap_or_default().to_owned();
        let secure = request.uri().scheme_str() == Some("wss");
        let port = request
            .uri()
            .port_u16()
            .unwrap_or(if secure { 443 } else { 80 });
        let stream = reach(&host, port)
            .map_err(|e| failed(format!("could not reach {host}:{port}: {e}")))?;
        let prepared = stream
            .set_nodelay(true)
            .and_then(|()| stream.set_read_timeout(Some(HANDSHAKE)))
            .and_then(|()| stream.set_write_timeout(Some(HANDSHAKE)));
        // The same socket, whatever is wrapped around it.
        let handle = prepared.and_then(|()| stream.try_clone());
        let handle = handle.map_err(|e| failed(format!("{host}:{port}: {e}")))?;
        let config = WebSocketConfig::default()
            .max_message_size(Some(LARGEST))
            .max_frame_size(Some(LARGEST));
        let connected = tungstenite::client_tls_with_config(request, stream, Some(config), None);
        let (socket, _) = connected.map_err(|e| match e {
            HandshakeError::Failure(Error::Http(answer)) => {
                let (head, _) = answer.into_parts();
                NotConnected::Refused(head.status.as_u16(), Box::new(head.headers))
            }
            HandshakeError::Failure(e) => failed(format!("{host}:{port}: {e}")),
            HandshakeError::Interrupted(_) => {
                failed(format!("{host}:{port} did not answer within 10 s"))
            }
        })?;
        let ready = handle.set_read_timeout(Some(TICK));
        ready.map_err(|e| failed(format!("{host}:{port}: {e}")))?;
        Ok(Self(socket))
    }

    /// What came within a quarter of a second; the error says why there is no connection any more.
    pub(super) fn read(&mut self) -> Result<Option<Message>, String> {
        match self.0.read() {
            Ok(message) => Ok(Some(message)),
            Err(Error::Io(e))
                if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
            {
                Ok(None)
            }
            Err(Error::ConnectionClosed | Error::AlreadyClosed) => {
                Err("the platform closed the connection".to_owned())
            }
            Err(e) => Err(e.to_string()),
        }
    }

    /// Sends a message.
    pub(super) fn send(&mut self, message: Message) -> Result<(), String> {
        self.0.send(message).map_err(|e| e.to_string())
    }

    /// Says goodbye, as far as that can be said at once.
    pub(super) fn close(mut self) {
        let _ = self.0.close(None).and_then(|()| self.0.flush());
    }
}

fn reach(host: &str, port: u16) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::other("the name has no address");
    // The address of IPv6 stands in brackets.
    let name = host.trim_start_matches('[').trim_end_matches(']');
    for address in (name, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;
    use std::thread;

    use super::*;

    #[test]
    fn what_speaks_no_tls_is_an_error_and_is_told_in_tls_first() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let heard = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut first = [0; 3];
            stream.read_exact(&mut first).unwrap();
            first
        });
        let connected = Socket::connect(&format!("wss://localhost:{port}/x"));
        let Err(NotConnected::Failed(failed)) = connected else {
            panic!("it is no web socket");
        };
        assert!(failed.contains("localhost"), "{failed}");
        // A record of TLS, with a handshake.
        assert_eq!(heard.join().unwrap(), [22, 3, 1]);
    }
}
