//! How many records a program's result file holds. The records themselves are not kept in memory.

use std::fmt;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Counts the records of a file: the elements of a JSON array, the objects of JSON lines, or what `{"records": N}` says.
/// Anything else is an error: a number that means something else than it seems is worse than none.
pub(crate) fn count(path: &Path) -> Result<u64> {
    count_values(path).with_context(|| {
        format!(
            "could not count the records in {}, which must hold JSON objects, one a line, or one JSON array, or {{\"records\": N}}",
            path.display()
        )
    })
}

fn count_values(path: &Path) -> Result<u64> {
    // A pipe would be waited for without end.
    if !path.metadata()?.is_file() {
        bail!("it is not a regular file");
    }
    let reader = BufReader::new(File::open(path)?);
    let mut objects = 0;
    let mut alone = None;
    for value in serde_json::Deserializer::from_reader(reader).into_iter() {
        let value: Counted = value?;
        if matches!(alone, Some(Counted::Array(_)))
            || objects > 0 && matches!(value, Counted::Array(_))
        {
            bail!("there is something beside the array");
        }
        if !matches!(value, Counted::Array(_)) {
            objects += 1;
        }
        alone = (objects <= 1).then_some(value);
    }
    match alone {
        Some(Counted::Array(elements)) => Ok(elements),
        Some(Counted::Summary(records)) => records
            .as_u64()
            .with_context(|| "\"records\" is not a whole number".to_owned()),
        Some(Counted::Object) | None => Ok(objects),
    }
}

enum Counted {
    Array(u64),
    /// An object with a field `records`, which has this value.
    Summary(Value),
    Object,
}

impl<'de> Deserialize<'de> for Counted {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Counting;
        impl<'de> Visitor<'de> for Counting {
            type Value = Counted;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object or an array")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Counted, A::Error> {
                let mut elements = 0;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    elements += 1;
                }
                Ok(Counted::Array(elements))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Counted, A::Error> {
                let mut counted = Counted::Object;
                while let Some(key) = map.next_key::<String>()? {
                    if key == "records" {
                        counted = Counted::Summary(map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(counted)
            }
        }
        deserializer.deserialize_any(Counting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<u64> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        count(file.path())
    }

    #[test]
    fn records_are_counted_in_every_usual_form() {
        assert_eq!(of("{\"a\":1}\n{\"a\":2}\n").unwrap(), 2);
        assert_eq!(of("{\"records\":[1]}\n{\"records\":5}\n{}").unwrap(), 3);
        assert_eq!(of(" \n[{\"a\": [1, 2]}, {}, 3]").unwrap(), 3);
        assert_eq!(
            of("{\"records\": 75, \"day\": \"2025-11-26\"}").unwrap(),
            75
        );
        assert_eq!(of("{\"rows\": 75}").unwrap(), 1);
        assert_eq!(of("").unwrap(), 0);
        assert_eq!(of("[]").unwrap(), 0);
    }

    #[test]
    fn anything_else_is_an_error_and_not_a_number() {
        for text in [
            "75",
            "null",
            "\"done\"",
            "done",
            "[1, 2",
            "[1]\n[2]",
            "{}\n[2]",
            "[2]\n{}",
            "{\"records\": \"75\"}",
            "{\"records\": [1, 2]}",
            "{\"records\": -1}",
            "{\"a\": 1}\n{\"a\":",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
