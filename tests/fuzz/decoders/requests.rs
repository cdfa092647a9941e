//! Requests as a client's bytes become them: the first byte of the input picks the method.

use prost::Message;
use proto::milvus::{data, index, milvus};
use proto::{admin, etcd, quorate};
use server::foreign;
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

/// What clients of etcd call.
const OF_CLIENTS: &[Read] = &[
    |bytes| command(bytes, quorate::command::Kind::Txn),
    |bytes| command(bytes, quorate::command::Kind::Put),
    |bytes| command(bytes, quorate::command::Kind::DeleteRange),
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
    message::<admin::StatusRequest>,
];

/// What nodes of Milvus call.
const OF_MILVUS: &[Read] = &[
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
];

/// What members send each other.
const OF_MEMBERS: &[Read] =
    &[message::<quorate::AppendRequest>, message::<quorate::ForwardRequest>];

/// Reads the message that follows the byte which picks the method.
fn pick(methods: &[Read], is_decoded: fn(&[u8]) -> bool, input: &[u8]) {
    if let Some((method, bytes)) = input.split_first()
        && is_decoded(bytes)
    {
        methods[usize::from(*method) % methods.len()](bytes);
    }
}

pub(super) fn of_clients(input: &[u8]) {
    pick(OF_CLIENTS, foreign::is_decoded_of_client, input);
}

pub(super) fn of_milvus(input: &[u8]) {
    pick(OF_MILVUS, foreign::is_decoded_of_milvus, input);
}

pub(super) fn of_members(input: &[u8]) {
    pick(OF_MEMBERS, |_| true, input);
}

/// The byte that picks transactions, the richest of the requests.
const TXN: u8 = 0;

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
