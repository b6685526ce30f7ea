//! The HTTP server: one thread for the network, a few for PostgreSQL.
//!
//! Limits hold for whoever asks: 16 KiB of headers within 15 s, 16 KiB of body within 10 s, an answer is taken within 30 s, 512
//! connections, each for at most ten minutes. More than four questions to PostgreSQL at once wait, and are refused after 3 s; one that it
//! does not answer within 15 s is given up.

pub mod answer;
pub mod guard;
pub mod request;
mod stream;

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use oa_core::app::cli;
use oa_core::app::cli::Failure;
use oa_core::app::config::Config;
use oa_core::app::exit;
use oa_core::base::supervise::{StopSignal, install_stop_signal};
use oa_core::schedule::Calendar;
use postgres::Transaction;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use self::answer::Answer;
use self::guard::Guard;
use self::request::Asked;
use self::stream::Impatient;
use crate::api;
use crate::pool::Pool;
use crate::queries::totals::Total;
use crate::snapshot::Live;
use crate::web::overview::Overview;

const MOST_CONNECTIONS: usize = 512;
const MOST_QUESTIONS: usize = 4;
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
const CONNECTION_FOR: Duration = Duration::from_secs(600);
const QUESTION_WAITS: Duration = Duration::from_secs(3);
/// PostgreSQL ends a statement that takes too long by itself, unless it hangs.
const ANSWERED_WITHIN: Duration = Duration::from_secs(15);
/// What is under way when somebody stops the server has this long.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
const MOST_HEADER_BYTES: usize = 16 << 10;

/// What every request needs.
pub struct App {
    /// The configuration.
    pub config: Arc<Config>,
    /// Trading days.
    pub calendar: Calendar,
    /// Connections that may only read.
    pub pool: Arc<Pool>,
    /// Snapshots.
    pub live: Live,
    /// Who may ask.
    pub guard: Guard,
    /// The overview's last data, for when PostgreSQL is away.
    pub overview: Mutex<Option<Arc<Overview>>>,
    /// The last sums, for the same.
    pub totals: Mutex<Arc<Vec<Total>>>,
    /// Answers given since the start, by status.
    pub answered: Mutex<HashMap<u16, u64>>,
    /// When the server started.
    pub started_at: chrono::DateTime<chrono::Utc>,
    questions: Arc<Semaphore>,
    connections: AtomicU64,
}

impl App {
    /// Asks PostgreSQL, without holding up others.
    ///
    /// # Errors
    /// The answer to give instead: 503 while PostgreSQL is away or too much is asked at once.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        question: impl FnMut(&mut Transaction<'_>) -> Result<T, postgres::Error> + Send + 'static,
    ) -> Result<T, Answer> {
        let busy = || {
            Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                "too much is asked at once; ask again in a moment",
            )
            .with(header::RETRY_AFTER, "3")
        };
        let turn = Arc::clone(&self.questions).acquire_owned();
        let Ok(Ok(permit)) = tokio::time::timeout(QUESTION_WAITS, turn).await else {
            return Err(busy());
        };
        let pool = Arc::clone(&self.pool);
        let asked = tokio::task::spawn_blocking(move || {
            // PostgreSQL is at it until it answers, also when nobody waits for that any more.
            let _permit = permit;
            pool.ask(question)
        });
        match tokio::time::timeout(ANSWERED_WITHIN, asked).await {
            Ok(Ok(answered)) => answered.map_err(Answer::from),
            Ok(Err(_)) => Err(Answer::problem(
                StatusCode::INTERNAL_SERVER_ERROR,
                "this program made a mistake; its log has more",
            )),
            Err(_) => Err(Answer::problem(
                StatusCode::SERVICE_UNAVAILABLE,
                format!(
                    "PostgreSQL has not answered within {} s",
                    ANSWERED_WITHIN.as_secs()
                ),
            )
            .with(header::RETRY_AFTER, "5")),
        }
    }
}

