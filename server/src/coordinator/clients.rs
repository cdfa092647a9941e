//! Connections to Milvus's own processes: RootCoord, data nodes, index nodes.
//!
//! Who they are is read from their sessions. Every node connects ahead, also while it follows, so
//! that a new leader finds its connections made.

mod call;
mod data_node;
mod dial;
mod index_node;
mod rootcoord;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use parking_lot::Mutex;
use raft::{AppliedEvent, Node, RecvError};
use statemachine::session::{Role, Session, Sessions};
use statemachine::view::{Area, ServerId};
use tokio_util::sync::CancellationToken;

use super::allowed::Allowed;
use super::settings::CoordinatorSettings;
use crate::tasks;

pub(crate) use call::CallError;
pub(crate) use data_node::DataNode;
pub(crate) use dial::Wire;
pub(crate) use index_node::IndexNode;
pub(crate) use rootcoord::RootCoord;

/// The roles that we call.
const CALLED: [Role; 3] = [Role::RootCoord, Role::DataNode, Role::IndexNode];

/// Cheap to share: one per process.
#[derive(Clone)]
pub(crate) struct Clients {
    inner: Arc<Inner>,
}

struct Inner {
    node: Node,
    cluster: String,
    allowed_index_nodes: Allowed,
    /// Under which we call; 0 while this node does not lead.
    own: AtomicI64,
    wires: Mutex<BTreeMap<(ServerId, String), Wire>>,
}

impl Clients {
    /// Follows the sessions and connects to whoever comes, until `stop`.
    pub(crate) fn start(
        node: Node,
        settings: &CoordinatorSettings,
        stop: CancellationToken,
    ) -> Clients {
        let inner = Inner {
            node,
            cluster: settings.cluster.clone(),
            allowed_index_nodes: settings.allowed_index_nodes.clone(),
            own: AtomicI64::new(0),
            wires: Mutex::default(),
        };
        let clients = Clients { inner: Arc::new(inner) };
        tasks::spawn("coordinator-clients", clients.clone().follow(stop));
        clients
    }

    /// The id that our calls carry as their source.
    pub(super) fn call_as(&self, server: ServerId) {
        self.inner.own.store(server.0, Ordering::Relaxed);
    }

    /// The active RootCoord.
    ///
    /// # Errors
    /// It has no session.
    pub(crate) fn rootcoord(&self) -> Result<RootCoord, CallError> {
        let wire = self.wire(Role::RootCoord, |sessions| sessions.active(Role::RootCoord))?;
        Ok(RootCoord::new(wire))
    }

    /// Which RootCoord is active; timestamps of another one are not to be continued.
    pub(crate) fn rootcoord_id(&self) -> Option<ServerId> {
        self.inner.node.local_view().read(|state| {
            state.views().sessions().active(Role::RootCoord).map(|session| session.server)
        })
    }

    /// # Errors
    /// It has no session.
    pub(crate) fn data_node(&self, server: ServerId) -> Result<DataNode, CallError> {
        let wire = self.wire(Role::DataNode, |sessions| sessions.node(Role::DataNode, server))?;
        Ok(DataNode::new(wire))
    }

    /// # Errors
    /// It has no session, or one at an address where no index node may be: what it is given has the
    /// keys of the object store in it.
    pub(crate) fn index_node(&self, server: ServerId) -> Result<IndexNode, CallError> {
        let allowed = &self.inner.allowed_index_nodes;
        let wire = self.wire(Role::IndexNode, |sessions| {
            let session = sessions.node(Role::IndexNode, server);
            session.filter(|session| allowed.permits(&session.address))
        })?;
        Ok(IndexNode::new(wire))
    }

    /// An index node that has no session but an address in the configuration.
    pub(crate) fn bound_index_node(&self, server: ServerId, address: &str) -> IndexNode {
        IndexNode::new(self.connect(&Role::IndexNode, server, address))
    }

    fn wire(
        &self,
        role: Role,
        find: impl FnOnce(&Sessions) -> Option<&Session>,
    ) -> Result<Wire, CallError> {
        let place = self.inner.node.local_view().read(|state| {
            find(state.views().sessions())
                .map(|session| (session.server, session.address.to_string()))
        });
        match place {
            Some((server, address)) => Ok(self.connect(&role, server, &address)),
            None => Err(CallError::Gone { role: role.to_string() }),
        }
    }

    fn connect(&self, role: &Role, server: ServerId, address: &str) -> Wire {
        let mut wires = self.inner.wires.lock();
        let wire = wires
            .entry((server, address.to_owned()))
            .or_insert_with(|| Wire::to(role.as_str(), server, address, &self.inner.cluster));
        wire.from(self.inner.own.load(Ordering::Relaxed))
    }

    async fn follow(self, stop: CancellationToken) {
        let mut applied = self.inner.node.applied();
        loop {
            self.meet();
            loop {
                let event = tokio::select! {
                    // Cancel-safe: an event that was not returned comes again.
                    event = applied.recv() => event,
                    () = stop.cancelled() => return,
                };
                match event.as_deref() {
                    Ok(AppliedEvent::Applied(applied)) => {
                        if applied.touched.areas.contains(&Area::Session) {
                            break;
                        }
                    }
                    Ok(AppliedEvent::Reset { .. }) | Err(RecvError::Lagged { .. }) => break,
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }

    /// Connects to those who are new and forgets those who are gone.
    fn meet(&self) {
        let present: Vec<(Role, ServerId, String)> = self.inner.node.local_view().read(|state| {
            let rows = state.views().sessions().rows().iter();
            rows.filter_map(|(key, row)| {
                let session = row.decoded()?;
                let is_allowed = key.role != Role::IndexNode
                    || self.inner.allowed_index_nodes.permits(&session.address);
                let called = CALLED.contains(&key.role) && is_allowed;
                called.then(|| (key.role.clone(), session.server, session.address.to_string()))
            })
            .collect()
        });
        let keep = |server: &ServerId, address: &String| {
            present.iter().any(|(_, known, at)| known == server && at == address)
        };
        self.inner.wires.lock().retain(|(server, address), _| keep(server, address));
        for (role, server, address) in present {
            let known = self.inner.wires.lock().contains_key(&(server, address.clone()));
            if !known {
                tracing::debug!(%role, server = server.0, address, "connecting ahead");
                let wire = self.connect(&role, server, &address);
                tasks::spawn("coordinator-dial", async move { wire.warm_up().await });
            }
        }
    }
}
