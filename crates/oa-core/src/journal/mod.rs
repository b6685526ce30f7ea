//! What happened, in PostgreSQL: incidents and the outbox, and the verdict on backups.

pub mod catalog;
pub mod incidents;
