//! What all pages have in common: head, navigation, whether the news is fresh, language.

use std::sync::Arc;

use chrono::Utc;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use oa_wording::Wording;

use super::assets;
use super::words::Clock;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::guard::Caller;
use crate::app::request::{Request, SESSION, escape};
use crate::app::routes::Page;
use crate::lang::Lang;
use crate::queries::health::Health;
use crate::snapshot::{LatestSnapshot, Snapshot};

/// What the frame around a page needs.
#[derive(Debug)]
pub(crate) struct Frame {
    /// What comes before the path of every link.
    pub(crate) base: String,
    pub(crate) lang: Lang,
    pub(crate) clock: Clock,
    pub(crate) latest: Arc<LatestSnapshot>,
    /// The hidden field of forms; `None` when this caller may not send any.
    pub(crate) form: Option<String>,
    /// Whoever asks is logged in by a cookie, and can log out.
    logged_in: bool,
    page: Page,
    path: String,
    query: Vec<(String, String)>,
    /// Everything is in one file: no links, no script.
    pub(crate) standalone: bool,
}

impl Frame {
    /// How events are worded on this page.
    pub(crate) fn wording(&self) -> Wording {
        self.lang.wording(self.clock.zone)
    }

    pub(crate) fn new(
        app: &App,
        request: &Request,
        page: Page,
        caller: &Caller,
        latest: &Arc<LatestSnapshot>,
    ) -> Self {
        // Whoever has no token sees nothing of it, not even in the title of an error.
        let public = match page {
            Page::LogIn => false,
            Page::Status => app.config.report.status_page,
            _ => true,
        };
        let latest = if public {
            Arc::clone(latest)
        } else {
            Arc::new(LatestSnapshot::unknown())
        };
        Self {
            base: request.base.clone(),
            lang: request.lang,
            clock: Clock {
                now: Utc::now(),
                zone: app.config.timezone,
                lang: request.lang,
            },
            latest,
            form: caller.may_act().then(|| app.guard.form_token(caller)),
            logged_in: request.cookie(SESSION).is_some(),
            page,
            path: match page {
                // It cannot be asked for again.
                Page::Act => "/admin/".to_owned(),
                _ => format!(
                    "/{}",
                    request
                        .path
                        .iter()
                        .map(|p| escape(p))
                        .collect::<Vec<_>>()
                        .join("/")
                ),
            },
            query: request.query.clone(),
            standalone: false,
        }
    }

    /// For a file that stands alone.
    pub(crate) fn standalone(lang: Lang, clock: Clock, latest: LatestSnapshot) -> Self {
        Self {
            base: String::new(),
            lang,
            clock,
            latest: Arc::new(latest),
            form: None,
            logged_in: false,
            page: Page::Overview,
            path: String::new(),
            query: Vec::new(),
            standalone: true,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    /// For whoever has no token: nothing leads to the other pages.
    fn is_bare(&self) -> bool {
        matches!(self.page, Page::LogIn | Page::Status)
    }

    /// A link, or only its text in a file that stands alone.
    pub(crate) fn link(&self, path: &str, text: &Markup) -> Markup {
        if self.standalone {
            text.clone()
        } else {
            html! { a href=(self.url(path)) { (text) } }
        }
    }

    /// The path of a task's page.
    pub(crate) fn task(&self, name: &str) -> String {
        format!("/admin/tasks/{}", escape(name))
    }

    /// This page with other values in its query; `None` takes one away.
    pub(crate) fn with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let kept = self
            .query
            .iter()
            .filter(|(n, v)| !v.is_empty() && !changes.iter().any(|(c, _)| c == n));
        let kept = kept.map(|(n, v)| (n.as_str(), v.as_str()));
        let new = changes.iter().filter_map(|(n, v)| v.map(|v| (*n, v)));
        let query: Vec<String> = kept
            .chain(new)
            .map(|(n, v)| format!("{}={}", escape(n), escape(v)))
            .collect();
        let mark = if query.is_empty() { "" } else { "?" };
        format!("{}{mark}{}", self.url(&self.path), query.join("&"))
    }

    pub(crate) fn snapshot(&self) -> Option<&Arc<Snapshot>> {
        self.latest.snapshot.as_ref()
    }

    /// The path of this page, without the base path and without its query.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// A value of the query, for fields of forms.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.query
            .iter()
            .find(|(n, _)| n == name)
            .map_or("", |(_, v)| v)
    }
}

pub(crate) fn page(frame: &Frame, title: &str, body: &Markup) -> Markup {
    page_with(frame, title, body, is_live(frame).then_some(EACH))
}

/// A page asks for news each so many seconds.
const EACH: u8 = 15;

