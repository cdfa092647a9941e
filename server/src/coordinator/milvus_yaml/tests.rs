use std::time::Duration;

use expect_test::{Expect, expect};

use super::*;
use crate::coordinator::settings::Storage;

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
}

#[test]
fn every_key_that_is_taken_may_stand_in_our_own_file() {
    for key in KEYS {
        let section = key.name.split('.').next().unwrap();
        assert!(SECTIONS.contains(&section), "{} is of no section", key.name);
    }
}
