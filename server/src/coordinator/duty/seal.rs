//! Seals segments that are due, tells data nodes to flush them, drops empty ones.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

pub(super) struct Seal {}

impl Duty for Seal {
    const NAME: &'static str = "duty-seal";
    const AREAS: &'static [Area] = &[Area::Segment];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    #[allow(clippy::unused_async, reason = "to be filled in")]
    async fn round(&mut self, _lead: &Arc<Lead>) -> Result<(), Failure> {
        Ok(())
    }
}
