//! One page of Chromium: what is asked of it, and what it receives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oa_core::base::threads;
use serde_json::{Value, json};

use super::cookies::Cookie;
use super::devtools::{Devtools, DevtoolsError, Event, PendingCall};

/// Longest time for one answer of Chromium.
const ANSWER: Duration = Duration::from_secs(5);
/// The same for a body, which may be large.
const BODY: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub(super) struct PageResponse {
    pub(crate) url: String,
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
}

/// What a page has received since it was last opened.
#[derive(Debug, Default)]
struct Received {
    /// All answers to scripts' requests.
    responses: Vec<PageResponse>,
    /// Status of the document; 0 while there is none.
    status: u16,
    url: String,
}

#[derive(Debug)]
pub(super) struct Page {
    browser: Devtools,
    session: Devtools,
    received: Arc<Mutex<Received>>,
}

type DevtoolsResult<T> = Result<T, DevtoolsError>;

impl Page {
    /// Opens an empty page. Answers of more than `max_body` bytes are kept one byte too long, so that it is noticed.
    pub(super) fn open(
        browser: &Devtools,
        events: mpsc::Receiver<Event>,
        max_body: u64,
        limit: Duration,
    ) -> DevtoolsResult<Self> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        // Reports the address of what is open whenever it changes.
        let discover = json!({ "discover": true });
        browser.call("Target.setDiscoverTargets", discover, limit)?;
        // A page leaves no file on this machine.
        let deny = json!({ "behavior": "deny" });
        browser.call("Browser.setDownloadBehavior", deny, limit)?;
        let new = browser.call(
            "Target.createTarget",
            json!({ "url": "about:blank" }),
            limit,
        )?;
        let target = text(&new["targetId"]);
        let to_it = json!({ "targetId": target, "flatten": true });
        let attached = browser.call("Target.attachToTarget", to_it, limit)?;
        let session = browser.of_session(&text(&attached["sessionId"]));
        // A busy machine takes its time to start the page's own process.
        session.call("Network.enable", json!({}), limit)?;
        let received = Arc::new(Mutex::new(Received::default()));
        let page = Self {
            browser: browser.clone(),
            session: session.clone(),
            received: received.clone(),
        };
        let listen = move || {
            let mut listener = Listener {
                session,
                target,
                max_body,
                received,
                under_way: HashMap::new(),
            };
            for event in events {
                listener.handle(&event);
            }
        };
        threads::spawn("follow a page of Chromium", listen)?;
        Ok(page)
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        lock(&self.received)
    }

    /// Forgets what was received before.
    pub(super) fn forget(&self) {
        let mut received = self.received();
        received.responses.clear();
        received.status = 0;
    }

    /// The last answer from an address with such a part.
    pub(super) fn response_from(&self, part: &str) -> Option<PageResponse> {
        let received = self.received();
        let mut newest_first = received.responses.iter().rev();
        newest_first.find(|a| a.url.contains(part)).cloned()
    }

    pub(super) fn status(&self) -> u16 {
        self.received().status
    }

    /// Goes to an address. Chromium answers once the first bytes are there.
    pub(super) fn go(&self, url: &str) -> DevtoolsResult<PendingCall> {
        self.session.send("Page.navigate", json!({ "url": url }))
    }

    pub(super) fn clear(&self) -> DevtoolsResult<()> {
        let to = json!({ "url": "about:blank" });
        arrived(&self.session.call("Page.navigate", to, ANSWER)?)
    }

    pub(super) fn url(&self) -> String {
        self.received().url.clone()
    }

    /// The value of an expression on the page.
    pub(super) fn evaluate(&self, expression: &str) -> DevtoolsResult<Value> {
        let expression = json!({ "expression": expression, "returnByValue": true });
        let mut answer = self.session.call("Runtime.evaluate", expression, ANSWER)?;
        if let Some(thrown) = answer.get("exceptionDetails") {
            let what = thrown["exception"]["description"].as_str();
            let what = what.or(thrown["text"].as_str()).unwrap_or("an error");
            let first = what.lines().next().unwrap_or_default();
            return Err(DevtoolsError::Refused(first.to_owned()));
        }
        Ok(answer["result"]["value"].take())
    }

    pub(super) fn html(&self) -> DevtoolsResult<String> {
        let whole = "(document.doctype ? new XMLSerializer().serializeToString(document.doctype) : '') + (document.documentElement?.outerHTML ?? '')";
        let html = self.evaluate(whole)?;
        let html = html.as_str().map(str::to_owned);
        html.ok_or_else(|| DevtoolsError::Refused("the page has no document".to_owned()))
    }

    /// Clicks into the middle of the first element that a selector finds, as a person does.
    pub(super) fn click(&self, css: &str) -> DevtoolsResult<()> {
        let quoted = Value::from(css).to_string();
        let center = self.evaluate(&format!(
            "(e => {{ e.scrollIntoView({{ block: 'center', inline: 'center', behavior: 'instant' }});
               const r = e.getClientRects()[0]; return r && {{ x: r.x + r.width / 2, y: r.y + r.height / 2 }}; }})(document.querySelector({quoted}))"
        ))?;
        let (Some(x), Some(y)) = (center["x"].as_f64(), center["y"].as_f64()) else {
            return Err(DevtoolsError::Refused("it is not visible".to_owned()));
        };
        for (kind, button) in [
            ("mouseMoved", "none"),
            ("mousePressed", "left"),
            ("mouseReleased", "left"),
        ] {
            let count = i32::from(button == "left");
            let event =
                json!({ "type": kind, "x": x, "y": y, "button": button, "clickCount": count });
            self.session
                .call("Input.dispatchMouseEvent", event, ANSWER)?;
        }
        Ok(())
    }

    /// Types where the cursor is, all at once.
    pub(super) fn insert_text(&self, text: &str) -> DevtoolsResult<()> {
        let text = json!({ "text": text });
        self.session
            .call("Input.insertText", text, ANSWER)
            .map(|_| ())
    }

    pub(super) fn screenshot(&self) -> DevtoolsResult<Vec<u8>> {
        let png = json!({ "format": "png", "fromSurface": true });
        let answer = self.session.call("Page.captureScreenshot", png, ANSWER)?;
        decoded(&answer["data"])
            .ok_or_else(|| DevtoolsError::Refused("it gave no picture".to_owned()))
    }

    pub(super) fn set_cookies(&self, cookies: &[Cookie]) -> DevtoolsResult<()> {
        let cookies: Vec<Value> = cookies.iter().map(Cookie::param).collect();
        let cookies = json!({ "cookies": cookies });
        self.session
            .call("Network.setCookies", cookies, ANSWER)
            .map(|_| ())
    }

    /// Of all sites.
    pub(super) fn cookies(&self) -> DevtoolsResult<Vec<Cookie>> {
        let all = self.browser.call("Storage.getCookies", json!({}), ANSWER)?;
        let all = all["cookies"].as_array().into_iter().flatten();
        Ok(all.filter_map(Cookie::of_devtools).collect())
    }
}

