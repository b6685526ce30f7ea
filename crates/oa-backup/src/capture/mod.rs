//! Taking the data from the server: PostgreSQL's own programs do it, this module guards them.

pub(crate) mod live;
pub(crate) mod logical;
mod pages;
pub(crate) mod physical;
pub(crate) mod rights;
pub(crate) mod server;
pub(crate) mod slot;
pub(crate) mod slot_name;
pub(crate) mod wal;
