//! What we tell data nodes. Each call is made once: whoever needs it done calls again.

use std::time::Duration;

use proto::milvus::common::MsgType;
use proto::milvus::data::data_node_client::DataNodeClient;
use proto::milvus::{data, milvus};

use super::call::{addressed, base, call};
use super::dial::{Calls, MESSAGE_BYTES_MAX};
use super::{CallError, Wire};

const FLUSH_WITHIN: Duration = Duration::from_secs(15);
const WITHIN: Duration = Duration::from_secs(10);
/// A bulk import answers when it is done.
const IMPORT_WITHIN: Duration = Duration::from_secs(3 * 3600);

pub(crate) struct DataNode {
    wire: Wire,
    client: DataNodeClient<Calls>,
}

impl DataNode {
    pub(super) fn new(wire: Wire) -> DataNode {
        let client = DataNodeClient::new(wire.calls())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        DataNode { wire, client }
    }

    /// Tells it to flush sealed segments. One that its channel's flow graph does not know makes
    /// it refuse with the code of a segment that is not found.
    pub(crate) async fn flush_segments(
        &mut self,
        collection: i64,
        channel: &str,
        segments: Vec<i64>,
    ) -> Result<(), CallError> {
        let request = data::FlushSegmentsRequest {
            base: base(&self.wire, MsgType::Flush),
            collection_id: collection,
            segment_i_ds: segments,
            channel_name: channel.to_owned(),
            ..Default::default()
        };
        call(&self.wire, FLUSH_WITHIN, request, |r| self.client.flush_segments(r)).await?;
        Ok(())
    }

    /// Tells it to write whatever of these channels is older than `flush_ts`.
    pub(crate) async fn flush_channels(
        &mut self,
        flush_ts: u64,
        channels: Vec<String>,
    ) -> Result<(), CallError> {
        let request = data::FlushChannelsRequest {
            base: base(&self.wire, MsgType::Flush),
            flush_ts,
            channels,
        };
        call(&self.wire, FLUSH_WITHIN, request, |r| self.client.flush_channels(r)).await?;
        Ok(())
    }

    /// Starts a compaction plan. `within` is `dataCoord.compaction.rpcTimeout`.
    pub(crate) async fn compaction(
        &mut self,
        plan: data::CompactionPlan,
        within: Duration,
    ) -> Result<(), CallError> {
        call(&self.wire, within, plan, |r| self.client.compaction(r)).await?;
        Ok(())
    }

    /// All plans that it works on or has results of.
    pub(crate) async fn compaction_state(
        &mut self,
    ) -> Result<Vec<data::CompactionStateResult>, CallError> {
        let request = data::CompactionStateRequest { base: base(&self.wire, MsgType::Undefined) };
        let answer: data::CompactionStateResponse =
            call(&self.wire, WITHIN, request, |r| self.client.get_compaction_state(r)).await?;
        Ok(answer.results)
    }

    /// The result of a plan is on record: it takes the new segment for the old ones.
    pub(crate) async fn sync_segments(
        &mut self,
        request: data::SyncSegmentsRequest,
    ) -> Result<(), CallError> {
        call(&self.wire, WITHIN, request, |r| self.client.sync_segments(r)).await?;
        Ok(())
    }

    /// Runs a task of a bulk import; answers when it is over.
    pub(crate) async fn import(
        &mut self,
        request: data::ImportTaskRequest,
    ) -> Result<(), CallError> {
        let base = addressed(&self.wire, request.base.clone());
        let request = data::ImportTaskRequest { base, ..request };
        call(&self.wire, IMPORT_WITHIN, request, |r| self.client.import(r)).await?;
        Ok(())
    }

    /// Makes an imported segment known to the channel's flow graph; returns the position in the
    /// message queue.
    pub(crate) async fn add_import_segment(
        &mut self,
        request: data::AddImportSegmentRequest,
    ) -> Result<bytes::Bytes, CallError> {
        let base = addressed(&self.wire, request.base.clone());
        let request = data::AddImportSegmentRequest { base, ..request };
        let answer: data::AddImportSegmentResponse =
            call(&self.wire, WITHIN, request, |r| self.client.add_import_segment(r)).await?;
        Ok(answer.channel_pos)
    }

    /// What it says of itself, JSON.
    pub(crate) async fn metrics(
        &mut self,
        request: milvus::GetMetricsRequest,
        within: Duration,
    ) -> Result<milvus::GetMetricsResponse, CallError> {
        call(&self.wire, within, request, |r| self.client.get_metrics(r)).await
    }

    pub(crate) async fn component_states(
        &mut self,
        within: Duration,
    ) -> Result<milvus::ComponentStates, CallError> {
        let request = milvus::GetComponentStatesRequest {};
        call(&self.wire, within, request, |r| self.client.get_component_states(r)).await
    }
}
