//! Types: what a SQLite declaration means, which PostgreSQL type holds every value, and where the two disagree.
//!
//! A declaration is honoured as its author (usually an ORM) meant it. Values that do not fit widen the type within the same
//! meaning (integer to bigint to numeric, varchar(n) to text, date to timestamp). Values of another meaning, such as a text in an
//! INTEGER column, are bad values: their rows are quarantined, unless most values are of that kind (then the declaration is what
//! is wrong) or `--on-bad-value widen` asks for a type that holds anything. A type that the target's table or the mapping fixes is
//! never another one: what it does not hold is quarantined.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use crate::inspect::scan::{ColumnStats, Questions};
use crate::values::conversion::Conversion;

/// The longest `varchar(n)` that PostgreSQL makes; SQLite takes any number there, and looks at none.
const MAX_LENGTH: u32 = 10_485_760;

/// A PostgreSQL type that values can be moved to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PgType {
    Bool,
    Int2,
    Int4,
    Int8,
    Float8,
    /// `numeric` with precision and scale, or without limits
    Numeric(Option<(u16, u16)>),
    Text,
    /// `varchar(n)`: at most n characters
    Varchar(u32),
    Bytea,
    Date,
    Time,
    /// With so many digits of the second.
    Timestamp(u8),
    Timestamptz(u8),
    Json,
    Jsonb,
    /// `interval`, of values that are numbers.
    Interval,
    /// Any other type: its values are texts, which PostgreSQL reads and writes itself.
    Other(TypeName),
}

/// A type's name as `format_type` writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypeName(&'static str);

impl TypeName {
    /// Names live as long as the program: there are as many as types in a database's columns.
    fn new(name: &str) -> Self {
        static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name) {
            return Self(known);
        }
        let known: &'static str = Box::leak(name.to_owned().into_boxed_str());
        names.insert(known);
        Self(known)
    }

    pub(crate) fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for PgType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "boolean",
            Self::Int2 => "smallint",
            Self::Int4 => "integer",
            Self::Int8 => "bigint",
            Self::Float8 => "double precision",
            Self::Numeric(None) => "numeric",
            Self::Numeric(Some((p, s))) => return write!(f, "numeric({p},{s})"),
            Self::Text => "text",
            Self::Varchar(n) => return write!(f, "varchar({n})"),
            Self::Bytea => "bytea",
            Self::Date => "date",
            Self::Time => "time",
            Self::Timestamp(6) => "timestamp",
            Self::Timestamp(p) => return write!(f, "timestamp({p})"),
            Self::Timestamptz(6) => "timestamptz",
            Self::Timestamptz(p) => return write!(f, "timestamptz({p})"),
            Self::Json => "json",
            Self::Jsonb => "jsonb",
            Self::Interval => "interval",
            Self::Other(name) => name.as_str(),
        })
    }
}

impl PgType {
    /// The type of a column that exists, as `format_type` writes it.
    pub(crate) fn of_catalogue(name: &str) -> Self {
        Self::parse(name).unwrap_or_else(|| Self::Other(TypeName::new(name)))
    }

    /// The same type for values that are converted.
    pub(crate) fn of_conversion(self, conversion: Option<Conversion>) -> Self {
        if conversion.is_some_and(Conversion::is_of_durations) && self.to_string() == "interval" {
            Self::Interval
        } else {
            self
        }
    }

    /// Whether its values are read and written as texts by PostgreSQL itself.
    pub(crate) fn is_other(self) -> bool {
        matches!(self, Self::Other(_))
    }

