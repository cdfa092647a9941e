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
        segment 470639334630034833: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 733 of 849479 expir
        segment 470639334630034834: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 767 of 849479 expir
        segment 470639334630034939: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 3729 of 849479 expi
        segment 470639334630034940: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 3731 of 849479 expi
        segment 470639334630034955: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 11 of 849479 expire
        segment 470639334630034956: Dropped 470639334629834819/470639334629834825 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 260 of 849479 expir
        segment 470639334630034971: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 19 of 849479 expire
        segment 470639334630034972: Dropped 470639334629834819/470639334629834825 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 240 of 849479 expir
        segment 470639334630234850: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 770 of 849479 expir
        segment 470639334630234851: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 730 of 849479 expir
        segment 470639334630234870: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 747 of 849479 expir
        segment 470639334630234871: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 753 of 849479 expir
        segment 470639334630234889: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 760 of 849479 expir
        segment 470639334630234890: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 740 of 849479 expir
        segment 470639334630234906: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 730 of 849479 expir
        segment 470639334630234907: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 770 of 849479 expir
        segment 470639334630234925: Dropped 470639334629834819/470639334629834825 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 240 of 849479 expir
        segment 470639334630234926: Dropped 470639334629834819/470639334629834825 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 260 of 849479 expir
        segment 470639334630235015: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 11 of 849479 expire
        segment 470639334630235016: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 19 of 849479 expire
        segment 470639334630235182: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_0_470639334629834819v0 rows 1011 of 849479 expi
        segment 470639334630235183: Dropped 470639334629834819/470639334629834820 channel by-dev-rootcoord-dml_1_470639334629834819v1 rows 989 of 849479 expir
        logs of segment 470639334630034833: binlog field 0 files 1 entries 733 bytes 5864 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: binlog field 1 files 1 entries 733 bytes 5864 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: binlog field 100 files 1 entries 733 bytes 5864 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: binlog field 101 files 1 entries 733 bytes 23460 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: binlog field 102 files 1 entries 733 bytes 14846 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: binlog field 103 files 1 entries 733 bytes 13194 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034833: deltalog field 0 files 1 entries 15 bytes 652 from 470639343746416642 to 470639343851274241
        logs of segment 470639334630034833: statslog field 100 files 2 entries 0 bytes 1750 from 0 to 0
        logs of segment 470639334630034834: binlog field 0 files 1 entries 767 bytes 6136 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: binlog field 1 files 1 entries 767 bytes 6136 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: binlog field 100 files 1 entries 767 bytes 6136 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: binlog field 101 files 1 entries 767 bytes 24548 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: binlog field 102 files 1 entries 767 bytes 15544 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: binlog field 103 files 1 entries 767 bytes 13806 from 470639337926819851 to 470639337926819851
        logs of segment 470639334630034834: deltalog field 0 files 1 entries 25 bytes 690 from 470639343746416642 to 470639343851274241
        logs of segment 470639334630034834: statslog field 100 files 2 entries 0 bytes 1814 from 0 to 0
        logs of segment 470639334630034939: binlog field 0 files 1 entries 3729 bytes 9938 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: binlog field 1 files 1 entries 3729 bytes 504 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: binlog field 100 files 1 entries 3729 bytes 14050 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: binlog field 101 files 1 entries 3729 bytes 125456 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: binlog field 102 files 1 entries 3729 bytes 8240 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: binlog field 103 files 1 entries 3729 bytes 383 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034939: statslog field 100 files 1 entries 7458 bytes 4012 from 0 to 0
        logs of segment 470639334630034940: binlog field 0 files 1 entries 3731 bytes 9940 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: binlog field 1 files 1 entries 3731 bytes 504 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: binlog field 100 files 1 entries 3731 bytes 13337 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: binlog field 101 files 1 entries 3731 bytes 125520 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: binlog field 102 files 1 entries 3731 bytes 8301 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: binlog field 103 files 1 entries 3731 bytes 383 from 470639337926819851 to 470639340941475842
        logs of segment 470639334630034940: statslog field 100 files 1 entries 7462 bytes 3999 from 0 to 0
        logs of segment 470639334630034955: binlog field 0 files 1 entries 11 bytes 494 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: binlog field 1 files 1 entries 11 bytes 451 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: binlog field 100 files 1 entries 11 bytes 499 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: binlog field 101 files 1 entries 11 bytes 857 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: binlog field 102 files 1 entries 11 bytes 435 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: binlog field 103 files 1 entries 11 bytes 376 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034955: statslog field 100 files 1 entries 22 bytes 123 from 0 to 0
        logs of segment 470639334630034956: binlog field 0 files 1 entries 260 bytes 1057 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: binlog field 1 files 1 entries 260 bytes 458 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: binlog field 100 files 1 entries 260 bytes 1057 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: binlog field 101 files 1 entries 260 bytes 9131 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: binlog field 102 files 1 entries 260 bytes 1094 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: binlog field 103 files 1 entries 260 bytes 382 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034956: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630034956: statslog field 100 files 2 entries 520 bytes 780 from 0 to 0
        logs of segment 470639334630034971: binlog field 0 files 1 entries 19 bytes 515 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: binlog field 1 files 1 entries 19 bytes 452 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: binlog field 100 files 1 entries 19 bytes 516 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: binlog field 101 files 1 entries 19 bytes 1120 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: binlog field 102 files 1 entries 19 bytes 455 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: binlog field 103 files 1 entries 19 bytes 376 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630034971: statslog field 100 files 1 entries 38 bytes 124 from 0 to 0
        logs of segment 470639334630034972: binlog field 0 files 1 entries 240 bytes 978 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: binlog field 1 files 1 entries 240 bytes 458 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: binlog field 100 files 1 entries 240 bytes 978 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: binlog field 101 files 1 entries 240 bytes 8424 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: binlog field 102 files 1 entries 240 bytes 1003 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: binlog field 103 files 1 entries 240 bytes 382 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630034972: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630034972: statslog field 100 files 2 entries 480 bytes 740 from 0 to 0
        logs of segment 470639334630234850: binlog field 0 files 1 entries 770 bytes 6160 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: binlog field 1 files 1 entries 770 bytes 6160 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: binlog field 100 files 1 entries 770 bytes 6160 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: binlog field 101 files 1 entries 770 bytes 24644 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: binlog field 102 files 1 entries 770 bytes 15600 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: binlog field 103 files 1 entries 770 bytes 13860 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234850: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234850: statslog field 100 files 2 entries 0 bytes 1844 from 0 to 0
        logs of segment 470639334630234851: binlog field 0 files 1 entries 730 bytes 5840 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: binlog field 1 files 1 entries 730 bytes 5840 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: binlog field 100 files 1 entries 730 bytes 5840 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: binlog field 101 files 1 entries 730 bytes 23364 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: binlog field 102 files 1 entries 730 bytes 14790 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: binlog field 103 files 1 entries 730 bytes 13140 from 470639338660823042 to 470639338660823042
        logs of segment 470639334630234851: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234851: statslog field 100 files 2 entries 0 bytes 1756 from 0 to 0
        logs of segment 470639334630234870: binlog field 0 files 1 entries 747 bytes 5976 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: binlog field 1 files 1 entries 747 bytes 5976 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: binlog field 100 files 1 entries 747 bytes 5976 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: binlog field 101 files 1 entries 747 bytes 23908 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: binlog field 102 files 1 entries 747 bytes 15132 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: binlog field 103 files 1 entries 747 bytes 13446 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234870: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234870: statslog field 100 files 2 entries 0 bytes 1780 from 0 to 0
        logs of segment 470639334630234871: binlog field 0 files 1 entries 753 bytes 6024 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: binlog field 1 files 1 entries 753 bytes 6024 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: binlog field 100 files 1 entries 753 bytes 6024 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: binlog field 101 files 1 entries 753 bytes 24100 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: binlog field 102 files 1 entries 753 bytes 15258 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: binlog field 103 files 1 entries 753 bytes 13554 from 470639339460100097 to 470639339460100097
        logs of segment 470639334630234871: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234871: statslog field 100 files 2 entries 0 bytes 1796 from 0 to 0
        logs of segment 470639334630234889: binlog field 0 files 1 entries 760 bytes 6080 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: binlog field 1 files 1 entries 760 bytes 6080 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: binlog field 100 files 1 entries 760 bytes 6080 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: binlog field 101 files 1 entries 760 bytes 24324 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: binlog field 102 files 1 entries 760 bytes 15388 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: binlog field 103 files 1 entries 760 bytes 13680 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234889: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234889: statslog field 100 files 2 entries 0 bytes 1820 from 0 to 0
        logs of segment 470639334630234890: binlog field 0 files 1 entries 740 bytes 5920 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: binlog field 1 files 1 entries 740 bytes 5920 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: binlog field 100 files 1 entries 740 bytes 5920 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: binlog field 101 files 1 entries 740 bytes 23684 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: binlog field 102 files 1 entries 740 bytes 15002 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: binlog field 103 files 1 entries 740 bytes 13320 from 470639340272746497 to 470639340272746497
        logs of segment 470639334630234890: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234890: statslog field 100 files 2 entries 0 bytes 1780 from 0 to 0
        logs of segment 470639334630234906: binlog field 0 files 1 entries 730 bytes 5840 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: binlog field 1 files 1 entries 730 bytes 5840 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: binlog field 100 files 1 entries 730 bytes 5840 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: binlog field 101 files 1 entries 730 bytes 23364 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: binlog field 102 files 1 entries 730 bytes 14775 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: binlog field 103 files 1 entries 730 bytes 13140 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234906: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234906: statslog field 100 files 2 entries 0 bytes 1756 from 0 to 0
        logs of segment 470639334630234907: binlog field 0 files 1 entries 770 bytes 6160 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: binlog field 1 files 1 entries 770 bytes 6160 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: binlog field 100 files 1 entries 770 bytes 6160 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: binlog field 101 files 1 entries 770 bytes 24644 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: binlog field 102 files 1 entries 770 bytes 15615 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: binlog field 103 files 1 entries 770 bytes 13860 from 470639340941475842 to 470639340941475842
        logs of segment 470639334630234907: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234907: statslog field 100 files 2 entries 0 bytes 1844 from 0 to 0
        logs of segment 470639334630234925: binlog field 0 files 1 entries 240 bytes 1920 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: binlog field 1 files 1 entries 240 bytes 1920 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: binlog field 100 files 1 entries 240 bytes 1920 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: binlog field 101 files 1 entries 240 bytes 7684 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: binlog field 102 files 1 entries 240 bytes 4747 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: binlog field 103 files 1 entries 240 bytes 4320 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234925: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234925: statslog field 100 files 2 entries 0 bytes 740 from 0 to 0
        logs of segment 470639334630234926: binlog field 0 files 1 entries 260 bytes 2080 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: binlog field 1 files 1 entries 260 bytes 2080 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: binlog field 100 files 1 entries 260 bytes 2080 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: binlog field 101 files 1 entries 260 bytes 8324 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: binlog field 102 files 1 entries 260 bytes 5143 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: binlog field 103 files 1 entries 260 bytes 4680 from 470639341741015041 to 470639341741015041
        logs of segment 470639334630234926: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630234926: statslog field 100 files 2 entries 0 bytes 780 from 0 to 0
        logs of segment 470639334630235015: binlog field 0 files 1 entries 11 bytes 88 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: binlog field 1 files 1 entries 11 bytes 88 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: binlog field 100 files 1 entries 11 bytes 88 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: binlog field 101 files 1 entries 11 bytes 356 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: binlog field 102 files 1 entries 11 bytes 205 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: binlog field 103 files 1 entries 11 bytes 198 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235015: deltalog field 0 files 1 entries 11 bytes 643 from 470639343746416642 to 470639343851274241
        logs of segment 470639334630235015: statslog field 100 files 2 entries 0 bytes 248 from 0 to 0
        logs of segment 470639334630235016: binlog field 0 files 1 entries 19 bytes 152 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: binlog field 1 files 1 entries 19 bytes 152 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: binlog field 100 files 1 entries 19 bytes 152 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: binlog field 101 files 1 entries 19 bytes 612 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: binlog field 102 files 1 entries 19 bytes 355 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: binlog field 103 files 1 entries 19 bytes 342 from 470639343759523844 to 470639343759523844
        logs of segment 470639334630235016: deltalog field 0 files 1 entries 19 bytes 664 from 470639343746416642 to 470639343851274241
        logs of segment 470639334630235016: statslog field 100 files 2 entries 0 bytes 250 from 0 to 0
        logs of segment 470639334630235182: binlog field 0 files 1 entries 1011 bytes 3421 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: binlog field 1 files 1 entries 1011 bytes 458 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: binlog field 100 files 1 entries 1011 bytes 3434 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: binlog field 101 files 1 entries 1011 bytes 511 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: binlog field 102 files 1 entries 1011 bytes 384 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: binlog field 103 files 1 entries 1011 bytes 383 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235182: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630235182: statslog field 100 files 2 entries 1011 bytes 2340 from 0 to 470639350378397697
        logs of segment 470639334630235183: binlog field 0 files 1 entries 989 bytes 3318 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: binlog field 1 files 1 entries 989 bytes 458 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: binlog field 100 files 1 entries 989 bytes 3217 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: binlog field 101 files 1 entries 989 bytes 511 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: binlog field 102 files 1 entries 989 bytes 384 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: binlog field 103 files 1 entries 989 bytes 383 from 470639350378397697 to 470639350378397697
        logs of segment 470639334630235183: deltalog field 0 files 0 entries 0 bytes 0 from 0 to 0
        logs of segment 470639334630235183: statslog field 100 files 2 entries 989 bytes 2300 from 0 to 470639350378397697
        checkpoint of by-dev-rootcoord-dml_0_470639334629834819v0: 470639350404874243 revision 267
        checkpoint of by-dev-rootcoord-dml_1_470639334629834819v1: 470639350404874243 revision 266
        index 470639334630234944 of collection 470639334629834819: v field 101 create 470639342422327300 deleted true
        index 470639334630234961 of collection 470639334629834819: si field 102 create 470639342553661444 deleted true
        build 470639334630234945: Finished segment 470639334630034834 index 470639334630234944 version 0 node 0 rows 767 files 0 bytes 0 deleted false
        build 470639334630234946: Finished segment 470639334630234871 index 470639334630234944 version 0 node 0 rows 753 files 0 bytes 0 deleted false
        build 470639334630234947: Finished segment 470639334630234889 index 470639334630234944 version 0 node 0 rows 760 files 0 bytes 0 deleted false
        build 470639334630234948: Finished segment 470639334630234925 index 470639334630234944 version 0 node 0 rows 240 files 0 bytes 0 deleted false
        build 470639334630234949: Finished segment 470639334630034833 index 470639334630234944 version 0 node 0 rows 733 files 0 bytes 0 deleted false
        build 470639334630234950: Finished segment 470639334630234850 index 470639334630234944 version 0 node 0 rows 770 files 0 bytes 0 deleted false
        build 470639334630234951: Finished segment 470639334630234851 index 470639334630234944 version 0 node 0 rows 730 files 0 bytes 0 deleted false
        build 470639334630234952: Finished segment 470639334630234870 index 470639334630234944 version 0 node 0 rows 747 files 0 bytes 0 deleted false
        build 470639334630234953: Finished segment 470639334630234890 index 470639334630234944 version 0 node 0 rows 740 files 0 bytes 0 deleted false
        build 470639334630234954: Finished segment 470639334630234906 index 470639334630234944 version 0 node 0 rows 730 files 0 bytes 0 deleted false
        build 470639334630234955: Finished segment 470639334630234907 index 470639334630234944 version 0 node 0 rows 770 files 0 bytes 0 deleted false
        build 470639334630234956: Finished segment 470639334630234926 index 470639334630234944 version 0 node 0 rows 260 files 0 bytes 0 deleted false
        build 470639334630234962: Finished segment 470639334630234851 index 470639334630234961 version 0 node 0 rows 730 files 0 bytes 0 deleted false
        build 470639334630234963: Finished segment 470639334630234870 index 470639334630234961 version 0 node 0 rows 747 files 0 bytes 0 deleted false
        build 470639334630234964: Finished segment 470639334630234890 index 470639334630234961 version 0 node 0 rows 740 files 0 bytes 0 deleted false
        build 470639334630234965: Finished segment 470639334630234906 index 470639334630234961 version 0 node 0 rows 730 files 0 bytes 0 deleted false
        build 470639334630234966: Finished segment 470639334630234907 index 470639334630234961 version 0 node 0 rows 770 files 0 bytes 0 deleted false
        build 470639334630234967: Finished segment 470639334630234926 index 470639334630234961 version 0 node 0 rows 260 files 0 bytes 0 deleted false
        build 470639334630234968: Finished segment 470639334630034833 index 470639334630234961 version 0 node 0 rows 733 files 0 bytes 0 deleted false
        build 470639334630234969: Finished segment 470639334630234850 index 470639334630234961 version 0 node 0 rows 770 files 0 bytes 0 deleted false
        build 470639334630234970: Finished segment 470639334630234889 index 470639334630234961 version 0 node 0 rows 760 files 0 bytes 0 deleted false
        build 470639334630234971: Finished segment 470639334630234925 index 470639334630234961 version 0 node 0 rows 240 files 0 bytes 0 deleted false
        build 470639334630234972: Finished segment 470639334630034834 index 470639334630234961 version 0 node 0 rows 767 files 0 bytes 0 deleted false
        build 470639334630234973: Finished segment 470639334630234871 index 470639334630234961 version 0 node 0 rows 753 files 0 bytes 0 deleted false
        build 470639334630235033: Finished segment 470639334630235016 index 470639334630234944 version 0 node 0 rows 19 files 0 bytes 0 deleted false
        build 470639334630235035: Finished segment 470639334630235016 index 470639334630234961 version 0 node 0 rows 19 files 0 bytes 0 deleted false
        build 470639334630235036: Finished segment 470639334630235015 index 470639334630234944 version 0 node 0 rows 11 files 0 bytes 0 deleted false
        build 470639334630235037: Finished segment 470639334630235015 index 470639334630234961 version 0 node 0 rows 11 files 0 bytes 0 deleted false
        build 470639334630235057: Finished segment 470639334630034939 index 470639334630234961 version 1 node 1 rows 3729 files 2 bytes 9398 deleted false
        build 470639334630235058: Finished segment 470639334630034939 index 470639334630234944 version 1 node 1 rows 3729 files 1 bytes 224872 deleted false
        build 470639334630235059: Finished segment 470639334630034940 index 470639334630234944 version 1 node 1 rows 3731 files 1 bytes 225611 deleted false
        build 470639334630235060: Finished segment 470639334630034940 index 470639334630234961 version 1 node 1 rows 3731 files 2 bytes 9436 deleted false
        build 470639334630235115: Finished segment 470639334630034955 index 470639334630234944 version 0 node 0 rows 11 files 0 bytes 0 deleted false
        build 470639334630235116: Finished segment 470639334630034955 index 470639334630234961 version 0 node 0 rows 11 files 0 bytes 0 deleted false
        build 470639334630235117: Finished segment 470639334630034956 index 470639334630234944 version 0 node 0 rows 260 files 0 bytes 0 deleted false
        build 470639334630235118: Finished segment 470639334630034956 index 470639334630234961 version 0 node 0 rows 260 files 0 bytes 0 deleted false
        build 470639334630235176: Finished segment 470639334630034972 index 470639334630234944 version 0 node 0 rows 240 files 0 bytes 0 deleted false
        build 470639334630235177: Finished segment 470639334630034972 index 470639334630234961 version 0 node 0 rows 240 files 0 bytes 0 deleted false
        build 470639334630235178: Finished segment 470639334630034971 index 470639334630234944 version 0 node 0 rows 19 files 0 bytes 0 deleted false
        build 470639334630235179: Finished segment 470639334630034971 index 470639334630234961 version 0 node 0 rows 19 files 0 bytes 0 deleted false
        build 470639334630235191: Finished segment 470639334630235182 index 470639334630234944 version 0 node 0 rows 1011 files 0 bytes 0 deleted false
        build 470639334630235192: Finished segment 470639334630235182 index 470639334630234961 version 0 node 0 rows 1011 files 0 bytes 0 deleted false
        build 470639334630235193: Finished segment 470639334630235183 index 470639334630234944 version 0 node 0 rows 989 files 0 bytes 0 deleted false
        build 470639334630235194: Finished segment 470639334630235183 index 470639334630234961 version 0 node 0 rows 989 files 0 bytes 0 deleted false
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
