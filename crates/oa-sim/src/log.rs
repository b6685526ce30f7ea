//! The requests, and the messages that the robots accepted.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::Value;

use crate::http::Request;

/// One request.
#[derive(Debug, Clone, Serialize)]
pub struct RequestRecord {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// GET, POST.
    pub method: String,
    /// Path without query.
    pub path: String,
    /// Query as it was sent.
    pub query: String,
    /// Headers as they were sent.
    pub headers: Vec<(String, String)>,
    /// Body as text.
    pub body: String,
    /// Status that was answered; 0 when nothing was.
    pub status: u16,
    /// The fault that was applied.
    pub fault: Option<String>,
}

/// One message that a robot took.
#[derive(Debug, Clone, Serialize)]
pub struct Message {
    /// Milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// dingtalk, wecom, feishu.
    pub robot: String,
    /// Access token, key or hook.
    pub token: String,
    /// Title, where the message has one.
    pub title: String,
    /// Text or Markdown.
    pub text: String,
    /// The whole message.
    pub raw: Value,
}

/// Times of the last messages, and until when the robot takes none.
type Rate = (Vec<Instant>, Option<Instant>);

#[derive(Debug, Default)]
pub struct Log {
    requests: Mutex<Vec<RequestRecord>>,
    messages: Mutex<Vec<Message>>,
    /// When each robot took its last messages, and until when it is throttled.
    rates: Mutex<HashMap<String, Rate>>,
    /// Of which robots a limit was exceeded.
    bans: Mutex<Vec<String>>,
    /// How far the robots' clock was moved.
    ahead: Mutex<Duration>,
    /// Messages are added to this file as well.
    file: Option<PathBuf>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Log {
    pub fn request(&self, request: &Request, status: u16, fault: Option<String>) {
        locked(&self.requests).push(RequestRecord {
            at_ms: chrono::Utc::now().timestamp_millis(),
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.raw_query.clone(),
            headers: request.headers.clone(),
            body: String::from_utf8_lossy(&request.body).into_owned(),
            status,
            fault,
        });
    }

    pub fn to_file(file: Option<PathBuf>) -> Self {
        Self {
            file,
            ..Self::default()
        }
    }

    pub fn message(&self, robot: &str, token: &str, title: &str, text: &str, raw: Value) {
        if let Some(path) = &self.file {
            let shown = format!("--- {robot} ---\n{title}\n\n{}\n", text.trim_end());
            let _ = OpenOptions::new()
                .create(true)
                .append(true)
                .open(path)
                .and_then(|mut f| f.write_all(shown.as_bytes()));
        }
        locked(&self.messages).push(Message {
            at_ms: self.now().timestamp_millis(),
            robot: robot.to_owned(),
            token: token.to_owned(),
            title: title.to_owned(),
            text: text.to_owned(),
            raw,
        });
    }

    /// Whether a robot still takes a message: at most `limit` within `window`; past that it takes none for `penalty`.
    pub fn admit(&self, robot: &str, limit: usize, window: Duration, penalty: Duration) -> bool {
        let now = Instant::now() + *locked(&self.ahead);
        let mut rates = locked(&self.rates);
        let (times, throttled) = rates.entry(robot.to_owned()).or_default();
        if throttled.is_some_and(|until| now < until) {
            return false;
        }
        times.retain(|t| now.duration_since(*t) < window);
        if times.len() >= limit {
            *throttled = Some(now + penalty);
            locked(&self.bans).push(robot.to_owned());
            return false;
        }
        times.push(now);
        true
    }

    /// The current time, by the robots' clock.
    pub fn now(&self) -> DateTime<Utc> {
        Utc::now() + TimeDelta::from_std(*locked(&self.ahead)).unwrap_or_default()
    }

    pub fn advance(&self, by: Duration) {
        *locked(&self.ahead) += by;
    }

    pub fn bans(&self) -> Vec<String> {
        locked(&self.bans).clone()
    }

    pub fn requests(&self) -> Vec<RequestRecord> {
        locked(&self.requests).clone()
    }

    pub fn messages(&self) -> Vec<Message> {
        locked(&self.messages).clone()
    }

    pub fn reset(&self) {
        locked(&self.requests).clear();
        locked(&self.messages).clear();
        locked(&self.rates).clear();
        locked(&self.bans).clear();
    }
}
