//! Bytes of released commands and rows mean for ever what they meant when they were written.
//!
//! `golden/v1/NN-<command>.bin` is a batch each, applied in that order; `golden/v1/rows.bin` is
//! what they leave in the tables; `golden/v1/digests.txt` holds both digests after each. A failure
//! here means that nodes of two versions would diverge, or that a data directory cannot be read
//! any more. Add files for what is new (`QUORATE_GOLDEN=write` writes all); never change old ones
//! after a release. The coordinator's commands have a folder of their own.

use std::path::PathBuf;

use bytes::Bytes;
use proto::etcd::compare::{CompareResult, CompareTarget, TargetUnion};
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use proto::{etcd, quorate};
use statemachine::testkit::{Machine, MemoryStore};
use statemachine::{EntryMeta, LogEntry, State, Table, digest};

use crate::summary;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
}

#[expect(clippy::disallowed_methods, reason = "tests are configured, the state machine is not")]
fn is_writing() -> bool {
    std::env::var("QUORATE_GOLDEN").is_ok_and(|mode| mode == "write")
}

#[expect(clippy::disallowed_methods, reason = "golden files are files")]
fn read(name: &str) -> Vec<u8> {
    let path = folder().join(name);
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("{}: {error}; QUORATE_GOLDEN=write writes it", path.display())
    })
}

#[expect(clippy::disallowed_methods, reason = "golden files are files")]
fn write(name: &str, bytes: &[u8]) {
    let path = folder().join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

fn put(key: &'static str, value: &'static str) -> etcd::PutRequest {
    etcd::PutRequest { key: key.into(), value: value.into(), ..Default::default() }
}

fn operation(request: Request) -> etcd::RequestOp {
    etcd::RequestOp { request: Some(request) }
}

fn compare(
    key: &'static str,
    target: CompareTarget,
    result: CompareResult,
    union: TargetUnion,
) -> etcd::Compare {
    etcd::Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(union),
    }
}

fn txn() -> etcd::TxnRequest {
    let nested = etcd::TxnRequest {
        compare: vec![compare(
            "b",
            CompareTarget::Lease,
            CompareResult::NotEqual,
            TargetUnion::Lease(7),
        )],
        success: vec![operation(Request::RequestPut(put("nested", "then")))],
        failure: vec![operation(Request::RequestPut(put("nested", "else")))],
    };
    let range = etcd::RangeRequest {
        key: "a".into(),
        range_end: "z".into(),
        limit: 2,
        sort_order: etcd::range_request::SortOrder::Descend.into(),
        sort_target: etcd::range_request::SortTarget::Mod.into(),
        ..Default::default()
    };
    let delete = etcd::DeleteRangeRequest { key: "b".into(), prev_kv: true, ..Default::default() };
    etcd::TxnRequest {
        compare: vec![
            compare("a", CompareTarget::Version, CompareResult::Greater, TargetUnion::Version(0)),
            compare(
                "a",
                CompareTarget::Create,
                CompareResult::Less,
                TargetUnion::CreateRevision(9),
            ),
            compare("a", CompareTarget::Mod, CompareResult::Equal, TargetUnion::ModRevision(2)),
            compare(
                "a",
                CompareTarget::Value,
                CompareResult::Equal,
                TargetUnion::Value("1".into()),
            ),
        ],
        success: vec![
            operation(Request::RequestPut(put("a", "2"))),
            operation(Request::RequestDeleteRange(delete)),
            operation(Request::RequestRange(range)),
            operation(Request::RequestTxn(nested)),
        ],
        failure: vec![],
    }
}

