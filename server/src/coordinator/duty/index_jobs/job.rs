//! The job that an index node gets, as Milvus words it.

use proto::milvus::common::KeyValuePair;
use proto::milvus::{data, index};
use proto::quorate::SegmentRef;
use statemachine::coordinator::index::view::IndexDefinition;
use statemachine::coordinator::keys::LogKind;
use statemachine::view::Views;

use super::plan::Attempt;
use crate::coordinator::settings::{CoordinatorSettings, Storage};
use crate::coordinator::{Code, Failure, Lead, indexing, records};

/// An index on disk is built for this part of its size being kept in memory, where the user does
/// not say. Milvus's `common.DiskIndex.SearchCacheBudgetGBRatio` as it is shipped.
const SEARCH_CACHE_RATIO: (&str, &str) = ("search_cache_budget_gb_ratio", "0.10");

/// What an attempt is made of.
struct Parts {
    definition: IndexDefinition,
    rows: i64,
    engine_version: i32,
}

impl Parts {
    fn of(views: &Views, attempt: &Attempt) -> Option<Parts> {
        let build = views.indexes().build(attempt.id())?;
        let definition = views.indexes().definition(build.collection, build.index)?.clone();
        let engine_version = indexing::engine_version(views);
        Some(Parts { definition, rows: build.rows, engine_version })
    }
}

/// The job for the attempt that follows.
///
/// # Errors
/// Its records are gone, or there is nothing to read rows from.
pub(super) fn request(lead: &Lead, attempt: &Attempt) -> Result<index::CreateJobRequest, Failure> {
    let of = SegmentRef {
        collection: attempt.build.collection,
        partition: attempt.build.partition,
        segment: attempt.build.segment,
    };
    let view = lead.local();
    let parts = view.read(|state| Parts::of(state.views(), attempt));
    let gone = |what: &str| {
        let segment = of.segment;
        Failure::refused(Code::Unexpected, format!("segment {segment}: {what}"))
    };
    let parts = parts.ok_or_else(|| gone("no such build or index"))?;
    let field = parts.definition.field.0;
    let logs = match records::record(&view, |keys| keys.log(LogKind::Insert, of, field))? {
        Some(logs) => Some(logs),
        // Before 2.2 a segment had its logs in its own record.
        None => records::record(&view, |keys| keys.segment(of))?
            .and_then(|info: data::SegmentInfo| embedded(info, field)),
    };
    let settings = lead.settings();
    let data_paths = paths(&settings.storage_prefix(), of, field, &logs.unwrap_or_default());
    if data_paths.is_empty() {
        return Err(gone("no logs of the field"));
    }
    Ok(words(settings, attempt, parts, data_paths))
}

fn embedded(info: data::SegmentInfo, field: i64) -> Option<data::FieldBinlog> {
    info.binlogs.into_iter().find(|logs| logs.field_id == field)
}

fn paths(prefix: &str, of: SegmentRef, field: i64, logs: &data::FieldBinlog) -> Vec<String> {
    let SegmentRef { collection, partition, segment } = of;
    let path = |log: &data::Binlog| {
        if log.log_path.is_empty() {
            let id = log.log_id;
            format!("{prefix}insert_log/{collection}/{partition}/{segment}/{field}/{id}")
        } else {
            log.log_path.clone()
        }
    };
    logs.binlogs.iter().map(path).collect()
}

fn words(
    settings: &CoordinatorSettings,
    attempt: &Attempt,
    parts: Parts,
    data_paths: Vec<String>,
) -> index::CreateJobRequest {
    let Parts { definition, rows, engine_version } = parts;
    let mut index_params = definition.index_params;
    let (ratio_key, ratio) = SEARCH_CACHE_RATIO;
    if attempt.needs_disk && !index_params.iter().any(|pair| pair.key == ratio_key) {
        index_params.push(KeyValuePair { key: ratio_key.to_owned(), value: ratio.to_owned() });
    }
    index::CreateJobRequest {
        cluster_id: settings.cluster.clone(),
        index_file_prefix: format!("{}index_files", settings.storage_prefix()),
        build_id: attempt.build.build,
        data_paths,
        index_version: attempt.version + 1,
        storage_config: Some(storage(settings)),
        index_params,
        type_params: definition.type_params,
        num_rows: rows,
        current_index_version: engine_version,
        ..index::CreateJobRequest::default()
    }
}

/// Where the index node finds rows and leaves files.
fn storage(settings: &CoordinatorSettings) -> index::StorageConfig {
    let root_path = settings.storage_root().to_owned();
    match &settings.storage {
        Storage::Local { .. } => index::StorageConfig {
            root_path,
            storage_type: "local".to_owned(),
            ..index::StorageConfig::default()
        },
        Storage::Remote(remote) => index::StorageConfig {
            address: format!("{}:{}", remote.address, remote.port),
            access_key_id: remote.access_key_id.clone(),
            secret_access_key: remote.secret_access_key.clone(),
            use_ssl: remote.use_ssl,
            bucket_name: remote.bucket.clone(),
            root_path,
            use_iam: remote.use_iam,
            iam_endpoint: remote.iam_endpoint.clone(),
            storage_type: "remote".to_owned(),
            use_virtual_host: remote.use_virtual_host,
            region: remote.region.clone(),
            cloud_provider: remote.cloud_provider.clone(),
            request_timeout_ms: i64::try_from(remote.request_timeout.as_millis())
                .unwrap_or(i64::MAX),
        },
    }
}

#[cfg(test)]
mod tests;
