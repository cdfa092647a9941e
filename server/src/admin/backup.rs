//! Backups: the state's rows, pinned at one revision, in a file that shows every damage.

pub(crate) mod frame;
pub(crate) mod image;
pub(crate) mod reader;
pub(crate) mod restore;
pub(crate) mod seal;
pub(crate) mod stream;
#[cfg(test)]
mod tests;
pub(crate) mod writer;
