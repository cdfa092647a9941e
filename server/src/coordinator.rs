//! The coordinator's role: what this node does for Milvus while it leads, and what it prepares for
//! that while it follows.
//!
//! [`Coordinator`] lives as long as the process. [`Lead`](lead::Lead) lives as long as one tenure:
//! whoever holds it may act as the leader, and everything in it is rebuilt by looking.

pub(crate) mod allowed;
pub(crate) mod assign;
pub(crate) mod clients;
pub(crate) mod connections;
pub(crate) mod counts;
pub(crate) mod data_nodes;
pub(crate) mod deltas;
pub(crate) mod failure;
pub(crate) mod flush_channels;
pub(crate) mod garbage;
pub(crate) mod hand_over;
pub(crate) mod ids;
pub(crate) mod indexing;
pub(crate) mod lead;
pub(crate) mod milvus_yaml;
pub(crate) mod objects;
pub(crate) mod observed;
pub(crate) mod presence;
pub(crate) mod records;
pub(crate) mod recovery;
pub(crate) mod seal;
pub(crate) mod settings;
pub(crate) mod tso;
pub(crate) mod wakes;

mod driver;
pub(crate) mod duty;

use std::sync::Arc;

use raft::Node;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub(crate) use failure::{Code, Failure};
pub(crate) use lead::Lead;
use settings::CoordinatorSettings;

use crate::lease_clock::Leases;

/// Shared by the services, on every node that has the role switched on.
pub(crate) struct Coordinator {
    pub(crate) node: Node,
    pub(crate) settings: Arc<CoordinatorSettings>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) clients: clients::Clients,
    pub(crate) connections: connections::Connections,
    pub(crate) counts: counts::Counts,
    objects: objects::Objects,
    pub(crate) garbage: garbage::GarbageLog,
    /// Present while this node leads and can serve.
    lead: watch::Sender<Option<Arc<Lead>>>,
    status: watch::Receiver<raft::Status>,
}

impl Coordinator {
    /// Starts what leads and follows in the background; it ends with `stop`.
    pub(crate) fn start(
        node: Node,
        leases: Arc<Leases>,
        settings: Arc<CoordinatorSettings>,
        stop: CancellationToken,
    ) -> Arc<Coordinator> {
        let clients = clients::Clients::start(node.clone(), &settings, stop.clone());
        let objects = objects::Objects::new(&settings);
        let coordinator = Arc::new(Coordinator {
            status: node.status(),
            node,
            settings,
            leases,
            clients,
            connections: connections::Connections::default(),
            counts: counts::Counts::default(),
            objects,
            garbage: garbage::GarbageLog::default(),
            lead: watch::Sender::new(None),
        });
        driver::spawn(Arc::clone(&coordinator), stop);
        coordinator
    }

    /// What leads now.
    ///
    /// # Errors
    /// Unavailable: this node does not lead, is still taking over, or has no majority. Clients
    /// look for the leader again.
    pub(crate) fn lead(&self) -> Result<Arc<Lead>, Failure> {
        if self.status.borrow().is_without_quorum() {
            return Err(Failure::NotLeader);
        }
        self.lead.borrow().clone().ok_or(Failure::NotLeader)
    }

    /// This node does not lead any more.
    fn let_go(&self) {
        self.lead.send_replace(None);
        self.connections.cut();
    }

    /// Milvus's object files.
    pub(crate) fn objects(&self) -> &objects::Objects {
        &self.objects
    }
}
