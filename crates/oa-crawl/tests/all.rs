//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod bad_input;
mod boundary;
mod broken;
mod browser;
mod clock;
mod collect;
mod complete;
mod days;
mod digits;
mod due;
mod enable;
mod exchanges;
mod exec;
mod forms;
mod held;
mod images_and_commands;
mod incidents;
mod lists;
mod login;
mod network;
mod new;
mod operators;
mod origins;
mod resilience;
mod revisions;
mod roles;
mod rules;
mod slots;
mod stores;
mod tables;
mod which_day;
