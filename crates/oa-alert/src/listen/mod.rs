//! `oa-alert listen`: what people press on the messages of application robots comes over a connection that this program opens, so that
//! it needs no address of its own.
//!
//! ```text
//! lease (one listener for an application) ─▶ connect ─▶ press ─▶ the act of the signed link ─▶ answer
//!        ▲                                      └── pings, the lease, the end of the connection ──┐
//!        └────────────────────────── waits, longer each time ◀─────────────────────────────────────┘
//! ```
//! While PostgreSQL is down the connection stays: whoever presses is asked to press again, and the button still works. Killed anywhere:
//! what was done was done in one transaction; what was not, the platform's person presses again.

mod database;
mod dingtalk;
mod feishu;
mod frame;
mod lease;
mod press;
mod socket;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use oa_core::app::cli::{self, Failure};
use oa_core::app::config::{ChannelKind, Config};
use oa_core::base::links::LinkKey;
use oa_core::base::state_dir::StateDir;
use oa_core::base::supervise::StopSignal;
use oa_core::base::threads;
use oa_wording::Wording;
use tungstenite::Message;

use crate::channels::{App, Channel};
use crate::deliver::cards;
use database::Database;
use lease::Lease;
use press::{Desk, Press, Said, Tone};
use socket::Socket;

/// Between two looks whether another listener is gone.
const STANDBY: Duration = Duration::from_secs(3);
/// Between tries to reach PostgreSQL.
const AGAIN: Duration = Duration::from_secs(2);
/// Longest wait between tries to connect.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A connection that lasted for so long has worked.
const WORKED: Duration = Duration::from_secs(60);
/// How often messages are looked through for what is no more so.
const LOOK: Duration = Duration::from_secs(2);
/// For so long messages are changed at once.
const CHANGES: Duration = Duration::from_secs(60);
/// What hangs when it is stopped is left.
const GOODBYE: Duration = Duration::from_secs(3);
/// What a platform may be late with the answer to a ping.
const PONG: Duration = Duration::from_secs(30);

/// How a platform speaks.
trait Protocol {
    /// What keeps the connection.
    fn ping(&self) -> Message;

    /// How often.
    fn ping_every(&self) -> Duration;

    /// Takes a message; gives what is sent back. The error ends the connection.
    fn take(
        &mut self,
        message: &Message,
        press: &mut dyn FnMut(&Press) -> Said,
    ) -> Result<Option<Message>, String>;
}

/// Everything that listening needs.
pub(crate) struct Setup<'a> {
    /// The configuration.
    pub(crate) config: &'a Config,
    /// Channels with buttons.
    pub(crate) channels: Vec<Channel>,
    /// With which links are signed.
    pub(crate) key: LinkKey,
    /// Language and zone.
    pub(crate) wording: Wording,
    /// This machine.
    pub(crate) host: String,
    /// Its state directory.
    pub(crate) state: StateDir,
    /// Whether somebody asked this process to stop.
    pub(crate) stop: StopSignal,
}

/// Listens until it is stopped. `false`: a part of it has ended by a mistake of this program.
pub(crate) fn run(setup: &Setup<'_>) -> Result<bool, Failure> {
    let mut threads = Vec::new();
    let changed = Arc::new(AtomicBool::new(false));
    let mut robots: Vec<String> = Vec::new();
    for channel in &setup.channels {
        let robot = channel.robot();
        if robots.contains(&robot) {
            continue;
        }
        threads.push(listener(setup, channel, &changed)?);
        robots.push(robot);
    }
    threads.push(changer(setup, changed)?);
    while setup.stop.wait(Duration::from_secs(1)) {
        // It is not to end by itself.
        cli::end_at_the_latest(Duration::ZERO);
        if threads.iter().any(JoinHandle::is_finished) {
            return Ok(false);
        }
    }
    let end = Instant::now() + GOODBYE;
    while Instant::now() < end && !threads.iter().all(JoinHandle::is_finished) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(true)
}

/// The thread that listens for one application, and all its channels.
fn listener(
    setup: &Setup<'_>,
    channel: &Channel,
    changed: &Arc<AtomicBool>,
) -> Result<JoinHandle<()>, Failure> {
    let robot = channel.robot();
    let of_it = setup.channels.iter().filter(|c| c.robot() == robot);
    let names: Vec<String> = of_it.map(|c| c.name.clone()).collect();
    let place = setup.state.path().display().to_string();
    let mut listener = Listener {
        name: names.join(", "),
        robot: channel.app().map(|(kind, app)| (kind, app.clone())),
        lease: Lease::new(Database::quick(setup.config)?, robot, &setup.host, place),
        desk: Desk {
            database: Database::quick(setup.config)?,
            key: setup.key.clone(),
            channels: names,
            wording: setup.wording,
        },
        stop: setup.stop,
        changed: Arc::clone(changed),
    };
    Ok(threads::spawn("listen", move || listener.run())?)
}

