//! The DevTools protocol over two pipes (`--remote-debugging-pipe`): JSON messages, each ended by a zero byte. A port would be
//! open to every user of the machine.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{ChildStdin, ChildStdout};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use oa_core::base::threads::{self, NoThread};
use oa_core::model::retry::ErrorKind;
use serde_json::{Value, json};

/// An event of the protocol.
#[derive(Debug)]
pub(super) struct Event {
    pub(crate) method: String,
    pub(crate) params: Value,
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum DevtoolsError {
    #[error("no answer to {0} within {1} s")]
    Late(String, u64),
    /// Chromium is gone, or broke the protocol.
    #[error("Chromium has closed the connection")]
    Closed,
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    NoThread(#[from] NoThread),
    /// A page did not load, for the reason of this code, such as `net::ERR_NAME_NOT_RESOLVED` (Chromium, net_error_list.h).
    #[error("{0}")]
    NotLoaded(String),
}

impl DevtoolsError {
    /// Whether the proxy made no connection.
    pub(super) fn is_of_proxy(&self) -> bool {
        let Self::NotLoaded(code) = self else {
            return false;
        };
        let code = code.strip_prefix("net::").unwrap_or(code);
        code.starts_with("ERR_SOCKS_") || code.starts_with("ERR_PROXY_")
    }

    /// What to do, where the reason does not say so.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::NotLoaded(code) if code.ends_with("ERR_CERT_AUTHORITY_INVALID") => {
                "; Chromium does not read ca_file: if the authority is to be trusted, add it to this user's NSS database (certutil, see docs/new-source.md)"
            }
            _ => "",
        }
    }

    /// What it says about the site.
    pub(super) fn kind(&self) -> ErrorKind {
        let Self::NotLoaded(code) = self else {
            return ErrorKind::Network;
        };
        match code.strip_prefix("net::").unwrap_or(code) {
            "ERR_NAME_NOT_RESOLVED" => ErrorKind::Dns,
            code if code.starts_with("ERR_CERT") || code.starts_with("ERR_SSL") => ErrorKind::Tls,
            _ => ErrorKind::Network,
        }
    }
}

type Reply = Result<Value, DevtoolsError>;
type PendingReplies = Mutex<Option<HashMap<u64, mpsc::Sender<Reply>>>>;

#[derive(Debug)]
pub(super) struct PendingCall {
    method: String,
    reply: mpsc::Receiver<Reply>,
}

impl PendingCall {
    /// The reply, if it has come.
    pub(super) fn poll(&self) -> Option<Reply> {
        match self.reply.try_recv() {
            Ok(answer) => Some(answer),
            Err(mpsc::TryRecvError::Empty) => None,
            Err(mpsc::TryRecvError::Disconnected) => Some(Err(DevtoolsError::Closed)),
        }
    }

    fn wait(self, limit: Duration) -> Reply {
        match self.reply.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(mpsc::RecvTimeoutError::Timeout) => {
                Err(DevtoolsError::Late(self.method, limit.as_secs()))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(DevtoolsError::Closed),
        }
    }
}

/// A connection to Chromium, or to one page of it.
#[derive(Debug, Clone)]
pub(super) struct Devtools {
    shared: Arc<Shared>,
    session: Option<String>,
}

#[derive(Debug)]
struct Shared {
    to: Mutex<ChildStdin>,
    next: AtomicU64,
    /// `None` once the connection is closed.
    waiting: PendingReplies,
}

impl Devtools {
    /// Reads until Chromium ends. A message of more than `longest` bytes closes the connection.
    pub(super) fn connect(
        to: ChildStdin,
        from: ChildStdout,
        longest: u64,
    ) -> Result<(Self, mpsc::Receiver<Event>), NoThread> {
        let shared = Arc::new(Shared {
            to: Mutex::new(to),
            next: AtomicU64::new(1),
            waiting: Mutex::new(Some(HashMap::new())),
        });
        let (sender, events) = mpsc::channel();
        let reading = Arc::downgrade(&shared);
        let read = move || {
            let mut from = BufReader::new(from);
            while let Some(message) = next_message(&mut from, longest) {
                let Some(shared) = reading.upgrade() else {
                    return;
                };
                shared.take(message, &sender);
            }
            // Callers that wait are released.
            if let Some(shared) = reading.upgrade() {
                *lock(&shared.waiting) = None;
            }
        };
        threads::spawn("hear Chromium", read)?;
        let client = Self {
            shared,
            session: None,
        };
        Ok((client, events))
    }

    /// The same connection, to one page.
    pub(super) fn of_session(&self, session: &str) -> Self {
        Self {
            shared: self.shared.clone(),
            session: Some(session.to_owned()),
        }
    }

    pub(super) fn call(&self, method: &str, params: Value, limit: Duration) -> Reply {
        self.send(method, params)?.wait(limit)
    }

    /// Sends a call. One that meets a page on its way to another may never be answered.
    pub(super) fn send(&self, method: &str, params: Value) -> Result<PendingCall, DevtoolsError> {
        let id = self.shared.next.fetch_add(1, Ordering::Relaxed);
        let (sender, reply) = mpsc::channel();
        match &mut *lock(&self.shared.waiting) {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(DevtoolsError::Closed),
        };
        let mut message = json!({ "id": id, "method": method });
        message["params"] = params;
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        let mut to = lock(&self.shared.to);
        to.write_all(&bytes)
            .and_then(|()| to.flush())
            .map_err(|_| DevtoolsError::Closed)?;
        Ok(PendingCall {
            method: method.to_owned(),
            reply,
        })
    }
}

impl Shared {
    fn take(&self, mut message: Value, events: &mpsc::Sender<Event>) {
        let Some(id) = message["id"].as_u64() else {
            if let Some(method) = message["method"].as_str() {
                let method = method.to_owned();
                let params = message["params"].take();
                let _ = events.send(Event { method, params });
            }
            return;
        };
        let waiter = lock(&self.waiting).as_mut().and_then(|w| w.remove(&id));
        let answer = match message["error"]["message"].as_str() {
            Some(error) => Err(DevtoolsError::Refused(error.to_owned())),
            None => Ok(message["result"].take()),
        };
        if let Some(waiter) = waiter {
            let _ = waiter.send(answer);
        }
    }
}

fn next_message(from: &mut impl BufRead, longest: u64) -> Option<Value> {
    let mut bytes = Vec::new();
    from.by_ref().take(longest).read_until(0, &mut bytes).ok()?;
    // Without its end it is too long, or the last words of a Chromium that was ended.
    if bytes.pop() != Some(0) {
        return None;
    }
    serde_json::from_slice(&bytes).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
