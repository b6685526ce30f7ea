//! Fetching with the system's Chromium over the DevTools protocol, for sites whose data only a browser gets: a login, a table that
//! a script fills, the answer that a page loads by itself.
//!
//! Chromium ends with this process, however that ends. It listens on no port, connects to nothing but the proxy of this process
//! (`proxy.rs`), and works on an empty profile that only this user may read and that is removed afterwards. Cookies are the only thing
//! that is kept between runs.

pub(crate) mod cookies;
mod devtools;
mod launch;
mod page;
mod proxy;
mod steps;
mod upstream;

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use oa_core::base::secrets::{Secret, redact};
use oa_core::base::state_dir::{make_folder, write_durably};
use oa_core::model::retry::ErrorKind;
use ureq::tls::RootCerts;

use super::origin::HomeOrigin;
use super::{FetchError, Response, check_status};
use crate::source::BrowserRules;
use devtools::DevtoolsError;
pub(crate) use launch::{find_program, has_authorities, without_sandbox};
use page::Page;
use proxy::Proxy;

#[derive(Debug, Clone)]
pub(crate) struct LaunchOptions {
    /// Its profile and the cookies are below it.
    pub(crate) folder: PathBuf,
    /// Screenshots and pages of failures.
    pub(crate) failures: PathBuf,
    /// The provider, which names the file of cookies.
    pub(crate) provider: String,
    /// The task, which names the files of failures.
    pub(crate) task: String,
    pub(crate) max_body: u64,
    /// What the source names: on this machine and in private networks its pages get at nothing else.
    pub(crate) home: HomeOrigin,
    /// Whose certificates an operator's proxy may have.
    pub(crate) roots: RootCerts,
}

/// A page that is not there after this time may be behind a login.
const BEFORE_LOGIN: Duration = Duration::from_secs(15);
/// The screenshots and pages of so many failures are kept.
const FAILURES_KEPT: usize = 20;

const START: Duration = Duration::from_secs(30);

/// A running Chromium with one page.
pub(crate) struct Browser {
    options: LaunchOptions,
    page: Page,
    logged_in: bool,
    _chromium: launch::Chromium,
    proxy: Proxy,
}

impl std::fmt::Debug for Browser {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Browser")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
pub(crate) struct Visit<'a> {
    pub(crate) url: String,
    /// Scheme and host, for the addresses of steps.
    pub(crate) base: String,
    pub(crate) rules: &'a BrowserRules,
    /// What `secret` of a step stands for, by the selector that is filled.
    pub(crate) secrets: &'a [(String, Secret)],
    pub(crate) deadline: Instant,
}

impl Browser {
    /// Starts Chromium, with the cookies of the last run.
    pub(crate) fn start(options: &LaunchOptions, deadline: Instant) -> Result<Self, FetchError> {
        if without_sandbox() {
            tracing::warn!(
                "{}: Chromium runs without its sandbox, because oa-crawl runs as root",
                options.task
            );
        }
        // In JSON a byte of a body may take six.
        let longest = options.max_body.saturating_mul(6).saturating_add(64 << 20);
        let proxy = Proxy::start(options.home.clone(), options.roots.clone()).map_err(|e| {
            let what = format!("could not start the browser's proxy: {e}");
            FetchError::new(ErrorKind::Internal, what)
        })?;
        let (mut chromium, devtools, events) =
            launch::Chromium::start(&options.folder, &proxy.address(), longest)?;
        let limit = START.min(deadline.saturating_duration_since(Instant::now()));
        let page = Page::open(&devtools, events, options.max_body, limit).map_err(|e| {
            let what = match (&e, chromium.ended()) {
                (DevtoolsError::Closed, Some(ended)) => ended,
                _ => format!("Chromium did not start: {e}"),
            };
            let kind = match e {
                // On a busy machine another attempt may help.
                DevtoolsError::Late(..) => ErrorKind::Timeout,
                _ => ErrorKind::Internal,
            };
            FetchError::new(kind, what)
        })?;
        let browser = Self {
            options: options.clone(),
            page,
            logged_in: false,
            _chromium: chromium,
            proxy,
        };
        browser.load_cookies()?;
        Ok(browser)
    }

    fn cookie_file(&self) -> PathBuf {
        let name = format!("{}.json", self.options.provider);
        self.options.folder.join(name)
    }

    fn load_cookies(&self) -> Result<(), FetchError> {
        let path = self.cookie_file();
        if !path.exists() {
            return Ok(());
        }
        let kept = cookies::read(&path)
            .map_err(|e| FetchError::new(ErrorKind::Auth, format!("{e}; import them again")))?;
        self.page.set_cookies(&kept).map_err(|e| {
            let what = format!(
                "Chromium did not take the cookies of {}: {e}",
                path.display()
            );
            FetchError::new(ErrorKind::Auth, redact(&what))
        })
    }

