//! Processes: who we are, whether a recorded one still lives, stop signals, and child processes with a time limit that are held
//! together with everything they start.

mod child;
mod group;
mod guard;
mod held;
mod identity;
mod leftover;
mod mark;
mod output;
mod proc;
mod readable;
mod scope;
mod stop;
mod tree;

pub use child::{Ended, Finished, Launch, Lines, Progress, TAIL, run};
pub use group::Group;
pub use identity::ProcessId;
pub use leftover::{Stubborn, end_leftovers};
pub use mark::Owner;
pub use readable::readable;
pub use stop::{StopSignal, install as install_stop_signal};
