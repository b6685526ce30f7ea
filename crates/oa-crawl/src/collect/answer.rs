//! One request of a source and its answer.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use chrono::NaiveDate;
use oa_core::base::exact;
use oa_core::base::secrets::{Secret, redact};
use oa_core::base::supervise::{Ended, Launch, readable};
use oa_core::model::retry::ErrorKind;
use serde_json::Value;
use url::Url;

use super::collected::Collected;
use super::context::Context;
use super::output::{Printed, ProgramOutput};
use super::position::Position;
use super::reading::{self, another_day};
use super::{access, cannot_wait};
use crate::answer_day;
use crate::extract::{Extracted, json, room};
use crate::fetch::browser::{self, Browser, Visit};
use crate::fetch::{FetchError, HomeOrigin, Request, Response, Validators, body, check_status};
use crate::program::{PERMANENT, printed_too_much};
use crate::progress;
use crate::source::{BrowserRules, DayNames, FetchKind, Place, Source, fill, query_secret};
use crate::validate::CollectionTime;

#[derive(Debug, Clone)]
pub(crate) struct Placeholders {
    days: DayNames,
    known: Vec<(String, String)>,
    part: Option<String>,
}

impl Placeholders {
    pub(crate) fn new(context: &Context) -> Self {
        Self {
            days: context.days,
            known: Vec::new(),
            part: None,
        }
    }

    /// Also `{name}`, of `[each]`.
    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        self.known.push((name.to_owned(), value.to_owned()));
        self.part = Some(value.to_owned());
        self
    }

    pub(crate) fn fill(&self, text: &str) -> String {
        fill(text, |name, form| {
            let own = self.known.iter().find(|(known, _)| known == name);
            match own {
                Some((_, value)) if form.is_none() => Some(value.clone()),
                _ => self.days.text(name, form),
            }
        })
    }

    /// All texts of a JSON value.
    fn fill_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.fill(text)),
            Value::Array(all) => all.iter().map(|v| self.fill_json(v)).collect(),
            Value::Object(fields) => {
                let filled = fields.iter().map(|(k, v)| (k.clone(), self.fill_json(v)));
                Value::Object(filled.collect())
            }
            other => other.clone(),
        }
    }
}

/// A page could do more than it should to a browser without its sandbox.
const WITHOUT_SANDBOX: &str =
    "Chromium ran without its sandbox, because oa-crawl runs as root; run it as a user of its own";

/// Makes one request, keeps the answer in the archive, and extracts its records.
pub(super) fn ask(
    context: &Context,
    placeholders: &Placeholders,
    page: Option<&Position<'_>>,
    collected: &mut Collected,
) -> Result<Extracted, FetchError> {
    match ask_once(context, placeholders, page, collected) {
        // The session has ended, in the middle of the pages perhaps; many sites then show a page where data were due.
        Err(e)
            if matches!(e.error.kind, ErrorKind::Auth | ErrorKind::Blocked)
                && access::forget(context) =>
        {
            ask_once(context, placeholders, page, collected)
        }
        answer => answer,
    }
}

fn ask_once(
    context: &Context,
    placeholders: &Placeholders,
    page: Option<&Position<'_>>,
    collected: &mut Collected,
) -> Result<Extracted, FetchError> {
    let task = &context.source.name;
    let (pages, records) = (collected.pages, collected.records.len());
    progress::say(task, format!("{pages} page(s), {records} records"));
    let (request_line, response) = fetch(context, placeholders, page)?;
    collected.note(&response.findings);
    archive(
        context,
        &request_line,
        placeholders.part.as_deref(),
        &response,
    );
    check_status(&request_line, &response)?;
    let rules = &context.source.answer;
    if let Some(said) = answer_day::other_in_headers(rules, &response, context.date) {
        return Err(another_day(context.date, &said, &request_line));
    }
    let extracted = extract(&context.source, context.date, &request_line, &response);
    // Many sites show a page where a file is not there yet, with the status 200.
    let extracted = extracted.map_err(|e| FetchError {
        not_there: e.not_there || e.error.kind == ErrorKind::Blocked,
        ..e
    })?;
    collected.pages += 1;
    if context.source.fetch.kind == FetchKind::Browser && browser::without_sandbox() {
        collected.note(&[WITHOUT_SANDBOX.to_owned()]);
    }
    collected.note(&extracted.findings);
    Ok(extracted)
}

