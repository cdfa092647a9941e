//! The header of every response, and the other constants that name this member.

use proto::etcd;
use raft::Status;
use tokio::sync::watch;

/// Knows who answers, and in which term.
#[derive(Clone)]
pub(crate) struct Headers {
    status: watch::Receiver<Status>,
}

impl Headers {
    pub(crate) fn new(status: watch::Receiver<Status>) -> Headers {
        Headers { status }
    }

    /// `revision` is that of the state that was read or written; cluster calls have none and say 0.
    pub(crate) fn at(&self, revision: i64) -> etcd::ResponseHeader {
        let status = self.status.borrow();
        etcd::ResponseHeader {
            cluster_id: status.cluster,
            member_id: status.node,
            revision,
            raft_term: status.term,
        }
    }

    /// Completes a header that holds no more than its revision.
    pub(crate) fn complete(&self, header: Option<&etcd::ResponseHeader>) -> etcd::ResponseHeader {
        self.at(header.map_or(0, |header| header.revision))
    }

    pub(crate) fn status(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }

    pub(crate) fn has_leader(&self) -> bool {
        self.status.borrow().leader.is_some()
    }
}
