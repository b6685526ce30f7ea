//! Loading: a staging schema beside the target, binary COPY into it by several workers, indexes and constraints after the data,
//! and one transaction that puts the finished tables in place.

pub(crate) mod belongings;
pub(crate) mod copy;
pub(crate) mod ddl;
pub(crate) mod encode;
pub(crate) mod finish;
pub(crate) mod forms;
pub(crate) mod in_place;
pub(crate) mod misfits;
pub(crate) mod rejects;
pub(crate) mod sequences;
pub(crate) mod staging;
pub(crate) mod swap;
pub(crate) mod tables;
