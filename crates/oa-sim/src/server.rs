//! Sockets: one thread a connection, keep-alive, and the faults of the transport.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

use crate::fault::{Fault, Plan, PlanError};
use crate::http::{Request, Response, read_request};
use crate::log::{Log, Message, RequestRecord};
use crate::{AppCard, Context, Options, Shared, admin, robots, sites};

/// What all connections share.
pub struct State {
    pub options: Options,
    pub log: Log,
    pub apps: robots::Apps,
    pub plans: Mutex<Vec<Plan>>,
    connections: Mutex<Vec<TcpStream>>,
    stopping: AtomicBool,
}

/// A running simulator. Dropping it ends it, also connections that hang.
pub struct Sim {
    address: SocketAddr,
    state: Shared,
    acceptor: Option<JoinHandle<()>>,
}

impl Sim {
    /// Starts one.
    ///
    /// # Errors
    /// When the address is not loopback, or cannot be listened on.
    pub fn start(options: Options) -> io::Result<Self> {
        let loopback = match options.listen.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if !loopback {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the simulator listens on loopback addresses only",
            ));
        }
        let listener = TcpListener::bind(options.listen)?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            log: Log::to_file(options.messages.clone()),
            options,
            apps: robots::Apps::default(),
            plans: Mutex::default(),
            connections: Mutex::default(),
            stopping: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        let acceptor = thread::spawn(move || accept(&listener, &shared));
        Ok(Self {
            address,
            state,
            acceptor: Some(acceptor),
        })
    }

    /// `http://127.0.0.1:PORT`
    #[must_use]
    pub fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The address of a site, for `[providers.NAME] base`.
    #[must_use]
    pub fn site(&self, name: &str) -> String {
        format!("{}/{name}", self.base())
    }

    /// Adds a fault plan.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn fault(&self, plan: &str) -> Result<(), PlanError> {
        self.state.add_plan(plan)
    }

    /// Removes all fault plans.
    pub fn clear_faults(&self) {
        self.state.plans().clear();
    }

    /// What was asked so far.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.state.log.requests()
    }

    /// What the robots took so far.
    #[must_use]
    pub fn messages(&self) -> Vec<Message> {
        self.state.log.messages()
    }

    /// The messages of applications, as they stand now.
    #[must_use]
    pub fn cards(&self) -> Vec<AppCard> {
        self.state.apps.cards()
    }

    /// Presses a button of a message, as `user`; gives what the application answers, or why it does not.
    ///
    /// # Errors
    /// When nobody is connected, or no answer comes.
    pub fn press(&self, message: &str, value: &Value, user: &str) -> Result<Value, String> {
        self.state.apps.press(message, value, user)
    }

    /// No token that was given until now is valid any more.
    pub fn end_tokens(&self) {
        self.state.apps.end_tokens();
    }

    /// How many applications are connected.
    #[must_use]
    pub fn connected(&self) -> usize {
        self.state.apps.connected()
    }

    /// How many pings of applications came.
    #[must_use]
    pub fn pings(&self) -> usize {
        self.state.apps.pings()
    }

    /// Ends the connections of applications.
    pub fn disconnect(&self) {
        self.state.apps.disconnect();
    }

    /// Moves the robots' clock on: their limits, bans and signatures go by it.
    pub fn advance(&self, by: Duration) {
        self.state.log.advance(by);
    }

    /// The robots of which a limit was exceeded so far.
    #[must_use]
    pub fn bans(&self) -> Vec<String> {
        self.state.log.bans()
    }

    /// Waits for ever: for the program.
    pub fn join(mut self) {
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        self.state.stopping.store(true, Ordering::SeqCst);
        for connection in self.state.connections().drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
        // Wakes the acceptor.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl State {
    pub fn plans(&self) -> std::sync::MutexGuard<'_, Vec<Plan>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connections(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.connections
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add_plan(&self, text: &str) -> Result<(), PlanError> {
        let plan = text.parse()?;
        self.plans().push(plan);
        Ok(())
    }

    fn fault_of(&self, request: &Request) -> Option<(Fault, u64)> {
        self.plans()
            .iter_mut()
            .rev()
            .filter(|p| p.matches(request))
            .find_map(Plan::next)
    }
}

