//! Between openraft's requests and the messages of peers.

use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use proto::quorate;
use proto::quorate::{append_reply, log_entry, transfer_reply};

use crate::convert::{
    ConvertError, log_id_from_proto, log_id_to_proto, membership_from_proto, membership_to_proto,
    vote_from_proto, vote_to_proto,
};
use crate::room::{RoomLevel, RoomView};
use crate::types::{Entry, EntryPayload, LogId, Payload, TypeConfig, Vote};

/// A peer's message that cannot be understood: the call fails, nothing of it is used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("entry {index} was damaged on its way: crc {found:08x} instead of {expected:08x}")]
    Damaged { index: u64, expected: u32, found: u32 },
    #[error(transparent)]
    Convert(#[from] ConvertError),
}

pub(crate) fn vote_from_wire(vote: Option<&quorate::Vote>) -> Result<Vote, WireError> {
    vote.map(vote_from_proto).ok_or(WireError::Missing("vote"))
}

fn optional_log_id(log_id: Option<&quorate::LogId>) -> Option<LogId> {
    log_id.map(log_id_from_proto)
}

fn entry_to_wire(entry: &Entry) -> quorate::LogEntry {
    let mut batch_crc32c = 0;
    let payload = match &entry.payload {
        EntryPayload::Blank => log_entry::Payload::Blank(log_entry::Blank {}),
        EntryPayload::Normal(Payload(batch)) => {
            batch_crc32c = crc32c::crc32c(batch);
            log_entry::Payload::Batch(batch.clone())
        }
        EntryPayload::Membership(membership) => {
            log_entry::Payload::Membership(membership_to_proto(membership))
        }
    };
    quorate::LogEntry {
        log_id: Some(log_id_to_proto(&entry.log_id)),
        payload: Some(payload),
        batch_crc32c,
    }
}

fn entry_from_wire(entry: quorate::LogEntry) -> Result<Entry, WireError> {
    let log_id = optional_log_id(entry.log_id.as_ref()).ok_or(WireError::Missing("log_id"))?;
    let payload = match entry.payload.ok_or(WireError::Missing("payload"))? {
        log_entry::Payload::Blank(_) => EntryPayload::Blank,
        log_entry::Payload::Batch(batch) => {
            let found = crc32c::crc32c(&batch);
            let expected = entry.batch_crc32c;
            if found != expected {
                return Err(WireError::Damaged { index: log_id.index, expected, found });
            }
            EntryPayload::Normal(Payload(batch))
        }
        log_entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_proto(membership)?)
        }
    };
    Ok(Entry { log_id, payload })
}

pub(crate) fn append_to_wire(request: &AppendEntriesRequest<TypeConfig>) -> quorate::AppendRequest {
    quorate::AppendRequest {
        vote: Some(vote_to_proto(&request.vote)),
        prev: request.prev_log_id.as_ref().map(log_id_to_proto),
        entries: request.entries.iter().map(entry_to_wire).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_to_proto),
        ..quorate::AppendRequest::default()
    }
}

pub(crate) fn append_from_wire(
    request: quorate::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, WireError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(request.vote.as_ref())?,
        prev_log_id: optional_log_id(request.prev.as_ref()),
        entries: request.entries.into_iter().map(entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: optional_log_id(request.leader_commit.as_ref()),
    })
}

pub(crate) fn append_result_to_wire(
    result: &StreamAppendResult<TypeConfig>,
) -> quorate::AppendReply {
    let result = match result {
        Ok(matched) => append_reply::Result::Matched(append_reply::Matched {
            log_id: matched.as_ref().map(log_id_to_proto),
        }),
        Err(StreamAppendError::Conflict(log_id)) => {
            append_reply::Result::Conflict(log_id_to_proto(log_id))
        }
        Err(StreamAppendError::HigherVote(vote)) => {
            append_reply::Result::HigherVote(vote_to_proto(vote))
        }
    };
    quorate::AppendReply { result: Some(result), wall_ms: 0, room: None }
}

pub(crate) fn append_result_from_wire(
    reply: &quorate::AppendReply,
) -> Result<StreamAppendResult<TypeConfig>, WireError> {
    Ok(match reply.result.as_ref().ok_or(WireError::Missing("result"))? {
        append_reply::Result::Matched(matched) => Ok(optional_log_id(matched.log_id.as_ref())),
        append_reply::Result::Conflict(log_id) => {
            Err(StreamAppendError::Conflict(log_id_from_proto(log_id)))
        }
        append_reply::Result::HigherVote(vote) => {
            Err(StreamAppendError::HigherVote(vote_from_proto(vote)))
        }
    })
}

