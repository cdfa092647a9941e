//! The one table from what went wrong to etcd's code and text.
//!
//! Go clients tell errors apart by the text and decide by the code whether to try again, so both
//! must be exactly etcd's.

use raft::{AskError, MembershipError, ProposeError, ReadError};
use statemachine::{Fault, Rejection};
use tonic::{Code, Status};

use super::call::Deadline;

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
    TimeoutApply,
    UnhealthyCluster,
    NotCapable,
    DeadlineExceeded,
    Canceled,
    MemberNotFound,
    MemberIdExists,
    PeerUrlExists,
    BadMemberUrls,
    NotEnoughStarted,
    NotLearner,
    LearnerNotReady,
    TooManyLearners,
    NotLeader,
    BadTransferee,
    AuthNotEnabled,
    UserEmpty,
    UserNotFound,
    RoleNotFound,
    RoleEmpty,
    UserExists,
    RoleExists,
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
            | E::BadMemberUrls
            | E::UserEmpty
            | E::RoleEmpty => Code::InvalidArgument,
            E::Compacted | E::FutureRevision | E::LeaseTtlTooLarge => Code::OutOfRange,
            E::LeaseNotFound | E::MemberNotFound => Code::NotFound,
            E::LeaseExists
            | E::MemberIdExists
            | E::PeerUrlExists
            | E::NotEnoughStarted
            | E::NotLearner
            | E::LearnerNotReady
            | E::TooManyLearners
            | E::NotLeader
            | E::BadTransferee
            | E::AuthNotEnabled
            | E::UserNotFound
            | E::RoleNotFound
            | E::UserExists
            | E::RoleExists => Code::FailedPrecondition,
            E::NoSpace | E::TooManyRequests => Code::ResourceExhausted,
            E::Corrupt => Code::DataLoss,
            E::NoLeader
            | E::LeaderChanged
            | E::Stopped
            | E::Timeout
            | E::TimeoutLeaderLost
            | E::TimeoutApply
            | E::UnhealthyCluster
            | E::NotCapable => Code::Unavailable,
            E::DeadlineExceeded => Code::DeadlineExceeded,
            E::Canceled => Code::Cancelled,
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
            E::TimeoutApply => {
                "etcdserver: request timed out, waiting for the applied index took too long"
            }
            E::UnhealthyCluster => "etcdserver: unhealthy cluster",
            E::NotCapable => "etcdserver: not capable",
            E::DeadlineExceeded => "context deadline exceeded",
            E::Canceled => "etcdserver: request canceled",
            E::MemberNotFound => "etcdserver: member not found",
            E::MemberIdExists => "etcdserver: member ID already exist",
            E::PeerUrlExists => "etcdserver: Peer URLs already exists",
            E::BadMemberUrls => "etcdserver: given member URLs are invalid",
            E::NotEnoughStarted => {
                "etcdserver: re-configuration failed due to not enough started members"
            }
            E::NotLearner => "etcdserver: can only promote a learner member",
            E::LearnerNotReady => {
                "etcdserver: can only promote a learner member which is in sync with leader"
            }
            E::TooManyLearners => "etcdserver: too many learner members in cluster",
            E::NotLeader => "etcdserver: not leader",
            E::BadTransferee => "etcdserver: bad leader transferee",
            E::AuthNotEnabled => "etcdserver: authentication is not enabled",
            E::UserEmpty => "etcdserver: user name is empty",
            E::UserNotFound => "etcdserver: user name not found",
            E::RoleNotFound => "etcdserver: role name not found",
            E::RoleEmpty => "etcdserver: role name is empty",
            E::UserExists => "etcdserver: user name already exists",
            E::RoleExists => "etcdserver: role name already exists",
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
        let printable: String = detail
            .chars()
            .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
            .collect();
        if let Ok(value) = printable.parse() {
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
        Rejection::StaleFence { .. } => EtcdError::LeaderChanged,
        // The command took effect or not; its client cannot be told which.
        Rejection::StaleRequest | Rejection::OutcomeTooLarge => EtcdError::Timeout,
        Rejection::InvalidSetting { .. } | Rejection::UnknownAlarm { .. } => {
            return Status::invalid_argument(format!("etcdserver: {rejection}"));
        }
    };
    error.with_detail(&rejection.to_string())
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
        ProposeError::ShuttingDown => EtcdError::Stopped,
        ProposeError::NotReady { .. } => EtcdError::UnhealthyCluster,
    };
    etcd_error.with_detail(&error.to_string())
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
            return Status::failed_precondition(format!("etcdserver: {reason}"));
        }
        MembershipError::Deadline(_) => EtcdError::Timeout,
        MembershipError::ShuttingDown => EtcdError::Stopped,
    };
    etcd_error.with_detail(&error.to_string())
}

/// The storage failed under a read: the node is about to stop.
pub(crate) fn fault(fault: &Fault) -> Status {
    tracing::error!(error = %fault, "read failed");
    EtcdError::Stopped.with_detail(&fault.to_string())
}