    /// Reads a type as a person or `format_type` writes it; `None` for one whose binary form this program does not know.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let lower = text.trim().to_ascii_lowercase();
        let (name, arguments) = match lower.split_once('(') {
            Some((name, rest)) => {
                let (inner, tail) = rest.split_once(')')?;
                (format!("{}{tail}", name.trim_end()), Some(inner.to_owned()))
            }
            None => (lower.clone(), None),
        };
        let numbers: Vec<u32> = match &arguments {
            Some(inner) => inner
                .split(',')
                .map(|n| n.trim().parse().ok())
                .collect::<Option<_>>()?,
            None => Vec::new(),
        };
        Some(match (name.as_str(), numbers.as_slice()) {
            ("boolean" | "bool", []) => Self::Bool,
            ("smallint" | "int2", []) => Self::Int2,
            ("integer" | "int" | "int4", []) => Self::Int4,
            ("bigint" | "int8", []) => Self::Int8,
            ("double precision" | "float8", []) => Self::Float8,
            ("numeric" | "decimal", []) => Self::Numeric(None),
            ("numeric" | "decimal", [p]) => Self::Numeric(Some((u16::try_from(*p).ok()?, 0))),
            ("numeric" | "decimal", [p, s]) => {
                Self::Numeric(Some((u16::try_from(*p).ok()?, u16::try_from(*s).ok()?)))
            }
            ("text" | "varchar" | "character varying", []) => Self::Text,
            ("varchar" | "character varying", [n]) => Self::Varchar(*n),
            ("bytea", []) => Self::Bytea,
            ("date", []) => Self::Date,
            ("time" | "time without time zone", []) => Self::Time,
            ("timestamp" | "timestamp without time zone", []) => Self::Timestamp(6),
            ("timestamptz" | "timestamp with time zone", []) => Self::Timestamptz(6),
            ("timestamp" | "timestamp without time zone", [p @ 0..=6]) => {
                Self::Timestamp(u8::try_from(*p).ok()?)
            }
            ("timestamptz" | "timestamp with time zone", [p @ 0..=6]) => {
                Self::Timestamptz(u8::try_from(*p).ok()?)
            }
            ("json", []) => Self::Json,
            ("jsonb", []) => Self::Jsonb,
            _ => return None,
        })
    }

    /// Whether it is one of the integer types, which can be identities.
    pub(crate) fn is_integer(self) -> bool {
        matches!(self, Self::Int2 | Self::Int4 | Self::Int8)
    }
}

/// What a declaration means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TypeFamily {
    /// Whole numbers of this many bits, where the type is fixed.
    Integer(u8),
    Float,
    Decimal(Option<(u16, u16)>),
    Bool,
    Text(Option<u32>),
    Blob,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Json {
        binary_only: bool,
    },
    /// No type, or a word that means nothing: the values decide.
    Values,
    /// PostgreSQL decides, value by value.
    Other(TypeName),
}

impl TypeFamily {
    /// The words that ORMs and people use, then SQLite's own rules of affinity.
    fn of_declaration(declared: &str) -> Self {
        let upper = declared.trim().to_ascii_uppercase();
        let (word, rest) = upper.split_once('(').unwrap_or((&upper, ""));
        let word = word.trim();
        let numbers: Vec<u32> = rest
            .trim_end_matches(')')
            .split(',')
            .filter_map(|n| n.trim().parse().ok())
            .collect();
        let has = |part: &str| word.contains(part);
        if has("BOOL") {
            Self::Bool
        } else if has("DATETIME") || has("TIMESTAMP") {
            Self::Timestamp
        } else if word == "DATE" {
            Self::Date
        } else if word == "TIME" {
            Self::Time
        } else if has("JSON") {
            Self::Json { binary_only: false }
        } else if has("INT") && !has("POINT") && !has("INTERVAL") {
            // SQLite keeps 64 bits under every such word, and today's values say nothing about tomorrow's.
            Self::Integer(64)
        } else if has("CHAR") || has("CLOB") || has("TEXT") || has("STRING") {
            let limit = numbers.first().copied();
            Self::Text(limit.filter(|n| (1..=MAX_LENGTH).contains(n) && !has("TEXT")))
        } else if has("BLOB") || has("BINARY") || has("BYTEA") {
            Self::Blob
        } else if has("REAL") || has("FLOA") || has("DOUB") {
            Self::Float
        } else if has("NUMERIC") || has("DECIMAL") || word == "DEC" || has("NUMBER") || has("MONEY")
        {
            Self::Decimal(match numbers.as_slice() {
                [p] if (1..=1000).contains(p) => Some((*p as u16, 0)),
                [p, s] if (1..=1000).contains(p) && s <= p => Some((*p as u16, *s as u16)),
                _ => None,
            })
        } else {
            Self::Values
        }
    }