/// The thread that changes messages where they stand.
fn changer(setup: &Setup<'_>, changed: Arc<AtomicBool>) -> Result<JoinHandle<()>, Failure> {
    let mut database = Database::patient(setup.config)?;
    let (stop, state, wording) = (setup.stop, setup.state.clone(), setup.wording);
    let (channels, key) = (setup.channels.clone(), setup.key.clone());
    let change = move || {
        let mut down = false;
        while !stop.requested() {
            changed.store(false, Ordering::Relaxed);
            let refreshed = database.with(|client| {
                cards::refresh(
                    client,
                    Some(&state),
                    &channels,
                    &wording,
                    Some(&key),
                    CHANGES,
                )
            });
            // Once, and not every two seconds.
            if let Err(e) = &refreshed
                && !down
            {
                tracing::warn!("messages cannot be changed now: {e}");
            }
            down = refreshed.is_err();
            let look = Instant::now() + LOOK;
            while Instant::now() < look && !stop.requested() && !changed.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(50));
            }
        }
    };
    Ok(threads::spawn("change messages", change)?)
}

struct Listener {
    /// Its channels.
    name: String,
    robot: Option<(ChannelKind, App)>,
    lease: Lease,
    desk: Desk,
    stop: StopSignal,
    /// Somebody has pressed something.
    changed: Arc<AtomicBool>,
}

/// How a connection ended.
enum End {
    /// The process is asked to stop.
    Stopped,
    /// Another one listens.
    LeaseLost,
    /// It broke; whether it had worked.
    Broken(String, bool),
}

impl Listener {
    fn run(&mut self) {
        let (mut broke, mut said) = (0, String::new());
        while !self.stop.requested() {
            match self.lease.take(false, None) {
                Ok(true) => {}
                taken => {
                    let (why, wait) = match taken {
                        Err(e) => (format!("not listening for {}: {e}", self.name), AGAIN),
                        Ok(_) => (
                            format!("another machine listens for {}; waiting", self.name),
                            STANDBY,
                        ),
                    };
                    if said != why {
                        tracing::warn!("{why}");
                        said = why;
                    }
                    let _ = self.stop.wait(wait);
                    continue;
                }
            }
            said.clear();
            match self.connect() {
                End::Stopped => break,
                End::LeaseLost => {
                    tracing::warn!("another machine listens for {} now", self.name);
                }
                End::Broken(why, worked) => {
                    broke = if worked { 1 } else { broke + 1 };
                    let wait = wait_after(broke);
                    tracing::warn!(
                        "the connection for {} ended: {why}; opened again in {:.0} s",
                        self.name,
                        wait.as_secs_f64()
                    );
                    let _ = self.lease.take(false, Some(&why));
                    let _ = self.stop.wait(wait);
                }
            }
        }
        self.lease.release();
    }

    fn open(&self) -> Result<(Box<dyn Protocol>, Socket), String> {
        match &self.robot {
            Some((ChannelKind::FeishuApp, app)) => feishu::open(app),
            Some((ChannelKind::DingtalkApp, app)) => dingtalk::open(app),
            _ => Err("this kind of channel has no buttons".to_owned()),
        }
    }

    /// Connects, and does what is pressed for as long as the connection lasts.
    fn connect(&mut self) -> End {
        let (mut protocol, mut socket) = match self.open() {
            Ok(opened) => opened,
            Err(why) => return End::Broken(why, false),
        };
        let begun = Instant::now();
        tracing::info!("listening for {}", self.name);
        let broken = |why: String| End::Broken(why, begun.elapsed() > WORKED);
        let (mut heard, mut pinged, mut renewed) = (begun, None::<Instant>, None::<Instant>);
        loop {
            if self.stop.requested() {
                socket.close();
                return End::Stopped;
            }
            if renewed.is_none_or(|at| at.elapsed() >= lease::RENEW) {
                // While PostgreSQL is down, nobody else can take the lease either.
                if let Ok(false) = self.lease.take(true, None) {
                    socket.close();
                    return End::LeaseLost;
                }
                renewed = Some(Instant::now());
            }
            let every = protocol.ping_every();
            if pinged.is_none_or(|at| at.elapsed() >= every) {
                if let Err(why) = socket.send(protocol.ping()) {
                    return broken(why);
                }
                pinged = Some(Instant::now());
            }
            if heard.elapsed() > every + PONG {
                return broken("the platform does not answer".to_owned());
            }
            let message = match socket.read() {
                Ok(Some(Message::Close(_))) => {
                    return broken("the platform closed the connection".to_owned());
                }
                Ok(Some(message)) => message,
                Ok(None) => continue,
                Err(why) => return broken(why),
            };
            heard = Instant::now();
            let (desk, changed) = (&mut self.desk, &self.changed);
            let mut pressed = None::<Press>;
            let mut press = |press: &Press| {
                let said = desk.press(press);
                changed.store(true, Ordering::Relaxed);
                if said.tone != Tone::Done {
                    pressed = Some(press.clone());
                }
                said
            };
            let answered = protocol
                .take(&message, &mut press)
                .and_then(|answer| answer.map_or(Ok(()), |answer| socket.send(answer)));
            if let Err(why) = answered {
                return broken(why);
            }
            // After the answer, for which somebody waits.
            if let Some(press) = pressed {
                self.desk.show_again(&press);
            }
        }
    }
}

/// The wait after so many connections in a row that did not last: one second, and longer each time. A part of it is by chance, so that
/// many that lost their connection at the same moment do not come back at the same one.
fn wait_after(broke: u32) -> Duration {
    let longest = Duration::from_secs(1 << broke.saturating_sub(1).min(6)).min(LONGEST_WAIT);
    let chance = uuid::Uuid::now_v7().as_bytes()[15];
    longest.mul_f64(0.75 + f64::from(chance) / 1024.0)
}
