//! Steps of a move: the owner lets go, then somebody else gets the channel, or it ends.

use std::collections::BTreeSet;

use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState};
use proto::quorate::channel_move::Step;
use proto::quorate::{
    ChannelMove, ChannelRecord, CompactionState, CompactionTask, MoveChannels, ReleaseReason,
};

use super::watch_info::{PendingSegments, put_command};
use super::{is_removed, record, settle};
use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;
use crate::view::ServerId;

pub(super) fn move_channels(
    records: &mut Records<'_, '_>,
    command: &MoveChannels,
) -> Result<Outcomes, Stop> {
    let pending = PendingSegments::of(records);
    let mut outcomes = Outcomes::default();
    for step in &command.moves {
        let moved = move_one(records, &pending, step);
        settle(&mut outcomes, &step.channel, moved)?;
    }
    Ok(outcomes)
}

fn move_one(
    records: &mut Records<'_, '_>,
    pending: &PendingSegments,
    step: &ChannelMove,
) -> Result<(), Stop> {
    let channel = &step.channel;
    let Some(kind) = step.step else {
        return Err(Refusal::unknown_command("step").into());
    };
    if let Step::DeleteKeyOf(node) = kind {
        return delete_stray(records, step, node);
    }
    let record = record(records, channel)?;
    let revision = records.revision_of(&records.keys().channel_watch(record.node, channel));
    if (record.epoch, revision) != (step.epoch, step.key_revision) {
        return Err(changed(channel, record.epoch, revision).into());
    }
    match kind {
        Step::Release(reason) => {
            if record.node == ServerId::NOBODY.0 {
                return Err(refuse("release", "nobody has it").into());
            }
            let reason = ReleaseReason::try_from(reason).unwrap_or_default();
            check_compactions(records, channel, reason)?;
            put_command(records, pending, channel, &record, ChannelWatchState::ToRelease)
        }
        Step::AssignTo(node) => {
            check_left(records, channel, &record)?;
            if is_removed(records, channel)? {
                end(records, channel, &record);
                return Ok(());
            }
            assign(records, pending, channel, record, node)
        }
        Step::DeleteKeyOf(_) => Ok(()),
    }
}

fn changed(channel: &str, epoch: u64, revision: i64) -> Refusal {
    let epoch = i64::try_from(epoch).unwrap_or(i64::MAX);
    Refusal::ChannelChanged { epoch, revision, channel: channel.to_owned() }
}

fn refuse(step: &str, reason: &str) -> Refusal {
    let (field, value) = ("step".to_owned(), step.to_owned());
    Refusal::Invalid { field, value, reason: reason.to_owned() }
}

/// A channel that moves by choice waits for its compactions: the new owner would hold their inputs as
/// flushed and write deletes for them.
fn check_compactions(
    records: &Records<'_, '_>,
    channel: &str,
    reason: ReleaseReason,
) -> Result<(), Stop> {
    match reason {
        ReleaseReason::Failed | ReleaseReason::Removed => return Ok(()),
        ReleaseReason::Unspecified | ReleaseReason::Balance | ReleaseReason::Drain => {}
    }
    match executing_on(records, channel)? {
        Some(task) => {
            let (plan, state) = (task.plan, i64::from(task.state));
            Err(Refusal::PlanState { plan, state }.into())
        }
        None => Ok(()),
    }
}

/// A plan of the channel that is at a data node, or whose node has not heard that it is done. One
/// that still waits is no hindrance: it goes to whoever owns the channel then.
fn executing_on(records: &Records<'_, '_>, channel: &str) -> Result<Option<CompactionTask>, Stop> {
    let committed = records.committed().views().plans().running_on(channel);
    let mut keys: BTreeSet<String> =
        committed.map(|plan| records.keys().compaction(plan.0)).collect();
    for (key, value) in records.pending(&records.keys().compactions()) {
        if value.is_some() {
            keys.insert(String::from_utf8_lossy(&key).into_owned());
        }
    }
    for key in keys {
        let Some(task) = records.get_if_record::<CompactionTask>(&key)? else { continue };
        let is_at_node =
            matches!(task.state(), CompactionState::Executing | CompactionState::Completed);
        if task.channel == channel && is_at_node {
            return Ok(Some(task));
        }
    }
    Ok(None)
}

