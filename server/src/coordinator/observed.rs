//! Facts of the moment, in the leader's memory: row counts of growing segments, ticks, what was
//! handed out. Rebuilt from the next report; what must survive is in the state.

use super::Lead;

#[derive(Default)]
pub(crate) struct Observed {}

impl Observed {
    /// What the recorded windows say, before the first request comes.
    pub(crate) fn take_over(&self, _lead: &Lead) {}
}
