use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::coordinator::settings::{RemoteStorage, Storage};

const FILE: &str = r#"
etcd:
  endpoints: 127.0.0.1:2379
  rootPath: by-test/
  metaSubPath: meta
localStorage:
  path: /data/milvus
minio:
  secretAccessKey: 0123
proxy:
  port: 19530
common:
  storageType: local
  session:
    ttl: 30 # seconds
  entityExpiration: -1
msgChannel:
  chanNamePrefix:
    cluster: by-test
dataCoord:
  segment:
    maxSize: 64
    assignmentExpiration: 2000
    sealProportion: 0.5
  gc:
    interval: 10
  enableActiveStandby: false
  ip:
  port: 13333
  somethingNew: [1, 2]
  other: 7
"#;

fn read(text: &str) -> Result<(CoordinatorSettings, Vec<Line>), String> {
    settings(&parse("milvus.yaml", text)?)
}

fn refuse(text: &str, expected: Expect) {
    expected.assert_eq(&read(text).expect_err("it is wrong"));
}

#[test]
fn the_keys_that_concern_us_are_taken_with_their_units() {
    let (settings, _) = read(FILE).expect("it is right");
    assert_eq!(settings.root_path.as_deref(), Some("by-test"));
    assert_eq!(settings.storage, Storage::Local { path: "/data/milvus".to_owned() });
    assert_eq!(settings.cluster, "by-test");
    assert_eq!(settings.segment_max_size_mb, 64);
    assert_eq!(settings.assignment_expiration, Duration::from_secs(2));
    assert_eq!(settings.gc_interval, Duration::from_secs(10));
    assert_eq!(settings.session_ttl, Duration::from_secs(30));
    assert_eq!(settings.entity_expiration, None);
    assert_eq!(settings.address, CoordinatorSettings::default().address, "the port is not ours");
}

