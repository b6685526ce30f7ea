//! A connection to PostgreSQL that is cut after a commit: the commit is done, but its answer is lost.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicI64, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use crate::Postgres;

/// `CommandComplete` of a commit, as the protocol has it.
const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";

/// See the module.
#[derive(Debug)]
pub struct Line {
    url: String,
    left: Arc<AtomicI64>,
    to: Arc<AtomicU16>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Line {
    /// A line to this server, as long as the test lives.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn to(server: &Postgres) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("bound").port();
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let (counter, server_port) = (Arc::clone(&left), server.port());
        let to = Arc::new(AtomicU16::new(server_port));
        let leads_to = Arc::clone(&to);
        let open: Arc<Mutex<Vec<TcpStream>>> = Arc::default();
        let all = Arc::clone(&open);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(("127.0.0.1", leads_to.load(Ordering::SeqCst)))
                else {
                    continue;
                };
                all.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend(server.try_clone());
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve(&client, &server, &counter));
            }
        });
        let url = server.url();
        Self {
            url: url.replace(&format!(":{server_port}/"), &format!(":{port}/")),
            left,
            to,
            open,
        }
    }

    /// Cuts all its connections now.
    pub fn cut(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for server in open.drain(..) {
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Leads new connections to another server, as if it had taken over.
    pub fn lead_to(&self, server: &Postgres) {
        self.to.store(server.port(), Ordering::SeqCst);
    }

    /// Address of database `oa` for role `oa`, by this line.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The next commit is the last that its connection sees, and not confirmed.
    pub fn cut_at_commit(&self) {
        self.left.store(1, Ordering::SeqCst);
    }

    /// Whether that has come to pass.
    #[must_use]
    pub fn was_cut(&self) -> bool {
        self.left.load(Ordering::SeqCst) <= 0
    }
}

fn serve(client: &TcpStream, server: &TcpStream, left: &AtomicI64) {
    let asked = client
        .try_clone()
        .and_then(|c| Ok((c, server.try_clone()?)));
    let Ok((mut from_client, mut to_server)) = asked else {
        return;
    };
    thread::spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_server);
        let _ = to_server.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (server, client);
    let mut buffer = [0; 16384];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        let confirmed = buffer[..read]
            .windows(COMMITTED.len())
            .any(|bytes| bytes == COMMITTED);
        if confirmed && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            break;
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
