//! The services that Milvus's components call: one line a method, which hands over to its area.
//!
//! Only the leader answers. Every other node says UNAVAILABLE, so that clients look for the leader
//! again; the one exception is `GetComponentStates`.

use std::time::Instant;

use proto::milvus::{common, data, index, internal, milvus};
use tonic::{Request, Response, Status};

use super::answer::answer;
use super::{
    DataCoordService, channels, compaction, control, flush, garbage, import, index as indexes,
    info, ingest,
};
use proto::milvus::data::data_coord_server::DataCoord;
use proto::milvus::index::index_coord_server::IndexCoord;

/// Finds the lead, calls the area, and puts the outcome into the answer's status.
macro_rules! call {
    ($service:expr, $request:expr, $area:ident::$method:ident) => {{
        let lead = $service.coordinator.lead();
        let request = $request.into_inner();
        answer(match lead {
            Ok(lead) => $area::$method(&lead, request).await,
            Err(failure) => Err(failure),
        })
    }};
}

#[tonic::async_trait]
impl DataCoord for DataCoordService {
    async fn get_component_states(
        &self,
        _request: Request<milvus::GetComponentStatesRequest>,
    ) -> Result<Response<milvus::ComponentStates>, Status> {
        Ok(Response::new(control::component_states(&self.coordinator)))
    }

    async fn get_time_tick_channel(
        &self,
        request: Request<internal::GetTimeTickChannelRequest>,
    ) -> Result<Response<milvus::StringResponse>, Status> {
        call!(self, request, control::get_time_tick_channel)
    }

    async fn get_statistics_channel(
        &self,
        request: Request<internal::GetStatisticsChannelRequest>,
    ) -> Result<Response<milvus::StringResponse>, Status> {
        call!(self, request, control::get_statistics_channel)
    }

    async fn flush(
        &self,
        request: Request<data::FlushRequest>,
    ) -> Result<Response<data::FlushResponse>, Status> {
        call!(self, request, flush::flush)
    }

    async fn assign_segment_id(
        &self,
        request: Request<data::AssignSegmentIdRequest>,
    ) -> Result<Response<data::AssignSegmentIdResponse>, Status> {
        // Clients ask again, and find whoever takes the role.
        if self.coordinator.lead().is_ok_and(|lead| lead.is_closing()) {
            return Err(Status::unavailable("the coordinator's role is being handed over"));
        }
        let began = Instant::now();
        let answer = call!(self, request, ingest::assign_segment_id);
        self.coordinator.counts.assignments.add_time(began.elapsed());
        answer
    }

    async fn get_segment_info(
        &self,
        request: Request<data::GetSegmentInfoRequest>,
    ) -> Result<Response<data::GetSegmentInfoResponse>, Status> {
        call!(self, request, info::get_segment_info)
    }

    async fn get_segment_states(
        &self,
        request: Request<data::GetSegmentStatesRequest>,
    ) -> Result<Response<data::GetSegmentStatesResponse>, Status> {
        call!(self, request, info::get_segment_states)
    }

    async fn get_insert_binlog_paths(
        &self,
        request: Request<data::GetInsertBinlogPathsRequest>,
    ) -> Result<Response<data::GetInsertBinlogPathsResponse>, Status> {
        call!(self, request, info::get_insert_binlog_paths)
    }

    async fn get_collection_statistics(
        &self,
        request: Request<data::GetCollectionStatisticsRequest>,
    ) -> Result<Response<data::GetCollectionStatisticsResponse>, Status> {
        call!(self, request, info::get_collection_statistics)
    }

    async fn get_partition_statistics(
        &self,
        request: Request<data::GetPartitionStatisticsRequest>,
    ) -> Result<Response<data::GetPartitionStatisticsResponse>, Status> {
        call!(self, request, info::get_partition_statistics)
    }

    async fn get_segment_info_channel(
        &self,
        request: Request<data::GetSegmentInfoChannelRequest>,
    ) -> Result<Response<milvus::StringResponse>, Status> {
        call!(self, request, control::get_segment_info_channel)
    }

