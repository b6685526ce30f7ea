//! The configuration as a document: what is changed in it, by `enable` and by `oa-setup`, leaves everything else as it is: comments, order,
//! mode, owner. A table is the same one however it is written: `[backup]`, `[ "backup" ]`, `backup.repository = …`, `backup = { … }`.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use oa_core::app::config::{Config, ConfigError};
use oa_core::base::trust;
use toml_edit::{
    Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, TableLike, TomlError, Value,
};

use super::enable::replace;

/// Why it is as it was.
pub(super) enum Unchanged {
    /// The file cannot be read or written.
    Io(io::Error),
    /// It holds something else where this belongs.
    Other(String),
    /// With the change it would be no configuration.
    Invalid(ConfigError),
}

impl From<io::Error> for Unchanged {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A file that nobody else edits meanwhile.
pub(super) struct Document {
    named: PathBuf,
    path: PathBuf,
    _lock: File,
    content: DocumentMut,
}

impl Document {
    pub(super) fn open(named: &Path) -> Result<Self, Unchanged> {
        // A link stays one.
        let path = fs::canonicalize(named)?;
        // Two at the same time would each write what they have read.
        let lock = File::open(path.parent().unwrap_or(Path::new("/")))?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive)
            .map_err(io::Error::from)?;
        let content = parse(&trust::read_named_text(&path, trust::LARGEST)?)?;
        Ok(Self {
            named: named.to_owned(),
            path,
            _lock: lock,
            content,
        })
    }

    /// Gives a key this value. Its table is made where there is none.
    pub(super) fn put(&mut self, key: &str, value: Value) -> Result<(), Unchanged> {
        put(&mut self.content, key, value)
    }

    pub(super) fn remove(&mut self, key: &str) -> Result<(), Unchanged> {
        let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
        table(&mut self.content, tables)?.remove(last);
        Ok(())
    }

    /// Adds a table to a list of tables.
    pub(super) fn add(
        &mut self,
        list: &str,
        entries: Vec<(String, Value)>,
    ) -> Result<(), Unchanged> {
        add(&mut self.content, list, entries)
    }

    /// There is either the old file or the whole new one, which is a valid configuration.
    pub(super) fn write(self) -> Result<(), Unchanged> {
        let text = self.content.to_string();
        Config::parse(&self.named, &text).map_err(Unchanged::Invalid)?;
        Ok(replace(&self.path, &self.path, None, text.as_bytes())?)
    }
}

fn parse(text: &str) -> Result<DocumentMut, Unchanged> {
    text.parse().map_err(|e| no_toml(text, &e))
}

/// The parser's message quotes the line, which may hold a secret.
fn no_toml(text: &str, error: &TomlError) -> Unchanged {
    let before = error.span().and_then(|span| text.get(..span.start));
    let line = before.map_or(1, |before| before.matches('\n').count() + 1);
    Unchanged::Other(format!("line {line} is no TOML"))
}

fn no_table(name: &str) -> Unchanged {
    Unchanged::Other(format!("[{name}] is no table"))
}

/// The table of this name, which is made where there is none.
fn table<'a>(content: &'a mut DocumentMut, name: &str) -> Result<&'a mut dyn TableLike, Unchanged> {
    let mut at: &mut dyn TableLike = content.as_table_mut();
    for part in name.split('.').filter(|part| !part.is_empty()) {
        if at.get(part).is_none() {
            // Within an inline table it becomes one of these.
            at.insert(part, Item::Table(Table::new()));
        }
        let inner = at.get_mut(part).and_then(Item::as_table_like_mut);
        at = inner.ok_or_else(|| no_table(name))?;
    }
    Ok(at)
}

