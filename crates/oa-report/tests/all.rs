//! All tests of the program, in one binary: CI would link each of them on its own.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod common;

mod api;
mod commands;
mod contract;
mod daily;
mod days;
mod doctor;
mod links;
mod metrics;
mod page;
mod pages;
mod schedules;
mod serving;