    async fn save_binlog_paths(
        &self,
        request: Request<data::SaveBinlogPathsRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, ingest::save_binlog_paths)
    }

    async fn get_recovery_info(
        &self,
        request: Request<data::GetRecoveryInfoRequest>,
    ) -> Result<Response<data::GetRecoveryInfoResponse>, Status> {
        call!(self, request, info::get_recovery_info)
    }

    async fn get_recovery_info_v2(
        &self,
        request: Request<data::GetRecoveryInfoRequestV2>,
    ) -> Result<Response<data::GetRecoveryInfoResponseV2>, Status> {
        call!(self, request, info::get_recovery_info_v2)
    }

    async fn get_flushed_segments(
        &self,
        request: Request<data::GetFlushedSegmentsRequest>,
    ) -> Result<Response<data::GetFlushedSegmentsResponse>, Status> {
        call!(self, request, info::get_flushed_segments)
    }

    async fn get_segments_by_states(
        &self,
        request: Request<data::GetSegmentsByStatesRequest>,
    ) -> Result<Response<data::GetSegmentsByStatesResponse>, Status> {
        call!(self, request, info::get_segments_by_states)
    }

    async fn get_flush_all_state(
        &self,
        request: Request<milvus::GetFlushAllStateRequest>,
    ) -> Result<Response<milvus::GetFlushAllStateResponse>, Status> {
        call!(self, request, flush::get_flush_all_state)
    }

    async fn show_configurations(
        &self,
        request: Request<internal::ShowConfigurationsRequest>,
    ) -> Result<Response<internal::ShowConfigurationsResponse>, Status> {
        call!(self, request, control::show_configurations)
    }

    async fn get_metrics(
        &self,
        request: Request<milvus::GetMetricsRequest>,
    ) -> Result<Response<milvus::GetMetricsResponse>, Status> {
        let mut answer = call!(self, request, control::get_metrics)?;
        // Also of a failure.
        answer.get_mut().component_name = control::component_name(&self.coordinator);
        Ok(answer)
    }

    async fn manual_compaction(
        &self,
        request: Request<milvus::ManualCompactionRequest>,
    ) -> Result<Response<milvus::ManualCompactionResponse>, Status> {
        call!(self, request, compaction::manual_compaction)
    }

    async fn get_compaction_state(
        &self,
        request: Request<milvus::GetCompactionStateRequest>,
    ) -> Result<Response<milvus::GetCompactionStateResponse>, Status> {
        call!(self, request, compaction::get_compaction_state)
    }

    async fn get_compaction_state_with_plans(
        &self,
        request: Request<milvus::GetCompactionPlansRequest>,
    ) -> Result<Response<milvus::GetCompactionPlansResponse>, Status> {
        call!(self, request, compaction::get_compaction_state_with_plans)
    }

    async fn watch_channels(
        &self,
        request: Request<data::WatchChannelsRequest>,
    ) -> Result<Response<data::WatchChannelsResponse>, Status> {
        call!(self, request, channels::watch_channels)
    }

    async fn get_flush_state(
        &self,
        request: Request<data::GetFlushStateRequest>,
    ) -> Result<Response<milvus::GetFlushStateResponse>, Status> {
        call!(self, request, flush::get_flush_state)
    }

    async fn drop_virtual_channel(
        &self,
        request: Request<data::DropVirtualChannelRequest>,
    ) -> Result<Response<data::DropVirtualChannelResponse>, Status> {
        call!(self, request, ingest::drop_virtual_channel)
    }

    async fn set_segment_state(
        &self,
        request: Request<data::SetSegmentStateRequest>,
    ) -> Result<Response<data::SetSegmentStateResponse>, Status> {
        call!(self, request, ingest::set_segment_state)
    }

    async fn import(
        &self,
        request: Request<data::ImportTaskRequest>,
    ) -> Result<Response<data::ImportTaskResponse>, Status> {
        call!(self, request, import::import)
    }

    async fn update_segment_statistics(
        &self,
        request: Request<data::UpdateSegmentStatisticsRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, ingest::update_segment_statistics)
    }

    async fn update_channel_checkpoint(
        &self,
        request: Request<data::UpdateChannelCheckpointRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, ingest::update_channel_checkpoint)
    }

    async fn save_import_segment(
        &self,
        request: Request<data::SaveImportSegmentRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, import::save_import_segment)
    }

    async fn unset_is_importing_state(
        &self,
        request: Request<data::UnsetIsImportingStateRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, import::unset_is_importing_state)
    }

    async fn mark_segments_dropped(
        &self,
        request: Request<data::MarkSegmentsDroppedRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, ingest::mark_segments_dropped)
    }

    async fn broadcast_altered_collection(
        &self,
        request: Request<data::AlterCollectionRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, channels::broadcast_altered_collection)
    }

    async fn check_health(
        &self,
        request: Request<milvus::CheckHealthRequest>,
    ) -> Result<Response<milvus::CheckHealthResponse>, Status> {
        call!(self, request, control::check_health)
    }

    async fn create_index(
        &self,
        request: Request<index::CreateIndexRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, indexes::create_index)
    }

    async fn get_index_state(
        &self,
        request: Request<index::GetIndexStateRequest>,
    ) -> Result<Response<index::GetIndexStateResponse>, Status> {
        call!(self, request, indexes::get_index_state)
    }

    async fn get_segment_index_state(
        &self,
        request: Request<index::GetSegmentIndexStateRequest>,
    ) -> Result<Response<index::GetSegmentIndexStateResponse>, Status> {
        call!(self, request, indexes::get_segment_index_state)
    }

    async fn get_index_infos(
        &self,
        request: Request<index::GetIndexInfoRequest>,
    ) -> Result<Response<index::GetIndexInfoResponse>, Status> {
        call!(self, request, indexes::get_index_infos)
    }

    async fn drop_index(
        &self,
        request: Request<index::DropIndexRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, indexes::drop_index)
    }

    async fn describe_index(
        &self,
        request: Request<index::DescribeIndexRequest>,
    ) -> Result<Response<index::DescribeIndexResponse>, Status> {
        call!(self, request, indexes::describe_index)
    }

    async fn get_index_statistics(
        &self,
        request: Request<index::GetIndexStatisticsRequest>,
    ) -> Result<Response<index::GetIndexStatisticsResponse>, Status> {
        call!(self, request, indexes::get_index_statistics)
    }

    async fn get_index_build_progress(
        &self,
        request: Request<index::GetIndexBuildProgressRequest>,
    ) -> Result<Response<index::GetIndexBuildProgressResponse>, Status> {
        call!(self, request, indexes::get_index_build_progress)
    }

    async fn gc_confirm(
        &self,
        request: Request<data::GcConfirmRequest>,
    ) -> Result<Response<data::GcConfirmResponse>, Status> {
        call!(self, request, garbage::gc_confirm)
    }

    async fn report_data_node_tt_msgs(
        &self,
        request: Request<data::ReportDataNodeTtMsgsRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, ingest::report_data_node_tt_msgs)
    }

    async fn gc_control(
        &self,
        request: Request<data::GcControlRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, garbage::gc_control)
    }
}

