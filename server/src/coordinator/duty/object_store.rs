//! Asks the object store whether it is there: a store that is misconfigured, or down, is found when the
//! role begins, not when the first file is to be copied or deleted.

use std::sync::Arc;
use std::time::Duration;

use statemachine::coordinator::keys::LogKind;
use statemachine::view::Area;

use super::garbage;
use crate::coordinator::driver::Duty;
use crate::coordinator::objects::reason;
use crate::coordinator::{Failure, Lead};

const PERIOD: Duration = Duration::from_secs(60);
/// While it does not answer.
const PERIOD_FAILING: Duration = Duration::from_secs(10);

#[derive(Default)]
pub(super) struct ObjectStore {
    is_failing: bool,
}

impl Duty for ObjectStore {
    const NAME: &'static str = "duty-object-store";
    const AREAS: &'static [Area] = &[];

    fn period(&self) -> Duration {
        if self.is_failing { PERIOD_FAILING } else { PERIOD }
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let area = garbage::area(LogKind::Insert);
        let prefix = format!("{}{area}", lead.settings().storage_prefix());
        let objects = lead.coordinator.objects().clone();
        let probed = objects.probe(&prefix).await;
        match (&probed, self.is_failing) {
            (Err(error), false) => {
                let error = reason(error);
                tracing::error!(
                    prefix,
                    error,
                    "the object store does not answer: nothing is collected, and deletes of compacted \
                     segments wait"
                );
            }
            (Ok(()), true) => tracing::info!(prefix, "the object store answers again"),
            (Ok(()), false) | (Err(_), true) => {}
        }
        self.is_failing = probed.is_err();
        Ok(())
    }
}
