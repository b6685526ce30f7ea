//! Messages as the channels take them: cut to size in a readable way, several in one when many wait, and with a link to the page.

use std::borrow::Cow;

use oa_core::app::config::Locale;
use oa_core::model::Severity;

/// A message for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    /// One line.
    pub(crate) title: String,
    /// Markdown: lines, `**bold**`, `- ` lists. Begins with the title.
    pub(crate) body: String,
    /// Decides about colours.
    pub(crate) severity: Severity,
    /// It is the news that something is over.
    pub(crate) recovery: bool,
    /// Where the page shows more of it.
    pub(crate) link: Option<String>,
    /// The messages that this one stands for; empty when it is one itself.
    pub(crate) parts: Vec<Message>,
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
        let link = message.link.as_ref().map_or_else(String::new, |url| {
            match (self.markdown, self.locale) {
                (true, Locale::Zh) => format!("\n[查看详情]({url})"),
                (true, Locale::En) => format!("\n[Open the page]({url})"),
                (false, Locale::Zh) => format!("\n详情：{url}"),
                (false, Locale::En) => format!("\nDetails: {url}"),
            }
        });
        let body = self.plain(Cow::Borrowed(&message.body));
        if self.length(&body) + self.length(&link) <= self.limit {
            return format!("{body}{link}");
        }
        let note = match (&message.link, self.locale) {
            (Some(_), Locale::Zh) => "\n…（内容过长，此处截断，全文见网页）",
            (Some(_), Locale::En) => "\n… (too long, cut here; all of it is on the page)",
            (None, Locale::Zh) => "\n…（内容过长，此处截断，全文见 oa-alert list --all）",
            (None, Locale::En) => "\n… (too long, cut here; all of it: oa-alert list --all)",
        };
        let tail = format!("{note}{link}");
        match self.limit.checked_sub(self.length(&tail)) {
            Some(room) if message.parts.is_empty() => format!("{}{tail}", self.cut(&body, room)),
            Some(room) => format!("{}{tail}", self.digest_within(message, room)),
            None => self.cut(&body, self.limit).to_owned(),
        }
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

    /// A digest that does not fit as a whole: the titles, the worst of them before the others, how many are left out, and as many
    /// whole messages as there is room for.
    fn digest_within(&self, digest: &Message, room: usize) -> String {
        let parts = &digest.parts;
        let head = self
            .plain(Cow::Owned(format!("**{}**\n", digest.title)))
            .into_owned();
        let left_out = |count: usize| match self.locale {
            Locale::Zh => format!("\n- 另有 {count} 条未列出"),
            Locale::En => format!("\n- and {count} more"),
        };
        let lines: Vec<String> = parts
            .iter()
            .map(|p| {
                self.plain(Cow::Owned(format!("\n- {}", p.title)))
                    .into_owned()
            })
            .collect();
        let mut left = room
            .saturating_sub(self.length(&head))
            .saturating_sub(self.length(&left_out(parts.len())));
        let mut order: Vec<usize> = (0..parts.len()).collect();
        order.sort_by_key(|i| std::cmp::Reverse(parts[*i].severity));
        let mut named = vec![false; parts.len()];
        for i in order {
            let length = self.length(&lines[i]);
            if length <= left {
                left -= length;
                named[i] = true;
            }
        }
        let unnamed = named.iter().filter(|n| !**n).count();
        let mut text = head;
        for (line, _) in lines.iter().zip(&named).filter(|(_, named)| **named) {
            text.push_str(line);
        }
        if unnamed > 0 {
            text.push_str(&left_out(unnamed));
        }
        for part in parts {
            let body = format!("\n\n{}", self.plain(Cow::Borrowed(part.body.trim_end())));
            if self.length(&text) + self.length(&body) > room {
                break;
            }
            text.push_str(&body);
        }
        if self.length(&text) > room {
            // Not even the first line fits.
            return self.cut(&text, room).to_owned();
        }
        text
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

/// Several messages as one, when a channel would not take them one by one.
pub(crate) fn digest(parts: Vec<Message>, link: Option<String>, locale: Locale) -> Message {
    let count = parts.len();
    let mut message = Message {
        title: match locale {
            Locale::Zh => format!("【汇总】{count} 条告警"),
            Locale::En => format!("[DIGEST] {count} alerts"),
        },
        body: String::new(),
        severity: parts
            .iter()
            .map(|m| m.severity)
            .max()
            .unwrap_or(Severity::Info),
        recovery: parts.iter().all(|m| m.recovery),
        link,
        parts,
    };
    for part in &mut message.parts {
        part.title = headline(&part.title);
    }
    let titles: Vec<String> = message
        .parts
        .iter()
        .map(|m| format!("- {}", m.title))
        .collect();
    let bodies: Vec<&str> = message.parts.iter().map(|m| m.body.trim_end()).collect();
    message.body = format!(
        "**{}**\n\n{}\n\n{}\n",
        message.title,
        titles.join("\n"),
        bodies.join("\n\n")
    );
    message
}

/// Only the title of a message, whose text or link a channel did not take.
pub(crate) fn without_text(message: Message, locale: Locale) -> Message {
    let note = match locale {
        Locale::Zh => "- 正文被该通道拒收，已略去；全文见网页或 oa-alert list --all --format json",
        Locale::En => {
            "- The channel refused the text, which is left out; all of it: the page, or oa-alert list --all --format json"
        }
    };
    Message {
        body: format!("**{}**\n\n{note}\n", message.title),
        link: None,
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
