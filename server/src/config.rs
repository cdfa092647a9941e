//! What the operator said: every setting as text, with the place that it came from.
//!
//! One table, [`SETTINGS`], is the only place that names a setting: its flag, its key in the file
//! and its environment variable are made from it. `checked` turns the text into types.

pub(crate) mod checked;
pub(crate) mod sources;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;

pub(crate) use sources::{File, Raw, load};

/// One setting of `quorate serve`.
pub(crate) struct Setting {
    /// The flag is `--name`, the key in the file `name`, the variable `QUORATE_NAME`.
    pub(crate) name: &'static str,
    pub(crate) default: Option<&'static str>,
    /// What stands for the value in the help.
    pub(crate) value_name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) heading: &'static str,
}

const IDENTITY: &str = "Identity";
const ADDRESSES: &str = "Addresses";
const COORDINATOR: &str = "Coordinator";
const TIMERS: &str = "Timers";
const LIMITS: &str = "Limits";
const PROCESS: &str = "Process";

macro_rules! settings {
    ($($heading:ident: $name:literal $value:literal $default:expr, $help:literal;)*) => {
        /// All settings, in the order in which they are printed.
        pub(crate) static SETTINGS: &[Setting] = &[$(Setting {
            name: $name,
            default: $default,
            value_name: $value,
            help: $help,
            heading: $heading,
        },)*];
    };
}

settings! {
    IDENTITY: "name" "NAME" None,
        "Name of this node, unique in the cluster";
    IDENTITY: "data-dir" "DIR" None,
        "Directory of the log, the state and the snapshots; created when missing";
    IDENTITY: "initial-cluster" "NAME=HOST:PORT,…" None,
        "All first members with their peer addresses; equal on each of them, read only while the \
         data directory is empty [default: this node alone]";
    ADDRESSES: "listen-client" "HOST:PORT" Some("127.0.0.1:2379"),
        "The etcd v3 API and the administration";
    ADDRESSES: "listen-peer" "HOST:PORT" Some("127.0.0.1:2380"),
        "Traffic between the nodes of the cluster; never expose it to clients";
    ADDRESSES: "listen-http" "HOST:PORT" Some("127.0.0.1:2381"),
        "Health, metrics and debug pages over HTTP";
    ADDRESSES: "listen-coordinator" "HOST:PORT" None,
        "The Milvus coordinator API, served with --coordinator [default then: 127.0.0.1:13333]";
    ADDRESSES: "advertise-client" "HOST:PORT" None,
        "Address under which others reach --listen-client [default: the same]";
    ADDRESSES: "advertise-peer" "HOST:PORT" None,
        "Address under which others reach --listen-peer [default: the same]";
    ADDRESSES: "advertise-http" "HOST:PORT" None,
        "Address under which others reach --listen-http [default: the same]";
    ADDRESSES: "advertise-coordinator" "HOST:PORT" None,
        "Address under which others reach --listen-coordinator [default: the same]";
    COORDINATOR: "coordinator" "ROLE" None,
        "datacoord: this node may lead Milvus's data plane in the place of its DataCoord \
         [default: none, a plain etcd]";
    COORDINATOR: "milvus-config" "FILE" None,
        "Milvus's own milvus.yaml, for the keys that concern the coordinator";
    TIMERS: "heartbeat-interval" "TIME" Some("50ms"),
        "Pause between two heartbeats of a leader; above the worst usual fsync of the disk";
    TIMERS: "election-timeout-min" "TIME" Some("250ms"),
        "Shortest silence after which a follower asks for votes, at least 3 heartbeats";
    TIMERS: "election-timeout-max" "TIME" Some("400ms"),
        "Longest of them, and how long a leader that hears nobody goes on";
    TIMERS: "request-timeout" "TIME" Some("7s"),
        "How long a write waits for a leader when the client sets no deadline";
    TIMERS: "shutdown-timeout" "TIME" Some("10s"),
        "How long a stop may take: leadership handed over, calls finished, state flushed";
    LIMITS: "max-request-bytes" "SIZE" Some("1536KiB"),
        "Largest request of a client";
    LIMITS: "snapshot-log-bytes" "SIZE" Some("256MiB"),
        "Log written since the last snapshot that makes a new one due";
    LIMITS: "log-kept-bytes" "SIZE" Some("256MiB"),
        "Log kept behind the newest snapshot for followers that were away";
    LIMITS: "snapshot-send-rate" "SIZE" Some("64MiB"),
        "Bytes of a snapshot sent to another node each second";
    LIMITS: "disk-low-mark" "SIZE" Some("512MiB"),
        "Free space below which this node takes no writes and does not lead; 0 switches it off";
    LIMITS: "disk-ballast" "SIZE" Some("64MiB"),
        "Space allocated beforehand for deletes, compactions and votes on a full disk; 0 for none";
    PROCESS: "worker-threads" "COUNT" Some("0"),
        "Threads that serve clients; 0 takes one per core";
    PROCESS: "log-level" "FILTER" Some("info"),
        "error, warn, info, debug or trace; also per module, such as info,raft=debug";
    PROCESS: "log-format" "FORMAT" Some("text"),
        "text for people, json for machines: one object per line";
}

/// The setting of that name.
pub(crate) fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The environment variable of a setting.
pub(crate) fn variable(name: &str) -> String {
    format!("QUORATE_{}", name.replace('-', "_").to_ascii_uppercase())
}

/// Where a value came from; a later variant yields to an earlier one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Flag,
    Environment,
    File {
        path: PathBuf,
        line: usize,
    },
    Default,
    /// Taken over from another setting.
    From(&'static str),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag => write!(f, "flag"),
            Source::Environment => write!(f, "environment"),
            Source::File { path, line } => write!(f, "{}:{line}", path.display()),
            Source::Default => write!(f, "default"),
            Source::From(name) => write!(f, "from {name}"),
        }
    }
}

/// A value as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    pub(crate) text: String,
    pub(crate) source: Source,
}

/// Why a configuration cannot be used. Each message names the setting, what was given, the bound
/// and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConfigError {
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("{}:{line}:{column}: not valid TOML: {reason}", path.display())]
    Syntax { path: PathBuf, line: usize, column: usize, reason: String },
    #[error(
        "{}:{line}: unknown key `{key}`{}",
        path.display(),
        suggestion(.meant)
    )]
    UnknownKey { path: PathBuf, line: usize, key: String, meant: Option<&'static str> },
    #[error("{}:{line}: `{key}` is {found}: write it as text, a whole number or a list of texts", path.display())]
    NotAValue { path: PathBuf, line: usize, key: String, found: &'static str },
    #[error("{0}")]
    Milvus(String),
    #[error("{name} is not set: {hint}")]
    Missing { name: &'static str, hint: String },
    #[error("{name} = `{given}` ({origin}): {reason}")]
    Invalid { name: &'static str, given: String, origin: String, reason: String },
}

fn suggestion(meant: &Option<&'static str>) -> String {
    match meant {
        Some(name) => format!(", did you mean `{name}`?"),
        None => ", see `quorate serve --help` for all of them".to_owned(),
    }
}
