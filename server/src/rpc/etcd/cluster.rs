//! Cluster: members, and changes of the membership.

use std::sync::Arc;

use proto::etcd;
use proto::etcd::cluster_server;
use raft::{Consistency, Member, MembershipError, NodeMeta};
use tonic::{Request, Response, Status};

use super::Etcd;
use super::error::{self, EtcdError};
use crate::edge::brief::{TEXT_BYTES_MAX, cut};

pub(super) struct Cluster(pub(super) Arc<Etcd>);

#[tonic::async_trait]
impl cluster_server::Cluster for Cluster {
    async fn member_list(
        &self,
        request: Request<etcd::MemberListRequest>,
    ) -> Result<Response<etcd::MemberListResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        if request.get_ref().linearizable {
            self.0.view(Consistency::Linearizable, deadline).await?;
        }
        let header = Some(self.0.headers.at(0));
        Ok(Response::new(etcd::MemberListResponse { header, members: self.0.members() }))
    }

    /// The node that is added has to run already, with an empty directory: it waits at the given
    /// address to be taken in.
    async fn member_add(
        &self,
        request: Request<etcd::MemberAddRequest>,
    ) -> Result<Response<etcd::MemberAddResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let request = request.into_inner();
        let peer = peer_address(&request.peer_ur_ls)?;
        if self.0.members().iter().any(|member| member.peer_ur_ls.contains(&url(&peer))) {
            return Err(EtcdError::PeerUrlExists.with_detail(&format!("{peer} is a member's")));
        }
        let id = self
            .0
            .node
            .add_learner(&peer, deadline.at)
            .await
            .map_err(|error| not_added(&error, &peer))?;
        if !request.is_learner {
            self.0
                .node
                .promote(id, deadline.at)
                .await
                .map_err(|error| error::membership(&error))?;
        }
        let members = self.0.members();
        let member = members.iter().find(|member| member.id == id).cloned();
        let header = Some(self.0.headers.at(0));
        Ok(Response::new(etcd::MemberAddResponse { header, member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<etcd::MemberRemoveRequest>,
    ) -> Result<Response<etcd::MemberRemoveResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let id = request.into_inner().id;
        self.0.known(id)?;
        self.0.node.remove(id, deadline.at).await.map_err(|error| error::membership(&error))?;
        let header = Some(self.0.headers.at(0));
        Ok(Response::new(etcd::MemberRemoveResponse { header, members: self.0.members() }))
    }

    async fn member_update(
        &self,
        request: Request<etcd::MemberUpdateRequest>,
    ) -> Result<Response<etcd::MemberUpdateResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let request = request.into_inner();
        let mut meta = self.0.known(request.id)?;
        meta.endpoints.peer = peer_address(&request.peer_ur_ls)?;
        self.0
            .node
            .update_endpoints(request.id, &meta, deadline.at)
            .await
            .map_err(|error| error::membership(&error))?;
        let header = Some(self.0.headers.at(0));
        Ok(Response::new(etcd::MemberUpdateResponse { header, members: self.0.members() }))
    }

    async fn member_promote(
        &self,
        request: Request<etcd::MemberPromoteRequest>,
    ) -> Result<Response<etcd::MemberPromoteResponse>, Status> {
        let deadline = self.0.admit(request.metadata())?;
        let id = request.into_inner().id;
        self.0.known(id)?;
        let is_voter = self.0.headers.status().member(id).is_some_and(|member| member.voter);
        if is_voter {
            return Err(EtcdError::NotLearner.into());
        }
        self.0.node.promote(id, deadline.at).await.map_err(|error| error::membership(&error))?;
        let header = Some(self.0.headers.at(0));
        Ok(Response::new(etcd::MemberPromoteResponse { header, members: self.0.members() }))
    }
}

/// etcd adds a member that does not run yet. Here the node is asked who it is before it is added.
fn not_added(error: &MembershipError, peer: &str) -> Status {
    match error {
        MembershipError::Unreachable { address, reason } if address == peer => {
            Status::failed_precondition(cut(
                &format!(
                    "etcdserver: no node answers at {address} ({reason}): start it first, with an \
                 empty data directory; it waits there to be added"
                ),
                TEXT_BYTES_MAX,
            ))
        }
        MembershipError::Unreachable { .. }
        | MembershipError::NoLeader
        | MembershipError::UnknownNode { .. }
        | MembershipError::NoCandidate
        | MembershipError::Refused(_)
        | MembershipError::Deadline(_)
        | MembershipError::ShuttingDown => error::membership(error),
    }
}

impl Etcd {
    fn members(&self) -> Vec<etcd::Member> {
        self.headers.status().members.iter().map(member).collect()
    }

    fn known(&self, id: u64) -> Result<NodeMeta, Status> {
        match self.headers.status().member(id) {
            Some(member) => Ok(member.meta.clone()),
            None => Err(EtcdError::MemberNotFound.with_detail(&format!("no member has id {id:x}"))),
        }
    }
}

fn member(member: &Member) -> etcd::Member {
    let endpoints = &member.meta.endpoints;
    // Clients dial the first client URL without looking whether there is one.
    let client = if endpoints.client.is_empty() { &endpoints.peer } else { &endpoints.client };
    etcd::Member {
        id: member.id,
        name: member.meta.name.clone(),
        peer_ur_ls: vec![url(&endpoints.peer)],
        client_ur_ls: vec![url(client)],
        is_learner: !member.voter,
    }
}

fn url(address: &str) -> String {
    format!("http://{address}")
}

/// `host:port` of the one peer URL that a member has.
fn peer_address(urls: &[String]) -> Result<String, Status> {
    let bad = |what: &str| {
        EtcdError::BadMemberUrls.with_detail(&format!("{what}: give one http://HOST:PORT"))
    };
    let [url] = urls else { return Err(bad("a member has exactly one peer URL")) };
    let address = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let has_port = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if has_port && !address.contains('/') { Ok(address.to_owned()) } else { Err(bad(url)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_url_is_one_host_and_port() {
        let address = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            peer_address(&urls).map_err(|status| status.message().to_owned())
        };
        assert_eq!(address(&["http://a:1/"]).as_deref(), Ok("a:1"));
        assert_eq!(address(&["a:1"]).as_deref(), Ok("a:1"));
        let bad = Err("etcdserver: given member URLs are invalid".to_owned());
        for urls in [&["https://a:1"][..], &["http://a"], &["http://:1"], &[], &["a:1", "b:1"]] {
            assert_eq!(address(urls), bad, "{urls:?}");
        }
    }
}
