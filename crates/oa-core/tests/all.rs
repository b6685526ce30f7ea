//! All tests of the library on a real server, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod half_year;
mod journal;
mod locks;
mod postgresql;
mod revisions;
mod slots;
mod upserts;
