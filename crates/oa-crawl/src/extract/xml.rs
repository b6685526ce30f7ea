//! Records out of XML.

use std::collections::BTreeMap;

use oa_core::model::retry::ErrorKind;
use roxmltree::{Document, Error, Node, ParsingOptions};
use serde_json::{Map, Value};

use super::{Extracted, ReadError};
use crate::source::Xml;

/// More elements and texts than this are not read into memory.
pub(super) const MOST_NODES: u32 = 2_000_000;

pub(crate) fn take(rules: &Xml, text: &str) -> Result<Extracted, ReadError> {
    if text.trim().is_empty() {
        return Err((ErrorKind::Empty, "an empty body".to_owned()));
    }
    let options = ParsingOptions {
        allow_dtd: true,
        nodes_limit: MOST_NODES,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(text.trim_start(), options).map_err(|e| {
        let open = matches!(e, Error::UnclosedRootNode | Error::UnexpectedEndOfStream);
        let begins = text.trim_start().starts_with('<');
        match begins && (open || !text.trim_end().ends_with('>')) {
            true => (ErrorKind::Network, format!("XML that is cut short ({e})")),
            false => (ErrorKind::Shape, format!("no XML ({e})")),
        }
    })?;
    let path: Vec<&str> = rules.records.split('/').collect();
    let root = document.root_element();
    if path.first() != Some(&root.tag_name().name()) {
        let what = format!(
            "the root element {}, where {} was due",
            root.tag_name().name(),
            path[0]
        );
        return Err((ErrorKind::Shape, what));
    }
    let mut found = vec![root];
    for (depth, name) in path.iter().enumerate().skip(1) {
        let parents = found;
        let children = parents.iter().flat_map(Node::children);
        found = children.filter(|n| n.tag_name().name() == *name).collect();
        // A list may be empty, but not what it is in.
        if found.is_empty() && depth + 1 < path.len() {
            let what = format!("no element {}", path[..=depth].join("/"));
            return Err((ErrorKind::Shape, what));
        }
    }
    Ok(Extracted {
        records: found.into_iter().map(record).collect(),
        ..Extracted::default()
    })
}

/// Several elements of one name are a list.
fn record(node: Node<'_, '_>) -> Value {
    let mut fields: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    add(node, "", &mut fields, 0);
    let one_or_all = |(name, mut values): (String, Vec<Value>)| match values.len() {
        1 => (name, values.remove(0)),
        _ => (name, Value::Array(values)),
    };
    Value::Object(fields.into_iter().map(one_or_all).collect::<Map<_, _>>())
}

fn add(node: Node<'_, '_>, path: &str, fields: &mut BTreeMap<String, Vec<Value>>, depth: u32) {
    const DEEPEST: u32 = 20;
    for attribute in node.attributes() {
        let values = fields.entry(format!("{path}@{}", attribute.name()));
        values
            .or_default()
            .push(Value::from(attribute.value().trim()));
    }
    for child in node.children().filter(Node::is_element) {
        let name = format!("{path}{}", child.tag_name().name());
        let texts = child
            .children()
            .filter_map(|n| n.text().filter(|_| n.is_text()));
        let text: String = texts.collect();
        let has_elements = child.children().any(|n| n.is_element());
        if !has_elements || !text.trim().is_empty() {
            fields
                .entry(name.clone())
                .or_default()
                .push(Value::from(text.trim()));
        }
        if depth < DEEPEST {
            add(child, &format!("{name}/"), fields, depth + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(path: &str, text: &str) -> Result<Vec<Value>, ReadError> {
        let rules = Xml {
            records: path.to_owned(),
        };
        Ok(take(&rules, text)?.records)
    }

    #[test]
    fn elements_and_attributes_are_fields() {
        let text = "<?xml version=\"1.0\"?><rss><channel><title>t</title>
            <item id='7'><title><![CDATA[螺纹 & 热卷]]></title><px:q xmlns:px='u'><close u='t'>3.5</close></px:q><tag>a</tag><tag>b</tag></item>
            <item id='8'><title/></item></channel></rss>";
        assert_eq!(
            read("rss/channel/item", text).unwrap(),
            [
                json!({"@id": "7", "title": "螺纹 & 热卷", "q/close": "3.5", "q/close/@u": "t", "tag": ["a", "b"]}),
                json!({"@id": "8", "title": ""})
            ]
        );
        assert!(read("rss/channel/entry", text).unwrap().is_empty());
    }

    #[test]
    fn what_is_damaged_or_a_bomb_is_refused() {
        let bomb = "<!DOCTYPE l [<!ENTITY a \"aaaaaaaaaa\"><!ENTITY b \"&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;\"><!ENTITY c \"&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;\"><!ENTITY d \"&c;&c;&c;&c;&c;&c;&c;&c;&c;&c;\"><!ENTITY e \"&d;&d;&d;&d;&d;&d;&d;&d;&d;&d;\"><!ENTITY f \"&e;&e;&e;&e;&e;&e;&e;&e;&e;&e;\">]><l><i>&f;&f;&f;&f;&f;&f;&f;&f;&f;&f;</i></l>";
        for (path, text, says) in [
            ("a/b", "{}", "no XML"),
            ("l/i", bomb, "no XML"),
            ("a/b", "<html><b/></html>", "the root element html"),
            ("a/b/c", "<a><x/></a>", "no element a/b"),
        ] {
            let (kind, what) = read(path, text).unwrap_err();
            assert_eq!(kind, ErrorKind::Shape);
            assert!(what.contains(says), "{what}");
        }
        for cut in ["<a><b>", "<a><b>x</b><b", "<a><b>x</", "<a x='1"] {
            assert_eq!(read("a/b", cut).unwrap_err().0, ErrorKind::Network, "{cut}");
        }
        assert_eq!(read("a/b", " ").unwrap_err().0, ErrorKind::Empty);
    }
}
