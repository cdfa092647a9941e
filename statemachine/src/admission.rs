//! What may stand in the log. A run is read here twice: before the leader appends it, so that
//! nothing unread enters the log, and when it applies, so that every binary refuses the same runs.
//!
//! What is refused depends on the bytes and on the replicated feature level alone. A binary that
//! lacks a field or a kind finds bytes that it does not understand; one that knows it finds that the
//! level is too low for it. Both refuse the run, and the replicated outcome does not say why.

use bytes::Bytes;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use proto::quorate;
use proto::quorate::command::Kind;
use proto::quorate::coordinator_command::Area;
use proto::quorate::segment_command::Kind as SegmentKind;

use crate::limits;
use crate::versions::{COORDINATOR, HARDENING, KEYSPACE, KNOWN_LEVEL};

pub mod fields;

/// Why bytes are not taken as a run. For people: the same bytes may be refused by another binary
/// for another of these reasons.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the run cannot be decoded: {0}")]
    Undecodable(String),
    #[error(
        "the run has {given_bytes} bytes, of which this binary understands {understood_bytes}: a \
         field or a kind of command is unknown, or is not encoded as this binary would"
    )]
    NotUnderstood { given_bytes: usize, understood_bytes: usize },
    #[error("command {position} of the run is empty")]
    Empty { position: usize },
    #[error("the run has {found} commands, the limit is {limit}")]
    TooManyCommands { found: usize, limit: usize },
    #[error("the run settles numbers below {settled_below}, its own begin at {first_seq}")]
    Numbers { settled_below: u64, first_seq: u64 },
    #[error("the run names node {origin:016x} as its origin and came from node {caller:016x}")]
    Origin { origin: u64, caller: u64 },
    #[error("the run has {found} commands, its sender counted {claimed}")]
    Count { found: usize, claimed: usize },
    #[error("{what} needs feature level {needed}, the cluster is at level {level}")]
    Level { what: &'static str, needed: u32, level: u32 },
}

/// Checks a run of another node before it is appended. `claimed` is the number of commands that the
/// sender announced, `level` the replicated feature level.
///
/// # Errors
/// The run must not be appended: no node would carry it out.
pub fn admit_run(bytes: &Bytes, caller: u64, claimed: usize, level: u32) -> Result<(), Refused> {
    let run = read_run(bytes.clone())?;
    // Equal lengths could still hide an unknown field behind a known one that is encoded longer
    // than need be; nothing that was encoded by a node is.
    if run.encode_to_vec() != *bytes {
        let understood_bytes = run.encoded_len();
        return Err(Refused::NotUnderstood { given_bytes: bytes.len(), understood_bytes });
    }
    if run.origin != caller {
        return Err(Refused::Origin { origin: run.origin, caller });
    }
    if run.commands.len() != claimed {
        return Err(Refused::Count { found: run.commands.len(), claimed });
    }
    check_level(&run, level)?;
    let raised = run.commands.iter().filter_map(|command| match &command.kind {
        Some(Kind::RaiseLevel(raise)) => Some(raise.level),
        _ => None,
    });
    match raised.max() {
        Some(needed) if needed > KNOWN_LEVEL => {
            Err(Refused::Level { what: "raising the level", needed, level: KNOWN_LEVEL })
        }
        Some(_) | None => Ok(()),
    }
}

/// Checks a command of this node before it is taken in. What its own code builds is sound by
/// construction, but the binary may be newer than the level of the cluster.
///
/// # Errors
/// The command needs a higher level.
pub fn admit_command(
    command: &quorate::Command,
    level: impl FnOnce() -> u32,
) -> Result<(), Refused> {
    let (what, needed) = needed_level(command);
    // Most commands are of the first level, which every cluster has.
    if needed <= KEYSPACE {
        return Ok(());
    }
    let level = level();
    if needed > level { Err(Refused::Level { what, needed, level }) } else { Ok(()) }
}

/// Decodes a run, and finds what this binary does not understand of it.
pub(crate) fn read_run(bytes: Bytes) -> Result<quorate::Run, Refused> {
    let given_bytes = bytes.len();
    let run = quorate::Run::decode(bytes)
        .map_err(|error: prost::DecodeError| Refused::Undecodable(error.to_string()))?;
    let understood_bytes = run.encoded_len();
    if understood_bytes != given_bytes {
        return Err(Refused::NotUnderstood { given_bytes, understood_bytes });
    }
    let (found, limit) = (run.commands.len(), limits::RUN_COMMANDS_MAX);
    if found > limit {
        return Err(Refused::TooManyCommands { found, limit });
    }
    if let Some(position) = run.commands.iter().position(|command| command.kind.is_none()) {
        return Err(Refused::Empty { position });
    }
    let quorate::Run { settled_below, first_seq, .. } = run;
    if settled_below > first_seq {
        return Err(Refused::Numbers { settled_below, first_seq });
    }
    Ok(run)
}