/// Makes one request. The first value is its request line: method and address, or the command.
pub(crate) fn fetch(
    context: &Context,
    placeholders: &Placeholders,
    page: Option<&Position<'_>>,
) -> Result<(String, Response), FetchError> {
    match context.source.fetch.kind {
        FetchKind::Http => {
            let mut request = request(context, placeholders, page)?;
            let request_line = format!("{} {}", request.method(), request.display());
            let known = known(context, &request_line);
            if let Some((state, _)) = &known {
                request.validators = state.clone();
            }
            let mut response = context.client.send(&request, context.until.get())?;
            if let (304, Some((state, body))) = (response.status, known) {
                response.body = body;
                response.state = state;
            }
            Ok((request_line, response))
        }
        FetchKind::Browser => visit(context, placeholders),
        FetchKind::Command => {
            let (request_line, printed) = print(context, placeholders)?;
            let response = Response {
                body: printed.body().map_err(|e| cannot_wait(&e))?,
                ..printed_response(&request_line)
            };
            Ok((request_line, response))
        }
    }
}

/// Runs the source's program, keeps its output in the archive, and takes its records.
pub(super) fn run(
    context: &Context,
    placeholders: &Placeholders,
    collected: &mut Collected,
) -> Result<(), FetchError> {
    let (request_line, printed) = print(context, placeholders)?;
    if let Some(archive) = &context.archive {
        let part = placeholders.part.as_deref();
        let response = printed_response(&request_line);
        archive.keep_packed(
            context.attempt,
            &request_line,
            part,
            &response,
            &printed.packed,
        );
    }
    collected.pages += 1;
    collected.note(printed.finding.as_slice());
    collected.validated = printed.validated;
    collected.records = printed.records.map_err(|what| {
        FetchError::new(
            ErrorKind::Shape,
            format!("the output has {what}: {request_line}"),
        )
    })?;
    Ok(())
}

/// Whether the records that its program prints are those of which rows are made, whenever that is done.
fn makes_rows_at_once(source: &Source) -> bool {
    let mut fixed = source.fields.iter().filter_map(|f| f.value.as_deref());
    source.each.is_none()
        && source.keep.is_empty()
        && source.exclude.is_empty()
        && source.image.is_none()
        && !fixed.any(|text| text.contains("{minute"))
}

fn printed_response(request_line: &str) -> Response {
    Response {
        status: 200,
        content_type: Some("application/x-ndjson".to_owned()),
        final_url: request_line.to_owned(),
        ..Response::default()
    }
}

/// The previous answer with its validators, for sources that ask only for what has changed.
fn known(context: &Context, request_line: &str) -> Option<(Validators, Vec<u8>)> {
    let archive = context.archive.as_ref()?;
    let fetch = &context.source.fetch;
    let conditional = fetch.conditional && fetch.form.is_empty() && fetch.json.is_none();
    conditional.then(|| archive.last_answer(request_line))?
}

/// Visits with Chromium, which is started for the first visit of an attempt and ends with it.
fn visit(context: &Context, placeholders: &Placeholders) -> Result<(String, Response), FetchError> {
    let source = &context.source;
    let request = request(context, placeholders, None)?;
    let Some(rules) = &source.browser else {
        return Err(FetchError::new(ErrorKind::Internal, "[browser] is absent"));
    };
    let mut slot = context
        .browser
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let browser = match &mut *slot {
        Some(running) => running,
        empty => {
            let options = browser::LaunchOptions {
                folder: context.folders.browser.clone(),
                failures: context.folders.failures.clone(),
                provider: source.provider.clone(),
                task: source.name.clone(),
                max_body: context.max_body,
                home: HomeOrigin::of(&source.fetch.base).allowing(&source.fetch.redirects),
                roots: context.client.roots(),
            };
            empty.insert(Browser::start(&options, context.until.get())?)
        }
    };
    let url = request.with_query();
    let rules = filled(rules, placeholders);
    let visit = Visit {
        url: url.clone(),
        base: source.fetch.base.clone(),
        rules: &rules,
        secrets: &context.secrets,
        deadline: context.until.get(),
    };
    Ok((format!("GET {url}"), browser.visit(&visit)?))
}