/// Two nodes that consume one channel write every row twice: a node that is alive and was told to
/// watch keeps the channel until it has let go, or is told to and does not answer.
fn check_left(
    records: &Records<'_, '_>,
    channel: &str,
    record: &ChannelRecord,
) -> Result<(), Stop> {
    let is_alive = record.node != ServerId::NOBODY.0
        && records.exists(&records.keys().data_node_session(record.node));
    let key = records.keys().channel_watch(record.node, channel);
    if !is_alive || !records.exists(&key) {
        return Ok(());
    }
    // What does not decode was not written by a data node that is at work.
    let Ok(Some(info)) = records.get::<ChannelWatchInfo>(&key) else { return Ok(()) };
    match info.state() {
        ChannelWatchState::Uncomplete
        | ChannelWatchState::ToWatch
        | ChannelWatchState::Complete
        | ChannelWatchState::WatchSuccess => Err(refuse("assign", "its owner has it").into()),
        ChannelWatchState::WatchFailure
        | ChannelWatchState::ToRelease
        | ChannelWatchState::ReleaseSuccess
        | ChannelWatchState::ReleaseFailure => Ok(()),
    }
}

fn assign(
    records: &mut Records<'_, '_>,
    pending: &PendingSegments,
    channel: &str,
    mut record: ChannelRecord,
    node: i64,
) -> Result<(), Stop> {
    if record.node != node {
        records.delete(records.keys().channel_watch(record.node, channel));
    }
    record.node = node;
    record.epoch += 1;
    put_command(records, pending, channel, &record, ChannelWatchState::ToWatch)?;
    records.put(records.keys().channel(channel), &record);
    Ok(())
}

fn end(records: &mut Records<'_, '_>, channel: &str, record: &ChannelRecord) {
    records.delete(records.keys().channel_watch(record.node, channel));
    records.delete(records.keys().removal(channel));
    records.delete(records.keys().channel(channel));
}

/// A key of a node that does not own the channel: it answered after the channel had left it.
fn delete_stray(records: &mut Records<'_, '_>, step: &ChannelMove, node: i64) -> Result<(), Stop> {
    let channel = &step.channel;
    let key = records.keys().channel_watch(node, channel);
    let record: Option<ChannelRecord> = records.get(&records.keys().channel(channel))?;
    let epoch = record.as_ref().map_or(0, |record| record.epoch);
    let revision = records.revision_of(&key);
    if (epoch, revision) != (step.epoch, step.key_revision)
        || record.is_some_and(|record| record.node == node)
    {
        return Err(changed(channel, epoch, revision).into());
    }
    records.delete(key);
    Ok(())
}

/// Tells the owner of a channel to let go, as a part of another command. An owner that was told
/// already is not told again: its answer would miss the key.
pub(crate) fn release(records: &mut Records<'_, '_>, channel: &str) -> Result<(), Stop> {
    let key = records.keys().channel(channel);
    let Some(record) = records.get::<ChannelRecord>(&key)? else { return Ok(()) };
    if record.node == ServerId::NOBODY.0 {
        if is_removed(records, channel)? {
            end(records, channel, &record);
        }
        return Ok(());
    }
    let key = records.keys().channel_watch(record.node, channel);
    let told = records.get::<ChannelWatchInfo>(&key);
    if let Ok(Some(info)) = told
        && info.state() == ChannelWatchState::ToRelease
    {
        return Ok(());
    }
    let pending = PendingSegments::of(records);
    put_command(records, &pending, channel, &record, ChannelWatchState::ToRelease)
}