/// Every command, in an order in which each does something. Append only.
fn commands() -> Vec<(&'static str, Vec<Kind>)> {
    let leased = etcd::PutRequest { lease: 7, prev_kv: true, ..put("b", "leased") };
    let kept = etcd::PutRequest { value: Bytes::new(), ignore_value: true, ..put("b", "") };
    let grant = |id, ttl| Kind::LeaseGrant(etcd::LeaseGrantRequest { ttl, id });
    let session = put(
        "by-dev/meta/session/datanode-3",
        r#"{"ServerID":3,"ServerName":"datanode","Address":"10.0.0.1:21124","Version":"2.3.5"}"#,
    );
    let settings = quorate::ChangeSettings {
        root_path: Some("other".to_owned()),
        quota_bytes: Some(1 << 30),
        retention_revisions: Some(1_000),
        retention_ms: Some(60_000),
        txn_ops_max: Some(256),
    };
    let alarm = |action: etcd::alarm_request::AlarmAction| {
        let alarm = etcd::AlarmType::Nospace.into();
        Kind::Alarm(etcd::AlarmRequest { action: action.into(), member_id: 5, alarm })
    };
    let delete = |key: &'static str, end: &'static str| {
        Kind::DeleteRange(etcd::DeleteRangeRequest {
            key: key.into(),
            range_end: end.into(),
            prev_kv: true,
        })
    };
    vec![
        ("put", vec![Kind::Put(put("a", "1")), Kind::Put(session)]),
        ("lease-grant", vec![grant(7, 60), grant(8, 60), grant(9, 9)]),
        ("put-lease", vec![Kind::Put(leased), Kind::Put(kept), Kind::Put(put("c", ""))]),
        ("txn", vec![Kind::Txn(txn())]),
        ("rejected", vec![Kind::Put(etcd::PutRequest { lease: 99, ..put("x", "y") })]),
        ("delete-range", vec![Kind::Put(put("d", "4")), delete("c", "e")]),
        (
            "lease-revoke",
            vec![
                Kind::Put(etcd::PutRequest { lease: 8, ..put("gone", "soon") }),
                Kind::LeaseRevoke(etcd::LeaseRevokeRequest { id: 8 }),
            ],
        ),
        ("expire-leases", vec![Kind::ExpireLeases(quorate::ExpireLeases { ids: vec![9, 10] })]),
        ("compact", vec![Kind::Compact(etcd::CompactionRequest { revision: 5, physical: true })]),
        ("alarm", vec![alarm(etcd::alarm_request::AlarmAction::Activate)]),
        ("change-settings", vec![Kind::ChangeSettings(settings)]),
        ("raise-level", vec![Kind::RaiseLevel(quorate::RaiseLevel { level: 1 })]),
        ("check-digest", vec![Kind::CheckDigest(quorate::CheckDigest {})]),
        ("register-origin", vec![]),
    ]
}

