//! Messages as the channels take them: cut to size in a readable way, several in one when many wait, and with a link to the page.

mod digest;

use std::borrow::Cow;

use chrono::{DateTime, Utc};

use oa_core::app::config::Locale;
use oa_core::model::Severity;
use oa_core::model::event::Kind;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub(crate) use digest::{Digest, digest};

/// What a message is about, for programs and for digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The alert.
    pub(crate) id: Uuid,
    /// What belongs to one incident.
    pub(crate) fingerprint: String,
    /// What it does to its incident.
    pub(crate) kind: Kind,
    /// How bad the incident is, also when this says that it is over.
    pub(crate) severity: Severity,
    /// What it says in a line, whether for the first time or again.
    pub(crate) what: String,
    /// The rule that found it.
    pub(crate) rule: String,
    /// The task it is about.
    pub(crate) task: Option<String>,
    /// The run that caused it.
    pub(crate) run: Option<Uuid>,
    /// The machine.
    pub(crate) host: Option<String>,
    /// When it was found.
    pub(crate) at: DateTime<Utc>,
    /// Since when the incident is open.
    pub(crate) since: Option<DateTime<Utc>>,
    /// What it is about, in a word, and why: what has one cause may be named together.
    pub(crate) cause: Option<(String, &'static str)>,
}

/// What can be done about an incident from its message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Action {
    /// The name under which it is stored ([`oa_core::base::links::LinkAction`]).
    pub(crate) what: String,
    /// What a person reads.
    pub(crate) word: String,
    /// The signed link: whoever has it may do it, once.
    pub(crate) signed: String,
    /// The address that does it, where there is a page.
    pub(crate) url: Option<String>,
}

/// A message for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// One line.
    pub(crate) title: String,
    /// Markdown: lines, `**bold**`, `- ` lists. Begins with the title.
    pub(crate) body: String,
    /// Decides the colour.
    pub(crate) severity: Severity,
    /// It is the news that something is over.
    pub(crate) recovery: bool,
    /// Where the page shows more of it.
    pub(crate) link: Option<String>,
    /// What can be done about it.
    pub(crate) actions: Vec<Action>,
    /// What it is about; `None` of one that is no alert.
    pub(crate) facts: Option<Facts>,
    /// It stands for several.
    pub(crate) digest: Option<Digest>,
}

impl Message {
    /// Whether it is about one incident that is open, so that it can be changed when that is over.
    pub(crate) fn opens_incident(&self) -> bool {
        let opens = self.facts.as_ref().is_some_and(|f| f.kind == Kind::Problem);
        opens && self.digest.is_none()
    }

    /// What can be done by opening an address: a word, and the address.
    pub(crate) fn links(&self) -> impl Iterator<Item = (&str, &str)> {
        self.actions
            .iter()
            .filter_map(|a| Some((a.word.as_str(), a.url.as_deref()?)))
    }
}

/// What a channel takes as the text of a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Form {
    /// Most bytes.
    pub(crate) limit: usize,
    /// The limit is of the request: quotes, line ends and control characters count as JSON writes them.
    pub(crate) json: bool,
    /// It shows Markdown; otherwise `**` is left out.
    pub(crate) markdown: bool,
    /// Language of what is added.
    pub(crate) locale: Locale,
}

/// Longest title in bytes.
const LONGEST_TITLE: usize = 300;

impl Form {
    fn length(&self, text: &str) -> usize {
        if self.json {
            text.chars().map(length_in_json).sum()
        } else {
            text.len()
        }
    }

