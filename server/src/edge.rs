//! What every connection passes before a service sees it. Knows no service by name.

pub(crate) mod brief;
pub(crate) mod doors;
pub(crate) mod elements;
pub(crate) mod files;
pub(crate) mod front;
pub(crate) mod intake;
pub(crate) mod limits;
pub(crate) mod listen;
pub(crate) mod outflow;

mod frames;
mod hpack;
mod refusal;
