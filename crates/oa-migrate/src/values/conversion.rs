//! Numbers that mean points in time or lengths of time: what an application counts, turned into a timestamp or an interval on
//! purpose.
//!
//! The loader goes from the number to microseconds ([`Conversion::micros`]); the proof goes back from PostgreSQL's microseconds
//! to the number ([`Conversion::write_back`]) and compares with what SQLite holds, so nothing is rounded unnoticed.

use std::borrow::Cow;

use rusqlite::types::ValueRef;
use serde::{Deserialize, Serialize};

use super::{decimal_text, time};

/// What the values of a column are, as the mapping says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Conversion {
    /// Seconds since 1970-01-01 UTC, perhaps with a fraction.
    EpochS,
    /// Milliseconds since then.
    EpochMs,
    /// Microseconds since then.
    EpochUs,
    /// Julian days, as `julianday()` counts them: to the millisecond.
    Julian,
    /// Steps of 100 ns since 0001-01-01.
    DotnetTicks,
    /// Lengths of time in seconds, milliseconds or microseconds.
    DurationS,
    DurationMs,
    DurationUs,
    /// Lengths of time as the date and time that is so long after 1970-01-01 00:00.
    SinceEpoch,
    /// Texts whose second has more digits than microseconds need; the rest is cut off.
    CutToMicroseconds,
}

/// Microseconds from 1970-01-01 to 2000-01-01.
const EPOCH: i128 = 946_684_800_000_000;
/// Microseconds from 0001-01-01 to 2000-01-01.
const YEAR_ONE: i128 = 63_082_281_600_000_000;
/// Milliseconds from the beginning of Julian days to 2000-01-01 00:00 UTC.
const JULIAN: i128 = 211_813_444_800_000;
/// The years 1 to 9999, which every reader of timestamps takes.
const RANGE: std::ops::Range<i128> = -63_082_281_600_000_000..252_455_616_000_000_000;

impl Conversion {
    pub(crate) fn is_of_numbers(self) -> bool {
        !matches!(self, Self::CutToMicroseconds | Self::SinceEpoch)
    }

    /// Powers of ten between the unit and a microsecond.
    fn shift(self) -> Option<u32> {
        match self {
            Self::EpochS | Self::DurationS => Some(6),
            Self::EpochMs | Self::DurationMs => Some(3),
            Self::EpochUs | Self::DurationUs => Some(0),
            _ => None,
        }
    }

    pub(crate) fn is_of_durations(self) -> bool {
        matches!(
            self,
            Self::DurationS | Self::DurationMs | Self::DurationUs | Self::SinceEpoch
        )
    }

    /// Microseconds from where it counts to 2000-01-01.
    fn offset(self) -> i128 {
        if self.is_of_durations() { 0 } else { EPOCH }
    }

    /// Microseconds, of points in time since 2000-01-01 UTC; none where the value is no such number, or finer than a microsecond.
    pub(crate) fn micros(self, value: ValueRef<'_>) -> Option<i64> {
        let micros = match (self, value) {
            (Self::SinceEpoch, ValueRef::Text(text)) => {
                let stamp = time::parse_timestamp(text).filter(|s| s.offset_seconds.is_none())?;
                i128::from(stamp.micros) + EPOCH
            }
            (Self::Julian, ValueRef::Real(x)) => {
                let millis = (x * 86_400_000.0).round();
                if !(0.0..1e15).contains(&millis)
                    || (millis / 86_400_000.0).to_bits() != x.to_bits()
                {
                    return None;
                }
                (millis as i128 - JULIAN) * 1000
            }
            (Self::Julian, ValueRef::Integer(n)) => (i128::from(n) * 86_400_000 - JULIAN) * 1000,
            (Self::DotnetTicks, ValueRef::Integer(n)) if n % 10 == 0 => {
                i128::from(n / 10) - YEAR_ONE
            }
            (_, ValueRef::Integer(n)) => i128::from(n) * 10i128.pow(self.shift()?) - self.offset(),
            (_, ValueRef::Real(x)) => {
                scaled(decimal_text(x).as_bytes(), self.shift()?)? - self.offset()
            }
            (_, ValueRef::Text(text)) => scaled(text, self.shift()?)? - self.offset(),
            _ => return None,
        };
        if self.is_of_durations() {
            return micros.try_into().ok();
        }
        RANGE.contains(&micros).then_some(micros)?.try_into().ok()
    }

    /// Appends the date and time that is a length of time after 1970-01-01; false where the calendar has none.
    pub(crate) fn write_since_epoch(micros: i64, out: &mut Vec<u8>) -> bool {
        let at = i128::from(micros) - EPOCH;
        let Some(at) = RANGE
            .contains(&at)
            .then_some(at)
            .and_then(|at| at.try_into().ok())
        else {
            return false;
        };
        time::write_timestamp(at, out);
        true
    }

