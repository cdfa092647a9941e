//! Why a call of Milvus fails, and the one table of Milvus's error codes.
//!
//! Both status fields are always set: many callers look only at the legacy one.

use proto::milvus::common;
use raft::{ProposeError, ReadError};
use statemachine::Rejection;
use statemachine::coordinator::Refusal;

/// Milvus's codes that we answer with (pkg/util/merr/errors.go).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    ServiceUnavailable,
    Internal,
    CollectionNotFound,
    ChannelNotFound,
    SegmentNotFound,
    IndexNotFound,
    IndexTypeUnsupported,
    IndexDuplicate,
    DatabaseNotFound,
    NodeLack,
    InvalidParameter,
    MetricNotFound,
    /// Everything else.
    Unexpected,
}

impl Code {
    pub(crate) fn number(self) -> i32 {
        match self {
            Code::ServiceUnavailable => 2,
            Code::Internal => 5,
            Code::CollectionNotFound => 100,
            Code::ChannelNotFound => 500,
            Code::SegmentNotFound => 600,
            Code::IndexNotFound => 700,
            Code::IndexTypeUnsupported => 701,
            Code::IndexDuplicate => 702,
            Code::DatabaseNotFound => 800,
            Code::NodeLack => 903,
            Code::InvalidParameter => 1100,
            Code::MetricNotFound => 1200,
            Code::Unexpected => 65535,
        }
    }

    fn legacy(self) -> common::ErrorCode {
        match self {
            Code::CollectionNotFound => common::ErrorCode::CollectionNotExists,
            Code::SegmentNotFound => common::ErrorCode::SegmentNotFound,
            Code::IndexNotFound => common::ErrorCode::IndexNotExist,
            Code::InvalidParameter => common::ErrorCode::IllegalArgument,
            Code::ServiceUnavailable
            | Code::Internal
            | Code::ChannelNotFound
            | Code::IndexTypeUnsupported
            | Code::IndexDuplicate
            | Code::DatabaseNotFound
            | Code::NodeLack
            | Code::MetricNotFound
            | Code::Unexpected => common::ErrorCode::UnexpectedError,
        }
    }

    fn is_retriable(self) -> bool {
        self == Code::ServiceUnavailable
    }
}

/// Why a call gets no answer of its own kind.
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// gRPC UNAVAILABLE: the client looks for the leader again.
    #[error("this node is not the leading coordinator")]
    NotLeader,
    #[error("the coordinator cannot answer now: {0}")]
    Unavailable(String),
    /// A command was sent and its outcome is not known: it may still be carried out. gRPC
    /// UNAVAILABLE.
    #[error("the outcome of the command is not known: {0}")]
    Unknown(String),
    /// gRPC OK with a Status that says so.
    #[error("{reason}")]
    Refused { code: Code, reason: String },
}

impl Failure {
    pub(crate) fn refused(code: Code, reason: impl Into<String>) -> Failure {
        Failure::Refused { code, reason: reason.into() }
    }

    /// Whether a command that failed in this way has changed nothing and never will. Only then may
    /// what was prepared for it in memory be undone.
    pub(crate) fn is_without_effect(&self) -> bool {
        match self {
            Failure::NotLeader | Failure::Unavailable(_) | Failure::Refused { .. } => true,
            Failure::Unknown(_) => false,
        }
    }

    pub(crate) fn collection_not_found(collection: i64) -> Failure {
        let reason = format!("collection not found[collection={collection}]");
        Failure::refused(Code::CollectionNotFound, reason)
    }

    pub(crate) fn segment_not_found(segment: i64) -> Failure {
        Failure::refused(Code::SegmentNotFound, format!("segment not found[segment={segment}]"))
    }

    pub(crate) fn channel_not_found(channel: &str) -> Failure {
        Failure::refused(Code::ChannelNotFound, format!("channel not found[channel={channel}]"))
    }
}

pub(crate) fn success() -> common::Status {
    common::Status::default()
}

