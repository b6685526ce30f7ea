//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod support;

mod any_schema;
mod around;
mod bad_files;
mod bad_values;
mod before;
mod export;
mod frameworks;
mod full_disk;
mod killed;
mod legacy;
mod nothing_lost;
mod own_tables;
mod reverse_migration;
mod schemas;
mod sync;
mod virtual_tables;
mod which_source;