/// The steps, with their placeholders filled in.
fn filled(rules: &BrowserRules, placeholders: &Placeholders) -> BrowserRules {
    let mut rules = rules.clone();
    for step in &mut rules.steps {
        let texts = [
            &mut step.goto,
            &mut step.value,
            &mut step.click,
            &mut step.wait_for,
            &mut step.wait_for_url,
            &mut step.take_response,
        ];
        for text in texts.into_iter().flatten() {
            *text = placeholders.fill(text);
        }
    }
    rules
}

/// Keeps an answer before it is read. What the disk does not take is read all the same, and the run says so.
pub(super) fn archive(
    context: &Context,
    request_line: &str,
    part: Option<&str>,
    response: &Response,
) {
    let Some(archive) = &context.archive else {
        return;
    };
    let url = request_line.strip_prefix("GET ").unwrap_or(request_line);
    let conditional = context.source.fetch.conditional;
    let Some(sha256) = archive.keep(context.attempt, url, part, response) else {
        return;
    };
    if response.status == 200
        && conditional
        && !response.state.is_empty()
        && let Err(e) = archive.remember(request_line, &response.state, &sha256)
    {
        tracing::warn!("the next request will ask for all of {url}: {e}");
    }
}

/// Takes the records out of an answer to `request_line` (method and address), which is of `date` as far as it says a day itself.
pub(crate) fn extract(
    source: &Source,
    date: NaiveDate,
    request_line: &str,
    response: &Response,
) -> Result<Extracted, FetchError> {
    let rules = &source.answer;
    let fits = |body: &[u8]| {
        room::check(body).map_err(|(kind, what)| {
            FetchError::new(kind, format!("the answer has {what}: {request_line}"))
        })
    };
    if source.fetch.kind == FetchKind::Command {
        fits(&response.body)?;
        return json::lines(&response.body).map_err(|what| {
            FetchError::new(
                ErrorKind::Shape,
                format!("the output has {what}: {request_line}"),
            )
        });
    }
    let unpacked = reading::unpack(rules, date, response).map_err(|(kind, what)| {
        FetchError::new(kind, format!("the answer is {what}: {request_line}"))
    })?;
    // Workbooks have limits of their own.
    if rules.sheet.is_none() {
        fits(&unpacked.body)?;
    }
    // With both, the page is what was taken because no answer came (`or_html_after`).
    let page = |type_: &String| type_.starts_with("text/html");
    let is_page = response.content_type.as_ref().is_some_and(page);
    let is_json = rules.records.is_some() || !rules.lists.is_empty();
    if !is_json || (rules.table.is_some() && is_page) {
        return reading::read(rules, date, request_line, &unpacked);
    }
    let (answer, findings) = body::json(request_line, &unpacked, rules)?;
    let next = source.paging.as_ref().and_then(|p| p.next.as_deref());
    let next = next.and_then(|pointer| json::next(&answer, pointer));
    let mut extracted = read(source, date, request_line, answer)?;
    let next = next.or_else(|| response.next_link.clone());
    let is_address = source.paging.as_ref().is_some_and(|p| p.cursor.is_none());
    // Relative to the page that it stands on.
    let whole = |next: String| match Url::parse(&response.final_url).and_then(|u| u.join(&next)) {
        Ok(url) if is_address => url.into(),
        _ => next,
    };
    extracted.next = next.map(whole);
    extracted.findings.splice(0..0, findings);
    Ok(extracted)
}

