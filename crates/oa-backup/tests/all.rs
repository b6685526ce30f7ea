//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod backup;
mod clock;
mod copies;
mod damage;
mod failures;
mod gaps;
mod keys;
mod killed;
mod lasting;
mod missing;
mod s3;
