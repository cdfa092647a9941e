//! Work on a data directory whose node does not run: a cluster that lost its majority, and a
//! backup that becomes a new cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::type_config::TypeConfigExt;
use statemachine::{Fault, Table, transplant};

use crate::apply::{OutcomeSink, Outcomes};
use crate::dir_lock::DirLock;
use crate::error::StartError;
use crate::failure::OnFailure;
use crate::generation::{self, GenerationError};
use crate::identity::{self, StoredIdentity};
use crate::log_store::peek::peek;
use crate::log_store::{LogOptions, LogStore, RocksLog};
use crate::notes;
use crate::rocks::{BuildError, RocksMemory, StateBuilder, StateMemory, Tables};
use crate::storage::{Storage, StorageOptions};
use crate::storage_metrics::StorageMetrics;
use crate::types::{
    Endpoints, Entry, EntryPayload, LeaderId, LogId, Membership, NodeMeta, StoredMembership,
    TypeConfig, Vote,
};

/// Why a directory was not inspected, changed or made.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error(transparent)]
    Directory(#[from] StartError),
    #[error("{path} holds no node: it has no identity")]
    NoIdentity { path: PathBuf },
    #[error("node {name} never had a cluster: there is nothing to recover")]
    NoCluster { name: String },
    #[error("{} is not empty: nothing is overwritten", path.display())]
    NotEmpty { path: PathBuf },
    #[error("the plan is not complete: {0}")]
    Plan(String),
    #[error("no directory for messages: {source}")]
    Messages { source: std::io::Error },
    #[error("state")]
    State(#[from] BuildError),
    #[error("rows")]
    Rows(#[from] Fault),
    #[error("log: {0}")]
    Log(String),
}

/// What an operator compares before choosing the survivor to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurvivorFacts {
    pub name: String,
    pub node: u64,
    pub cluster: u64,
    pub last_log_index: u64,
    pub term: u64,
}

struct NoWaiters;

impl OutcomeSink for NoWaiters {
    fn applied(&self, _: u64, _: Outcomes) {}
}

/// A directory whose node does not run, with everything in it open.
struct Offline {
    identity: StoredIdentity,
    storage: Storage,
    _lock: DirLock,
}

/// The identity of a directory whose node has, or had, a cluster.
fn identity_of(data_dir: &Path) -> Result<StoredIdentity, RecoverError> {
    let Some(identity) = identity::read(data_dir)? else {
        return Err(RecoverError::NoIdentity { path: data_dir.to_owned() });
    };
    if identity.cluster == 0 {
        return Err(RecoverError::NoCluster { name: identity.name });
    }
    Ok(identity)
}

impl Offline {
    fn open(data_dir: &Path) -> Result<Offline, RecoverError> {
        let identity = identity_of(data_dir)?;
        let lock = DirLock::take(data_dir)?;
        let options = StorageOptions::new(data_dir.to_owned(), identity.node);
        let storage = Storage::open(options, Arc::new(NoWaiters))
            .map_err(|error| StartError::Storage(Box::new(error)))?;
        Ok(Offline { identity, storage, _lock: lock })
    }

    /// The end of what this node has, be it in its log or in its state only.
    fn last(&self) -> Option<LogId> {
        let applied = self.storage.control.state.position().applied;
        self.storage.log.last_log_id().max(applied)
    }

    fn term(&self) -> u64 {
        let voted = self.storage.control.vote().map_or(0, |vote| vote.leader_id.term);
        voted.max(self.last().map_or(0, |last| last.leader_id.term))
    }

    /// Makes everything durable and stops its threads. The caller may be on a runtime or not, so
    /// the one that the storage needs gets a thread of its own.
    fn close(self) -> Result<(), RecoverError> {
        let control = self.storage.control.clone();
        let stopping = std::thread::spawn(move || -> Result<(), String> {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .build()
                .map_err(|error| error.to_string())?;
            runtime.block_on(control.shutdown()).map_err(|failure| failure.to_string())
        });
        match stopping.join() {
            Ok(stopped) => stopped.map_err(RecoverError::Log),
            Err(_) => Err(RecoverError::Log("the storage panicked while it stopped".to_owned())),
        }
    }
}

/// Says what a survivor has. Blocks. Nothing is changed: the stores are opened for reading alone,
/// and no failure is marked, so the directory may lie on a disk that is not writable or not sound.
///
/// # Errors
/// The directory is in use, damaged, or no node's.
pub fn inspect(data_dir: &Path) -> Result<SurvivorFacts, RecoverError> {
    let identity = identity_of(data_dir)?;
    let _lock = DirLock::take_existing(data_dir)?;
    let messages = Messages::make().map_err(|error| RecoverError::Messages { source: error })?;
    let log = peek(&data_dir.join(crate::storage::LOG_DIR), identity.node, &messages.0)
        .map_err(|error| StartError::Storage(Box::new(error)))?;
    let applied = applied(data_dir, identity.node, &messages.0)
        .map_err(|error| StartError::Storage(Box::new(error)))?;
    let last = log.last.max(applied);
    let voted = log.vote.map_or(0, |vote| vote.leader_id.term);
    Ok(SurvivorFacts {
        name: identity.name,
        node: identity.node,
        cluster: identity.cluster,
        last_log_index: last.map_or(0, |last| last.index),
        term: voted.max(last.map_or(0, |last| last.leader_id.term)),
    })
}

/// The last entry that the state on the disk holds.
fn applied(data_dir: &Path, node: u64, messages: &Path) -> Result<Option<LogId>, GenerationError> {
    let sm_dir = generation::state_dir(data_dir);
    let Some(number) = generation::current(&sm_dir, node)? else {
        return Ok(None);
    };
    let memory = StateMemory::new(&RocksMemory::default());
    let path = generation::path_of(&sm_dir, number);
    Ok(Tables::open_untouched(&path, &memory, messages)?.position()?.applied)
}

/// A directory for what RocksDB writes about itself, which it does even where it only reads.
struct Messages(PathBuf);

impl Messages {
    fn make() -> std::io::Result<Messages> {
        let name = format!("quorate-inspect-{:016x}", identity::random_id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Messages(path))
    }
}

impl Drop for Messages {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, path = %self.0.display(), "messages of RocksDB stay");
        }
    }
}

