//! Development only, never shipped: the six sites and the three robots over real HTTP on loopback, with faults on demand.
//!
//! One listener serves everything under path prefixes: `/zhihui`, `/fangqi`, `/jiaoyikecha`, `/openvlab`, `/rongda`, `/rdqh`, the
//! robots `/dingtalk`, `/wecom`, `/feishu`, and its own administration `/_sim`. Data are a function of seed and date, so two
//! requests for the same day agree, and a test can ask the generators what was served. Sockets are handled directly, because
//! the faults need it: half a body, one byte a second, a reset connection.

mod admin;
pub mod data;
pub mod fault;
mod http;
mod jpeg;
pub mod legacy;
mod log;
mod robots;
mod server;
pub mod sites;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

pub use fault::PlanError;
pub use log::{Message, RequestRecord};
pub use robots::AppCard;
pub use server::Sim;

/// How a simulator behaves.
#[derive(Debug, Clone)]
pub struct Options {
    /// Decides all data.
    pub seed: u64,
    /// A loopback address; port 0 for a free one.
    pub listen: SocketAddr,
    /// What 智汇期讯 accepts as `authorization`.
    pub zhihui_token: String,
    /// Folder with real collected days that are served instead of made-up ones.
    pub days: Option<PathBuf>,
    /// DingTalk checks signatures with this.
    pub dingtalk_secret: Option<String>,
    /// DingTalk demands this word in every message.
    pub dingtalk_keyword: Option<String>,
    /// Feishu checks signatures with this.
    pub feishu_secret: Option<String>,
    /// Applications of Feishu and DingTalk are known by this secret.
    pub app_secret: Option<String>,
    /// Seconds between pings that applications are asked for.
    pub ping_interval: u64,
    /// Messages a minute that DingTalk and WeCom take.
    pub rate_limit_per_minute: usize,
    /// The robots' clock is so much ahead of this machine's (behind, when negative).
    pub clock_ahead: chrono::TimeDelta,
    /// File to which what the robots take is added, as a person would read it.
    pub messages: Option<PathBuf>,
    /// Requests are written to stderr.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 1,
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            zhihui_token: "sim-token".to_owned(),
            days: None,
            dingtalk_secret: None,
            dingtalk_keyword: None,
            feishu_secret: None,
            app_secret: None,
            ping_interval: 120,
            rate_limit_per_minute: 20,
            clock_ahead: chrono::TimeDelta::zero(),
            messages: None,
            verbose: false,
        }
    }
}

/// What the handlers of one request know.
struct Context<'a> {
    options: &'a Options,
    log: &'a log::Log,
    apps: &'a robots::Apps,
    request: &'a http::Request,
    fault: Option<&'a fault::Fault>,
    /// How often this fault was applied before.
    applied: u64,
}

type Shared = Arc<server::State>;
