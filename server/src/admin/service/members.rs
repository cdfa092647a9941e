//! Membership changes and transfers, by name.

use std::time::Duration;

use proto::admin;
use raft::{Node, NodeMeta};
use tokio::time::Instant;
use tonic::Status;

use crate::config::checked::host_port;

use super::{membership_status, status};

/// A new node may take at most this long to receive the state, whatever the client says.
const CATCH_UP_MAX: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn add(
    node: &Node,
    request: &admin::MemberAddRequest,
    deadline: Instant,
) -> Result<admin::MembersReply, Status> {
    check_address("peer", &request.peer)?;
    let id = node
        .add_learner(&request.peer, deadline)
        .await
        .map_err(|error| membership_status(&error))?;
    Ok(reply(node, id))
}

pub(super) async fn promote(
    node: &Node,
    request: &admin::MemberPromoteRequest,
    deadline: Instant,
) -> Result<admin::MembersReply, Status> {
    let id = resolve(node, &request.member)?;
    node.promote(id, deadline).await.map_err(|error| membership_status(&error))?;
    Ok(reply(node, id))
}

pub(super) async fn remove(
    node: &Node,
    request: &admin::MemberRemoveRequest,
    deadline: Instant,
) -> Result<admin::MembersReply, Status> {
    let id = resolve(node, &request.member)?;
    node.remove(id, deadline).await.map_err(|error| membership_status(&error))?;
    Ok(reply(node, id))
}

pub(super) async fn replace(
    node: &Node,
    request: &admin::MemberReplaceRequest,
) -> Result<admin::MembersReply, Status> {
    check_address("with", &request.with_peer)?;
    let old = match interrupted(node, &request.member) {
        Some(old) => old,
        None => resolve(node, &request.member)?,
    };
    let deadline =
        Instant::now() + Duration::from_millis(request.catch_up_timeout_ms).min(CATCH_UP_MAX);
    let id = node
        .replace(old, &request.with_peer, deadline)
        .await
        .map_err(|error| membership_status(&error))?;
    Ok(reply(node, id))
}

pub(super) async fn update(
    node: &Node,
    request: admin::MemberUpdateRequest,
    deadline: Instant,
) -> Result<admin::MembersReply, Status> {
    let id = resolve(node, &request.member)?;
    let addresses = request.addresses.unwrap_or_default();
    let mut meta = current(node, id)?;
    let changes = [
        ("peer", addresses.peer, &mut meta.endpoints.peer),
        ("client", addresses.client, &mut meta.endpoints.client),
        ("http", addresses.http, &mut meta.endpoints.http),
        ("coordinator", addresses.coordinator, &mut meta.endpoints.coordinator),
    ];
    for (name, given, kept) in changes {
        if !given.is_empty() {
            check_address(name, &given)?;
            *kept = given;
        }
    }
    node.update_endpoints(id, &meta, deadline).await.map_err(|error| membership_status(&error))?;
    Ok(reply(node, id))
}

pub(super) async fn transfer(
    node: &Node,
    request: &admin::TransferRequest,
    deadline: Instant,
) -> Result<admin::TransferReply, Status> {
    let to = match request.to.is_empty() {
        true => None,
        false => Some(resolve(node, &request.to)?),
    };
    let from_id = node.status().borrow().leader.as_ref().map_or(0, |leader| leader.id);
    let began = Instant::now();
    let leader_id =
        node.transfer_leader(to, deadline).await.map_err(|error| membership_status(&error))?;
    let took = began.elapsed();
    let status = node.status().borrow().clone();
    Ok(admin::TransferReply {
        from_id,
        leader_id,
        leader_name: status
            .member(leader_id)
            .map(|member| member.meta.name.clone())
            .unwrap_or_default(),
        term: status.term,
        took_us: u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
    })
}

fn reply(node: &Node, id: u64) -> admin::MembersReply {
    admin::MembersReply { id, members: status::members(&node.status().borrow()) }
}

/// One of two that share a name, where a replacement was interrupted and the same command is to go
/// on with it: the voter, where the new node has joined as a learner under the old one's name; any
/// of them while the voters are being swapped. (Found by `quorate-chaos snapshot`, which kills the
/// newcomer at random points.)
fn interrupted(node: &Node, given: &str) -> Option<u64> {
    let status = node.status();
    let status = status.borrow();
    let named: Vec<_> = status.members.iter().filter(|it| it.meta.name == given).collect();
    let mut voters = named.iter().filter(|member| member.voter);
    match (named.len(), voters.next(), voters.next()) {
        (2.., Some(old), None) => Some(old.id),
        (2.., Some(one), Some(_)) if status.joint => Some(one.id),
        _ => None,
    }
}

/// The id of a member that is given by name, or by id in hexadecimal.
fn resolve(node: &Node, given: &str) -> Result<u64, Status> {
    let status = node.status();
    let status = status.borrow();
    let named: Vec<u64> = status
        .members
        .iter()
        .filter(|member| member.meta.name == given)
        .map(|member| member.id)
        .collect();
    let by_id = u64::from_str_radix(given.trim_start_matches("0x"), 16)
        .ok()
        .filter(|id| status.member(*id).is_some());
    match (named.as_slice(), by_id) {
        ([id], _) => Ok(*id),
        ([], Some(id)) => Ok(id),
        ([], None) => {
            let names: Vec<&str> =
                status.members.iter().map(|member| member.meta.name.as_str()).collect();
            Err(Status::not_found(format!(
                "no member is called `{given}` or has that id; there are {}",
                names.join(", ")
            )))
        }
        (_, _) => Err(Status::invalid_argument(format!(
            "several members are called `{given}`; give the id, as `quorate member list` shows it"
        ))),
    }
}

fn current(node: &Node, id: u64) -> Result<NodeMeta, Status> {
    let status = node.status();
    let status = status.borrow();
    match status.member(id) {
        Some(member) => Ok(member.meta.clone()),
        None => Err(Status::not_found(format!("no member has the id {id:016x}"))),
    }
}

fn check_address(name: &str, address: &str) -> Result<(), Status> {
    match host_port(address) {
        Ok(_) => Ok(()),
        Err(reason) => Err(Status::invalid_argument(format!("{name} `{address}`: {reason}"))),
    }
}
