use std::collections::BTreeMap;

use bytes::Bytes;
use expect_test::{expect, expect_file};
use proptest::prelude::*;
use prost::Message;
use proto::{etcd, milvus};

use super::*;
use crate::session::Role;

/// What `etcdctl get '' --prefix -w json` printed of a stock Milvus 2.3.5.
fn dump(json: &str) -> Vec<etcd::KeyValue> {
    let json: serde_json::Value = serde_json::from_str(json).expect("a capture is JSON");
    let number = |kv: &serde_json::Value, field: &str| kv[field].as_i64().unwrap_or_default();
    let bytes = |kv: &serde_json::Value, field: &str| base64(kv[field].as_str().unwrap_or(""));
    let kvs = json["kvs"].as_array().expect("a capture has pairs");
    kvs.iter()
        .map(|kv| etcd::KeyValue {
            key: bytes(kv, "key"),
            value: bytes(kv, "value"),
            create_revision: number(kv, "create_revision"),
            mod_revision: number(kv, "mod_revision"),
            version: number(kv, "version"),
            lease: number(kv, "lease"),
        })
        .collect()
}

fn base64(text: &str) -> Bytes {
    let digit = |byte| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => panic!("no base64 digit: {byte}"),
    };
    let mut bytes = Vec::new();
    for chunk in text.trim_end_matches('=').as_bytes().chunks(4) {
        let bits = chunk.iter().fold(0u32, |bits, byte| bits << 6 | u32::from(digit(*byte)));
        let bits = bits << (6 * (4 - chunk.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..chunk.len()]);
    }
    bytes.into()
}

fn views_of<'a>(kvs: impl IntoIterator<Item = &'a etcd::KeyValue>) -> Views {
    let mut views = Views::new("by-dev");
    for kv in kvs {
        views.put(kv);
    }
    views
}

/// As a node that starts builds them.
fn loaded_of<'a>(kvs: impl IntoIterator<Item = &'a etcd::KeyValue>) -> Views {
    let mut kvs: Vec<etcd::KeyValue> = kvs.into_iter().cloned().collect();
    kvs.sort_by_key(|kv| kv.mod_revision);
    let mut views = Views::new("by-dev");
    for some in kvs.chunks(7) {
        views.load(some);
    }
    views
}

const FRESH: &str = include_str!("../../tests/golden/captures/etcd-dump-fresh.json");
const USED: &str = include_str!("../../tests/golden/captures/etcd-dump-after-script.json");

