//! The live keys: ranges over them, what is known of each, and their sorted index in memory.

pub(crate) mod block;
mod group;
mod heads;
pub(crate) mod key_index;
pub(crate) mod key_range;
pub(crate) mod meta;
