//! What readers hold: one generation, alive for as long as they look at it.

use std::sync::Arc;

use statemachine::{State, StateRead};

use crate::generation::Generation;
use crate::rocks::Pinned;

/// The state that this node has applied.
#[derive(Clone)]
pub struct View {
    generation: Arc<Generation>,
}

impl View {
    pub(crate) fn new(generation: Arc<Generation>) -> View {
        View { generation }
    }

    /// Calls `f` under a lock that apply waits for: it must be short.
    pub fn read<T>(&self, f: impl FnOnce(&State) -> T) -> T {
        f(&self.generation.state.read())
    }

    /// The replicated feature level. Never waits for apply.
    pub fn level(&self) -> u32 {
        self.generation.level()
    }

    /// The newest rows, without an image of one moment: for rows that never change, whose places
    /// a [`View::read`] told just before. Compaction may have taken one meanwhile.
    pub fn newest(&self) -> &dyn StateRead {
        self.generation.tables.as_ref()
    }

    /// As [`View::read`], with an image of the tables of that moment to go on reading from.
    pub fn pin<T>(&self, f: impl FnOnce(&State) -> T) -> (T, Pinned) {
        let state = self.generation.state.read();
        let value = f(&state);
        let pinned = Pinned::new(self.generation.tables.clone());
        drop(state);
        (value, pinned)
    }
}
