//! The answering side of what nodes say to each other.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use openraft::raft::StreamAppendError;
use proto::quorate::peer_server::Peer;
use proto::quorate::{self, read_index_reply};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming};

use crate::clock_sync::Stamp;
use crate::inbound::{Answer, InboundRun};
use crate::node::Inner;
use crate::places::Place;
use crate::room::RoomLevel;
use crate::types::LeaderId;
use crate::wire::{self, WireError};
use crate::{admit, bootstrap, membership, snapshot_transfer, tasks};

/// Answers of a run's stream gathered into one message at most.
const RESULTS_MAX: usize = 64;

#[derive(Clone)]
pub(crate) struct PeerService {
    node: Arc<Inner>,
}

type Replies<T> = BoxStream<'static, Result<T, Status>>;

impl PeerService {
    pub(crate) fn new(node: Arc<Inner>) -> PeerService {
        PeerService { node }
    }

    /// Who calls, and what; only nodes that mean this one get through.
    fn admit<T>(&self, request: Request<T>) -> Result<(u64, T), Status> {
        let from = self.node.identity.check(request.metadata())?;
        self.node.check_admitted()?;
        if let Some(place) = request.extensions().get::<Arc<Place>>() {
            place.asks();
        }
        Ok((from, request.into_inner()))
    }
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("consensus has stopped: {error}"))
}

