//! Loading: a staging schema beside the target, binary COPY into it by several jobs, indexes and constraints after the data, and
//! one transaction that puts the finished tables in place.

pub mod belongings;
pub mod copy;
pub mod encode;
pub mod finish;
pub mod rejects;
pub mod staging;
pub mod swap;
