//! Commands on channels: who consumes which.
//!
//! `quorate/channel/{vchannel}` says who owns a channel and in which epoch; the `channelwatch` key of
//! the owner carries the command to its data node and the answer. Both change together, here only,
//! but for the data node's answers and whatever a stock coordinator did before us.

mod moves;
pub mod view;
mod watch;
mod watch_info;

use bytes::Bytes;
use proto::quorate::channel_command::Kind;
use proto::quorate::{self, ChannelRecord};

use crate::coordinator::Refusal;
use crate::coordinator::records::{Outcomes, Records};
use crate::state::draft::Stop;

pub(crate) use moves::release;
pub(crate) use watch_info::PendingSegments;

pub(crate) fn apply(
    records: &mut Records<'_, '_>,
    command: quorate::ChannelCommand,
) -> Result<Outcomes, Stop> {
    let Some(kind) = command.kind else {
        return Err(Refusal::unknown_command("channel").into());
    };
    match kind {
        Kind::Watch(command) => watch::watch(records, command),
        Kind::Move(command) => moves::move_channels(records, &command),
        Kind::Adopt(command) => watch::adopt(records, &command),
        Kind::Drain(command) => drain(records, command),
        // The settings are no record; whoever dispatches has seen to it.
        Kind::SetRole(_) => Ok(Outcomes::default()),
    }
}

/// # Errors
/// Refused where no data node of that id is alive.
fn drain(records: &mut Records<'_, '_>, command: quorate::DrainNode) -> Result<Outcomes, Stop> {
    let node = command.node;
    let key = records.keys().drain(node);
    let mut outcomes = Outcomes::default();
    if command.on && !records.exists(&records.keys().data_node_session(node)) {
        let (field, value) = ("node".to_owned(), node.to_string());
        let reason = "no data node of that id is alive".to_owned();
        return Err(Refusal::Invalid { field, value, reason }.into());
    }
    if records.exists(&key) != command.on {
        outcomes.changed(node);
    }
    if command.on {
        records.put_bytes(key, Bytes::new());
    } else {
        records.delete(key);
    }
    Ok(outcomes)
}

/// # Errors
/// Refused where the channel is not known.
fn record(records: &Records<'_, '_>, channel: &str) -> Result<ChannelRecord, Stop> {
    let record = records.get(&records.keys().channel(channel))?;
    record.ok_or_else(|| Refusal::UnknownChannel { channel: channel.to_owned() }.into())
}

fn is_removed(records: &Records<'_, '_>, channel: &str) -> Result<bool, Stop> {
    let mark = records.value(&records.keys().removal(channel))?;
    Ok(mark.is_some_and(|mark| mark == REMOVED))
}

/// Milvus's marks of a channel that is to end, and of one that lives.
const REMOVED: &[u8] = b"removed";
const NOT_REMOVED: &[u8] = b"non-removed";

/// Of one channel of a command on many: a refusal is named and the others go on.
fn settle(outcomes: &mut Outcomes, channel: &str, step: Result<(), Stop>) -> Result<(), Stop> {
    match step {
        Ok(()) => outcomes.changed_name(channel),
        Err(stop) => outcomes.refused_name(channel, stop.into_refusal()?),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
