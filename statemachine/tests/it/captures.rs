//! What a stock Milvus 2.3.5 wrote, put through the state machine as its clients would put it.
//!
//! `metastore.tsv` is every write of one session on one clock: seconds, revision, put or delete,
//! key, lease, value in hex. Rows of one revision were one transaction.

use std::collections::BTreeMap;

use bytes::Bytes;
use expect_test::expect;
use proto::etcd;
use proto::etcd::request_op::Request;
use proto::quorate::command::Kind;
use statemachine::State;
use statemachine::testkit::Machine;

use crate::summary;

struct Row<'a> {
    key: &'a str,
    lease: i64,
    /// `None` deletes.
    value: Option<Bytes>,
}

/// Rows by the revision at which stock etcd had them.
fn recorded() -> BTreeMap<i64, Vec<Row<'static>>> {
    let mut revisions: BTreeMap<i64, Vec<Row<'_>>> = BTreeMap::new();
    for line in include_str!("../golden/captures/metastore.tsv").lines().skip(1) {
        let columns: Vec<&str> = line.split('\t').collect();
        let value = (columns[2] == "put").then(|| hex(columns[5]));
        let lease = columns[4].parse().unwrap_or_default();
        let row = Row { key: columns[3], lease, value };
        revisions.entry(columns[1].parse().unwrap()).or_default().push(row);
    }
    revisions
}

fn hex(text: &str) -> Bytes {
    let digit = |digit: u8| char::from(digit).to_digit(16).unwrap();
    let byte = |pair: &[u8]| u8::try_from(digit(pair[0]) << 4 | digit(pair[1])).unwrap();
    text.as_bytes().chunks(2).map(byte).collect()
}

fn operation(row: &Row<'static>) -> etcd::RequestOp {
    let key = Bytes::from_static(row.key.as_bytes());
    let request = match &row.value {
        Some(value) => Request::RequestPut(etcd::PutRequest {
            key,
            value: value.clone(),
            lease: row.lease,
            ..Default::default()
        }),
        None => Request::RequestDeleteRange(etcd::DeleteRangeRequest { key, ..Default::default() }),
    };
    etcd::RequestOp { request: Some(request) }
}

/// Plays the session; the revisions of our state run beside those of stock etcd.
fn play(machine: &mut Machine) {
    for (revision, rows) in recorded() {
        for lease in rows.iter().map(|row| row.lease).filter(|lease| *lease != 0) {
            if machine.state.lease(lease).is_none() {
                let grant = etcd::LeaseGrantRequest { id: lease, ttl: 60 };
                machine.run(Kind::LeaseGrant(grant)).unwrap();
            }
        }
        let success = rows.iter().map(operation).collect();
        machine.run(Kind::Txn(etcd::TxnRequest { success, ..Default::default() })).unwrap();
        assert_eq!(machine.state.revision(), revision, "nothing else counts revisions");
    }
}

#[test]
fn a_recorded_session_gives_the_revisions_of_stock_etcd_and_complete_views() {
    let mut machine = Machine::new();
    play(&mut machine);
    let views = machine.state.views();
    assert_eq!(views.troubles(3), []);
    assert_eq!(views.catalog().drift(), []);
    let lines = views.to_string();
    let lines = lines.lines().filter(|line| !line.starts_with("copy ")).map(|line| {
        let end = line.char_indices().nth(150).map_or(line.len(), |(end, _)| end);
        format!("{}\n", &line[..end])
    });
    expect![[r#"
        views of by-dev/meta/
        session rootcoord: server 1 at 127.0.0.1:53100 version 2.3.5 host vm lease 7587899080936756824 revision 19 exclusive
        session datacoord: server 1 at 127.0.0.1:13333 version 2.3.5 host vm lease 7587899080936756801 revision 11 exclusive
        session querycoord: server 1 at 127.0.0.1:19531 version 2.3.5 host vm lease 7587899080936756848 revision 21 exclusive
        session indexcoord: server 1 at 127.0.0.1:13333 version 2.3.5 host vm lease 7587899080936756797 revision 9 exclusive
        session proxy-1: server 1 at 127.0.0.1:19529 version 2.3.5 host vm lease 7587899080936756872 revision 24
        session datanode-1: server 1 at 127.0.0.1:21124 version 2.3.5 host vm lease 7587899080936756860 revision 23
        session querynode-1: server 1 at 127.0.0.1:21123 version 2.3.5 host vm lease 7587899080936756768 revision 6 index-engine 0..1
        session indexnode-1: server 1 at 127.0.0.1:21121 version 2.3.5 host vm lease 7587899080936756754 revision 4 disk
        session counter: 2
        database 1: "default" Created created 1795346582912229806 ns
        collection 1/470639334629834819: "c1" Dropping created 470639337900605448 shards 2 consistency 2 dynamic by-dev-rootcoord-dml_0_470639334629834819v0@b
        partition 470639334629834819/470639334629834820: "_default" Created created 470639337900605448
        partition 470639334629834819/470639334629834825: "p1" Dropping created 470639337926819848
        field 470639334629834819/0: "RowID" Int64
        field 470639334629834819/1: "Timestamp" Int64
        field 470639334629834819/100: "id" Int64 primary
        field 470639334629834819/101: "v" FloatVector dim=8
        field 470639334629834819/102: "s" VarChar max_length=64
        field 470639334629834819/103: "$meta" Json dynamic
    "#]].assert_eq(&lines.collect::<String>());

    let loaded = State::load(&machine.store).unwrap();
    assert_eq!(loaded.views(), views);
    assert_eq!(
        summary::of_state(&loaded, &machine.store),
        summary::of_state(&machine.state, &machine.store)
    );
}

#[test]
fn sessions_end_with_their_leases() {
    let mut machine = Machine::new();
    play(&mut machine);
    assert!(!machine.state.views().sessions().rows().is_empty());
    let leases: Vec<i64> = machine.state.leases().map(|(id, _)| id).collect();
    let expire = proto::quorate::ExpireLeases { ids: leases };
    machine.run(Kind::ExpireLeases(expire)).unwrap();
    assert!(machine.state.views().sessions().rows().is_empty());
    // What has no lease stays.
    assert!(!machine.state.views().catalog().collections().is_empty());
}
