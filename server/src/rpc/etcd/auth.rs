//! Auth: answers as an etcd whose authentication is off, and refuses to switch it on.

use std::sync::Arc;

use proto::etcd;
use proto::etcd::auth_server;
use tonic::{Request, Response, Status};

use super::Etcd;
use super::error::EtcdError;

pub(super) struct Auth(pub(super) Arc<Etcd>);

#[tonic::async_trait]
impl auth_server::Auth for Auth {
    async fn auth_enable(
        &self,
        _: Request<etcd::AuthEnableRequest>,
    ) -> Result<Response<etcd::AuthEnableResponse>, Status> {
        Err(not_supported())
    }

    /// It is off already.
    async fn auth_disable(
        &self,
        _: Request<etcd::AuthDisableRequest>,
    ) -> Result<Response<etcd::AuthDisableResponse>, Status> {
        Ok(Response::new(etcd::AuthDisableResponse { header: self.header() }))
    }

    async fn auth_status(
        &self,
        _: Request<etcd::AuthStatusRequest>,
    ) -> Result<Response<etcd::AuthStatusResponse>, Status> {
        let header = self.header();
        Ok(Response::new(etcd::AuthStatusResponse { header, enabled: false, auth_revision: 1 }))
    }

    /// Clients with a password take this answer as "none is needed" and go on.
    async fn authenticate(
        &self,
        _: Request<etcd::AuthenticateRequest>,
    ) -> Result<Response<etcd::AuthenticateResponse>, Status> {
        Err(EtcdError::AuthNotEnabled.into())
    }

    async fn user_list(
        &self,
        _: Request<etcd::AuthUserListRequest>,
    ) -> Result<Response<etcd::AuthUserListResponse>, Status> {
        let users = Vec::new();
        Ok(Response::new(etcd::AuthUserListResponse { header: self.header(), users }))
    }

    async fn role_list(
        &self,
        _: Request<etcd::AuthRoleListRequest>,
    ) -> Result<Response<etcd::AuthRoleListResponse>, Status> {
        let roles = Vec::new();
        Ok(Response::new(etcd::AuthRoleListResponse { header: self.header(), roles }))
    }

    async fn user_add(
        &self,
        _: Request<etcd::AuthUserAddRequest>,
    ) -> Result<Response<etcd::AuthUserAddResponse>, Status> {
        Err(not_supported())
    }

    async fn role_add(
        &self,
        _: Request<etcd::AuthRoleAddRequest>,
    ) -> Result<Response<etcd::AuthRoleAddResponse>, Status> {
        Err(not_supported())
    }

    async fn user_get(
        &self,
        _: Request<etcd::AuthUserGetRequest>,
    ) -> Result<Response<etcd::AuthUserGetResponse>, Status> {
        Err(EtcdError::UserNotFound.into())
    }

    async fn user_delete(
        &self,
        _: Request<etcd::AuthUserDeleteRequest>,
    ) -> Result<Response<etcd::AuthUserDeleteResponse>, Status> {
        Err(EtcdError::UserNotFound.into())
    }

    async fn user_change_password(
        &self,
        _: Request<etcd::AuthUserChangePasswordRequest>,
    ) -> Result<Response<etcd::AuthUserChangePasswordResponse>, Status> {
        Err(EtcdError::UserNotFound.into())
    }

    async fn user_grant_role(
        &self,
        _: Request<etcd::AuthUserGrantRoleRequest>,
    ) -> Result<Response<etcd::AuthUserGrantRoleResponse>, Status> {
        Err(EtcdError::UserNotFound.into())
    }

    async fn user_revoke_role(
        &self,
        _: Request<etcd::AuthUserRevokeRoleRequest>,
    ) -> Result<Response<etcd::AuthUserRevokeRoleResponse>, Status> {
        Err(EtcdError::UserNotFound.into())
    }

    async fn role_get(
        &self,
        _: Request<etcd::AuthRoleGetRequest>,
    ) -> Result<Response<etcd::AuthRoleGetResponse>, Status> {
        Err(EtcdError::RoleNotFound.into())
    }

    async fn role_delete(
        &self,
        _: Request<etcd::AuthRoleDeleteRequest>,
    ) -> Result<Response<etcd::AuthRoleDeleteResponse>, Status> {
        Err(EtcdError::RoleNotFound.into())
    }

    async fn role_grant_permission(
        &self,
        _: Request<etcd::AuthRoleGrantPermissionRequest>,
    ) -> Result<Response<etcd::AuthRoleGrantPermissionResponse>, Status> {
        Err(EtcdError::RoleNotFound.into())
    }

    async fn role_revoke_permission(
        &self,
        _: Request<etcd::AuthRoleRevokePermissionRequest>,
    ) -> Result<Response<etcd::AuthRoleRevokePermissionResponse>, Status> {
        Err(EtcdError::RoleNotFound.into())
    }
}

impl Auth {
    #[allow(clippy::unnecessary_wraps, reason = "it fills the header field of responses")]
    fn header(&self) -> Option<etcd::ResponseHeader> {
        let revision = self.0.node.local_view().read(statemachine::State::revision);
        Some(self.0.headers.at(revision))
    }
}

fn not_supported() -> Status {
    Status::unimplemented(
        "etcdserver: users, roles and authentication are not supported yet: restrict access to \
         the client port by other means",
    )
}
