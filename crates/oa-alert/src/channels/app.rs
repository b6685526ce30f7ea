//! Application robots: requests carry a short-lived token, which the platform issues for the application's secret.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use oa_core::app::config;
use oa_core::base::resolver;
use oa_core::base::secrets::{Secret, redact};
use serde_json::Value;

use super::{CONNECT, Cause, LARGEST_ANSWER, SendError, TIMEOUT, lost, retry_after, too_fast};

/// A token is renewed this long before it ends.
const MARGIN: Duration = Duration::from_secs(300);
/// No token is used for longer.
const LONGEST_TOKEN: Duration = Duration::from_secs(24 * 3600);

/// An application of a platform, and the group that it writes to.
#[derive(Debug, Clone)]
pub(crate) struct App {
    base: String,
    id: String,
    secret: Secret,
    chat: String,
    template: Option<String>,
    agent: Option<i64>,
    token: Arc<Mutex<Option<(Secret, Instant)>>>,
}

impl App {
    pub(super) fn of(channel: &config::Channel, url: &Secret, secret: Secret) -> Self {
        Self {
            base: url.expose().trim_end_matches('/').to_owned(),
            id: channel.app_id.clone(),
            secret,
            chat: channel.chat.clone(),
            template: channel.template.clone(),
            agent: channel.agent_id,
            token: Arc::default(),
        }
    }

    /// The application.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Its secret.
    pub(crate) fn secret(&self) -> &Secret {
        &self.secret
    }

    /// The group that it writes to.
    pub(crate) fn chat(&self) -> &str {
        &self.chat
    }

    /// The form of its cards, where the platform has many.
    pub(super) fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// Its number in a company, where it has one.
    pub(super) fn agent(&self) -> Option<i64> {
        self.agent
    }

    /// Where the platform is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// The token, asked for when there is none or it ends soon.
    pub(super) fn token(
        &self,
        ask: impl FnOnce() -> Result<(Secret, Duration), SendError>,
    ) -> Result<Secret, SendError> {
        let mut known = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((token, until)) = &*known
            && Instant::now() < *until
        {
            return Ok(token.clone());
        }
        // That no token came says nothing of the message: it was not sent.
        let (token, lasts) = ask().map_err(|e| SendError {
            unknown: false,
            ..e
        })?;
        // What says that it lasts for ever is asked for anew all the same; no clock counts so far.
        let lasts = lasts.min(LONGEST_TOKEN);
        let lasts = lasts.saturating_sub(MARGIN.min(lasts / 2));
        *known = Some((token.clone(), Instant::now() + lasts));
        Ok(token)
    }

    /// The platform does not take the token any more.
    pub(super) fn forget_token(&self) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// How a platform is asked.
#[derive(Debug, Clone, Copy)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Patch,
}

/// Asks a platform, with headers and a body where there is one; gives the status and what it says.
pub(super) fn ask(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: &Value,
) -> Result<(u16, String), SendError> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        // Apart from the whole: without a connection the platform certainly has nothing.
        .timeout_connect(Some(CONNECT))
        .timeout_resolve(Some(CONNECT))
        .http_status_as_error(false)
        .max_redirects(0)
        .build();
    let agent = resolver::agent(config);
    let builder = match method {
        Method::Get => None,
        Method::Post => Some(agent.post(url)),
        Method::Put => Some(agent.put(url)),
        Method::Patch => Some(agent.patch(url)),
    };
    let answer = match builder {
        None => agent.get(url).call(),
        Some(mut builder) => {
            for (name, value) in headers {
                builder = builder.header(*name, *value);
            }
            builder.send_json(body)
        }
    };
    let mut answer = answer.map_err(|e| lost(&e))?;
    let status = answer.status().as_u16();
    if let Some(refused) = too_fast(status, retry_after(answer.headers())) {
        return Err(refused);
    }
    let text = answer
        .body_mut()
        .with_config()
        .limit(LARGEST_ANSWER)
        .read_to_string()
        .map_err(|e| lost(&e))?;
    Ok((status, text))
}

/// What an answer with a code means, where 0 is success. The platform's name, and its fields for the code and for words.
pub(super) fn assess(
    (platform, code, words): (&str, &str, &str),
    explain: fn(i64) -> (Cause, &'static str),
    status: u16,
    text: &str,
) -> Result<Value, SendError> {
    let answer = serde_json::from_str::<Value>(text).unwrap_or_default();
    let Some(code) = answer.get(code).and_then(Value::as_i64) else {
        return Err(SendError::new(match status {
            200 => {
                format!("the answer is not {platform}'s (a web page?); check url of the channel")
            }
            _ => format!("{platform} answered HTTP {status}; it will be tried again"),
        }));
    };
    if code == 0 {
        return Ok(answer);
    }
    let said = answer.get(words).and_then(Value::as_str);
    let (cause, meaning) = explain(code);
    let message = redact(&format!(
        "{platform} refused with code {code}: {meaning} (it says: {})",
        said.unwrap_or_default()
    ));
    Err(SendError {
        code: Some(code.to_string()),
        ..SendError::because(cause, message)
    })
}
