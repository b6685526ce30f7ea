//! The steps of a visit.

use std::thread;
use std::time::{Duration, Instant};

use oa_core::base::secrets::redact;
use oa_core::base::supervise::StopSignal;
use oa_core::model::retry::ErrorKind;
use serde_json::Value;
use url::Url;

use super::devtools::DevtoolsError;
use super::page::{PageResponse, arrived};
use super::proxy::REMEDY;
use super::{Browser, Visit};
use crate::fetch::origin::shown;
use crate::fetch::{FetchError, Response};
use crate::source::Step;

/// How often the page is looked at while something is waited for.
const POLL: Duration = Duration::from_millis(50);

impl Browser {
    /// Opens an address, whatever was open before, and waits until the document is complete.
    pub(super) fn open(&self, url: &str, deadline: Instant) -> Result<(), FetchError> {
        let cannot = |e: DevtoolsError| {
            // Of a connection that was not made, Chromium knows no more than that.
            let failure = self.proxy.last_failure().filter(|_| e.is_of_proxy());
            let (kind, why) = match failure {
                Some(failure) => (failure.kind, failure.why),
                None => (e.kind(), format!("{e}{}", e.remedy())),
            };
            let what = format!("could not open the page: {why}: GET {url}");
            FetchError::new(kind, redact(&what))
        };
        // From one place within a page to another nothing would be loaded.
        self.page.clear().map_err(cannot)?;
        self.page.forget();
        self.proxy.forget();
        // The first bytes of the page may take for ever.
        let going = self.page.go(url).map_err(cannot)?;
        let mut opened = false;
        self.wait("the page", url, deadline, || {
            if !opened {
                let Some(answer) = going.poll() else {
                    return Ok(None);
                };
                answer.and_then(|a| arrived(&a)).map_err(cannot)?;
                opened = true;
            }
            let state = self.script("document.readyState + ' ' + location.href");
            let state = state.as_str().unwrap_or_default();
            Ok((state.starts_with("complete ") && !state.ends_with(" about:blank")).then_some(()))
        })
    }

    /// Performs the steps and returns what the last one took.
    pub(super) fn run(
        &self,
        steps: &[Step],
        visit: &Visit<'_>,
        deadline: Instant,
    ) -> Result<Option<Response>, FetchError> {
        let mut taken = None;
        for (number, step) in steps.iter().enumerate() {
            taken = self.step(step, visit, deadline).map_err(|mut e| {
                let at = format!("step {} of the browser: {}", number + 1, e.error.message);
                e.error.message = redact(&at);
                e
            })?;
        }
        self.check_place(&visit.url)?;
        Ok(taken)
    }

    /// A page may lead anywhere, as a redirect does, but not to what the proxy refuses: then there is nothing to wait for.
    fn check_place(&self, url: &str) -> Result<(), FetchError> {
        let place = Url::parse(&self.page.url()).ok();
        let why = place
            .as_ref()
            .and_then(|place| self.proxy.refusal_of(place));
        let (Some(place), Some(why)) = (&place, why) else {
            return Ok(());
        };
        let what = format!(
            "the page led to {} ({why}){REMEDY}: GET {url}",
            shown(place)
        );
        Err(FetchError::new(ErrorKind::Blocked, redact(&what)))
    }

    fn step(
        &self,
        step: &Step,
        visit: &Visit<'_>,
        deadline: Instant,
    ) -> Result<Option<Response>, FetchError> {
        let url = visit.url.as_str();
        if let Some(path) = &step.goto {
            self.open(
                &format!("{}{path}", visit.base.trim_end_matches('/')),
                deadline,
            )?;
        }
        if let Some(css) = &step.wait_for {
            self.wait_for(css, url, deadline)?;
        }
        if let Some(css) = &step.fill {
            self.wait_for(css, url, deadline)?;
            let secret = visit.secrets.iter().find(|(of, _)| of == css);
            let text = match (&step.value, secret) {
                (Some(value), _) => value.clone(),
                (None, Some((_, secret))) => secret.expose().to_owned(),
                (None, None) => {
                    let what = format!(
                        "no secret for \"{css}\" is set (oa-crawl check names it), and there are no valid cookies: GET {url}"
                    );
                    return Err(FetchError::new(ErrorKind::Auth, what));
                }
            };
            self.type_text(css, &text, url)?;
        }
        if let Some(css) = &step.click {
            self.wait_for(css, url, deadline)?;
            self.page.click(css).map_err(|e| {
                let what = redact(&format!("could not click on \"{css}\": {e}: GET {url}"));
                FetchError::new(ErrorKind::Shape, what)
            })?;
        }
        if let Some(part) = &step.wait_for_url {
            self.wait_for_url(part, deadline)?;
        }
        if let Some(pause) = step.pause
            && !StopSignal.wait(
                pause
                    .0
                    .min(deadline.saturating_duration_since(Instant::now())),
            )
        {
            return Err(FetchError::new(ErrorKind::Internal, "stopped by a signal"));
        }
        if let Some(part) = &step.take_response {
            let Some(patience) = step.or_html_after else {
                return self.take_response(part, url, deadline).map(Some);
            };
            let end = deadline.min(Instant::now() + patience.0);
            return match self.take_response(part, url, end) {
                Err(e) if e.error.kind == ErrorKind::Timeout && Instant::now() < deadline => {
                    self.take_html(url).map(Some)
                }
                taken => taken.map(Some),
            };
        }
        if step.take_html {
            return self.take_html(url).map(Some);
        }
        Ok(None)
    }

