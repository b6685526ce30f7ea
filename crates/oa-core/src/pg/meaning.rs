//! What an error of PostgreSQL means for the caller. Its SQLSTATE decides, in this one place.

use std::error::Error as _;

/// What is to be done about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// The server is gone, shuts down, takes no more connections or takes no writes: connect again, now or later.
    Unreachable,
    /// It says nothing about the statement: somebody else held a lock for too long, two transactions got into each other's way, an
    /// administrator cancelled, a disk is full. The same statement may succeed a minute later.
    Passing,
    /// A table, a column, an index or a privilege is missing: a person has to change the database.
    Misconfigured,
    /// The values are at fault, or a trigger or function of the database says so.
    BadData,
    /// Anything else that the server would refuse again.
    Refused,
}

impl Meaning {
    /// By an error of the driver.
    #[must_use]
    pub fn of(error: &postgres::Error) -> Self {
        if error.is_closed() {
            return Self::Unreachable;
        }
        match error.code() {
            Some(code) => Self::of_sqlstate(code.code()),
            None if error
                .source()
                .is_some_and(<dyn std::error::Error>::is::<std::io::Error>) =>
            {
                Self::Unreachable
            }
            None => Self::Refused,
        }
    }

    /// By the five characters of <https://www.postgresql.org/docs/15/errcodes-appendix.html>.
    #[must_use]
    pub fn of_sqlstate(code: &str) -> Self {
        match (code, code.get(..2).unwrap_or_default()) {
            // 57P01 to 57P05 shutdown, 53300 too many connections, 25006 a standby after a failover; 25P03 and 25P04 the session was ended, because
            // this process stood still within a transaction, or a clock jumped.
            ("53300" | "25006" | "25P03" | "25P04", _) | (_, "08") => Self::Unreachable,
            (_, "57") if code.starts_with("57P") => Self::Unreachable,
            // 53 disk full and out of memory, 40 rollback (serialisation, deadlock), 58 system, XX internal, 55P03 lock, 55006 in use,
            // 57014 cancelled or timed out.
            ("55P03" | "55006" | "57014", _) | (_, "40" | "53" | "58" | "XX") => Self::Passing,
            // 42 is also privileges (42501); 28 login, 3D database, 3F schema.
            (_, "28" | "3D" | "3F" | "42") => Self::Misconfigured,
            // 21 two rows of one key in a statement, 22 data exception, 23 violated constraint, 44 a view's check option, 54 a value too large for
            // an index; 09, 27, 38, 39 and P0 come from triggers and functions, as do codes of one's own.
            (_, "09" | "21" | "22" | "23" | "27" | "38" | "39" | "44" | "54" | "P0") => {
                Self::BadData
            }
            (_, class) if is_ones_own(class) => Self::BadData,
            _ => Self::Refused,
        }
    }

    /// Whether time may heal it.
    #[must_use]
    pub fn is_passing(self) -> bool {
        matches!(self, Self::Unreachable | Self::Passing)
    }
}

/// Whether a class of codes is none of the SQL standard's (0 to 4, A to H) and none of PostgreSQL's own.
fn is_ones_own(class: &str) -> bool {
    class.starts_with(|c: char| matches!(c, '5'..='9' | 'I'..='Z'))
        && !matches!(class, "53" | "54" | "55" | "57" | "58" | "P0" | "XX")
}

/// Whether the server is gone, see [`Meaning::Unreachable`].
#[must_use]
pub fn is_connection_error(error: &postgres::Error) -> bool {
    Meaning::of(error) == Meaning::Unreachable
}

/// Whether time may heal it, see [`Meaning::is_passing`].
#[must_use]
pub fn is_passing(error: &postgres::Error) -> bool {
    Meaning::of(error).is_passing()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_was_seen_means_one_thing() {
        for (meaning, codes) in [
            (
                Meaning::Unreachable,
                &[
                    "08006", "57P01", "57P03", "53300", "25006", "25P03", "25P04",
                ][..],
            ),
            (
                Meaning::Passing,
                &[
                    "40001", "40P01", "55P03", "57014", "53100", "53200", "58030", "XX000",
                ],
            ),
            (
                Meaning::Misconfigured,
                &["42P01", "42703", "42501", "42P10", "3F000", "28P01"],
            ),
            (
                Meaning::BadData,
                &[
                    "22001", "23505", "21000", "P0001", "44000", "54000", "ZZ123",
                ],
            ),
            (Meaning::Refused, &["0A000", "25P02", "55000", ""]),
        ] {
            for code in codes {
                assert_eq!(Meaning::of_sqlstate(code), meaning, "{code}");
            }
        }
    }
}
