//! The HTTP server: one thread for the network, a few for PostgreSQL.
//!
//! Limits hold for whoever asks: 16 KiB of headers within 15 s, 16 KiB of body within 10 s, an answer is taken within 30 s, 512
//! connections, 128 of them from one address, each for at most ten minutes. More than four questions to PostgreSQL at once wait, and are refused after 3 s; one that it
//! does not answer within 15 s is given up.

mod dispatch;
mod seats;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Response, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use oa_core::app::cli;
use oa_core::base::supervise::StopSignal;
use oa_core::base::threads;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use self::seats::{MOST_OF_ONE, Seats};
use self::stream::DeadlineStream;
use crate::app::body::Body;
use crate::app::request::Request;
use crate::app::{App, MOST_QUESTIONS};

const MOST_CONNECTIONS: usize = 512;
const HEADERS_WITHIN: Duration = Duration::from_secs(15);
/// That an address has too many connections is said once in so long.
const REFUSED_SAID: Duration = Duration::from_secs(60);
/// Threads that ask PostgreSQL stay: without any the runtime would panic where the system refuses one.
const THREADS_FOR: Duration = Duration::from_secs(366 * 24 * 3600);
const CONNECTION_FOR: Duration = Duration::from_secs(600);
/// What is under way when somebody stops the server has this long.
const FINISH_WITHIN: Duration = Duration::from_secs(5);
const MOST_HEADER_BYTES: usize = 16 << 10;

/// Listens until the process is asked to stop.
pub(crate) fn serve(app: Arc<App>, listen: SocketAddr, stop: StopSignal) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .enable_time()
        .max_blocking_threads(MOST_QUESTIONS + 2)
        .thread_keep_alive(THREADS_FOR)
        .build()
        .context("could not start the server")?;
    // One that asks PostgreSQL is there from the beginning: where the system refuses another, questions wait for it.
    let _ = threads::spawn("ask PostgreSQL", || ())?.join();
    runtime.spawn_blocking(|| ());
    runtime.block_on(accept(app, listen, stop))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

async fn accept(app: Arc<App>, listen: SocketAddr, stop: StopSignal) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("could not listen on {listen}; choose another address with --listen")
    })?;
    let at = listener
        .local_addr()
        .context("could not tell the own address")?;
    let base = &app.config.report.base_path.0;
    cli::print(&format!("http://{at}{base}/admin/\n"))?;
    let (stopping, stopped) = watch::channel(false);
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let seats = Seats::default();
    let mut refused: Option<Instant> = None;
    let mut stop_checks = tokio::time::interval(Duration::from_millis(100));
    loop {
        tokio::select! {
            _ = stop_checks.tick() => if stop.requested() { break },
            accepted = async {
                let room = Arc::clone(&room).acquire_owned().await;
                (listener.accept().await, room)
            } => match accepted {
                (Ok((stream, peer)), Ok(room)) => {
                    let Some(seat) = seats.take(peer, &app.config.report.proxies) else {
                        if refused.is_none_or(|at| at.elapsed() >= REFUSED_SAID) {
                            refused = Some(Instant::now());
                            tracing::warn!(
                                "{} has {MOST_OF_ONE} connections and gets no more; a reverse proxy is named in proxies of [report]",
                                peer.ip()
                            );
                        }
                        continue;
                    };
                    let (app, stopped) = (Arc::clone(&app), stopped.clone());
                    tokio::spawn(async move {
                        connection(app, stream, peer, stopped).await;
                        drop((seat, room));
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
    while room.available_permits() < MOST_CONNECTIONS && Instant::now() < end {
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
    let service = service_fn(move |request| answer_one(Arc::clone(&app), peer, request));
    let mut serving = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS_WITHIN)
            .max_buf_size(MOST_HEADER_BYTES)
            .max_headers(64)
            .serve_connection(TokioIo::new(DeadlineStream::new(stream)), service)
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
}

async fn answer_one(
    app: Arc<App>,
    peer: SocketAddr,
    request: hyper::Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let began = Instant::now();
    let (head, body) = request.into_parts();
    let request = Request::new(&app.config, peer, head);
    let (answer, caller) = dispatch::answer(&app, &request, body).await;
    let mut response =
        answer.into_response(request.header(header::IF_NONE_MATCH), request.takes_gzip());
    let bytes = response.body().len();
    if request.is_head {
        *response.body_mut() = Body::default();
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, bytes.into());
    }
    let status = response.status().as_u16();
    app.count_answer(status);
    tracing::info!(
        "{} {caller} {} {} {status} {bytes} B {:.1} ms",
        request.from,
        request.method(),
        request.logged_target(),
        began.elapsed().as_secs_f64() * 1000.0
    );
    Ok(response)
}
