//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod clusters;
mod databases;
mod disaster;
mod disks;
mod drills;
mod killed;
mod recovered;
mod retention;
mod servers;
mod streamed;
mod tables;
mod targets;
mod versions;
