//! Has index nodes build what is defined and not built.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

pub(super) struct IndexBuild {}

impl Duty for IndexBuild {
    const NAME: &'static str = "duty-index-build";
    const AREAS: &'static [Area] = &[Area::Segment, Area::Index, Area::Session];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    #[allow(clippy::unused_async, reason = "to be filled in")]
    async fn round(&mut self, _lead: &Arc<Lead>) -> Result<(), Failure> {
        Ok(())
    }
}