    fn of_type(pg: PgType) -> Self {
        match pg {
            PgType::Bool => Self::Bool,
            PgType::Int2 => Self::Integer(16),
            PgType::Int4 => Self::Integer(32),
            PgType::Int8 => Self::Integer(64),
            PgType::Float8 => Self::Float,
            PgType::Numeric(limits) => Self::Decimal(limits),
            PgType::Text => Self::Text(None),
            PgType::Varchar(n) => Self::Text(Some(n)),
            PgType::Bytea => Self::Blob,
            PgType::Date => Self::Date,
            PgType::Time => Self::Time,
            PgType::Timestamp(_) => Self::Timestamp,
            PgType::Timestamptz(_) => Self::Timestamptz,
            PgType::Other(name) => Self::Other(name),
            // Each value is tried.
            PgType::Interval => Self::Values,
            PgType::Json | PgType::Jsonb => Self::Json {
                binary_only: pg == PgType::Jsonb,
            },
        }
    }
}

/// Where the meaning of a column comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Meaning<'a> {
    Declared(&'a str),
    /// The type of a column that exists in the target already, or that the mapping asks for.
    Fixed(PgType),
}

impl Meaning<'_> {
    fn family(self) -> TypeFamily {
        match self {
            Self::Declared(text) => TypeFamily::of_declaration(text),
            Self::Fixed(pg) => TypeFamily::of_type(pg),
        }
    }

    /// What the value scan has to find out for a column of this meaning.
    pub(crate) fn questions(self) -> Questions {
        let all = Questions {
            characters: false,
            times: true,
            bools: true,
            json: true,
            decimals: true,
        };
        let none = Questions::default();
        match self.family() {
            TypeFamily::Text(limit) => Questions {
                characters: limit.is_some(),
                ..none
            },
            TypeFamily::Bool => Questions {
                bools: true,
                ..none
            },
            TypeFamily::Date
            | TypeFamily::Time
            | TypeFamily::Timestamp
            | TypeFamily::Timestamptz => Questions {
                times: true,
                ..none
            },
            TypeFamily::Json { .. } => Questions { json: true, ..none },
            TypeFamily::Decimal(_) | TypeFamily::Integer(_) => Questions {
                decimals: true,
                ..none
            },
            TypeFamily::Float | TypeFamily::Blob | TypeFamily::Other(_) => none,
            TypeFamily::Values => all,
        }
    }
}

/// What is done with values that the declared meaning does not cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum OnBadValue {
    /// Keep their rows in oa.rejects and load the rest
    #[default]
    Quarantine,
    /// Change nothing and end with an error
    Fail,
    /// Take a type that holds them (text or bytea) for the whole column
    Widen,
}

/// The choice for one column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TypeChoice {
    pub(crate) pg: PgType,
    /// Values that it does not hold.
    pub(crate) bad: u64,
    /// Some values may not fit: each is tried.
    pub(crate) doubtful: bool,
    /// Where declaration and data disagree, in a sentence.
    pub(crate) note: Option<String>,
}

