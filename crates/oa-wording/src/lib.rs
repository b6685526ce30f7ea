//! What events say to people, in Chinese and in English: one catalogue a language (`zh`, `en`), used where alerts are sent
//! (`oa-alert`) and where they are shown (`oa-report`). Nothing below the programs' edge knows a sentence for people.

mod en;
mod zh;

use std::time::Duration;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use oa_core::app::config::Locale;
use oa_core::base::secrets::redact;
use oa_core::base::text::printable;
use oa_core::base::units::Bytes;
use oa_core::model::event::{Event, Finding, Lost, Work};
use oa_core::model::retry::ErrorKind;
use oa_core::model::run::Status;
use uuid::Uuid;

/// Characters of an error in an alert.
pub const LONGEST_EXCERPT: usize = 300;
/// Most alerts that are named in one.
const NAMED: usize = 10;

/// In which language and zone something is worded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wording {
    /// The language.
    pub locale: Locale,
    /// The zone of the times.
    pub timezone: Tz,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// One line, with what it is in front: `【故障】`, `[RECOVERED]`.
    pub title: String,
    /// Markdown in the small subset that every robot understands: lines, `**bold**`, `- ` lists. Begins with the title.
    pub body: String,
}

/// A language's text of an event: the title without what is in front, and the lines.
struct Draft {
    title: String,
    lines: Vec<String>,
}

impl Wording {
    /// What an event says in this language.
    #[must_use]
    pub fn text(&self, event: &Event) -> Text {
        if let Event::Message { title, body } = event {
            return Text {
                title: title.clone(),
                body: body.clone(),
            };
        }
        let draft = match self.locale {
            Locale::Zh => zh::draft(event, self),
            Locale::En => en::draft(event, self),
        };
        let title = match self.locale {
            Locale::Zh => zh::prefixed(event, &draft.title),
            Locale::En => en::prefixed(event, &draft.title),
        };
        let title = printable(&redact(&title));
        let lines: Vec<String> = draft.lines.iter().map(|l| format!("- {l}\n")).collect();
        let body = printable(&redact(&format!("**{title}**\n\n{}", lines.concat())));
        Text { title, body }
    }

    /// A point in time as people of this zone read it.
    #[must_use]
    pub fn at(&self, at: DateTime<Utc>) -> String {
        let local = at.with_timezone(&self.timezone);
        local.format("%Y-%m-%d %H:%M:%S").to_string()
    }

    /// The day of a point in time.
    fn day(&self, at: DateTime<Utc>) -> NaiveDate {
        at.with_timezone(&self.timezone).date_naive()
    }

    /// A span as people say it: two units at most.
    fn span(&self, seconds: u64) -> String {
        human_duration(Duration::from_secs(seconds), self.locale)
    }

    fn between(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> String {
        human_duration((to - from).to_std().unwrap_or_default(), self.locale)
    }

    /// The titles of alerts that a channel has not got.
    fn titles(&self, lost: &Lost) -> String {
        let named = lost.first.iter().take(NAMED);
        let titles: Vec<String> = named
            .map(|event| format!("\n  - {}", self.text(event).title))
            .collect();
        let more = if lost.count > titles.len() {
            "\n  - …"
        } else {
            ""
        };
        format!("{}{more}", titles.concat())
    }
}

fn name<'a>(task: &'a str, title: &'a str) -> &'a str {
    if title.is_empty() { task } else { title }
}

/// Days, of many the first and the last ones.
fn day_list(days: &[NaiveDate]) -> String {
    const SHOWN: usize = 10;
    let texts: Vec<String> = days.iter().map(NaiveDate::to_string).collect();
    match texts.len() {
        0..=SHOWN => texts.join(", "),
        n => format!(
            "{}, …, {} ({n})",
            texts[..SHOWN - 2].join(", "),
            texts[n - 1]
        ),
    }
}

fn bytes(count: u64) -> Bytes {
    Bytes(count)
}

/// The title of what was found, without what is in front.
fn found_title(of: &Event, wording: &Wording) -> String {
    match of {
        Event::Message { title, .. } => {
            let marks = ["【故障】", "【警告】", "[FAILURE] ", "[WARNING] "];
            let strip = |text, mark| str::strip_prefix(text, mark).unwrap_or(text);
            marks
                .iter()
                .fold(title.as_str(), |t, mark| strip(t, *mark))
                .to_owned()
        }
        event => match wording.locale {
            Locale::Zh => zh::draft(event, wording).title,
            Locale::En => en::draft(event, wording).title,
        },
    }
}

/// Why a run is no success, in the words of an alert; `None` for anything else. What has the same cause may be named together.
#[must_use]
pub fn cause(event: &Event, locale: Locale) -> Option<&'static str> {
    match (event, locale) {
        (Event::RunFailed(run), Locale::Zh) => Some(zh::cause(run)),
        (Event::RunFailed(run), Locale::En) => Some(en::cause(run)),
        _ => None,
    }
}

/// Why a run is no success, and what to do, as an alert of it says.
#[must_use]
pub fn explanation(
    work: Work,
    status: Status,
    kind: ErrorKind,
    (task, run): (&str, Uuid),
    locale: Locale,
) -> (&'static str, String) {
    let (cause, remedy) = match locale {
        Locale::Zh => zh::why(work, status, kind),
        Locale::En => en::why(work, status, kind),
    };
    (cause, with_names(remedy, task, run))
}

/// A remedy with the task and the run that it is about.
fn with_names(remedy: &str, task: &str, run: Uuid) -> String {
    remedy
        .replace("{task}", task)
        .replace("{run}", &run.to_string())
}

/// The title and lines of what `oa-alert check` finds, for its own output.
#[must_use]
pub fn finding(finding: &Finding, wording: &Wording) -> (String, Vec<String>) {
    let event = Event::Found(finding.clone());
    let draft = match wording.locale {
        Locale::Zh => zh::draft(&event, wording),
        Locale::En => en::draft(&event, wording),
    };
    (draft.title, draft.lines)
}

/// A finding in one sentence: what it is, what is known of it, and what to do.
#[must_use]
pub fn sentence(of: &Finding, wording: &Wording) -> String {
    let (title, lines) = finding(of, wording);
    let (colon, open, close, remedy) = match wording.locale {
        Locale::Zh => ("：", "（", "）", "处理："),
        Locale::En => (": ", " (", ")", "What to do: "),
    };
    let known = lines
        .first()
        .map_or_else(String::new, |line| format!("{colon}{line}"));
    let remedy = lines
        .iter()
        .find_map(|line| line.strip_prefix(remedy))
        .map_or_else(String::new, |remedy| format!("{open}{remedy}{close}"));
    format!("{title}{known}{remedy}")
}

/// What others wrote (a site's error, a robot's answer) as one line of an alert. Long texts belong into the log; a phone shows the
/// beginning. Nothing in it is a mention or a link: robots read `<at id=all>`, `<@name>` and `[text](address)` as such.
#[must_use]
pub fn excerpt(text: &str, longest: usize) -> String {
    let text = printable(text);
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let line = line.replace('<', "＜").replace("](", "］(");
    if line.chars().count() <= longest {
        return line;
    }
    line.chars().take(longest).chain("…".chars()).collect()
}

fn quoted(error: &str) -> String {
    excerpt(&redact(error), LONGEST_EXCERPT)
}

/// A backup's id as every list shows it, and every command takes it.
fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// A duration as people say it: two units at most.
#[must_use]
pub fn human_duration(duration: Duration, locale: Locale) -> String {
    oa_core::app::output::human_duration(duration, locale)
}

#[cfg(test)]
mod tests;
