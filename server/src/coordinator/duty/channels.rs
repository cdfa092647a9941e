//! Assigns virtual channels to data nodes and moves them.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead};

pub(super) struct Channels {}

impl Duty for Channels {
    const NAME: &'static str = "duty-channels";
    const AREAS: &'static [Area] = &[Area::Session, Area::Channel, Area::Assignment];

    fn period(&self) -> Duration {
        Duration::from_secs(1)
    }

    #[allow(clippy::unused_async, reason = "to be filled in")]
    async fn round(&mut self, _lead: &Arc<Lead>) -> Result<(), Failure> {
        Ok(())
    }
}