/// Chooses the type of a column. `zoned` asks for `timestamptz` where a timestamp without an offset is meant.
pub(crate) fn choose(
    meaning: Meaning<'_>,
    stats: &ColumnStats,
    mode: OnBadValue,
    zoned: bool,
) -> TypeChoice {
    let declared = match meaning {
        Meaning::Declared(text) => text,
        Meaning::Fixed(pg) => return fixed(pg, stats, zoned),
    };
    let family = meaning.family();
    let (pg, bad) = within(family, stats, zoned);
    let name = if declared.is_empty() {
        "no declared type".to_owned()
    } else {
        format!("declared {declared}")
    };
    let choice = |pg, bad, note| TypeChoice {
        pg,
        bad,
        doubtful: false,
        note,
    };
    if bad == 0 {
        let widened = match family {
            TypeFamily::Integer(_) => matches!(pg, PgType::Numeric(_)),
            TypeFamily::Text(Some(_)) => pg == PgType::Text,
            TypeFamily::Date => pg == PgType::Timestamp(6),
            TypeFamily::Decimal(Some(limits)) => pg != PgType::Numeric(Some(limits)),
            _ => false,
        };
        let note = widened.then(|| format!("{name}, but its values need {pg}"));
        return choice(pg, bad, note);
    }
    let values = stats.values();
    if mode == OnBadValue::Widen || bad * 2 > values {
        let (pg, left) = by_values(stats, mode == OnBadValue::Widen);
        let note = format!(
            "{name}, but {bad} of {values} values are not that; taken as {pg}{}",
            counted_time(family, stats)
        );
        return choice(pg, left, Some(note));
    }
    let note = format!("{name}, but {bad} of {values} values are not that");
    choice(pg, bad, Some(note))
}

/// What numbers in a column of timestamps probably count, as advice.
fn counted_time(family: TypeFamily, stats: &ColumnStats) -> String {
    if family != TypeFamily::Timestamp || stats.integers == 0 {
        return String::new();
    }
    // Of the years 1973 to 2128.
    let (unit, from) = match stats.max {
        100_000_000..5_000_000_000 => ("seconds since 1970", "epoch_s"),
        100_000_000_000..5_000_000_000_000 => ("milliseconds since 1970", "epoch_ms"),
        100_000_000_000_000..5_000_000_000_000_000 => ("microseconds since 1970", "epoch_us"),
        600_000_000_000_000_000..700_000_000_000_000_000 => ("ticks of .NET", "dotnet_ticks"),
        _ => return String::new(),
    };
    format!("; if they are {unit}, map them with from = \"{from}\"")
}

/// A type that stays as it is, whatever the values are.
fn fixed(pg: PgType, stats: &ColumnStats, zoned: bool) -> TypeChoice {
    let zoned = zoned && matches!(pg, PgType::Timestamptz(_));
    let (needed, bad) = within(TypeFamily::of_type(pg), stats, zoned);
    // The narrowest type that holds all values may be narrower than this one.
    let holds = needed == pg
        || match (needed, pg) {
            (PgType::Int2, PgType::Int4 | PgType::Int8)
            | (PgType::Int4, PgType::Int8)
            | (PgType::Jsonb, PgType::Json) => true,
            (_, PgType::Numeric(None)) => needed.is_integer(),
            _ => false,
        };
    // Shorter fractions are counted by nobody; each value is tried.
    let short = matches!(pg, PgType::Timestamp(p) | PgType::Timestamptz(p) if p < 6);
    let doubtful = stats.values() > 0 && (pg.is_other() || short || bad > 0 || !holds);
    let naive = stats.timestamps > 0 && matches!(pg, PgType::Timestamptz(_)) && !zoned;
    let note = if naive {
        Some(format!(
            "{pg} is asked for, but {} timestamps have no offset; --timestamps-in ZONE says which zone's they are",
            stats.timestamps
        ))
    } else if pg.to_string() == "interval" && stats.integers + stats.reals > 0 {
        Some(
            "interval is asked for, but there are numbers; the mapping says what they count: from = \"duration_us\" (as Django), \"duration_ms\" or \"duration_s\""
                .to_owned(),
        )
    } else if bad > 0 {
        Some(format!(
            "{pg} is asked for, but {bad} of {} values are not that",
            stats.values()
        ))
    } else if !holds && !pg.is_other() && !short {
        Some(format!("{pg} is asked for, but some values need {needed}"))
    } else {
        None
    };
    TypeChoice {
        pg,
        bad,
        doubtful,
        note,
    }
}

