//! The connections of Milvus's processes to this node.
//!
//! A stock client that is told to look elsewhere reads the session again at most once a second, and
//! one whose call hangs does not read it at all. A connection that breaks makes it look at once: so
//! all are cut as soon as this node cannot answer any more.

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub(crate) struct Connections {
    /// Of those that were made since the last cut.
    newest: Mutex<CancellationToken>,
}

impl Connections {
    /// For a new connection: cancelled when it is to end.
    pub(crate) fn join(&self) -> CancellationToken {
        self.newest.lock().clone()
    }

    /// Ends all connections; new ones may be made.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.newest.lock()).cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_ends_the_connections_that_are_and_not_those_that_come() {
        let connections = Connections::default();
        let before = connections.join();
        connections.cut();
        assert!(before.is_cancelled());
        assert!(!connections.join().is_cancelled());
    }
}