/// Commands that are kept as golden files, and the folder of these below `golden/v1`.
pub(crate) struct Golden {
    pub(crate) folder: &'static str,
    /// Name and commands of each file. No commands stand for a registration.
    pub(crate) files: Vec<(&'static str, Vec<Kind>)>,
}

/// Writes the log of the commands under its file names.
fn written(golden: Golden) -> Vec<(String, LogEntry)> {
    let mut machine = Machine::new();
    let folder = golden.folder;
    let files = golden.files.into_iter().enumerate();
    files
        .map(|(nth, (name, kinds))| {
            machine.at_ms = 1_700_000_000_000 + nth as u64;
            let is_registration = kinds.is_empty();
            let entry = if is_registration {
                let register = quorate::RegisterOrigin { node: 2, nonce: 0xfeed };
                let kind = Some(Kind::RegisterOrigin(register));
                machine.entry_of_runs(vec![quorate::Run {
                    origin: 2,
                    commands: vec![quorate::Command { fence: None, kind }],
                    ..Default::default()
                }])
            } else {
                let fence = Some(quorate::Fence { term: machine.term, node: machine.node });
                let command = |kind| quorate::Command { fence, kind: Some(kind) };
                machine.settled_below = machine.next_seq.saturating_sub(2);
                machine.entry_of(kinds.into_iter().map(command).collect())
            };
            (format!("{folder}{:02}-{name}.bin", nth + 1), entry)
        })
        .collect()
}

/// Table, key and value of each row, each with its length before it.
fn encode_rows(store: &MemoryStore) -> Vec<u8> {
    let mut bytes = Vec::new();
    for table in Table::ALL {
        for (key, value) in store.rows(table) {
            for part in [table.name().as_bytes(), key, value] {
                bytes.extend_from_slice(&u32::try_from(part.len()).unwrap().to_be_bytes());
                bytes.extend_from_slice(part);
            }
        }
    }
    bytes
}

fn decode_rows(mut bytes: &[u8]) -> MemoryStore {
    let mut store = MemoryStore::default();
    let mut part = || {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
        bytes = rest;
        Some(Bytes::copy_from_slice(part))
    };
    while let Some(name) = part() {
        let table = Table::ALL.into_iter().find(|table| table.name().as_bytes() == name);
        let (key, value) = (part().unwrap(), part().unwrap());
        store.rows_mut(table.expect("tables are never renamed")).insert(key, value);
    }
    store
}

fn of_etcd() -> Golden {
    Golden { folder: "", files: commands() }
}

#[test]
fn released_bytes_apply_to_the_digests_that_they_had() {
    bytes_apply_to_the_digests_that_they_had(of_etcd());
}

#[test]
fn released_rows_load_to_the_state_that_wrote_them() {
    rows_load_to_the_state_that_wrote_them(of_etcd());
}

#[test]
fn every_command_of_today_encodes_as_released() {
    commands_encode_as_released(of_etcd());
}

pub(crate) fn bytes_apply_to_the_digests_that_they_had(golden: Golden) {
    let folder = golden.folder;
    let mut machine = Machine::new();
    let mut digests = String::new();
    for (name, entry) in &written(golden) {
        if is_writing() {
            write(name, &entry.batch);
        }
        let entry = LogEntry {
            members: std::sync::Arc::default(),
            meta: EntryMeta { index: machine.index, term: machine.term, node: machine.node },
            batch: read(name).into(),
        };
        machine.index += 1;
        let applied = machine.apply(&[entry]).unwrap();
        let now = machine.state.digests();
        let name = name.trim_start_matches(folder);
        digests += &format!("{name} content {:032x} chain {:032x}\n", now.content, now.chain);
        for (_, outcome) in applied.outcomes {
            digests += &match outcome {
                Ok(response) => format!("  {response:?}\n"),
                Err(rejection) => format!("  refused: {rejection}\n"),
            };
        }
    }
    let rows = encode_rows(&machine.store);
    let (digests_name, rows_name) = (format!("{folder}digests.txt"), format!("{folder}rows.bin"));
    if is_writing() {
        write(&digests_name, digests.as_bytes());
        write(&rows_name, &rows);
    }
    assert_eq!(digests, String::from_utf8(read(&digests_name)).unwrap());
    assert_eq!(rows, read(&rows_name), "the tables differ");
}

pub(crate) fn rows_load_to_the_state_that_wrote_them(golden: Golden) {
    let rows_name = format!("{}rows.bin", golden.folder);
    let mut machine = Machine::new();
    for (_, entry) in written(golden) {
        machine.apply(&[entry]).unwrap();
    }
    let store = decode_rows(&read(&rows_name));
    let state = State::load(&store).unwrap();
    assert_eq!(
        summary::of_state(&state, &store),
        summary::of_state(&machine.state, &machine.store)
    );
    assert_eq!(digest::recompute(&store).unwrap(), state.digests().content);
}

/// A log entry is forwarded and replicated as bytes; two binaries must write the same ones.
pub(crate) fn commands_encode_as_released(golden: Golden) {
    if is_writing() {
        return;
    }
    for (name, entry) in written(golden) {
        assert_eq!(entry.batch, read(&name), "{name}");
    }
}
