//! Commands on compactions. A plan is on record before its node hears of it, so that whoever leads
//! then can tell a result from a stray.

mod complete;
mod plan;
mod run;
pub mod view;

use std::collections::BTreeMap;

use proto::milvus::common::KeyValuePair;
use proto::milvus::data::{Binlog, ChannelWatchInfo, ChannelWatchState, FieldBinlog};
use proto::quorate::compaction_command::Kind;
use proto::quorate::{
    self, AlterCollection, AlteredCollection, ChannelRecord, CompactionTask, SegmentRef,
};

use crate::coordinator::Refusal;
use crate::coordinator::keys::LogKind;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) fn apply(
    records: &mut Records<'_, '_>,
    command: quorate::CompactionCommand,
) -> Result<Outcomes, Stop> {
    let Some(kind) = command.kind else {
        return Err(Refusal::unknown_command("compaction").into());
    };
    match kind {
        Kind::Plan(command) => plan::plan(records, command),
        Kind::Send(command) => run::send(records, &command),
        Kind::Complete(command) => complete::complete(records, command),
        Kind::End(command) => run::end(records, command),
        Kind::Forget(command) => run::forget(records, &command),
        Kind::Control(command) => Ok(run::control(records, command)),
        Kind::Alter(command) => alter(records, command),
    }
}

/// Merges changed properties into those of earlier changes.
fn alter(records: &mut Records<'_, '_>, command: AlterCollection) -> Result<Outcomes, Stop> {
    let AlterCollection { collection, properties } = command;
    let key = records.keys().altered(collection);
    let known: AlteredCollection = records.get_if_record(&key)?.unwrap_or_default();
    let pairs = known.properties.into_iter().chain(properties);
    let merged: BTreeMap<String, String> = pairs.map(|pair| (pair.key, pair.value)).collect();
    let pair = |(key, value)| KeyValuePair { key, value };
    records.put(key, &AlteredCollection { properties: merged.into_iter().map(pair).collect() });
    let mut outcomes = Outcomes::default();
    outcomes.changed(collection);
    Ok(outcomes)
}

/// The record of a plan.
fn task(records: &Records<'_, '_>, plan: i64) -> Result<CompactionTask, Stop> {
    let task = records.get(&records.keys().compaction(plan))?;
    task.ok_or_else(|| Refusal::UnknownPlan { plan }.into())
}

fn put(records: &mut Records<'_, '_>, task: &CompactionTask) {
    records.put(records.keys().compaction(task.plan), task);
}

fn refuse_state(task: &CompactionTask) -> Refusal {
    Refusal::PlanState { plan: task.plan, state: i64::from(task.state) }
}

fn input_of(task: &CompactionTask, segment: i64) -> SegmentRef {
    SegmentRef { collection: task.collection, partition: task.partition, segment }
}

/// # Errors
/// Refused unless the node has consumed the channel without a break since it got it in that epoch:
/// whoever consumes it now holds the inputs as flushed, and its deletes would go to them.
fn check_consumer(
    records: &Records<'_, '_>,
    channel: &str,
    node: i64,
    epoch: u64,
) -> Result<(), Stop> {
    let keys = records.keys();
    let Some(record) = records.get::<ChannelRecord>(&keys.channel(channel))? else {
        return Err(Refusal::UnknownChannel { channel: channel.to_owned() }.into());
    };
    let watch_key = keys.channel_watch(node, channel);
    let watch: Option<ChannelWatchInfo> = records.get(&watch_key)?;
    let is_consumed = watch.is_some_and(|watch| match watch.state() {
        ChannelWatchState::WatchSuccess | ChannelWatchState::Complete => true,
        ChannelWatchState::Uncomplete
        | ChannelWatchState::ToWatch
        | ChannelWatchState::WatchFailure
        | ChannelWatchState::ToRelease
        | ChannelWatchState::ReleaseSuccess
        | ChannelWatchState::ReleaseFailure => false,
    });
    if record.node != node || record.epoch != epoch || !is_consumed {
        return Err(Refusal::ChannelChanged {
            epoch: record.epoch.cast_signed(),
            revision: records.revision_of(&watch_key),
            channel: channel.to_owned(),
        }
        .into());
    }
    Ok(())
}

/// Delta logs of a segment with their fields, by id.
fn delta_logs(
    records: &Records<'_, '_>,
    of: SegmentRef,
) -> Result<BTreeMap<i64, (i64, Binlog)>, Stop> {
    let prefix = records.keys().logs(LogKind::Delta, of);
    let mut found = BTreeMap::new();
    for (_key, logs) in records.scan::<FieldBinlog>(&prefix)? {
        for log in logs.binlogs {
            found.insert(log.log_id, (logs.field_id, log));
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests;
