//! The one table from what went wrong to etcd's code and text.
//!
//! Go clients tell errors apart by the text and decide by the code whether to try again, so both
//! must be exactly etcd's.

use raft::{AskError, MembershipError, Node, ProposeError, ReadError};
use statemachine::{Fault, Rejection};
use tonic::{Code, Status};

use super::call::Deadline;
use crate::edge::brief::{TEXT_BYTES_MAX, cut, printable};

/// What an etcd client can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EtcdError {
    EmptyKey,
    KeyNotFound,
    ValueProvided,
    LeaseProvided,
    TooManyOps,
    DuplicateKey,
    RequestTooLarge,
    InvalidSortOption,
    Compacted,
    FutureRevision,
    LeaseTtlTooLarge,
    LeaseNotFound,
    LeaseExists,
    NoSpace,
    TooManyRequests,
    Corrupt,
    NoLeader,
    LeaderChanged,
    Stopped,
    Timeout,
    TimeoutLeaderLost,
    UnhealthyCluster,
    DeadlineExceeded,
    MemberNotFound,
    PeerUrlExists,
    BadMemberUrls,
    NotLearner,
    NotLeader,
    BadTransferee,
    AuthNotEnabled,
    UserNotFound,
    RoleNotFound,
}

impl EtcdError {
    pub(crate) fn code(self) -> Code {
        use EtcdError as E;
        match self {
            E::EmptyKey
            | E::KeyNotFound
            | E::ValueProvided
            | E::LeaseProvided
            | E::TooManyOps
            | E::DuplicateKey
            | E::RequestTooLarge
            | E::InvalidSortOption
            | E::BadMemberUrls => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
            E::LeaseExists
            | E::PeerUrlExists
            | E::NotLearner
            | E::NotLeader
            | E::BadTransferee
            | E::AuthNotEnabled
            | E::UserNotFound
            | E::RoleNotFound => Code::FailedPrecondition,
            E::NoSpace | E::TooManyRequests => Code::ResourceExhausted,
            E::Corrupt => Code::DataLoss,
            E::NoLeader
            | E::LeaderChanged
            | E::Stopped
            | E::Timeout
            | E::TimeoutLeaderLost
            | E::UnhealthyCluster => Code::Unavailable,
            E::DeadlineExceeded => Code::DeadlineExceeded,
        }
    }

    pub(crate) fn text(self) -> &'static str {
        use EtcdError as E;
        match self {
            E::EmptyKey => "etcdserver: key is not provided",
            E::KeyNotFound => "etcdserver: key not found",
            E::ValueProvided => "etcdserver: value is provided",
            E::LeaseProvided => "etcdserver: lease is provided",
            E::TooManyOps => "etcdserver: too many operations in txn request",
            E::DuplicateKey => "etcdserver: duplicate key given in txn request",
            E::RequestTooLarge => "etcdserver: request is too large",
            E::InvalidSortOption => "etcdserver: invalid sort option",
            E::Compacted => "etcdserver: mvcc: required revision has been compacted",
            E::FutureRevision => "etcdserver: mvcc: required revision is a future revision",
            E::LeaseTtlTooLarge => "etcdserver: too large lease TTL",
            E::LeaseNotFound => "etcdserver: requested lease not found",
            E::LeaseExists => "etcdserver: lease already exists",
            E::NoSpace => "etcdserver: mvcc: database space exceeded",
            E::TooManyRequests => "etcdserver: too many requests",
            E::Corrupt => "etcdserver: corrupt cluster",
            E::NoLeader => "etcdserver: no leader",
            E::LeaderChanged => "etcdserver: leader changed",
            E::Stopped => "etcdserver: server stopped",
            E::Timeout => "etcdserver: request timed out",
            E::TimeoutLeaderLost => {
                "etcdserver: request timed out, possibly due to previous leader failure"
            }
            E::UnhealthyCluster => "etcdserver: unhealthy cluster",
            E::DeadlineExceeded => "context deadline exceeded",
            E::MemberNotFound => "etcdserver: member not found",
            E::PeerUrlExists => "etcdserver: Peer URLs already exists",
            E::BadMemberUrls => "etcdserver: given member URLs are invalid",
            E::NotLearner => "etcdserver: can only promote a learner member",
            E::NotLeader => "etcdserver: not leader",
            E::BadTransferee => "etcdserver: bad leader transferee",
            E::AuthNotEnabled => "etcdserver: authentication is not enabled",
            E::UserNotFound => "etcdserver: user name not found",
            E::RoleNotFound => "etcdserver: role name not found",
        }
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Status {
        Status::new(error.code(), error.text())
    }
}

