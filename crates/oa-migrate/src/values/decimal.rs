//! Decimal numbers of any length: a normal form for comparing, and PostgreSQL's binary `numeric`.
//!
//! The normal form is plain digits without exponent, without leading zeros, without trailing zeros after the point, and without
//! a sign before zero; the infinities are `Infinity` and `-Infinity`.

/// Digits that a text or an exponent may ask for; PostgreSQL holds more, nobody means more.
const MAX_DIGITS: i64 = 2_000;

/// A decimal number in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Digits before the point, without leading zeros.
    whole: Vec<u8>,
    /// Digits after the point, without trailing zeros.
    fraction: Vec<u8>,
    /// Digits after the point that the text showed.
    shown_scale: usize,
}

impl Decimal {
    /// Reads an optional sign, digits, an optional point and an optional exponent. Nothing else.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let (negative, rest) = match text.first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match rest.iter().position(|b| matches!(b, b'e' | b'E')) {
            Some(at) => (
                &rest[..at],
                std::str::from_utf8(&rest[at + 1..])
                    .ok()?
                    .parse::<i64>()
                    .ok()?,
            ),
            None => (rest, 0),
        };
        let (whole, fraction) = match mantissa.iter().position(|b| *b == b'.') {
            Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
            None => (mantissa, &[][..]),
        };
        let digits: Vec<u8> = whole.iter().chain(fraction).copied().collect();
        if digits.is_empty()
            || !digits.iter().all(u8::is_ascii_digit)
            || exponent.abs() > MAX_DIGITS
            || digits.len() as i64 > MAX_DIGITS
        {
            return None;
        }
        Some(Self::from_digits(
            negative,
            &digits,
            whole.len() as i64 + exponent,
        ))
    }

    /// `0.digits * 10^point`.
    fn from_digits(negative: bool, digits: &[u8], point: i64) -> Self {
        let mut whole = Vec::new();
        let mut fraction = Vec::new();
        if point < 0 {
            fraction.resize(usize::try_from(-point).unwrap_or(0), b'0');
        }
        for (i, digit) in digits.iter().enumerate() {
            if (i as i64) < point {
                whole.push(*digit);
            } else {
                fraction.push(*digit);
            }
        }
        while (whole.len() as i64) < point {
            whole.push(b'0');
        }
        let shown_scale = fraction.len();
        let zeros = whole.iter().take_while(|b| **b == b'0').count();
        whole.drain(..zeros);
        while fraction.last() == Some(&b'0') {
            fraction.pop();
        }
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Self {
            negative,
            whole,
            fraction,
            shown_scale,
        }
    }

    pub(crate) fn whole_digits(&self) -> usize {
        self.whole.len()
    }

    /// The number of digits after the point that are needed.
    pub(crate) fn scale(&self) -> usize {
        self.fraction.len()
    }

    pub(crate) fn write_normal(&self, out: &mut Vec<u8>) {
        if self.negative {
            out.push(b'-');
        }
        if self.whole.is_empty() {
            out.push(b'0');
        }
        out.extend_from_slice(&self.whole);
        if !self.fraction.is_empty() {
            out.push(b'.');
            out.extend_from_slice(&self.fraction);
        }
    }

    /// Appends PostgreSQL's binary form: groups of four decimal digits around the point (`numeric_send` in numeric.c).
    pub(crate) fn write_binary(&self, out: &mut Vec<u8>) {
        let lead = (4 - self.whole.len() % 4) % 4;
        let mut digits = vec![b'0'; lead];
        digits.extend_from_slice(&self.whole);
        let whole_groups = digits.len() / 4;
        digits.extend_from_slice(&self.fraction);
        digits.resize(digits.len().div_ceil(4) * 4, b'0');
        let mut groups: Vec<i16> = digits
            .chunks(4)
            .map(|c| c.iter().fold(0, |n, d| n * 10 + i16::from(d - b'0')))
            .collect();
        let mut weight = whole_groups as i16 - 1;
        let zeros = groups.iter().take_while(|g| **g == 0).count();
        groups.drain(..zeros);
        weight -= zeros as i16;
        while groups.last() == Some(&0) {
            groups.pop();
        }
        if groups.is_empty() {
            weight = 0;
        }
        out.extend_from_slice(&(groups.len() as i16).to_be_bytes());
        out.extend_from_slice(&weight.to_be_bytes());
        out.extend_from_slice(&(if self.negative { 0x4000u16 } else { 0 }).to_be_bytes());
        out.extend_from_slice(&(self.shown_scale as u16).to_be_bytes());
        for group in groups {
            out.extend_from_slice(&group.to_be_bytes());
        }
    }
}

