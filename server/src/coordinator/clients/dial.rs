//! One connection, with the headers that Milvus checks on every call.

use std::sync::Arc;
use std::time::Duration;

use proto::milvus::data::data_node_client::DataNodeClient;
use proto::milvus::milvus::GetComponentStatesRequest;
use statemachine::view::ServerId;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// Milvus sends and expects messages up to this size.
pub(super) const MESSAGE_BYTES_MAX: usize = 512 << 20;

const CONNECT_WITHIN: Duration = Duration::from_secs(2);
const PING_EVERY: Duration = Duration::from_secs(10);
const PING_WITHIN: Duration = Duration::from_secs(20);
const WARM_UP_WITHIN: Duration = Duration::from_secs(3);

pub(super) type Calls = InterceptedService<Channel, Headers>;

/// A connection to one process. It is made when it is first used, and again when it broke.
#[derive(Clone)]
pub(crate) struct Wire {
    server: ServerId,
    who: Arc<str>,
    source: i64,
    calls: Calls,
}

impl Wire {
    pub(super) fn to(role: &str, server: ServerId, address: &str, cluster: &str) -> Wire {
        let who: Arc<str> = format!("{role} {server} at {address}").into();
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap_or_else(|error| {
            tracing::error!(who = &*who, %error, "the address in a session is none");
            Endpoint::from_static("http://127.0.0.1:0")
        });
        let channel = endpoint
            .connect_timeout(CONNECT_WITHIN)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_WITHIN)
            .keep_alive_while_idle(true)
            .connect_lazy();
        let headers = Headers { cluster: cluster.parse().ok(), server: server.0.into() };
        let calls = InterceptedService::new(channel, headers);
        Wire { server, who, source: 0, calls }
    }

    /// The same connection for calls of this source.
    pub(super) fn from(&self, source: i64) -> Wire {
        Wire { source, ..self.clone() }
    }

    pub(super) fn server(&self) -> ServerId {
        self.server
    }

    pub(super) fn source(&self) -> i64 {
        self.source
    }

    pub(super) fn who(&self) -> &str {
        &self.who
    }

    pub(super) fn calls(&self) -> Calls {
        self.calls.clone()
    }

    /// Makes the connection; every process answers this call, though only a data node under this
    /// name. Any answer will do.
    pub(super) async fn warm_up(&self) {
        let mut client = DataNodeClient::new(self.calls());
        let call = client.get_component_states(GetComponentStatesRequest {});
        // Whoever needs it connects again.
        let _ = tokio::time::timeout(WARM_UP_WITHIN, call).await;
    }
}

/// What a process checks before it takes a call: that the caller means this cluster and this very
/// process, not another that has its address now.
#[derive(Clone)]
pub(super) struct Headers {
    cluster: Option<MetadataValue<Ascii>>,
    server: MetadataValue<Ascii>,
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let metadata = request.metadata_mut();
        if let Some(cluster) = &self.cluster {
            metadata.insert("cluster", cluster.clone());
        }
        metadata.insert("serverid", self.server.clone());
        Ok(request)
    }
}
