//! Processes: who we are, whether a recorded one still lives, stop signals, and child processes with a time limit.

mod child;
mod group;
mod guard;
mod identity;
mod stop;

pub use child::{Ended, Finished, TAIL, run, run_with_input};
pub use group::Group;
pub use identity::ProcessId;
pub use stop::{StopSignal, install as install_stop_signal};
