//! Puts a status into every kind of answer.

use proto::milvus::{common, data, index, internal, milvus};
use tonic::{Response, Status};

use crate::coordinator::Failure;
use crate::coordinator::failure::{status_of, success};

/// An answer of Milvus's API: it carries its success or failure in itself.
pub(super) trait Answer: Default {
    fn set_status(&mut self, status: common::Status);
}

macro_rules! answers {
    ($($answer:ty,)*) => {$(
        impl Answer for $answer {
            fn set_status(&mut self, status: common::Status) {
                self.status = Some(status);
            }
        }
    )*};
}

answers! {
    data::AssignSegmentIdResponse,
    data::DropVirtualChannelResponse,
    data::FlushResponse,
    data::GcConfirmResponse,
    data::GetCollectionStatisticsResponse,
    data::GetFlushedSegmentsResponse,
    data::GetInsertBinlogPathsResponse,
    data::GetPartitionStatisticsResponse,
    data::GetRecoveryInfoResponse,
    data::GetRecoveryInfoResponseV2,
    data::GetSegmentInfoResponse,
    data::GetSegmentStatesResponse,
    data::GetSegmentsByStatesResponse,
    data::ImportTaskResponse,
    data::SetSegmentStateResponse,
    data::WatchChannelsResponse,
    index::DescribeIndexResponse,
    index::GetIndexBuildProgressResponse,
    index::GetIndexInfoResponse,
    index::GetIndexStateResponse,
    index::GetIndexStatisticsResponse,
    index::GetSegmentIndexStateResponse,
    internal::ShowConfigurationsResponse,
    milvus::CheckHealthResponse,
    milvus::GetCompactionPlansResponse,
    milvus::GetCompactionStateResponse,
    milvus::GetFlushAllStateResponse,
    milvus::GetFlushStateResponse,
    milvus::GetMetricsResponse,
    milvus::ManualCompactionResponse,
    milvus::StringResponse,
}

impl Answer for common::Status {
    fn set_status(&mut self, status: common::Status) {
        *self = status;
    }
}

/// The gRPC answer: an application's failure travels inside, only "look elsewhere" does not.
pub(super) fn answer<A: Answer>(outcome: Result<A, Failure>) -> Result<Response<A>, Status> {
    let mut answer = A::default();
    match outcome {
        Ok(done) => {
            answer = done;
            answer.set_status(success());
        }
        Err(Failure::Refused { code, reason }) => answer.set_status(status_of(code, reason)),
        Err(failure @ (Failure::NotLeader | Failure::Unavailable(_) | Failure::Unknown(_))) => {
            return Err(Status::unavailable(failure.to_string()));
        }
    }
    Ok(Response::new(answer))
}
