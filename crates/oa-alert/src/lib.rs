//! `oa-alert`: brings alerts from the outbox to people.
//!
//! Alerts are rows that were committed with the event that caused them ([`oa_core::alerts`]). [`deliver`] sends each to every
//! channel, at least once: a delivery is leased before it is sent and recorded after, so several senders at once never send the
//! same one, and one that died in between is sent again, marked as a possible repeat. [`channels`] knows each robot's protocol,
//! limits and error codes; HTTP 200 with an error code is a failure.

pub mod channels;
pub mod check;
pub mod commands;
pub mod deliver;
pub mod render;

/// This program's name.
pub const PROGRAM: &str = "oa-alert";