    /// Losing them costs one more login.
    fn keep_cookies(&self) {
        let kept = self
            .page
            .cookies()
            .map_err(|e| e.to_string())
            .and_then(|all| cookies::write(&self.cookie_file(), &all).map_err(|e| e.to_string()));
        if let Err(e) = kept {
            tracing::warn!(
                "could not keep the cookies of {}: {e}",
                self.options.provider
            );
        }
    }

    /// Opens a page, performs the steps, and returns what the last one takes. When that fails for lack of a login, logs in and tries
    /// once more.
    /// The error says which step failed, and why; a screenshot and the page are kept then.
    pub(crate) fn visit(&mut self, visit: &Visit<'_>) -> Result<Response, FetchError> {
        let first = self.take(visit);
        let taken = match (&visit.rules.login, first) {
            (Some(login), Err(e)) if !self.logged_in && may_need_login(&e) => {
                tracing::info!("{}: logging in", self.options.task);
                self.log_in(visit, login)?;
                self.logged_in = true;
                // What a person had imported is not needed any more.
                let _ = fs::remove_file(self.cookie_file().with_extension("imported"));
                self.take(visit)
            }
            (_, first) => first,
        };
        let response = taken?;
        if let Some(refused) = self.proxy.refused() {
            tracing::info!("{}: {refused}", self.options.task);
        }
        self.keep_cookies();
        Ok(response)
    }

    fn take(&self, visit: &Visit<'_>) -> Result<Response, FetchError> {
        let deadline = match (&visit.rules.login, self.logged_in) {
            // Enough must be left for a login.
            (Some(_), false) => {
                let now = Instant::now();
                let left = visit.deadline.saturating_duration_since(now);
                now + (left / 3).min(BEFORE_LOGIN)
            }
            _ => visit.deadline,
        };
        let request_line = format!("GET {}", visit.url);
        let result = self
            .open(&visit.url, deadline)
            .and_then(|()| self.run(&visit.rules.steps, visit, deadline))
            .and_then(|response| response.ok_or_else(|| steps::nothing_taken(&visit.url)));
        let response = result.inspect_err(|_| self.keep_failure())?;
        if response.body.len() as u64 > self.options.max_body {
            let most = self.options.max_body;
            let what = format!("more than {most} bytes (max_body in [crawl]): {request_line}");
            return Err(FetchError::new(ErrorKind::Shape, what));
        }
        check_status(&request_line, &response).inspect_err(|_| self.keep_failure())?;
        Ok(response)
    }

    fn log_in(&self, visit: &Visit<'_>, login: &crate::source::Login) -> Result<(), FetchError> {
        let url = format!("{}{}", visit.base.trim_end_matches('/'), login.path);
        let now = Instant::now();
        let deadline = now + visit.deadline.saturating_duration_since(now) / 2;
        self.open(&url, deadline)
            .and_then(|()| self.run(&login.steps, visit, deadline))
            .and_then(|_| self.wait_for_url(&login.done, deadline))
            .map_err(|e| {
                self.keep_failure();
                // A failed login is for a person, not for another attempt.
                let what = format!("could not log in: {}", e.error.message);
                FetchError::new(ErrorKind::Auth, what)
            })
    }

    /// A picture and the page, for whoever corrects the source. What was typed into inputs is not part of a page's text.
    fn keep_failure(&self) {
        let folder = &self.options.failures;
        let name = format!(
            "{}-{}",
            chrono::Utc::now().format("%Y%m%dT%H%M%S%.3fZ"),
            self.options.task
        );
        let kept = make_folder(folder)
            .map_err(anyhow::Error::from)
            .and_then(|()| {
                write_durably(
                    &folder.join(format!("{name}.png")),
                    &self.page.screenshot()?,
                )?;
                let html = redact(&self.page.html()?);
                write_durably(&folder.join(format!("{name}.html")), html.as_bytes())?;
                Ok(())
            });
        match kept {
            Ok(()) => tracing::info!("screenshot and page: {}", folder.join(name).display()),
            Err(e) => tracing::warn!("could not keep a screenshot in {}: {e}", folder.display()),
        }
        let mut files: Vec<PathBuf> = fs::read_dir(folder)
            .map(|all| all.flatten().map(|f| f.path()).collect())
            .unwrap_or_default();
        files.sort_unstable();
        let excess = files.len().saturating_sub(2 * FAILURES_KEPT);
        for old in files.iter().take(excess) {
            let _ = fs::remove_file(old);
        }
    }
}

/// A page that was not there, or not in time, may be behind a login.
fn may_need_login(error: &FetchError) -> bool {
    matches!(
        error.error.kind,
        ErrorKind::Auth | ErrorKind::Timeout | ErrorKind::Blocked
    )
}