/// Runs the source's program. It finds task, day and attempt in its environment (`OA_TASK`, `OA_DATE`, `OA_ATTEMPT`).
fn print(context: &Context, placeholders: &Placeholders) -> Result<(String, Printed), FetchError> {
    let source = &context.source;
    let name = source.fetch.command.first().cloned().unwrap_or_default();
    let mut command = Command::new(&name);
    command
        .args(
            source
                .fetch
                .command
                .iter()
                .skip(1)
                .map(|a| placeholders.fill(a)),
        )
        .env("OA_TASK", &source.name)
        .env("OA_DATE", context.date.to_string())
        .env("OA_ATTEMPT", context.attempt.to_string());
    let fail = |kind, what: String| FetchError::new(kind, redact(&format!("{name} {what}")));
    let left = context
        .until
        .get()
        .saturating_duration_since(Instant::now());
    context.programs.environment.give_to(&mut command);
    let time = CollectionTime::now(context.date);
    let rows = makes_rows_at_once(source).then(|| (source.clone(), time));
    let output = ProgramOutput::new(&source.name, rows);
    let output = output.map_err(|e| cannot_wait(&e))?;
    let output = Arc::new(Mutex::new(output));
    let launch = Launch {
        lines: Some(output.clone()),
        most: Some(context.max_body),
        owner: context.programs.owner.as_ref(),
        ..Launch::new(left)
    };
    let done = launch
        .run(&mut command)
        .map_err(|e| fail(ErrorKind::Internal, format!("could not be started: {e}")))?;
    if !done.still_there.is_empty() {
        let left = done.still_there.join(", ");
        return Err(fail(
            ErrorKind::Internal,
            format!("has started {left}, which could not be ended"),
        ));
    }
    let said = readable(&done.stderr);
    let last = said.lines().rev().find(|l| !l.trim().is_empty());
    let last = last.map_or_else(String::new, |l| format!(": {}", l.trim()));
    match done.ended {
        Some(Ended::TimedOut) => {
            return Err(fail(
                ErrorKind::Timeout,
                format!("did not end within its time limit{last}"),
            ));
        }
        Some(Ended::Stopped) => {
            return Err(fail(
                ErrorKind::Internal,
                "was ended because oa-crawl was asked to stop".to_owned(),
            ));
        }
        Some(Ended::PrintedTooMuch(stream)) => {
            let what = printed_too_much(stream, context.max_body);
            return Err(fail(ErrorKind::Shape, what));
        }
        None if !done.status.success() => {
            let kind = match done.status.code() {
                Some(code) if PERMANENT.contains(&code) => ErrorKind::Internal,
                _ => ErrorKind::Network,
            };
            return Err(fail(kind, format!("ended with {}{last}", done.status)));
        }
        None => {}
    }
    let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
    let printed = output.finish().map_err(|e| cannot_wait(&e))?;
    Ok((format!("command {name}"), printed))
}

fn request(
    context: &Context,
    placeholders: &Placeholders,
    page: Option<&Position<'_>>,
) -> Result<Request, FetchError> {
    let fetch = &context.source.fetch;
    let filled = |pairs: &BTreeMap<String, String>| -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(k, v)| (k.clone(), placeholders.fill(v)))
            .collect()
    };
    let mut request = Request {
        url: format!(
            "{}{}",
            fetch.base.trim_end_matches('/'),
            placeholders.fill(&fetch.path)
        ),
        query: filled(&fetch.query),
        unlisted_query: secret_query(context)?,
        form: filled(&fetch.form),
        json: None,
        headers: filled(&fetch.headers),
        pause: fetch.pause.map_or(Duration::ZERO, |s| s.0),
        validators: Validators::default(),
        secret_headers: secret_headers(context)?,
    };
    let mut json = fetch.json.as_ref().map(|json| placeholders.fill_json(json));
    if let Some(position) = page {
        match position.address(&request.with_query(), &fetch.base)? {
            Some(next) => {
                request.url = next;
                request.query.clear();
            }
            None => match (position.place(), &mut json) {
                (Place::Query, _) => request.query.extend(position.texts()),
                (Place::Body, Some(Value::Object(fields))) => fields.extend(position.values()),
                (Place::Body, _) => request.form.extend(position.texts()),
            },
        }
    }
    request.json = json.map(|json| json.to_string());
    access::sign(context, &mut request)?;
    Ok(request)
}

