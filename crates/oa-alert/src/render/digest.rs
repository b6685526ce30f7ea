//! Several messages as one: what is still wrong first, the worst of it before the rest, and in one line what has come and gone meanwhile.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

use chrono::{DateTime, Utc};
use oa_core::app::config::Locale;
use oa_core::model::Severity;
use oa_core::model::event::Kind;
use oa_wording::Wording;

use super::{Form, LONGEST_TITLE, Message, headline};

/// So many failures of one cause are one line.
const TOGETHER: usize = 3;
/// Most that the title names.
const NAMED: usize = 3;

/// Where something stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Section {
    /// It is still wrong.
    Open,
    /// A message of a person or a script.
    Message,
    /// What was reported before is over.
    Recovered,
    /// It has come and gone since the last message.
    Healed,
}

/// A line: a beginning, and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Item {
    section: Section,
    severity: Severity,
    begin: String,
    title: String,
    names: Vec<String>,
    body: Option<String>,
}

impl Item {
    /// How much it stands for.
    fn count(&self) -> usize {
        self.names.len().max(1)
    }

    fn line(&self, names: usize) -> String {
        format!("\n- {}{}", self.begin, self.names[..names].join("、"))
    }
}

/// What a message stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Digest {
    items: Vec<Item>,
    /// How many alerts.
    alerts: usize,
    locale: Locale,
}

/// Several messages as one, when a channel would not take them one by one.
pub(crate) fn digest(parts: Vec<Message>, link: Option<String>, wording: &Wording) -> Message {
    let alerts = parts.len();
    let items = items(parts, wording);
    let digest = Digest {
        items,
        alerts,
        locale: wording.locale,
    };
    let open = |i: &&Item| i.section == Section::Open;
    let worst = digest
        .items
        .iter()
        .filter(|i| i.section <= Section::Message);
    let title = digest.title(NAMED);
    let mut message = Message {
        body: String::new(),
        severity: worst.map(|i| i.severity).max().unwrap_or(Severity::Info),
        recovery: digest.count(Section::Recovered) + digest.count(Section::Healed) > 0
            && !digest.items.iter().any(|i| open(&i)),
        link,
        facts: None,
        digest: None,
        actions: Vec::new(),
        title,
    };
    let whole = Form {
        limit: usize::MAX,
        json: false,
        markdown: true,
        locale: wording.locale,
    };
    message.body = digest.within(&whole, &message.title, usize::MAX) + "\n";
    message.digest = Some(digest);
    message
}

