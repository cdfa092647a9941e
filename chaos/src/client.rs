//! A client of one node: every call has a deadline, nothing is retried.

use std::time::Duration;

use anyhow::{Context, Result};
use proto::etcd;
use proto::etcd::cluster_client::ClusterClient;
use proto::etcd::kv_client::KvClient;
use proto::etcd::lease_client::LeaseClient;
use proto::etcd::maintenance_client::MaintenanceClient;
use proto::etcd::watch_client::WatchClient;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

/// Longer than any answer that the loads ask for.
const MESSAGE_BYTES_MAX: usize = 1 << 30;

/// A lazily connected client of one node. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    endpoint: String,
    channel: Channel,
}

impl Client {
    /// A client of `host:port`. Connects at the first call, and again after a loss.
    ///
    /// # Errors
    /// The address is malformed.
    pub fn new(endpoint: &str) -> Result<Client> {
        let channel = Endpoint::from_shared(format!("http://{endpoint}"))
            .with_context(|| format!("the endpoint {endpoint}"))?
            .connect_timeout(Duration::from_secs(1))
            .tcp_nodelay(true)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .connect_lazy();
        Ok(Client { endpoint: endpoint.to_owned(), channel })
    }

    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A client of the same node with a connection of its own.
    ///
    /// # Errors
    /// As [`Client::new`].
    pub fn reconnected(&self) -> Result<Client> {
        Client::new(&self.endpoint)
    }

    #[must_use]
    pub fn kv(&self) -> KvClient<Channel> {
        KvClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    #[must_use]
    pub fn watch(&self) -> WatchClient<Channel> {
        WatchClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    #[must_use]
    pub fn lease(&self) -> LeaseClient<Channel> {
        LeaseClient::new(self.channel.clone())
    }

    #[must_use]
    pub fn maintenance(&self) -> MaintenanceClient<Channel> {
        MaintenanceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    #[must_use]
    pub fn cluster(&self) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel.clone())
    }

    /// What the node says about itself.
    ///
    /// # Errors
    /// The node's own, or the deadline.
    pub async fn status(&self, patience: Duration) -> Result<etcd::StatusResponse, Status> {
        let mut maintenance = self.maintenance();
        within(patience, maintenance.status(etcd::StatusRequest {})).await
    }

    /// A linearizable read of one key.
    ///
    /// # Errors
    /// The node's own, or the deadline.
    pub async fn get(&self, key: &str, patience: Duration) -> Result<etcd::RangeResponse, Status> {
        self.range(
            etcd::RangeRequest { key: key.to_owned().into(), ..Default::default() },
            patience,
        )
        .await
    }

    /// Any read.
    ///
    /// # Errors
    /// The node's own, or the deadline.
    pub async fn range(
        &self,
        request: etcd::RangeRequest,
        patience: Duration,
    ) -> Result<etcd::RangeResponse, Status> {
        within(patience, self.kv().range(request)).await
    }

    /// One put; the revision that it got.
    ///
    /// # Errors
    /// The node's own, or the deadline.
    pub async fn put(
        &self,
        key: impl Into<bytes::Bytes>,
        value: impl Into<bytes::Bytes>,
        patience: Duration,
    ) -> Result<i64, Status> {
        let request =
            etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() };
        let response = within(patience, self.kv().put(request)).await?;
        Ok(response.header.map_or(0, |header| header.revision))
    }
}

/// The response of a call, or `DeadlineExceeded` after `patience`.
///
/// # Errors
/// The call's own, or the deadline.
pub async fn within<T>(
    patience: Duration,
    call: impl Future<Output = Result<tonic::Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(patience, call).await {
        Ok(response) => response.map(tonic::Response::into_inner),
        Err(_elapsed) => {
            Err(Status::new(Code::DeadlineExceeded, format!("no answer within {patience:?}")))
        }
    }
}

/// True where the request never left this process, so that it cannot have had an effect.
#[must_use]
pub fn never_sent(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.kind() == std::io::ErrorKind::ConnectionRefused;
        }
        source = error.source();
    }
    false
}

/// The exclusive end of all keys that begin with `prefix` (which ends in an ordinary character).
#[must_use]
pub fn prefix_end(prefix: &str) -> bytes::Bytes {
    let mut end = prefix.as_bytes().to_vec();
    if let Some(last) = end.last_mut() {
        *last += 1;
    }
    end.into()
}
