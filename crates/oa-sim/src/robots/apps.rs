//! Applications of platforms: their tokens, the messages that they sent and can change, and the connections over which they hear what
//! is pressed.

use std::collections::HashMap;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::{Role, WebSocket};
use tungstenite::{Error, Message};

use super::{dingtalk_app, feishu_app};
use crate::Shared;
use crate::http::Request;

/// So long a platform waits for the answer to a button.
const ANSWER: Duration = Duration::from_secs(8);

/// A message of an application.
#[derive(Debug, Clone)]
pub struct AppCard {
    /// The platform's id of it.
    pub id: String,
    /// Which platform.
    pub robot: &'static str,
    /// The group.
    pub chat: String,
    /// What it shows now.
    pub content: Value,
    /// How often it was changed.
    pub changes: usize,
}

/// What is sent to an application, and where its answer goes.
pub struct Outgoing {
    pub id: String,
    pub messages: Vec<Message>,
    answer: Sender<Value>,
}

struct Connection {
    robot: &'static str,
    send: Sender<Outgoing>,
    end: Arc<AtomicBool>,
}

#[derive(Default)]
pub struct Apps {
    tokens: Mutex<Vec<String>>,
    numbers: AtomicUsize,
    cards: Mutex<Vec<AppCard>>,
    /// What was sent under an id of the sender: the same once more is the same message.
    sent: Mutex<HashMap<String, String>>,
    connections: Mutex<Vec<Connection>>,
    pings: AtomicUsize,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Apps {
    pub fn number(&self) -> usize {
        self.numbers.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn new_token(&self) -> String {
        let token = format!("t-sim-token-{}", self.number());
        locked(&self.tokens).push(token.clone());
        token
    }

    pub fn is_token(&self, token: &str) -> bool {
        locked(&self.tokens).iter().any(|t| t == token)
    }

    pub fn end_tokens(&self) {
        locked(&self.tokens).clear();
    }

    pub fn cards(&self) -> Vec<AppCard> {
        locked(&self.cards).clone()
    }

    /// The id of the message that was sent under this id already.
    pub fn known(&self, own: &str) -> Option<String> {
        locked(&self.sent).get(own).cloned()
    }

    pub fn add_card(&self, own: &str, card: AppCard) {
        if !own.is_empty() {
            locked(&self.sent).insert(own.to_owned(), card.id.clone());
        }
        locked(&self.cards).push(card);
    }

    /// `false`: there is no such message.
    pub fn change_card(&self, id: &str, content: Value) -> bool {
        let mut cards = locked(&self.cards);
        let Some(card) = cards.iter_mut().find(|c| c.id == id) else {
            return false;
        };
        card.content = content;
        card.changes += 1;
        true
    }

    pub fn connected(&self) -> usize {
        locked(&self.connections).len()
    }

    pub fn pings(&self) -> usize {
        self.pings.load(Ordering::SeqCst)
    }

    pub fn pinged(&self) {
        self.pings.fetch_add(1, Ordering::SeqCst);
    }

    pub fn disconnect(&self) {
        for connection in locked(&self.connections).drain(..) {
            connection.end.store(true, Ordering::SeqCst);
        }
    }

    pub fn press(&self, message: &str, value: &Value, user: &str) -> Result<Value, String> {
        let card = self.cards().into_iter().find(|c| c.id == message);
        let card = card.ok_or("there is no such message")?;
        let (answer, answered) = channel();
        let id = format!("press-{}", self.number());
        let messages = match card.robot {
            "dingtalk" => dingtalk_app::event(&id, &card, value, user),
            _ => feishu_app::event(&id, self.number(), &card, value, user),
        };
        let sent = locked(&self.connections)
            .iter()
            .rev()
            .find(|c| c.robot == card.robot)
            .map(|c| {
                c.send.send(Outgoing {
                    id,
                    messages,
                    answer,
                })
            });
        match sent {
            Some(Ok(())) => {}
            _ => return Err("nobody is connected".to_owned()),
        }
        answered.recv_timeout(ANSWER).map_err(|e| match e {
            RecvTimeoutError::Timeout => "no answer".to_owned(),
            RecvTimeoutError::Disconnected => "the connection ended".to_owned(),
        })
    }
}

/// Whether a request asks for a web socket.
pub fn is_socket(request: &Request) -> bool {
    let upgrade = request.header("upgrade").unwrap_or_default();
    upgrade.eq_ignore_ascii_case("websocket")
}

/// Serves a web socket until one of both ends it.
pub fn serve_socket(
    mut stream: TcpStream,
    pending: Vec<u8>,
    request: &Request,
    state: &Shared,
) -> io::Result<()> {
    use std::io::Write as _;
    let Some(key) = request.header("sec-websocket-key") else {
        return stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n");
    };
    let robot = if request.path.starts_with("/dingtalk/") {
        "dingtalk"
    } else {
        "feishu"
    };
    let admitted = match robot {
        "dingtalk" => dingtalk_app::admit(request, &state.apps),
        _ => feishu_app::admit(request, &state.apps),
    };
    if let Err(refusal) = admitted {
        return stream.write_all(refusal.as_bytes());
    }
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    );
    stream.write_all(head.as_bytes())?;
    stream.set_read_timeout(Some(Duration::from_millis(20)))?;
    let mut socket = WebSocket::from_partially_read(stream, pending, Role::Server, None);
    let (send, outgoing) = channel();
    let end = Arc::new(AtomicBool::new(false));
    locked(&state.apps.connections).push(Connection {
        robot,
        send,
        end: Arc::clone(&end),
    });
    let _ = converse(&mut socket, robot, &outgoing, &end, state);
    // The simulator has a handle of each connection, so that it stays open otherwise.
    let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
    let ours = |c: &Connection| Arc::ptr_eq(&c.end, &end);
    locked(&state.apps.connections).retain(|c| !ours(c));
    Ok(())
}

fn converse(
    socket: &mut WebSocket<TcpStream>,
    robot: &str,
    outgoing: &Receiver<Outgoing>,
    end: &AtomicBool,
    state: &Shared,
) -> Result<(), Error> {
    let mut waiting: HashMap<String, (Sender<Value>, Instant)> = HashMap::new();
    if robot == "dingtalk" {
        socket.send(dingtalk_app::ping())?;
    }
    while !end.load(Ordering::SeqCst) {
        while let Ok(next) = outgoing.try_recv() {
            waiting.insert(next.id, (next.answer, Instant::now()));
            for message in next.messages {
                socket.send(message)?;
            }
        }
        waiting.retain(|_, (_, since)| since.elapsed() < ANSWER);
        let message = match socket.read() {
            Ok(message) => message,
            Err(Error::Io(e))
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                continue;
            }
            Err(e) => return Err(e),
        };
        let (reply, answer) = match robot {
            "dingtalk" => (None, dingtalk_app::take(&message, &state.apps)),
            _ => feishu_app::take(&message, &state.apps, state.options.ping_interval),
        };
        if let Some(reply) = reply {
            socket.send(reply)?;
        }
        if let Some((id, value)) = answer
            && let Some((sender, _)) = waiting.remove(&id)
        {
            let _ = sender.send(value);
        }
    }
    Ok(())
}
