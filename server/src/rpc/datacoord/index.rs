//! Definitions of indexes and what is known of their builds.

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::milvus::common::IndexState;
use proto::milvus::{common, index};
use proto::quorate::index_command::Kind;
use proto::quorate::{self, BuildRef};
use raft::View;
use statemachine::coordinator::index::view::IndexDefinition;
use statemachine::session::Role;
use statemachine::view::{BuildId, CollectionId, FieldId, IndexId, SegmentId, Views};

use crate::coordinator::indexing::{self, Progress, Since};
use crate::coordinator::settings::CoordinatorSettings;
use crate::coordinator::{Code, Failure, Lead, records};

use super::info::off_thread;

pub(super) async fn create_index(
    lead: &Arc<Lead>,
    request: index::CreateIndexRequest,
) -> Result<common::Status, Failure> {
    let created = define_index(lead, request).await;
    lead.coordinator.counts.index_asked(created.is_ok());
    created
}

async fn define_index(
    lead: &Arc<Lead>,
    request: index::CreateIndexRequest,
) -> Result<common::Status, Failure> {
    let field_name = if request.index_name.is_empty() {
        field_name(lead, request.collection_id, request.field_id).await?
    } else {
        String::new()
    };
    check_disk(lead, &request.index_params).await?;
    let info = index::IndexInfo {
        collection_id: request.collection_id,
        field_id: request.field_id,
        index_name: request.index_name,
        index_id: lead.ids.next().await?,
        type_params: request.type_params,
        index_params: request.index_params,
        is_auto_index: request.is_auto_index,
        user_index_params: request.user_index_params,
        ..Default::default()
    };
    let definition = index::FieldIndex {
        index_info: Some(info),
        deleted: false,
        create_time: request.timestamp,
    };
    let create = quorate::CreateIndex { definition: Some(definition), field_name };
    let done = lead.propose_index(Kind::Create(create)).await?;
    let (index, name) = (done.changed.first().copied(), done.changed_names.first());
    tracing::info!(collection = request.collection_id, index, name, "index defined");
    Ok(common::Status::default())
}

/// For an index without a name. RootCoord is asked only where its records do not tell.
async fn field_name(lead: &Lead, collection: i64, field: i64) -> Result<String, Failure> {
    let view = lead.view().await?;
    let (of, field_id) = (CollectionId(collection), FieldId(field));
    let known = view.read(|state| indexing::field_name(state.views(), of, field_id));
    if let Some(name) = known {
        return Ok(name);
    }
    let described = lead.clients().rootcoord()?.describe_collection(collection).await?;
    let fields = described.schema.map(|schema| schema.fields).unwrap_or_default();
    let found = fields.into_iter().find(|one| one.field_id == field);
    found.map(|field| field.name).ok_or_else(|| {
        Failure::refused(Code::Unexpected, format!("collection {collection} has no field {field}"))
    })
}

/// An index on disk needs an index node that has one.
async fn check_disk(lead: &Lead, params: &[common::KeyValuePair]) -> Result<(), Failure> {
    let is_disk = |pair: &common::KeyValuePair| pair.key == "index_type" && pair.value == "DISKANN";
    if !params.iter().any(is_disk) {
        return Ok(());
    }
    let has_disk = match &lead.settings().bound_index_node {
        Some((address, node)) => {
            let node = statemachine::view::ServerId(*node);
            let stats = lead.clients().bound_index_node(node, address).job_stats().await;
            stats.is_ok_and(|stats| stats.enable_disk)
        }
        None => lead.local().read(|state| {
            let mut nodes = state.views().sessions().nodes(Role::IndexNode);
            nodes.any(|(_, session)| session.enable_disk)
        }),
    };
    if has_disk {
        return Ok(());
    }
    let reason = "index type not supported[indexType=DISKANN]: all IndexNodes do not support disk \
                  indexes, please verify";
    Err(Failure::refused(Code::IndexTypeUnsupported, reason))
}

pub(super) async fn drop_index(
    lead: &Arc<Lead>,
    request: index::DropIndexRequest,
) -> Result<common::Status, Failure> {
    let view = lead.view().await?;
    let indexes: Vec<i64> = view.read(|state| {
        let found = named(state.views(), request.collection_id, &request.index_name);
        found.map(|(id, _)| id.0).collect()
    });
    if indexes.len() > 1 && !request.drop_all {
        return Err(ambiguous(&request.index_name));
    }
    // Partitions are named by the drop of one: its segments go, the definitions stay.
    if indexes.is_empty() || !request.partition_i_ds.is_empty() {
        return Ok(common::Status::default());
    }
    let drop = quorate::DropIndexes { collection: request.collection_id, indexes };
    let done = lead.propose_index(Kind::Drop(drop)).await?;
    tracing::info!(collection = request.collection_id, indexes = ?done.changed, "indexes dropped");
    Ok(common::Status::default())
}

