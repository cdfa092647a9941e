//! Says when there are too few data nodes. What is put off meanwhile, its own duties put off.

use std::sync::Arc;
use std::time::Duration;

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead, data_nodes};

#[derive(Default)]
pub(super) struct DataNodes {
    are_too_few: bool,
}

impl Duty for DataNodes {
    const NAME: &'static str = "duty-data-nodes";
    const AREAS: &'static [Area] = &[Area::Session];

    /// A lasting shortage is said again.
    fn period(&self) -> Duration {
        Duration::from_secs(60)
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let settings = lead.settings();
        let (n_usable, are_too_few) = lead.local().read(|state| {
            let views = state.views();
            (data_nodes::usable(views).len(), data_nodes::are_too_few(views, settings))
        });
        let wanted = settings.data_nodes_min;
        if are_too_few {
            tracing::warn!(
                n_usable,
                wanted,
                "too few data nodes: compaction waits, segments are sealed earlier"
            );
        } else if self.are_too_few {
            tracing::info!(n_usable, wanted, "enough data nodes again");
        }
        self.are_too_few = are_too_few;
        Ok(())
    }
}
