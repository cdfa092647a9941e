use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn meta(number: u32) -> KeyMeta {
    let revision = i64::from(number);
    KeyMeta {
        mod_revision: revision,
        create_revision: revision / 2,
        version: revision % 7,
        lease: revision % 3,
        hash: u128::from(number).into(),
        sub: number,
        value_bytes: number,
    }
}

#[derive(Clone, Debug)]
enum Step {
    /// Many keys with a common stem, ascending or not.
    Insert {
        stem: u8,
        from: u16,
        n_keys: u16,
        stride: u16,
    },
    Remove {
        stem: u8,
        from: u16,
        n_keys: u16,
        stride: u16,
    },
    Odd(Vec<u8>),
    /// Keeps a copy of the index as it is, which the steps that follow must not change.
    Copy,
    Count(Vec<u8>, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let span = || (0..4_u8, 0..2_000_u16, 1..900_u16, 1..5_u16);
    let bound = || {
        prop_oneof![
            (0..5_u8, 0..3_000_u16).prop_map(|(stem, nth)| key(stem, nth)),
            prop::collection::vec(any::<u8>(), 0..4),
        ]
    };
    let step = prop_oneof![
        3 => span().prop_map(|(stem, from, n_keys, stride)| {
            Step::Insert { stem, from, n_keys, stride }
        }),
        2 => span().prop_map(|(stem, from, n_keys, stride)| {
            Step::Remove { stem, from, n_keys, stride }
        }),
        2 => prop::collection::vec(any::<u8>(), 0..4).prop_map(Step::Odd),
        1 => Just(Step::Copy),
        3 => (bound(), bound()).prop_map(|(start, end)| Step::Count(start, end)),
    ];
    prop::collection::vec(step, 1..40)
}

fn key(stem: u8, nth: u16) -> Vec<u8> {
    let stems = ["by-dev/meta/", "by-dev/meta/s/", "by-dev/kv/", "", "zz"];
    // Scattered, so that neighbours are not inserted one after the other.
    let nth = if stem == 1 { nth.reverse_bits() } else { nth };
    format!("{}{nth:05}", stems[usize::from(stem)]).into_bytes()
}

fn check_invariants(index: &KeyIndex, model: &BTreeMap<Vec<u8>, KeyMeta>) {
    assert_eq!(index.len(), model.len());
    let all: Vec<_> = model.iter().map(|(key, meta)| (key.clone(), *meta)).collect();
    assert_eq!(index.to_vec(), all);
    for group in &index.groups {
        group.check();
    }
}

fn check_range(index: &KeyIndex, model: &BTreeMap<Vec<u8>, KeyMeta>, range: &KeyRange<'_>) {
    let wanted: Vec<&Vec<u8>> = model.keys().filter(|key| range.contains(key)).collect();
    assert_eq!(index.count(range), wanted.len(), "{range:?}");
    let mut found = Vec::new();
    index.visit(range, &mut |key, _| {
        found.push(key.to_vec());
        ControlFlow::Continue(())
    });
    assert!(found.iter().eq(wanted.iter().copied()), "{range:?}");
    let mut backward = Vec::new();
    index.visit_backward(range, &mut |key, _| {
        backward.push(key.to_vec());
        ControlFlow::Continue(())
    });
    backward.reverse();
    assert_eq!(backward, found, "{range:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn index_equals_an_ordered_map(steps in steps()) {
        let mut index = KeyIndex::default();
        let mut model = BTreeMap::new();
        let mut number = 0;
        let mut copies = Vec::new();
        for step in steps {
            match step {
                Step::Insert { stem, from, n_keys, stride } => {
                    for nth in 0..n_keys {
                        let key = key(stem, from + nth * stride);
                        number += 1;
                        let meta = meta(number);
                        prop_assert_eq!(index.insert(&key, meta), model.insert(key, meta));
                    }
                }
                Step::Remove { stem, from, n_keys, stride } => {
                    for nth in 0..n_keys {
                        let key = key(stem, from + nth * stride);
                        prop_assert_eq!(index.remove(&key), model.remove(&key));
                        prop_assert_eq!(index.get(&key), None);
                    }
                }
                Step::Odd(key) => {
                    number += 1;
                    let meta = meta(number);
                    prop_assert_eq!(index.insert(&key, meta), model.insert(key.clone(), meta));
                    prop_assert_eq!(index.get(&key), Some(&meta));
                }
                Step::Copy => copies.push((index.clone(), model.clone())),
                Step::Count(start, end) => {
                    for end in [End::Before(&end), End::Unbounded, End::Single] {
                        check_range(&index, &model, &KeyRange { start: &start, end });
                    }
                }
            }
        }
        copies.push((index.clone(), model.clone()));
        for (copy, model) in &mut copies {
            check_invariants(copy, model);
            check_range(copy, model, &KeyRange::ALL);
            // A copy may be changed, too, and then changes no other one.
            copy.insert(b"of this copy", meta(1));
            model.insert(b"of this copy".to_vec(), meta(1));
        }
        for (copy, model) in &copies {
            check_invariants(copy, model);
        }
        check_invariants(&index, &model);
        for key in model.keys() {
            index.remove(key);
        }
        prop_assert_eq!(index.len(), 0);
        prop_assert_eq!(index.groups.len(), 0);
    }
}

#[test]
fn a_walk_ends_where_the_visitor_breaks() {
    let mut index = KeyIndex::default();
    for nth in 0..1_000 {
        index.insert(&key(0, nth), meta(1));
    }
    for walk in [KeyIndex::visit, KeyIndex::visit_backward] {
        let mut seen = 0;
        walk(&index, &KeyRange::ALL, &mut |_key, _meta| {
            seen += 1;
            if seen == 300 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert_eq!(seen, 300);
    }
}

#[test]
fn a_copy_costs_no_more_than_what_is_changed_after_it() {
    let mut index = KeyIndex::default();
    for nth in 0..60_000 {
        index.insert(&key(0, nth), meta(1));
    }
    let copy = index.clone();
    assert_eq!(copy.unshared_bytes(), 0);
    for nth in 0..100 {
        index.insert(&key(0, nth), meta(2));
    }
    let one_percent = index.memory_bytes() / 100;
    assert!((1..one_percent).contains(&copy.unshared_bytes()), "{}", copy.unshared_bytes());
    drop(index);
    assert!(copy.unshared_bytes() > copy.memory_bytes() * 9 / 10);
}

#[test]
fn appended_keys_equal_inserted_ones() {
    let (mut appended, mut inserted) = (KeyIndex::default(), KeyIndex::default());
    for nth in 0..40_000 {
        appended.append(&key(0, nth), meta(u32::from(nth)));
        inserted.insert(&key(0, nth), meta(u32::from(nth)));
    }
    assert_eq!(appended.to_vec(), inserted.to_vec());
    assert_eq!(appended.count(&KeyRange::ALL), 40_000);
}

#[test]
fn memory_beside_the_keys_is_within_its_bound() {
    for shuffled in [false, true] {
        let mut index = KeyIndex::default();
        let mut key_bytes = 0;
        for nth in 0..100_000_u64 {
            let number = if shuffled { nth.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 } else { nth };
            let key = format!("by-dev/meta/datacoord-meta/s/{number:020}");
            key_bytes += key.len();
            index.insert(key.as_bytes(), meta(7));
        }
        let beside = index.memory_bytes().saturating_sub(key_bytes) / index.len();
        assert!(beside <= 80, "{beside} bytes a key, shuffled: {shuffled}");
    }
}