/// The same; `live` is how often its middle is brought up to date: not at all is best for long texts that somebody reads.
pub(crate) fn page_with(frame: &Frame, title: &str, body: &Markup, live: Option<u8>) -> Markup {
    let lang = frame.lang;
    html! {
        (DOCTYPE)
        html lang=(lang.say("zh-CN", "en")) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="robots" content="noindex";
                title { (mark(frame)) (title) " · oa" }
                @if frame.standalone {
                    meta http-equiv="Content-Security-Policy" content=(standalone_policy());
                    style { (PreEscaped(assets::STYLE.text)) }
                } @else {
                    link rel="icon" type="image/svg+xml" href=(frame.url(&format!("/assets/{}", if frame.latest.is_stale() { &assets::ICON_LOST.name } else { &assets::ICON.name })))
                        data-lost=(frame.url(&format!("/assets/{}", assets::ICON_LOST.name)));
                    link rel="stylesheet" href=(frame.url(&format!("/assets/{}", assets::STYLE.name)));
                    link rel="manifest" href=(frame.url(&format!("/assets/{}", assets::MANIFEST.name)));
                    meta name="theme-color" content="#0f5c6e";
                    @if !frame.is_bare() { link rel="alternate" type="application/rss+xml" title="oa" href=(frame.url("/api/v1/incidents.rss")); }
                    @if frame.page != Page::Act { script src=(frame.url(&format!("/assets/{}", assets::SCRIPT.name))) defer {} }
                }
            }
            body class=[frame.latest.is_stale().then_some("old")] {
                a.skip href="#content" { (lang.say("跳到正文", "Skip to content")) }
                header.top {
                    div.inner {
                        span.brand { span.logo aria-hidden="true" { "oa" } span { (lang.say("数据安全", "Data safety")) } }
                        @if frame.is_bare() { div.side { (other_language(frame)) } }
                        @else if !frame.standalone { (navigation(frame)) }
                    }
                }
                @if !frame.is_bare() { (stale(frame)) }
                main #content tabindex="-1" data-live[live.is_some()] data-each=(live.unwrap_or(EACH)) data-made=(frame.clock.now.timestamp_millis()) data-zone=(frame.clock.zone.name()) { (body) }
                footer {
                    div.inner {
                        span { (lang.say("时区", "Zone")) " " (frame.clock.zone.name()) }
                        span { "oa-report " (env!("CARGO_PKG_VERSION")) }
                        @if !frame.standalone && !frame.is_bare() {
                            span { a href=(frame.url("/openapi.json")) { "API" } }
                            span { a href=(frame.url("/metrics")) { (lang.say("指标", "Metrics")) } }
                        }
                    }
                }
            }
        }
    }
}

/// A sign in the tab's title: it is seen while another page is read.
fn mark(frame: &Frame) -> &'static str {
    if frame.latest.is_stale() {
        return "? ";
    }
    match frame.snapshot().map(|s| super::problems::worst(s)) {
        Some(Health::Critical) => "✕ ",
        Some(Health::Warning) => "▲ ",
        _ => "",
    }
}

fn is_live(frame: &Frame) -> bool {
    !frame.standalone
        && !matches!(frame.page, Page::Run | Page::LogIn)
        && frame.value("before").is_empty()
}

fn navigation(frame: &Frame) -> Markup {
    let lang = frame.lang;
    let open = frame.snapshot().map_or(0, |s| {
        s.incidents
            .iter()
            .filter(|t| t.acknowledged_by.is_none())
            .count()
    });
    let entries = [
        (Page::Overview, "/admin/", lang.say("总览", "Overview")),
        (Page::Logs, "/admin/logs", lang.say("运行记录", "Runs")),
        (Page::Backups, "/admin/backups", lang.say("备份", "Backups")),
        (Page::Alerts, "/admin/alerts", lang.say("告警", "Alerts")),
    ];
    html! {
        nav aria-label=(lang.say("主导航", "Main")) {
            @for (page, path, name) in entries {
                a href=(frame.url(path)) aria-current=[(page == frame.page).then_some("page")] {
                    (name)
                    @if page == Page::Alerts && open > 0 { span.badge { (open) } }
                }
            }
        }
        div.side {
            span.updated #updated { time class="made" { (frame.clock.now.with_timezone(&frame.clock.zone).format("%H:%M:%S")) } " " (lang.say("更新", "updated")) }
            (other_language(frame))
            @if frame.logged_in {
                form.logout method="post" action=(frame.url("/logout")) { button type="submit" { (lang.say("退出", "Log out")) } }
            }
        }
    }
}

fn other_language(frame: &Frame) -> Markup {
    let lang = frame.lang;
    let other = lang.say("en", "zh");
    html! { a.lang href=(frame.with(&[("lang", Some(other))])) hreflang=(other) lang=(lang.say("en", "zh-CN")) { (lang.say("English", "中文")) } }
}

