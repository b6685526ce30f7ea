//! E-mail over SMTP with TLS: `smtps://user:password@host:465`, or `smtp://…:587?tls=required` (STARTTLS).

use std::error::Error as _;
use std::io;

use lettre::address::Envelope;
use lettre::message::{Mailbox, MultiPart};
use lettre::transport::smtp::Error;
use lettre::{Message as Mail, SmtpTransport, Transport};
use oa_core::base::secrets::redact;
use oa_core::model::event::Kind;
use uuid::Uuid;

use super::{Cause, Channel, SendError, TIMEOUT, no_connection};
use crate::render::{Facts, Message};

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
    let from = channel
        .from
        .parse::<Mailbox>()
        .map_err(|e| wrong(e.to_string()))?;
    let to: Result<Vec<Mailbox>, _> = channel.to.iter().map(|t| t.parse()).collect();
    let to = to.map_err(|e: lettre::address::AddressError| wrong(e.to_string()))?;
    let mut builder = Mail::builder().subject(form.title(message));
    let domain = from.email.domain().to_owned();
    let id = message.facts.as_ref().map_or_else(Uuid::now_v7, |f| f.id);
    // A repeat has the id of the first: mail programs show it once. What belongs to one incident answers one mail, which makes a thread.
    builder = builder.message_id(Some(format!("<{id}@{domain}>")));
    if let Some(thread) = message.facts.as_ref().and_then(|f| thread(f, &domain)) {
        builder = builder.in_reply_to(thread.clone()).references(thread);
    }
    for to in &to {
        builder = builder.to(to.clone());
    }
    let text = form.fit(message);
    let html = html(&channel.form(LIMIT, false, true).fit(message));
    let mail = builder
        .from(from.clone())
        .multipart(MultiPart::alternative_plain_html(text, html))
        .map_err(|e| wrong(e.to_string()))?;
    let server = server(channel).map_err(wrong)?;
    match server.send(&mail) {
        Ok(_) => Ok(()),
        // The server does not take one of them: each by himself, so that he keeps it from nobody else.
        Err(e) if to.len() > 1 && refuses_somebody(&e) => {
            one_by_one(&server, &mail, &from, &to, &channel.name)
        }
        Err(e) => Err(explain(&e)),
    }
}

/// The same for mail programs that show it: the small subset of Markdown that our texts have, and nothing of it that a site could have put in.
fn html(markdown: &str) -> String {
    let mut body = String::new();
    let mut in_list = false;
    for line in markdown.lines() {
        let item = line.strip_prefix("- ");
        if item.is_some() != in_list {
            body.push_str(if in_list { "</ul>\n" } else { "<ul>\n" });
            in_list = !in_list;
        }
        let text = inline(item.unwrap_or(line));
        match item {
            Some(_) => body.push_str(&format!("<li>{text}</li>\n")),
            None if line.trim().is_empty() => {}
            None => body.push_str(&format!("<p>{text}</p>\n")),
        }
    }
    if in_list {
        body.push_str("</ul>\n");
    }
    format!(
        "<!DOCTYPE html><html><head><meta charset=\"utf-8\"></head><body>\n{body}</body></html>\n"
    )
}

/// `**bold**` and `[text](address)`.
fn inline(text: &str) -> String {
    let escaped = text
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;");
    let mut shown = String::new();
    for (n, part) in escaped.split("**").enumerate() {
        match n % 2 {
            1 => shown.push_str(&format!("<strong>{part}</strong>")),
            _ => shown.push_str(part),
        }
    }
    let mut linked = String::new();
    let mut rest = shown.as_str();
    while let Some((before, after)) = rest.split_once('[') {
        let link = after.split_once("](").and_then(|(word, after)| {
            let (url, after) = after.split_once(')')?;
            let web = url.starts_with("https://") || url.starts_with("http://");
            (web && !word.contains('[')).then_some((word, url, after))
        });
        linked.push_str(before);
        rest = match link {
            Some((word, url, after)) => {
                linked.push_str(&format!("<a href=\"{url}\">{word}</a>"));
                after
            }
            None => {
                linked.push('[');
                after
            }
        };
    }
    linked + rest
}

/// The mail that all mails of one incident answer. There is no such mail; mail programs need none.
fn thread(facts: &Facts, domain: &str) -> Option<String> {
    use sha2::{Digest, Sha256};
    let since = facts.since.filter(|_| facts.kind != Kind::Message)?;
    let of = format!("{} {}", facts.fingerprint, since.timestamp_millis());
    let hash = Sha256::digest(of);
    let name: String = hash
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Some(format!("<incident-{name}@{domain}>"))
}

fn refuses_somebody(error: &Error) -> bool {
    matches!(error.status().map(u16::from), Some(450..=452 | 550..=553))
}

/// Sent when one of them has it: a mail that comes again for all because of one would come all day.
fn one_by_one(
    server: &SmtpTransport,
    mail: &Mail,
    from: &Mailbox,
    to: &[Mailbox],
    channel: &str,
) -> Result<(), SendError> {
    let (mut taken, mut last) = (false, None);
    for one in to {
        let sent = Envelope::new(Some(from.email.clone()), vec![one.email.clone()])
            .map_err(|e| SendError::new(redact(&e.to_string())))
            .and_then(|envelope| {
                server
                    .send_raw(&envelope, &mail.formatted())
                    .map_err(|e| explain(&e))
            });
        match sent {
            Ok(_) => taken = true,
            Err(e) => {
                tracing::error!(
                    "channel {channel}: {} does not get this mail: {e}",
                    redact(one.email.as_ref())
                );
                last = Some(e);
            }
        }
    }
    match last {
        Some(refused) if !taken => Err(refused),
        _ => Ok(()),
    }
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
        unknown: error.status().is_none() && !error.is_client() && !was_never_sent(error),
        ..SendError::because(cause, message)
    }
}

/// Whether there was no connection, so that the server certainly has not got the mail. What takes too long is `TimedOut` while connecting
/// and `WouldBlock` while reading.
fn was_never_sent(error: &Error) -> bool {
    let mut source = error.source();
    while let Some(within) = source {
        if let Some(e) = within.downcast_ref::<io::Error>() {
            return no_connection(e) || e.kind() == io::ErrorKind::TimedOut;
        }
        source = within.source();
    }
    error.is_tls()
}

#[cfg(test)]
mod tests {
    use super::html;

    #[test]
    fn a_mail_shows_what_the_text_means_and_nothing_that_a_site_put_in() {
        let shown = html(
            "**标题 <b>**\n\n- 原因：[x](javascript:alert(1)) & \"y\"\n- 二\n[认领](https://oa.example.com/act/A) | 尾\n",
        );
        assert!(
            shown.contains("<p><strong>标题 &lt;b&gt;</strong></p>"),
            "{shown}"
        );
        assert!(shown.contains("<ul>\n<li>原因：[x](javascript:alert(1)) &amp; &quot;y&quot;</li>\n<li>二</li>\n</ul>"), "{shown}");
        assert!(
            shown.contains("<p><a href=\"https://oa.example.com/act/A\">认领</a> | 尾</p>"),
            "{shown}"
        );
    }
}