pub(crate) fn room_to_wire(room: &RoomView) -> quorate::Room {
    let level = match room.level {
        RoomLevel::Last => quorate::RoomLevel::Last,
        RoomLevel::Low => quorate::RoomLevel::Low,
        RoomLevel::Plenty => quorate::RoomLevel::Plenty,
    };
    quorate::Room {
        level: level.into(),
        free_bytes: room.free_bytes,
        low_bytes: room.low_bytes,
        ballast_bytes: room.ballast_bytes,
    }
}

/// `None` where the sender knows more levels than this node.
pub(crate) fn room_from_wire(room: &quorate::Room) -> Option<RoomView> {
    let level = match room.level() {
        quorate::RoomLevel::Last => RoomLevel::Last,
        quorate::RoomLevel::Low => RoomLevel::Low,
        quorate::RoomLevel::Plenty => RoomLevel::Plenty,
        quorate::RoomLevel::Unspecified => return None,
    };
    let quorate::Room { free_bytes, low_bytes, ballast_bytes, .. } = *room;
    Some(RoomView { level, free_bytes, low_bytes, ballast_bytes })
}

pub(crate) fn vote_request_to_wire(request: &VoteRequest<TypeConfig>) -> quorate::VoteRequest {
    quorate::VoteRequest {
        vote: Some(vote_to_proto(&request.vote)),
        last_log: request.last_log_id.as_ref().map(log_id_to_proto),
        leadership_transfer: request.leadership_transfer,
    }
}

pub(crate) fn vote_request_from_wire(
    request: &quorate::VoteRequest,
) -> Result<VoteRequest<TypeConfig>, WireError> {
    let vote = vote_from_wire(request.vote.as_ref())?;
    let mut converted = VoteRequest::new(vote, optional_log_id(request.last_log.as_ref()));
    converted.leadership_transfer = request.leadership_transfer;
    Ok(converted)
}

pub(crate) fn vote_response_to_wire(response: &VoteResponse<TypeConfig>) -> quorate::VoteReply {
    quorate::VoteReply {
        vote: Some(vote_to_proto(&response.vote)),
        granted: response.vote_granted,
        last_log: response.last_log_id.as_ref().map(log_id_to_proto),
        wall_ms: 0,
    }
}

pub(crate) fn vote_response_from_wire(
    reply: &quorate::VoteReply,
) -> Result<VoteResponse<TypeConfig>, WireError> {
    let vote = vote_from_wire(reply.vote.as_ref())?;
    Ok(VoteResponse::new(vote, optional_log_id(reply.last_log.as_ref()), reply.granted))
}

pub(crate) fn transfer_to_wire(
    request: &TransferLeaderRequest<TypeConfig>,
) -> quorate::TransferRequest {
    quorate::TransferRequest {
        from_leader: Some(vote_to_proto(request.from_leader())),
        to: *request.to_node_id(),
        last_log: request.last_log_id().map(log_id_to_proto),
    }
}

pub(crate) fn transfer_from_wire(
    request: &quorate::TransferRequest,
) -> Result<TransferLeaderRequest<TypeConfig>, WireError> {
    let from_leader = vote_from_wire(request.from_leader.as_ref())?;
    let last_log = optional_log_id(request.last_log.as_ref());
    Ok(TransferLeaderRequest::new(from_leader, request.to, last_log))
}

pub(crate) fn transfer_result_to_wire(
    result: &TransferLeaderResponse<TypeConfig>,
) -> quorate::TransferReply {
    let refused = match result {
        Ok(()) => None,
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            Some(transfer_reply::Refused::VoteChanged(transfer_reply::VoteChanged {
                expected: Some(vote_to_proto(expected)),
                actual: Some(vote_to_proto(actual)),
            }))
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            Some(transfer_reply::Refused::LogNotFlushed(transfer_reply::LogNotFlushed {
                expected: expected.as_ref().map(log_id_to_proto),
                actual: actual.as_ref().map(log_id_to_proto),
            }))
        }
    };
    quorate::TransferReply { refused }
}

pub(crate) fn transfer_result_from_wire(
    reply: &quorate::TransferReply,
) -> Result<TransferLeaderResponse<TypeConfig>, WireError> {
    Ok(match &reply.refused {
        None => Ok(()),
        Some(transfer_reply::Refused::VoteChanged(changed)) => {
            Err(TransferLeaderError::VoteChanged {
                expected: vote_from_wire(changed.expected.as_ref())?,
                actual: vote_from_wire(changed.actual.as_ref())?,
            })
        }
        Some(transfer_reply::Refused::LogNotFlushed(log)) => {
            Err(TransferLeaderError::LogNotFlushed {
                expected: optional_log_id(log.expected.as_ref()),
                actual: optional_log_id(log.actual.as_ref()),
            })
        }
    })
}