#[test]
fn what_has_no_meaning_here_is_told_and_other_components_are_not() {
    let (_, lines) = read(FILE).expect("it is right");
    let told: String = lines
        .iter()
        .filter(|line| line.fate != Fate::Taken || line.key.contains("secret"))
        .map(|line| format!("{} = {}: {}\n", line.key, line.value, line.fate))
        .collect();
    expect![[r#"
        dataCoord.enableActiveStandby = false: LOOK: set it to true where Milvus runs a DataCoord of its own (standalone, mixcoord): it must stand by while ours serves
        dataCoord.ip = : no meaning here: the address of the DataCoord that stands by in Milvus; ours is --listen-coordinator
        dataCoord.other = 7: no meaning here: not a key of DataCoord that decides anything here
        dataCoord.port = 13333: no meaning here: the address of the DataCoord that stands by in Milvus; ours is --listen-coordinator
        etcd.endpoints = 127.0.0.1:2379: no meaning here: this process is that service: name our client addresses there
        etcd.metaSubPath = meta: no meaning here: as it is here
        minio.secretAccessKey = (hidden): taken
    "#]]
    .assert_eq(&told);
}

#[test]
fn object_storage_is_remote_unless_the_file_says_local() {
    let text =
        "minio:\n  address: s3.example\n  port: 443\n  secretAccessKey: 0123\n  rootPath: /a/b/\n";
    let (settings, _) = read(text).expect("it is right");
    let Storage::Remote(remote) = &settings.storage else { panic!("{:?}", settings.storage) };
    assert_eq!((remote.address.as_str(), remote.port), ("s3.example", 443));
    assert_eq!(remote.secret_access_key, "0123");
    assert_eq!(settings.storage_root(), "a/b");
    let mut none = super::settings(&Values::new()).expect("nothing is wrong").0;
    none.effective.clear();
    assert_eq!(none, CoordinatorSettings::default());
}

#[test]
fn settings_are_shown_in_the_units_in_which_they_are_given() {
    let (settings, _) = read(FILE).expect("it is right");
    let shown = |key: &str| {
        let found = settings.effective.iter().find(|(name, _)| *name == key);
        found.map(|(_, value)| value.clone()).expect("a known key")
    };
    assert_eq!(shown("dataCoord.segment.assignmentExpiration"), "2000");
    assert_eq!(shown("dataCoord.gc.interval"), "10");
    assert_eq!(shown("dataCoord.segment.sealProportion"), "0.5");
    assert_eq!(shown("common.entityExpiration"), "-1");
    assert_eq!(shown("etcd.rootPath"), "by-test");
    assert_eq!(shown("minio.secretAccessKey"), "(hidden)");
    assert_eq!(shown("indexCoord.allowedNodes"), "private");
}

#[test]
fn a_value_that_cannot_be_is_named_with_its_line() {
    refuse(
        "dataCoord:\n  segment:\n    maxSize: big\n",
        expect!["milvus.yaml:3: dataCoord.segment.maxSize = `big`: a whole number is expected"],
    );
    refuse(
        "dataCoord:\n  segment:\n    sealProportion: 23\n",
        expect![
            "milvus.yaml:3: dataCoord.segment.sealProportion = `23`: a number from 0 to 1 is expected"
        ],
    );
    refuse(
        "dataCoord:\n  segment:\n    smallProportion: 0.9\n",
        expect![
            "dataCoord.segment.compactableProportion = 0.85 must not be below dataCoord.segment.smallProportion = 0.9"
        ],
    );
    refuse(
        "dataCoord: [1\n",
        expect!["milvus.yaml:2: while parsing a flow sequence, expected ',' or ']'"],
    );
    refuse(
        &format!("dataCoord:\n  {}", "- ".repeat(100_000)),
        expect!["milvus.yaml:2: at most 32 levels are expected"],
    );
}

#[test]
fn every_key_that_is_taken_may_stand_in_our_own_file() {
    for key in KEYS {
        let section = key.name.split('.').next().unwrap();
        assert!(SECTIONS.contains(&section), "{} is of no section", key.name);
    }
}

fn remote(text: &str) -> RemoteStorage {
    let (settings, _) = read(text).expect("it is right");
    let Storage::Remote(remote) = settings.storage else { panic!("{:?}", settings.storage) };
    remote
}

#[test]
fn an_empty_root_path_is_the_root_of_the_bucket() {
    for text in ["minio:\n  rootPath: \"\"\n", "minio:\n  rootPath:\n", "minio:\n  rootPath: /\n"] {
        let (settings, _) = read(text).expect("it is right");
        assert_eq!(
            (settings.storage_root(), settings.storage_prefix().as_str()),
            ("", ""),
            "{text}"
        );
    }
    let (settings, _) = read("minio:\n  rootPath: //a/./b/../c/\n").expect("it is right");
    assert_eq!((settings.storage_root(), settings.storage_prefix().as_str()), ("a/c", "a/c/"));
    let (settings, _) = read("minio:\n  bucketName: b\n").expect("it is right");
    assert_eq!(settings.storage_prefix(), "files/", "not given");
}

#[test]
fn an_address_with_a_port_is_not_given_another() {
    let place = |text: &str| {
        let remote = remote(&format!("minio:\n  port: 9000\n  address: {text}\n"));
        format!("{}:{}", remote.address, remote.port)
    };
    assert_eq!(place("minio"), "minio:9000");
    assert_eq!(place("minio:9001"), "minio:9001");
    assert_eq!(place("\"[::1]:9002\""), "[::1]:9002");
    refuse(
        "minio:\n  address: minio:http\n",
        expect![
            "minio.address = `minio:http`: HOST or HOST:PORT is expected, [ADDRESS]:PORT for IPv6"
        ],
    );
}

#[test]
fn older_names_of_keys_are_read_where_the_newer_ones_are_not_given() {
    let old = "common:\n  chanNamePrefix:\n    cluster: old\n    dataCoordTimeTick: ticks\n";
    let (settings, _) = read(old).expect("it is right");
    assert_eq!((settings.cluster.as_str(), settings.time_tick_channel.as_str()), ("old", "ticks"));
    let both = format!("{old}msgChannel:\n  chanNamePrefix:\n    cluster: new\n");
    let (settings, lines) = read(&both).expect("it is right");
    assert_eq!((settings.cluster.as_str(), settings.time_tick_channel.as_str()), ("new", "ticks"));
    let fates: Vec<String> =
        lines.iter().map(|line| format!("{}: {}", line.key, line.fate)).collect();
    assert_eq!(
        fates,
        [
            "common.chanNamePrefix.cluster: no meaning here: the key of msgChannel wins",
            "common.chanNamePrefix.dataCoordTimeTick: taken",
            "msgChannel.chanNamePrefix.cluster: taken",
        ]
    );
}

#[test]
fn data_nodes_that_report_no_ticks_are_refused() {
    assert!(read("dataNode:\n  timetick:\n    byRPC: true\n").is_ok());
    refuse(
        "dataNode:\n  timetick:\n    byRPC: false\n",
        expect![
            "milvus.yaml:3: dataNode.timetick.byRPC = `false`: data nodes must report their time ticks by RPC, or no segment is ever sealed or flushed: true is expected"
        ],
    );
}

#[test]
fn rows_live_for_ever_where_the_time_is_zero_or_less() {
    for (text, seconds) in [("0", None), ("-1", None), ("-5", None), ("5", Some(5))] {
        let text = format!("common:\n  entityExpiration: {text}\n");
        let (settings, _) = read(&text).expect("it is right");
        assert_eq!(settings.entity_expiration, seconds.map(Duration::from_secs), "{text}");
    }
}

#[test]
fn a_store_that_is_not_spoken_is_refused_at_the_start() {
    let aliyun = remote("minio:\n  cloudProvider: aliyun\n  address: oss-cn-x.aliyuncs.com\n");
    assert!(aliyun.has_bucket_in_host && !aliyun.use_virtual_host);
    assert!(!remote("minio:\n  cloudProvider: tencent\n").has_bucket_in_host);
    assert!(remote("minio:\n  useIAM: true\n  useVirtualHost: true\n").has_bucket_in_host);
    assert!(read("common:\n  storageType: local\nminio:\n  cloudProvider: azure\n").is_ok());
    refuse(
        "minio:\n  cloudProvider: azure\n",
        expect![
            "minio.cloudProvider = `azure`, minio.useIAM = false, minio.address = `localhost`: Azure's blob store is not supported; supported are stores with an S3 API and signatures of version 4: `aws` with keys or with roles, MinIO and others as `aws` with keys, `aliyun` with keys"
        ],
    );
    for text in [
        "minio:\n  cloudProvider: gcp\n",
        "minio:\n  address: storage.googleapis.com:443\n",
        "minio:\n  cloudProvider: aliyun\n  useIAM: true\n",
    ] {
        let refused = read(text).expect_err("it is not spoken");
        assert!(refused.contains("not supported"), "{refused}");
    }
}
