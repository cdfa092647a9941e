//! Plans compactions, has data nodes execute them, completes them.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

pub(super) struct Compaction {}

impl Duty for Compaction {
    const NAME: &'static str = "duty-compaction";
    const AREAS: &'static [Area] = &[Area::Segment, Area::Compaction, Area::Assignment];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    #[allow(clippy::unused_async, reason = "to be filled in")]
    async fn round(&mut self, _lead: &Arc<Lead>) -> Result<(), Failure> {
        Ok(())
    }
}