/// Listens until the process is asked to stop.
///
/// # Errors
/// 77 for an address of the network or proxies without a token, 1 when the address cannot be used, 78 for a wrong configuration.
pub fn serve(config: Config, listen: SocketAddr) -> Result<u8, Failure> {
    if config.report.tokens.is_empty() && !listen.ip().is_loopback() {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "{listen} can be reached from other machines, and there are no tokens; make one with oa-report token NAME, or listen on 127.0.0.1"
            ),
        ));
    }
    if config.report.tokens.is_empty() && !config.report.proxies.is_empty() {
        return Err(Failure::new(
            exit::REFUSED,
            anyhow::anyhow!(
                "proxies in [report] lets others in, and there are no tokens; make one with oa-report token NAME"
            ),
        ));
    }
    config.remember_secrets();
    let stop = install_stop_signal().context("could not listen for signals")?;
    let calendar =
        Calendar::load(config.calendar.as_deref()).map_err(|e| Failure::new(exit::CONFIG, e))?;
    let pool = Arc::new(Pool::from_config(&config)?);
    let config = Arc::new(config);
    let live =
        Live::start(Arc::clone(&pool), Arc::clone(&config)).context("could not start a thread")?;
    let guard = Guard::new(
        config.report.tokens.clone(),
        random().context("could not read /dev/urandom")?,
    );
    let app = Arc::new(App {
        config,
        calendar,
        pool,
        live,
        guard,
        overview: Mutex::new(None),
        totals: Mutex::default(),
        answered: Mutex::default(),
        started_at: chrono::Utc::now(),
        questions: Arc::new(Semaphore::new(MOST_QUESTIONS)),
        connections: AtomicU64::new(0),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MOST_QUESTIONS + 2)
        .build()
        .context("could not start the server")?;
    runtime.block_on(accept(app, listen, stop))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(exit::OK)
}

async fn accept(app: Arc<App>, listen: SocketAddr, stop: StopSignal) -> Result<(), Failure> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("could not listen on {listen}; choose another address with --listen")
    })?;
    let at = listener
        .local_addr()
        .context("could not tell the own address")?;
    let base = &app.config.report.base_path.0;
    cli::print(&format!("http://{at}{base}/admin/\n")).map_err(anyhow::Error::from)?;
    let (stopping, stopped) = watch::channel(false);
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut looks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = looks.tick() => if stop.requested() { break },
            accepted = async {
                let room = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, room)
            } => match accepted {
                (Ok((stream, peer)), Ok(room)) => {
                    let (app, stopped) = (Arc::clone(&app), stopped.clone());
                    tokio::spawn(async move {
                        connection(app, stream, peer, stopped).await;
                        drop(room);
                    });
                }
                (Err(e), _) => {
                    // Out of file descriptors: others must end first.
                    tracing::warn!("could not take a connection: {e}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                (_, Err(_)) => break,
            },
        }
    }
    drop(listener);
    tracing::info!("stopping");
    let _ = stopping.send(true);
    let end = Instant::now() + FINISH_WITHIN;
    while app.connections.load(Ordering::Relaxed) > 0 && Instant::now() < end {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn connection(
    app: Arc<App>,
    stream: TcpStream,
    peer: SocketAddr,
    mut stopped: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    app.connections.fetch_add(1, Ordering::Relaxed);
    let service = {
        let app = Arc::clone(&app);
        service_fn(move |request| answer_one(Arc::clone(&app), peer, request))
    };
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(MOST_HEADER_BYTES)
            .max_headers(64)
            .serve_connection(TokioIo::new(Impatient::new(stream)), service)
    );
    let done = tokio::select! {
        done = serving.as_mut() => Some(done),
        _ = stopped.changed() => None,
        () = tokio::time::sleep(CONNECTION_FOR) => None,
    };
    let done = match done {
        Some(done) => done,
        None => {
            serving.as_mut().graceful_shutdown();
            tokio::time::timeout(Duration::from_secs(30), serving)
                .await
                .unwrap_or(Ok(()))
        }
    };
    if let Err(e) = done {
        tracing::debug!("connection of {peer}: {e}");
    }
    app.connections.fetch_sub(1, Ordering::Relaxed);
}

async fn answer_one(
    app: Arc<App>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let asked = Asked::new(&app, peer, head);
    let (answer, caller) = api::answer(&app, &asked, body).await;
    let if_none_match = asked.header(header::IF_NONE_MATCH);
    let mut response = answer.into_response(if_none_match);
    let bytes = hyper::body::Body::size_hint(response.body())
        .exact()
        .unwrap_or(0);
    if asked.is_head {
        *response.body_mut() = Full::new(Bytes::new());
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, bytes.into());
    }
    let status = response.status().as_u16();
    if let Ok(mut answered) = app.answered.lock() {
        *answered.entry(status).or_default() += 1;
    }
    tracing::info!(
        "{} {caller} {} {} {status} {bytes} B {:.1} ms",
        asked.from,
        asked.method(),
        asked.target(),
        began.elapsed().as_secs_f64() * 1000.0
    );
    Ok(response)
}

/// 256 random bits.
///
/// # Errors
/// When the system gives none.
pub fn random() -> io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}
