//! E-mail over SMTP with TLS: `smtps://user:password@host:465`, or `smtp://…:587?tls=required` (STARTTLS).

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::Error;
use lettre::{Message as Mail, SmtpTransport, Transport};
use oa_core::base::secrets::redact;

use super::{Cause, Channel, SendError, TIMEOUT};
use crate::render::Message;

/// Longer mails are not read.
const LIMIT: usize = 200_000;

pub(super) fn check(channel: &Channel) -> Result<(), String> {
    for address in [&channel.from].into_iter().chain(&channel.to) {
        address
            .parse::<Mailbox>()
            .map_err(|e| format!("\"{address}\" is no mail address: {e}"))?;
    }
    let url = channel.url.expose();
    let after = url.split_once("://").map_or("", |(_, rest)| rest);
    let host = after.split(['/', '?']).next().unwrap_or_default();
    let host = host.rsplit('@').next().unwrap_or_default();
    let is_local = ["127.0.0.1", "localhost", "[::1]"]
        .iter()
        .any(|l| host.split_once(':').map_or(host, |(h, _)| h) == *l);
    if !url.starts_with("smtps://") && !url.contains("tls=required") && !is_local {
        return Err("url must be smtps://… or smtp://…?tls=required: without TLS everybody on the way reads the password".to_owned());
    }
    server(channel).map(|_| ())
}

fn server(channel: &Channel) -> Result<SmtpTransport, String> {
    SmtpTransport::from_url(channel.url.expose())
        .map(|builder| builder.timeout(Some(TIMEOUT)).build())
        .map_err(|e| redact(&format!("url is no mail server's: {e}")))
}

pub(super) fn send(channel: &Channel, message: &Message) -> Result<(), SendError> {
    let wrong = |e: String| SendError::new(redact(&e));
    let form = channel.form(LIMIT, false, false);
    let mut builder = Mail::builder()
        .from(
            channel
                .from
                .parse::<Mailbox>()
                .map_err(|e| wrong(e.to_string()))?,
        )
        .subject(form.title(message))
        .header(ContentType::TEXT_PLAIN);
    for to in &channel.to {
        builder = builder.to(to.parse::<Mailbox>().map_err(|e| wrong(e.to_string()))?);
    }
    let text = form.fit(message);
    let mail = builder.body(text).map_err(|e| wrong(e.to_string()))?;
    server(channel)
        .map_err(wrong)?
        .send(&mail)
        .map(|_| ())
        .map_err(|e| explain(&e))
}

fn explain(error: &Error) -> SendError {
    let said = redact(&error.to_string());
    let (cause, message) = match error.status().map(u16::from) {
        Some(535 | 534 | 530) => (
            Cause::Setup,
            format!("the mail server refused user or password; correct url ({said})"),
        ),
        Some(550..=553) => (
            Cause::Setup,
            format!("the mail server refused sender or recipient; correct from and to ({said})"),
        ),
        Some(554) => (
            Cause::Unclear,
            format!("the mail server does not take this mail ({said})"),
        ),
        Some(_) => (
            Cause::Now,
            format!("the mail server refused ({said}); it will be tried again"),
        ),
        None => (
            Cause::Now,
            format!("no answer from the mail server: {said}; check url and this machine's network"),
        ),
    };
    SendError {
        // An answer that is a refusal is none that was lost.
        unknown: error.status().is_none() && !error.is_client(),
        ..SendError::because(cause, message)
    }
}
