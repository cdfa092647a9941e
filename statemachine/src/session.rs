//! View of `session/*`: which Milvus processes are alive, and where.
//!
//! `session/<role>` is the one active process of a role that has only one, `session/<role>-<id>` a
//! process of a role with many, or a standby. The value is JSON; the key lives as long as its
//! lease. `session/id` is not a session but the counter that the ids come from.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use proto::etcd;
use serde::Deserialize;

use crate::view::{Name, Names, Row, Rows, ServerId, canonical_i64};

/// What a Milvus process does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    RootCoord,
    DataCoord,
    QueryCoord,
    IndexCoord,
    Proxy,
    DataNode,
    QueryNode,
    IndexNode,
    /// A role that other versions of Milvus have.
    Other(Name),
}

impl Role {
    /// As session keys spell it.
    pub fn as_str(&self) -> &str {
        match self {
            Role::RootCoord => "rootcoord",
            Role::DataCoord => "datacoord",
            Role::QueryCoord => "querycoord",
            Role::IndexCoord => "indexcoord",
            Role::Proxy => "proxy",
            Role::DataNode => "datanode",
            Role::QueryNode => "querynode",
            Role::IndexNode => "indexnode",
            Role::Other(name) => name,
        }
    }

    fn parse(text: &str) -> Role {
        match text {
            "rootcoord" => Role::RootCoord,
            "datacoord" => Role::DataCoord,
            "querycoord" => Role::QueryCoord,
            "indexcoord" => Role::IndexCoord,
            "proxy" => Role::Proxy,
            "datanode" => Role::DataNode,
            "querynode" => Role::QueryNode,
            "indexnode" => Role::IndexNode,
            other => Role::Other(Name::from(other)),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// Whose session a key is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SessionKey {
    pub role: Role,
    /// `None` is the active process of a role that has only one.
    pub id: Option<ServerId>,
}

impl fmt::Display for SessionKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            None => self.role.fmt(out),
            Some(id) => write!(out, "{}-{id}", self.role),
        }
    }
}

/// A process that is alive as far as its lease says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    pub server: ServerId,
    /// `host:port`.
    pub address: Name,
    pub version: Name,
    pub host_name: Name,
    /// Lease that the key is attached to, 0 if none. What the value says of it is not asked.
    pub lease: i64,
    /// Revision of the put.
    pub revision: i64,
    pub exclusive: bool,
    /// The process has begun to shut down: give it nothing new.
    pub stopping: bool,
    /// Index nodes and query nodes with a disk of their own.
    pub enable_disk: bool,
    /// Oldest and newest index format that a query node reads; 0 if it does not say.
    pub index_engine_versions: (i32, i32),
}

impl fmt::Display for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Session { server, address, version, host_name, lease, revision, .. } = self;
        write!(
            out,
            "server {server} at {address} version {version} host {host_name} lease {lease} \
             revision {revision}"
        )?;
        for (set, word) in
            [(self.exclusive, "exclusive"), (self.stopping, "stopping"), (self.enable_disk, "disk")]
        {
            if set {
                write!(out, " {word}")?;
            }
        }
        if self.index_engine_versions != (0, 0) {
            let (oldest, newest) = self.index_engine_versions;
            write!(out, " index-engine {oldest}..{newest}")?;
        }
        Ok(())
    }
}

/// The value of a session key, as far as we need it.
#[derive(Deserialize)]
struct SessionJson {
    #[serde(rename = "ServerID")]
    server_id: i64,
    #[serde(rename = "Address")]
    address: String,
    #[serde(rename = "Exclusive", default)]
    exclusive: bool,
    #[serde(rename = "Stopping", default)]
    stopping: bool,
    #[serde(rename = "Version", default)]
    version: String,
    #[serde(rename = "IndexEngineVersion", default)]
    index_engine_version: IndexEngineVersionJson,
    #[serde(rename = "HostName", default)]
    host_name: String,
    #[serde(rename = "EnableDisk", default)]
    enable_disk: bool,
}

#[derive(Default, Deserialize)]
struct IndexEngineVersionJson {
    #[serde(rename = "MinimalIndexVersion", default)]
    minimal: i32,
    #[serde(rename = "CurrentIndexVersion", default)]
    current: i32,
}

/// All sessions.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    rows: Rows<SessionKey, Session>,
    /// `session/id`: the id that the next process takes.
    next_id: Option<Row<i64>>,
    /// Keys that name no session, by revision.
    strays: BTreeMap<Bytes, i64>,
}

const COUNTER_KEY: &str = "id";

