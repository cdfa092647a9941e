//! The Admin service: what `quorate status`, `member`, `transfer`, `digest`, `settings` and
//! `backup save` call.

pub(crate) mod act;
mod members;
mod status;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proto::admin::{self, admin_server::Admin};
use proto::quorate;
use raft::{Consistency, MembershipError, Node, ProposeError, ReadError};
use statemachine::Fault;
use tonic::{Request, Response, Status};

use crate::coordinator::Coordinator;
use crate::inspect::{self, InspectError, Known};
use crate::rpc::leader::not_leader;
use crate::tasks;

use super::backup::stream::{BackupStream, stream};
use super::scans::{Busy, Scans, TOO_LONG, Until};

/// For calls whose client sets no deadline.
const CALL_WITHIN: Duration = Duration::from_secs(10);
/// For a scan of all rows, beside others that need the disk.
const SCAN_WITHIN: Duration = Duration::from_secs(600);

pub(crate) struct AdminService {
    node: Node,
    data_dir: PathBuf,
    started: Instant,
    /// Present where this node may lead Milvus's data plane.
    coordinator: Option<Arc<Coordinator>>,
    scans: Arc<Scans>,
}

impl AdminService {
    pub(crate) fn new(
        node: Node,
        data_dir: PathBuf,
        started: Instant,
        coordinator: Option<Arc<Coordinator>>,
        scans: Arc<Scans>,
    ) -> AdminService {
        AdminService { node, data_dir, started, coordinator, scans }
    }

    fn settings_now(&self) -> admin::SettingsReply {
        self.node.local_view().read(|state| {
            let settings = state.settings();
            admin::SettingsReply {
                root_path: settings.root_path.clone(),
                quota_bytes: settings.quota_bytes,
                retention_revisions: settings.retention_revisions,
                retention_ms: settings.retention_ms,
                txn_ops_max: settings.txn_ops_max,
                feature_level: state.level(),
                revision: state.revision(),
            }
        })
    }
}