/// Makes the node of `data_dir` the only voter of a cluster with a new id, which is returned. Its
/// former peers can never come back to it. What only they had acknowledged is gone. Blocks.
///
/// # Errors
/// As [`inspect`], or the disk fails. A run that was interrupted may be repeated.
pub fn force_new_cluster(data_dir: &Path) -> Result<u64, RecoverError> {
    let mut offline = Offline::open(data_dir)?;
    let node = offline.identity.node;
    let position = offline.storage.control.state.position();
    let own =
        position.membership.membership().get_node(&node).cloned().unwrap_or_else(|| NodeMeta {
            name: offline.identity.name.clone(),
            ..Default::default()
        });
    let membership = Membership::new(vec![BTreeSet::from([node])], BTreeMap::from([(node, own)]))
        .map_err(|error| RecoverError::Plan(error.to_string()))?;
    let leader_id = LeaderId { term: offline.term() + 1, node_id: node };
    let last = offline.last();
    let index = last.map_or(0, |last| last.index + 1);
    // First the identity: from here on the former peers are strangers, whatever follows.
    let cluster = identity::random_id();
    let next = StoredIdentity {
        cluster,
        founding: false,
        used: true,
        nonce: 0,
        roster: BTreeMap::new(),
        ..offline.identity.clone()
    };
    identity::write(data_dir, &next)?;
    let failed = |error: std::io::Error| RecoverError::Log(error.to_string());
    notes::forget(data_dir).map_err(failed)?;
    let entry = Entry {
        log_id: LogId::new(leader_id, index),
        payload: EntryPayload::Membership(membership),
    };
    let log = &mut offline.storage.log;
    futures::executor::block_on(async {
        if let Some(applied) = position.applied
            && log.last_log_id() < Some(applied)
        {
            log.purge(applied).await?;
        }
        log.save_vote(&Vote { leader_id, committed: false }).await?;
        append(log, entry).await
    })
    .map_err(|error: std::io::Error| RecoverError::Log(error.to_string()))?;
    offline.close()?;
    Ok(cluster)
}

