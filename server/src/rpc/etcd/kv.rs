//! KV: range, put, delete range, transactions, compaction.

mod past_images;
mod service;

use std::sync::Arc;

use prost::Message;
use proto::etcd;
use proto::etcd::request_op::Request as Op;
use proto::quorate::command::Kind;
use raft::{Consistency, Pinned, View};
use statemachine::limits::COMMAND_ANSWER_BYTES_MAX;
use statemachine::{
    Deferred, Fault, IndexCopy, PastImage, RangePlan, Rejection, Response as Outcome, State, check,
};
use tonic::{Request, Response, Status};

use super::call::Deadline;
use super::{Etcd, EtcdError, error, mismatch};
use crate::edge::outflow::Room;
use crate::tasks;

pub(crate) use past_images::PastImages;
pub(crate) use service::{KV_PREFIX, KvService};

/// Reads of more rows go to the blocking pool.
const INLINE_ROWS_MAX: usize = 16;
/// Rows of a past range that are read before an image of the revision is made: few enough that the
/// attempt costs little, so many that a small range needs no image.
const PAST_ROWS_MAX: usize = 4096;

/// A range of [`PAST_ROWS_MAX`] rows at the most may have so many bytes, as far as room goes.
const PAST_ANSWER_BYTES_MAX: u64 = COMMAND_ANSWER_BYTES_MAX;

impl Etcd {
    async fn range(
        &self,
        request: Request<etcd::RangeRequest>,
    ) -> Result<Response<etcd::RangeResponse>, Status> {
        let deadline = self.admit(request.metadata())?;
        let request = request.into_inner();
        self.check(check::range(&request))?;
        let view = self.view(consistency(request.serializable), deadline).await?;
        let (mut response, room) = match self.get(&view, &request) {
            Some(response) => (response, None),
            None => self.range_of(&view, &request, &deadline).await?,
        };
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(with_room(response, room))
    }

    /// The way of nearly all reads: one key as it is now needs no image of the tables. `None`
    /// where it takes more, or where the image has to tell what is wrong.
    fn get(&self, view: &View, request: &etcd::RangeRequest) -> Option<etcd::RangeResponse> {
        if !request.range_end.is_empty() || request.revision > 0 {
            return None;
        }
        let plan = view.read(|state| state.plan_range(request)).ok()?;
        plan.fetch(view.newest()).ok()
    }

    async fn range_of(
        &self,
        view: &View,
        request: &etcd::RangeRequest,
        deadline: &Deadline,
    ) -> Result<(etcd::RangeResponse, Option<Room>), Status> {
        let plan = |state: &State| -> Result<_, Rejection> {
            let plan = state.plan_range(request)?;
            let newest = plan.past_revision().map(|at| (at, state.copy_index()));
            Ok((plan, newest))
        };
        let (plan, store) = view.pin(plan);
        let (plan, newest) = plan.map_err(|rejection| error::rejection(&rejection))?;
        if let Some((at, newest)) = newest {
            return self.past_range(request, (plan, store), at, newest, deadline).await;
        }
        let room = self.hold(plan.answer_bytes(), deadline).await?;
        let inline = plan.n_rows().is_some_and(|n_rows| n_rows <= INLINE_ROWS_MAX);
        let read = move |store: &Pinned| plan.fetch_bounded(store);
        let outcome = if inline { read(&store) } else { self.read_off_thread(store, read).await? };
        Ok((self.settle(outcome)?, room))
    }

    /// Room for an answer that may have so many bytes.
    async fn hold(&self, bytes: u64, deadline: &Deadline) -> Result<Option<Room>, Status> {
        let held = self.outflow.hold(bytes, deadline.at).await;
        held.map_err(|crowded| EtcdError::TooManyRequests.with_detail(&crowded.to_string()))
    }

    fn settle<T>(&self, outcome: Result<Result<T, Rejection>, Fault>) -> Result<T, Status> {
        outcome
            .map_err(|fault| error::fault(&self.node, &fault))?
            .map_err(|rejection| error::rejection(&rejection))
    }

    /// A range at a past revision: by its rows where they are few, else by an image of the
    /// revision, which stays for the pages that follow.
    async fn past_range(
        &self,
        request: &etcd::RangeRequest,
        read: (RangePlan, Pinned),
        at: i64,
        newest: IndexCopy,
        deadline: &Deadline,
    ) -> Result<(etcd::RangeResponse, Option<Room>), Status> {
        let read = Arc::new(read);
        let fault = |fault: Fault| error::fault(&self.node, &fault);
        let mut image = self.past_images.get(at);
        if image.is_none() {
            let short = Arc::clone(&read);
            let is_long = move || short.0.scans_more_than(PAST_ROWS_MAX, &short.1);
            if self.off_thread(is_long).await?.map_err(fault)? {
                let make = || async {
                    let read = Arc::clone(&read);
                    let make = move || PastImage::build(newest, at, &read.1);
                    self.off_thread(make).await?.map_err(fault)
                };
                image = self.past_images.get_or_make(at, make).await?;
            }
        }
        let Some(image) = image else {
            let room = self.hold(PAST_ANSWER_BYTES_MAX, deadline).await?;
            let fetch = move || read.0.clone().fetch_bounded(&read.1);
            return Ok((self.settle(self.off_thread(fetch).await?)?, room));
        };
        let (request, revision) = (request.clone(), read.0.revision());
        let plan = self.off_thread(move || Ok(image.plan_range(&request, revision))).await?;
        let plan = self.settle(plan)?;
        let room = self.hold(plan.answer_bytes(), deadline).await?;
        let fetch = move || plan.fetch_bounded(&read.1);
        Ok((self.settle(self.off_thread(fetch).await?)?, room))
    }

