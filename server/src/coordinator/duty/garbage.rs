//! Removes files and records that nothing needs any more.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

pub(super) struct Garbage {}

impl Duty for Garbage {
    const NAME: &'static str = "duty-garbage";
    const AREAS: &'static [Area] = &[];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    #[allow(clippy::unused_async, reason = "to be filled in")]
    async fn round(&mut self, _lead: &Arc<Lead>) -> Result<(), Failure> {
        Ok(())
    }
}
