//! What a server answers to an operation, as text that is equal where the answers are.

use std::fmt::Debug;
use std::time::Duration;

use chaos::client::{Client, within};
use proto::etcd;
use proto::etcd::range_request::SortTarget;
use proto::etcd::response_op::Response;
use proto::etcd::watch_request::RequestUnion;
use tonic::Status;

use crate::operation::Operation;

/// Runs the operation and tells the answer.
pub(crate) async fn of(client: &Client, operation: &Operation, patience: Duration) -> String {
    match operation.clone() {
        Operation::Range(request) => {
            let target = request.sort_target;
            let mut answer = within(patience, client.kv().range(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
                in_key_order(&mut answer.kvs, target);
            }
            told(answer)
        }
        Operation::Put(request) => {
            let mut answer = within(patience, client.kv().put(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
            }
            told(answer)
        }
        Operation::Delete(request) => {
            let mut answer = within(patience, client.kv().delete_range(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
            }
            told(answer)
        }
        Operation::Txn(request) => {
            let mut answer = within(patience, client.kv().txn(request.clone())).await;
            if let Ok(answer) = &mut answer {
                txn(&request, answer);
            }
            told(answer)
        }
        Operation::Compact(request) => {
            let mut answer = within(patience, client.kv().compact(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
            }
            told(answer)
        }
        Operation::Grant(request) => {
            let mut answer = within(patience, client.lease().lease_grant(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
            }
            told(answer)
        }
        Operation::Revoke(request) => {
            let mut answer = within(patience, client.lease().lease_revoke(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
            }
            told(answer)
        }
        Operation::TimeToLive(request) => {
            let mut answer = within(patience, client.lease().lease_time_to_live(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
                answer.keys.sort();
                answer.ttl = answer.ttl.signum();
            }
            told(answer)
        }
        Operation::Leases => {
            let request = etcd::LeaseLeasesRequest {};
            let mut answer = within(patience, client.lease().lease_leases(request)).await;
            if let Ok(answer) = &mut answer {
                header(&mut answer.header);
                answer.leases.sort_by_key(|lease| lease.id);
            }
            told(answer)
        }
        Operation::Watch { create, through } => {
            match tokio::time::timeout(patience, events(client, create, through)).await {
                Ok(events) => told(events),
                Err(_elapsed) => format!("no event of revision {through} within {patience:?}"),
            }
        }
    }
}

/// Every event up to revision `through`, one a line.
async fn events(
    client: &Client,
    create: etcd::WatchCreateRequest,
    through: i64,
) -> Result<Vec<etcd::Event>, Status> {
    let request = etcd::WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    // The stream of requests stays open: etcd ends the watch when it is closed.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let _sent = sender.send(request).await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut answers = client.watch().watch(requests).await?.into_inner();
    let mut events = Vec::new();
    loop {
        let Some(answer) = answers.message().await? else {
            return Err(Status::unknown("the stream ended"));
        };
        if answer.canceled {
            return Err(Status::unknown(format!("cancelled: {}", answer.cancel_reason)));
        }
        events.extend(answer.events);
        let last = events.last().and_then(|event| event.kv.as_ref());
        if last.is_some_and(|kv| kv.mod_revision >= through) {
            return Ok(events);
        }
    }
}

fn told<T: Debug>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(answer) => format!("Ok {answer:#?}"),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn header(header: &mut Option<etcd::ResponseHeader>) {
    if let Some(header) = header {
        header.cluster_id = header.cluster_id.min(1);
        header.member_id = header.member_id.min(1);
        header.raft_term = header.raft_term.min(1);
    }
}

fn in_key_order(kvs: &mut [etcd::KeyValue], sort_target: i32) {
    if sort_target != i32::from(SortTarget::Key) {
        kvs.sort_by(|one, other| one.key.cmp(&other.key));
    }
}

fn txn(request: &etcd::TxnRequest, answer: &mut etcd::TxnResponse) {
    header(&mut answer.header);
    let branch = if answer.succeeded { &request.success } else { &request.failure };
    for (op, response) in branch.iter().zip(&mut answer.responses) {
        use etcd::request_op::Request;
        match (&op.request, &mut response.response) {
            (Some(Request::RequestRange(range)), Some(Response::ResponseRange(answer))) => {
                in_key_order(&mut answer.kvs, range.sort_target);
            }
            (Some(Request::RequestTxn(inner)), Some(Response::ResponseTxn(answer))) => {
                txn(inner, answer);
            }
            _ => {}
        }
    }
}
