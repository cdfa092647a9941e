//! What we tell index nodes. Each call is made once: whoever needs it done calls again.

use std::time::Duration;

use proto::milvus::index::index_node_client::IndexNodeClient;
use proto::milvus::{index, milvus};

use super::call::call;
use super::dial::{Calls, MESSAGE_BYTES_MAX};
use super::{CallError, Wire};

const WITHIN: Duration = Duration::from_secs(10);

pub(crate) struct IndexNode {
    wire: Wire,
    client: IndexNodeClient<Calls>,
}

impl IndexNode {
    pub(super) fn new(wire: Wire) -> IndexNode {
        let client = IndexNodeClient::new(wire.calls())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        IndexNode { wire, client }
    }

    /// How many jobs it has and could take.
    pub(crate) async fn job_stats(&mut self) -> Result<index::GetJobStatsResponse, CallError> {
        let request = index::GetJobStatsRequest {};
        call(&self.wire, WITHIN, request, |r| self.client.get_job_stats(r)).await
    }

    pub(crate) async fn create_job(
        &mut self,
        request: index::CreateJobRequest,
    ) -> Result<(), CallError> {
        call(&self.wire, WITHIN, request, |r| self.client.create_job(r)).await?;
        Ok(())
    }

    pub(crate) async fn query_jobs(
        &mut self,
        request: index::QueryJobsRequest,
    ) -> Result<index::QueryJobsResponse, CallError> {
        call(&self.wire, WITHIN, request, |r| self.client.query_jobs(r)).await
    }

    pub(crate) async fn drop_jobs(
        &mut self,
        request: index::DropJobsRequest,
    ) -> Result<(), CallError> {
        call(&self.wire, WITHIN, request, |r| self.client.drop_jobs(r)).await?;
        Ok(())
    }

    /// What it says of itself, JSON.
    pub(crate) async fn metrics(
        &mut self,
        request: milvus::GetMetricsRequest,
        within: Duration,
    ) -> Result<milvus::GetMetricsResponse, CallError> {
        call(&self.wire, within, request, |r| self.client.get_metrics(r)).await
    }
}
