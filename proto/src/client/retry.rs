//! Decides from a failed attempt whether it was done, and how long to pause.

use std::error::Error;
use std::time::Duration;

/// Metadata of a `NotLeader` answer: the leader's client address, absent while there is none.
pub const LEADER_METADATA: &str = "quorate-leader";

/// Metadata that marks an answer as `NotLeader`: the request was not done.
pub const NOT_LEADER_METADATA: &str = "quorate-not-leader";

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(500);

/// What a failed attempt means.
pub(super) enum Advice {
    /// The node will say the same again.
    Refused(tonic::Status),
    /// Nothing was done; the leader may be known.
    NotLeader(Option<String>),
    /// Nothing was done, another node or a later attempt may succeed.
    NotDone,
    /// Nobody listens there, or the network is cut.
    NoConnection,
    /// It may have been done.
    Unclear(Option<tonic::Status>),
}

pub(super) fn advice(status: tonic::Status) -> Advice {
    let leader = status.metadata().get(LEADER_METADATA).and_then(|value| value.to_str().ok());
    if leader.is_some() || status.metadata().get(NOT_LEADER_METADATA).is_some() {
        return Advice::NotLeader(leader.map(ToOwned::to_owned));
    }
    if never_sent(&status) {
        return Advice::NoConnection;
    }
    match status.code() {
        tonic::Code::Unavailable | tonic::Code::DeadlineExceeded | tonic::Code::Cancelled => {
            Advice::Unclear(Some(status))
        }
        // Said before anything was appended to the log.
        tonic::Code::ResourceExhausted if status.message().ends_with("too many requests") => {
            Advice::NotDone
        }
        tonic::Code::Unknown if status.source().is_some() => Advice::Unclear(Some(status)),
        tonic::Code::Ok
        | tonic::Code::Unknown
        | tonic::Code::InvalidArgument
        | tonic::Code::NotFound
        | tonic::Code::AlreadyExists
        | tonic::Code::PermissionDenied
        | tonic::Code::ResourceExhausted
        | tonic::Code::FailedPrecondition
        | tonic::Code::Aborted
        | tonic::Code::OutOfRange
        | tonic::Code::Unimplemented
        | tonic::Code::Internal
        | tonic::Code::DataLoss
        | tonic::Code::Unauthenticated => Advice::Refused(status),
    }
}

/// No connection stood, so the request never left.
fn never_sent(status: &tonic::Status) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Doubles from attempt to attempt. The first repetition comes at once: another node may answer.
#[derive(Default)]
pub(super) struct Backoff {
    attempts: u32,
}

impl Backoff {
    pub(super) fn next_pause(&mut self) -> Duration {
        self.attempts += 1;
        match self.attempts {
            1 => Duration::ZERO,
            attempts => (PAUSE_MIN * 2u32.pow((attempts - 2).min(10))).min(PAUSE_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_not_leader_answer_names_the_leader() {
        let mut status = tonic::Status::unavailable("etcdserver: not leader");
        status.metadata_mut().insert(LEADER_METADATA, "10.0.0.2:2379".parse().expect("ascii"));
        match advice(status) {
            Advice::NotLeader(Some(leader)) => assert_eq!(leader, "10.0.0.2:2379"),
            Advice::NotLeader(None)
            | Advice::Refused(_)
            | Advice::NotDone
            | Advice::NoConnection
            | Advice::Unclear(_) => {
                panic!("the metadata must win over the code")
            }
        }
    }

    #[test]
    fn an_unavailable_answer_leaves_the_fate_open() {
        let status = tonic::Status::unavailable("etcdserver: request timed out");
        assert!(matches!(advice(status), Advice::Unclear(Some(_))));
    }

    #[test]
    fn overload_is_said_before_anything_is_done() {
        let status = tonic::Status::resource_exhausted("etcdserver: too many requests");
        assert!(matches!(advice(status), Advice::NotDone));
        let status = tonic::Status::resource_exhausted("etcdserver: mvcc: database space exceeded");
        assert!(matches!(advice(status), Advice::Refused(_)));
    }

    #[test]
    fn pauses_start_at_none_and_stay_bounded() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u128> = (0..9).map(|_| backoff.next_pause().as_millis()).collect();
        assert_eq!(pauses, [0, 10, 20, 40, 80, 160, 320, 500, 500]);
    }
}