impl Sessions {
    pub(crate) fn put(&mut self, names: &mut Names, key: &[u8], kv: &etcd::KeyValue) {
        let Some(text) = session_name(key) else {
            self.strays.insert(Bytes::copy_from_slice(key), kv.mod_revision);
            return;
        };
        if text == COUNTER_KEY {
            self.next_id = Some(Row::from_result(decode_counter(&kv.value), kv.mod_revision));
            return;
        }
        let key = parse_key(text);
        let row = Row::from_result(decode(names, kv), kv.mod_revision);
        self.rows.put(key, row);
    }

    pub(crate) fn delete(&mut self, key: &[u8]) {
        let Some(text) = session_name(key) else {
            self.strays.remove(key);
            return;
        };
        if text == COUNTER_KEY {
            self.next_id = None;
            return;
        }
        self.rows.remove(&parse_key(text));
    }

    /// The session of the one active process of a role such as RootCoord.
    pub fn active(&self, role: Role) -> Option<&Session> {
        self.rows.get(&SessionKey { role, id: None })
    }

    /// A process of a role with many.
    pub fn node(&self, role: Role, id: ServerId) -> Option<&Session> {
        self.rows.get(&SessionKey { role, id: Some(id) })
    }

    /// All processes of a role that has many, by id.
    pub fn nodes(&self, role: Role) -> impl Iterator<Item = (ServerId, &Session)> {
        let first = SessionKey { role: role.clone(), id: Some(ServerId(i64::MIN)) };
        let last = SessionKey { role, id: Some(ServerId(i64::MAX)) };
        self.rows.range(first..=last).filter_map(|(key, row)| Some((key.id?, row.decoded()?)))
    }

    pub fn rows(&self) -> &Rows<SessionKey, Session> {
        &self.rows
    }

    /// What `session/id` says: the id that the next Milvus process takes.
    pub fn next_id(&self) -> Option<&Row<i64>> {
        self.next_id.as_ref()
    }

    /// Pairs of data nodes of which one id is a decimal prefix of the other. A 2.3 DataNode
    /// watches the bare prefix `channelwatch/<id>`, so both would run the channels of the longer.
    pub fn prefix_clashes(&self) -> Vec<(ServerId, ServerId)> {
        let mut ids: Vec<(String, ServerId)> =
            self.nodes(Role::DataNode).map(|(id, _)| (id.to_string(), id)).collect();
        ids.sort();
        let mut clashes = Vec::new();
        for (position, (text, id)) in ids.iter().enumerate() {
            let longer =
                ids[position + 1..].iter().take_while(|(other, _)| other.starts_with(text));
            clashes.extend(longer.map(|(_, other)| (*id, *other)));
        }
        clashes
    }

    pub fn undecodable(&self) -> usize {
        let counter = usize::from(self.next_id.as_ref().is_some_and(|row| row.decoded().is_none()));
        self.rows.undecodable() + counter + self.strays.len()
    }

    pub(crate) fn strays(&self) -> &BTreeMap<Bytes, i64> {
        &self.strays
    }
}

impl fmt::Display for Sessions {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (key, row) in self.rows.iter() {
            writeln!(out, "session {key}: {row}")?;
        }
        if let Some(next) = &self.next_id {
            writeln!(out, "session counter: {next}")?;
        }
        for (key, revision) in &self.strays {
            writeln!(out, "session stray {key:?} revision {revision}")?;
        }
        Ok(())
    }
}

/// The last segment of a session key; keys with more segments are not Milvus's.
fn session_name(key: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(key).ok()?;
    (!text.is_empty() && !text.contains('/')).then_some(text)
}

/// `datanode-5` is a data node, `rootcoord` the active RootCoord.
fn parse_key(text: &str) -> SessionKey {
    // An id is never negative, so the dash before it is no sign.
    let numbered = text.rsplit_once('-').and_then(|(role, id)| Some((role, canonical_i64(id)?)));
    match numbered {
        Some((role, id)) => SessionKey { role: Role::parse(role), id: Some(ServerId(id)) },
        None => SessionKey { role: Role::parse(text), id: None },
    }
}

fn decode(names: &mut Names, kv: &etcd::KeyValue) -> Result<Session, String> {
    let json: SessionJson = serde_json::from_slice(&kv.value).map_err(|error| error.to_string())?;
    Ok(Session {
        server: ServerId(json.server_id),
        address: names.intern(&json.address),
        version: names.intern(&json.version),
        host_name: names.intern(&json.host_name),
        lease: kv.lease,
        revision: kv.mod_revision,
        exclusive: json.exclusive,
        stopping: json.stopping,
        enable_disk: json.enable_disk,
        index_engine_versions: (
            json.index_engine_version.minimal,
            json.index_engine_version.current,
        ),
    })
}

fn decode_counter(value: &[u8]) -> Result<i64, String> {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| "not a decimal number".to_owned())
}