fn put(content: &mut DocumentMut, key: &str, mut value: Value) -> Result<(), Unchanged> {
    let (tables, last) = key.rsplit_once('.').unwrap_or(("", key));
    let table = table(content, tables)?;
    match table.get_mut(last) {
        Some(item) => {
            let before = item.as_value_mut().ok_or_else(|| {
                Unchanged::Other(format!("{key} is a table, where a value belongs"))
            })?;
            // The comment behind it.
            *value.decor_mut() = before.decor().clone();
            *before = value;
        }
        None => {
            table.insert(last, Item::Value(value));
        }
    }
    Ok(())
}

fn add(
    content: &mut DocumentMut,
    list: &str,
    entries: Vec<(String, Value)>,
) -> Result<(), Unchanged> {
    let (tables, last) = list.rsplit_once('.').unwrap_or(("", list));
    let table = table(content, tables)?;
    if table.get(last).is_none() {
        table.insert(last, Item::ArrayOfTables(ArrayOfTables::new()));
    }
    match table.get_mut(last) {
        Some(Item::ArrayOfTables(tables)) => {
            let mut new = Table::new();
            new.extend(entries);
            tables.push(new);
            Ok(())
        }
        Some(Item::Value(Value::Array(tables))) => {
            tables.push(entries.into_iter().collect::<InlineTable>());
            Ok(())
        }
        _ => Err(no_table(list)),
    }
}

/// One key or table of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) line: usize,
    /// With its tables, dots between them; the same for each table of a list, and each value.
    pub(super) key: String,
    /// Empty for a table.
    pub(super) value: String,
}

/// All keys and tables of a file, in its order.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, Unchanged> {
    let parsed = toml_edit::Document::parse(text).map_err(|e| no_toml(text, &e))?;
    let mut reader = Reader {
        text,
        found: Vec::new(),
    };
    for (key, item) in parsed.as_table().iter() {
        reader.item(key, item);
    }
    Ok(reader.found)
}

struct Reader<'a> {
    text: &'a str,
    found: Vec<Entry>,
}

impl Reader<'_> {
    fn item(&mut self, key: &str, item: &Item) {
        match item {
            Item::None => {}
            Item::Value(value) => self.value(key, value),
            Item::Table(table) => self.table(key, table, table.span()),
            Item::ArrayOfTables(tables) => {
                for table in tables {
                    self.table(key, table, table.span());
                }
            }
        }
    }

    fn table(&mut self, key: &str, table: &dyn TableLike, span: Option<std::ops::Range<usize>>) {
        let at = self.found.len();
        self.push(key, "", span);
        for (name, item) in table.iter() {
            self.item(&format!("{key}.{name}"), item);
        }
        // One that dotted keys make stands where they do.
        if let Some(first) = self.found[at + 1..].iter().map(|entry| entry.line).min()
            && self.found[at].line == 0
        {
            self.found[at].line = first;
        }
    }

    fn value(&mut self, key: &str, value: &Value) {
        match value {
            Value::String(text) => self.push(key, text.value(), value.span()),
            Value::Array(values) => {
                for one in values {
                    self.value(key, one);
                }
            }
            Value::InlineTable(table) => self.table(key, table, value.span()),
            other => {
                let mut plain = other.clone();
                plain.decor_mut().clear();
                self.push(key, &plain.to_string(), value.span());
            }
        }
    }

    fn push(&mut self, key: &str, value: &str, span: Option<std::ops::Range<usize>>) {
        let before = |span: std::ops::Range<usize>| self.text.get(..span.start);
        let line = span.and_then(before);
        self.found.push(Entry {
            line: line.map_or(0, |before| before.matches('\n').count() + 1),
            key: key.to_owned(),
            value: value.to_owned(),
        });
    }
}

