//! Clients that other people wrote, against three real nodes.

#![allow(clippy::print_stdout, reason = "what a client said belongs to the test's output")]

mod etcdctl;
mod python;
mod rust;
