//! Requests as a client's bytes become them: the first byte of the input picks the method.

use prost::Message;
use proto::milvus::{data, index, milvus};
use proto::{admin, etcd, quorate};
use statemachine::{Settings, check};

type Read = fn(&[u8]);

/// Decodes, and makes the checks that need no state.
fn command<M: Message + Default>(bytes: &[u8], kind: fn(M) -> quorate::command::Kind) {
    if let Ok(message) = M::decode(bytes) {
        let command = quorate::Command { fence: None, kind: Some(kind(message)) };
        let _checked = check::request(&command, &Settings::default());
    }
}

fn message<M: Message + Default>(bytes: &[u8]) {
    let _decoded = M::decode(bytes);
}

/// The methods of every service that others call.
const METHODS: &[Read] = &[
    |bytes| command(bytes, quorate::command::Kind::Put),
    |bytes| command(bytes, quorate::command::Kind::DeleteRange),
    |bytes| command(bytes, quorate::command::Kind::Txn),
    |bytes| command(bytes, quorate::command::Kind::Compact),
    |bytes| command(bytes, quorate::command::Kind::LeaseGrant),
    |bytes| command(bytes, quorate::command::Kind::LeaseRevoke),
    |bytes| command(bytes, quorate::command::Kind::Alarm),
    |bytes| {
        if let Ok(request) = etcd::RangeRequest::decode(bytes) {
            let _checked = check::range(&request);
        }
    },
    message::<etcd::WatchRequest>,
    message::<etcd::LeaseKeepAliveRequest>,
    message::<etcd::MemberAddRequest>,
    message::<data::AssignSegmentIdRequest>,
    message::<data::SaveBinlogPathsRequest>,
    message::<data::FlushRequest>,
    message::<data::GetRecoveryInfoRequestV2>,
    message::<data::ReportDataNodeTtMsgsRequest>,
    message::<data::DropVirtualChannelRequest>,
    message::<data::UpdateChannelCheckpointRequest>,
    message::<data::WatchChannelsRequest>,
    message::<data::ImportTaskRequest>,
    message::<index::CreateIndexRequest>,
    message::<milvus::ManualCompactionRequest>,
    message::<admin::StatusRequest>,
    message::<quorate::AppendRequest>,
    message::<quorate::ForwardRequest>,
];

/// The byte that picks transactions, the richest of them.
const TXN: u8 = 2;

pub(super) fn read(input: &[u8]) {
    if let Some((method, bytes)) = input.split_first() {
        METHODS[usize::from(*method) % METHODS.len()](bytes);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let put = |key: &'static [u8]| etcd::RequestOp {
        request: Some(etcd::request_op::Request::RequestPut(etcd::PutRequest {
            key: key.into(),
            value: b"value".as_slice().into(),
            ..Default::default()
        })),
    };
    let compare = etcd::Compare { key: b"k".as_slice().into(), ..Default::default() };
    let nested = etcd::TxnRequest { success: vec![put(b"n")], ..Default::default() };
    let nested = etcd::RequestOp { request: Some(etcd::request_op::Request::RequestTxn(nested)) };
    let txn = etcd::TxnRequest {
        compare: vec![compare],
        success: vec![put(b"a"), nested],
        failure: vec![put(b"b")],
    };
    vec![[vec![TXN], txn.encode_to_vec()].concat()]
}
