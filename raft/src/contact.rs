//! Whether the leader that this node knows still has a majority, as far as this node can tell.
//!
//! openraft names the holder of the newest committed vote as the leader until another vote is
//! given. A node that is cut off sees no other vote, so by that rule it would name a leader that
//! died, or itself, for ever. Here a leader counts only while there is recent proof of it: on the
//! leader an acknowledgement by a majority, elsewhere a message of the leader that does not say
//! that the majority is missing.
//!
//! What is derived from this is for people, probes and clients. Routing and fences go by votes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use openraft::raft::AppendEntriesRequest;
use parking_lot::Mutex;
use proto::quorate;
use tokio::time::Instant;

use crate::config::Timers;
use crate::types::{LeaderId, TypeConfig};
use crate::wire::{self, WireError};

/// Proof that a leader has a majority, and how old it is.
#[derive(Debug)]
pub(crate) struct Contact {
    silence_max: Duration,
    newest: Mutex<Option<(LeaderId, Instant)>>,
    /// This node leads without a majority: its messages to followers say so.
    without_quorum: AtomicBool,
}

impl Contact {
    pub(crate) fn new(timers: &Timers) -> Arc<Contact> {
        Arc::new(Contact {
            // A leader that is gone is replaced within this time, where it can be.
            silence_max: timers.election_max * 2,
            newest: Mutex::default(),
            without_quorum: AtomicBool::new(false),
        })
    }

    /// Notes that `leader` had a majority at `at`. What is known of a later leader stays.
    pub(crate) fn note(&self, leader: LeaderId, at: Instant) {
        let mut newest = self.newest.lock();
        *newest = match *newest {
            Some((known, since)) if known == leader => Some((known, since.max(at))),
            Some((known, since)) if is_later(known, leader) => Some((known, since)),
            Some(_) | None => Some((leader, at)),
        };
    }

    /// Takes in a message of a leader, as proof that it leads.
    ///
    /// # Errors
    /// It cannot be understood.
    pub(crate) fn receive(
        &self,
        message: quorate::AppendRequest,
    ) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
        let without_quorum = message.without_quorum;
        let request = wire::append_from_wire(message)?;
        if !without_quorum {
            self.note(request.vote.leader_id, Instant::now());
        }
        Ok(request)
    }

    /// A node that begins to lead was just elected by a majority.
    pub(crate) fn begins(&self, own: LeaderId, now: Instant) {
        let is_new = self.newest.lock().is_none_or(|(known, _)| is_later(own, known));
        if is_new {
            self.note(own, now);
        }
    }

    /// Whether there is proof of `leader` that is recent enough.
    pub(crate) fn is_recent(&self, leader: LeaderId, now: Instant) -> bool {
        let newest = *self.newest.lock();
        newest.is_some_and(|(known, at)| {
            known == leader && now.saturating_duration_since(at) < self.silence_max
        })
    }

    pub(crate) fn set_without_quorum(&self, without: bool) {
        self.without_quorum.store(without, Ordering::Relaxed);
    }

    pub(crate) fn is_without_quorum(&self) -> bool {
        self.without_quorum.load(Ordering::Relaxed)
    }
}

fn is_later(one: LeaderId, other: LeaderId) -> bool {
    (one.term, one.node_id) > (other.term, other.node_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn leader(term: u64, node_id: u64) -> LeaderId {
        LeaderId { term, node_id }
    }

    #[test]
    fn a_leader_counts_while_it_is_heard_and_a_deposed_one_does_not() {
        let timers = Timers::default();
        let contact = Contact::new(&timers);
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        assert!(!contact.is_recent(leader(1, 1), start), "never heard");
        contact.note(leader(1, 1), start);
        assert!(contact.is_recent(leader(1, 1), ms(799)));
        assert!(!contact.is_recent(leader(1, 1), ms(800)));
        contact.note(leader(2, 3), ms(100));
        assert!(!contact.is_recent(leader(1, 1), ms(101)));
        // A late message of the old leader changes nothing.
        contact.note(leader(1, 1), ms(700));
        assert!(contact.is_recent(leader(2, 3), ms(899)));
        assert!(!contact.is_recent(leader(1, 1), ms(701)));
    }

    #[test]
    fn an_election_is_proof_once() {
        let contact = Contact::new(&Timers::default());
        let start = Instant::now();
        let late = start + Duration::from_secs(2);
        contact.begins(leader(1, 1), start);
        contact.begins(leader(1, 1), late);
        assert!(contact.is_recent(leader(1, 1), start));
        assert!(!contact.is_recent(leader(1, 1), late));
    }
}
