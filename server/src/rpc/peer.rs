//! What other nodes ask this one's services, beside consensus.

use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use prost::Message;
use proto::{etcd, quorate};
use statemachine::versions;
use tokio::time::Instant;

use crate::lease_clock::Leases;
use crate::watch_hub::WatchHub;

/// How long a question may take here; who asks has a deadline of its own.
const ANSWER_MAX: Duration = Duration::from_secs(2);

/// What a question is about. Numbers are part of what nodes of different versions agree on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Topic {
    KeepAlive = 1,
    TimeToLive = 2,
    WatchNeed = 3,
    Digest = 4,
    DigestVerdict = 5,
    Level = 6,
}

impl From<Topic> for u32 {
    fn from(topic: Topic) -> u32 {
        topic as u32
    }
}

impl TryFrom<u32> for Topic {
    type Error = String;

    fn try_from(number: u32) -> Result<Topic, String> {
        [
            Topic::KeepAlive,
            Topic::TimeToLive,
            Topic::WatchNeed,
            Topic::Digest,
            Topic::DigestVerdict,
            Topic::Level,
        ]
        .into_iter()
        .find(|topic| u32::from(*topic) == number)
        .ok_or_else(|| format!("unknown question {number}: is a node of another version?"))
    }
}

/// Answers peers. Made before the node starts, because the node needs it; knows the services once
/// they run.
#[derive(Default)]
pub struct PeerTopics {
    services: OnceLock<Services>,
}

struct Services {
    node: raft::Node,
    leases: Arc<Leases>,
    /// The hub holds the node, which holds this.
    hub: Weak<WatchHub>,
}

impl PeerTopics {
    pub fn new() -> Arc<PeerTopics> {
        Arc::new(PeerTopics::default())
    }

    pub fn attach(&self, node: raft::Node, leases: Arc<Leases>, hub: &Arc<WatchHub>) {
        let services = Services { node, leases, hub: Arc::downgrade(hub) };
        assert!(self.services.set(services).is_ok(), "services are attached once");
    }
}

impl raft::PeerHandler for PeerTopics {
    fn ask(
        &self,
        _from: u64,
        topic: u32,
        body: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, String>> {
        let Some(services) = self.services.get() else {
            return Box::pin(async { Err("services are not up yet".to_owned()) });
        };
        let topic = match Topic::try_from(topic) {
            Ok(topic) => topic,
            Err(reason) => return Box::pin(async { Err(reason) }),
        };
        match topic {
            Topic::KeepAlive => services.keep_alive(body),
            Topic::TimeToLive => services.time_to_live(body),
            Topic::WatchNeed => {
                let revision = services.hub.upgrade().and_then(|hub| hub.low_water());
                answer(quorate::WatchNeedAnswer { revision })
            }
            Topic::Digest => services.digest(body),
            Topic::DigestVerdict => services.digest_verdict(body),
            Topic::Level => answer(quorate::LevelAnswer { known: versions::KNOWN_LEVEL }),
        }
    }
}

impl Services {
    fn keep_alive(&self, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let leases = Arc::clone(&self.leases);
        Box::pin(async move {
            let request: quorate::KeepAliveRequest = read(body)?;
            let deadline = Instant::now() + ANSWER_MAX;
            let ttl_s = leases.renew(&request.ids, deadline).await.map_err(|e| e.to_string())?;
            Ok(quorate::KeepAliveAnswer { ttl_s }.encode_to_vec().into())
        })
    }

    fn time_to_live(&self, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let leases = Arc::clone(&self.leases);
        Box::pin(async move {
            let request: etcd::LeaseTimeToLiveRequest = read(body)?;
            let deadline = Instant::now() + ANSWER_MAX;
            let response =
                leases.time_to_live(&request, deadline).await.map_err(|e| e.to_string())?;
            Ok(response.encode_to_vec().into())
        })
    }

    fn digest(&self, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let request: Result<quorate::DigestRequest, String> = read(body);
        let digest = request.map(|request| {
            self.node.local_view().read(|state| crate::duty::recorded_digest(state, request.index))
        });
        match digest {
            Ok(digest) => answer(quorate::DigestAnswer { digest }),
            Err(reason) => Box::pin(async { Err(reason) }),
        }
    }

    fn digest_verdict(&self, body: Bytes) -> BoxFuture<'static, Result<Bytes, String>> {
        let verdict: quorate::DigestVerdict = match read(body) {
            Ok(verdict) => verdict,
            Err(reason) => return Box::pin(async { Err(reason) }),
        };
        let own =
            self.node.local_view().read(|state| crate::duty::recorded_digest(state, verdict.index));
        // Whoever speaks up has to be right: the facts are compared here once more.
        if own.is_some() && own != verdict.majority {
            let index = verdict.index;
            self.node.quarantine(&format!(
                "the state of this node differs from that of the majority at log index {index}"
            ));
        }
        answer(quorate::Empty {})
    }
}

fn read<M: Message + Default>(body: Bytes) -> Result<M, String> {
    M::decode(body).map_err(|error| format!("question cannot be read: {error}"))
}

fn answer(message: impl Message) -> BoxFuture<'static, Result<Bytes, String>> {
    let bytes = message.encode_to_vec().into();
    Box::pin(async { Ok(bytes) })
}