/// Live indexes of a collection with a name; all of them for the empty name.
fn named<'v>(
    views: &'v Views,
    collection: i64,
    name: &str,
) -> impl Iterator<Item = (IndexId, &'v IndexDefinition)> {
    let live = views.indexes().live_of(CollectionId(collection));
    live.filter(move |(_, definition)| name.is_empty() || *definition.name == *name)
}

fn not_found(name: &str) -> Failure {
    Failure::refused(Code::IndexNotFound, format!("index not found[indexName={name}]"))
}

fn ambiguous(name: &str) -> Failure {
    Failure::refused(Code::IndexDuplicate, format!("index duplicates[indexName={name}]"))
}

/// # Errors
/// Refused where there is none.
fn found<T>(infos: Vec<T>, name: &str) -> Result<Vec<T>, Failure> {
    if infos.is_empty() { Err(not_found(name)) } else { Ok(infos) }
}

/// # Errors
/// Refused where there is none, or more than one.
fn only<T>(infos: Vec<T>, name: &str) -> Result<T, Failure> {
    let mut infos = infos.into_iter();
    let first = infos.next().ok_or_else(|| not_found(name))?;
    if infos.next().is_some() { Err(ambiguous(name)) } else { Ok(first) }
}

pub(super) async fn describe_index(
    lead: &Arc<Lead>,
    request: index::DescribeIndexRequest,
) -> Result<index::DescribeIndexResponse, Failure> {
    let name = &request.index_name;
    let asked_ts = request.timestamp;
    let since = move |definition: &IndexDefinition| Since::Request {
        ts: if asked_ts == 0 { definition.create_ts } else { asked_ts },
    };
    let infos = describe(lead, request.collection_id, name, since).await?;
    let index_infos = found(infos, name)?;
    Ok(index::DescribeIndexResponse { index_infos, ..Default::default() })
}

pub(super) async fn get_index_statistics(
    lead: &Arc<Lead>,
    request: index::GetIndexStatisticsRequest,
) -> Result<index::GetIndexStatisticsResponse, Failure> {
    let name = &request.index_name;
    let infos = describe(lead, request.collection_id, name, |_| Since::Now).await?;
    let index_infos = found(infos, name)?;
    Ok(index::GetIndexStatisticsResponse { index_infos, ..Default::default() })
}

pub(super) async fn get_index_state(
    lead: &Arc<Lead>,
    request: index::GetIndexStateRequest,
) -> Result<index::GetIndexStateResponse, Failure> {
    let name = &request.index_name;
    let infos = describe(lead, request.collection_id, name, since_definition).await?;
    let info = only(infos, name)?;
    Ok(index::GetIndexStateResponse {
        state: info.state,
        fail_reason: info.index_state_fail_reason,
        ..Default::default()
    })
}

pub(super) async fn get_index_build_progress(
    lead: &Arc<Lead>,
    request: index::GetIndexBuildProgressRequest,
) -> Result<index::GetIndexBuildProgressResponse, Failure> {
    let name = &request.index_name;
    let infos = describe(lead, request.collection_id, name, since_definition).await?;
    let info = only(infos, name)?;
    Ok(index::GetIndexBuildProgressResponse {
        indexed_rows: info.indexed_rows,
        total_rows: info.total_rows,
        pending_index_rows: info.pending_index_rows,
        ..Default::default()
    })
}

fn since_definition(definition: &IndexDefinition) -> Since {
    Since::Request { ts: definition.create_ts }
}

async fn describe(
    lead: &Arc<Lead>,
    collection: i64,
    name: &str,
    since: impl Fn(&IndexDefinition) -> Since + Send + 'static,
) -> Result<Vec<index::IndexInfo>, Failure> {
    let view = lead.view().await?;
    let name = name.to_owned();
    let read = move |views: &Views| {
        let described = named(views, collection, &name).map(|(id, definition)| {
            let of = CollectionId(collection);
            let progress = indexing::progress(views, of, id, since(definition));
            described(collection, id, definition, progress)
        });
        described.collect()
    };
    // How many segments are counted is not known before.
    off_thread(lead, usize::MAX, move |_| Ok(view.read(|state| read(state.views())))).await
}

fn described(
    collection: i64,
    id: IndexId,
    definition: &IndexDefinition,
    progress: Progress,
) -> index::IndexInfo {
    let Progress { total_rows, indexed_rows, pending_rows, state, failure } = progress;
    index::IndexInfo {
        collection_id: collection,
        field_id: definition.field.0,
        index_name: definition.name.to_string(),
        index_id: id.0,
        type_params: definition.type_params.clone(),
        index_params: definition.index_params.clone(),
        indexed_rows,
        total_rows,
        state: state.into(),
        index_state_fail_reason: failure,
        is_auto_index: definition.is_auto_index,
        user_index_params: definition.user_index_params.clone(),
        pending_index_rows: pending_rows,
    }
}

