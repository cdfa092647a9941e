//! The refusal of a node that does not lead: names the one that does, for clients of any language.

use prost::Message;
use proto::client::{LEADER_METADATA, NOT_LEADER_METADATA};
use proto::quorate;
use raft::LeaderHint;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// Type of the detail message, as `google.protobuf.Any` names it.
const DETAIL_TYPE: &str = "type.googleapis.com/quorate.v1.LeaderRedirect";

/// `google.rpc.Status`, as gRPC carries it in the details of an error.
#[derive(Clone, PartialEq, Message)]
struct RichStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// Refuses a call that only the leader may answer; `text` says what was asked.
pub(crate) fn not_leader(leader: Option<&LeaderHint>, text: &str) -> Status {
    let address = leader.map(|leader| leader.meta.endpoints.client.as_str()).unwrap_or_default();
    let redirect = quorate::LeaderRedirect {
        leader: address.to_owned(),
        node: leader.map_or(0, |leader| leader.id),
        name: leader.map(|leader| leader.meta.name.clone()).unwrap_or_default(),
    };
    let rich = RichStatus {
        code: Code::Unavailable.into(),
        message: text.to_owned(),
        details: vec![Any { type_url: DETAIL_TYPE.to_owned(), value: redirect.encode_to_vec() }],
    };
    let mut status = Status::with_details(Code::Unavailable, text, rich.encode_to_vec().into());
    name_leader(&mut status, leader);
    status
}

/// Adds to a refusal, whatever its text and code, who leads.
pub(crate) fn name_leader(status: &mut Status, leader: Option<&LeaderHint>) {
    let address = leader.map(|leader| leader.meta.endpoints.client.as_str()).unwrap_or_default();
    match address.parse() {
        Ok(value) if !address.is_empty() => {
            status.metadata_mut().insert(LEADER_METADATA, value);
        }
        Ok(_) | Err(_) => {
            let value = MetadataValue::from_static("1");
            status.metadata_mut().insert(NOT_LEADER_METADATA, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use raft::{Endpoints, NodeMeta};

    use super::*;

    #[test]
    fn the_refusal_names_the_leader_in_metadata_and_details() {
        let endpoints = Endpoints { client: "10.0.0.2:2379".to_owned(), ..Default::default() };
        let hint = LeaderHint { id: 7, meta: NodeMeta { name: "n2".to_owned(), endpoints } };
        let status = not_leader(Some(&hint), "not leader");
        assert_eq!(status.metadata().get(LEADER_METADATA).unwrap(), "10.0.0.2:2379");
        let rich = RichStatus::decode(status.details()).unwrap();
        let detail = quorate::LeaderRedirect::decode(rich.details[0].value.as_slice()).unwrap();
        assert_eq!((detail.leader.as_str(), detail.node), ("10.0.0.2:2379", 7));
    }

    #[test]
    fn without_a_leader_nobody_is_named() {
        let status = not_leader(None, "not leader");
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.metadata().get(LEADER_METADATA).is_none());
        assert!(status.metadata().get(NOT_LEADER_METADATA).is_some());
    }
}