/// Decodes an entry's batch. Its runs stay encoded.
pub(crate) fn read_batch(bytes: Bytes, level: u32) -> Result<quorate::Batch, Refused> {
    let given_bytes = bytes.len();
    let batch =
        quorate::Batch::decode(bytes).map_err(|error| Refused::Undecodable(error.to_string()))?;
    let understood_bytes = batch.encoded_len();
    if understood_bytes != given_bytes {
        return Err(Refused::NotUnderstood { given_bytes, understood_bytes });
    }
    if batch.time_epoch != 0 && level < HARDENING {
        return Err(Refused::Level { what: "an epoch of time", needed: HARDENING, level });
    }
    Ok(batch)
}

/// Whether each command and field of a run exists at the replicated level.
pub(crate) fn check_level(run: &quorate::Run, level: u32) -> Result<(), Refused> {
    for command in &run.commands {
        let (what, needed) = needed_level(command);
        if needed > level {
            return Err(Refused::Level { what, needed, level });
        }
    }
    Ok(())
}

/// The level from which a command may stand in the log, and its name. Fields that came after their
/// kind are checked here too.
fn needed_level(command: &quorate::Command) -> (&'static str, u32) {
    let Some(kind) = &command.kind else { return ("a command of no kind", KEYSPACE) };
    match kind {
        Kind::Put(_) => ("a put", KEYSPACE),
        Kind::DeleteRange(_) => ("a delete", KEYSPACE),
        Kind::Txn(_) => ("a transaction", KEYSPACE),
        Kind::Compact(_) => ("a compaction", KEYSPACE),
        Kind::LeaseGrant(_) => ("a lease", KEYSPACE),
        Kind::LeaseRevoke(_) => ("the end of a lease", KEYSPACE),
        Kind::ExpireLeases(_) => ("the expiry of leases", KEYSPACE),
        Kind::Alarm(_) => ("an alarm", KEYSPACE),
        Kind::RegisterOrigin(_) => ("a registration", KEYSPACE),
        Kind::ChangeSettings(_) => ("a change of settings", KEYSPACE),
        Kind::RaiseLevel(_) => ("raising the level", KEYSPACE),
        Kind::CheckDigest(_) => ("a check of digests", KEYSPACE),
        Kind::Coordinator(command) => coordinator_level(command),
        Kind::SetTime(_) => ("setting cluster time", HARDENING),
    }
}

fn coordinator_level(command: &quorate::CoordinatorCommand) -> (&'static str, u32) {
    if let Some(Area::Segment(command)) = &command.area {
        if let Some(SegmentKind::Drop(drop)) = &command.kind
            && drop.partition_dropped
        {
            return ("dropping the segments of a partition", HARDENING);
        }
        if let Some(SegmentKind::SaveCheckpoints(save)) = &command.kind
            && save.node != 0
        {
            return ("checkpoints with their data node", HARDENING);
        }
    }
    ("a command of the coordinator", COORDINATOR)
}

/// What is still known of a run that is refused: the names of its commands, so that whoever waits
/// for them gets an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RunHead {
    pub(crate) origin: u64,
    pub(crate) epoch: u64,
    pub(crate) first_seq: u64,
    pub(crate) n_commands: usize,
}

const ORIGIN: u32 = 1;
const EPOCH: u32 = 2;
const FIRST_SEQ: u32 = 3;
const COMMANDS: u32 = 5;

/// Walks the fields of a run without decoding its commands; `None` where that is not possible.
///
/// Looks at the wire format alone, so that binaries which know different fields agree.
pub(crate) fn head_of(mut bytes: &[u8]) -> Option<RunHead> {
    let mut head = RunHead::default();
    while !bytes.is_empty() {
        let (field, wire) = decode_key(&mut bytes).ok()?;
        match (field, wire) {
            (ORIGIN, WireType::Varint) => head.origin = decode_varint(&mut bytes).ok()?,
            (EPOCH, WireType::Varint) => head.epoch = decode_varint(&mut bytes).ok()?,
            (FIRST_SEQ, WireType::Varint) => head.first_seq = decode_varint(&mut bytes).ok()?,
            (field, wire) => {
                skip_field(wire, field, &mut bytes, DecodeContext::default()).ok()?;
                head.n_commands +=
                    usize::from((field, wire) == (COMMANDS, WireType::LengthDelimited));
            }
        }
    }
    (head.n_commands <= limits::RUN_COMMANDS_MAX).then_some(head)
}

#[cfg(test)]
mod tests;
