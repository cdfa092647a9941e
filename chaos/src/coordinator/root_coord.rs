//! A RootCoord that only gives ids and timestamps: what a coordinator asks of it while rows come.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use proto::milvus::rootcoord::root_coord_server::{RootCoord, RootCoordServer};
use proto::milvus::{common, internal, milvus, proxy, rootcoord};
use tokio::task::JoinSet;
use tonic::{Request, Response, Status};

/// Far from what a stock RootCoord of the same keyspace would have given.
const FIRST_ID: i64 = 500_000_000_000_000_000;

/// Serves on a free port until the returned task is dropped.
///
/// # Errors
/// No port is free.
pub(super) async fn start() -> Result<(String, JoinSet<()>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let service = RootCoordServer::new(Ids { next: Arc::new(AtomicI64::new(FIRST_ID)) });
    let server = tonic::transport::Server::builder()
        .tcp_nodelay(true)
        .add_service(service)
        .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
    let mut task = JoinSet::new();
    task.spawn(async move {
        if let Err(error) = server.await.context("serving as RootCoord") {
            eprintln!("{error:#}");
        }
    });
    Ok((address, task))
}

struct Ids {
    next: Arc<AtomicI64>,
}

fn now_ts(logical: u64) -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX >> 18);
    (ms << 18) | (logical & 0x3_ffff)
}

macro_rules! root_coord {
    ($($name:ident($request:ty) -> $response:ty;)*) => {
        #[tonic::async_trait]
        impl RootCoord for Ids {
            async fn alloc_id(
                &self,
                request: Request<rootcoord::AllocIdRequest>,
            ) -> Result<Response<rootcoord::AllocIdResponse>, Status> {
                let count = request.into_inner().count;
                let id = self.next.fetch_add(i64::from(count), Ordering::Relaxed);
                let status = Some(common::Status::default());
                Ok(Response::new(rootcoord::AllocIdResponse { status, id, count }))
            }

            async fn alloc_timestamp(
                &self,
                request: Request<rootcoord::AllocTimestampRequest>,
            ) -> Result<Response<rootcoord::AllocTimestampResponse>, Status> {
                let count = request.into_inner().count;
                let timestamp = now_ts(0);
                let status = Some(common::Status::default());
                Ok(Response::new(rootcoord::AllocTimestampResponse { status, timestamp, count }))
            }

            async fn get_component_states(
                &self,
                _request: Request<milvus::GetComponentStatesRequest>,
            ) -> Result<Response<milvus::ComponentStates>, Status> {
                let state = Some(milvus::ComponentInfo {
                    role: "rootcoord".to_owned(),
                    state_code: common::StateCode::Healthy.into(),
                    ..Default::default()
                });
                let status = Some(common::Status::default());
                Ok(Response::new(milvus::ComponentStates { state, status, ..Default::default() }))
            }

            $(async fn $name(
                &self,
                _request: Request<$request>,
            ) -> Result<Response<$response>, Status> {
                Err(Status::unimplemented("this RootCoord gives ids and timestamps"))
            })*
        }
    };
}

root_coord! {
    get_time_tick_channel(internal::GetTimeTickChannelRequest) -> milvus::StringResponse;
    get_statistics_channel(internal::GetStatisticsChannelRequest) -> milvus::StringResponse;
    create_collection(milvus::CreateCollectionRequest) -> common::Status;
    drop_collection(milvus::DropCollectionRequest) -> common::Status;
    has_collection(milvus::HasCollectionRequest) -> milvus::BoolResponse;
    describe_collection(milvus::DescribeCollectionRequest) -> milvus::DescribeCollectionResponse;
    describe_collection_internal(milvus::DescribeCollectionRequest) -> milvus::DescribeCollectionResponse;
    create_alias(milvus::CreateAliasRequest) -> common::Status;
    drop_alias(milvus::DropAliasRequest) -> common::Status;
    alter_alias(milvus::AlterAliasRequest) -> common::Status;
    show_collections(milvus::ShowCollectionsRequest) -> milvus::ShowCollectionsResponse;
    alter_collection(milvus::AlterCollectionRequest) -> common::Status;
    create_partition(milvus::CreatePartitionRequest) -> common::Status;
    drop_partition(milvus::DropPartitionRequest) -> common::Status;
    has_partition(milvus::HasPartitionRequest) -> milvus::BoolResponse;
    show_partitions(milvus::ShowPartitionsRequest) -> milvus::ShowPartitionsResponse;
    show_partitions_internal(milvus::ShowPartitionsRequest) -> milvus::ShowPartitionsResponse;
    show_segments(milvus::ShowSegmentsRequest) -> milvus::ShowSegmentsResponse;
    update_channel_time_tick(internal::ChannelTimeTickMsg) -> common::Status;
    invalidate_collection_meta_cache(proxy::InvalidateCollMetaCacheRequest) -> common::Status;
    show_configurations(internal::ShowConfigurationsRequest) -> internal::ShowConfigurationsResponse;
    get_metrics(milvus::GetMetricsRequest) -> milvus::GetMetricsResponse;
    import(milvus::ImportRequest) -> milvus::ImportResponse;
    get_import_state(milvus::GetImportStateRequest) -> milvus::GetImportStateResponse;
    list_import_tasks(milvus::ListImportTasksRequest) -> milvus::ListImportTasksResponse;
    report_import(rootcoord::ImportResult) -> common::Status;
    create_credential(internal::CredentialInfo) -> common::Status;
    update_credential(internal::CredentialInfo) -> common::Status;
    delete_credential(milvus::DeleteCredentialRequest) -> common::Status;
    list_cred_users(milvus::ListCredUsersRequest) -> milvus::ListCredUsersResponse;
    get_credential(rootcoord::GetCredentialRequest) -> rootcoord::GetCredentialResponse;
    create_role(milvus::CreateRoleRequest) -> common::Status;
    drop_role(milvus::DropRoleRequest) -> common::Status;
    operate_user_role(milvus::OperateUserRoleRequest) -> common::Status;
    select_role(milvus::SelectRoleRequest) -> milvus::SelectRoleResponse;
    select_user(milvus::SelectUserRequest) -> milvus::SelectUserResponse;
    operate_privilege(milvus::OperatePrivilegeRequest) -> common::Status;
    select_grant(milvus::SelectGrantRequest) -> milvus::SelectGrantResponse;
    list_policy(internal::ListPolicyRequest) -> internal::ListPolicyResponse;
    check_health(milvus::CheckHealthRequest) -> milvus::CheckHealthResponse;
    rename_collection(milvus::RenameCollectionRequest) -> common::Status;
    create_database(milvus::CreateDatabaseRequest) -> common::Status;
    drop_database(milvus::DropDatabaseRequest) -> common::Status;
    list_databases(milvus::ListDatabasesRequest) -> milvus::ListDatabasesResponse;
}
