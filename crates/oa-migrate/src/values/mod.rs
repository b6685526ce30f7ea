//! What values look like on both sides, in every form that the moving and the proving of rows need.
//!
//! The loader goes one way (text of SQLite to PostgreSQL's binary form), the proof goes the other way (PostgreSQL's binary form
//! back to a normal form of SQLite's text) by code of its own, so that a mistake in one of them shows as a difference.

pub(crate) mod conversion;
pub(crate) mod decimal;
pub(crate) mod json;
pub(crate) mod time;

/// Values of so many bytes are not copied as a whole on their way.
pub(crate) const LARGE: usize = 1 << 20;

/// The text of a number that SQLite holds as REAL: the shortest one that reads back as the same 64 bits.
pub(crate) fn float_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    format!("{value:?}")
}

/// The decimal number that a REAL means: whole numbers just beyond 64 bits with all their digits, because they were written as
/// integers once, everything else as [`float_text`]. Reads back as the same 64 bits either way.
pub(crate) fn decimal_text(value: f64) -> String {
    if value.fract() == 0.0 && value.abs() < 1e20 {
        format!("{value:.0}")
    } else {
        float_text(value)
    }
}