fn undecodable(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

async fn read_index(
    node: &Inner,
    from: u64,
    asked: quorate::ReadIndexRequest,
) -> quorate::ReadIndexReply {
    let voted = LeaderId { term: asked.term, node_id: asked.node };
    let leadership = *node.leadership.borrow();
    let result = if let Some(index) = node.confirmer.confirmed_by(from, voted) {
        read_index_reply::Result::Index(index)
    } else if leadership.mine.is_none() {
        let leader = leadership.leader.unwrap_or_default();
        read_index_reply::Result::NotLeader(quorate::NotLeader { leader })
    } else if let Some(index) = node.barrier.read_index().await {
        // The caller's group joined that of this node's own reads: one round served both.
        read_index_reply::Result::Index(index)
    } else {
        read_index_reply::Result::Unavailable("no quorum confirmed it".to_owned())
    };
    quorate::ReadIndexReply { result: Some(result) }
}

#[tonic::async_trait]
impl Peer for PeerService {
    type AppendStream = Replies<quorate::AppendReply>;
    type InstallSnapshotStream = Replies<quorate::SnapshotAnswer>;
    type FetchSnapshotStream = Replies<quorate::SnapshotPart>;
    type ReadIndexStream = Replies<quorate::ReadIndexReply>;
    type ConfirmLeaderStream = Replies<quorate::ConfirmLeaderReply>;
    type ForwardStream = Replies<quorate::ForwardReply>;

    async fn append(
        &self,
        request: Request<Streaming<quorate::AppendRequest>>,
    ) -> Result<Response<Self::AppendStream>, Status> {
        let (from, input) = self.admit(request)?;
        Ok(Response::new(self.node.intake.append(&self.node, from, input)))
    }

    async fn heartbeat(
        &self,
        request: Request<quorate::AppendRequest>,
    ) -> Result<Response<quorate::AppendReply>, Status> {
        let (_, request) = self.admit(request)?;
        self.node.storage.room.check(&request)?;
        let stamp = Stamp { at_ms: request.time_ms, epoch: request.time_epoch };
        let request = self.node.contact.receive(request).map_err(|error| undecodable(&error))?;
        let _place = self.node.intake.heartbeat()?;
        let prev = request.prev_log_id;
        let last = request.entries.last().map(|entry| entry.log_id).or(prev);
        let response = self.node.engine.append_entries(request).await.map_err(stopped)?;
        // A conflict names the entry that did not fit; without one there is nothing to conflict.
        if response.is_conflict() && prev.is_none() {
            return Err(Status::internal("conflict without a preceding entry"));
        }
        let result = response.into_stream_result(prev, last);
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.node.clocks.follow(stamp);
        }
        let mut reply = wire::append_result_to_wire(&result);
        reply.wall_ms = self.node.clocks.wall_ms();
        reply.room = Some(wire::room_to_wire(&self.node.storage.room.view()));
        Ok(Response::new(reply))
    }

    async fn vote(
        &self,
        request: Request<quorate::VoteRequest>,
    ) -> Result<Response<quorate::VoteReply>, Status> {
        let (from, request) = self.admit(request)?;
        let request =
            wire::vote_request_from_wire(&request).map_err(|error| undecodable(&error))?;
        // Who asks for votes has its own on disk.
        self.node.notes.voted(from, request.vote.leader_id);
        let response = self.node.engine.vote(request).await.map_err(stopped)?;
        let mut reply = wire::vote_response_to_wire(&response);
        reply.wall_ms = self.node.clocks.wall_ms();
        Ok(Response::new(reply))
    }

    async fn pre_vote(
        &self,
        request: Request<quorate::VoteRequest>,
    ) -> Result<Response<quorate::VoteReply>, Status> {
        let (_, request) = self.admit(request)?;
        let request =
            wire::vote_request_from_wire(&request).map_err(|error| undecodable(&error))?;
        let response = self.node.engine.pre_vote(request).await.map_err(stopped)?;
        let mut reply = wire::vote_response_to_wire(&response);
        reply.wall_ms = self.node.clocks.wall_ms();
        Ok(Response::new(reply))
    }

    async fn transfer_leader(
        &self,
        request: Request<quorate::TransferRequest>,
    ) -> Result<Response<quorate::TransferReply>, Status> {
        let (_, request) = self.admit(request)?;
        let request = wire::transfer_from_wire(&request).map_err(|error| undecodable(&error))?;
        if self.node.storage.room.level() != RoomLevel::Plenty {
            return Err(Status::unavailable(
                "no room on the disk: this node does not take the lead",
            ));
        }
        let result = self.node.engine.handle_transfer_leader(request).await.map_err(stopped)?;
        Ok(Response::new(wire::transfer_result_to_wire(&result)))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<quorate::SnapshotPart>>,
    ) -> Result<Response<Self::InstallSnapshotStream>, Status> {
        let (from, parts) = self.admit(request)?;
        let answers = snapshot_transfer::receive(Arc::clone(&self.node), from, parts);
        Ok(Response::new(answers))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<quorate::FetchSnapshotRequest>,
    ) -> Result<Response<Self::FetchSnapshotStream>, Status> {
        let (from, request) = self.admit(request)?;
        let parts = snapshot_transfer::serve(&self.node, from, request.index).await?;
        Ok(Response::new(parts))
    }

    async fn read_index(
        &self,
        request: Request<Streaming<quorate::ReadIndexRequest>>,
    ) -> Result<Response<Self::ReadIndexStream>, Status> {
        let (from, questions) = self.admit(request)?;
        let node = Arc::clone(&self.node);
        let answers = questions.and_then(move |asked| {
            let node = Arc::clone(&node);
            async move { Ok(read_index(&node, from, asked).await) }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn confirm_leader(
        &self,
        request: Request<Streaming<quorate::ConfirmLeaderRequest>>,
    ) -> Result<Response<Self::ConfirmLeaderStream>, Status> {
        let (_, questions) = self.admit(request)?;
        let log = self.node.storage.log.clone();
        let answers = questions.map_ok(move |asked| {
            let leader = LeaderId { term: asked.term, node_id: asked.node };
            let confirmed = log.newest_vote().is_some_and(|vote| vote.leader_id == leader);
            quorate::ConfirmLeaderReply { confirmed }
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn forward(
        &self,
        request: Request<Streaming<quorate::ForwardRequest>>,
    ) -> Result<Response<Self::ForwardStream>, Status> {
        let (from, mut runs) = self.admit(request)?;
        let (sender, mut results) = mpsc::unbounded_channel();
        let node = Arc::clone(&self.node);
        tasks::spawn(&self.node.runtime, "forward", async move {
            loop {
                match runs.message().await {
                    Ok(Some(request)) => {
                        let answer = Answer::new(request.id, sender.clone());
                        match admit::check(&node, from, &request).await {
                            Ok(()) => node.inbound.push(InboundRun {
                                n_commands: usize::try_from(request.n_commands)
                                    .unwrap_or(usize::MAX),
                                bytes: request.run,
                                answer,
                            }),
                            Err(not_admitted) => {
                                tracing::warn!(node = from, reason = ?not_admitted, "run refused");
                                answer.not_admitted(not_admitted);
                            }
                        }
                    }
                    Ok(None) => break,
                    Err(status) => {
                        tracing::debug!(node = from, error = %status, "forward stream broke");
                        break;
                    }
                }
            }
        });
        let replies = futures::stream::poll_fn(move |context| {
            let mut batch = Vec::new();
            results.poll_recv_many(context, &mut batch, RESULTS_MAX).map(|n_results| {
                (n_results > 0).then_some(Ok(quorate::ForwardReply { results: batch }))
            })
        });
        Ok(Response::new(replies.boxed()))
    }

    async fn ask(
        &self,
        request: Request<quorate::AskRequest>,
    ) -> Result<Response<quorate::AskReply>, Status> {
        let (from, ask) = self.admit(request)?;
        let result = match self.node.handler.ask(from, ask.topic, ask.body).await {
            Ok(body) => quorate::ask_reply::Result::Body(body),
            Err(refused) => quorate::ask_reply::Result::Refused(refused),
        };
        Ok(Response::new(quorate::AskReply { result: Some(result) }))
    }

    async fn change_members(
        &self,
        request: Request<quorate::ChangeMembersRequest>,
    ) -> Result<Response<quorate::ChangeMembersReply>, Status> {
        let (_, request) = self.admit(request)?;
        Ok(Response::new(membership::answer(&self.node, request).await))
    }

    async fn hello(
        &self,
        request: Request<quorate::HelloRequest>,
    ) -> Result<Response<quorate::HelloReply>, Status> {
        Ok(Response::new(bootstrap::hello(&self.node, request.into_inner()).await))
    }

    async fn found(
        &self,
        request: Request<quorate::FoundRequest>,
    ) -> Result<Response<quorate::FoundReply>, Status> {
        let refused = bootstrap::take_founding(&self.node, request.into_inner()).await;
        Ok(Response::new(quorate::FoundReply { refused: refused.err().unwrap_or_default() }))
    }

    async fn join(
        &self,
        request: Request<quorate::JoinRequest>,
    ) -> Result<Response<quorate::JoinReply>, Status> {
        let refused = bootstrap::take_invitation(&self.node, request.into_inner()).await;
        Ok(Response::new(quorate::JoinReply { refused: refused.err().unwrap_or_default() }))
    }
}
