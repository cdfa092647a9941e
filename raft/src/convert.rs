//! Between openraft's terms and their messages, for disk and wire alike.

use proto::quorate;

use crate::types::{
    Endpoints, LeaderId, LogId, Membership, NodeMeta, SnapshotMeta, StoredMembership, Vote,
};

/// A message that is well-formed protobuf and still says nothing valid.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error("field {0} is missing")]
    Missing(&'static str),
    #[error("membership is not valid: {0}")]
    Membership(String),
}

pub fn log_id_to_proto(log_id: &LogId) -> quorate::LogId {
    quorate::LogId {
        term: log_id.leader_id.term,
        node: log_id.leader_id.node_id,
        index: log_id.index,
    }
}

pub fn log_id_from_proto(log_id: &quorate::LogId) -> LogId {
    LogId::new(LeaderId { term: log_id.term, node_id: log_id.node }, log_id.index)
}

pub fn vote_to_proto(vote: &Vote) -> quorate::Vote {
    quorate::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub fn vote_from_proto(vote: &quorate::Vote) -> Vote {
    Vote { leader_id: LeaderId { term: vote.term, node_id: vote.node }, committed: vote.committed }
}

pub fn member_to_proto(id: u64, meta: &NodeMeta) -> quorate::Member {
    quorate::Member {
        id,
        name: meta.name.clone(),
        peer: meta.endpoints.peer.clone(),
        client: meta.endpoints.client.clone(),
        http: meta.endpoints.http.clone(),
        coordinator: meta.endpoints.coordinator.clone(),
    }
}

pub fn member_from_proto(member: quorate::Member) -> (u64, NodeMeta) {
    let endpoints = Endpoints {
        peer: member.peer,
        client: member.client,
        http: member.http,
        coordinator: member.coordinator,
    };
    (member.id, NodeMeta { name: member.name, endpoints })
}

pub fn membership_to_proto(membership: &Membership) -> quorate::Membership {
    quorate::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|ids| quorate::VoterSet { ids: ids.iter().copied().collect() })
            .collect(),
        members: membership.nodes().map(|(id, meta)| member_to_proto(*id, meta)).collect(),
    }
}

/// # Errors
/// A voter set without members, or a voter that is not among the members.
pub fn membership_from_proto(message: quorate::Membership) -> Result<Membership, ConvertError> {
    if message.voters.is_empty() && message.members.is_empty() {
        return Ok(Membership::default());
    }
    let voters = message.voters.into_iter().map(|set| set.ids.into_iter().collect()).collect();
    let members: std::collections::BTreeMap<u64, NodeMeta> =
        message.members.into_iter().map(member_from_proto).collect();
    Membership::new(voters, members).map_err(|error| ConvertError::Membership(error.to_string()))
}

pub fn stored_membership_to_proto(stored: &StoredMembership) -> quorate::StoredMembership {
    quorate::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_proto),
        membership: Some(membership_to_proto(stored.membership())),
    }
}

/// # Errors
/// As [`membership_from_proto`].
pub fn stored_membership_from_proto(
    message: quorate::StoredMembership,
) -> Result<StoredMembership, ConvertError> {
    let membership = membership_from_proto(message.membership.unwrap_or_default())?;
    Ok(StoredMembership::new(message.log_id.as_ref().map(log_id_from_proto), membership))
}

/// # Errors
/// The manifest names no last applied entry or no valid membership.
pub fn snapshot_meta_from_manifest(
    manifest: &quorate::SnapshotManifest,
) -> Result<SnapshotMeta, ConvertError> {
    let membership =
        manifest.membership.clone().ok_or(ConvertError::Missing("manifest.membership"))?;
    Ok(SnapshotMeta {
        last_log_id: manifest.last_applied.as_ref().map(log_id_from_proto),
        last_membership: stored_membership_from_proto(membership)?,
    })
}
