//! What reaches apply: batches of a log entry, and records of Milvus that views are made of.

use std::cell::RefCell;

use bytes::Bytes;
use prost::Message;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use statemachine::testkit::Machine;
use statemachine::{EntryMeta, LogEntry, Readers};

/// Records are written on one state until it holds so many.
const RECORDS_MAX: u32 = 512;

/// Keys below which Milvus and its coordinator keep records; the first byte of the input picks one.
const KEYS: &[&str] = &[
    "by-dev/meta/datacoord-meta/s/1/2/3",
    "by-dev/meta/datacoord-meta/binlog/1/2/3/100",
    "by-dev/meta/datacoord-meta/deltalog/1/2/3/100",
    "by-dev/meta/datacoord-meta/statslog/1/2/3/100",
    "by-dev/meta/datacoord-meta/channel-cp/by-dev-rootcoord-dml_0_1v0",
    "by-dev/meta/datacoord-meta/channel-removal/by-dev-rootcoord-dml_0_1v0",
    "by-dev/meta/channelwatch/4/by-dev-rootcoord-dml_0_1v0",
    "by-dev/meta/session/datanode-4",
    "by-dev/meta/session/indexnode-5",
    "by-dev/meta/session/id",
    "by-dev/meta/field-index/1/7",
    "by-dev/meta/segment-index/1/2/3/8",
    "by-dev/meta/root-coord/database/db-info/1",
    "by-dev/meta/root-coord/database/collection-info/1/1",
    "by-dev/meta/root-coord/collection/1",
    "by-dev/meta/root-coord/partitions/1/2",
    "by-dev/meta/root-coord/fields/1/100",
    "by-dev/meta/root-coord/database/alias/1/name",
    "by-dev/quorate/growing/3",
    "by-dev/quorate/channel/by-dev-rootcoord-dml_0_1v0",
    "by-dev/quorate/compaction/9",
    "by-dev/quorate/altered/1",
    "by-dev/quorate/garbage-control",
    "by-dev/quorate/compaction-control",
];

thread_local! {
    static MACHINE: RefCell<Option<(Machine, u32)>> = const { RefCell::new(None) };
}

/// Runs `work` on a machine that earlier inputs used, too: making one costs more than they do.
fn with_machine(work: impl FnOnce(&mut Machine)) {
    MACHINE.with_borrow_mut(|slot| {
        if slot.as_ref().is_none_or(|(_, uses)| *uses >= RECORDS_MAX) {
            *slot = Some((Machine::new(), 0));
        }
        let (machine, uses) = slot.as_mut().expect("made just above");
        *uses += 1;
        work(machine);
    });
}

/// A whole log entry's batch. Whatever it holds, no node may stop for it.
pub(super) fn batch(bytes: &[u8]) {
    with_machine(|machine| {
        let meta = EntryMeta { index: machine.index, term: machine.term, node: machine.node };
        let batch = Bytes::copy_from_slice(bytes);
        let entry = LogEntry { meta, members: machine.members.clone(), batch };
        let prepared = machine.state.prepare(&machine.store, &[entry], Readers::All);
        assert!(prepared.is_ok(), "a batch stops the node: {:?}", prepared.err());
    });
}

/// A value below `meta/` or `quorate/`, as a Milvus component, a client or a backup left it.
pub(super) fn record(input: &[u8]) {
    let Some((key, value)) = input.split_first() else { return };
    let key = KEYS[usize::from(*key) % KEYS.len()];
    with_machine(|machine| {
        let put = etcd::PutRequest {
            key: Bytes::from_static(key.as_bytes()),
            value: Bytes::copy_from_slice(value),
            ..Default::default()
        };
        machine.run(Kind::Put(put)).expect("a put without a condition");
    });
}

pub(super) fn batches() -> Vec<Vec<u8>> {
    let put = |value: &'static [u8]| quorate::Command {
        fence: None,
        kind: Some(Kind::Put(etcd::PutRequest {
            key: b"key".as_slice().into(),
            value: value.into(),
            ..Default::default()
        })),
    };
    let mut machine = Machine::new();
    let written = machine.entry_of(vec![put(b"one"), put(b"two")]).batch;
    let settings = quorate::ChangeSettings { quota_bytes: Some(1 << 30), ..Default::default() };
    let changed = machine.entry(vec![
        Kind::ChangeSettings(settings),
        Kind::LeaseGrant(etcd::LeaseGrantRequest { ttl: 60, id: 5 }),
        Kind::Compact(etcd::CompactionRequest { revision: 1, physical: false }),
    ]);
    vec![written.to_vec(), changed.batch.to_vec()]
}

/// Records that are right, each under the first key of its kind.
pub(super) fn records() -> Vec<Vec<u8>> {
    let segment = proto::milvus::data::SegmentInfo {
        id: 3,
        collection_id: 1,
        partition_id: 2,
        insert_channel: "by-dev-rootcoord-dml_0_1v0".to_owned(),
        num_of_rows: 100,
        ..Default::default()
    };
    let session = r#"{"ServerID":4,"ServerName":"datanode","Address":"127.0.0.1:21124"}"#;
    let place = |name: &str| {
        let place = KEYS.iter().position(|key| key.contains(name)).expect("a key of that kind");
        vec![u8::try_from(place).expect("few keys")]
    };
    vec![
        [place("/s/"), segment.encode_to_vec()].concat(),
        [place("datanode-"), session.as_bytes().to_vec()].concat(),
        [place("session/id"), b"7".to_vec()].concat(),
    ]
}