    /// Appends the number, as a decimal, that microseconds since 2000-01-01 UTC stand for; false where there is none.
    pub(crate) fn write_back(self, micros: i64, out: &mut Vec<u8>) -> bool {
        let micros = i128::from(micros);
        let text = match (self, self.shift()) {
            (_, Some(shift)) => {
                let unit = 10i128.pow(shift);
                let all = micros + self.offset();
                let sign = if all < 0 { "-" } else { "" };
                let (whole, rest) = (all.abs() / unit, all.abs() % unit);
                let width = shift as usize;
                let fraction = if rest == 0 {
                    String::new()
                } else {
                    format!(".{rest:0width$}").trim_end_matches('0').to_owned()
                };
                format!("{sign}{whole}{fraction}")
            }
            (Self::Julian, None) if micros % 1000 == 0 => {
                let millis = micros / 1000 + JULIAN;
                decimal_text(millis as f64 / 86_400_000.0)
            }
            (Self::DotnetTicks, None) => ((micros + YEAR_ONE) * 10).to_string(),
            _ => return false,
        };
        out.extend_from_slice(text.as_bytes());
        true
    }
}

/// The decimal number of a text, times a power of ten; none where it is no such number, or not whole then.
fn scaled(text: &[u8], shift: u32) -> Option<i128> {
    let (sign, digits) = match text.split_first()? {
        (b'-', rest) => (-1, rest),
        _ => (1, text),
    };
    let (whole, fraction) = match digits.iter().position(|b| *b == b'.') {
        Some(at) => (&digits[..at], &digits[at + 1..]),
        None => (digits, &[][..]),
    };
    if whole.is_empty() || whole.len() > 20 {
        return None;
    }
    let mut number = 0i128;
    let places = shift as usize;
    let padded = fraction
        .iter()
        .copied()
        .chain(std::iter::repeat(b'0'))
        .take(places);
    for digit in whole.iter().copied().chain(padded) {
        if !digit.is_ascii_digit() {
            return None;
        }
        number = number * 10 + i128::from(digit - b'0');
    }
    let finer = fraction.get(places..).unwrap_or_default();
    finer.iter().all(|b| *b == b'0').then_some(sign * number)
}

/// A time without the digits of its second beyond microseconds.
pub(crate) fn cut_fraction(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(point) = text.iter().position(|b| *b == b'.') else {
        return Cow::Borrowed(text);
    };
    let end = text[point + 1..]
        .iter()
        .position(|b| !b.is_ascii_digit())
        .map_or(text.len(), |n| point + 1 + n);
    if end - point <= 7 {
        return Cow::Borrowed(text);
    }
    Cow::Owned([&text[..point + 7], &text[end..]].concat())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn back(conversion: Conversion, micros: i64) -> String {
        let mut out = Vec::new();
        assert!(conversion.write_back(micros, &mut out));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn known_numbers_mean_known_times() {
        let at = |c: Conversion, v| c.micros(v);
        // 2024-01-02 03:04:05 UTC
        let expected = Some(757_479_845_000_000);
        assert_eq!(
            at(Conversion::EpochS, ValueRef::Integer(1_704_164_645)),
            expected
        );
        assert_eq!(
            at(Conversion::EpochMs, ValueRef::Integer(1_704_164_645_000)),
            expected
        );
        assert_eq!(
            at(Conversion::EpochS, ValueRef::Text(b"1704164645.0")),
            expected
        );
        assert_eq!(
            at(
                Conversion::DotnetTicks,
                ValueRef::Integer(638_397_614_450_000_000)
            ),
            expected
        );
        assert_eq!(at(Conversion::Julian, ValueRef::Real(2_451_544.5)), Some(0));
        assert_eq!(
            at(Conversion::EpochS, ValueRef::Real(1_704_164_645.5)),
            Some(757_479_845_500_000)
        );
        // Finer than a microsecond, beyond the calendar, no number.
        assert_eq!(
            at(
                Conversion::DotnetTicks,
                ValueRef::Integer(638_397_614_450_000_001)
            ),
            None
        );
        assert_eq!(
            at(Conversion::EpochMs, ValueRef::Text(b"1704164645000.0001")),
            None
        );
        assert_eq!(at(Conversion::EpochS, ValueRef::Integer(i64::MAX)), None);
        assert_eq!(at(Conversion::EpochS, ValueRef::Text(b"2024-01-02")), None);
        assert_eq!(
            cut_fraction(b"10:00:00.1234567Z").as_ref(),
            b"10:00:00.123456Z"
        );
    }

    proptest! {
        #[test]
        fn what_is_loaded_comes_back(n in -60_000_000_000i64..250_000_000_000) {
            for conversion in [Conversion::EpochS, Conversion::EpochMs, Conversion::EpochUs] {
                let micros = conversion.micros(ValueRef::Integer(n)).unwrap();
                prop_assert_eq!(back(conversion, micros), n.to_string());
            }
        }

        #[test]
        fn days_of_sqlite_come_back(millis in 148_699_540_800_000i64..464_269_060_799_999) {
            let day = millis as f64 / 86_400_000.0;
            let micros = Conversion::Julian.micros(ValueRef::Real(day)).unwrap();
            prop_assert_eq!(back(Conversion::Julian, micros), decimal_text(day));
        }
    }
}
