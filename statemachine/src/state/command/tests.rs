use expect_test::expect;
use prost::Message;
use proto::quorate;
use proto::quorate::command::Kind;

use super::*;
use crate::lease::LeaseChange;
use crate::testkit::Machine;

fn put(key: &str, value_bytes: usize) -> Kind {
    Kind::Put(etcd::PutRequest {
        key: key.to_owned().into(),
        value: vec![b'v'; value_bytes].into(),
        ..Default::default()
    })
}

fn settings(change: quorate::ChangeSettings) -> Kind {
    Kind::ChangeSettings(change)
}

#[test]
fn leases_hold_keys_until_they_are_revoked() {
    let mut machine = Machine::new();
    let told = machine.script(
        "
        grant 7 60
        grant 7 60
        grant 0 60
        grant 8 9000000001
        grant 8 9000000000
        grant 9 -5
        put b 1 lease=7
        put a 1 lease=7
        put c 1 lease=8
        put c 2 lease=7
        put d 1 lease=7
        put d 2
        put e 1 lease=99
        revoke 7
        revoke 7
        revoke 9
        get * *
        ",
    );
    expect![[r#"
        grant 7 60
          r1 lease 7 for 60 s
        grant 7 60
          refused: lease 7 exists already
        grant 0 60
          refused: lease has no id
        grant 8 9000000001
          refused: time to live of 9000000001 s is above 9000000000 s
        grant 8 9000000000
          r1 lease 8 for 9000000000 s
        grant 9 -5
          r1 lease 9 for 1 s
        put b 1 lease=7
          r2
        put a 1 lease=7
          r3
        put c 1 lease=8
          r4
        put c 2 lease=7
          r5
        put d 1 lease=7
          r6
        put d 2
          r7
        put e 1 lease=99
          refused: lease 99 does not exist
        revoke 7
          r8 revoked
        revoke 7
          refused: lease 7 does not exist
        revoke 9
          r8 revoked
        get * *
          r8 count 1 d=2 (c6 m7 v2)
    "#]]
    .assert_eq(&told);
    machine.check();
    assert_eq!(machine.state.n_leases(), 1);
    assert!(machine.state.lease(8).unwrap().keys.is_empty());
}

#[test]
fn expiry_takes_one_revision_a_lease_and_passes_over_missing_ones() {
    let mut machine = Machine::new();
    machine.script(
        "grant 1 5\n grant 2 5\n grant 3 5\n put b 1 lease=1\n put a 1 lease=1\n put c 1 lease=3",
    );
    let entry =
        machine.entry(vec![Kind::ExpireLeases(quorate::ExpireLeases { ids: vec![1, 2, 9, 3] })]);
    let applied = machine.apply(&[entry]).unwrap();
    let events: Vec<_> = applied
        .events
        .iter()
        .map(|event| (event.revision, event.sub, event.key().clone()))
        .collect();
    assert_eq!(events, [(5, 0, "a".into()), (5, 1, "b".into()), (6, 0, "c".into())]);
    let outcome = applied.outcomes[0].1.clone();
    assert_eq!(outcome, Ok(Response::LeasesExpired { ids: vec![1, 2, 3], revision: 6 }));
    let revoked = |id| LeaseChange::Revoked { id };
    assert_eq!(applied.touched.leases, [revoked(1), revoked(2), revoked(3)]);
    machine.check();
}

#[test]
fn a_fence_holds_only_in_its_own_leadership() {
    let mut machine = Machine::new();
    machine.term = 5;
    machine.node = 3;
    let mut run = |term, node| {
        let fence = Some(quorate::Fence { term, node });
        let entry = machine.entry_of(vec![quorate::Command { fence, kind: Some(put("a", 1)) }]);
        machine.apply(&[entry]).unwrap().outcomes.pop().unwrap().1
    };
    assert!(run(5, 3).is_ok());
    assert_eq!(run(4, 3), Err(Rejection::StaleFence { term: 4, node: 3 }));
    assert_eq!(run(5, 2), Err(Rejection::StaleFence { term: 5, node: 2 }));
    assert_eq!(run(6, 3), Err(Rejection::StaleFence { term: 6, node: 3 }));
    assert_eq!(machine.state.revision(), 2);
}

#[test]
fn a_full_keyspace_refuses_growth_and_raises_the_alarm() {
    let mut machine = Machine::new();
    machine.node = 3;
    let quota = |bytes| quorate::ChangeSettings { quota_bytes: Some(bytes), ..Default::default() };
    machine.run(settings(quota(2_000))).unwrap();
    // 256 + 1 + 743 bytes each.
    assert!(machine.run(put("a", 743)).is_ok());
    assert!(machine.run(put("b", 743)).is_ok());
    assert_eq!(machine.state.logical_bytes(), 2_000);
    let full = Rejection::NoSpace { size_bytes: 2_000, quota_bytes: 2_000 };
    assert_eq!(machine.run(put("c", 0)), Err(full));
    let alarms: Vec<_> = machine.state.alarms().collect();
    assert_eq!(alarms, [Alarm { kind: AlarmKind::NoSpace, member: 3 }]);
    let told = machine.script(
        "
        grant 1 5
        txn version a = 0 then put a 1 else get x
        txn version a = 0 then get a else get x
        del b
        compact 4
        put b 1
        ",
    );
    expect![[r#"
        grant 1 5
          refused: keyspace of 2000 bytes is at its quota of 2000 bytes
        txn version a = 0 then put a 1 else get x
          refused: keyspace of 2000 bytes is at its quota of 2000 bytes
        txn version a = 0 then get a else get x
          r3 else: r3 count 0
        del b
          r4 deleted 1
        compact 4
          r4 compacted
        put b 1
          refused: keyspace of 1000 bytes is at its quota of 2000 bytes
    "#]]
    .assert_eq(&told);
    // The deleted pair and its tombstone are compacted away.
    assert_eq!(machine.state.logical_bytes(), 1_000);
    let clear = etcd::AlarmRequest {
        action: etcd::alarm_request::AlarmAction::Deactivate.into(),
        member_id: 3,
        alarm: etcd::AlarmType::Nospace.into(),
    };
    machine.run(Kind::Alarm(clear)).unwrap();
    assert!(machine.run(put("b", 1)).is_ok());
    machine.check();
}

#[test]
fn a_corrupt_cluster_refuses_all_writes_and_a_corrupt_member_none() {
    let mut machine = Machine::new();
    machine.script("grant 1 5\n put a 1 lease=1");
    let of_member = |action: etcd::alarm_request::AlarmAction, member_id: u64| {
        Kind::Alarm(etcd::AlarmRequest {
            action: action.into(),
            member_id,
            alarm: etcd::AlarmType::Corrupt.into(),
        })
    };
    machine.run(of_member(etcd::alarm_request::AlarmAction::Activate, 2)).unwrap();
    assert!(machine.run(put("b", 1)).is_ok());
    let alarm = |action| of_member(action, 0);
    machine.run(alarm(etcd::alarm_request::AlarmAction::Activate)).unwrap();
    for line in ["put a 1", "del a", "txn", "compact 2", "grant 2 5", "revoke 1", "expire 1"] {
        let words: Vec<&str> = line.split_whitespace().collect();
        let kind = crate::testkit::script::command(&words);
        assert_eq!(machine.run(kind), Err(Rejection::Corrupt), "{line}");
    }
    machine.run(alarm(etcd::alarm_request::AlarmAction::Deactivate)).unwrap();
    assert!(machine.run(put("a", 1)).is_ok());
    machine.check();
}

#[test]
fn alarms_are_listed_raised_and_cleared() {
    let mut machine = Machine::new();
    let mut run = |action, member_id, alarm| {
        machine.run(Kind::Alarm(etcd::AlarmRequest { action, member_id, alarm })).map(|response| {
            let Response::Alarm(response) = response else { panic!("not of an alarm") };
            response.alarms.iter().map(|alarm| (alarm.alarm, alarm.member_id)).collect()
        })
    };
    assert_eq!(run(0, 0, 0), Ok(vec![]));
    assert_eq!(run(1, 5, 1), Ok(vec![(1, 5)]));
    assert_eq!(run(1, 5, 1), Ok(vec![(1, 5)]));
    assert_eq!(run(1, 4, 2), Ok(vec![(2, 4)]));
    assert_eq!(run(0, 0, 0), Ok(vec![(1, 5), (2, 4)]));
    assert_eq!(run(0, 0, 2), Ok(vec![(2, 4)]));
    assert_eq!(run(2, 9, 1), Ok(vec![]));
    assert_eq!(run(2, 5, 1), Ok(vec![(1, 5)]));
    assert_eq!(run(0, 0, 0), Ok(vec![(2, 4)]));
    assert_eq!(run(0, 0, 7), Err(Rejection::UnknownAlarm { alarm: 7, action: 0 }));
    assert_eq!(run(7, 0, 1), Err(Rejection::UnknownAlarm { alarm: 1, action: 7 }));
    machine.check();
}

#[test]
fn settings_change_within_their_bounds() {
    let mut machine = Machine::new();
    let change = quorate::ChangeSettings {
        root_path: Some("other".to_owned()),
        txn_ops_max: Some(2),
        ..Default::default()
    };
    machine.run(settings(change)).unwrap();
    let settings_now = machine.state.settings();
    assert_eq!((settings_now.root_path.as_str(), settings_now.txn_ops_max), ("other", 2));
    assert_eq!(settings_now.quota_bytes, limits::QUOTA_BYTES_DEFAULT);
    for root_path in ["", "/a", "a/", &"a".repeat(257)] {
        let change = quorate::ChangeSettings {
            root_path: Some(root_path.to_owned()),
            quota_bytes: Some(1),
            ..Default::default()
        };
        let refused = machine.run(settings(change)).unwrap_err();
        assert!(matches!(refused, Rejection::InvalidSetting { .. }), "{refused}");
    }
    assert_eq!(machine.state.settings().quota_bytes, limits::QUOTA_BYTES_DEFAULT);
    let told = machine.script("txn then put a 1 ; put b 1 ; put c 1");
    expect![[r#"
        txn then put a 1 ; put b 1 ; put c 1
          refused: transaction has 3 operations, the limit is 2
    "#]]
    .assert_eq(&told);
    machine.check();
}

#[test]
fn views_follow_a_new_root_path_in_the_middle_of_a_chunk() {
    let mut machine = Machine::new();
    let change = |root: &str| {
        settings(quorate::ChangeSettings { root_path: Some(root.to_owned()), ..Default::default() })
    };
    machine.run(put("by-dev/meta/session/datanode-1", 3)).unwrap();
    machine.run(put("other/meta/session/datanode-1", 3)).unwrap();
    machine.run_all(vec![
        put("other/meta/session/datanode-2", 3),
        change("other"),
        put("other/meta/session/datanode-3", 3),
    ]);
    machine.check();
    assert_eq!(machine.state.views().undecodable(), 3);
}

#[test]
fn a_level_beyond_this_binary_stops_it() {
    let mut machine = Machine::new();
    let known = crate::versions::KNOWN_LEVEL;
    let raise = |level| Kind::RaiseLevel(quorate::RaiseLevel { level });
    assert_eq!(machine.run(raise(known)), Ok(Response::LevelRaised { level: known }));
    assert_eq!(machine.run(raise(0)), Ok(Response::LevelRaised { level: known }));
    let too_new = machine.entry(vec![raise(known + 1)]);
    let fault = machine.apply(&[too_new]).unwrap_err();
    assert!(matches!(fault, Fault::UnknownLevel { needed, .. } if needed == known + 1));
    machine.check();
}

#[test]
fn an_entry_that_was_applied_is_a_fault() {
    let mut machine = Machine::new();
    let entry = machine.entry(vec![put("a", 1)]);
    machine.apply(std::slice::from_ref(&entry)).unwrap();
    let again = machine.apply(std::slice::from_ref(&entry)).unwrap_err();
    assert!(matches!(again, Fault::Invariant(_)), "{again}");
}

#[test]
fn time_never_goes_back() {
    let mut machine = Machine::new();
    machine.at_ms = 5_000;
    machine.run(put("a", 1)).unwrap();
    machine.at_ms = 4_000;
    machine.run(put("a", 1)).unwrap();
    assert_eq!(machine.state.at_ms(), 5_000);
    machine.check();
}

#[test]
fn an_empty_batch_is_fine() {
    let mut machine = Machine::new();
    let entry = machine.entry_of_runs(Vec::new());
    assert_eq!(entry.batch, quorate::Batch { at_ms: 1_000, ..Default::default() }.encode_to_vec());
    machine.apply(&[entry]).unwrap();
    machine.check();
}
