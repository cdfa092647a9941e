//! Maintenance: status, alarms, hashes, transfer of leadership.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use proto::etcd;
use proto::etcd::maintenance_server;
use proto::quorate::command::Kind;
use raft::Consistency;
use statemachine::{Fault, Response as Outcome, State};
use tonic::{Request, Response, Status};

use super::call::Deadline;
use super::error::{self, EtcdError};
use super::{Etcd, mismatch};
use crate::admin::backup::seal::Sealer;
use crate::admin::backup::stream as backup;
use crate::admin::scans::{Busy, TOO_LONG, Until};
use crate::rpc::leader::name_leader;
use crate::tasks;

/// The etcd version that this API follows. Clients parse it to tell what a server can do.
pub const ETCD_VERSION: &str = "3.5.21";

/// A hash reads every version of every key.
const HASH_WITHIN: Duration = Duration::from_secs(60);

pub(super) struct Maintenance(pub(super) Arc<Etcd>);

#[tonic::async_trait]
impl maintenance_server::Maintenance for Maintenance {
    async fn alarm(
        &self,
        request: Request<etcd::AlarmRequest>,
    ) -> Result<Response<etcd::AlarmResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let request = request.into_inner();
        if request.action == i32::from(etcd::alarm_request::AlarmAction::Get) {
            let view = self.0.view(Consistency::Local, deadline).await?;
            let any = i32::from(etcd::AlarmType::None);
            let (revision, alarms) = view.read(|state| {
                let alarms = match request.alarm {
                    wanted if wanted == any => alarms(state),
                    wanted => state
                        .alarms()
                        .map(statemachine::Alarm::to_wire)
                        .filter(|alarm| alarm.alarm == wanted)
                        .collect(),
                };
                (state.revision(), alarms)
            });
            let header = Some(self.0.headers.at(revision));
            return Ok(Response::new(etcd::AlarmResponse { header, alarms }));
        }
        if request.action == i32::from(etcd::alarm_request::AlarmAction::Activate) {
            self.0.check_alarmed(request.member_id)?;
        }
        let outcome = self.0.propose(Kind::Alarm(request), deadline).await?;
        let Outcome::Alarm(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.0.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    async fn status(
        &self,
        _: Request<etcd::StatusRequest>,
    ) -> Result<Response<etcd::StatusResponse>, Status> {
        let (revision, alarms, logical_bytes, quota_bytes) =
            self.0.node.local_view().read(|state| {
                (
                    state.revision(),
                    alarms(state),
                    state.logical_bytes(),
                    state.settings().quota_bytes,
                )
            });
        let header = Some(self.0.headers.at(revision));
        let status = self.0.headers.status();
        let mut errors: Vec<String> = Vec::new();
        if status.leader.is_none() {
            errors.push(EtcdError::NoLeader.text().to_owned());
        }
        errors.extend(alarms.iter().map(|alarm| {
            let kind = etcd::AlarmType::try_from(alarm.alarm).unwrap_or(etcd::AlarmType::None);
            format!("memberID:{} alarm:{} ", alarm.member_id, kind.as_str_name())
        }));
        let is_voter = status.member(status.node).is_none_or(|member| member.voter);
        let in_use = i64::try_from(logical_bytes).unwrap_or(i64::MAX);
        Ok(Response::new(etcd::StatusResponse {
            header,
            version: ETCD_VERSION.to_owned(),
            db_size: in_use,
            db_size_in_use: in_use,
            db_size_quota: i64::try_from(quota_bytes).unwrap_or(i64::MAX),
            leader: status.leader.as_ref().map_or(0, |leader| leader.id),
            raft_index: status.committed_index,
            raft_term: status.term,
            raft_applied_index: status.applied.index,
            errors,
            is_learner: !is_voter,
            storage_version: "3.5.0".to_owned(),
            downgrade_info: None,
        }))
    }

    async fn defragment(
        &self,
        _: Request<etcd::DefragmentRequest>,
    ) -> Result<Response<etcd::DefragmentResponse>, Status> {
        tracing::info!("defragment asked for: nothing to do, the store compacts itself");
        Ok(Response::new(etcd::DefragmentResponse { header: None }))
    }

    async fn hash(
        &self,
        _: Request<etcd::HashRequest>,
    ) -> Result<Response<etcd::HashResponse>, Status> {
        Err(Status::unimplemented(
            "etcdserver: Hash covers a store that is not kept here: use HashKV",
        ))
    }

    async fn hash_kv(
        &self,
        request: Request<etcd::HashKvRequest>,
    ) -> Result<Response<etcd::HashKvResponse>, Status> {
        self.0.admit(request.metadata())?;
        let deadline = Deadline::of(request.metadata(), HASH_WITHIN);
        let wanted = request.into_inner().revision;
        let view = self.0.view(Consistency::Local, deadline).await?;
        // Its turn comes first: the image that it reads is not to wait.
        let permit = self.0.scans.hash(deadline.at).await.map_err(|busy| too_busy(&busy))?;
        let ((revision, compacted), store) =
            view.pin(|state| (state.revision(), state.compacted_revision()));
        let at = if wanted <= 0 { revision } else { wanted };
        if at > revision {
            return Err(EtcdError::FutureRevision
                .with_detail(&format!("revision {at} was asked for, the newest is {revision}")));
        }
        if at < compacted {
            return Err(EtcdError::Compacted
                .with_detail(&format!("revision {at} was asked for, the oldest is {compacted}")));
        }
        let hashing = tasks::spawn_blocking(move || {
            let _permit = permit;
            let store = Until::new(&store, deadline.at.into_std());
            statemachine::digest::hash_kv(&store, compacted, at)
        });
        let hash = match hashing.await {
            Ok(Ok(hash)) => hash,
            Ok(Err(Fault::Storage(reason))) if reason == TOO_LONG => {
                return Err(error::timeout(&deadline).with_detail(TOO_LONG));
            }
            Ok(Err(fault)) => return Err(error::fault(&self.0.node, &fault)),
            Err(error) => return Err(Status::internal(format!("etcdserver: hash: {error}"))),
        };
        Ok(Response::new(etcd::HashKvResponse {
            header: Some(self.0.headers.at(revision)),
            hash: fold(hash.hash),
            // As etcd says it where nothing was compacted.
            compact_revision: if compacted == 0 { -1 } else { compacted },
            hash_revision: at,
        }))
    }

    type SnapshotStream = SnapshotStream;

    /// What is saved is a file for `quorate backup restore`, not one of etcd's.
    async fn snapshot(
        &self,
        request: Request<etcd::SnapshotRequest>,
    ) -> Result<Response<SnapshotStream>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let permit = self.0.scans.stream().map_err(|busy| too_busy(&busy))?;
        let view = self.0.view(Consistency::Local, deadline).await?;
        Ok(Response::new(sealed(backup::stream(&self.0.node, &view, permit))))
    }