/// The narrowest type of the family that holds all of its values, and how many values are none of the family's.
fn within(family: TypeFamily, stats: &ColumnStats, zoned: bool) -> (PgType, u64) {
    let numbers = stats.integers + stats.reals;
    match family {
        TypeFamily::Integer(bits) => {
            let bad = stats.texts - stats.decimals + stats.blobs;
            if stats.reals > 0 || stats.decimals > 0 {
                return (PgType::Numeric(None), bad);
            }
            (integer(stats, bits), bad)
        }
        TypeFamily::Float => (
            PgType::Float8,
            stats.texts + stats.blobs + stats.beyond_double,
        ),
        TypeFamily::Decimal(limits) => {
            let fits = limits.is_some_and(|(p, s)| {
                stats.scale <= u64::from(s)
                    && stats.whole_digits <= u64::from(p - s)
                    && stats.infinite == 0
            });
            (
                PgType::Numeric(limits.filter(|_| fits)),
                stats.texts - stats.decimals + stats.blobs,
            )
        }
        TypeFamily::Bool => (
            PgType::Bool,
            stats.not_bool_integers + stats.reals + stats.blobs + stats.texts - stats.bools,
        ),
        TypeFamily::Text(limit) => {
            let held = limit.filter(|n| stats.longest <= u64::from(*n));
            (
                held.map_or(PgType::Text, PgType::Varchar),
                stats.unstorable_texts + stats.blobs,
            )
        }
        TypeFamily::Blob => (PgType::Bytea, numbers),
        TypeFamily::Date if stats.timestamps > stats.dates => (
            PgType::Timestamp(6),
            numbers + stats.blobs + stats.texts - stats.timestamps,
        ),
        TypeFamily::Date => (
            PgType::Date,
            numbers + stats.blobs + stats.texts - stats.dates,
        ),
        TypeFamily::Time => (
            PgType::Time,
            numbers + stats.blobs + stats.texts - stats.times,
        ),
        TypeFamily::Timestamp | TypeFamily::Timestamptz => {
            let others = numbers + stats.blobs + stats.texts;
            if stats.zoned > 0 && stats.zoned >= stats.timestamps {
                (PgType::Timestamptz(6), others - stats.zoned)
            } else if zoned {
                (PgType::Timestamptz(6), others - stats.timestamps)
            } else if family == TypeFamily::Timestamptz {
                (PgType::Timestamptz(6), others - stats.zoned)
            } else {
                (PgType::Timestamp(6), others - stats.timestamps)
            }
        }
        TypeFamily::Json { binary_only } => {
            let others = stats.infinite + stats.blobs + stats.texts - stats.jsons;
            if binary_only || (stats.jsons_reordered == 0 && stats.jsons_unfit == 0) {
                (PgType::Jsonb, others + stats.jsons_unfit)
            } else {
                (PgType::Json, others)
            }
        }
        TypeFamily::Values => by_values(stats, false),
        TypeFamily::Other(name) => (PgType::Other(name), 0),
    }
}

/// The narrowest type of at most so many bits, or a wider one where the values need it.
fn integer(stats: &ColumnStats, bits: u8) -> PgType {
    let within = |min: i64, max: i64| stats.integers == 0 || (stats.min >= min && stats.max <= max);
    if bits <= 16 && within(i16::MIN.into(), i16::MAX.into()) {
        PgType::Int2
    } else if bits <= 32 && within(i32::MIN.into(), i32::MAX.into()) {
        PgType::Int4
    } else {
        PgType::Int8
    }
}

