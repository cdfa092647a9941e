//! One call to another process of Milvus: its deadline, its headers, its answer.

use std::future::Future;
use std::time::Duration;

use proto::milvus::common;
use tonic::{Code as GrpcCode, Request, Response, Status};

use super::Wire;
use crate::coordinator::Failure;
use crate::coordinator::failure::Code;

/// Why another process did not do what it was asked for.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// Nobody of that role and id has a session.
    #[error("no {role} is there")]
    Gone { role: String },
    /// It did not answer in time, or not in the protocol: whether it did it is unknown.
    #[error("{who} does not answer: {reason}")]
    Unreachable { who: String, reason: String },
    /// It is of a version that does not have the call.
    #[error("{who} does not have the call")]
    Unimplemented { who: String },
    /// It said no.
    #[error("{who} refuses: {reason}[code={code}]")]
    Refused { who: String, code: i32, reason: String },
}

impl CallError {
    /// Milvus's code of a refusal.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            CallError::Refused { code, .. } => Some(*code),
            CallError::Gone { .. }
            | CallError::Unreachable { .. }
            | CallError::Unimplemented { .. } => None,
        }
    }

    /// It said that it does not know the channel.
    pub(crate) fn is_channel_not_found(&self) -> bool {
        self.code() == Some(Code::ChannelNotFound.number())
    }

    /// It said that it does not know the segment.
    pub(crate) fn is_segment_not_found(&self) -> bool {
        self.code() == Some(Code::SegmentNotFound.number())
    }
}

impl From<CallError> for Failure {
    fn from(error: CallError) -> Failure {
        match error {
            CallError::Refused { .. } => Failure::refused(Code::Unexpected, error.to_string()),
            CallError::Gone { .. }
            | CallError::Unreachable { .. }
            | CallError::Unimplemented { .. } => Failure::Unavailable(error.to_string()),
        }
    }
}

/// An answer that carries its success or failure in itself.
pub(super) trait Answered {
    fn status(&self) -> Option<&common::Status>;
}

impl Answered for common::Status {
    fn status(&self) -> Option<&common::Status> {
        Some(self)
    }
}

macro_rules! answered {
    ($($answer:ty,)*) => {$(
        impl Answered for $answer {
            fn status(&self) -> Option<&common::Status> {
                self.status.as_ref()
            }
        }
    )*};
}

answered! {
    proto::milvus::data::AddImportSegmentResponse,
    proto::milvus::data::CompactionStateResponse,
    proto::milvus::index::GetJobStatsResponse,
    proto::milvus::index::QueryJobsResponse,
    proto::milvus::milvus::ComponentStates,
    proto::milvus::milvus::DescribeCollectionResponse,
    proto::milvus::milvus::GetMetricsResponse,
    proto::milvus::milvus::ShowPartitionsResponse,
    proto::milvus::rootcoord::AllocIdResponse,
    proto::milvus::rootcoord::AllocTimestampResponse,
}

/// Makes one call; no answer by the deadline is no answer.
pub(super) async fn call<M, A: Answered, F>(
    wire: &Wire,
    within: Duration,
    message: M,
    method: impl FnOnce(Request<M>) -> F,
) -> Result<A, CallError>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let unreachable =
        |reason: String| CallError::Unreachable { who: wire.who().to_owned(), reason };
    let mut request = Request::new(message);
    request.set_timeout(within);
    let answer = match tokio::time::timeout(within, method(request)).await {
        Ok(Ok(answer)) => answer.into_inner(),
        Ok(Err(status)) if status.code() == GrpcCode::Unimplemented => {
            return Err(CallError::Unimplemented { who: wire.who().to_owned() });
        }
        Ok(Err(status)) => {
            return Err(unreachable(format!("{:?}: {}", status.code(), status.message())));
        }
        Err(_) => return Err(unreachable(format!("no answer within {within:?}"))),
    };
    // No status at all is success to every process of Milvus.
    match answer.status().filter(|status| status.code != 0 || status.error_code != 0) {
        None => Ok(answer),
        Some(status) => Err(CallError::Refused {
            who: wire.who().to_owned(),
            code: status.code,
            reason: status.reason.clone(),
        }),
    }
}

/// The common part of many requests.
pub(super) fn base(wire: &Wire, kind: common::MsgType) -> Option<common::MsgBase> {
    Some(common::MsgBase {
        msg_type: kind.into(),
        source_id: wire.source(),
        target_id: wire.server().0,
        ..Default::default()
    })
}

/// Fills in who calls whom, and keeps the rest.
pub(super) fn addressed(wire: &Wire, given: Option<common::MsgBase>) -> Option<common::MsgBase> {
    let given = given.unwrap_or_default();
    Some(common::MsgBase { source_id: wire.source(), target_id: wire.server().0, ..given })
}
