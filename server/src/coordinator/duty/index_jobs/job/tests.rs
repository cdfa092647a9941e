use std::time::Duration;

use expect_test::expect;
use proto::quorate::BuildRef;
use statemachine::view::{CollectionId, IndexId, ServerId};

use super::*;
use crate::coordinator::indexing::tests::{Shelf, of, pairs};
use crate::coordinator::settings::RemoteStorage;

fn attempt(build: i64, needs_disk: bool) -> Attempt {
    let build = BuildRef { collection: 1, partition: 2, segment: 3, build };
    Attempt { build, version: 0, node: ServerId(0), needs_disk }
}

fn parts(index_type: &str) -> Parts {
    let mut shelf = Shelf::new();
    let mut params = pairs(index_type);
    params.push(KeyValuePair { key: "dim".to_owned(), value: "8".to_owned() });
    shelf.index(10, 101, &params);
    shelf.segment(3, 3729, "Flushed");
    shelf.build(20, 3, 10, "Unissued");
    let versions = r#","IndexEngineVersion":{"MinimalIndexVersion":0,"CurrentIndexVersion":1}"#;
    shelf.session("querynode", 7, versions);
    assert!(shelf.views.indexes().definition(CollectionId(1), IndexId(10)).is_some());
    Parts::of(&shelf.views, &attempt(20, false)).expect("it is on record")
}

#[test]
fn a_job_is_worded_as_stock_words_it() {
    let logs = data::FieldBinlog {
        field_id: 101,
        binlogs: vec![
            data::Binlog { log_id: 34, ..data::Binlog::default() },
            data::Binlog { log_path: "/data/x".to_owned(), ..data::Binlog::default() },
        ],
    };
    let settings = CoordinatorSettings {
        storage: Storage::Local { path: "/var/lib/milvus/data/".to_owned() },
        ..CoordinatorSettings::default()
    };
    let data_paths = paths(&settings.storage_prefix(), of(3), 101, &logs);
    let job = words(&settings, &attempt(20, false), parts("HNSW"), data_paths);
    expect![[r#"
        CreateJobRequest {
            cluster_id: "by-dev",
            index_file_prefix: "/var/lib/milvus/data/index_files",
            build_id: 20,
            data_paths: [
                "/var/lib/milvus/data/insert_log/1/2/3/101/34",
                "/data/x",
            ],
            index_version: 1,
            index_id: 0,
            index_name: "",
            storage_config: Some(
                StorageConfig {
                    address: "",
                    access_key_id: "",
                    secret_access_key: "",
                    use_ssl: false,
                    bucket_name: "",
                    root_path: "/var/lib/milvus/data",
                    use_iam: false,
                    iam_endpoint: "",
                    storage_type: "local",
                    use_virtual_host: false,
                    region: "",
                    cloud_provider: "",
                    request_timeout_ms: 0,
                },
            ),
            index_params: [
                KeyValuePair {
                    key: "index_type",
                    value: "HNSW",
                },
            ],
            type_params: [
                KeyValuePair {
                    key: "dim",
                    value: "8",
                },
            ],
            num_rows: 3729,
            current_index_version: 1,
        }
    "#]]
    .assert_debug_eq(&job);
}

#[test]
fn an_object_store_is_named_with_all_that_it_takes_to_reach_it() {
    let remote = RemoteStorage {
        address: "minio".to_owned(),
        port: 9000,
        access_key_id: "key".to_owned(),
        secret_access_key: "secret".to_owned(),
        use_ssl: true,
        bucket: "a-bucket".to_owned(),
        root_path: "files".to_owned(),
        cloud_provider: "aws".to_owned(),
        region: "here".to_owned(),
        request_timeout: Duration::from_secs(10),
        ..RemoteStorage::default()
    };
    let settings =
        CoordinatorSettings { storage: Storage::Remote(remote), ..CoordinatorSettings::default() };
    expect![[r#"
        StorageConfig {
            address: "minio:9000",
            access_key_id: "key",
            secret_access_key: "secret",
            use_ssl: true,
            bucket_name: "a-bucket",
            root_path: "files",
            use_iam: false,
            iam_endpoint: "",
            storage_type: "remote",
            use_virtual_host: false,
            region: "here",
            cloud_provider: "aws",
            request_timeout_ms: 10000,
        }
    "#]]
    .assert_debug_eq(&storage(&settings));
}

#[test]
fn an_index_on_disk_is_told_how_much_of_it_may_be_in_memory() {
    let settings = CoordinatorSettings::default();
    let ratio = |needs_disk: bool, parts: Parts| {
        let job = words(&settings, &attempt(20, needs_disk), parts, vec![]);
        let found = job.index_params.into_iter().find(|pair| pair.key == SEARCH_CACHE_RATIO.0);
        found.map(|pair| pair.value)
    };
    assert_eq!(ratio(false, parts("HNSW")), None);
    assert_eq!(ratio(true, parts("DISKANN")).as_deref(), Some("0.10"));
    let mut chosen = parts("DISKANN");
    let (key, value) = (SEARCH_CACHE_RATIO.0.to_owned(), "0.5".to_owned());
    chosen.definition.index_params.push(KeyValuePair { key, value });
    assert_eq!(ratio(true, chosen).as_deref(), Some("0.5"));
}