#[tonic::async_trait]
impl IndexCoord for DataCoordService {
    async fn get_component_states(
        &self,
        _request: Request<milvus::GetComponentStatesRequest>,
    ) -> Result<Response<milvus::ComponentStates>, Status> {
        Ok(Response::new(control::component_states(&self.coordinator)))
    }

    async fn get_statistics_channel(
        &self,
        request: Request<internal::GetStatisticsChannelRequest>,
    ) -> Result<Response<milvus::StringResponse>, Status> {
        call!(self, request, control::get_statistics_channel)
    }

    async fn create_index(
        &self,
        request: Request<index::CreateIndexRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, indexes::create_index)
    }

    async fn get_index_state(
        &self,
        request: Request<index::GetIndexStateRequest>,
    ) -> Result<Response<index::GetIndexStateResponse>, Status> {
        call!(self, request, indexes::get_index_state)
    }

    async fn get_segment_index_state(
        &self,
        request: Request<index::GetSegmentIndexStateRequest>,
    ) -> Result<Response<index::GetSegmentIndexStateResponse>, Status> {
        call!(self, request, indexes::get_segment_index_state)
    }

    async fn get_index_infos(
        &self,
        request: Request<index::GetIndexInfoRequest>,
    ) -> Result<Response<index::GetIndexInfoResponse>, Status> {
        call!(self, request, indexes::get_index_infos)
    }

    async fn drop_index(
        &self,
        request: Request<index::DropIndexRequest>,
    ) -> Result<Response<common::Status>, Status> {
        call!(self, request, indexes::drop_index)
    }

    async fn describe_index(
        &self,
        request: Request<index::DescribeIndexRequest>,
    ) -> Result<Response<index::DescribeIndexResponse>, Status> {
        call!(self, request, indexes::describe_index)
    }

    async fn get_index_statistics(
        &self,
        request: Request<index::GetIndexStatisticsRequest>,
    ) -> Result<Response<index::GetIndexStatisticsResponse>, Status> {
        call!(self, request, indexes::get_index_statistics)
    }

    async fn get_index_build_progress(
        &self,
        request: Request<index::GetIndexBuildProgressRequest>,
    ) -> Result<Response<index::GetIndexBuildProgressResponse>, Status> {
        call!(self, request, indexes::get_index_build_progress)
    }

    async fn show_configurations(
        &self,
        request: Request<internal::ShowConfigurationsRequest>,
    ) -> Result<Response<internal::ShowConfigurationsResponse>, Status> {
        call!(self, request, control::show_configurations)
    }

    async fn get_metrics(
        &self,
        request: Request<milvus::GetMetricsRequest>,
    ) -> Result<Response<milvus::GetMetricsResponse>, Status> {
        let mut answer = call!(self, request, control::get_metrics)?;
        // Also of a failure.
        answer.get_mut().component_name = control::component_name(&self.coordinator);
        Ok(answer)
    }

    async fn check_health(
        &self,
        request: Request<milvus::CheckHealthRequest>,
    ) -> Result<Response<milvus::CheckHealthResponse>, Status> {
        call!(self, request, control::check_health)
    }
}