fn accept(listener: &TcpListener, state: &Shared) {
    for stream in listener.incoming() {
        if state.stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if let Ok(copy) = stream.try_clone() {
            state.connections().push(copy);
        }
        let state = Arc::clone(state);
        thread::spawn(move || {
            let _ = serve(stream, &state);
        });
    }
}

fn serve(mut stream: TcpStream, state: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut pending = Vec::new();
    while let Some(request) = read_request(&mut stream, &mut pending)? {
        let found = if request.path.starts_with("/_sim/") {
            None
        } else {
            state.fault_of(&request)
        };
        let fault = found.as_ref().map(|(f, _)| f).filter(|f| **f != Fault::Ok);
        let context = Context {
            options: &state.options,
            log: &state.log,
            apps: &state.apps,
            request: &request,
            fault,
            applied: found.as_ref().map_or(0, |(_, n)| *n),
        };
        if fault.is_none() && robots::is_socket(&request) {
            state.log.request(&request, 101, None);
            return robots::serve_socket(stream, pending, &request, state);
        }
        let response = answer(&context, state);
        let status = if fault == Some(&Fault::Hang) {
            0
        } else {
            response.status
        };
        if !request.path.starts_with("/_sim/") {
            state
                .log
                .request(&request, status, fault.map(|f| format!("{f:?}")));
            if state.options.verbose {
                let _ = writeln!(
                    io::stderr(),
                    "{} {}?{} -> {status} {}",
                    request.method,
                    request.path,
                    request.raw_query,
                    fault.map(|f| format!("{f:?}")).unwrap_or_default()
                );
            }
        }
        if !send(&mut stream, response, fault, state)? {
            let _ = stream.shutdown(Shutdown::Both);
            return Ok(());
        }
    }
    Ok(())
}

fn answer(context: &Context<'_>, state: &State) -> Response {
    let page = |status: u16, title: &str| {
        Response::new(
            status,
            "text/html; charset=utf-8",
            format!(
                "<!doctype html><html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>"
            ),
        )
    };
    match context.fault {
        Some(Fault::Status(status, after)) => {
            let response = page(*status, "服务暂时不可用");
            return match after.as_deref() {
                Some("date") => response.with(
                    "retry-after",
                    &(chrono::Utc::now() + chrono::TimeDelta::seconds(2))
                        .to_rfc2822()
                        .replace("+0000", "GMT"),
                ),
                Some(seconds) => response.with("retry-after", seconds),
                None => response,
            };
        }
        Some(Fault::SoftBlock) => return page(200, "安全验证"),
        Some(Fault::RedirectLogin) if !context.request.path.ends_with("/login") => {
            let site = context.request.path.split('/').nth(1).unwrap_or_default();
            return Response::redirect(&format!("/{site}/login"));
        }
        Some(Fault::RedirectLogin) => return page(200, "登录"),
        Some(Fault::RedirectLoop) => {
            return Response::redirect(&format!(
                "{}?{}",
                context.request.path, context.request.raw_query
            ));
        }
        _ => {}
    }
    let path = context.request.path.as_str();
    let (first, rest) = path
        .trim_start_matches('/')
        .split_once('/')
        .unwrap_or((path.trim_start_matches('/'), ""));
    let response = match first {
        "_sim" => admin::handle(context, rest, state),
        "dingtalk" | "wecom" | "feishu" | "webhook" => robots::handle(context, first, rest),
        _ => sites::handle(context, first, rest),
    };
    let response = match context.fault {
        Some(Fault::Rename(..) | Fault::Stringify(_) | Fault::Nan(_)) => {
            change_fields(response, context.fault)
        }
        _ => response,
    };
    unless_known(context.request, response)
}

/// Names the state of a page, and says 304 to who knows it.
fn unless_known(request: &Request, response: Response) -> Response {
    if request.method != "GET" || response.status != 200 {
        return response;
    }
    let mut hasher = DefaultHasher::new();
    response.body.hash(&mut hasher);
    let etag = format!("\"{:016x}\"", hasher.finish());
    if request.header("if-none-match") == Some(&etag) {
        return Response::new(304, "text/html", String::new()).with("etag", &etag);
    }
    response.with("etag", &etag)
}