/// The lines of what several messages say. Of what has come and gone there is one line, and of a reminder the newest.
fn items(parts: Vec<Message>, wording: &Wording) -> Vec<Item> {
    let of = |m: &Message| {
        let facts = m.facts.as_ref().filter(|f| f.kind != Kind::Message);
        facts.map(|f| f.fingerprint.clone())
    };
    let mut resolved: HashMap<String, usize> = HashMap::new();
    let mut newest: HashMap<(String, String), usize> = HashMap::new();
    let mut began: HashMap<String, DateTime<Utc>> = HashMap::new();
    for (n, part) in parts.iter().enumerate() {
        let (Some(fingerprint), Some(facts)) = (of(part), &part.facts) else {
            continue;
        };
        if facts.kind == Kind::Recovery {
            resolved.insert(fingerprint, n);
        } else {
            began.entry(fingerprint.clone()).or_insert(facts.at);
            newest.insert((fingerprint, facts.what.clone()), n);
        }
    }
    let mut found: Vec<(Item, Option<(String, &'static str)>)> = Vec::new();
    for (n, part) in parts.into_iter().enumerate() {
        let fingerprint = of(&part);
        let over = fingerprint.as_ref().and_then(|f| resolved.get(f)).copied();
        let began = fingerprint.as_ref().and_then(|f| began.get(f)).copied();
        let title = headline(&part.title);
        let (facts, severity) = (part.facts, part.severity);
        let section = match facts.as_ref().map(|f| f.kind) {
            Some(Kind::Recovery) if over != Some(n) => continue,
            Some(Kind::Recovery) if began.is_some() => Section::Healed,
            Some(Kind::Recovery) => Section::Recovered,
            Some(Kind::Problem) if over.is_some_and(|over| over > n) => continue,
            Some(Kind::Problem) => {
                let what = facts.as_ref().map(|f| f.what.clone()).unwrap_or_default();
                let key = (fingerprint.unwrap_or_default(), what);
                if newest.get(&key) != Some(&n) {
                    continue;
                }
                Section::Open
            }
            _ => Section::Message,
        };
        let begin = match (section, began, facts.as_ref()) {
            (Section::Open, Some(since), _) => format!("{title}{}", from(since, wording)),
            (Section::Healed, Some(since), Some(facts)) => {
                format!("{title}{}", span(since, facts.at, wording))
            }
            _ => title.clone(),
        };
        let item = Item {
            section,
            severity,
            begin,
            title,
            names: Vec::new(),
            body: (section != Section::Healed).then(|| part.body.trim_end().to_owned()),
        };
        let cause = facts
            .and_then(|f| f.cause)
            .filter(|_| section == Section::Open);
        found.push((item, cause));
    }
    let mut items = together(found, wording);
    items.sort_by_key(|i| (i.section, std::cmp::Reverse(i.severity)));
    items
}

/// Many failures of one cause are one line, and one text stands for all of theirs.
fn together(found: Vec<(Item, Option<(String, &'static str)>)>, wording: &Wording) -> Vec<Item> {
    let mut same: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    for (item, cause) in &found {
        if let Some((_, cause)) = cause {
            *same.entry((item.severity, cause)).or_default() += 1;
        }
    }
    let mut items: Vec<Item> = Vec::new();
    let mut places: BTreeMap<(Severity, &str), usize> = BTreeMap::new();
    for (mut item, cause) in found {
        let Some((name, cause)) = cause else {
            items.push(item);
            continue;
        };
        let key = (item.severity, cause);
        let count = same.get(&key).copied().unwrap_or_default();
        if count < TOGETHER {
            items.push(item);
        } else if let Some(place) = places.get(&key) {
            items[*place].names.push(name);
        } else {
            places.insert(key, items.len());
            let mark = mark(item.severity, wording.locale);
            item.begin = match wording.locale {
                Locale::Zh => format!("{mark}{cause}（{count} 项）："),
                Locale::En => format!("{mark}{cause} ({count}): "),
            };
            item.names.push(name);
            items.push(item);
        }
    }
    items
}

fn mark(severity: Severity, locale: Locale) -> &'static str {
    match (severity, locale) {
        (Severity::Critical, Locale::Zh) => "【故障】",
        (_, Locale::Zh) => "【警告】",
        (Severity::Critical, Locale::En) => "[FAILURE] ",
        (_, Locale::En) => "[WARNING] ",
    }
}

fn short(at: DateTime<Utc>, wording: &Wording) -> String {
    at.with_timezone(&wording.timezone)
        .format("%m-%d %H:%M")
        .to_string()
}

fn from(since: DateTime<Utc>, wording: &Wording) -> String {
    let since = short(since, wording);
    match wording.locale {
        Locale::Zh => format!("（{since} 起）"),
        Locale::En => format!(" (since {since})"),
    }
}

fn span(since: DateTime<Utc>, until: DateTime<Utc>, wording: &Wording) -> String {
    let (since, until) = (short(since, wording), short(until, wording));
    match wording.locale {
        Locale::Zh => format!("（{since} 至 {until}）"),
        Locale::En => format!(" ({since} to {until})"),
    }
}

impl Digest {
    fn count(&self, section: Section) -> usize {
        let items = self.items.iter().filter(|i| i.section == section);
        items.map(Item::count).sum()
    }

    /// What the phone shows before anybody opens it: how much is still wrong, how bad that is, and the worst of it by name.
    fn title(&self, names_most: usize) -> String {
        let alerts = self.alerts;
        let zh = self.locale == Locale::Zh;
        let of = |severity: Severity| -> usize {
            let items = self.items.iter();
            let open = items.filter(|i| i.section == Section::Open && i.severity == severity);
            open.map(Item::count).sum()
        };
        let counts = [
            (
                of(Severity::Critical),
                if zh { "故障 " } else { "critical: " },
            ),
            (
                of(Severity::Warning),
                if zh { "警告 " } else { "warnings: " },
            ),
        ];
        let counts: Vec<String> = counts
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, what)| format!("{what}{n}"))
            .collect();
        let counts = match (counts.is_empty(), zh) {
            (true, _) => String::new(),
            (false, true) => format!("（{}）", counts.join("，")),
            (false, false) => format!(" ({})", counts.join(", ")),
        };
        let open = self.count(Section::Open);
        let over = [
            (
                self.count(Section::Healed),
                "已自行恢复",
                "recovered by themselves",
            ),
            (self.count(Section::Recovered), "已恢复", "recovered"),
            (self.count(Section::Message), "消息", "messages"),
        ];
        let is_over = over[0].0 + over[1].0 > 0;
        let mut said: Vec<String> = Vec::new();
        if is_over {
            for (n, what, what_en) in over.iter().filter(|(n, ..)| *n > 0) {
                said.push(if zh {
                    format!("{what} {n} 项")
                } else {
                    format!("{n} {what_en}")
                });
            }
            if open > 0 {
                said.push(if zh {
                    format!("仍未恢复 {open} 项{counts}")
                } else {
                    format!("{open} still open{counts}")
                });
            }
        } else {
            said.push(if zh {
                format!("{alerts} 条告警{counts}")
            } else {
                format!("{alerts} alerts{counts}")
            });
        }
        let (mark, join, colon, more) = if zh {
            ("【汇总】", "；", "：", " 等")
        } else {
            ("[DIGEST] ", "; ", ": ", " …")
        };
        let mut title = format!("{mark}{}", said.join(join));
        // Of the open ones the worst, else of what there is.
        let first = self.items.first().map(|i| i.section);
        let names: Vec<&str> = self
            .items
            .iter()
            .filter(|i| Some(i.section) == first)
            .flat_map(|i| {
                let own = (i.names.is_empty()).then_some(i.title.as_str());
                own.into_iter().chain(i.names.iter().map(String::as_str))
            })
            .map(without_mark)
            .collect();
        for (n, name) in names.iter().take(names_most).enumerate() {
            let joint = if n == 0 { colon } else { "、" };
            if title.len() + joint.len() + name.len() + more.len() > LONGEST_TITLE {
                break;
            }
            title.push_str(joint);
            title.push_str(name);
        }
        if names.len() > names_most && names_most > 0 {
            title.push_str(more);
        }
        title
    }

    fn head(&self, section: Section) -> String {
        let count = self.count(section);
        let zh = self.locale == Locale::Zh;
        let what = match section {
            Section::Open if zh => format!("仍未恢复 {count} 项"),
            Section::Message if zh => format!("消息 {count} 项"),
            Section::Recovered if zh => format!("已恢复 {count} 项"),
            Section::Healed if zh => format!("已自行恢复 {count} 项"),
            Section::Open => format!("{count} still open"),
            Section::Message => format!("{count} messages"),
            Section::Recovered => format!("{count} recovered"),
            Section::Healed => format!("{count} recovered by themselves"),
        };
        format!("\n\n**{what}**\n")
    }

    /// As much as there is room for: lines, what is open before the rest and the worst of it first; how many are left out; then whole
    /// messages.
    pub(super) fn within(&self, form: &Form, title: &str, room: usize) -> String {
        let plain = |text: String| form.plain(Cow::Owned(text)).into_owned();
        let left_out = |count: usize| match self.locale {
            Locale::Zh => format!("\n- 另有 {count} 条未列出"),
            Locale::En => format!("\n- and {count} more"),
        };
        let all: usize = self.items.iter().map(Item::count).sum();
        let many = self
            .items
            .iter()
            .any(|i| i.section != self.items[0].section);
        let mut text = plain(format!("**{title}**\n"));
        if form.length(&text) > room / 4 {
            // The lines name more than the title would.
            text = plain(format!("**{}**\n", self.title(0)));
        }
        let mut left = room
            .saturating_sub(form.length(&text))
            .saturating_sub(form.length(&left_out(all)));
        let (mut named, mut under) = (0, None);
        for item in &self.items {
            let head = if many && under != Some(item.section) {
                plain(self.head(item.section))
            } else {
                String::new()
            };
            // As many of its names as there is room for.
            let fitting = (0..=item.names.len()).rev().find_map(|names| {
                let line = plain(item.line(names));
                let length = form.length(&head) + form.length(&line);
                let says = names > 0 || item.names.is_empty();
                (says && length <= left).then_some((names, line, length))
            });
            if let Some((names, line, length)) = fitting {
                left -= length;
                under = Some(item.section);
                named += names.max(1);
                text.push_str(&head);
                text.push_str(&line);
            }
        }
        if named < all {
            text.push_str(&left_out(all - named));
        }
        for body in self.items.iter().filter_map(|i| i.body.as_ref()) {
            let body = plain(format!("\n\n{body}"));
            if form.length(&text) + form.length(&body) > room {
                break;
            }
            text.push_str(&body);
        }
        if form.length(&text) > room {
            // Not even the first line fits.
            return form.cut(&text, room).to_owned();
        }
        text
    }
}

fn without_mark(title: &str) -> &str {
    [
        "【故障】",
        "【警告】",
        "【恢复】",
        "【解除】",
        "[FAILURE] ",
        "[WARNING] ",
        "[RECOVERED] ",
    ]
    .iter()
    .find_map(|mark| title.strip_prefix(mark))
    .unwrap_or(title)
}