    /// The text of a message, never longer than the limit and never cut inside a character. What does not fit is left out at the
    /// end of a line, and the reader learns where the rest is. The link stays.
    pub(crate) fn fit(&self, message: &Message) -> String {
        let mut link = message.link.as_ref().map_or_else(String::new, |url| {
            match (self.markdown, self.locale) {
                (true, Locale::Zh) => format!("\n[查看详情]({url})"),
                (true, Locale::En) => format!("\n[Open the page]({url})"),
                (false, Locale::Zh) => format!("\n详情：{url}"),
                (false, Locale::En) => format!("\nDetails: {url}"),
            }
        });
        link.insert_str(0, &self.actions(message));
        let body = self.plain(Cow::Borrowed(&message.body));
        if self.length(&body) + self.length(&link) <= self.limit {
            return format!("{body}{link}");
        }
        let whole = match (&message.link, &message.facts, self.locale) {
            (Some(_), _, Locale::Zh) => "网页".to_owned(),
            (Some(_), _, Locale::En) => " the page".to_owned(),
            (None, Some(facts), Locale::Zh) => {
                format!(" oa-alert show {}，清单见 oa-alert list --all", facts.id)
            }
            (None, Some(facts), Locale::En) => {
                format!(" oa-alert show {}, the list: oa-alert list --all", facts.id)
            }
            (None, None, _) => " oa-alert list --all".to_owned(),
        };
        let note = match self.locale {
            Locale::Zh => format!("\n…（内容过长，此处截断，全文见{whole}）"),
            Locale::En => format!("\n… (too long, cut here; all of it:{whole})"),
        };
        let tail = format!("{note}{link}");
        match self.limit.checked_sub(self.length(&tail)) {
            Some(room) => match &message.digest {
                None => format!("{}{tail}", self.cut(&body, room)),
                Some(digest) => format!("{}{tail}", digest.within(self, &message.title, room)),
            },
            None => self.cut(&body, self.limit).to_owned(),
        }
    }

    fn actions(&self, message: &Message) -> String {
        let actions = message.links();
        if self.markdown {
            let links: Vec<String> = actions
                .map(|(word, url)| format!("[{word}]({url})"))
                .collect();
            return match links.is_empty() {
                true => String::new(),
                false => format!("\n{}", links.join(" | ")),
            };
        }
        let colon = match self.locale {
            Locale::Zh => "：",
            Locale::En => ": ",
        };
        actions
            .map(|(word, url)| format!("\n{word}{colon}{url}"))
            .collect()
    }

    fn plain<'a>(&self, text: Cow<'a, str>) -> Cow<'a, str> {
        if self.markdown {
            text
        } else {
            Cow::Owned(text.replace("**", ""))
        }
    }

    /// The beginning of a text, as far as there is room, up to the end of a line where that loses little.
    fn cut<'a>(&self, text: &'a str, room: usize) -> &'a str {
        let mut used = 0;
        let fits = |c: &char| {
            used += if self.json {
                length_in_json(*c)
            } else {
                c.len_utf8()
            };
            used <= room
        };
        let end = text.chars().take_while(fits).map(char::len_utf8).sum();
        let begin = &text[..end];
        // A whole line less is better than half a line, unless it is most of the text.
        match begin.rfind('\n').filter(|at| *at >= end / 2) {
            Some(line) if end < text.len() => &text[..line],
            _ => begin,
        }
    }

    /// The title: one line of bounded length.
    pub(crate) fn title(&self, message: &Message) -> String {
        headline(&message.title)
    }
}

/// Bytes of a character in a JSON text, as serde_json writes it.
fn length_in_json(c: char) -> usize {
    match c {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        c => c.len_utf8(),
    }
}

fn headline(title: &str) -> String {
    let line: String = title
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    let line = line.trim();
    if line.is_empty() {
        return "oa".to_owned();
    }
    if line.len() <= LONGEST_TITLE {
        return line.to_owned();
    }
    let mut end = LONGEST_TITLE - '…'.len_utf8();
    while !line.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &line[..end])
}

/// Only the title of a message, whose text or link a channel did not take.
pub(crate) fn without_text(message: Message, locale: Locale) -> Message {
    let show = message.facts.as_ref().map_or_else(
        || "oa-alert list --all".to_owned(),
        |facts| format!("oa-alert show {}", facts.id),
    );
    let note = match locale {
        Locale::Zh => format!("- 正文被该通道拒收，已略去；全文见网页或 {show}"),
        Locale::En => {
            format!(
                "- The channel refused the text, which is left out; all of it: the page, or {show}"
            )
        }
    };
    Message {
        body: format!("**{}**\n\n{note}\n", message.title),
        link: None,
        actions: Vec::new(),
        ..message
    }
}

/// Marks a message that may have been sent before, by a sender that died before it could say so.
pub(crate) fn mark_repeat(mut message: Message, locale: Locale) -> Message {
    let mark = match locale {
        Locale::Zh => "（可能重复）",
        Locale::En => " (possibly a repeat)",
    };
    message.title.push_str(mark);
    message.body = format!("{}\n{}\n", message.body.trim_end(), mark.trim());
    message
}

#[cfg(test)]
mod tests;