    async fn put(
        &self,
        request: Request<etcd::PutRequest>,
    ) -> Result<Response<etcd::PutResponse>, Status> {
        let deadline = self.admit(request.metadata())?;
        let request = request.into_inner();
        self.check(check::put(&request))?;
        self.check_size(&request)?;
        let outcome = self.propose(Kind::Put(request), deadline).await?;
        let Outcome::Put(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<etcd::DeleteRangeRequest>,
    ) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        let deadline = self.admit(request.metadata())?;
        let request = request.into_inner();
        self.check(check::delete_range(&request))?;
        self.check_size(&request)?;
        let outcome = self.propose(Kind::DeleteRange(request), deadline).await?;
        let Outcome::DeleteRange(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    async fn txn(
        &self,
        request: Request<etcd::TxnRequest>,
    ) -> Result<Response<etcd::TxnResponse>, Status> {
        let deadline = self.admit(request.metadata())?;
        let request = request.into_inner();
        let ops_max = self.setting(|settings| settings.txn_ops_max);
        self.check(check::txn(&request, ops_max))?;
        if check::is_read_only(&request) {
            let consistency = consistency(is_serializable(&request));
            let view = self.view(consistency, deadline).await?;
            return self.read_txn(&view, &request, &deadline).await;
        }
        self.check_size(&request)?;
        let outcome = self.propose(Kind::Txn(request), deadline).await?;
        let Outcome::Txn(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }

    /// With `physical` the answer does not wait until the old rows are gone from disk: they go in
    /// the background and cannot be read any more from here on.
    async fn compact(
        &self,
        request: Request<etcd::CompactionRequest>,
    ) -> Result<Response<etcd::CompactionResponse>, Status> {
        let deadline = self.admit(request.metadata())?;
        let outcome = self.propose(Kind::Compact(request.into_inner()), deadline).await?;
        let Outcome::Compact(mut response) = outcome else { return Err(mismatch()) };
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(Response::new(response))
    }
}

/// Whether every read of a read-only transaction is content with what this member has.
fn is_serializable(request: &etcd::TxnRequest) -> bool {
    request.success.iter().chain(&request.failure).all(|op| match &op.request {
        Some(Op::RequestRange(range)) => range.serializable,
        Some(Op::RequestTxn(nested)) => is_serializable(nested),
        Some(Op::RequestPut(_) | Op::RequestDeleteRange(_)) | None => false,
    })
}

/// Whether the work of a read-only transaction is a single key for each operation.
fn is_of_single_keys(request: &etcd::TxnRequest) -> bool {
    request.compare.iter().all(|compare| compare.range_end.is_empty())
        && request.success.iter().chain(&request.failure).all(|op| {
            matches!(&op.request, Some(Op::RequestRange(range))
                if range.range_end.is_empty() && range.revision <= 0)
        })
}

/// The room goes with the answer, until its client has taken it.
fn with_room<T: Message>(answer: T, room: Option<Room>) -> Response<T> {
    let room = room.and_then(|room| room.fit(answer.encoded_len() as u64));
    let mut response = Response::new(answer);
    if let Some(room) = room {
        response.extensions_mut().insert(Arc::new(room));
    }
    response
}

fn consistency(serializable: bool) -> Consistency {
    if serializable { Consistency::Local } else { Consistency::Linearizable }
}

impl Etcd {
    async fn read_txn(
        &self,
        view: &View,
        request: &etcd::TxnRequest,
        deadline: &Deadline,
    ) -> Result<Response<etcd::TxnResponse>, Status> {
        let (plan, store) = view.pin(|state| state.plan_txn(request));
        let plan = plan.map_err(|rejection| error::rejection(&rejection))?;
        let read = move |store: &Pinned| plan.fetch(store);
        let inline = request.success.len().max(request.failure.len()) <= INLINE_ROWS_MAX
            && is_of_single_keys(request);
        let (outcome, room) = if inline {
            (read(&store), None)
        } else {
            // What it will have is known once it is read.
            let room = self.hold(COMMAND_ANSWER_BYTES_MAX, deadline).await?;
            (self.read_off_thread(store, read).await?, room)
        };
        let mut response = self.settle(outcome)?;
        response.header = Some(self.headers.complete(response.header.as_ref()));
        Ok(with_room(response, room))
    }

    /// The answer of a write that took effect, but for the values in it.
    pub(super) async fn read_deferred(
        &self,
        deferred: Deferred,
        image: Arc<Pinned>,
    ) -> Result<statemachine::Outcome, Status> {
        let inline = deferred.n_rows().is_some_and(|n_rows| n_rows <= INLINE_ROWS_MAX);
        let read = move |store: &Pinned| deferred.fetch(store);
        if inline { read(&image) } else { self.read_off_thread(image, read).await? }
            .map_err(|fault| error::fault(&self.node, &fault))
    }

    /// A read that is too long for the threads that serve calls; few run at once.
    pub(super) async fn read_off_thread<T: Send + 'static>(
        &self,
        store: impl AsRef<Pinned> + Send + 'static,
        read: impl FnOnce(&Pinned) -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, Fault>, Status> {
        self.off_thread(move || read(store.as_ref())).await
    }

    async fn off_thread<T: Send + 'static>(
        &self,
        read: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<Result<T, Fault>, Status> {
        let permit = Arc::clone(&self.large_reads)
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        tasks::spawn_blocking(move || {
            let _permit = permit;
            read()
        })
        .await
        .map_err(|error| Status::internal(format!("etcdserver: read: {error}")))
    }
}