fn stale(frame: &Frame) -> Markup {
    let lang = frame.lang;
    let Some(outage) = &frame.latest.outage else {
        return html! {};
    };
    html! {
        div.stale role="alert" {
            div.inner {
                (icon("critical"))
                div {
                    @match frame.snapshot() {
                        Some(s) => {
                            strong {
                                (lang.say("数据库无法访问，下面是 ", "PostgreSQL does not answer; this is what was known at "))
                                (frame.clock.time(s.taken_at))
                                (lang.say("（", " (")) (frame.clock.relative(s.taken_at)) (lang.say("）的情况", ")"))
                            }
                        }
                        None => { strong { (lang.say("数据库无法访问", "PostgreSQL does not answer")) } }
                    }
                    p { (outage) }
                }
            }
        }
    }
}

/// A page that could not be made.
pub(crate) fn problem(frame: &Frame, problem: &Answer) -> Markup {
    let lang = frame.lang;
    let status = problem.status.as_u16();
    let detail = serde_json::from_slice::<serde_json::Value>(&problem.body)
        .ok()
        .and_then(|v| v["detail"].as_str().map(str::to_owned));
    let title = match status {
        404 => lang.say("没有找到", "Not found"),
        401 | 403 => lang.say("没有权限", "Not allowed"),
        400 | 409 => lang.say("请求有误", "Not understood"),
        _ => lang.say("暂时无法显示", "Not available now"),
    };
    let body = html! {
        div.head { h1 { (title) } }
        section.card.message {
            @if let Some(detail) = detail { p { (detail) } }
            p { a href=(frame.url("/admin/")) { (lang.say("返回总览", "Back to the overview")) } }
        }
    };
    page(frame, title, &body)
}

/// A sign for a status, told apart by its shape as well.
pub(crate) fn icon(status: &str) -> Markup {
    let shape = match status {
        "healthy" | "success" | "ok" | "recovery" | "sent" => {
            "M8 1.2a6.8 6.8 0 1 0 0 13.6A6.8 6.8 0 0 0 8 1.2Zm3.6 5.2-4.2 4.9a.9.9 0 0 1-1.3.1L4.2 9.6a.9.9 0 1 1 1.2-1.3l1.2 1.1 3.6-4.2a.9.9 0 1 1 1.4 1.2Z"
        }
        "warning" | "partial" => {
            "M6.9 1.9a1.3 1.3 0 0 1 2.2 0l6 10.6a1.3 1.3 0 0 1-1.1 1.9H2a1.3 1.3 0 0 1-1.1-1.9l6-10.6ZM8 5a.9.9 0 0 0-.9 1l.3 3.6a.6.6 0 0 0 1.2 0L8.9 6A.9.9 0 0 0 8 5Zm0 6a1 1 0 1 0 0 2 1 1 0 0 0 0-2Z"
        }
        "critical" | "failed" | "timeout" | "abandoned" | "error" | "problem" => {
            "M5.2 1h5.6L15 5.2v5.6L10.8 15H5.2L1 10.8V5.2L5.2 1Zm.6 3.7a.8.8 0 0 0-1.1 1.1L6.9 8l-2.2 2.2a.8.8 0 1 0 1.1 1.1L8 9.1l2.2 2.2a.8.8 0 0 0 1.1-1.1L9.1 8l2.2-2.2a.8.8 0 1 0-1.1-1.1L8 6.9 5.8 4.7Z"
        }
        "running" | "retrying" => "M8 1.5a6.5 6.5 0 1 0 6.5 6.5H13A5 5 0 1 1 8 3V1.5Z",
        _ => "M8 2a6 6 0 1 0 0 12A6 6 0 0 0 8 2Zm0 1.6a4.4 4.4 0 1 1 0 8.8 4.4 4.4 0 0 1 0-8.8Z",
    };
    html! { svg class={ "icon " (tone(status)) } viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" { path d=(shape) {} } }
}

/// The class of a status's colour.
pub(crate) fn tone(status: &str) -> &'static str {
    match status {
        "healthy" | "success" | "ok" | "recovery" | "sent" => "good",
        "warning" | "partial" => "warn",
        "critical" | "failed" | "timeout" | "abandoned" | "error" | "problem" => "bad",
        "running" | "retrying" => "busy",
        _ => "idle",
    }
}

pub(crate) fn status(lang: Lang, status: &str) -> Markup {
    status_of(lang.status(status), status)
}

/// Words with the sign and the colour of a status.
pub(crate) fn status_of(words: &str, status: &str) -> Markup {
    html! { span class={ "status " (tone(status)) } { (icon(status)) (words) } }
}

/// The only style of a file that stands alone is its own.
fn standalone_policy() -> String {
    use base64::Engine;
    use sha2::{Digest, Sha256};
    let hash = base64::engine::general_purpose::STANDARD
        .encode(Sha256::digest(assets::STYLE.text.as_bytes()));
    format!("default-src 'none'; style-src 'sha256-{hash}'; base-uri 'none'; form-action 'none'")
}