/// A type for what is there, whatever was declared. `anything` also finds room for texts that are none.
fn by_values(stats: &ColumnStats, anything: bool) -> (PgType, u64) {
    let numbers = stats.integers + stats.reals;
    let unstorable = stats.unstorable_texts;
    if stats.values() == 0 {
        return (PgType::Text, 0);
    }
    if stats.texts == 0 && stats.blobs == 0 {
        if stats.reals == 0 {
            return (PgType::Int8, 0);
        }
        return if stats.beyond_double == 0 {
            (PgType::Float8, 0)
        } else {
            (PgType::Numeric(None), 0)
        };
    }
    if stats.blobs > 0 && (stats.texts + numbers == 0 || anything) {
        return (PgType::Bytea, 0);
    }
    if stats.blobs > 0 && stats.blobs >= stats.texts + numbers {
        return (PgType::Bytea, numbers);
    }
    if unstorable > 0 && anything {
        return (PgType::Bytea, 0);
    }
    (PgType::Text, unstorable + stats.blobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(text: &str, stats: &ColumnStats) -> TypeChoice {
        choose(
            Meaning::Declared(text),
            stats,
            OnBadValue::Quarantine,
            false,
        )
    }

    #[test]
    fn orm_types_keep_their_meaning() {
        for (text, expected) in [
            ("INTEGER", PgType::Int8),
            ("SMALLINT", PgType::Int8),
            ("BIGINT", PgType::Int8),
            ("VARCHAR(20)", PgType::Varchar(20)),
            ("VARCHAR(16777215)", PgType::Text),
            ("TEXT", PgType::Text),
            ("DATETIME", PgType::Timestamp(6)),
            ("DATE", PgType::Date),
            ("TIME", PgType::Time),
            ("BOOLEAN", PgType::Bool),
            ("JSON", PgType::Jsonb),
            ("NUMERIC(10, 2)", PgType::Numeric(Some((10, 2)))),
            ("NUMERIC(0)", PgType::Numeric(None)),
            ("FLOAT", PgType::Float8),
            ("BLOB", PgType::Bytea),
        ] {
            assert_eq!(
                declared(text, &ColumnStats::default()).pg,
                expected,
                "{text}"
            );
        }
    }

    #[test]
    fn an_integer_column_with_fractions_becomes_numeric() {
        let stats = ColumnStats {
            integers: 2,
            min: 1,
            max: 1 << 40,
            ..ColumnStats::default()
        };
        let mixed = ColumnStats { reals: 1, ..stats };
        assert_eq!(declared("INTEGER", &mixed).pg, PgType::Numeric(None));
    }

    #[test]
    fn a_few_texts_in_an_integer_column_are_bad_and_many_mean_that_it_is_text() {
        let few = ColumnStats {
            integers: 9,
            max: 5,
            texts: 1,
            ..ColumnStats::default()
        };
        assert_eq!(
            (declared("INTEGER", &few).pg, declared("INTEGER", &few).bad),
            (PgType::Int8, 1)
        );
        let many = ColumnStats {
            texts: 10,
            ..few.clone()
        };
        assert_eq!(
            (
                declared("INTEGER", &many).pg,
                declared("INTEGER", &many).bad
            ),
            (PgType::Text, 0)
        );
        let widened = choose(Meaning::Declared("INTEGER"), &few, OnBadValue::Widen, false);
        assert_eq!((widened.pg, widened.bad), (PgType::Text, 0));
    }

    #[test]
    fn every_type_reads_back_as_it_is_written() {
        for text in [
            "boolean",
            "smallint",
            "integer",
            "bigint",
            "double precision",
            "numeric",
            "numeric(10,2)",
            "text",
            "varchar(20)",
            "bytea",
            "date",
            "time",
            "timestamp",
            "timestamptz",
            "json",
            "jsonb",
        ] {
            assert_eq!(
                PgType::parse(text).map(|t| t.to_string()).as_deref(),
                Some(text)
            );
        }
        assert_eq!(
            PgType::parse("timestamp(3) without time zone"),
            Some(PgType::Timestamp(3))
        );
        let other = PgType::of_catalogue("character(36)");
        assert!(other.is_other() && other == PgType::of_catalogue("character(36)"));
        assert_eq!(
            PgType::parse("character varying(5)"),
            Some(PgType::Varchar(5))
        );
    }
}