/// Parameters whose values are secrets.
fn secret_query(context: &Context) -> Result<Vec<(String, String)>, FetchError> {
    let named = context.source.fetch.secret_query.keys();
    let pair = |name: &String| {
        let of_name = query_secret(name);
        let secret = context.secrets.iter().find(|(n, _)| *n == of_name);
        let (_, secret) = secret.ok_or_else(|| {
            let what = format!("the secret of parameter {name} was not resolved");
            FetchError::new(ErrorKind::Internal, what)
        })?;
        Ok((name.clone(), secret.expose().to_owned()))
    };
    named.map(pair).collect()
}

/// Those of the file, and those of the session.
fn secret_headers(context: &Context) -> Result<Vec<(String, Secret)>, FetchError> {
    let session = access::headers(context)?;
    let named = &context.source.fetch.secret_headers;
    let own = context
        .secrets
        .iter()
        .filter(|(n, _)| named.contains_key(n));
    Ok(own.cloned().chain(session).collect())
}

/// Extracts records and total from an answer.
fn read(
    source: &Source,
    date: NaiveDate,
    url: &str,
    mut answer: Value,
) -> Result<Extracted, FetchError> {
    let rules = &source.answer;
    let shape =
        |what: String| FetchError::new(ErrorKind::Shape, format!("the answer has {what}: {url}"));
    match json::is_ok(rules, &answer) {
        Some(true) => {}
        Some(false) => return Err(refused(source, url, &answer)),
        None => {
            let ok = rules.ok.as_deref().unwrap_or_default();
            return Err(shape(match answer.pointer(ok) {
                None => format!("no {ok}"),
                Some(_) => format!(
                    "neither true nor false at {ok}; say by equals in [answer] what it is when all is well"
                ),
            }));
        }
    }
    if let Some(said) = answer_day::other_in_json(rules, &answer, date) {
        return Err(another_day(date, &said, url));
    }
    json::take(rules, &mut answer).map_err(shape)
}

fn refused(source: &Source, url: &str, answer: &Value) -> FetchError {
    let said = source
        .answer
        .error
        .as_ref()
        .and_then(|p| answer.pointer(p))
        .and_then(exact::text)
        .unwrap_or("no reason given");
    let lower = said.to_lowercase();
    let login = source
        .answer
        .auth_words
        .iter()
        .any(|w| lower.contains(&w.to_lowercase()));
    let kind = if login {
        ErrorKind::Auth
    } else {
        ErrorKind::Blocked
    };
    FetchError::new(kind, format!("the site refused ({said}): {url}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;
    use serde_json::json;

    fn read_it(answer: Value) -> Result<Extracted, FetchError> {
        let source = parse("x", include_str!("../../sources/zhihui-reports.toml")).unwrap();
        read(&source, NaiveDate::default(), "http://x", answer)
    }

    fn kind(answer: Value) -> ErrorKind {
        read_it(answer).err().unwrap().error.kind
    }

    #[test]
    fn an_answer_is_taken_apart_and_its_refusals_are_understood() {
        let page =
            read_it(json!({"success": true, "result": {"records": [{"id": 1}], "total": 1}}))
                .ok()
                .unwrap();
        assert_eq!((page.records.len(), page.total), (1, Some(1)));
        assert_eq!(
            kind(json!({"success": false, "errDesc": "登录已过期，请重新登录"})),
            ErrorKind::Auth
        );
        assert_eq!(
            kind(json!({"success": false, "errDesc": "Token expired"})),
            ErrorKind::Auth
        );
        assert_eq!(
            kind(json!({"success": false, "errDesc": "系统繁忙"})),
            ErrorKind::Blocked
        );
        assert_eq!(kind(json!({"result": []})), ErrorKind::Shape);
        let said = read_it(json!({"success": 1, "result": []})).err().unwrap();
        assert!(
            said.error
                .message
                .contains("neither true nor false at /success")
        );
        assert_eq!(
            kind(json!({"success": true, "result": {"records": [], "total": "viel"}})),
            ErrorKind::Shape
        );
        assert_eq!(
            kind(json!({"success": true, "result": {"list": [], "total": 1}})),
            ErrorKind::Shape
        );
    }
}
