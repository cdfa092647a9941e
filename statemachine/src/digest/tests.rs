use super::*;
use crate::testkit::Machine;

#[test]
fn equal_contents_have_equal_digests_whatever_the_way() {
    let (mut one, mut other) = (Machine::new(), Machine::new());
    one.script("put a 1\n put b 1\n grant 5 9\n del b\n put b 2");
    other.script("grant 5 9\n put a 1\n put c 1\n del c\n put b 2");
    assert_eq!(one.state.digests().content, other.state.digests().content);
    assert_ne!(one.state.digests().chain, other.state.digests().chain);
    one.script("put a 1");
    assert_ne!(one.state.digests().content, other.state.digests().content);
}

#[test]
fn a_check_records_the_digests_after_its_whole_entry() {
    use proto::quorate::command::Kind;
    let put = |key: &str| {
        let key = key.to_owned().into();
        Kind::Put(proto::etcd::PutRequest { key, ..Default::default() })
    };
    let mut machine = Machine::new();
    let check = Kind::CheckDigest(proto::quorate::CheckDigest {});
    let entry = machine.entry(vec![put("a"), check, put("b")]);
    let applied = machine.apply(&[entry]).unwrap();
    let wanted = DigestCheck { index: 2, revision: 3, digests: machine.state.digests() };
    assert_eq!(applied.checks, [wanted]);
    assert_eq!(machine.state.digest_check(2), Some(wanted));
    assert_eq!(machine.state.digest_check(3), None);
    let content = machine.state.digests().content;
    machine.run(Kind::CheckDigest(proto::quorate::CheckDigest {})).unwrap();
    assert_eq!(machine.state.digests().content, content);
}

#[test]
fn damage_in_a_live_record_is_found_by_the_scan() {
    let mut machine = Machine::new();
    machine.script("put a 1\n put a 2\n put b 1");
    let keys: Vec<_> = machine.store.rows(Table::Event).map(|(key, _)| key.clone()).collect();
    let intact = machine.store.clone();
    // The superseded version of `a` is not part of the content.
    for (nth, is_live) in [(0, false), (1, true), (2, true)] {
        let mut row = machine.store.rows(Table::Event).nth(nth).unwrap().1.to_vec();
        *row.last_mut().unwrap() ^= 1;
        machine.store.rows_mut(Table::Event).insert(keys[nth].clone(), row.into());
        assert_eq!(recompute(&machine.store).is_err(), is_live);
        machine.store.rows_mut(Table::Event).remove(&keys[nth]);
        assert_eq!(recompute(&machine.store).is_err(), is_live);
        machine.store = intact.clone();
    }
}

#[test]
fn the_hash_for_clients_covers_history_up_to_a_revision() {
    let (mut one, mut other) = (Machine::new(), Machine::new());
    one.script("put a 1\n put b 1\n del a\n put c 1");
    other.script("put a 1\n put b 1\n del a\n put c 2");
    let hash = |machine: &Machine, compacted, revision| {
        hash_kv(&machine.store, compacted, revision).unwrap().hash
    };
    assert_eq!(hash(&one, 0, 4), hash(&other, 0, 4));
    assert_ne!(hash(&one, 0, 5), hash(&other, 0, 5));
    assert_ne!(hash(&one, 0, 4), hash(&one, 0, 3));
    assert_eq!(hash(&one, 0, 4), hash(&one, 3, 4), "reads at 3 see what 2 and 3 wrote");
    assert_ne!(hash(&one, 0, 4), hash(&one, 4, 4));
    assert_eq!(hash(&one, 1, 1), 0);
}
