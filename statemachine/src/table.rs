//! Layouts of all rows, one file a table.

pub(crate) mod domain;
pub(crate) mod event;
pub(crate) mod lease;
pub(crate) mod meta;
pub(crate) mod version;