#[test]
fn views_of_a_fresh_stock_cluster() {
    expect![[r#"
        views of by-dev/meta/
        session rootcoord: server 1 at 127.0.0.1:53100 version 2.3.5 host vm lease 9041998803593846617 revision 19 exclusive
        session datacoord: server 1 at 127.0.0.1:13333 version 2.3.5 host vm lease 9041998803593846596 revision 11 exclusive
        session querycoord: server 1 at 127.0.0.1:19531 version 2.3.5 host vm lease 9041998803593846645 revision 22 exclusive
        session indexcoord: server 1 at 127.0.0.1:13333 version 2.3.5 host vm lease 9041998803593846588 revision 9 exclusive
        session proxy-1: server 1 at 127.0.0.1:19529 version 2.3.5 host vm lease 9041998803593846663 revision 24
        session datanode-1: server 1 at 127.0.0.1:21124 version 2.3.5 host vm lease 9041998803593846635 revision 21
        session querynode-1: server 1 at 127.0.0.1:21123 version 2.3.5 host vm lease 9041998803593846554 revision 5 index-engine 0..1
        session indexnode-1: server 1 at 127.0.0.1:21121 version 2.3.5 host vm lease 9041998803593846546 revision 4 disk
        session counter: 2
        database 1: "default" Created created 1795319120637633544 ns
        copy database 1 at 470632135559479297
    "#]].assert_eq(&views_of(&dump(FRESH)).to_string());
}

#[test]
fn views_of_a_used_stock_cluster() {
    let views = views_of(&dump(USED));
    assert_eq!(views.undecodable(), 0);
    assert_eq!(views.catalog().drift(), []);
    expect![[r#"
        ViewCounts {
            sessions: 8,
            channels: 4,
            databases: 2,
            collections: 4,
            partitions: 6,
            fields: 21,
            aliases: 2,
            segments: 2,
            checkpoints: 4,
            indexes: 1,
            builds: 2,
            plans: 0,
            tombstones: 0,
            copies: 39,
            undecodable: 0,
        }"#]]
    .assert_eq(&format!("{:#?}", views.counts()));
    expect_file!["../../tests/golden/captures/views-after-script.txt"]
        .assert_eq(&views.to_string());
}

/// Prints what the catalogue answers about one collection.
fn describe(views: &Views, database: &str, name: &str) -> String {
    let catalog = views.catalog();
    let Some(database) = catalog.database_by_name(database) else { return "no database".into() };
    let Some(id) = catalog.resolve(database, name) else { return "no collection".into() };
    let (key, collection) = catalog.collection(id).expect("a resolved collection is there");
    let partitions: Vec<String> = catalog
        .partitions(id)
        .iter()
        .map(|(_, partition)| format!("{} {:?}", partition.name, partition.state))
        .collect();
    let fields: Vec<String> =
        catalog.fields(id).iter().map(|(id, field)| format!("{id} {}", field.name)).collect();
    format!(
        "{key} {}: partitions {}; fields {}",
        collection.name,
        partitions.join(", "),
        fields.join(", ")
    )
}

#[test]
fn a_collection_is_found_by_name_and_by_alias() {
    let views = views_of(&dump(USED));
    let lines: Vec<String> =
        [("default", "c1"), ("default", "a1"), ("default", "c3"), ("db1", "da1"), ("db1", "c1")]
            .iter()
            .map(|(database, name)| {
                format!("{database}.{name} -> {}", describe(&views, database, name))
            })
            .collect();
    expect![[r#"
        default.c1 -> 1/470632619390533770 c1: partitions _default Created, p1 Created, p2 Dropping; fields 0 RowID, 1 Timestamp, 100 id, 101 v, 102 s, 103 $meta
        default.a1 -> 1/470632619390533770 c1: partitions _default Created, p1 Created, p2 Dropping; fields 0 RowID, 1 Timestamp, 100 id, 101 v, 102 s, 103 $meta
        default.c3 -> no collection
        db1.da1 -> 470632619390533766/470632619390933862 dc1: partitions _default Created; fields 0 RowID, 1 Timestamp, 100 id, 101 v, 102 s
        db1.c1 -> no collection"#]].assert_eq(&lines.join("\n"));
}

#[test]
fn channels_and_sessions_are_found_from_both_sides() {
    let views = views_of(&dump(USED));
    let of_node = views.channels().of_node(ServerId(1)).map(|(name, _)| name.to_string());
    let names: Vec<String> = of_node.collect();
    assert_eq!(names.len(), 4);
    for name in &names {
        assert!(views.channels().owners_of(name).eq([ServerId(1)]));
        assert!(views.channels().get(ServerId(1), name).is_some());
    }
    assert_eq!(views.sessions().nodes(Role::DataNode).count(), 1);
    let coordinator = views.sessions().active(Role::DataCoord).expect("it is alive");
    assert_eq!(&*coordinator.address, "127.0.0.1:13333");
}

/// One change of the recorded metastore.
enum Change {
    Put(etcd::KeyValue),
    Delete(Bytes),
}

/// Every write that a stock cluster made while a client created, filled and dropped collections.
fn recorded() -> Vec<Change> {
    let text = include_str!("../../tests/golden/captures/metastore.tsv");
    let mut versions: BTreeMap<Bytes, i64> = BTreeMap::new();
    let hex = |text: &str| -> Bytes {
        let digits: Vec<char> = text.chars().collect();
        let byte = |pair: &[char]| {
            u8::from_str_radix(&pair.iter().collect::<String>(), 16).expect("hex digits")
        };
        digits.chunks(2).map(byte).collect()
    };
    text.lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<&str> = line.split('\t').collect();
            let key = Bytes::copy_from_slice(columns[3].as_bytes());
            if columns[2] != "put" {
                versions.remove(&key);
                return Change::Delete(key);
            }
            let version = versions.entry(key.clone()).or_default();
            *version += 1;
            Change::Put(etcd::KeyValue {
                key,
                mod_revision: columns[1].parse().expect("a revision"),
                version: *version,
                lease: columns[4].parse().unwrap_or_default(),
                value: hex(columns[5]),
                ..etcd::KeyValue::default()
            })
        })
        .collect()
}

#[test]
fn views_that_followed_a_recorded_cluster_equal_views_built_at_any_moment() {
    let mut live = BTreeMap::new();
    let mut views = Views::new("by-dev");
    for change in recorded() {
        match change {
            Change::Put(kv) => {
                views.put(&kv);
                live.insert(kv.key.clone(), kv);
            }
            Change::Delete(key) => {
                views.delete(&key);
                live.remove(&key);
            }
        }
        assert_eq!(views, views_of(live.values()));
        assert_eq!(views, loaded_of(live.values()));
    }
    assert_eq!(views.undecodable(), 0, "{:?}", views.troubles(3));
    assert_eq!(views.catalog().drift(), []);
}

#[test]
fn junk_is_a_row_that_says_so_and_heals_when_overwritten() {
    let mut views = Views::new("by-dev");
    let mut put = |key: &str, value: &[u8], revision| {
        let key = Bytes::copy_from_slice(format!("by-dev/meta/{key}").as_bytes());
        let value = Bytes::copy_from_slice(value);
        views.put(&etcd::KeyValue { key, value, mod_revision: revision, ..Default::default() });
    };
    put("session/datanode-7", b"junk", 2);
    put("session/datanode-8", br#"{"ServerID":8,"Address":"h:1","Unknown":[1.5]}"#, 3);
    put("session/id", b"x", 4);
    put("session/a/b", b"", 5);
    put("channelwatch/1/c", b"\xff\xff", 6);
    put("channelwatch/one/c", b"", 7);
    put("root-coord/fields/1/100", b"\x28\x7f", 8);
    put("root-coord/fields/1/101", b"\x28\x05", 9);
    put("root-coord/partitions/1/1", b"\x28\x09", 10);
    put("root-coord/database/collection-info/1/5", b"\x08\x05", 11);
    put("root-coord/credential/users/u", b"anything", 12);
    let shown: Vec<String> = views
        .troubles(100)
        .iter()
        .map(|trouble| format!("{} @{}: {}", trouble.what, trouble.revision, trouble.reason))
        .collect();
    expect![[r#"
        session datanode-7 @2: expected value at line 1 column 1
        session counter @4: not a decimal number
        channel 1/c @6: failed to decode Protobuf message: invalid varint
        collection 1/5 @11: no schema
        partition 1/1 @10: no state has the number 9
        field 1/100 @8: no data type has the number 127
        b"a/b" @5: no key that Milvus writes
        b"one/c" @7: no key that Milvus writes"#]]
    .assert_eq(&shown.join("\n"));
    assert_eq!(views.undecodable(), shown.len());

    let mut heal = |key: &str| views.delete(format!("by-dev/meta/{key}").as_bytes());
    for key in [
        "session/datanode-7",
        "session/datanode-8",
        "session/id",
        "session/a/b",
        "channelwatch/1/c",
        "channelwatch/one/c",
        "root-coord/fields/1/100",
        "root-coord/fields/1/101",
        "root-coord/partitions/1/1",
        "root-coord/database/collection-info/1/5",
    ] {
        assert!(heal(key).is_some(), "{key}");
    }
    assert_eq!(views, Views::new("by-dev"));
}

#[test]
fn data_node_ids_that_begin_alike_are_reported() {
    let kvs = [1, 12, 2, 123, 31].map(|id: i64| etcd::KeyValue {
        key: format!("by-dev/meta/session/datanode-{id}").into(),
        value: format!(r#"{{"ServerID":{id},"Address":"h:{id}"}}"#).into(),
        ..Default::default()
    });
    let clashes = views_of(&kvs).sessions().prefix_clashes();
    let clashes: Vec<(i64, i64)> = clashes.iter().map(|(one, other)| (one.0, other.0)).collect();
    assert_eq!(clashes, [(1, 12), (1, 123), (12, 123)]);
}

/// Keys that collide often, most of them in some view, some nearly.
fn key() -> impl Strategy<Value = String> {
    let id = || prop::sample::select(vec!["0", "1", "2", "01", "-1", "x", ""]);
    let tail = prop_oneof![
        (id(), id()).prop_map(|(a, b)| format!("{a}/{b}")),
        id().prop_map(str::to_owned),
        (id(), id()).prop_map(|(a, b)| format!("datanode-{a}{b}")),
    ];
    let prefixes = vec![
        "session/",
        "channelwatch/",
        "root-coord/database/db-info/",
        "root-coord/database/collection-info/",
        "root-coord/database/aliases/",
        "root-coord/partitions/",
        "root-coord/fields/",
        "root-coord/collection/",
        "root-coord/aliases/",
        "root-coord/collection-alias/",
        "root-coord/credential/",
        "datacoord-meta/s/",
    ];
    let plain =
        (prop::sample::select(prefixes), tail).prop_map(|(prefix, tail)| format!("{prefix}{tail}"));
    let key = (plain, 0..4, id()).prop_map(|(key, kind, timestamp)| match kind {
        0 => format!("snapshots/{key}_ts{timestamp}"),
        _ => key,
    });
    let roots = prop::sample::select(vec!["by-dev/meta/", "by-dev/meta/", "by-dev/", "other/"]);
    (roots, key).prop_map(|(root, key)| format!("{root}{key}"))
}

fn value() -> impl Strategy<Value = Vec<u8>> {
    let collection = ("[ab]", 0..4).prop_map(|(name, state)| {
        let schema = milvus::schema::CollectionSchema { name, ..Default::default() };
        let info =
            milvus::etcd::CollectionInfo { schema: Some(schema), state, ..Default::default() };
        info.encode_to_vec()
    });
    prop_oneof![
        collection,
        Just(b"\xE2\x9B\xBC".to_vec()),
        Just(Vec::new()),
        Just(br#"{"ServerID":1,"Address":"h:1"}"#.to_vec()),
        prop::collection::vec(any::<u8>(), 0..12),
    ]
}

proptest! {
    #[test]
    fn views_that_followed_any_bytes_equal_views_that_were_built(
        changes in prop::collection::vec((key(), prop::option::weighted(0.7, value())), 1..200)
    ) {
        let mut live: BTreeMap<Bytes, etcd::KeyValue> = BTreeMap::new();
        let mut views = Views::new("by-dev");
        let ranges = views.ranges();
        for (revision, (key, value)) in changes.into_iter().enumerate() {
            let key = Bytes::from(key);
            let area = match value {
                Some(value) => {
                    let version = live.get(&key).map_or(1, |kv| kv.version + 1);
                    let mod_revision = i64::try_from(revision).expect("few") + 2;
                    let (key, value) = (key.clone(), Bytes::from(value));
                    let kv = etcd::KeyValue { key, value, version, mod_revision, ..Default::default() };
                    live.insert(kv.key.clone(), kv.clone());
                    views.put(&kv)
                }
                None => {
                    live.remove(&key);
                    views.delete(&key)
                }
            };
            let covered = ranges.iter().any(|(start, end)| *start <= key && key < *end);
            prop_assert_eq!(covered, area.is_some());
        }
        let built = views_of(live.values());
        prop_assert_eq!(&views, &built);
        prop_assert_eq!(&views, &loaded_of(live.values()));
        prop_assert_eq!(views.to_string(), built.to_string());
        prop_assert_eq!(views.undecodable(), views.troubles(usize::MAX).len());
    }
}
