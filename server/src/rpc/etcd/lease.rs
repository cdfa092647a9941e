//! Lease: grant, revoke, keep alive, time to live, list.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use futures::stream::{FuturesUnordered, StreamExt};
use prost::Message;
use proto::etcd;
use proto::etcd::lease_server;
use proto::quorate::command::Kind;
use raft::Consistency;
use rand::Rng;
use statemachine::Response as Outcome;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::call::{Deadline, requires_leader};
use super::error::EtcdError;
use super::{Etcd, error, mismatch};
use crate::rpc::peer::Topic;
use crate::tasks;

/// Renewals of one stream that are under way at once.
const RENEWALS_MAX: usize = 1024;
/// Answers of one stream that wait for its reader.
const ANSWERS_MAX: usize = 64;
/// How often a stream that needs a leader looks whether there is one.
const LEADER_CHECK: Duration = Duration::from_millis(250);

pub(super) struct Lease(pub(super) Arc<Etcd>);

#[tonic::async_trait]
impl lease_server::Lease for Lease {
    async fn lease_grant(
        &self,
        request: Request<etcd::LeaseGrantRequest>,
    ) -> Result<Response<etcd::LeaseGrantResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let mut request = request.into_inner();
        let limit = self.0.limits.lease_ttl_s_max;
        if request.ttl > limit {
            return Err(EtcdError::LeaseTtlTooLarge.with_detail(&format!(
                "{} s were asked for, the limit is {limit} s",
                request.ttl
            )));
        }
        request.ttl = request.ttl.max(self.0.limits.lease_ttl_s_min);
        if request.id == 0 {
            request.id = rand::rng().random_range(1..=i64::MAX);
        }
        let outcome = self.0.propose(Kind::LeaseGrant(request), deadline).await?;
        let Outcome::LeaseGrant(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.0.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    async fn lease_revoke(
        &self,
        request: Request<etcd::LeaseRevokeRequest>,
    ) -> Result<Response<etcd::LeaseRevokeResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let outcome = self.0.propose(Kind::LeaseRevoke(request.into_inner()), deadline).await?;
        let Outcome::LeaseRevoke(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.0.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    type LeaseKeepAliveStream = Answers;

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<etcd::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let needs_leader = requires_leader(request.metadata());
        if needs_leader && !self.0.headers.has_leader() {
            return Err(EtcdError::NoLeader.into());
        }
        let (answers, outbox) = mpsc::channel(ANSWERS_MAX);
        let api = Arc::clone(&self.0);
        tasks::spawn("lease-stream", keep_alive(api, request.into_inner(), answers, needs_leader));
        Ok(Response::new(Answers(outbox)))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<etcd::LeaseTimeToLiveRequest>,
    ) -> Result<Response<etcd::LeaseTimeToLiveResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let request = request.into_inner();
        let mut response = self.0.time_to_live(&request, deadline).await?;
        let revision = self.0.node.local_view().read(statemachine::State::revision);
        response.header = Some(self.0.headers.at(revision));
        Ok(Response::new(response))
    }

    async fn lease_leases(
        &self,
        request: Request<etcd::LeaseLeasesRequest>,
    ) -> Result<Response<etcd::LeaseLeasesResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let view = self.0.view(Consistency::Local, deadline).await?;
        let (leases, revision) = view.read(|state| {
            let leases = state.leases().map(|(id, _)| etcd::LeaseStatus { id }).collect();
            (leases, state.revision())
        });
        let header = Some(self.0.headers.at(revision));
        Ok(Response::new(etcd::LeaseLeasesResponse { header, leases }))
    }
}

impl Etcd {
    /// Asks the leader, whoever it is by the deadline.
    async fn time_to_live(
        &self,
        request: &etcd::LeaseTimeToLiveRequest,
        deadline: Deadline,
    ) -> Result<etcd::LeaseTimeToLiveResponse, Status> {
        const PAUSE: Duration = Duration::from_millis(50);
        let body = bytes::Bytes::from(request.encode_to_vec());
        loop {
            let answer =
                self.node.ask_leader(Topic::TimeToLive.into(), body.clone(), deadline.at).await;
            match answer {
                Ok(answer) => {
                    return etcd::LeaseTimeToLiveResponse::decode(answer)
                        .map_err(|error| Status::internal(format!("etcdserver: {error}")));
                }
                Err(error) if Instant::now() + PAUSE >= deadline.at => {
                    return Err(error::ask(&error, &deadline));
                }
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

/// Serves one keep-alive stream until its client leaves.
async fn keep_alive(
    api: Arc<Etcd>,
    mut requests: Streaming<etcd::LeaseKeepAliveRequest>,
    answers: mpsc::Sender<Result<etcd::LeaseKeepAliveResponse, Status>>,
    needs_leader: bool,
) {
    let mut renewals = FuturesUnordered::new();
    let mut leader_check = tokio::time::interval(LEADER_CHECK);
    let mut leader_seen = Instant::now();
    let end: Option<Status> = loop {
        tokio::select! {
            () = answers.closed() => break None,
            () = api.stop.cancelled() => break Some(EtcdError::Stopped.into()),
            // Cancel-safe: a message is taken whole or not at all.
            message = requests.message(), if renewals.len() < RENEWALS_MAX => match message {
                Ok(Some(request)) => renewals.push(renew(&api, request.id)),
                Ok(None) => break None,
                Err(_) => break Some(EtcdError::Stopped.into()),
            },
            Some(answer) = renewals.next() => match answer {
                Ok(answer) => {
                    if answers.send(Ok(answer)).await.is_err() {
                        break None;
                    }
                }
                Err(status) => break Some(status),
            },
            now = leader_check.tick(), if needs_leader => {
                if api.headers.has_leader() {
                    leader_seen = now;
                } else if now - leader_seen >= api.limits.leaderless_max {
                    break Some(EtcdError::NoLeader.into());
                }
            }
        }
    };
    if let Some(status) = end {
        // A client that has gone does not need it.
        let _ = answers.send(Err(status)).await;
        return;
    }
    // The client closed its side: what it still waits for is answered.
    while let Some(Ok(answer)) = renewals.next().await {
        if answers.send(Ok(answer)).await.is_err() {
            return;
        }
    }
}

/// The header is that of the moment before the renewal.
async fn renew(api: &Arc<Etcd>, id: i64) -> Result<etcd::LeaseKeepAliveResponse, Status> {
    let revision = api.node.local_view().read(statemachine::State::revision);
    let header = Some(api.headers.at(revision));
    let deadline = Instant::now() + api.limits.request_timeout;
    match api.leases.keep_alive(id, deadline).await {
        Ok(ttl) => Ok(etcd::LeaseKeepAliveResponse { header, id, ttl }),
        Err(error) => Err(EtcdError::Timeout.with_detail(&error.to_string())),
    }
}

/// The outgoing half of a keep-alive stream.
pub(super) struct Answers(mpsc::Receiver<Result<etcd::LeaseKeepAliveResponse, Status>>);

impl Stream for Answers {
    type Item = Result<etcd::LeaseKeepAliveResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}