    async fn move_leader(
        &self,
        request: Request<etcd::MoveLeaderRequest>,
    ) -> Result<Response<etcd::MoveLeaderResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let target = request.into_inner().target_id;
        let (is_leader, is_voter, leads_already) = {
            let status = self.0.headers.status();
            let is_voter = status.member(target).is_some_and(|member| member.voter);
            (status.is_leader(), is_voter, status.leader.as_ref().is_some_and(|l| l.id == target))
        };
        if !is_leader {
            let mut refusal = Status::from(EtcdError::NotLeader);
            name_leader(&mut refusal, self.0.headers.status().leader.as_ref());
            return Err(refusal);
        }
        if !is_voter {
            return Err(EtcdError::BadTransferee
                .with_detail(&format!("no voting member has id {target:x}")));
        }
        if !leads_already {
            self.0
                .node
                .transfer_leader(Some(target), deadline.at)
                .await
                .map_err(|error| error::membership(&error))?;
        }
        Ok(Response::new(etcd::MoveLeaderResponse { header: None }))
    }

    async fn downgrade(
        &self,
        _: Request<etcd::DowngradeRequest>,
    ) -> Result<Response<etcd::DowngradeResponse>, Status> {
        Err(Status::unimplemented("etcdserver: there is no etcd version to downgrade to"))
    }
}

impl Etcd {
    /// An alarm is a record for each member, outside of the quota: one of no member could be raised
    /// any number of times. Clients that name none mean the cluster.
    fn check_alarmed(&self, member: u64) -> Result<(), Status> {
        if member == 0 || self.headers.status().member(member).is_some() {
            return Ok(());
        }
        Err(EtcdError::MemberNotFound.with_detail(&format!(
            "an alarm was to be raised for member {member:x}, and no member has this id"
        )))
    }
}

fn too_busy(busy: &Busy) -> Status {
    EtcdError::TooManyRequests.with_detail(&busy.to_string())
}

/// A backup as a snapshot, with the end that etcd's tools look for.
fn sealed(backup: backup::BackupStream) -> SnapshotStream {
    let blob = |blob| etcd::SnapshotResponse {
        header: None,
        // Not known ahead: the file is compressed as it goes out.
        remaining_bytes: 0,
        blob,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let begun = (backup, Some(Sealer::default()));
    Box::pin(stream::unfold(begun, move |(mut backup, sealer)| async move {
        let mut sealer = sealer?;
        match backup.next().await {
            Some(Ok(chunk)) => {
                sealer.push(&chunk.data);
                Some((Ok(blob(chunk.data)), (backup, Some(sealer))))
            }
            Some(Err(status)) => Some((Err(status), (backup, None))),
            None => Some((Ok(blob(sealer.seal())), (backup, None))),
        }
    }))
}

/// Those that etcd has: its clients may not bear a kind that they do not know.
fn alarms(state: &State) -> Vec<etcd::AlarmMember> {
    let alarms = state.alarms().filter(|alarm| alarm.kind.is_of_etcd());
    alarms.map(statemachine::Alarm::to_wire).collect()
}

/// The hash in the width that the API has room for.
fn fold(hash: u128) -> u32 {
    let bytes = hash.to_le_bytes();
    bytes.chunks_exact(4).fold(0, |folded, chunk| {
        folded ^ u32::from_le_bytes([chunk[0], chunk[1], chunk[2], chunk[3]])
    })
}

type SnapshotStream = Pin<Box<dyn Stream<Item = Result<etcd::SnapshotResponse, Status>> + Send>>;