async fn append(log: &mut LogStore, entry: Entry) -> std::io::Result<()> {
    let (done, flushed) = TypeConfig::oneshot();
    log.append([entry], IOFlushed::signal(done)).await?;
    flushed.await.map_err(std::io::Error::other)?
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestoreMember {
    pub id: u64,
    pub name: String,
    /// Where it listens for its peers; the other addresses it announces when it starts.
    pub peer: String,
}

/// A new cluster that begins with the rows of a backup. Every member is made from the same plan,
/// but for its own directory and id, and they agree without talking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RestorePlan {
    pub data_dir: PathBuf,
    /// Which of the members this directory is for.
    pub node: u64,
    pub cluster: u64,
    pub members: Vec<RestoreMember>,
    /// The entry that the backup's state had applied.
    pub index: u64,
    pub term: u64,
    /// How much further revisions go on; everything below is compacted then. 0: not at all.
    pub revision_bump: i64,
}

/// Puts one row into the new state.
pub type PutRow<'a> = dyn FnMut(Table, &[u8], &[u8]) -> Result<(), Fault> + 'a;

/// Makes a data directory; `rows` is asked for all rows of the state. The identity is written
/// last: a directory whose restore was interrupted does not start. Blocks.
///
/// # Errors
/// The directory is not empty, the plan does not hold together, or the disk fails.
pub fn restore(
    plan: &RestorePlan,
    rows: &mut dyn FnMut(&mut PutRow<'_>) -> Result<(), Fault>,
) -> Result<(), RecoverError> {
    let path = &plan.data_dir;
    if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(RecoverError::NotEmpty { path: path.clone() });
    }
    let incomplete = |reason: &str| RecoverError::Plan(reason.to_owned());
    let own = plan.members.iter().find(|member| member.id == plan.node);
    let own = own.ok_or_else(|| incomplete("the node is not among the members"))?;
    let first = plan.members.iter().map(|member| member.id).min().unwrap_or_default();
    let nodes: BTreeMap<u64, NodeMeta> = plan.members.iter().map(node_of).collect();
    if nodes.len() != plan.members.len() || plan.cluster == 0 {
        return Err(incomplete("ids are not unique, or zero"));
    }
    // The same on every member, as if one of them had led.
    let applied = LogId::new(LeaderId { term: plan.term, node_id: first }, plan.index);
    let membership = Membership::new(vec![nodes.keys().copied().collect()], nodes)
        .map_err(|error| RecoverError::Plan(error.to_string()))?;
    let _lock = DirLock::take(path)?;
    let mut builder = StateBuilder::new(path, plan.node)?;
    rows(&mut |table, key, value| {
        builder.put(table, key, value).map_err(|error| Fault::Storage(error.to_string()))
    })?;
    builder.change(|tables| transplant::into_new_cluster(tables, plan.revision_bump))?;
    builder.finish(&applied, &StoredMembership::new(Some(applied), membership))?;
    write_log(plan, applied)?;
    let identity = StoredIdentity {
        node: plan.node,
        name: own.name.clone(),
        cluster: plan.cluster,
        founding: false,
        used: true,
        starts: 0,
        nonce: identity::random_id(),
        roster: BTreeMap::new(),
    };
    identity::write(path, &identity)?;
    Ok(())
}

fn node_of(member: &RestoreMember) -> (u64, NodeMeta) {
    let endpoints = Endpoints { peer: member.peer.clone(), ..Endpoints::default() };
    (member.id, NodeMeta { name: member.name.clone(), endpoints })
}

/// An empty log that begins after `applied`.
fn write_log(plan: &RestorePlan, applied: LogId) -> Result<(), RecoverError> {
    let failed = |error: &dyn std::fmt::Display| RecoverError::Log(error.to_string());
    let disk = RocksLog::open(&plan.data_dir.join(crate::storage::LOG_DIR))
        .map_err(|error| failed(&error))?;
    let mut log = LogStore::open(
        Arc::new(disk),
        plan.node,
        LogOptions::default(),
        Arc::new(StorageMetrics::default()),
        OnFailure::abort(plan.data_dir.clone()),
    )
    .map_err(|error| failed(&error))?;
    let vote =
        Vote { leader_id: LeaderId { term: plan.term, node_id: plan.node }, committed: false };
    futures::executor::block_on(async {
        log.purge(applied).await?;
        log.save_vote(&vote).await
    })
    .map_err(|error: std::io::Error| failed(&error))?;
    log.stop().map_err(|error| failed(&error))
}