/// PostgreSQL's binary form of an infinity.
pub(crate) fn infinity_binary(negative: bool) -> [u8; 8] {
    let sign: u16 = if negative { 0xF000 } else { 0xD000 };
    let mut out = [0; 8];
    out[4..6].copy_from_slice(&sign.to_be_bytes());
    out
}

/// Appends the normal form of PostgreSQL's binary `numeric`, digit by digit and not by way of [`Decimal`]. `false` when the
/// bytes are not one.
pub(crate) fn write_normal_of_binary(bytes: &[u8], out: &mut Vec<u8>) -> bool {
    if bytes.len() < 8 || !bytes.len().is_multiple_of(2) {
        return false;
    }
    let short = |i: usize| i16::from_be_bytes([bytes[i], bytes[i + 1]]);
    let (count, weight, sign) = (short(0), i64::from(short(2)), short(4) as u16);
    match sign {
        0xD000 => out.extend_from_slice(b"Infinity"),
        0xF000 => out.extend_from_slice(b"-Infinity"),
        0xC000 => out.extend_from_slice(b"NaN"),
        _ => {
            let count = usize::try_from(count).unwrap_or(0);
            if bytes.len() != 8 + 2 * count {
                return false;
            }
            let group = |position: i64| -> i16 {
                usize::try_from(weight - position)
                    .ok()
                    .filter(|i| *i < count)
                    .map_or(0, |i| short(8 + 2 * i))
            };
            if sign == 0x4000 && count > 0 {
                out.push(b'-');
            }
            let start = out.len();
            for position in (0..=weight.max(0)).rev() {
                out.extend_from_slice(format!("{:04}", group(position)).as_bytes());
            }
            let zeros = out[start..].iter().take_while(|b| **b == b'0').count();
            let zeros = zeros.min(out.len() - start - 1);
            out.drain(start..start + zeros);
            let last = weight - count as i64 + 1;
            if last < 0 {
                out.push(b'.');
                for position in (last..0).rev() {
                    out.extend_from_slice(format!("{:04}", group(position)).as_bytes());
                }
                while out.last() == Some(&b'0') {
                    out.pop();
                }
                if out.last() == Some(&b'.') {
                    out.pop();
                }
            }
        }
    }
    true
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> Option<String> {
        let mut out = Vec::new();
        Decimal::parse(text.as_bytes())?.write_normal(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn spellings_of_one_number_have_one_normal_form() {
        for (text, expected) in [
            ("00012.500", "12.5"),
            ("1.25e2", "125"),
            ("-0.0", "0"),
            ("1e-3", "0.001"),
            (".5", "0.5"),
            ("5.", "5"),
            ("-12e3", "-12000"),
        ] {
            assert_eq!(normal(text).as_deref(), Some(expected), "{text}");
        }
        for text in ["", "-", ".", "1e", "1_0", "0x1", "1e99999", "NaN", " 1"] {
            assert_eq!(normal(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_binary_form_comes_back(text in "-?[0-9]{1,30}(\\.[0-9]{1,30})?(e-?[0-9]{1,2})?") {
            let decimal = Decimal::parse(text.as_bytes()).unwrap();
            let (mut binary, mut direct, mut back) = (Vec::new(), Vec::new(), Vec::new());
            decimal.write_binary(&mut binary);
            decimal.write_normal(&mut direct);
            prop_assert!(write_normal_of_binary(&binary, &mut back));
            prop_assert_eq!(String::from_utf8(back).unwrap(), String::from_utf8(direct).unwrap());
        }

        #[test]
        fn a_float_survives_the_way_through_decimal(bits: u64) {
            let value = f64::from_bits(bits);
            prop_assume!(value.is_finite());
            let text = normal(&super::super::decimal_text(value)).unwrap();
            prop_assert!(text.parse::<f64>().unwrap() == value);
        }
    }
}
