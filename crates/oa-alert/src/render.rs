//! Messages as the robots take them: cut to size in a readable way, and several in one when many wait.

use oa_core::alerts::Severity;
use oa_core::config::Locale;

/// A message for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One line.
    pub title: String,
    /// Markdown: lines, `**bold**`, `- ` lists. Begins with the title.
    pub body: String,
    /// Decides about colours.
    pub severity: Severity,
    /// It is the news that something is over.
    pub recovery: bool,
}

/// Cuts a text to at most `limit` bytes of UTF-8, at the end of a line where that loses little, and says so.
#[must_use]
pub fn cut(text: &str, limit: usize, locale: Locale) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let note = match locale {
        Locale::Zh => "\n…（内容过长，已截断，完整内容见 oa-alert list --all）",
        Locale::En => "\n… (too long, cut here; all of it: oa-alert list --all)",
    };
    let room = limit.saturating_sub(note.len());
    let mut end = room.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    // A whole line less is better than half a line, unless it is most of the text.
    if let Some(line) = text[..end].rfind('\n').filter(|at| *at >= end / 2) {
        end = line;
    }
    if limit < note.len() {
        return text[..end].to_owned();
    }
    format!("{}{note}", &text[..end])
}

/// Several messages as one, when a robot would not take them one by one.
#[must_use]
pub fn digest(messages: &[Message], locale: Locale) -> Message {
    let count = messages.len();
    let title = match locale {
        Locale::Zh => format!("【汇总】{count} 条告警"),
        Locale::En => format!("[DIGEST] {count} alerts"),
    };
    let titles: Vec<String> = messages.iter().map(|m| format!("- {}", m.title)).collect();
    let bodies: Vec<&str> = messages.iter().map(|m| m.body.trim_end()).collect();
    Message {
        body: format!(
            "**{title}**\n\n{}\n\n{}\n",
            titles.join("\n"),
            bodies.join("\n\n")
        ),
        title,
        severity: messages
            .iter()
            .map(|m| m.severity)
            .max()
            .unwrap_or(Severity::Info),
        recovery: messages.iter().all(|m| m.recovery),
    }
}

/// Marks a message that may have been sent before, by a sender that died before it could say so.
#[must_use]
pub fn mark_repeat(mut message: Message, locale: Locale) -> Message {
    let mark = match locale {
        Locale::Zh => "（可能重复）",
        Locale::En => " (possibly a repeat)",
    };
    message.title.push_str(mark);
    message.body = format!("{}\n{}\n", message.body.trim_end(), mark.trim());
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn message(title: &str) -> Message {
        Message {
            title: title.to_owned(),
            body: format!("**{title}**\n\n- 原因\n"),
            severity: Severity::Warning,
            recovery: false,
        }
    }

    #[test]
    fn a_text_is_cut_at_a_line_and_says_so() {
        let text = "第一行\n".repeat(100);
        let short = cut(&text, 200, Locale::Zh);
        assert!(
            short.len() <= 200 && short.contains("第一行\n…（内容过长"),
            "{short}"
        );
        assert_eq!(cut("short", 200, Locale::Zh), "short");
    }

    #[test]
    fn a_digest_names_every_message() {
        let digest = digest(&[message("甲"), message("乙")], Locale::Zh);
        assert_eq!(digest.title, "【汇总】2 条告警");
        assert!(digest.body.contains("- 甲\n- 乙\n") && digest.body.contains("**乙**"));
    }

    proptest! {
        #[test]
        fn a_cut_text_never_exceeds_the_limit_and_is_valid(text in "(\\PC|\n){0,400}", limit in 0usize..300) {
            let short = cut(&text, limit, Locale::Zh);
            prop_assert!(short.len() <= limit || text.len() <= limit);
        }
    }
}