    /// All at once: key by key, a page that is slow to draw takes seconds.
    fn type_text(&self, css: &str, text: &str, url: &str) -> Result<(), FetchError> {
        let quoted = Value::from(css).to_string();
        let focus = format!(
            "(e => {{ e.focus(); e.select?.(); return true; }})(document.querySelector({quoted}))"
        );
        let typed = self.page.evaluate(&focus);
        let typed = typed.and_then(|_| self.page.insert_text(text));
        typed.map_err(|e| {
            let what = redact(&format!("could not type into \"{css}\": {e}: GET {url}"));
            FetchError::new(ErrorKind::Shape, what)
        })
    }

    fn wait_for(&self, css: &str, url: &str, deadline: Instant) -> Result<(), FetchError> {
        let quoted = Value::from(css).to_string();
        self.wait(&format!("\"{css}\""), url, deadline, || {
            let there = self.script(&format!("document.querySelector({quoted}) !== null"));
            Ok((there == Value::Bool(true)).then_some(()))
        })
    }

    pub(super) fn wait_for_url(&self, part: &str, deadline: Instant) -> Result<(), FetchError> {
        let url = self.page.url();
        self.wait(
            &format!("an address with \"{part}\""),
            &url,
            deadline,
            || {
                let here = self.script("location.href");
                let here = here.as_str().unwrap_or_default();
                Ok(here.contains(part).then_some(()))
            },
        )
    }

    fn take_response(
        &self,
        part: &str,
        url: &str,
        deadline: Instant,
    ) -> Result<Response, FetchError> {
        let what = format!("an answer from an address with \"{part}\"");
        let answer = self.wait(&what, url, deadline, || Ok(self.page.response_from(part)))?;
        let PageResponse {
            url,
            status,
            content_type,
            body,
        } = answer;
        Ok(Response {
            status,
            // Chromium gives texts as UTF-8, whatever they came as.
            content_type: Some(format!("{content_type}; charset=utf-8")),
            final_url: url,
            body,
            ..Response::default()
        })
    }

    fn take_html(&self, url: &str) -> Result<Response, FetchError> {
        let page = self.page.html().map_err(|e| broken(&e, url))?;
        let status = self.page.status();
        Ok(Response {
            status: if status == 0 { 200 } else { status },
            content_type: Some("text/html; charset=utf-8".to_owned()),
            final_url: self.page.url(),
            body: page.into_bytes(),
            ..Response::default()
        })
    }

    /// The value of an expression on the present page; null while there is none.
    fn script(&self, expression: &str) -> Value {
        self.page.evaluate(expression).unwrap_or(Value::Null)
    }

    /// Looks again and again until something is there or the deadline has passed.
    fn wait<T>(
        &self,
        what: &str,
        url: &str,
        deadline: Instant,
        mut look: impl FnMut() -> Result<Option<T>, FetchError>,
    ) -> Result<T, FetchError> {
        loop {
            if let Some(found) = look()? {
                return Ok(found);
            }
            if StopSignal.requested() {
                return Err(FetchError::new(ErrorKind::Internal, "stopped by a signal"));
            }
            self.check_place(url)?;
            let here = self.page.url();
            if here.to_ascii_lowercase().contains("login")
                && !url.to_ascii_lowercase().contains("login")
            {
                let what = format!("redirected to the login page {here}: GET {url}");
                return Err(FetchError::new(ErrorKind::Auth, what));
            }
            let status = self.page.status();
            if status >= 400 {
                let page = Response {
                    status,
                    content_type: None,
                    final_url: here,
                    body: Vec::new(),
                    ..Response::default()
                };
                super::check_status(&format!("GET {url}"), &page)?;
            }
            if Instant::now() >= deadline {
                let title = self.script("document.title");
                let refused = self.proxy.refused();
                let refused = refused.map_or_else(String::new, |refused| format!("; {refused}"));
                let what = format!(
                    "waited in vain for {what} on the page titled {title}; correct the step in the source file if the site has changed{refused}: GET {url}"
                );
                return Err(FetchError::new(ErrorKind::Timeout, redact(&what)));
            }
            thread::sleep(POLL);
        }
    }
}

pub(super) fn nothing_taken(url: &str) -> FetchError {
    FetchError::new(
        ErrorKind::Internal,
        format!("no step takes anything: GET {url}"),
    )
}

fn broken(error: &DevtoolsError, url: &str) -> FetchError {
    let what = format!("Chromium does not answer: {error}: GET {url}");
    FetchError::new(ErrorKind::Internal, redact(&what))
}
