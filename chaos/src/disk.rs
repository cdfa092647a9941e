//! A file system of our own that forgets what was not synced, mounted through FUSE.
//!
//! Durable are the bytes of a file after fsync or fdatasync of it, and names (create, rename, link,
//! unlink, mkdir) after fsync of their directory. A cut of power keeps what is durable and a drawn
//! part of the rest. [`content`] holds the bytes of one file and [`tree`] the names: both are pure.
//! [`shelf`] guards the disks of one cluster and stops all of them in one instant, [`mounted`] serves
//! one of them to the kernel, [`control`] is the process that does so, and [`driver`] starts it and
//! gives it orders.
//!
//! Modes, owners and times are durable at once: no node depends on them.

pub mod content;
pub mod control;
pub mod cut;
pub mod driver;
pub mod fault;
pub mod mounted;
pub mod shelf;
pub mod tree;

#[cfg(test)]
mod tests;
