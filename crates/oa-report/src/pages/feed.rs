//! Alerts as RSS 2.0.

use std::sync::Arc;

use maud::{PreEscaped, html};

use crate::app::App;
use crate::app::answer::Answer;
use crate::app::request::Request;
use crate::queries::alerts;

/// So many entries.
const ENTRIES: u16 = 50;

pub(crate) async fn answer(app: &Arc<App>, request: &Request) -> Result<Answer, Answer> {
    let lang = request.lang;
    let wording = lang.wording(app.config.timezone);
    let (alerts, _) = app
        .ask(move |tx| alerts::list(tx, &wording, None, ENTRIES))
        .await?;
    let root = app.config.report.url.as_ref().map_or_else(
        || {
            let scheme = if request.is_https { "https" } else { "http" };
            let host = request.host().unwrap_or("localhost");
            format!("{scheme}://{host}{}", request.base)
        },
        |url| url.trim_end_matches('/').to_owned(),
    );
    let link = |run: Option<uuid::Uuid>| match run {
        Some(run) => format!("{root}/admin/runs/{run}"),
        None => format!("{root}/admin/alerts"),
    };
    let feed = html! {
        (PreEscaped("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"))
        rss version="2.0" {
            channel {
                title { "oa · " (lang.say("告警", "alerts")) }
                link { (root) "/admin/alerts" }
                description { (lang.say("故障与恢复", "incidents and recoveries")) }
                @for a in &alerts {
                    item {
                        title { (xml_text(&a.title)) }
                        link { (link(a.run_id)) }
                        guid isPermaLink="false" { (a.id) }
                        pubDate { (a.created_at.to_rfc2822()) }
                        category { (a.severity) }
                        description { (xml_text(&a.body.replace("**", ""))) }
                    }
                }
            }
        }
    };
    let mut answer = Answer::text("application/rss+xml", feed.into_string());
    answer.cache = crate::app::answer::CachePolicy::Revalidate;
    Ok(answer)
}

/// Without the characters that XML cannot hold: for one of them a reader refuses all of it.
pub(super) fn xml_text(text: &str) -> String {
    let holds = |c: &char| matches!(c, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    text.chars().filter(holds).collect()
}

#[cfg(test)]
mod tests {
    use super::xml_text;

    #[test]
    fn a_control_character_does_not_break_the_feed() {
        assert_eq!(
            xml_text("a\u{0}\u{1}\u{b}\u{1b}[31mb\n\u{ffff}\u{fffe}螺纹钢 \u{1f600}"),
            "a[31mb\n螺纹钢 \u{1f600}"
        );
    }
}