pub(crate) fn status_of(code: Code, reason: String) -> common::Status {
    common::Status {
        error_code: code.legacy().into(),
        reason,
        code: code.number(),
        retriable: code.is_retriable(),
        ..Default::default()
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Failure {
        match error {
            ProposeError::TooLarge { size_bytes, limit_bytes } => Failure::refused(
                Code::InvalidParameter,
                format!("the request needs {size_bytes} bytes of log, the limit is {limit_bytes}"),
            ),
            ProposeError::NotLeader { .. } => Failure::NotLeader,
            other @ ProposeError::Unknown => Failure::Unknown(other.to_string()),
            other @ (ProposeError::Overloaded { .. }
            | ProposeError::Refused { .. }
            | ProposeError::ShuttingDown
            | ProposeError::NotReady { .. }) => Failure::Unavailable(other.to_string()),
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        Failure::Unavailable(error.to_string())
    }
}

impl From<Rejection> for Failure {
    fn from(rejection: Rejection) -> Failure {
        if matches!(rejection, Rejection::StaleFence { .. }) {
            // Another leader is at work.
            return Failure::NotLeader;
        }
        if matches!(rejection, Rejection::StaleRequest | Rejection::OutcomeTooLarge) {
            return Failure::Unknown(rejection.to_string());
        }
        if matches!(rejection, Rejection::NoSpace { .. } | Rejection::Corrupt) {
            // Data nodes wait and try again. A refusal of their logs would end them.
            return Failure::Unavailable(rejection.to_string());
        }
        if let Rejection::Coordinator(refusal) = rejection {
            return refusal.into();
        }
        Failure::refused(Code::Unexpected, rejection.to_string())
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Failure {
        let code = match &refusal {
            Refusal::RoleOff => return Failure::Unavailable(refusal.to_string()),
            Refusal::UnknownSegment { segment } => return Failure::segment_not_found(*segment),
            Refusal::UnknownChannel { channel } | Refusal::NotOwner { channel, .. } => {
                return Failure::channel_not_found(channel);
            }
            Refusal::UnknownIndex { .. } => Code::IndexNotFound,
            Refusal::Invalid { .. } => Code::InvalidParameter,
            Refusal::Owned { .. }
            | Refusal::Undecodable { .. }
            | Refusal::SegmentExists { .. }
            | Refusal::SegmentState { .. }
            | Refusal::HasRows { .. }
            | Refusal::OtherChannel { .. }
            | Refusal::ChannelChanged { .. }
            | Refusal::IndexConflict { .. }
            | Refusal::UnknownBuild { .. }
            | Refusal::StaleBuild { .. }
            | Refusal::BuildExists { .. }
            | Refusal::BuildState { .. }
            | Refusal::BuildInUse { .. }
            | Refusal::IndexInUse { .. }
            | Refusal::UnknownPlan { .. }
            | Refusal::PlanExists { .. }
            | Refusal::PlanState { .. }
            | Refusal::BadInput { .. }
            | Refusal::DeltasDiffer { .. } => Code::Unexpected,
        };
        Failure::refused(code, refusal.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_keyspace_is_no_refusal_at_which_data_nodes_end() {
        let full = Rejection::NoSpace { size_bytes: 2, quota_bytes: 1 };
        assert!(matches!(Failure::from(full), Failure::Unavailable(_)));
        assert!(matches!(Failure::from(Rejection::Corrupt), Failure::Unavailable(_)));
    }

    #[test]
    fn only_a_command_that_was_never_sent_or_was_refused_is_without_effect() {
        let is_undone = |failure: Failure| failure.is_without_effect();
        assert!(is_undone(ProposeError::NotLeader { leader: None }.into()));
        assert!(is_undone(ProposeError::Overloaded { pending_bytes: 1 }.into()));
        assert!(is_undone(ProposeError::ShuttingDown.into()));
        assert!(is_undone(Rejection::Coordinator(Refusal::RoleOff).into()));
        assert!(!is_undone(ProposeError::Unknown.into()), "it may be in the log");
        assert!(!is_undone(Rejection::StaleRequest.into()), "its outcome is forgotten");
        assert!(!is_undone(Rejection::OutcomeTooLarge.into()), "it was carried out");
    }
}
