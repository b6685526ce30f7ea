//! What everybody may see where the configuration says so: how tasks are in one word, and nothing of why.

use std::sync::Arc;

use hyper::header::HeaderName;
use maud::{Markup, html};

use super::feed::xml_text;
use super::layout::{self, Frame, icon, status_of};
use super::overview::{by_site, site};
use super::problems;
use crate::app::App;
use crate::app::answer::Answer;
use crate::app::request::Request;
use crate::lang::Lang;
use crate::queries::backups;
use crate::queries::health::Health;

/// A picture of how a task is, or of everything as `oa.svg`.
pub(crate) async fn badge(app: &Arc<App>, request: &Request, file: &str) -> Result<Answer, Answer> {
    let missing =
        || Answer::missing("there is no such badge; badges = true in [report] makes them public");
    let name = file
        .strip_suffix(".svg")
        .filter(|_| app.config.report.badges);
    let name = name.ok_or_else(missing)?;
    let latest = app.snapshots.latest().await;
    let lang = request.lang;
    let (label, known) = match &latest.snapshot {
        Some(snapshot) => match snapshot.tasks.iter().find(|t| t.name == name) {
            Some(task) => (
                task.title.clone(),
                Some((task.severity, lang.state(task.state))),
            ),
            None if name == "oa" => {
                let worst = problems::worst(snapshot);
                ("oa".to_owned(), Some((worst, lang.health(worst))))
            }
            None => return Err(missing()),
        },
        None => (name.to_owned(), None),
    };
    // What was known before is not how it is.
    let known = known.filter(|_| !latest.is_stale());
    let picture = picture(lang, &label, known);
    Ok(Answer::text("image/svg+xml", picture.into_string()).with(
        HeaderName::from_static("cross-origin-resource-policy"),
        "cross-origin",
    ))
}

/// As wide as its words: a Chinese character is twice as wide as a letter.
fn picture(lang: Lang, label: &str, known: Option<(Health, &'static str)>) -> Markup {
    let label: String = xml_text(label).chars().take(40).collect();
    let (words, colour) = match known {
        Some((Health::Healthy, words)) => (words, "#0a7d6c"),
        Some((Health::Warning, words)) => (words, "#9a5b00"),
        Some((Health::Critical, words)) => (words, "#b9361b"),
        None => (lang.say("状态未知", "unknown"), "#5a6872"),
    };
    let wide = |text: &str| {
        let cells: usize = text
            .chars()
            .map(|c| if (c as u32) < 0x1100 { 7 } else { 12 })
            .sum();
        cells + 14
    };
    let (left, right) = (wide(&label), wide(words));
    html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(left + right) height="20" role="img" aria-label={ (label) ": " (words) } {
            title { (label) ": " (words) }
            rect width=(left) height="20" fill="#37474f" {}
            rect x=(left) width=(right) height="20" fill=(colour) {}
            g fill="#fff" font-family="Verdana,DejaVu Sans,PingFang SC,Microsoft YaHei,sans-serif" font-size="11" {
                text x="7" y="14" { (label) }
                text x=(left + 7) y="14" { (words) }
            }
        }
    }
}

/// The public page; 404 where it is not switched on.
pub(super) fn page(app: &App, frame: &Frame) -> Result<Markup, Answer> {
    if !app.config.report.status_page {
        return Err(Answer::missing(
            "there is no status page; status_page = true in [report] makes one",
        ));
    }
    let lang = frame.lang;
    let Some(snapshot) = frame.snapshot().filter(|_| !frame.latest.is_stale()) else {
        let body = html! {
            section.verdict.idle { (icon("paused")) div.words { h1 #verdict { (lang.say("状态未知", "Not known at present")) } } }
        };
        return Ok(layout::page(frame, lang.say("状态", "Status"), &body));
    };
    let worst = problems::worst(snapshot);
    let title = match worst {
        Health::Healthy => lang.say("一切正常", "Everything is all right"),
        Health::Warning => lang.say("部分数据需要注意", "Some data need attention"),
        Health::Critical => lang.say("部分数据有故障，正在处理", "Some data are faulty"),
    };
    let backups = match snapshot.backups.status {
        backups::State::Ok => ("ok", lang.say("可靠", "reliable")),
        backups::State::Warning => ("warning", lang.say("注意", "warning")),
        backups::State::Error => ("error", lang.say("故障", "faulty")),
    };
    let body = html! {
        section class={ "verdict " (layout::tone(worst.as_str())) } aria-labelledby="verdict" {
            (icon(worst.as_str()))
            div.words { h1 #verdict { (title) } }
        }
        section.card aria-labelledby="sources" {
            h2 #sources { (lang.say("数据", "Data")) }
            ul.public {
                @for task in by_site(snapshot) {
                    li { span { @if task.title == task.name { (site(task, lang).1) " · " } (task.title) } (status_of(lang.health(task.severity), task.severity.as_str())) }
                }
                li { span { (lang.say("备份", "Backups")) } (status_of(backups.1, backups.0)) }
            }
        }
    };
    Ok(layout::page(frame, lang.say("状态", "Status"), &body))
}

#[cfg(test)]
mod tests {
    use oa_core::app::config::Locale;

    use super::*;

    #[test]
    fn a_badge_is_as_wide_as_its_words_and_says_when_nothing_is_known() {
        let zh = Lang(Locale::Zh);
        let known = picture(zh, "多空<全景>", Some((Health::Critical, "失败"))).into_string();
        // Four characters and two signs; two characters.
        assert!(known.contains("width=\"114\""), "{known}");
        assert!(known.contains("多空&lt;全景&gt;") && known.contains("#b9361b"));
        assert!(picture(zh, "x", None).into_string().contains("状态未知"));
    }
}
