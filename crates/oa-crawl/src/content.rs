//! What a day consists of, as one number: two days with the same one are the same page under two dates.

use std::path::Path;

use oa_core::base::exact;
use serde_json::Value;

use crate::collect::Collected;
use crate::source::Source;
use crate::validate::Validated;
use crate::validate::content::Content;

/// What the site gave for a day, in hexadecimal: the values of its rows, in whatever order they came, without what the source file puts
/// in by itself. Of pictures, what they show, wherever they are from. `None` when nothing came.
pub(crate) fn fingerprint(
    source: &Source,
    collected: &Collected,
    validated: &Validated,
) -> Option<String> {
    if source.image.is_none() {
        return validated.content.clone();
    }
    let mut content = Content::default();
    for record in collected.records.iter() {
        if let Some(name) = record.ok().and_then(|r| picture(&r)) {
            content.add(&name);
        }
    }
    content.finish()
}

/// Its file is named by its content.
fn picture(record: &Value) -> Option<String> {
    let path = record.get("local_path").and_then(exact::text)?;
    let name = Path::new(path).file_name()?;
    Some(name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parse;
    use crate::validate::{CollectionTime, validate};
    use serde_json::json;

    fn of(file: &str, day: &str, records: &[Value]) -> Option<String> {
        let source = parse("x", file).unwrap();
        let collected = Collected {
            records: records.to_vec().into(),
            ..Collected::default()
        };
        let time = CollectionTime::now(day.parse().unwrap());
        let validated = validate(&source, time, &collected.records).unwrap();
        fingerprint(&source, &collected, &validated)
    }

    #[test]
    fn a_page_is_the_same_under_another_date_and_in_another_order() {
        let indicators = |day: &str, rows: &[(&str, &str)]| {
            let file = include_str!("../sources/rdqh-indicators.toml");
            let record = |(variety, rsi): &(&str, &str)| json!({"variety": variety, "rsi": rsi, "macd": "1", "kdj": "2", "ma": "3"});
            let records: Vec<Value> = rows.iter().map(record).collect();
            of(file, day, &records)
        };
        let first = indicators("2026-11-26", &[("RB", "55.5"), ("HC", "40")]);
        assert!(first.is_some());
        for same in [
            [("HC", "40"), ("RB", "55.5")],
            // As it is stored, whatever it looks like.
            [("螺纹", "55.50"), ("hc", " 40 ")],
        ] {
            assert_eq!(indicators("2026-11-27", &same), first, "{same:?}");
        }
        for other in [
            &[("RB", "55.5"), ("HC", "41")][..],
            &[("RB", "55.5")],
            &[("RB", "40"), ("HC", "55.5")],
        ] {
            assert_ne!(indicators("2026-11-27", other), first, "{other:?}");
        }
        assert_eq!(indicators("2026-11-27", &[]), None);
    }

    #[test]
    fn a_picture_is_what_it_shows_wherever_it_is_from() {
        let picture = |url: &str, path: &str| {
            let file = include_str!("../sources/jiaoyikecha-blueprint.toml");
            let record = json!({"imageUrl": url, "local_path": path, "post": url});
            of(file, "2026-11-27", &[record])
        };
        let first = picture("https://x/1.jpg", "/var/lib/oa/files/ab/abc.jpg");
        assert_eq!(picture("https://x/2.jpg", "/srv/files/ab/abc.jpg"), first);
        assert_ne!(
            picture("https://x/1.jpg", "/var/lib/oa/files/ab/abd.jpg"),
            first
        );
    }
}
