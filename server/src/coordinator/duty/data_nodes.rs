//! Says when there are too few data nodes. What is put off meanwhile, its own duties put off.

use std::sync::Arc;
use std::time::{Duration, Instant};

use statemachine::view::Area;

use crate::coordinator::driver::Duty;
use crate::coordinator::{Failure, Lead, data_nodes};

/// How often a lasting shortage is said.
const SAID_EVERY: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct DataNodes {
    /// When it was last said that there are too few; `None` while there are enough.
    said: Option<Instant>,
}

impl Duty for DataNodes {
    const NAME: &'static str = "duty-data-nodes";
    const AREAS: &'static [Area] = &[Area::Session];

    fn period(&self) -> Duration {
        SAID_EVERY
    }

    async fn round(&mut self, lead: &Arc<Lead>) -> Result<(), Failure> {
        let settings = lead.settings();
        let (n_usable, are_too_few) = lead.local().read(|state| {
            let views = state.views();
            (data_nodes::usable(views).len(), data_nodes::are_too_few(views, settings))
        });
        let wanted = settings.data_nodes_min;
        if !are_too_few {
            if self.said.take().is_some() {
                tracing::info!(n_usable, wanted, "enough data nodes again");
            }
        } else if self.said.is_none_or(|said| said.elapsed() >= SAID_EVERY) {
            self.said = Some(Instant::now());
            tracing::warn!(
                n_usable,
                wanted,
                "too few data nodes: compaction waits, segments are sealed earlier"
            );
        }
        Ok(())
    }
}