/// Metadata that says what exactly was wrong; the message itself has to be etcd's, word by word.
const DETAIL: &str = "quorate-detail";

impl EtcdError {
    /// Adds what was given, what the limit is and what to do.
    pub(crate) fn with_detail(self, detail: &str) -> Status {
        let mut status = Status::from(self);
        if let Ok(value) = printable(detail, TEXT_BYTES_MAX).parse() {
            status.metadata_mut().insert(DETAIL, value);
        }
        status
    }
}

/// A refusal that every node agrees on.
pub(crate) fn rejection(rejection: &Rejection) -> Status {
    let error = match rejection {
        Rejection::EmptyKey => EtcdError::EmptyKey,
        Rejection::ValueProvided => EtcdError::ValueProvided,
        Rejection::LeaseProvided { .. } => EtcdError::LeaseProvided,
        Rejection::TooManyOperations { .. } => EtcdError::TooManyOps,
        Rejection::DuplicateKey { .. } => EtcdError::DuplicateKey,
        Rejection::EmptyOperation | Rejection::KeyNotFound => EtcdError::KeyNotFound,
        Rejection::UnknownOption { .. } => EtcdError::InvalidSortOption,
        Rejection::Compacted { .. } => EtcdError::Compacted,
        Rejection::FutureRevision { .. } => EtcdError::FutureRevision,
        Rejection::LeaseNotFound { .. } | Rejection::LeaseIdMissing => EtcdError::LeaseNotFound,
        Rejection::LeaseExists { .. } => EtcdError::LeaseExists,
        Rejection::LeaseTtlTooLarge { .. } => EtcdError::LeaseTtlTooLarge,
        Rejection::NoSpace { .. } => EtcdError::NoSpace,
        Rejection::Corrupt => EtcdError::Corrupt,
        Rejection::TooCostly { .. } => EtcdError::RequestTooLarge,
        Rejection::StaleFence { .. } => EtcdError::LeaderChanged,
        // The command took effect or not; its client cannot be told which.
        Rejection::StaleRequest | Rejection::OutcomeTooLarge => EtcdError::Timeout,
        Rejection::Coordinator(_) => {
            return Status::permission_denied(text(rejection));
        }
        Rejection::InvalidSetting { .. } | Rejection::UnknownAlarm { .. } => {
            return Status::invalid_argument(text(rejection));
        }
        Rejection::UnreadableRun { .. } => {
            return Status::failed_precondition(format!("etcdserver: {rejection}"));
        }
    };
    error.with_detail(&rejection.to_string())
}

/// The text of a refusal that etcd does not have.
fn text(reason: &impl std::fmt::Display) -> String {
    cut(&format!("etcdserver: {reason}"), TEXT_BYTES_MAX).into_owned()
}

/// A command without an outcome.
pub(crate) fn propose(error: &ProposeError, deadline: &Deadline) -> Status {
    let etcd_error = match error {
        ProposeError::NotLeader { .. } | ProposeError::Unknown if deadline.is_over_for_client() => {
            EtcdError::DeadlineExceeded
        }
        ProposeError::NotLeader { .. } => EtcdError::TimeoutLeaderLost,
        ProposeError::Unknown => EtcdError::Timeout,
        ProposeError::Overloaded { .. } => EtcdError::TooManyRequests,
        ProposeError::TooLarge { .. } => EtcdError::RequestTooLarge,
        ProposeError::Refused { .. } => {
            return Status::failed_precondition(format!("etcdserver: {error}"));
        }
        ProposeError::ShuttingDown => EtcdError::Stopped,
        ProposeError::NotReady { .. } => EtcdError::UnhealthyCluster,
    };
    etcd_error.with_detail(&error.to_string())
}

/// Work that was not done in its time.
pub(crate) fn timeout(deadline: &Deadline) -> EtcdError {
    match deadline.is_over_for_client() {
        true => EtcdError::DeadlineExceeded,
        false => EtcdError::Timeout,
    }
}