/// A list of strings.
pub(super) fn array(names: &[String]) -> Value {
    names.iter().map(String::as_str).collect::<Array>().into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// One configuration, as people write it.
    const SPELLINGS: [&str; 7] = [
        "[backup]\nrepository = \"/old\" # here\n[alert]\nrepeat = \"4h\"\n",
        "[ backup ]\nrepository = '/old'\n[ alert ]\nrepeat = '4h'\n",
        "[\"backup\"]\n\"repository\" = \"/old\"\n['alert']\nrepeat = \"4h\"\n",
        "backup.repository = \"/old\"\nalert.repeat = \"4h\"\n",
        "backup . repository = \"/old\"\n\"alert\".'repeat' = \"4h\"\n",
        "backup = { repository = \"/old\" }\nalert = { repeat = \"4h\" }\n",
        "backup = {repository=\"/old\"}\nalert = {repeat = \"4h\", channels = []}\n",
    ];

    fn shown(text: &str) -> Vec<String> {
        let all = entries(text).unwrap_or_default().into_iter();
        let shown = |e: Entry| format!("{}={}", e.key, e.value);
        let mut all: Vec<String> = all.map(shown).collect();
        all.sort();
        all
    }

    #[test]
    fn a_table_is_the_same_one_however_it_is_written() {
        for text in SPELLINGS {
            let before = [
                "alert.repeat=4h",
                "alert=",
                "backup.repository=/old",
                "backup=",
            ];
            assert_eq!(shown(text), before, "{text}");
            let mut content = parse(text).ok().unwrap();
            let channel = [("name", "ops"), ("kind", "webhook")];
            let channel = channel.map(|(k, v)| (k.to_owned(), v.into())).to_vec();
            let done = [
                put(
                    &mut content,
                    "backup.repository",
                    "/new place \"ü\" \\".into(),
                ),
                put(&mut content, "backup.password", "env:P".into()),
                put(&mut content, "backup.s3.path_style", true.into()),
                put(&mut content, "locale", "en".into()),
                put(&mut content, "report.listen", "[::1]:1".into()),
                add(&mut content, "alert.channels", channel.clone()),
                add(&mut content, "alert.channels", channel),
            ];
            assert!(done.iter().all(Result::is_ok), "{text}");
            let text = content.to_string();
            let after = [
                "alert.channels.kind=webhook",
                "alert.channels.kind=webhook",
                "alert.channels.name=ops",
                "alert.channels.name=ops",
                "alert.channels=",
                "alert.channels=",
                "alert.repeat=4h",
                "alert=",
                "backup.password=env:P",
                "backup.repository=/new place \"ü\" \\",
                "backup.s3.path_style=true",
                "backup.s3=",
                "backup=",
                "locale=en",
                "report.listen=[::1]:1",
                "report=",
            ];
            assert_eq!(shown(&text), after, "{text}");
        }
    }

    #[test]
    fn a_comment_stays_behind_its_value_and_each_key_has_its_line() {
        let text = "# all of it\n[backup]\n  repository = \"/old\" # here\n\n[[alert.channels]]\nkind = \"wecom\"\n[[alert.channels]]\n\nkind = \"feishu\"\n";
        let lines: Vec<(usize, String)> = entries(text)
            .unwrap_or_default()
            .into_iter()
            .map(|e| (e.line, format!("{}={}", e.key, e.value)))
            .collect();
        let kinds = [
            (2, "backup="),
            (3, "backup.repository=/old"),
            (5, "alert="),
            (5, "alert.channels="),
            (6, "alert.channels.kind=wecom"),
            (7, "alert.channels="),
            (9, "alert.channels.kind=feishu"),
        ];
        assert_eq!(lines, kinds.map(|(n, said)| (n, said.to_owned())));
        let mut content = parse(text).ok().unwrap();
        assert!(put(&mut content, "backup.repository", "/new".into()).is_ok());
        assert_eq!(content.to_string(), text.replace("/old", "/new"));
    }

    #[test]
    fn what_is_no_table_stays_as_it_is() {
        let mut content = parse("backup = 1\n[alert]\nchannels = \"none\"\n")
            .ok()
            .unwrap();
        assert!(put(&mut content, "backup.repository", "/new".into()).is_err());
        assert!(put(&mut content, "alert", "x".into()).is_err());
        assert!(add(&mut content, "alert.channels", Vec::new()).is_err());
    }
}
