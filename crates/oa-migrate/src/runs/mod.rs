//! What runs keep on this machine for later commands: their folders, the base that the last one left, and which database they
//! belong to.

pub(crate) mod base;
mod connect;
pub(crate) mod folder;
pub(crate) mod grown;
pub(crate) mod target;

pub(crate) use base::{Base, RunSelection};
pub(crate) use connect::connect_exclusive;
pub(crate) use folder::{RunFolder, RunRecord, Stage};
