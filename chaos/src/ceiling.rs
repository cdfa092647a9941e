//! Servers that answer at once, without log, disk or peers: what the gRPC stack and the client
//! allow on this machine. No figure of a real server can be above it.

use std::net::SocketAddr;
use std::pin::Pin;

use anyhow::{Context, Result};
use bytes::Bytes;
use proto::etcd;
use proto::etcd::kv_server::{Kv, KvServer};
use proto::etcd::lease_server::{Lease, LeaseServer};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

const VALUE_BYTES: usize = 256;
const N_RANGE: usize = 1000;

/// Serves one node until it is killed.
///
/// # Errors
/// The address is taken.
pub async fn run(listen: SocketAddr) -> Result<()> {
    let value: Bytes = vec![b'v'; VALUE_BYTES].into();
    tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(KvServer::new(Answers { value }))
        .add_service(LeaseServer::new(Answers { value: Bytes::new() }))
        .serve(listen)
        .await
        .with_context(|| format!("serving {listen}"))
}

struct Answers {
    value: Bytes,
}

fn header() -> Option<etcd::ResponseHeader> {
    Some(etcd::ResponseHeader {
        cluster_id: 0x1234_5678_9abc_def0,
        member_id: 0x0fed_cba9_8765_4321,
        revision: 1_000_000,
        raft_term: 2,
    })
}

#[tonic::async_trait]
impl Kv for Answers {
    async fn range(
        &self,
        request: Request<etcd::RangeRequest>,
    ) -> Result<Response<etcd::RangeResponse>, Status> {
        let request = request.into_inner();
        let pair = etcd::KeyValue {
            key: request.key,
            value: self.value.clone(),
            create_revision: 1_000_000,
            mod_revision: 1_000_000,
            version: 1,
            lease: 0,
        };
        let n_pairs = if request.range_end.is_empty() { 1 } else { N_RANGE };
        let count = crate::numbers::signed(n_pairs);
        let kvs = vec![pair; n_pairs];
        Ok(Response::new(etcd::RangeResponse { header: header(), kvs, more: false, count }))
    }

    async fn put(
        &self,
        _request: Request<etcd::PutRequest>,
    ) -> Result<Response<etcd::PutResponse>, Status> {
        Ok(Response::new(etcd::PutResponse { header: header(), prev_kv: None }))
    }

    async fn delete_range(
        &self,
        _request: Request<etcd::DeleteRangeRequest>,
    ) -> Result<Response<etcd::DeleteRangeResponse>, Status> {
        let header = header();
        Ok(Response::new(etcd::DeleteRangeResponse { header, deleted: 1, prev_kvs: vec![] }))
    }

    async fn txn(
        &self,
        request: Request<etcd::TxnRequest>,
    ) -> Result<Response<etcd::TxnResponse>, Status> {
        let put = etcd::PutResponse { header: header(), prev_kv: None };
        let op = etcd::ResponseOp { response: Some(etcd::response_op::Response::ResponsePut(put)) };
        let responses = vec![op; request.into_inner().success.len()];
        Ok(Response::new(etcd::TxnResponse { header: header(), succeeded: true, responses }))
    }

    async fn compact(
        &self,
        _request: Request<etcd::CompactionRequest>,
    ) -> Result<Response<etcd::CompactionResponse>, Status> {
        Ok(Response::new(etcd::CompactionResponse { header: header() }))
    }
}

type KeepAlives = Pin<Box<dyn Stream<Item = Result<etcd::LeaseKeepAliveResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Lease for Answers {
    type LeaseKeepAliveStream = KeepAlives;

    async fn lease_grant(
        &self,
        request: Request<etcd::LeaseGrantRequest>,
    ) -> Result<Response<etcd::LeaseGrantResponse>, Status> {
        let ttl = request.into_inner().ttl;
        let answer =
            etcd::LeaseGrantResponse { header: header(), id: 1, ttl, ..Default::default() };
        Ok(Response::new(answer))
    }

    async fn lease_revoke(
        &self,
        _request: Request<etcd::LeaseRevokeRequest>,
    ) -> Result<Response<etcd::LeaseRevokeResponse>, Status> {
        Ok(Response::new(etcd::LeaseRevokeResponse { header: header() }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<etcd::LeaseKeepAliveRequest>>,
    ) -> Result<Response<KeepAlives>, Status> {
        let answers = request.into_inner().map(|request| {
            let id = request?.id;
            Ok(etcd::LeaseKeepAliveResponse { header: header(), id, ttl: 60 })
        });
        Ok(Response::new(Box::pin(answers)))
    }

    async fn lease_time_to_live(
        &self,
        _request: Request<etcd::LeaseTimeToLiveRequest>,
    ) -> Result<Response<etcd::LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("the ceiling has no leases"))
    }

    async fn lease_leases(
        &self,
        _request: Request<etcd::LeaseLeasesRequest>,
    ) -> Result<Response<etcd::LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("the ceiling has no leases"))
    }
}
