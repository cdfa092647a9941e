//! Work that only the leader does: lease expiry, compaction, the check of digests, the rise of the
//! feature level, cluster time that is ahead, alarms of full disks and wrong states.
//!
//! A duty takes no input. It wakes by period, looks at the state, and proposes under the fence of
//! its tenure; whatever a new leader must do it finds by looking.

mod alarm;
mod compaction;
mod digest;
mod driver;
mod expiry;
mod level;
mod quarantine;
mod room;
mod time;

use std::sync::Arc;
use std::time::Duration;

use raft::Node;
use tokio_util::sync::CancellationToken;

use crate::lease_clock::Leases;

pub(crate) use digest::recorded_digest;
pub(crate) use room::is_full;

/// Periods of the duties.
#[derive(Clone, Debug)]
pub struct DutyOptions {
    pub expiry_period: Duration,
    pub compaction_period: Duration,
    pub digest_period: Duration,
    pub level_period: Duration,
    pub time_period: Duration,
}

impl Default for DutyOptions {
    fn default() -> Self {
        DutyOptions {
            expiry_period: Duration::from_millis(500),
            compaction_period: Duration::from_secs(60),
            digest_period: Duration::from_secs(60),
            level_period: Duration::from_secs(10),
            time_period: Duration::from_secs(5),
        }
    }
}

/// Starts the driver, which runs the duties whenever this node leads, until `stop`.
pub fn start(node: Node, leases: Arc<Leases>, options: DutyOptions, stop: CancellationToken) {
    driver::spawn(node.clone(), stop, move |tenure| {
        driver::run(expiry::Expiry::new(node.clone(), Arc::clone(&leases), &options), &tenure);
        driver::run(compaction::Compaction::new(node.clone(), &options), &tenure);
        driver::run(digest::DigestCheck::new(node.clone(), &options), &tenure);
        driver::run(level::Level::new(node.clone(), &options), &tenure);
        driver::run(time::SetTime::new(node.clone(), &options), &tenure);
        driver::run(room::RoomAlarm::new(node.clone()), &tenure);
        driver::run(quarantine::QuarantineAlarm::new(node.clone()), &tenure);
    });
}