/// A read that could not be made.
pub(crate) fn read(error: &ReadError, deadline: &Deadline) -> Status {
    let etcd_error = match error {
        ReadError::NoLeader { .. } if deadline.is_over_for_client() => EtcdError::DeadlineExceeded,
        ReadError::NoLeader { .. } => EtcdError::Timeout,
        ReadError::NotReady { .. } => EtcdError::UnhealthyCluster,
        ReadError::ShuttingDown => EtcdError::Stopped,
    };
    etcd_error.with_detail(&error.to_string())
}

/// The leader did not answer a question.
pub(crate) fn ask(error: &AskError, deadline: &Deadline) -> Status {
    let etcd_error = match error {
        AskError::NoLeader => EtcdError::NoLeader,
        AskError::UnknownNode { .. } => EtcdError::MemberNotFound,
        AskError::Unreachable { .. } | AskError::Refused(_) => EtcdError::LeaderChanged,
        AskError::Deadline if deadline.is_over_for_client() => EtcdError::DeadlineExceeded,
        AskError::Deadline => EtcdError::Timeout,
    };
    etcd_error.with_detail(&error.to_string())
}

/// A membership change or transfer that did not happen.
pub(crate) fn membership(error: &MembershipError) -> Status {
    let etcd_error = match error {
        MembershipError::NoLeader => EtcdError::NoLeader,
        MembershipError::UnknownNode { .. } => EtcdError::MemberNotFound,
        MembershipError::NoCandidate => EtcdError::BadTransferee,
        MembershipError::Unreachable { .. } => EtcdError::UnhealthyCluster,
        MembershipError::Refused(reason) => {
            return Status::failed_precondition(text(reason));
        }
        MembershipError::Deadline(_) => EtcdError::Timeout,
        MembershipError::ShuttingDown => EtcdError::Stopped,
    };
    etcd_error.with_detail(&error.to_string())
}

/// The storage failed under a read: this stops the node, so the answer may never be sent.
pub(crate) fn fault(node: &Node, fault: &Fault) -> Status {
    node.state_failed(fault);
    EtcdError::Stopped.with_detail(&fault.to_string())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tonic::metadata::MetadataMap;

    use super::*;

    fn deadline(timeout: &str) -> Deadline {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", timeout.parse().unwrap());
        Deadline::of(&metadata, Duration::from_secs(7))
    }

    #[test]
    fn a_refusal_has_etcds_text_and_says_in_metadata_what_was_given() {
        let status = rejection(&Rejection::TooManyOperations { given: 129, limit: 128 });
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "etcdserver: too many operations in txn request");
        let detail = status.metadata().get(DETAIL).unwrap().to_str().unwrap();
        assert_eq!(detail, "transaction has 129 operations, the limit is 128");
    }

    #[test]
    fn codes_that_clients_act_on() {
        for (refusal, code) in [
            (Rejection::Compacted { requested: 1, compacted: 5 }, Code::OutOfRange),
            (Rejection::FutureRevision { requested: 9, current: 5 }, Code::OutOfRange),
            (Rejection::LeaseNotFound { id: 1 }, Code::NotFound),
            (Rejection::LeaseExists { id: 1 }, Code::FailedPrecondition),
            (Rejection::NoSpace { size_bytes: 2, quota_bytes: 1 }, Code::ResourceExhausted),
            (Rejection::Corrupt, Code::DataLoss),
        ] {
            assert_eq!(rejection(&refusal).code(), code, "{refusal}");
        }
    }

    /// A client that is told `DeadlineExceeded` sends its put again, up to a hundred times.
    #[test]
    fn a_write_without_an_outcome_is_unavailable_unless_the_clients_own_time_is_up() {
        let own = propose(&ProposeError::Unknown, &deadline("0m"));
        assert_eq!(own.code(), Code::DeadlineExceeded);
        let waits_longer = propose(&ProposeError::Unknown, &deadline("60S"));
        assert_eq!(waits_longer.code(), Code::Unavailable);
        assert_eq!(waits_longer.message(), "etcdserver: request timed out");
    }

    #[test]
    fn bytes_that_metadata_cannot_hold_do_not_break_an_answer() {
        let status = EtcdError::DuplicateKey.with_detail("key \u{e9}\n\0 twice");
        assert_eq!(status.metadata().get(DETAIL).unwrap(), "key ??? twice");
        let long = EtcdError::DuplicateKey.with_detail(&"k".repeat(100_000));
        let detail = long.metadata().get(DETAIL).unwrap().to_str().unwrap();
        assert_eq!(detail, format!("{}... (100000 bytes)", "k".repeat(1024)));
    }
}
