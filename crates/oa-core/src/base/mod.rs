//! What knows nothing of the service: texts, units, secrets, files, processes.

pub mod certificate;
pub mod clock;
pub(crate) mod conninfo;
pub mod exact;
pub mod failpoint;
pub mod limits;
pub mod links;
pub mod mistakes;
pub mod pile;
pub mod resolver;
pub mod secrets;
pub mod state_dir;
pub mod supervise;
pub mod terminal;
pub mod text;
pub mod threads;
pub mod trust;
pub mod units;
pub mod when;