/// Faults that change a field wherever it occurs.
fn change_fields(mut response: Response, fault: Option<&Fault>) -> Response {
    let Ok(mut value) = serde_json::from_slice::<Value>(&response.body) else {
        return response;
    };
    walk(&mut value, fault);
    response.body = value.to_string().into_bytes();
    if let Some(Fault::Nan(field)) = fault {
        // JSON has no NaN; careless servers send it all the same.
        let text = String::from_utf8_lossy(&response.body)
            .replace(&format!("\"{field}\":\"NaN\""), &format!("\"{field}\":NaN"));
        response.body = text.into_bytes();
    }
    response
}

fn walk(value: &mut Value, fault: Option<&Fault>) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(|item| walk(item, fault)),
        Value::Object(map) => {
            match fault {
                Some(Fault::Rename(from, to)) => {
                    if let Some(moved) = map.remove(from) {
                        map.insert(to.clone(), moved);
                    }
                }
                Some(Fault::Stringify(field)) => {
                    if let Some(number) = map.get_mut(field).filter(|v| v.is_number()) {
                        *number = Value::String(number.to_string());
                    }
                }
                Some(Fault::Nan(field)) => {
                    if let Some(number) = map.get_mut(field).filter(|v| v.is_number()) {
                        *number = Value::String("NaN".to_owned());
                    }
                }
                _ => {}
            }
            map.values_mut().for_each(|v| walk(v, fault));
        }
        _ => {}
    }
}

/// Sends an answer, or what the fault leaves of it. Returns whether the connection may go on.
fn send(
    stream: &mut TcpStream,
    mut response: Response,
    fault: Option<&Fault>,
    state: &State,
) -> io::Result<bool> {
    let pause = |time: Duration| {
        // Ends early when the simulator does.
        let end = std::time::Instant::now() + time;
        while std::time::Instant::now() < end && !state.stopping.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
    };
    match fault {
        Some(Fault::Hang) => {
            pause(Duration::from_secs(3600));
            return Ok(false);
        }
        Some(Fault::Gbk) => {
            response.body = encoding_rs::GB18030
                .encode(&String::from_utf8_lossy(&response.body))
                .0
                .into_owned();
            for (name, value) in &mut response.headers {
                if name == "content-type" {
                    *value = value.split(';').next().unwrap_or_default().to_owned();
                }
            }
        }
        Some(Fault::Bom) => drop(response.body.splice(..0, *b"\xef\xbb\xbf")),
        Some(Fault::BadGzip) => response
            .headers
            .push(("content-encoding".into(), "gzip".into())),
        Some(Fault::GzipCut) => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(&response.body)?;
            let packed = encoder.finish()?;
            response.body = packed[..packed.len() / 2].to_vec();
            response
                .headers
                .push(("content-encoding".into(), "gzip".into()));
        }
        _ => {}
    }
    let declared = if fault == Some(&Fault::LongLength) {
        response.body.len() + 1000
    } else {
        response.body.len()
    };
    let mut head = format!(
        "HTTP/1.1 {} {}\r\ncontent-length: {declared}\r\n",
        response.status,
        reason(response.status)
    );
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes())?;
    match fault {
        Some(Fault::Truncate | Fault::LongLength) => {
            let part = if fault == Some(&Fault::Truncate) {
                response.body.len() / 2
            } else {
                response.body.len()
            };
            stream.write_all(&response.body[..part])?;
            Ok(false)
        }
        Some(Fault::Reset) => {
            stream.write_all(&response.body[..response.body.len() / 3])?;
            // Closing with unread input makes the kernel send a reset; half a second lets the client begin to read.
            pause(Duration::from_millis(50));
            Ok(false)
        }
        Some(Fault::Drip(rate)) => {
            for chunk in response
                .body
                .chunks(usize::try_from(*rate).unwrap_or(1).max(1))
            {
                if state.stopping.load(Ordering::SeqCst) {
                    return Ok(false);
                }
                stream.write_all(chunk)?;
                pause(Duration::from_secs(1));
            }
            Ok(true)
        }
        _ => {
            stream.write_all(&response.body)?;
            Ok(true)
        }
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        302 => "Found",
        404 => "Not Found",
        429 => "Too Many Requests",
        500..=599 => "Server Error",
        _ => "Other",
    }
}
