//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod apps;
mod bad_input;
mod channels;
mod check;
mod delivery;
mod refusals;
mod roots;
mod rules;
mod soak;
mod storms;
mod texts;
mod unreachable;