/// Whether navigation succeeded; the error is Chromium's own name: `net::ERR_…`.
pub(super) fn arrived(answer: &Value) -> DevtoolsResult<()> {
    match answer["errorText"].as_str() {
        Some(code) => Err(DevtoolsError::NotLoaded(code.to_owned())),
        None => Ok(()),
    }
}

/// Notes what the page receives.
struct Listener {
    session: Devtools,
    target: String,
    max_body: u64,
    received: Arc<Mutex<Received>>,
    /// Answers to scripts whose bodies are still coming, with their size so far.
    under_way: HashMap<String, (PageResponse, u64)>,
}

impl Listener {
    fn handle(&mut self, event: &Event) {
        let params = &event.params;
        let request = params["requestId"].as_str().unwrap_or_default();
        match event.method.as_str() {
            "Target.targetCreated" | "Target.targetInfoChanged" => {
                let info = &params["targetInfo"];
                if info["targetId"] == self.target.as_str() {
                    let url = info["url"].as_str().unwrap_or_default();
                    url.clone_into(&mut lock(&self.received).url);
                }
            }
            "Network.responseReceived" => self.begin(request, params),
            "Network.dataReceived" => {
                if let Some((_, size)) = self.under_way.get_mut(request) {
                    *size += params["dataLength"].as_u64().unwrap_or_default();
                }
            }
            "Network.loadingFinished" => self.finish(request),
            "Network.loadingFailed" => {
                self.under_way.remove(request);
            }
            _ => {}
        }
    }

    fn begin(&mut self, request: &str, params: &Value) {
        let response = &params["response"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let status = response["status"].as_f64().unwrap_or_default() as u16;
        match params["type"].as_str() {
            // The main frame has the page's own id.
            Some("Document") if params["frameId"] == self.target.as_str() => {
                lock(&self.received).status = status;
            }
            Some("XHR" | "Fetch") => {
                let answer = PageResponse {
                    url: text(&response["url"]),
                    status,
                    content_type: text(&response["mimeType"]),
                    body: Vec::new(),
                };
                self.under_way.insert(request.to_owned(), (answer, 0));
            }
            _ => {}
        }
    }

    fn finish(&mut self, request: &str) {
        let Some((mut answer, size)) = self.under_way.remove(request) else {
            return;
        };
        let most = usize::try_from(self.max_body).unwrap_or(usize::MAX - 1) + 1;
        if size > self.max_body {
            answer.body = vec![b' '; most];
        } else {
            let params = json!({ "requestId": request });
            let Ok(body) = self.session.call("Network.getResponseBody", params, BODY) else {
                return;
            };
            let bytes = match body["base64Encoded"].as_bool() {
                Some(true) => decoded(&body["body"]),
                _ => body["body"].as_str().map(|text| text.as_bytes().to_vec()),
            };
            // Without its body it is no answer; whoever waits for it goes on waiting.
            let Some(bytes) = bytes else {
                return;
            };
            answer.body = bytes;
            answer.body.truncate(most);
        }
        lock(&self.received).responses.push(answer);
    }
}

fn decoded(base64: &Value) -> Option<Vec<u8>> {
    STANDARD.decode(base64.as_str()?).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
