//! What we ask RootCoord.
//!
//! Its description calls run in the same queue as its definitions: never call them from a handler
//! that RootCoord itself waits for (`WatchChannels`, `DropIndex`, `BroadcastAlteredCollection`,
//! `GcConfirm`). Ids and timestamps pass that queue by.

use std::time::Duration;

use proto::milvus::common::MsgType;
use proto::milvus::milvus;
use proto::milvus::rootcoord::root_coord_client::RootCoordClient;
use proto::milvus::rootcoord::{AllocIdRequest, AllocTimestampRequest};
use statemachine::view::ServerId;

use super::call::{base, call};
use super::dial::{Calls, MESSAGE_BYTES_MAX};
use super::{CallError, Wire};

/// `dataCoord.brokerTimeout` of later versions; 2.3 has it as a constant.
const WITHIN: Duration = Duration::from_secs(5);

pub(crate) struct RootCoord {
    wire: Wire,
    client: RootCoordClient<Calls>,
}

impl RootCoord {
    pub(super) fn new(wire: Wire) -> RootCoord {
        let client = RootCoordClient::new(wire.calls())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        RootCoord { wire, client }
    }

    pub(crate) fn server(&self) -> ServerId {
        self.wire.server()
    }

    /// The first of `n` ids that follow one another.
    pub(crate) async fn alloc_id(&mut self, n: u32) -> Result<i64, CallError> {
        let request = AllocIdRequest { base: base(&self.wire, MsgType::RequestId), count: n };
        let answer = call(&self.wire, WITHIN, request, |r| self.client.alloc_id(r)).await?;
        Ok(answer.id)
    }

    /// A hybrid timestamp later than all that RootCoord gave before.
    pub(crate) async fn alloc_timestamp(&mut self) -> Result<u64, CallError> {
        let request =
            AllocTimestampRequest { base: base(&self.wire, MsgType::RequestTso), count: 1 };
        let answer = call(&self.wire, WITHIN, request, |r| self.client.alloc_timestamp(r)).await?;
        Ok(answer.timestamp)
    }

    /// A collection as RootCoord has it now, also one that is being created or dropped.
    pub(crate) async fn describe_collection(
        &mut self,
        collection: i64,
    ) -> Result<milvus::DescribeCollectionResponse, CallError> {
        let request = milvus::DescribeCollectionRequest {
            base: base(&self.wire, MsgType::DescribeCollection),
            collection_id: collection,
            ..Default::default()
        };
        call(&self.wire, WITHIN, request, |r| self.client.describe_collection_internal(r)).await
    }
}
