//! What is reported of rows: that there are some, how far they are written, that they may be seen.

use proto::milvus::data::{ChannelWatchInfo, ChannelWatchState};
use proto::milvus::msg::MsgPosition;
use proto::quorate::{ChannelCheckpoint, FinishImport, Growth, HasRows, NoteRows, SaveCheckpoints};

use super::saved::check_owner;
use super::{record, settle};
use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

/// Rows have arrived. Of segments that are flushed or gone it is no news.
pub(super) fn note(records: &mut Records<'_, '_>, command: &NoteRows) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let key = records.keys().growth(of.segment);
        let Some(growth) = records.get::<Growth>(&key)? else { continue };
        if growth.has_rows() != HasRows::Yes {
            records.put(key, &Growth { has_rows: HasRows::Yes.into(), ..growth });
            outcomes.changed(of.segment);
        }
    }
    Ok(outcomes)
}

/// A checkpoint that is not newer than the one on record changes nothing and is no error: data nodes
/// report again after a lost answer. Neither is one of a channel that has ended.
pub(super) fn save_checkpoints(
    records: &mut Records<'_, '_>,
    command: SaveCheckpoints,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for checkpoint in command.checkpoints {
        let channel = checkpoint.channel.clone();
        match save_checkpoint(records, checkpoint, command.node) {
            Ok(true) => outcomes.changed_name(&channel),
            Ok(false) => {}
            Err(stop) => outcomes.refused_name(&channel, stop.into_refusal()?),
        }
    }
    Ok(outcomes)
}

/// Returns whether it is newer than what was on record.
fn save_checkpoint(
    records: &mut Records<'_, '_>,
    checkpoint: ChannelCheckpoint,
    node: i64,
) -> Result<bool, Stop> {
    let ChannelCheckpoint { channel, position } = checkpoint;
    let Some(position) = position else { return Ok(false) };
    if !records.exists(&records.keys().channel(&channel)) {
        return Ok(false);
    }
    check_consumer(records, &channel, node)?;
    let key = records.keys().checkpoint(&channel);
    let known = records.get::<MsgPosition>(&key)?;
    if known.is_some_and(|known| known.timestamp >= position.timestamp) {
        return Ok(false);
    }
    records.put(key, &position);
    Ok(true)
}

/// # Errors
/// Refused unless the node owns the channel and has begun to consume it since it was assigned. A data
/// node that was frozen while another one had the channel gives its rows up when it saves them, and
/// then reports a checkpoint past them: nobody would read them again.
fn check_consumer(records: &Records<'_, '_>, channel: &str, node: i64) -> Result<(), Stop> {
    check_owner(records, channel, node)?;
    let watch: Option<ChannelWatchInfo> =
        records.get(&records.keys().channel_watch(node, channel))?;
    let has_begun = watch.is_some_and(|watch| match watch.state() {
        ChannelWatchState::Complete
        | ChannelWatchState::WatchSuccess
        | ChannelWatchState::ToRelease
        | ChannelWatchState::ReleaseSuccess => true,
        ChannelWatchState::Uncomplete
        | ChannelWatchState::ToWatch
        | ChannelWatchState::WatchFailure
        | ChannelWatchState::ReleaseFailure => false,
    });
    if has_begun {
        return Ok(());
    }
    Err(Refusal::NotOwner { node, channel: channel.to_owned() }.into())
}

pub(super) fn finish_import(
    records: &mut Records<'_, '_>,
    command: &FinishImport,
) -> Result<Outcomes, Stop> {
    let mut outcomes = Outcomes::default();
    for of in &command.segments {
        let finished = record(records, *of).map(|mut info| {
            if info.is_importing {
                info.is_importing = false;
                records.put(records.keys().segment(*of), &info);
            }
        });
        settle(&mut outcomes, of.segment, finished)?;
    }
    Ok(outcomes)
}