pub(super) async fn get_segment_index_state(
    lead: &Arc<Lead>,
    request: index::GetSegmentIndexStateRequest,
) -> Result<index::GetSegmentIndexStateResponse, Failure> {
    let view = lead.view().await?;
    view.read(|state| {
        let views = state.views();
        if named(views, request.collection_id, &request.index_name).next().is_none() {
            return Err(not_found(&request.index_name));
        }
        let of = |segment: &i64| segment_state(views, request.collection_id, *segment);
        let states = request.segment_i_ds.iter().map(of).collect();
        Ok(index::GetSegmentIndexStateResponse { states, ..Default::default() })
    })
}

/// Of all indexes of a segment: the first that is not finished tells.
fn segment_state(views: &Views, collection: i64, segment: i64) -> index::SegmentIndexState {
    let id = SegmentId(segment);
    let mut answer = index::SegmentIndexState { segment_id: segment, ..Default::default() };
    if views.segments().get(id).is_none() {
        answer.fail_reason = format!("segment is not exist with ID: {segment}");
        return answer;
    }
    for (index, _) in views.indexes().live_of(CollectionId(collection)) {
        let Some((_, build)) = views.indexes().of_index(id, index) else {
            answer.set_state(IndexState::Unissued);
            break;
        };
        answer.set_state(build.state);
        if build.state != IndexState::Finished {
            answer.fail_reason = build.failure.as_deref().unwrap_or_default().to_owned();
            break;
        }
    }
    answer
}

pub(super) async fn get_index_infos(
    lead: &Arc<Lead>,
    request: index::GetIndexInfoRequest,
) -> Result<index::GetIndexInfoResponse, Failure> {
    let view = lead.view().await?;
    let collection = request.collection_id;
    let mut segment_info = BTreeMap::new();
    for segment in request.segment_i_ds {
        let index_infos = index_files(&view, lead.settings(), segment)?;
        let enable_index = index_infos.is_some();
        let index_infos = index_infos.unwrap_or_default();
        let info = index::SegmentInfo {
            collection_id: collection,
            segment_id: segment,
            enable_index,
            index_infos,
        };
        segment_info.insert(segment, info);
    }
    Ok(index::GetIndexInfoResponse { segment_info, ..Default::default() })
}

/// A finished build and what its definition says of it, until its record is read.
struct Finished {
    build: BuildRef,
    info: index::IndexFilePathInfo,
}

/// The finished indexes of a segment; `None` where it has none in any state.
fn index_files(
    view: &View,
    settings: &CoordinatorSettings,
    segment: i64,
) -> Result<Option<Vec<index::IndexFilePathInfo>>, Failure> {
    let Some(finished) = view.read(|state| finished_of(state.views(), segment)) else {
        return Ok(None);
    };
    let mut infos = Vec::with_capacity(finished.len());
    for finished in finished {
        let BuildRef { collection, partition, segment, build } = finished.build;
        let of = quorate::SegmentRef { collection, partition, segment };
        // Gone meanwhile: as if it had not been there.
        if let Some(record) = records::segment_index(view, of, build)? {
            infos.push(with_files(finished, record, &settings.storage_prefix()));
        }
    }
    Ok(Some(infos))
}

fn finished_of(views: &Views, segment: i64) -> Option<Vec<Finished>> {
    let mut any = false;
    let mut finished = Vec::new();
    for (id, build) in views.indexes().of_segment(SegmentId(segment)) {
        let definition = views.indexes().definition(build.collection, build.index);
        let Some(definition) = definition.filter(|found| !found.is_deleted) else { continue };
        if build.is_deleted {
            continue;
        }
        any = true;
        if build.state == IndexState::Finished {
            finished.push(Finished {
                build: build.reference(id),
                info: file_info(id, build.index, definition),
            });
        }
    }
    any.then_some(finished)
}

fn file_info(
    id: BuildId,
    index: IndexId,
    definition: &IndexDefinition,
) -> index::IndexFilePathInfo {
    let params = definition.index_params.iter().chain(&definition.type_params);
    index::IndexFilePathInfo {
        field_id: definition.field.0,
        index_id: index.0,
        build_id: id.0,
        index_name: definition.name.to_string(),
        index_params: params.cloned().collect(),
        ..Default::default()
    }
}

/// What only the record knows, with whole paths.
fn with_files(
    finished: Finished,
    record: index::SegmentIndex,
    prefix: &str,
) -> index::IndexFilePathInfo {
    let folder = format!(
        "{prefix}index_files/{}/{}/{}/{}",
        record.build_id, record.index_version, record.partition_id, record.segment_id
    );
    let paths = record.index_file_keys.iter().map(|key| format!("{folder}/{key}"));
    index::IndexFilePathInfo {
        segment_id: record.segment_id,
        index_file_paths: paths.collect(),
        serialized_size: record.serialize_size,
        index_version: record.index_version,
        num_rows: record.num_rows,
        current_index_version: record.current_index_version,
        ..finished.info
    }
}
