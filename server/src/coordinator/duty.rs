//! What the leading coordinator does by itself.

mod adopt;
mod channels;
pub(crate) mod compaction;
mod count;
mod data_nodes;
mod dropped_partitions;
pub(crate) mod garbage;
mod index_build;
mod index_jobs;
mod object_store;
mod seal;

use std::sync::Arc;

use super::Lead;
use super::driver::run;

/// Starts all duties; they end with the tenure.
pub(super) fn start(lead: &Arc<Lead>) {
    run(adopt::Adopt::default(), lead);
    run(data_nodes::DataNodes::default(), lead);
    run(channels::Channels::default(), lead);
    run(seal::SealDuty::default(), lead);
    run(dropped_partitions::DroppedPartitions::default(), lead);
    run(index_build::IndexBuild::default(), lead);
    run(index_jobs::IndexJobs::default(), lead);
    run(compaction::planning::Planning::default(), lead);
    run(compaction::execution::Execution::default(), lead);
    run(count::Count::default(), lead);
    run(object_store::ObjectStore::default(), lead);
    run(garbage::Garbage::new(lead.settings()), lead);
}
