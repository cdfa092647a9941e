//! Runs that cannot be understood: none of their commands is carried out, now or later.

use bytes::Bytes;

use crate::admission::{self, Refused, RunHead};
use crate::alarm::{Alarm, AlarmKind};
use crate::ids::{EntryMeta, RequestId};
use crate::origin::{Claim, OriginDraft, outcomes};
use crate::response::Rejection;
use crate::state::chunk::Chunk;
use crate::state::commit::RefusedRun;
use crate::store::Fault;

/// Reasons that one chunk of entries keeps for the log: an entry can hold a run in two bytes.
const REASONS_MAX: usize = 64;

impl Chunk<'_> {
    /// Raises the alarm, which blocks nothing, and keeps the reason for the node's own log.
    pub(crate) fn note_refused(&mut self, entry: &EntryMeta, reason: Refused) {
        self.raise_alarm(Alarm { kind: AlarmKind::Unreadable, member: entry.node });
        if self.refused.len() < REASONS_MAX {
            self.refused.push(RefusedRun { index: entry.index, reason });
        }
    }

    /// Answers the commands of a run that was refused, and keeps the answers: the same run may come
    /// once more after the level has risen, and its commands were refused already.
    ///
    /// # Errors
    /// A fault of the storage.
    pub(crate) fn refuse_run(
        &mut self,
        entry: &EntryMeta,
        bytes: &Bytes,
        reason: Refused,
    ) -> Result<(), Fault> {
        self.note_refused(entry, reason);
        let Some(head) = admission::head_of(bytes) else { return Ok(()) };
        let RunHead { origin: node, epoch, first_seq, n_commands } = head;
        let committed = self.committed_origin(node);
        let mut origin =
            self.origins.remove(&node).unwrap_or_else(|| OriginDraft::of(node, committed));
        let rejection = Rejection::UnreadableRun { level: self.counters.level };
        let mut kept = outcomes::Writer::default();
        let mut kept_from = first_seq;
        for nth in 0..n_commands as u64 {
            let seq = first_seq.wrapping_add(nth);
            let outcome = match origin.claim(committed, epoch, seq)? {
                Claim::New => {
                    if kept.is_empty() {
                        kept_from = seq;
                    }
                    let outcome = Err(rejection.clone());
                    kept.add(&outcome);
                    outcome
                }
                Claim::Done(outcome) => {
                    origin.keep(committed, kept_from, std::mem::take(&mut kept), &mut self.changes);
                    outcome
                }
                Claim::Stale => {
                    origin.keep(committed, kept_from, std::mem::take(&mut kept), &mut self.changes);
                    Err(Rejection::StaleRequest)
                }
            };
            self.outcomes.push((RequestId { origin: node, epoch, seq }, outcome));
        }
        origin.keep(committed, kept_from, kept, &mut self.changes);
        origin.write_header(&mut self.changes);
        if origin.header().epoch != 0 {
            self.origins.insert(node, origin);
        }
        Ok(())
    }
}