fn deadline() -> tokio::time::Instant {
    tokio::time::Instant::now() + CALL_WITHIN
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(
        &self,
        _request: Request<admin::StatusRequest>,
    ) -> Result<Response<admin::NodeStatus>, Status> {
        let mut reply = status::of(&self.node, &self.data_dir, self.started);
        status::add_coordinator(&mut reply, &self.node, self.coordinator.as_deref());
        Ok(Response::new(reply))
    }

    async fn member_add(
        &self,
        request: Request<admin::MemberAddRequest>,
    ) -> Result<Response<admin::MembersReply>, Status> {
        members::add(&self.node, &request.into_inner(), deadline()).await.map(Response::new)
    }

    async fn member_promote(
        &self,
        request: Request<admin::MemberPromoteRequest>,
    ) -> Result<Response<admin::MembersReply>, Status> {
        members::promote(&self.node, &request.into_inner(), deadline()).await.map(Response::new)
    }

    async fn member_remove(
        &self,
        request: Request<admin::MemberRemoveRequest>,
    ) -> Result<Response<admin::MembersReply>, Status> {
        members::remove(&self.node, &request.into_inner(), deadline()).await.map(Response::new)
    }

    async fn member_replace(
        &self,
        request: Request<admin::MemberReplaceRequest>,
    ) -> Result<Response<admin::MembersReply>, Status> {
        members::replace(&self.node, &request.into_inner()).await.map(Response::new)
    }

    async fn member_update(
        &self,
        request: Request<admin::MemberUpdateRequest>,
    ) -> Result<Response<admin::MembersReply>, Status> {
        members::update(&self.node, request.into_inner(), deadline()).await.map(Response::new)
    }

    async fn transfer(
        &self,
        request: Request<admin::TransferRequest>,
    ) -> Result<Response<admin::TransferReply>, Status> {
        members::transfer(&self.node, &request.into_inner(), deadline()).await.map(Response::new)
    }

    async fn digest(
        &self,
        request: Request<admin::DigestRequest>,
    ) -> Result<Response<admin::DigestReply>, Status> {
        // Its turn comes first: the image that it reads is not to wait.
        let permit = match request.into_inner().scan {
            false => None,
            true => Some(self.scans.hash(deadline()).await.map_err(|busy| busy_status(&busy))?),
        };
        let view = self.node.local_view();
        let (facts, pinned) =
            view.pin(|state| (state.last_index(), state.revision(), state.digests()));
        let (index, revision, digests) = facts;
        let scanned = match permit {
            None => Bytes::new(),
            Some(permit) => {
                let until = Instant::now() + SCAN_WITHIN;
                let scan = tasks::spawn_blocking(move || {
                    let _permit = permit;
                    statemachine::digest::recompute(&Until::new(&pinned, until))
                });
                let digest = scan
                    .await
                    .map_err(|error| Status::internal(error.to_string()))?
                    .map_err(|fault| scan_status(&fault))?;
                digest_bytes(digest)
            }
        };
        Ok(Response::new(admin::DigestReply {
            node_id: self.node.id(),
            name: self.node.name().to_owned(),
            index,
            revision,
            content: digest_bytes(digests.content),
            chain: digest_bytes(digests.chain),
            scanned,
        }))
    }

    type BackupStream = BackupStream;

    async fn backup(
        &self,
        request: Request<admin::BackupRequest>,
    ) -> Result<Response<BackupStream>, Status> {
        let consistency = match request.into_inner().local {
            true => Consistency::Local,
            false => Consistency::Linearizable,
        };
        let permit = self.scans.stream().map_err(|busy| busy_status(&busy))?;
        let view =
            self.node.view(consistency, deadline()).await.map_err(|error| read_status(&error))?;
        Ok(Response::new(stream(&self.node, &view, permit)))
    }

    async fn settings(
        &self,
        _request: Request<admin::SettingsRequest>,
    ) -> Result<Response<admin::SettingsReply>, Status> {
        self.node
            .view(Consistency::Linearizable, deadline())
            .await
            .map_err(|error| read_status(&error))?;
        Ok(Response::new(self.settings_now()))
    }

    async fn inspect(
        &self,
        request: Request<admin::InspectRequest>,
    ) -> Result<Response<admin::Sheet>, Status> {
        let settings = match &self.coordinator {
            Some(coordinator) => Arc::clone(&coordinator.settings),
            None => Arc::default(),
        };
        let known = Known::by(self.coordinator.as_ref(), request.get_ref());
        let answer = inspect::answer(&self.node, &settings, known, request.get_ref()).await;
        answer.map(Response::new).map_err(|error| match error {
            InspectError::Invalid(text) => Status::invalid_argument(text),
            InspectError::NotFound(text) => Status::not_found(text),
            InspectError::Store(text) => Status::internal(text),
        })
    }

    async fn act(
        &self,
        request: Request<admin::ActRequest>,
    ) -> Result<Response<admin::ActReply>, Status> {
        act::act(self.coordinator.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn change_settings(
        &self,
        request: Request<admin::ChangeSettingsRequest>,
    ) -> Result<Response<admin::SettingsReply>, Status> {
        let change = request.into_inner();
        let change = quorate::ChangeSettings {
            root_path: change.root_path,
            quota_bytes: change.quota_bytes,
            retention_revisions: change.retention_revisions,
            retention_ms: change.retention_ms,
            txn_ops_max: change.txn_ops_max,
        };
        let command = quorate::Command {
            fence: None,
            kind: Some(quorate::command::Kind::ChangeSettings(change)),
        };
        self.node
            .propose(command, deadline())
            .await
            .map_err(|error| propose_status(&error))?
            .outcome
            .map_err(|rejection| Status::invalid_argument(rejection.to_string()))?;
        Ok(Response::new(self.settings_now()))
    }
}

pub(super) fn digest_bytes(digest: u128) -> Bytes {
    Bytes::copy_from_slice(&digest.to_be_bytes())
}

fn membership_status(error: &MembershipError) -> Status {
    let text = error.to_string();
    match error {
        MembershipError::NoLeader => not_leader(None, &text),
        MembershipError::UnknownNode { .. } => Status::not_found(text),
        MembershipError::NoCandidate | MembershipError::Refused(_) => {
            Status::failed_precondition(text)
        }
        MembershipError::Unreachable { .. } => Status::failed_precondition(text),
        MembershipError::Deadline(_) => Status::deadline_exceeded(text),
        MembershipError::ShuttingDown => Status::unavailable(text),
    }
}

fn propose_status(error: &ProposeError) -> Status {
    let text = error.to_string();
    match error {
        ProposeError::NotLeader { leader } => not_leader(leader.as_deref(), &text),
        ProposeError::NotReady { .. } => not_leader(None, &text),
        ProposeError::Overloaded { .. } | ProposeError::TooLarge { .. } => {
            Status::resource_exhausted(text)
        }
        ProposeError::Refused { .. } => Status::failed_precondition(text),
        ProposeError::Unknown | ProposeError::ShuttingDown => Status::unavailable(text),
    }
}

fn scan_status(fault: &Fault) -> Status {
    match fault {
        Fault::Storage(reason) if reason == TOO_LONG => Status::deadline_exceeded(format!(
            "the rows were not all read within {} s",
            SCAN_WITHIN.as_secs()
        )),
        Fault::Storage(_)
        | Fault::Corrupt { .. }
        | Fault::Invariant(_)
        | Fault::UnknownLevel { .. } => Status::data_loss(fault.to_string()),
    }
}

fn busy_status(busy: &Busy) -> Status {
    Status::resource_exhausted(busy.to_string())
}

fn read_status(error: &ReadError) -> Status {
    Status::unavailable(error.to_string())
}
